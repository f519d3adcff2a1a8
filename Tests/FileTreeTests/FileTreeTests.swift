import ComposefsBytes
import ComposefsFileTree
import Testing

@Suite struct FileTreeChanges {
    private let plain = Metadata(permissions: 0o755)

    @Test func addLookupRemove() throws {
        var tree = FileTree(root: plain)
        let etc = try tree.addDirectory("etc", in: FileTree.root, plain)
        let hosts = try tree.addLeaf("hosts", in: etc, Metadata(permissions: 0o644, uid: 7), .inline("localhost"))
        try tree.addLink("hosts2", in: FileTree.root, to: hosts)
        #expect(tree.linkCount(of: hosts) == 2)
        #expect(tree.lookup(path: "/etc/hosts") == hosts)
        #expect(tree.lookup(path: "hosts2") == hosts)
        #expect(tree.content(of: hosts) == .inline("localhost"))
        #expect(tree.metadata(of: hosts).uid == 7)
        #expect(throws: FileTreeError.exists) {
            var copy = tree
            try copy.addLeaf("hosts", in: etc, plain, .fifo)
        }
        #expect(throws: FileTreeError.notADirectory) {
            var copy = tree
            try copy.addLeaf("x", in: hosts, plain, .fifo)
        }
        #expect(throws: FileTreeError.hardLinkToDirectory) {
            var copy = tree
            try copy.addLink("y", in: FileTree.root, to: etc)
        }
        let first = tree.remove("etc", from: FileTree.root)
        let second = tree.remove("etc", from: FileTree.root)
        #expect(first && !second)
        #expect(tree.linkCount(of: hosts) == 1)
        #expect(tree.lookup(path: "etc/hosts") == nil)
        let again = try tree.addDirectory("etc", in: FileTree.root, plain)
        #expect(tree.entries(of: again).isEmpty)
    }

    @Test(arguments: ["", ".", "..", "a/b", "a\0"] as [String])
    func badNames(name: String) {
        let tree = FileTree(root: plain)
        #expect(throws: FileTreeError.invalidName(ByteString(name))) {
            var copy = tree
            try copy.addLeaf(ByteString(name), in: FileTree.root, plain, .fifo)
        }
    }

    @Test func sortedByBytes() throws {
        var tree = FileTree(root: plain)
        let names: [ByteString] = [
            "b", "a", ByteString([0xff]), "-", "a.b", "ab", ByteString([0xc3, 0xa9]), "aaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaa",
        ]
        for name in names { try tree.addLeaf(name, in: FileTree.root, plain, .fifo) }
        #expect(tree.sortedEntries(of: FileTree.root).map(tree.name(of:)) == names.sorted())
        #expect(names.sorted().first == "-")
        #expect(names.sorted().last == ByteString([0xff]))
    }

    @Test func manyEntriesSurviveRemovals() throws {
        var tree = FileTree(root: plain)
        for round in 0..<3 {
            for index in 0..<5000 { try tree.addLeaf(ByteString("f\(index)"), in: FileTree.root, plain, .sparse(size: UInt64(round))) }
            for index in stride(from: 0, to: 5000, by: 2) {
                let removed = tree.remove(ByteString("f\(index)"), from: FileTree.root)
                #expect(removed)
            }
            #expect(tree.entries(of: FileTree.root).count == 2500)
            #expect(tree.lookup("f4999", in: FileTree.root) != nil)
            #expect(tree.lookup("f4998", in: FileTree.root) == nil)
            tree.removeChildren(of: FileTree.root)
        }
        #expect(tree.entries(of: FileTree.root).isEmpty)
    }

    @Test func attributesAreSharedAndMapped() throws {
        var tree = FileTree(root: plain)
        let label = ExtendedAttribute(name: "security.selinux", value: "x")
        let user = ExtendedAttribute(name: "user.a", value: "1")
        let both = Metadata(permissions: 0o644, extendedAttributes: [user, label])
        let first = try tree.addLeaf("1", in: FileTree.root, both, .fifo)
        let second = try tree.addLeaf("2", in: FileTree.root, both, .fifo)
        #expect(tree.extendedAttributes(of: first) == [label, user])
        #expect(tree.extendedAttributeGroup(of: first) == tree.extendedAttributeGroup(of: second))
        tree.mapExtendedAttributes { $0.filter { $0.name.hasPrefix("user.") } }
        #expect(tree.extendedAttributes(of: second) == [user])
        #expect(tree.extendedAttributes(of: FileTree.root).isEmpty)
    }

    @Test func deepRemovalNeedsNoStack() throws {
        var tree = FileTree(root: plain)
        var at = FileTree.root
        for _ in 0..<100_000 { at = try tree.addDirectory("d", in: at, plain) }
        tree.remove("d", from: FileTree.root)
        #expect(tree.linkCount(of: at) == 0)
    }

    @Test func deviceNumbers() {
        // glibc: makedev(8, 1) = 0x801, makedev(4095, 1048575) = 0xffffffff.
        #expect(Content.deviceNumber(major: 8, minor: 1) == 0x801)
        #expect(Content.deviceNumber(major: 4095, minor: 1_048_575) == 0xffff_ffff)
    }
}
