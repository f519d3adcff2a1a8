internal import ComposefsBytes
internal import ComposefsHashing

/// Consecutive blocks of a file that are consecutive in the image: an extent.
struct BlockRun: Equatable, Sendable, BitwiseCopyable {
    /// The first block of the file.
    var logical: UInt32
    /// 1…32,768.
    var count: UInt32
    /// The first block of the image.
    var start: UInt64
}

/// Encodes the extents of an inode (fs/ext4/ext4_extents.h): up to four in the inode, more in blocks below it.
enum ExtentTree {
    /// The number of blocks that a tree of this many extents needs.
    static func blockCount(runs: Int) -> Int {
        var (total, level) = (0, runs)
        while level > Ext4Format.extentsInInode {
            level = (level + Ext4Format.extentsInBlock - 1) / Ext4Format.extentsInBlock
            total += level
        }
        return total
    }

    /// - Parameters:
    ///   - runs: In ascending order.
    ///   - blocks: As many block numbers as `blockCount` says.
    ///   - seed: The start of the checksums of the inode's blocks.
    /// - Returns: The inode's 60 bytes, and the blocks in the order of their numbers.
    static func encode(
        _ runs: some Collection<BlockRun>, blocks: [UInt64], seed: UInt32
    ) -> (root: [UInt8], blocks: [(number: UInt64, bytes: [UInt8])]) {
        var written: [(number: UInt64, bytes: [UInt8])] = []
        var level = runs.map { run -> (key: UInt32, bytes: [UInt8]) in
            var bytes = [UInt8](repeating: 0, count: ExtentLayout.entrySize)
            bytes.put(run.logical, at: ExtentLayout.logical)
            bytes.put(UInt16(run.count), at: ExtentLayout.length)
            bytes.put(UInt16(truncatingIfNeeded: run.start >> 32), at: ExtentLayout.startHigh)
            bytes.put(UInt32(truncatingIfNeeded: run.start), at: ExtentLayout.startLow)
            return (run.logical, bytes)
        }
        var depth: UInt16 = 0
        while level.count > Ext4Format.extentsInInode {
            var above: [(key: UInt32, bytes: [UInt8])] = []
            for first in stride(from: 0, to: level.count, by: Ext4Format.extentsInBlock) {
                let part = level[first..<min(first + Ext4Format.extentsInBlock, level.count)]
                let number = blocks[written.count]
                var block = node(part.map(\.bytes), maximum: Ext4Format.extentsInBlock, depth: depth, size: Ext4Format.blockSize)
                block.put(crc32c(seed, block[..<ExtentLayout.checksum]), at: ExtentLayout.checksum)
                written.append((number, block))
                var index = [UInt8](repeating: 0, count: ExtentLayout.entrySize)
                index.put(level[first].key, at: ExtentLayout.logical)
                index.put(UInt32(truncatingIfNeeded: number), at: ExtentLayout.childLow)
                index.put(UInt16(truncatingIfNeeded: number >> 32), at: ExtentLayout.childHigh)
                above.append((level[first].key, index))
            }
            level = above
            depth += 1
        }
        let root = node(level.map(\.bytes), maximum: Ext4Format.extentsInInode, depth: depth, size: Ext4Format.blockMapSize)
        return (root, written)
    }

    private static func node(_ entries: [[UInt8]], maximum: Int, depth: UInt16, size: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: size)
        bytes.put(Ext4Format.extentMagic, at: ExtentLayout.magic)
        bytes.put(UInt16(entries.count), at: ExtentLayout.entries)
        bytes.put(UInt16(maximum), at: ExtentLayout.maximum)
        bytes.put(depth, at: ExtentLayout.depth)
        for (index, entry) in entries.enumerated() {
            bytes.put(entry, at: ExtentLayout.headerSize + index * ExtentLayout.entrySize)
        }
        return bytes
    }
}
