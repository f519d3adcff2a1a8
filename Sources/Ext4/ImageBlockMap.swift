internal import ComposefsBytes
internal import ComposefsFileTree

extension Ext4Image {
    /// The blocks of an inode that has a block map instead of extents, as e2fsck gives to `lost+found`: twelve direct blocks, and indirect ones up
    /// to three levels (Documentation/filesystems/ext4/blockmap.rst).
    func mappedBlocks(of inode: Ext4Inode) throws -> [Ext4Extent] {
        let isDevice = inode.kind != .regular && inode.kind != .directory && inode.kind != .symbolicLink
        if isDevice || inode.size == 0 || inode.kind == .symbolicLink && inode.size < UInt64(Ext4Format.blockMapSize) { return [] }
        var found: [Ext4Extent] = []
        let end = Ext4Format.blocks(inode.size)
        // No block can have two owners, so that a hostile map ends.
        var left = superblock.blocks
        func add(_ number: UInt64, at logical: UInt64) throws {
            guard number < superblock.blocks, left > 0 else {
                throw Ext4Error.damaged(inode: inode.number, offset: 0, "its block map refers to block \(number)")
            }
            left -= 1
            if let last = found.last, UInt64(last.logical) + UInt64(last.count) == logical, last.start + UInt64(last.count) == number {
                found[found.count - 1].count += 1
            } else {
                found.append(Ext4Extent(logical: UInt32(logical), count: 1, start: number, isWritten: true))
            }
        }
        /// Adds the blocks below a pointer of a level.
        func read(_ number: UInt64, level: Int, at logical: UInt64) throws {
            guard number != 0, logical < end else { return }
            guard level > 0 else { return try add(number, at: logical) }
            guard left > 0 else { throw Ext4Error.damaged(inode: inode.number, offset: 0, "its block map is too large") }
            left -= 1
            let bytes = try block(number, inode: inode.number)
            var step: UInt64 = 1
            for _ in 1..<level { step *= UInt64(Ext4Format.pointersPerBlock) }
            for index in 0..<Ext4Format.pointersPerBlock {
                try read(UInt64(bytes.load(UInt32.self, at: 4 * index)), level: level - 1, at: logical + UInt64(index) * step)
            }
        }
        var logical: UInt64 = 0
        for slot in 0..<15 {
            let level = max(slot - 11, 0)
            try read(UInt64(inode.blockMap.load(UInt32.self, at: 4 * slot)), level: level, at: logical)
            var span: UInt64 = 1
            for _ in 0..<level { span *= UInt64(Ext4Format.pointersPerBlock) }
            logical += span
        }
        return found
    }
}
