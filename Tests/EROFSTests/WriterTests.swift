import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import Testing

@testable import ComposefsEROFS

private let plain = Metadata(permissions: 0o644)

extension [UInt8] {
    func integer<Value: FixedWidthInteger>(_ offset: Int, as _: Value.Type) -> Value {
        withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }

    mutating func set<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
        Swift.withUnsafeBytes(of: value.littleEndian) { replaceSubrange(offset..<(offset + $0.count), with: $0) }
    }
}

@Suite struct Writer {
    @Test func chunkFormats() {
        for (size, format) in [(1, 0), (2, 0), (4096, 0), (4097, 1), (1 << 20, 8)] as [(UInt64, Int)] {
            #expect(Erofs.chunkFormat(size: size) == format)
        }
        #expect(Erofs.chunkFormat(size: (1 << 20) + 1) == 9)
        #expect(Erofs.chunkFormat(size: 1 << 43) == 31)
        #expect(Erofs.chunkFormat(size: .max) == 31)
        #expect(Erofs.chunkTableSize(size: 0) == 0)
        #expect(Erofs.chunkTableSize(size: 1 << 43) == 4)
        #expect(Erofs.chunkTableSize(size: (1 << 43) + 1) == 8)
        #expect(Erofs.chunkTableSize(size: .max) == 4 << 21)
    }

    /// Values of the xxHash project's documentation and of its `xxhsum`.
    @Test func xxHash() {
        func hash(_ text: String, _ seed: UInt32) -> UInt32 { Array(text.utf8).withUnsafeBytes { xxHash32($0, seed: seed) } }
        #expect(hash("", 0) == 0x02cc_5d05)
        #expect(hash("", 0x9e37_79b1) == 0x36b7_8ae7)
        #expect(hash("abc", 0) == 0x32d1_53ff)
        #expect(hash("Nobody inspects the spammish repetition", 0) == 0xe229_3b2f)
    }

    /// The bytes of an empty tree in version 2, field by field from the format's description.
    @Test func emptyTreeVersion2() throws {
        let image = try writeErofs(FileTree(root: Metadata(permissions: 0o755)), version: .v2)
        #expect(image.count == 4096)
        #expect(image.integer(0, as: UInt32.self) == 0xd078_629a)
        #expect(image.integer(12, as: UInt32.self) == 2)
        #expect(image.integer(1024, as: UInt32.self) == 0xe0f5_e1e2)
        #expect(image.integer(1024 + 14, as: UInt16.self) == 36)
        #expect(image.integer(1024 + 16, as: UInt64.self) == 1)
        #expect(image.integer(1024 + 36, as: UInt32.self) == 1)
        #expect(image.integer(0x480, as: UInt16.self) == 5)
        #expect(image.integer(0x484, as: UInt16.self) == 0o40755)
        #expect(image.integer(0x488, as: UInt64.self) == 27)
        #expect(image.integer(0x494, as: UInt32.self) == 36)
        #expect(image.integer(0x4ac, as: UInt32.self) == 2)
        #expect(
            Array(image[0x4c0..<0x4db]) == [36, 0, 0, 0, 0, 0, 0, 0, 24, 0, 2, 0, 36, 0, 0, 0, 0, 0, 0, 0, 25, 0, 2, 0, 0x2e, 0x2e, 0x2e])
        #expect(image[0x4db...].allSatisfy { $0 == 0 })
    }

    @Test func inodeNumbersVersion2() throws {
        let image = try writeErofs(Golden.simple(), version: .v2)
        // The root's listing: '.', '..', then the seven names in order.
        let numbers = (0..<9).map { image.integer(1152 + 64 + 12 * $0, as: UInt64.self) }
        #expect(numbers == [36, 36, 44, 46, 48, 50, 57, 60, 62])
    }

    /// Removed entries and the order of additions have no influence.
    @Test(arguments: ErofsVersion.allCases)
    func onlyTheReachableCounts(version: ErofsVersion) throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let gone = try tree.addDirectory("gone", in: FileTree.root, plain)
        let kept = try tree.addLeaf("kept", in: gone, plain, .external(try digest(9), size: 9))
        try tree.addLeaf("old", in: gone, Metadata(permissions: 0, modified: Timestamp(seconds: -5)), .external(try digest(9), size: 9))
        try tree.addLink("b", in: FileTree.root, to: kept)
        tree.remove("gone", from: FileTree.root)
        try tree.addLeaf("a", in: FileTree.root, plain, .fifo)

        var fresh = FileTree(root: Metadata(permissions: 0o755))
        try fresh.addLeaf("a", in: FileTree.root, plain, .fifo)
        try fresh.addLeaf("b", in: FileTree.root, plain, .external(try digest(9), size: 9))
        #expect(try writeErofs(tree, version: version) == writeErofs(fresh, version: version))
    }

    @Test(arguments: ErofsVersion.allCases)
    func deepTreesNeedNoStack(version: ErofsVersion) throws {
        var tree = FileTree(root: plain)
        var at = FileTree.root
        for _ in 0..<20_000 { at = try tree.addDirectory("d", in: at, plain) }
        let image = try ErofsImage(writeErofs(tree, version: version))
        #expect(image.inodeCount == 20_001 + (version == .v2 ? 0 : 256))
        #expect(throws: ErofsError.self) { try image.tree() }
    }

    @Test(arguments: [1, 2, 7])
    func manyNamesFillBlocks(length: Int) throws {
        // 4096 bytes hold 4096 / (12 + length) entries. Test around that number, half of it and twice it.
        let full = 4096 / (12 + 3 + length)
        for count in [full / 2 - 3, full / 2, full / 2 + 3, full - 3, full, full + 1, 3 * full / 2, 2 * full] {
            var tree = FileTree(root: plain)
            let directory = try tree.addDirectory("d", in: FileTree.root, plain)
            for index in 0..<count {
                let name = "\(index + 100)" + String(repeating: "x", count: length)
                try tree.addLeaf(ByteString(name), in: directory, plain, .socket)
            }
            for version in ErofsVersion.allCases {
                let image = try writeErofs(tree, version: version)
                let again = try ErofsImage(image).tree()
                let found = try #require(again.lookup("d", in: FileTree.root))
                #expect(again.sortedEntries(of: found).map(again.name(of:)) == tree.sortedEntries(of: directory).map(tree.name(of:)))
                #expect(try writeErofs(again, version: version) == image)
            }
        }
    }

    // MARK: What cannot be written

    private func reason(_ version: ErofsVersion, _ make: (inout FileTree) throws -> Void) throws -> ErofsError? {
        var tree = FileTree(root: plain)
        let directory = try tree.addDirectory("dir", in: FileTree.root, plain)
        try make(&tree)
        _ = directory
        do throws(ErofsError) {
            _ = try writeErofs(tree, version: version)
            return nil
        } catch {
            return error
        }
    }

    private func add(_ name: ByteString, _ content: Content, _ metadata: Metadata = plain) -> (inout FileTree) throws -> Void {
        { tree in
            let directory = try #require(tree.lookup("dir", in: FileTree.root))
            try tree.addLeaf(name, in: directory, metadata, content)
        }
    }

    @Test(arguments: ErofsVersion.allCases)
    func refusals(version: ErofsVersion) throws {
        let long = ByteString([UInt8](repeating: 0x6e, count: 256))
        #expect(try reason(version, add(long, .fifo)) == .unwritable(path: "/dir/" + long, .nameTooLong(bytes: 256)))
        #expect(try reason(version, add(ByteString(long.bytes.dropLast()), .fifo)) == nil)

        let target = ByteString([UInt8](repeating: 0x6e, count: 4096))
        #expect(try reason(version, add("l", .symbolicLink(target))) == .unwritable(path: "/dir/l", .targetTooLong(bytes: 4096)))
        // The longest target that readers of the version and kernels accept.
        let limit = version == .v2 ? 1024 : 4095
        #expect(try reason(version, add("l", .symbolicLink(ByteString(target.bytes.prefix(limit))))) == nil)
        let longer = try reason(version, add("l", .symbolicLink(ByteString(target.bytes.prefix(limit + 1)))))
        #expect(longer == .unwritable(path: "/dir/l", .targetTooLong(bytes: limit + 1)))
        #expect(longer?.description.hasSuffix("is \(limit)") == true)

        #expect(try reason(version, add("b", .blockDevice(1 << 32))) == .unwritable(path: "/dir/b", .deviceNumberTooLarge(1 << 32)))
        #expect(try reason(version, add("b", .characterDevice(0xffff_ffff))) == nil)

        let linked = try reason(version) { tree in
            let leaf = try tree.addLeaf("w", in: FileTree.root, plain, .characterDevice(0))
            try tree.addLink("v", in: FileTree.root, to: leaf)
        }
        guard case .unwritable(_, .linkedWhiteout) = linked else {
            Issue.record("\(String(describing: linked))")
            return
        }
    }

    @Test(arguments: ErofsVersion.allCases)
    func refusedAttributes(version: ErofsVersion) throws {
        func with(_ attributes: [ExtendedAttribute]) throws -> ErofsError? {
            try reason(version, add("x", .fifo, Metadata(permissions: 0, extendedAttributes: attributes)))
        }
        let name = ByteString("user." + String(repeating: "n", count: 256))
        #expect(try with([.init(name: name, value: "")]) == .unwritable(path: "/dir/x", .attributeNameTooLong(name)))
        #expect(try with([.init(name: ByteString(name.bytes.dropLast()), value: "")]) == nil)
        // Escaping makes a name longer.
        let escaped = ByteString("trusted.overlay." + String(repeating: "n", count: 240))
        let stored = ByteString("trusted.overlay.overlay." + String(repeating: "n", count: 240))
        #expect(try with([.init(name: escaped, value: "")]) == .unwritable(path: "/dir/x", .attributeNameTooLong(stored)))

        let value = ByteString([UInt8](repeating: 1, count: 65536))
        #expect(
            try with([.init(name: "user.a", value: value)]) == .unwritable(path: "/dir/x", .attributeValueTooLong("user.a", bytes: 65536)))
        #expect(try with([.init(name: "user.a", value: ByteString(value.bytes.dropLast()))]) == nil)
        #expect(try with([.init(name: "", value: "")]) == .unwritable(path: "/dir/x", .attributeNameInvalid("")))
        #expect(try with([.init(name: "user.\0", value: "")]) == .unwritable(path: "/dir/x", .attributeNameInvalid("user.\0")))

        let five = (0..<5).map { ExtendedAttribute(name: ByteString("user.\($0)"), value: ByteString(value.bytes.dropLast())) }
        guard case .unwritable("/dir/x", .attributesTooLarge) = try with(five) else {
            Issue.record("attributes of 320 KiB were accepted")
            return
        }
        let many = (0..<256).map { ExtendedAttribute(name: ByteString("user.\($0)"), value: "") }
        let shared = try reason(version) { tree in
            for name in ["1", "2"] as [ByteString] {
                try tree.addLeaf(name, in: FileTree.root, Metadata(permissions: 0, extendedAttributes: many), .fifo)
            }
        }
        guard case .unwritable(_, .tooManySharedAttributes(256)) = shared else {
            Issue.record("\(String(describing: shared))")
            return
        }
        #expect(try with(many) == nil)
    }

    @Test func refusedInOneVersionOnly() throws {
        let long = Content.inline(ByteString([UInt8](repeating: 1, count: 4096)))
        #expect(try reason(.v1, add("f", long)) == nil)
        #expect(try reason(.v2, add("f", long)) == .unwritable(path: "/dir/f", .inlineContentTooLong(bytes: 4096)))
        let odd = Metadata(permissions: 0, modified: Timestamp(seconds: 0, nanoseconds: 1_000_000_000))
        #expect(try reason(.v0, add("f", .fifo, odd)) == .unwritable(path: "/dir/f", .nanosecondsTooLarge(1_000_000_000)))
        #expect(try reason(.v2, add("f", .fifo, odd)) == nil)
    }

    @Test func messages() {
        #expect(
            ErofsError.unwritable(path: "/a\n", .nameTooLong(bytes: 300)).description
                == "cannot write '/a\\x0a' to an EROFS image: the name has 300 bytes, the limit is 255")
        #expect(
            ErofsError.damaged(nid: 40, path: nil, "it overlaps").description == "damaged EROFS image: it overlaps (inode 40, offset 1280)")
    }
}
