import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

private let plain = Metadata(permissions: 0o644, uid: 0, gid: 0, modified: Timestamp(seconds: 1_700_000_000))

@Suite struct Writer {
    private func tree(_ build: (inout FileTree) throws -> Void) rethrows -> FileTree {
        var tree = FileTree(root: Metadata(permissions: 0o755, modified: Timestamp(seconds: 1_700_000_000)))
        try build(&tree)
        return tree
    }

    /// Everything that e2fsck complains about, over trees with the format's edge cases.
    @Test(arguments: 0..<10 as Range<UInt64>)
    func randomTrees(seed: UInt64) throws {
        let random = try RandomTree(seed: seed)
        let plan = try planOf(random.tree)
        #expect(plan.byteCount % 4096 == 0)
        try ImageFile(plan, random.contents).check("seed \(seed)")
        #expect(imageBytes(plan, random.contents) == imageBytes(try planOf(random.tree), random.contents))
        let larger = Ext4Options(size: .exactly(plan.byteCount + 200 << 20), label: "disk", journal: .automatic)
        try ImageFile(try planOf(random.tree, larger), random.contents).check("seed \(seed), with a journal")
    }

    @Test func throughTheKernel() throws {
        try requireLoopMounts()
        for seed in 0..<6 as Range<UInt64> {
            let random = try RandomTree(seed: seed)
            let image = try ImageFile(try planOf(random.tree), random.contents)
            let found = try withMount(image) { try describe(mounted: $0) }
            expectEqual(found, describe(random.tree, random.contents))
        }
    }

    /// The order in which a tree was made has no effect.
    @Test func orderOfBuilding() throws {
        let names: [ByteString] = ["a", "b", "c", "d"]
        func make(_ names: [ByteString]) throws -> FileTree {
            try tree { tree in
                for name in names {
                    let attributes = [ExtendedAttribute(name: "user.x", value: name)]
                    try tree.addLeaf(name, in: FileTree.root, Metadata(permissions: 0o600, extendedAttributes: attributes), .inline(name))
                }
            }
        }
        let one = try planOf(make(names))
        let other = try planOf(make(names.reversed()))
        #expect(one.uuid == other.uuid)
        #expect(imageBytes(one) == imageBytes(other))
        #expect(try planOf(make(["a", "b", "c", "e"])).uuid != one.uuid)
    }

    @Test func superblockAsDumpe2fsReadsIt() throws {
        let uuid = try #require(Ext4UUID((1...16).map { UInt8($0) }))
        let image = try ImageFile(
            try planOf(tree { _ in }, Ext4Options(size: .exactly(256 << 20), uuid: uuid, label: "cfsoci", journal: .blocks(2048))))
        try image.check()
        let (status, text) = try image.run("dumpe2fs $I")
        #expect(status == 0)
        func field(_ name: String) -> String? {
            text.split(separator: "\n").first { $0.hasPrefix(name + ":") }.map { line in
                String(line.dropFirst(name.count + 1)).split { $0 == " " || $0 == "\t" }.joined(separator: " ")
            }
        }
        #expect(field("Filesystem volume name") == "cfsoci")
        #expect(field("Filesystem UUID") == "01020304-0506-0708-090a-0b0c0d0e0f10")
        #expect(field("Directory Hash Seed") == "01020304-0506-0708-090a-0b0c0d0e0f10")
        #expect(
            field("Filesystem features")
                == "has_journal ext_attr resize_inode dir_index filetype extent 64bit sparse_super large_file huge_file dir_nlink extra_isize metadata_csum"
        )
        #expect(field("Filesystem flags") == "unsigned_directory_hash")
        #expect(field("Filesystem state") == "clean")
        #expect(field("Block count") == "65536")
        #expect(field("Block size") == "4096")
        #expect(field("Inode size") == "256")
        #expect(field("Reserved block count") == "0")
        #expect(field("Default directory hash") == "half_md4")
        #expect(field("Journal inode") == "8")
        #expect(field("Total journal blocks") == "2048")
        #expect(field("Default mount options") == "user_xattr acl")
    }

    /// Only directories of more than one block have an index.
    @Test func directoryIndex() throws {
        for count in [10, 1000] {
            let many = try tree { tree in
                for index in 0..<count { try tree.addLeaf(ByteString("name-\(index)-\u{fc}"), in: FileTree.root, plain, .fifo) }
            }
            let image = try ImageFile(try planOf(many))
            try image.check("\(count) entries")
            let (_, text) = try image.run("debugfs -R 'ls -p /' $I")
            #expect(text.split(separator: "\n").filter { $0.contains("name-") }.count == count)
            let index = try image.run("debugfs -R 'htree_dump /' $I")
            #expect(index.output.contains("Indirect levels: 0") == (count == 1000))
        }
    }

    @Test func twoLevelsOfIndex() throws {
        try requireLoopMounts()
        // About 1,000 leaves: more than one level addresses.
        let prefix = String(repeating: "n", count: 150)
        let many = try tree { tree in
            for index in 0..<24_000 { try tree.addLeaf(ByteString("\(prefix)-\(index)"), in: FileTree.root, plain, .fifo) }
        }
        let image = try ImageFile(try planOf(many))
        try image.check()
        #expect(try image.debugfs("htree_dump /").contains("Indirect levels: 1"))
        try withMount(image) { root in
            for index in stride(from: 0, to: 24_000, by: 97) {
                #expect(access("\(root)/\(prefix)-\(index)", F_OK) == 0)
            }
            #expect(access("\(root)/\(prefix)-24000", F_OK) != 0)
        }
    }

    @Test func aHundredThousandEntries() throws {
        try requireLoopMounts()
        let many = try tree { tree in
            let directory = try tree.addDirectory("many", in: FileTree.root, Metadata(permissions: 0o755))
            let one = try tree.addLeaf("0", in: directory, plain, .inline("x"))
            for index in 1..<100_000 {
                // All names of one inode cannot be more than 65,000.
                if index < 60_000 {
                    try tree.addLink(ByteString("\(index)"), in: directory, to: one)
                } else {
                    try tree.addLeaf(ByteString("\(index)"), in: directory, plain, .socket)
                }
            }
        }
        let image = try ImageFile(try planOf(many))
        try image.check()
        try withMount(image) { root in
            for index in stride(from: 0, to: 100_000, by: 997) { #expect(access("\(root)/many/\(index)", F_OK) == 0) }
            let names = try FileDescriptor.open(ByteString(root + "/many"), [.readOnly, .directory]).entries()
            #expect(names.count == 100_000)
        }
    }

    // MARK: Limits

    @Test func namesAndLinks() throws {
        let longest = ByteString([UInt8](repeating: 0xe4, count: 255))
        let fits = try tree { tree in
            let one = try tree.addLeaf(longest, in: FileTree.root, plain, .inline("x"))
            for index in 1..<65_000 { try tree.addLink(ByteString("\(index)"), in: FileTree.root, to: one) }
        }
        let image = try ImageFile(try planOf(fits))
        try image.check()
        var more = fits
        try more.addLink("last", in: FileTree.root, to: try #require(more.lookup(longest, in: FileTree.root)))
        #expect(throws: Ext4Error.unwritable(path: "/1", .tooManyLinks(65_001))) { try planOf(more) }
        let seventy = try tree { tree in
            let folder = try tree.addDirectory("d", in: FileTree.root, plain)
            let one = try tree.addLeaf("first", in: folder, plain, .inline("x"))
            for index in 1..<70_000 { try tree.addLink(ByteString("l\(index)"), in: folder, to: one) }
        }
        #expect(throws: Ext4Error.unwritable(path: "/d/first", .tooManyLinks(70_000))) { try planOf(seventy) }
        let long = try tree { try $0.addLeaf(ByteString([UInt8](repeating: 0x61, count: 256)), in: FileTree.root, plain, .fifo) }
        #expect(throws: Ext4Error.unwritable(path: ByteString([0x2f] + [UInt8](repeating: 0x61, count: 256)), .nameTooLong(bytes: 256))) {
            try planOf(long)
        }
    }

    @Test func manySubdirectories() throws {
        let many = try tree { tree in
            for index in 0..<65_100 { try tree.addDirectory(ByteString("\(index)"), in: FileTree.root, plain) }
        }
        let image = try ImageFile(try planOf(many))
        try image.check()
        #expect(try image.debugfs("stat /").contains("Links: 1 "))
    }

    @Test func whatCannotBeWritten() throws {
        let cases: [(Content, Ext4Error.Reason)] = [
            (.symbolicLink(ByteString([UInt8](repeating: 0x61, count: 4096))), .targetTooLong(bytes: 4096)),
            (.symbolicLink(""), .targetInvalid), (.symbolicLink(ByteString([0x61, 0, 0x62])), .targetInvalid),
            (.sparse(size: 1 << 44), .fileTooLarge(bytes: 1 << 44)),
            (.blockDevice(1 << 44), .deviceNumberTooLarge(1 << 44)),
        ]
        for (content, reason) in cases {
            let bad = try tree { try $0.addLeaf("x", in: FileTree.root, plain, content) }
            #expect(throws: Ext4Error.unwritable(path: "/x", reason)) { try planOf(bad) }
        }
        func attributes(_ list: [ExtendedAttribute]) throws -> FileTree {
            try tree { try $0.addLeaf("x", in: FileTree.root, Metadata(permissions: 0, extendedAttributes: list), .fifo) }
        }
        let many = (0..<300).map { ExtendedAttribute(name: ByteString("user.\($0)"), value: "") }
        let attributeCases: [([ExtendedAttribute], Ext4Error.Reason)] = [
            ([ExtendedAttribute(name: "", value: "")], .attributeNameInvalid("")),
            (
                [ExtendedAttribute(name: "user.x", value: ByteString([UInt8](repeating: 1, count: 65537)))],
                .attributeValueTooLong("user.x", bytes: 65537)
            ),
            ([ExtendedAttribute(name: "system.posix_acl_access", value: "x")], .accessControlListInvalid("system.posix_acl_access")),
            (many, .attributesTooLarge),
        ]
        for (list, reason) in attributeCases {
            #expect(throws: Ext4Error.unwritable(path: "/x", reason)) { try planOf(attributes(list)) }
        }
    }

    @Test func sizes() throws {
        var contents = Contents()
        let content = try contents.add([UInt8](repeating: 7, count: 3 << 20))
        let it = try tree { try $0.addLeaf("x", in: FileTree.root, plain, content) }
        let minimal = try planOf(it)
        #expect(minimal.byteCount < 6 << 20)
        try ImageFile(minimal, contents).check("minimal")
        let exact = try planOf(it, Ext4Options(size: .exactly(minimal.byteCount)))
        #expect(exact.byteCount == minimal.byteCount)
        try ImageFile(exact, contents).check("exactly the minimal size")
        for size in [0, 4096, 1 << 20, minimal.byteCount - 4096, minimal.byteCount - 1] as [UInt64] {
            #expect(throws: Ext4Error.tooSmall(bytes: size, needed: minimal.byteCount)) {
                try planOf(it, Ext4Options(size: .exactly(size)))
            }
        }
        // Sizes around the start of a second group.
        for size in [(128 << 20) - 4096, 128 << 20, (128 << 20) + 4096, (128 << 20) + (8 << 20), (1 << 30) + 12345] as [UInt64] {
            let plan = try planOf(it, Ext4Options(size: .exactly(size)))
            #expect(plan.byteCount == size / 4096 * 4096)
            try ImageFile(plan, contents).check("\(size) bytes")
        }
        let spare = try planOf(it, Ext4Options(size: .spare(bytes: 300 << 20, inodes: 50_000)))
        let image = try ImageFile(spare, contents)
        try image.check("with room")
        let (_, text) = try image.run("dumpe2fs -h $I")
        let free = text.split(separator: "\n").first { $0.hasPrefix("Free blocks:") }.flatMap { Int($0.split(separator: " ")[2]) }
        #expect(try #require(free) >= 300 << 8)
        #expect(throws: Ext4Error.tooLarge(bytes: 1 << 45)) { try planOf(it, Ext4Options(size: .exactly(1 << 45))) }
    }

    /// More than 128 groups, so that descriptors and copies of the superblock have their full form.
    @Test func manyGroups() throws {
        let plan = try planOf(tree { _ in }, Ext4Options(size: .exactly(130 << 27), journal: .automatic))
        let image = try ImageFile(plan)
        try image.check()
        #expect(try image.run("dumpe2fs $I 2>/dev/null | grep -c '^Group [0-9]'").output == "130\n")
        #expect(try image.run("dumpe2fs -o superblock=32768 -o blocksize=4096 -h $I").status == 0)
    }

    @Test func sparseFiles() throws {
        try requireLoopMounts()
        var contents = Contents()
        // 9 MiB of which only three blocks are data.
        var bytes = [UInt8](repeating: 0, count: 9 << 20)
        bytes[0] = 1
        bytes[(4 << 20) + 5] = 2
        bytes[bytes.count - 1] = 3
        let content = try contents.add(bytes)
        let it = try tree {
            try $0.addLeaf("holes", in: FileTree.root, plain, content)
            try $0.addLeaf("large", in: FileTree.root, plain, .sparse(size: 6 << 30))
            try $0.addLeaf("largest", in: FileTree.root, plain, .sparse(size: 0xffff_fffe << 12))
        }
        let plan = try Ext4Plan(it, Ext4Options()) { _, _ in [5..<(4 << 20), ((4 << 20) + 6)..<((9 << 20) - 1)] }
        #expect(plan.placements.reduce(0) { $0 + $1.byteCount } == 3 * 4096)
        let image = try ImageFile(plan, contents)
        try image.check()
        try withMount(image) { root in
            #expect(try FileDescriptor.open(ByteString(root + "/holes"), .readOnly).readAll(limit: 1 << 24) == bytes)
            let status = try FileDescriptor.currentDirectory.status(at: ByteString(root + "/holes"))
            #expect(status.blocks == 24)
            #expect(try FileDescriptor.currentDirectory.status(at: ByteString(root + "/large")).size == 6 << 30)
            #expect(try FileDescriptor.currentDirectory.status(at: ByteString(root + "/largest")).size == 0xffff_fffe << 12)
        }
    }

    /// A file over many groups needs blocks for its extents, and one with many holes needs two levels.
    @Test func extentTrees() throws {
        let id = try #require(ObjectID(algorithm: .sha256, bytes: [UInt8](repeating: 1, count: 32)))
        let large = try tree { try $0.addLeaf("large", in: FileTree.root, plain, .external(id, size: (5 << 30) + 1)) }
        let image = try ImageFile(try planOf(large))
        try image.check("5 GiB")
        #expect(try image.debugfs("extents /large").contains(" 0/ 1"))
        let holes = (0..<3000 as Range<UInt64>).map { (block: UInt64) -> Range<UInt64> in
            let start = block * 8192
            return (start + 4096)..<(start + 8192)
        }
        let fragmented = try tree { try $0.addLeaf("f", in: FileTree.root, plain, .external(id, size: 3000 * 8192)) }
        let second = try ImageFile(try Ext4Plan(fragmented, Ext4Options()) { _, _ in holes })
        try second.check("3,000 extents")
        #expect(try second.debugfs("extents /f").contains(" 0/ 2"))
    }

    @Test func optionsThatAreRefused() throws {
        let empty = FileTree(root: plain)
        #expect(throws: Ext4Error.invalidOption(.journalBlocks(1023))) { try planOf(empty, Ext4Options(journal: .blocks(1023))) }
        #expect(throws: Ext4Error.invalidOption(.reservedDescriptorBlocks(1024))) {
            try planOf(empty, Ext4Options(reservedDescriptorBlocks: 1024))
        }
        #expect(throws: Ext4Error.invalidOption(.label("12345678901234567"))) { try planOf(empty, Ext4Options(label: "12345678901234567")) }
        try ImageFile(try planOf(empty, Ext4Options(reservedDescriptorBlocks: 0, hasLostAndFound: false))).check("without extras")
    }
}
