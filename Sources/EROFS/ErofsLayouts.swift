/// The structures of an image, named as in linux/fs/erofs/erofs_fs.h: the offset of each field in its structure, and sizes, in bytes. The
/// writer and the reader use only these numbers. All integers are little-endian.
///
/// ```
/// 0      ComposefsHeader                      32 bytes
/// 1024   SuperblockLayout                     128 bytes
/// 1152   inodes, each at a multiple of 32:
///          CompactInodeLayout | ExtendedInodeLayout
///          AttributeHeaderLayout, shared references (4 bytes each), AttributeEntryLayout …
///          inline tail: DirectoryEntryLayout …, names | target | content | chunk table
///        shared attributes: AttributeEntryLayout …
///        data blocks
/// ```
enum ComposefsHeaderLayout {
    static let magic = 0
    static let version = 4
    static let flags = 8
    static let formatVersion = 12
    /// The bytes from here to the superblock are zero.
    static let unused = 16
    static let size = 32
}

/// `struct erofs_super_block`. The fields that composefs does not use have only the name of their range.
enum SuperblockLayout {
    static let magic = 0
    static let checksum = 4
    static let compatibleFeatures = 8
    static let blockBits = 12
    static let extraSlots = 13
    static let rootNumber = 14
    static let inodeCount = 16
    static let buildSeconds = 24
    static let buildNanoseconds = 32
    static let blockCount = 36
    static let metadataBlock = 40
    static let attributeBlock = 44
    static let uuid = 48
    static let volumeName = 64
    static let incompatibleFeatures = 80
    /// Compression, further devices, larger directory blocks, long attribute prefixes, the packed inode, reserved fields.
    static let unused = 84
    static let size = 128
}

/// `struct erofs_inode_compact`.
enum CompactInodeLayout {
    static let format = 0
    static let attributeCount = 2
    static let mode = 4
    static let links = 6
    static let fileSize = 8
    static let reserved = 12..<16
    static let value = 16
    static let number = 20
    static let uid = 24
    static let gid = 26
    static let reservedAtEnd = 28..<32
    static let size = 32
}

/// `struct erofs_inode_extended`. Format, attribute count, mode, value and number are at the same offsets as in a compact inode.
enum ExtendedInodeLayout {
    static let format = 0
    static let attributeCount = 2
    static let mode = 4
    static let reserved = 6..<8
    static let fileSize = 8
    static let value = 16
    static let number = 20
    static let uid = 24
    static let gid = 28
    static let seconds = 32
    static let nanoseconds = 40
    static let links = 44
    static let reservedAtEnd = 48..<64
    static let size = 64
}

/// `struct erofs_dirent`.
enum DirectoryEntryLayout {
    static let number = 0
    static let nameOffset = 8
    static let fileType = 10
    static let reserved = 11
    static let size = 12
}

/// `struct erofs_xattr_ibody_header`. It is followed by shared references and the inode's own entries.
enum AttributeHeaderLayout {
    static let nameFilter = 0
    static let sharedCount = 4
    static let reserved = 5..<12
    static let size = 12
    static let referenceSize = 4
}

/// `struct erofs_xattr_entry`. It is followed by the rest of the name and the value, padded to the alignment.
enum AttributeEntryLayout {
    static let nameLength = 0
    static let namePrefix = 1
    static let valueSize = 2
    static let size = 4
    static let alignment = 4
}

/// `struct erofs_deviceslot`: a further device of a disk's image. It begins with a tag, which is zero.
enum DeviceSlotLayout {
    static let blocks = 64
    /// The first block in the address space of the whole disk (`mapped_blkaddr`).
    static let firstBlock = 68
    static let size = 128
    /// The incompatible feature DEVICE_TABLE.
    static let incompatibleFeature: UInt32 = 8
}

/// A block address in a chunk table (`EROFS_BLOCK_MAP_ENTRY_SIZE`).
enum ChunkTableLayout {
    static let entrySize = 4
}
