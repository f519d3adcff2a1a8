/// The inode that owns the reserved descriptor blocks, so that the kernel can make the file system larger (`reserve_backup_gdb`, fs/ext4/resize.c).
///
/// Its double indirect block lists the reserved blocks of group 0, and each of these lists the same block of the groups with copies.
struct ResizeInode {
    let geometry: Geometry
    /// The double indirect block.
    let block: UInt64

    /// (12 + 1024 + 1024²) blocks.
    static let size: UInt64 = 4_299_210_752
    static let indirectSlot = 13

    var record: InodeRecord {
        var map = [UInt8](repeating: 0, count: Ext4Format.blockMapSize)
        map.put(UInt32(truncatingIfNeeded: block), at: 4 * Self.indirectSlot)
        let blocks = 1 + UInt64(geometry.reservedDescriptorBlocks) * UInt64(1 + geometry.backupGroups.count)
        return InodeRecord(mode: 0o100600, links: 1, size: Self.size, blocks: blocks, blockMap: map)
    }

    /// The content of the double indirect block.
    var doubleIndirect: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        for index in 0..<geometry.reservedDescriptorBlocks {
            let descriptor = geometry.descriptorBlocks + index
            bytes.put(UInt32(1 + descriptor), at: 4 * (descriptor % Ext4Format.pointersPerBlock))
        }
        return bytes
    }

    /// The content of one of the reserved blocks of group 0.
    func indirect(_ index: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        let own = UInt64(1 + geometry.descriptorBlocks + index)
        for (slot, group) in geometry.backupGroups.enumerated() {
            bytes.put(UInt32(truncatingIfNeeded: geometry.firstBlock(group) + own), at: 4 * slot)
        }
        return bytes
    }
}
