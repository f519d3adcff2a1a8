internal import ComposefsBytes

/// The superblock of an image, checked.
struct Superblock: Sendable {
    /// The first 1,024 bytes, as they are in the image.
    var bytes: [UInt8]
    let features: Features
    let blocks: UInt64
    let inodes: UInt32
    let blocksPerGroup: Int
    let inodesPerGroup: Int
    let groups: Int
    let reservedDescriptorBlocks: Int
    let uuid: Ext4UUID
    let checksums: Checksums
    /// Nil if the superblock does not say which form of the hash the directories have.
    let hash: DirectoryHash?

    private typealias Layout = SuperblockLayout

    private static let knownIncompatible =
        Features.Incompatible.fileType | Features.Incompatible.extents | Features.Incompatible.wide | Features.Incompatible.flexibleGroups
        | Features.Incompatible.attributeValues | Features.Incompatible.checksumSeed | Features.Incompatible.largeDirectory
    private static let knownReadOnly =
        Features.written.readOnly | Features.ReadOnly.quota | Features.ReadOnly.project | Features.ReadOnly.orphanPresent

    /// Reads the superblock, and checks that all of its file system is in the source.
    init(_ source: some RandomAccessBytes, verifiesChecksums: Bool = true) throws {
        var bytes = [UInt8](repeating: 0, count: Layout.size)
        let length = try bytes.withUnsafeMutableBytes { try source.read(at: UInt64(Ext4Format.superblockOffset), into: $0) }
        func at(_ field: Int) -> UInt64 { UInt64(Ext4Format.superblockOffset + field) }
        guard length == Layout.size else { throw Ext4Error.notExt4(offset: at(length), "\(source.byteCount) bytes are too few") }
        guard bytes.load(UInt16.self, at: Layout.magic) == Ext4Format.magic else {
            throw Ext4Error.notExt4(offset: at(Layout.magic), "there is no superblock")
        }
        self.bytes = bytes
        features = Features(
            compatible: bytes.load(UInt32.self, at: Layout.compatible), incompatible: bytes.load(UInt32.self, at: Layout.incompatible),
            readOnly: bytes.load(UInt32.self, at: Layout.readOnly))
        guard features.readOnly & Features.ReadOnly.checksums != 0, bytes[Layout.checksumType] == 1 else {
            throw Ext4Error.unsupported("no checksums of metadata")
        }
        if verifiesChecksums {
            guard Checksums.superblock(bytes) == bytes.load(UInt32.self, at: Layout.checksum) else {
                throw Ext4Error.damaged(inode: 0, offset: at(Layout.checksum), "the superblock's checksum is wrong")
            }
        }
        guard features.incompatible & Features.Incompatible.recover == 0 else { throw Ext4Error.notClean(.journal) }
        let strange = features.incompatible & ~Self.knownIncompatible
        guard strange == 0 else { throw Ext4Error.unsupported("incompatible features 0x\(String(strange, radix: 16))") }
        let needed = Features.written.incompatible
        guard features.incompatible & needed == needed else {
            throw Ext4Error.unsupported("no extents, file types or 64-bit block numbers")
        }
        let strangeReadOnly = features.readOnly & ~Self.knownReadOnly
        guard strangeReadOnly == 0 else { throw Ext4Error.unsupported("read-only features 0x\(String(strangeReadOnly, radix: 16))") }
        guard features.readOnly & Features.ReadOnly.sparseSuper != 0, features.compatible & Features.Compatible.sparseSuper2 == 0 else {
            throw Ext4Error.unsupported("copies of the superblock in other groups")
        }
        guard bytes.load(UInt32.self, at: Layout.blockSizeLog) == 2, bytes.load(UInt32.self, at: Layout.firstDataBlock) == 0 else {
            throw Ext4Error.unsupported("blocks that do not have 4096 bytes")
        }
        guard bytes.load(UInt32.self, at: Layout.revision) == 1,
            bytes.load(UInt16.self, at: Layout.inodeSize) == UInt16(Ext4Format.inodeSize)
        else { throw Ext4Error.unsupported("inodes that do not have 256 bytes") }
        guard bytes.load(UInt16.self, at: Layout.descriptorSize) == UInt16(DescriptorLayout.size) else {
            throw Ext4Error.unsupported("group descriptors that do not have 64 bytes")
        }
        let perGroup = bytes.load(UInt32.self, at: Layout.blocksPerGroup)
        let inodesPerGroup = bytes.load(UInt32.self, at: Layout.inodesPerGroup)
        guard perGroup == UInt32(Ext4Format.blocksPerGroup) else { throw Ext4Error.unsupported("groups of \(perGroup) blocks") }
        guard inodesPerGroup > 0, inodesPerGroup <= UInt32(Ext4Format.maximumInodesPerGroup),
            inodesPerGroup % UInt32(Ext4Format.inodesPerBlock) == 0
        else {
            throw Ext4Error.damaged(inode: 0, offset: at(Layout.inodesPerGroup), "a group has \(inodesPerGroup) inodes")
        }
        blocks = UInt64(bytes.load(UInt32.self, at: Layout.blocksLow)) | UInt64(bytes.load(UInt32.self, at: Layout.blocksHigh)) << 32
        guard blocks > 0, blocks <= source.byteCount >> Ext4Format.blockBits else {
            throw Ext4Error.damaged(
                inode: 0, offset: at(Layout.blocksLow), "\(blocks) blocks do not fit in a file of \(source.byteCount) bytes")
        }
        let groups = Geometry.groups(blocks: blocks)
        inodes = bytes.load(UInt32.self, at: Layout.inodes)
        guard UInt64(inodes) == UInt64(groups) * UInt64(inodesPerGroup) else {
            throw Ext4Error.damaged(
                inode: 0, offset: at(Layout.inodes), "\(inodes) inodes are not \(groups) groups of \(inodesPerGroup)")
        }
        blocksPerGroup = Int(perGroup)
        self.inodesPerGroup = Int(inodesPerGroup)
        self.groups = groups
        reservedDescriptorBlocks = Int(bytes.load(UInt16.self, at: Layout.reservedDescriptorBlocks))
        guard let uuid = Ext4UUID(Array(bytes[Layout.uuid..<(Layout.uuid + 16)])) else { preconditionFailure("a UUID has 16 bytes") }
        self.uuid = uuid
        if features.incompatible & Features.Incompatible.checksumSeed != 0 {
            checksums = Checksums(seed: bytes.load(UInt32.self, at: Layout.checksumSeed))
        } else {
            checksums = Checksums(uuid: uuid.bytes)
        }
        let seed = Array(bytes[Layout.hashSeed..<(Layout.hashSeed + 16)])
        switch bytes.load(UInt32.self, at: Layout.flags) & (Ext4Format.signedHash | Ext4Format.unsignedHash) {
        case Ext4Format.signedHash: hash = DirectoryHash(seed: seed, isSigned: true)
        case Ext4Format.unsignedHash: hash = DirectoryHash(seed: seed, isSigned: false)
        default: hash = nil
        }
    }

    var geometry: Geometry {
        Geometry(
            blocks: blocks, inodesPerGroup: inodesPerGroup, groups: groups, reservedDescriptorBlocks: reservedDescriptorBlocks)
    }
}
