import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import Testing

@Suite struct RoundTrip {
    /// Everything except nanoseconds, which version 2 does not store.
    private func comparable(_ tree: FileTree, _ version: ErofsVersion) -> [UInt8] {
        var tree = tree
        if version == .v2 {
            var pending = [FileTree.root]
            while let next = pending.popLast() {
                tree.setModified(of: next, to: Timestamp(seconds: tree.modified(of: next).seconds))
                pending += tree.entries(of: next).map(tree.inode(of:))
            }
        }
        return dumpfile(of: tree)
    }

    private func references(of tree: FileTree) -> [ObjectID] {
        var found: Set<ObjectID> = []
        var pending = [FileTree.root]
        while let next = pending.popLast() {
            switch tree.content(of: next) {
            case .external(let id, _), .externalWithoutVerity(let id, _): found.insert(id)
            default: pending += tree.entries(of: next).map(tree.inode(of:))
            }
        }
        return found.sorted()
    }

    private func check(_ tree: FileTree, _ version: ErofsVersion) throws {
        let bytes = try writeErofs(tree, version: version)
        let image = try ErofsImage(bytes)
        #expect(image.version == version)
        try image.checkMetadata()
        let again = try image.tree()
        #expect(comparable(again, version) == comparable(tree, version))
        #expect(try writeErofs(again, version: version) == bytes)
        #expect(image.objectReferences() == references(of: tree))
    }

    @Test(arguments: ErofsVersion.allCases)
    func goldenTrees(version: ErofsVersion) throws {
        try check(FileTree(root: Metadata(permissions: 0o755)), version)
        try check(Golden.simple(), version)
        for dump in [Dumps.special, Dumps.base, Dumps.linked, Dumps.bootable] { try check(tree(dump), version) }
    }

    @Test(arguments: 100..<124 as Range<UInt64>)
    func randomTrees(seed: UInt64) throws {
        let tree = try RandomTree(seed: seed, isPortable: false).tree
        for version in ErofsVersion.allCases { try check(tree, version) }
    }

    @Test(arguments: ErofsVersion.allCases)
    func bothDigestLengths(version: ErofsVersion) throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let long = try digest(7, .sha512)
        try tree.addLeaf("a", in: FileTree.root, Metadata(permissions: 0), .external(long, size: 1))
        try tree.addLeaf("b", in: FileTree.root, Metadata(permissions: 0), .external(long, size: 2))
        try tree.addLeaf("c", in: FileTree.root, Metadata(permissions: 0), .externalWithoutVerity(try digest(1, .sha512), size: 2))
        try check(tree, version)
        let bytes = try writeErofs(tree, version: version)
        #expect(try ErofsImage(bytes, algorithm: .sha512).objectReferences().count == 2)
        #expect(throws: ErofsError.self) { try ErofsImage(bytes, algorithm: .sha256) }
    }

    /// Larger than what is written at once, as a whole and in its parts: a directory, contents, and shared attributes.
    @Test(arguments: ErofsVersion.allCases)
    func largerThanItsWindow(version: ErofsVersion) throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let many = try tree.addDirectory("many", in: FileTree.root, Metadata(permissions: 0o755))
        for number in 0..<60_000 {
            let metadata = Metadata(permissions: 0o644, uid: UInt32(number % 70_000), modified: Timestamp(seconds: Int64(number)))
            let name = ByteString("a name of some length that makes the directory large \(number)")
            try tree.addLeaf(name, in: many, metadata, number % 3 == 0 ? .symbolicLink(name) : .inline(name))
        }
        if version != .v2 {
            let content = ByteString((0..<3_000_001).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 255) })
            try tree.addLeaf("large", in: FileTree.root, Metadata(permissions: 0o644), .inline(content))
        }
        for number in 0..<200 {
            let value = ByteString([UInt8](repeating: UInt8(number), count: 12_000))
            let metadata = Metadata(permissions: 0o644, extendedAttributes: [ExtendedAttribute(name: "user.value", value: value)])
            for copy in 0..<2 { try tree.addLeaf(ByteString("shared \(number) \(copy)"), in: FileTree.root, metadata, .inline("")) }
        }
        try check(tree, version)
        let plan = try ErofsPlan(tree, version: version)
        var (image, largest) = ([UInt8](), 0)
        plan.write { part in
            image.append(contentsOf: part)
            largest = max(largest, part.count)
        }
        #expect(image.count == plan.byteCount && image.count > 8 << 20 && largest < image.count / 2)
        #expect(plan.identifier(.sha512) == image.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) })
    }

    /// Whiteouts, and attributes that resemble those that the format adds, are restored.
    @Test(arguments: ErofsVersion.allCases)
    func whiteoutsAndLookAlikes(version: ErofsVersion) throws {
        func with(_ names: [ByteString]) -> Metadata {
            Metadata(permissions: 0o640, extendedAttributes: names.map { ExtendedAttribute(name: $0, value: "v") })
        }
        var tree = FileTree(root: Metadata(permissions: 0o755, extendedAttributes: [.init(name: "security.selinux", value: "root_t")]))
        for name in ["0a", "AB", "deleted"] as [ByteString] {
            try tree.addLeaf(name, in: FileTree.root, Metadata(permissions: 0), .characterDevice(0))
        }
        let directory = try tree.addDirectory("d", in: FileTree.root, with(["trusted.overlay.opaque", "user.overlay.whiteouts"]))
        try tree.addLeaf("f", in: directory, with(["trusted.overlay.redirect", "user.overlay.whiteout"]), .inline("x"))
        let second = try tree.addDirectory("e", in: FileTree.root, with(["user.x"]))
        try tree.addLeaf("w", in: second, with(["user.x"]), .characterDevice(0))
        try tree.addLeaf("marked", in: second, with(["trusted.overlay.whiteout"]), .inline("not empty"))
        try check(tree, version)
    }

    /// A whiteout that equals one of the format's own is not read as part of the tree, so that writing again gives the same bytes.
    @Test func stubsOfTheTree() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755, uid: 3))
        let bytes = try writeErofs(tree, version: .v1)
        try tree.addLeaf("ab", in: FileTree.root, Metadata(permissions: 0o644, uid: 3), .characterDevice(0))
        #expect(try writeErofs(tree, version: .v1) == bytes)
        #expect(try ErofsImage(bytes).inodeCount == 257)
        let again = try ErofsImage(bytes).tree()
        #expect(again.entries(of: FileTree.root).isEmpty)
    }
}
