/// The blocks of a file system and of its groups. Every group holds its own bitmaps and inode table.
struct Geometry: Equatable, Sendable {
    /// The number of blocks of the file system.
    var blocks: UInt64
    /// A multiple of 16, so that inode tables fill their blocks.
    var inodesPerGroup: Int
    /// The number of groups. The last one may have fewer blocks than the others.
    var groups: Int
    /// Unused blocks after the group descriptors, into which their table can grow.
    var reservedDescriptorBlocks: Int

    /// The number of blocks of the table of group descriptors.
    var descriptorBlocks: Int { Self.descriptorBlocks(groups: groups) }
    var inodeTableBlocks: Int { inodesPerGroup / Ext4Format.inodesPerBlock }
    var inodes: UInt64 { UInt64(inodesPerGroup) * UInt64(groups) }

    static func descriptorBlocks(groups: Int) -> Int { (groups + Ext4Format.descriptorsPerBlock - 1) / Ext4Format.descriptorsPerBlock }

    static func groups(blocks: UInt64) -> Int {
        Int((blocks + UInt64(Ext4Format.blocksPerGroup) - 1) / UInt64(Ext4Format.blocksPerGroup))
    }

    /// Whether a group has a copy of the superblock and of the descriptors: 0, 1 and powers of 3, 5 and 7 (`ext4_bg_has_super`).
    static func hasSuperblock(_ group: Int) -> Bool {
        if group <= 1 { return true }
        for base in [3, 5, 7] {
            var power = base
            while power < group { power *= base }
            if power == group { return true }
        }
        return false
    }

    /// The groups after the first that have a copy of the superblock.
    var backupGroups: [Int] { (0..<groups).dropFirst().filter(Self.hasSuperblock) }

    func firstBlock(_ group: Int) -> UInt64 { UInt64(group) * UInt64(Ext4Format.blocksPerGroup) }

    /// The number of blocks of a group.
    func blockCount(_ group: Int) -> Int { Int(min(UInt64(Ext4Format.blocksPerGroup), blocks - firstBlock(group))) }

    /// The number of blocks of the superblock's copy, the descriptors and their reserve.
    func copyBlocks(_ group: Int) -> Int { Self.hasSuperblock(group) ? 1 + descriptorBlocks + reservedDescriptorBlocks : 0 }

    func blockBitmap(_ group: Int) -> UInt64 { firstBlock(group) + UInt64(copyBlocks(group)) }
    func inodeBitmap(_ group: Int) -> UInt64 { blockBitmap(group) + 1 }
    func inodeTable(_ group: Int) -> UInt64 { blockBitmap(group) + 2 }

    /// The number of blocks of all metadata at the start of a group.
    func overhead(_ group: Int) -> Int { copyBlocks(group) + 2 + inodeTableBlocks }
    func dataStart(_ group: Int) -> UInt64 { firstBlock(group) + UInt64(overhead(group)) }

    func group(ofInode number: UInt32) -> Int { Int(number - 1) / inodesPerGroup }
}

/// Hands out the data blocks of a file system in ascending order.
struct BlockCursor {
    private let geometry: Geometry
    private var group = 0
    /// The next block. All data blocks before it are used.
    private(set) var next: UInt64

    init(_ geometry: Geometry) {
        self.geometry = geometry
        next = geometry.dataStart(0)
    }

    /// Takes up to `count` consecutive blocks; at least one.
    mutating func take(_ count: UInt64) -> (start: UInt64, count: UInt64) {
        if next == geometry.firstBlock(group + 1) {
            group += 1
            next = geometry.dataStart(group)
        }
        let taken = min(count, geometry.firstBlock(group + 1) - next)
        let start = next
        next += taken
        return (start, taken)
    }
}
