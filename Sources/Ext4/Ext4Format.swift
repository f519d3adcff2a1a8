internal import ComposefsBytes
internal import ComposefsFileTree

/// Constants of the on-disk format (fs/ext4/ext4.h, ext4_extents.h, xattr.h).
enum Ext4Format {
    static let blockSize = 4096
    static let blockBits: UInt64 = 12
    /// A block bitmap is one block, so this is the largest number of blocks that a group can have.
    static let blocksPerGroup = 32768
    static let maximumInodesPerGroup = 32768
    static let inodeSize = 256
    static let inodesPerBlock = blockSize / inodeSize
    static let descriptorsPerBlock = blockSize / DescriptorLayout.size
    /// The size of `i_block` in bytes.
    static let blockMapSize = 60
    /// The number of block numbers in an indirect block.
    static let pointersPerBlock = blockSize / 4
    static let superblockOffset = 1024
    static let magic: UInt16 = 0xef53

    static let rootInode: UInt32 = 2
    static let resizeInode: UInt32 = 7
    static let journalInode: UInt32 = 8
    static let firstInode: UInt32 = 11

    /// `EXT4_LINK_MAX`.
    static let maximumLinks: UInt32 = 65000
    static let maximumNameLength = 255
    static let maximumTargetLength = 4095
    /// The kernel's `XATTR_SIZE_MAX`.
    static let maximumValueSize = 65536
    /// Logical block numbers have 32 bits, and the last one is reserved (`EXT_MAX_BLOCKS`).
    static let maximumFileBlocks: UInt64 = 0xffff_fffe
    /// 16 TiB: block numbers that are written have 32 bits.
    static let maximumBlocks: UInt64 = 1 << 32

    /// Times that a 256-byte inode stores: -2^31 … 2^34 - 2^31 - 1 seconds.
    static let earliestSecond: Int64 = -(1 << 31)
    static let latestSecond: Int64 = (1 << 34) - (1 << 31) - 1

    static let extraInodeSize: UInt16 = 32
    static let attributeMagic: UInt32 = 0xea02_0000

    // i_flags
    static let flagIndexed: UInt32 = 0x1000
    static let flagHugeFile: UInt32 = 0x4_0000
    static let flagExtents: UInt32 = 0x8_0000
    static let flagAttributeValue: UInt32 = 0x20_0000
    static let flagInlineData: UInt32 = 0x1000_0000
    static let flagEncrypted: UInt32 = 0x800
    static let flagVerity: UInt32 = 0x10_0000
    static let flagCasefold: UInt32 = 0x4000_0000

    static let extentMagic: UInt16 = 0xf30a
    /// `EXT_INIT_MAX_LEN`; a larger length marks an extent as allocated but not written.
    static let maximumExtentLength = 32768
    static let extentsInInode = 4
    static let extentsInBlock = 340
    /// `EXT4_MAX_EXTENT_DEPTH`.
    static let maximumExtentDepth: UInt16 = 5

    static let halfMD4: UInt8 = 1
    static let tailType: UInt8 = 0xde

    // s_flags
    static let signedHash: UInt32 = 1
    static let unsignedHash: UInt32 = 2

    static let journalMagic: UInt32 = 0xc03b_3998

    /// The directory entry type (`EXT4_FT_*`).
    static func entryType(_ kind: FileTree.Kind) -> UInt8 { kind.rawValue }

    static func blocks(_ bytes: UInt64) -> UInt64 { (bytes >> blockBits) + (bytes & 4095 == 0 ? 0 : 1) }

    @inline(__always)
    static func align(_ value: Int, to alignment: Int) -> Int { (value + alignment - 1) / alignment * alignment }
}

/// The three sets of features in a superblock.
struct Features: Equatable {
    var compatible: UInt32
    var incompatible: UInt32
    var readOnly: UInt32

    enum Compatible {
        static let journal: UInt32 = 0x4
        static let attributes: UInt32 = 0x8
        static let resizeInode: UInt32 = 0x10
        static let directoryIndex: UInt32 = 0x20
        static let sparseSuper2: UInt32 = 0x200
    }

    enum Incompatible {
        static let fileType: UInt32 = 0x2
        static let recover: UInt32 = 0x4
        static let metaGroups: UInt32 = 0x10
        static let extents: UInt32 = 0x40
        static let wide: UInt32 = 0x80
        static let flexibleGroups: UInt32 = 0x200
        static let attributeValues: UInt32 = 0x400
        static let checksumSeed: UInt32 = 0x2000
        static let largeDirectory: UInt32 = 0x4000
    }

    enum ReadOnly {
        static let sparseSuper: UInt32 = 0x1
        static let largeFile: UInt32 = 0x2
        static let hugeFile: UInt32 = 0x8
        static let manySubdirectories: UInt32 = 0x20
        static let extraInodeSize: UInt32 = 0x40
        static let quota: UInt32 = 0x100
        static let checksums: UInt32 = 0x400
        static let project: UInt32 = 0x2000
        static let orphanPresent: UInt32 = 0x10000
    }

    /// The features of every file system that is written here.
    static let written = Features(
        compatible: Compatible.attributes | Compatible.directoryIndex,
        incompatible: Incompatible.fileType | Incompatible.extents | Incompatible.wide,
        readOnly: ReadOnly.sparseSuper | ReadOnly.largeFile | ReadOnly.hugeFile | ReadOnly.manySubdirectories | ReadOnly.extraInodeSize
            | ReadOnly.checksums)
}

// The offsets that these functions get are constants of the format, within a buffer of fixed size.
extension [UInt8] {
    @inline(__always)
    mutating func put(_ value: some FixedWidthInteger, at offset: Int) {
        Swift.withUnsafeBytes(of: value.littleEndian) { bytes in
            for index in 0..<bytes.count { self[offset + index] = bytes[index] }
        }
    }

    mutating func putBigEndian(_ value: UInt32, at offset: Int) { put(value.byteSwapped, at: offset) }

    mutating func put(_ bytes: some Collection<UInt8>, at offset: Int) {
        replaceSubrange(offset..<(offset + bytes.count), with: bytes)
    }
}
