internal import ComposefsBytes
internal import ComposefsHashing

/// The descriptor of a group (`struct ext4_group_desc`), and the flags that tell which of its bitmaps were written.
struct GroupDescriptor: Equatable, Sendable {
    static let inodesUninitialized: UInt16 = 1
    static let blocksUninitialized: UInt16 = 2
    static let tableZeroed: UInt16 = 4

    var blockBitmap: UInt64 = 0
    var inodeBitmap: UInt64 = 0
    var inodeTable: UInt64 = 0
    var freeBlocks: UInt32 = 0
    var freeInodes: UInt32 = 0
    var directories: UInt32 = 0
    var flags: UInt16 = 0
    /// The inodes at the end of the table that were never used.
    var unusedInodes: UInt32 = 0
    var blockBitmapChecksum: UInt32 = 0
    var inodeBitmapChecksum: UInt32 = 0

    init() {}

    init(_ bytes: ArraySlice<UInt8>) {
        let bytes = Array(bytes)
        func wide(_ low: Int, _ high: Int) -> UInt32 {
            UInt32(bytes.load(UInt16.self, at: low)) | UInt32(bytes.load(UInt16.self, at: high)) << 16
        }
        func block(_ low: Int, _ high: Int) -> UInt64 {
            UInt64(bytes.load(UInt32.self, at: low)) | UInt64(bytes.load(UInt32.self, at: high)) << 32
        }
        blockBitmap = block(DescriptorLayout.blockBitmapLow, DescriptorLayout.blockBitmapHigh)
        inodeBitmap = block(DescriptorLayout.inodeBitmapLow, DescriptorLayout.inodeBitmapHigh)
        inodeTable = block(DescriptorLayout.inodeTableLow, DescriptorLayout.inodeTableHigh)
        freeBlocks = wide(DescriptorLayout.freeBlocksLow, DescriptorLayout.freeBlocksHigh)
        freeInodes = wide(DescriptorLayout.freeInodesLow, DescriptorLayout.freeInodesHigh)
        directories = wide(DescriptorLayout.directoriesLow, DescriptorLayout.directoriesHigh)
        flags = bytes.load(UInt16.self, at: DescriptorLayout.flags)
        unusedInodes = wide(DescriptorLayout.unusedInodesLow, DescriptorLayout.unusedInodesHigh)
        blockBitmapChecksum = wide(DescriptorLayout.blockBitmapChecksumLow, DescriptorLayout.blockBitmapChecksumHigh)
        inodeBitmapChecksum = wide(DescriptorLayout.inodeBitmapChecksumLow, DescriptorLayout.inodeBitmapChecksumHigh)
    }

    func encode(group: Int, _ checksums: Checksums) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: DescriptorLayout.size)
        func wide(_ value: UInt32, _ low: Int, _ high: Int) {
            bytes.put(UInt16(truncatingIfNeeded: value), at: low)
            bytes.put(UInt16(truncatingIfNeeded: value >> 16), at: high)
        }
        func block(_ value: UInt64, _ low: Int, _ high: Int) {
            bytes.put(UInt32(truncatingIfNeeded: value), at: low)
            bytes.put(UInt32(truncatingIfNeeded: value >> 32), at: high)
        }
        block(blockBitmap, DescriptorLayout.blockBitmapLow, DescriptorLayout.blockBitmapHigh)
        block(inodeBitmap, DescriptorLayout.inodeBitmapLow, DescriptorLayout.inodeBitmapHigh)
        block(inodeTable, DescriptorLayout.inodeTableLow, DescriptorLayout.inodeTableHigh)
        wide(freeBlocks, DescriptorLayout.freeBlocksLow, DescriptorLayout.freeBlocksHigh)
        wide(freeInodes, DescriptorLayout.freeInodesLow, DescriptorLayout.freeInodesHigh)
        wide(directories, DescriptorLayout.directoriesLow, DescriptorLayout.directoriesHigh)
        bytes.put(flags, at: DescriptorLayout.flags)
        wide(unusedInodes, DescriptorLayout.unusedInodesLow, DescriptorLayout.unusedInodesHigh)
        wide(blockBitmapChecksum, DescriptorLayout.blockBitmapChecksumLow, DescriptorLayout.blockBitmapChecksumHigh)
        wide(inodeBitmapChecksum, DescriptorLayout.inodeBitmapChecksumLow, DescriptorLayout.inodeBitmapChecksumHigh)
        bytes.put(checksums.descriptor(bytes[...], group: group), at: DescriptorLayout.checksum)
        return bytes
    }
}

/// The bitmaps of groups.
enum Bitmap {
    /// A block of bits of which the first `used`, and all from `end` on, are set.
    static func prefix(used: Int, end: Int) -> [UInt8] {
        var bits = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        set(&bits, 0..<used)
        set(&bits, end..<(Ext4Format.blockSize * 8))
        return bits
    }

    static func set(_ bits: inout [UInt8], _ range: Range<Int>) {
        var at = range.lowerBound
        while at < range.upperBound {
            if at % 8 == 0, at + 8 <= range.upperBound {
                bits[at / 8] = 0xff
                at += 8
            } else {
                bits[at / 8] |= 1 << (at % 8)
                at += 1
            }
        }
    }

    static func clear(_ bits: inout [UInt8], _ range: Range<Int>) {
        for at in range { bits[at / 8] &= ~(1 << (at % 8)) }
    }

    static func contains(_ bits: [UInt8], _ index: Int) -> Bool { bits[index / 8] & 1 << (index % 8) != 0 }

    /// The number of bits that are not set.
    static func free(_ bits: [UInt8]) -> UInt32 { bits.reduce(0) { $0 + UInt32((~$1).nonzeroBitCount) } }

    /// The checksum of a block of inodes covers only the inodes that exist.
    static func inodeChecksum(_ bits: [UInt8], _ inodesPerGroup: Int, _ checksums: Checksums) -> UInt32 {
        crc32c(checksums.seed, bits[..<(inodesPerGroup / 8)])
    }
}

/// The groups of a file system whose data blocks and inodes are used in ascending order without gaps.
struct GroupTable: Sendable {
    private let geometry: Geometry
    private let checksums: Checksums
    /// All used data blocks are before it.
    private let end: UInt64
    private let lastInode: UInt32
    private(set) var descriptors: [GroupDescriptor] = []

    /// - Parameter directories: The number of directories whose inode is in each group.
    init(_ geometry: Geometry, end: UInt64, lastInode: UInt32, directories: [UInt32], _ checksums: Checksums) {
        self.geometry = geometry
        self.checksums = checksums
        self.end = end
        self.lastInode = lastInode
        descriptors.reserveCapacity(geometry.groups)
        for group in 0..<geometry.groups {
            var it = Self.emptyGroup(geometry, group, checksums)
            let (blocks, inodes) = (usedBlocks(group), usedInodes(group))
            if blocks > geometry.overhead(group) || group == 0 {
                it.flags &= ~GroupDescriptor.blocksUninitialized
                it.blockBitmapChecksum = crc32c(checksums.seed, blockBitmap(group))
            }
            if inodes > 0 {
                it.flags &= ~GroupDescriptor.inodesUninitialized
                it.inodeBitmapChecksum = Bitmap.inodeChecksum(inodeBitmap(group), geometry.inodesPerGroup, checksums)
            }
            it.freeBlocks = UInt32(geometry.blockCount(group) - blocks)
            it.freeInodes = UInt32(geometry.inodesPerGroup - inodes)
            it.unusedInodes = it.freeInodes
            it.directories = group < directories.count ? directories[group] : 0
            descriptors.append(it)
        }
    }

    /// The descriptor of a group that has nothing but its own metadata. Only the last group's block bitmap is written, because kernels and e2fsck
    /// expect that; the inode table must be zero.
    static func emptyGroup(_ geometry: Geometry, _ group: Int, _ checksums: Checksums) -> GroupDescriptor {
        var it = GroupDescriptor()
        it.blockBitmap = geometry.blockBitmap(group)
        it.inodeBitmap = geometry.inodeBitmap(group)
        it.inodeTable = geometry.inodeTable(group)
        it.flags = GroupDescriptor.tableZeroed | GroupDescriptor.inodesUninitialized
        it.freeBlocks = UInt32(geometry.blockCount(group) - geometry.overhead(group))
        it.freeInodes = UInt32(geometry.inodesPerGroup)
        it.unusedInodes = it.freeInodes
        if group == geometry.groups - 1 {
            it.blockBitmapChecksum = crc32c(checksums.seed, emptyBlockBitmap(geometry, group))
        } else {
            it.flags |= GroupDescriptor.blocksUninitialized
        }
        return it
    }

    static func emptyBlockBitmap(_ geometry: Geometry, _ group: Int) -> [UInt8] {
        Bitmap.prefix(used: geometry.overhead(group), end: geometry.blockCount(group))
    }

    var freeBlocks: UInt64 { descriptors.reduce(0) { $0 + UInt64($1.freeBlocks) } }
    var freeInodes: UInt64 { descriptors.reduce(0) { $0 + UInt64($1.freeInodes) } }

    /// The table of all descriptors, in whole blocks.
    func encode() -> [UInt8] { Self.encode(descriptors, checksums) }

    static func encode(_ descriptors: [GroupDescriptor], _ checksums: Checksums) -> [UInt8] {
        var out = ByteWriter(capacity: Geometry.descriptorBlocks(groups: descriptors.count) * Ext4Format.blockSize)
        for (group, descriptor) in descriptors.enumerated() { out.append(descriptor.encode(group: group, checksums)) }
        out.pad(to: Ext4Format.blockSize)
        return out.bytes
    }

    func blockBitmap(_ group: Int) -> [UInt8] { Bitmap.prefix(used: usedBlocks(group), end: geometry.blockCount(group)) }
    func inodeBitmap(_ group: Int) -> [UInt8] { Bitmap.prefix(used: usedInodes(group), end: geometry.inodesPerGroup) }

    private func usedBlocks(_ group: Int) -> Int {
        let start = geometry.dataStart(group)
        let used = end > start ? Int(min(end - start, UInt64(Ext4Format.blocksPerGroup))) : 0
        return min(geometry.overhead(group) + used, geometry.blockCount(group))
    }

    func usedInodes(_ group: Int) -> Int {
        min(max(Int(lastInode) - group * geometry.inodesPerGroup, 0), geometry.inodesPerGroup)
    }
}
