/// The structures of an image, named as in fs/ext4/ext4.h: the offset of each field in its structure, and sizes, in bytes. All integers are
/// little-endian, except those of the journal. With 4096-byte blocks, a group looks like this; the first line is only in group 0 and in groups whose
/// number is 1 or a power of 3, 5 or 7:
///
/// ```
/// superblock (at 1024 in group 0)   descriptors of all groups   reserved blocks for more descriptors
/// block bitmap   inode bitmap   inode table   data
/// ```
enum SuperblockLayout {
    static let inodes = 0x0
    static let blocksLow = 0x4
    static let reservedBlocksLow = 0x8
    static let freeBlocksLow = 0xc
    static let freeInodes = 0x10
    static let firstDataBlock = 0x14
    static let blockSizeLog = 0x18
    static let clusterSizeLog = 0x1c
    static let blocksPerGroup = 0x20
    static let clustersPerGroup = 0x24
    static let inodesPerGroup = 0x28
    static let maximumMounts = 0x36
    static let magic = 0x38
    static let state = 0x3a
    static let errors = 0x3c
    static let revision = 0x4c
    static let firstInode = 0x54
    static let inodeSize = 0x58
    static let group = 0x5a
    static let compatible = 0x5c
    static let incompatible = 0x60
    static let readOnly = 0x64
    static let uuid = 0x68
    static let label = 0x78
    static let reservedDescriptorBlocks = 0xce
    static let journalInode = 0xe0
    static let lastOrphan = 0xe8
    static let hashSeed = 0xec
    static let hashVersion = 0xfc
    static let journalBackupType = 0xfd
    static let descriptorSize = 0xfe
    static let mountOptions = 0x100
    static let journalBackup = 0x10c
    static let blocksHigh = 0x150
    static let reservedBlocksHigh = 0x154
    static let freeBlocksHigh = 0x158
    static let minimumExtraSize = 0x15c
    static let wantedExtraSize = 0x15e
    static let flags = 0x160
    static let groupsPerFlexLog = 0x174
    static let checksumType = 0x175
    static let overhead = 0x248
    static let checksumSeed = 0x270
    static let checksum = 0x3fc
    static let size = 1024
}

/// `struct ext4_group_desc`.
enum DescriptorLayout {
    static let blockBitmapLow = 0x0
    static let inodeBitmapLow = 0x4
    static let inodeTableLow = 0x8
    static let freeBlocksLow = 0xc
    static let freeInodesLow = 0xe
    static let directoriesLow = 0x10
    static let flags = 0x12
    static let blockBitmapChecksumLow = 0x18
    static let inodeBitmapChecksumLow = 0x1a
    static let unusedInodesLow = 0x1c
    static let checksum = 0x1e
    static let blockBitmapHigh = 0x20
    static let inodeBitmapHigh = 0x24
    static let inodeTableHigh = 0x28
    static let freeBlocksHigh = 0x2c
    static let freeInodesHigh = 0x2e
    static let directoriesHigh = 0x30
    static let unusedInodesHigh = 0x32
    static let blockBitmapChecksumHigh = 0x38
    static let inodeBitmapChecksumHigh = 0x3a
    static let size = 64
}

/// `struct ext4_inode`.
enum InodeLayout {
    static let mode = 0x0
    static let uidLow = 0x2
    static let sizeLow = 0x4
    static let accessed = 0x8
    static let changed = 0xc
    static let modified = 0x10
    static let deleted = 0x14
    static let gidLow = 0x18
    static let links = 0x1a
    static let sectorsLow = 0x1c
    static let flags = 0x20
    static let versionLow = 0x24
    static let blockMap = 0x28
    static let generation = 0x64
    static let attributeBlockLow = 0x68
    static let sizeHigh = 0x6c
    static let sectorsHigh = 0x74
    static let attributeBlockHigh = 0x76
    static let uidHigh = 0x78
    static let gidHigh = 0x7a
    static let checksumLow = 0x7c
    static let extraSize = 0x80
    static let checksumHigh = 0x82
    static let changedExtra = 0x84
    static let modifiedExtra = 0x88
    static let accessedExtra = 0x8c
    static let created = 0x90
    static let createdExtra = 0x94
    /// The end of the fields that every inode had before extra fields were added.
    static let baseSize = 0x80
    /// Extended attributes, after the extra fields that are written here.
    static let attributes = 0xa0
}

/// `struct ext4_extent_header`, `ext4_extent`, `ext4_extent_idx` and `ext4_extent_tail`.
enum ExtentLayout {
    static let magic = 0
    static let entries = 2
    static let maximum = 4
    static let depth = 6
    static let generation = 8
    static let headerSize = 12
    static let logical = 0
    static let length = 4
    static let startHigh = 6
    static let startLow = 8
    static let childLow = 4
    static let childHigh = 8
    static let entrySize = 12
    static let checksum = 4092
}

/// `struct ext4_dir_entry_2`, `ext4_dir_entry_tail`.
enum EntryLayout {
    static let inode = 0
    static let recordLength = 4
    static let nameLength = 6
    static let fileType = 7
    static let name = 8
    static let tailSize = 12
    /// The part of a block that entries fill; the checksum covers it.
    static let blockSpace = 4084
    static let checksum = 4092

    static func recordLength(name: Int) -> Int { Ext4Format.align(name + 8, to: 4) }
}

/// `struct dx_root`, `dx_node`, `dx_countlimit`, `dx_entry`, `dx_tail`.
enum IndexLayout {
    static let hashVersion = 28
    static let infoLength = 29
    static let levels = 30
    static let rootEntries = 32
    static let nodeEntries = 8
    static let entrySize = 8
    static let limit = 0
    static let count = 2
    static let firstBlock = 4
    static let rootLimit = 507
    static let nodeLimit = 510
    static let tail = 4088
}

/// `struct ext4_xattr_header`, `ext4_xattr_entry`.
enum AttributeLayout {
    static let magic = 0
    static let references = 4
    static let blocks = 8
    static let hash = 12
    static let checksum = 16
    static let headerSize = 32
    static let nameLength = 0
    static let nameIndex = 1
    static let valueOffset = 2
    static let valueInode = 4
    static let valueSize = 8
    static let entryHash = 12
    static let entrySize = 16
    static let bodyHeaderSize = 4

    static func entryLength(name: Int) -> Int { Ext4Format.align(name + entrySize, to: 4) }
}

/// `journal_superblock_t` (include/linux/jbd2.h), big-endian.
enum JournalLayout {
    static let magic = 0x0
    static let blockType = 0x4
    static let blockSize = 0xc
    static let length = 0x10
    static let first = 0x14
    static let sequence = 0x18
    static let start = 0x1c
    static let errorNumber = 0x20
    static let incompatible = 0x28
    static let uuid = 0x30
    static let users = 0x40
    static let checksumType = 0x50
    static let checksum = 0xfc
    static let size = 1024
}
