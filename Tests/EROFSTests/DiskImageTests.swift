import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsTestSupport
import Testing

/// Images for disks. Offsets and values are those of linux/fs/erofs/erofs_fs.h and of the mkfs of erofs-utils.
@Suite struct DiskImageTests {
    private let plain = Metadata(permissions: 0o755, modified: Timestamp(seconds: 1_700_000_000, nanoseconds: 5))

    private func id(_ number: UInt8) throws -> ObjectID {
        try #require(ObjectID(algorithm: .sha256, bytes: [UInt8](repeating: number, count: 32)))
    }

    /// The content that the test gives to an object.
    private func content(_ id: ObjectID, _ size: UInt64) -> [UInt8] {
        [UInt8](repeating: id.withUnsafeBytes { $0[0] ^ $0[31] | 1 }, count: Int(size))
    }

    private func metadata(_ plan: ErofsDiskPlan) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(plan.contentStart) * 4096)
        var end: UInt64 = 0
        plan.writeMetadata { part, offset in
            #expect(offset >= end, "ascending")
            end = offset + UInt64(part.count)
            bytes.replaceSubrange(Int(offset)..<Int(end), with: part)
        }
        #expect(bytes.count == Int(plan.contentStart) * 4096)
        return bytes
    }

    private func image(_ plan: ErofsDiskPlan) -> [UInt8] {
        var bytes = metadata(plan)
        bytes += [UInt8](repeating: 0, count: Int(plan.byteCount) - bytes.count)
        for placement in plan.placements {
            #expect(placement.offset % 4096 == 0)
            bytes.replaceSubrange(
                Int(placement.offset)..<Int(placement.offset + placement.byteCount), with: content(placement.object, placement.byteCount))
        }
        return bytes
    }

    private func number(_ bytes: [UInt8], _ offset: Int, _ width: Int = 4) -> UInt64 {
        (0..<width).reduce(0) { $0 | UInt64(bytes[offset + $1]) << (8 * UInt64($1)) }
    }

    /// The superblock's checksum by the definition of CRC-32C, bit by bit.
    private func checksum(_ image: [UInt8]) -> UInt64 {
        var block = Array(image[1024..<4096])
        block.replaceSubrange(4..<8, with: [0, 0, 0, 0])
        var crc = UInt32.max
        for byte in block {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
        }
        return UInt64(crc)
    }

    @Test func superblockOfAnImageWithContents() throws {
        var tree = FileTree(root: plain)
        try tree.addLeaf("a", in: FileTree.root, plain, .external(try id(1), size: 5000))
        try tree.addLeaf("b", in: FileTree.root, plain, .external(try id(2), size: 4096))
        // The same object: the same blocks.
        try tree.addLeaf("c", in: FileTree.root, plain, .external(try id(1), size: 5000))
        let plan = try ErofsDiskPlan(tree)
        let bytes = image(plan)
        // Superblock and inodes are one block each.
        #expect(plan.blockCount == 5 && bytes.count == 5 * 4096)
        #expect(number(bytes, 1024) == 0xe0f5_e1e2 && number(bytes, 1028) == checksum(bytes) && number(bytes, 1032) == 1)
        #expect(number(bytes, 1036, 1) == 12 && number(bytes, 1038, 2) == 0 && number(bytes, 1040, 8) == 4)
        #expect(number(bytes, 1024 + 36) == 5 && number(bytes, 1024 + 40) == 1 && number(bytes, 1024 + 80) == 0)
        #expect(number(bytes, 1024 + 86, 2) == 0)
        #expect(plan.placements.map(\.offset) == [2 * 4096, 4 * 4096])
        let files = DiskReader(bytes).files()
        let first = content(try id(1), 5000)
        #expect(files["/a"]?.content == first && files["/c"]?.content == first)
        #expect(files["/c"]?.first == "/c" && files["/a"]?.links == 1)
    }

    @Test func mergedImageAddressesItsDevices() throws {
        var lower = FileTree(root: plain)
        try lower.addLeaf("a", in: FileTree.root, plain, .external(try id(1), size: 10_000))
        var upper = FileTree(root: plain)
        try upper.addLeaf("b", in: FileTree.root, plain, .external(try id(2), size: 1))
        // Also in the lower one, which is read then.
        try upper.addLeaf("c", in: FileTree.root, plain, .external(try id(1), size: 10_000))
        let layers = [try ErofsDiskPlan(lower), try ErofsDiskPlan(upper)]
        var space = ErofsBlockSpace()
        for layer in layers { try space.append(layer) }
        var merged = FileTree(root: plain)
        for (name, number, size) in [("a", 1, 10_000), ("b", 2, 1), ("c", 1, 10_000)] as [(ByteString, UInt8, UInt64)] {
            try merged.addLeaf(name, in: FileTree.root, plain, .external(try id(number), size: size))
        }
        let withDevices = try ErofsDiskPlan(merged, .space(space, .devices))
        let onOneDisk = try ErofsDiskPlan(merged, .space(space, .oneDisk))
        let bytes = metadata(withDevices)
        #expect(withDevices.placements.isEmpty && withDevices.blockCount == 2 && number(bytes, 1028) == checksum(bytes))
        // DEVICE_TABLE, two devices, in units of 128 bytes from 1152 on.
        #expect(number(bytes, 1024 + 80) == 8 && number(bytes, 1024 + 86, 2) == 2 && number(bytes, 1024 + 88, 2) == 9)
        let sizes = layers.map { UInt64($0.blockCount) }
        // A block for the superblock, one for the inodes, and the objects: 3, and 1 + 3.
        #expect(sizes == [5, 6])
        #expect(number(bytes, 1024 + 36) == 2)
        #expect(number(bytes, 1152 + 64) == 5 && number(bytes, 1152 + 68) == 2)
        #expect(number(bytes, 1280 + 64) == 6 && number(bytes, 1280 + 68) == 7)
        let one = metadata(onOneDisk)
        #expect(number(one, 1024 + 36) == 13 && number(one, 1024 + 80) == 0 && number(one, 1024 + 86, 2) == 0)
        #expect(Array(one[4096...]) == Array(bytes[4096...]), "the two forms differ in the first block only")
        // Joined, it is one image.
        let files = DiskReader(one + layers.flatMap(image)).files()
        let (first, second) = (content(try id(1), 10_000), content(try id(2), 1))
        #expect(files["/a"]?.content == first && files["/b"]?.content == second && files["/c"]?.content == first)
    }

    /// The table needs a second block from 24 devices on.
    @Test func manyDevices() throws {
        for (count, block) in [(23, 1), (24, 2), (127, 5)] as [(Int, UInt64)] {
            var space = ErofsBlockSpace()
            for _ in 0..<count { try space.append(try ErofsDiskPlan(FileTree(root: plain))) }
            let bytes = metadata(try ErofsDiskPlan(FileTree(root: plain), .space(space, .devices)))
            #expect(number(bytes, 1024 + 40) == block && number(bytes, 1028) == checksum(bytes))
            #expect(number(bytes, 1152 + 128 * (count - 1) + 68) == block + 1 + 2 * UInt64(count - 1))
            #expect(DiskReader(bytes).files().count == 1)
        }
    }

    /// Names before the dot, large directories, shared attributes, tails, targets, devices, holes: read back without the writer's code.
    @Test(arguments: 0..<12) func readsBack(seed: UInt64) throws {
        let tree = try RandomTree(seed: seed, isPortable: false).tree
        // Larger ones take too long without optimisation; `DiskTests` has images of them.
        guard tree.inodeCapacity < 250 else { return }
        let bounded = try bounded(tree)
        let plan = try ErofsDiskPlan(bounded)
        let bytes = image(plan)
        let files = DiskReader(bytes).files()
        let expected = expectedFiles(bounded) { inode in
            switch bounded.content(of: inode) {
            case .external(let id, let size), .externalWithoutVerity(let id, let size): content(id, size)
            default: nil
            }
        }
        #expect(Set(files.keys) == Set(expected.keys))
        for (path, file) in files { #expect(file == expected[path], "\(path)") }
        #expect(image(try ErofsDiskPlan(bounded)) == bytes)
    }

    /// Objects of at most 9,000 bytes, each with one size.
    private func bounded(_ tree: FileTree) throws -> FileTree {
        var tree = tree
        var sizes: [ObjectID: UInt64] = [:]
        var pending = [FileTree.root]
        while let next = pending.popLast() {
            for entry in tree.entries(of: next) {
                let inode = tree.inode(of: entry)
                switch tree.content(of: inode) {
                case nil: pending.append(inode)
                case .external(let id, let size), .externalWithoutVerity(let id, let size):
                    let known = sizes[id, default: size % 9_000]
                    sizes[id] = known
                    try tree.setContent(of: inode, to: .external(id, size: known))
                default: break
                }
            }
        }
        return tree
    }

    @Test func refusesWhatTheFormatCannotExpress() throws {
        var long = FileTree(root: plain)
        let name = ByteString(String(repeating: "n", count: 256))
        let directory = try long.addDirectory("d", in: FileTree.root, plain)
        try long.addDirectory(name, in: directory, plain)
        #expect(throws: ErofsError.unwritable(path: "/d", .nameTooLong(bytes: 256))) { try ErofsDiskPlan(long) }
        var wide = FileTree(root: plain)
        let value = ExtendedAttribute(name: "user.a", value: ByteString([UInt8](repeating: 1, count: 65_536)))
        try wide.addLeaf("f", in: FileTree.root, Metadata(permissions: 0, extendedAttributes: [value]), .fifo)
        #expect(throws: ErofsError.unwritable(path: "/f", .attributeValueTooLong("user.a", bytes: 65_536))) { try ErofsDiskPlan(wide) }
        var large = FileTree(root: plain)
        try large.addLeaf("f", in: FileTree.root, plain, .external(try id(1), size: 1 << 44))
        #expect(throws: ErofsError.self) { try ErofsDiskPlan(large) }
    }
}
