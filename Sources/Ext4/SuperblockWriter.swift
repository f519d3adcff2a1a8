internal import ComposefsBytes
internal import ComposefsHashing

/// The superblock and the journal's superblock of a new file system.
struct SuperblockWriter {
    let plan: Ext4Plan
    let table: GroupTable

    /// The blocks that are never free: the metadata of groups, and the journal (`ext4_calculate_overhead`).
    private var overhead: UInt64 {
        let groups = (0..<plan.geometry.groups).reduce(UInt64(0)) { $0 + UInt64(plan.geometry.overhead($1)) }
        return groups + journalBlocks
    }

    private var journalBlocks: UInt64 { plan.journal.reduce(0) { $0 + UInt64($1.count) } }

    /// - Parameter group: The group that holds this copy.
    func superblock(group: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: SuperblockLayout.size)
        let geometry = plan.geometry
        func wide(_ value: UInt64, _ low: Int, _ high: Int) {
            bytes.put(UInt32(truncatingIfNeeded: value), at: low)
            bytes.put(UInt32(truncatingIfNeeded: value >> 32), at: high)
        }
        bytes.put(UInt32(geometry.inodes), at: SuperblockLayout.inodes)
        wide(geometry.blocks, SuperblockLayout.blocksLow, SuperblockLayout.blocksHigh)
        wide(table.freeBlocks, SuperblockLayout.freeBlocksLow, SuperblockLayout.freeBlocksHigh)
        bytes.put(UInt32(table.freeInodes), at: SuperblockLayout.freeInodes)
        bytes.put(UInt32(2), at: SuperblockLayout.blockSizeLog)
        bytes.put(UInt32(2), at: SuperblockLayout.clusterSizeLog)
        bytes.put(UInt32(Ext4Format.blocksPerGroup), at: SuperblockLayout.blocksPerGroup)
        bytes.put(UInt32(Ext4Format.blocksPerGroup), at: SuperblockLayout.clustersPerGroup)
        bytes.put(UInt32(geometry.inodesPerGroup), at: SuperblockLayout.inodesPerGroup)
        bytes.put(UInt16.max, at: SuperblockLayout.maximumMounts)
        bytes.put(Ext4Format.magic, at: SuperblockLayout.magic)
        // Cleanly unmounted; continue after errors.
        bytes.put(UInt16(1), at: SuperblockLayout.state)
        bytes.put(UInt16(1), at: SuperblockLayout.errors)
        bytes.put(UInt32(1), at: SuperblockLayout.revision)
        bytes.put(Ext4Format.firstInode, at: SuperblockLayout.firstInode)
        bytes.put(UInt16(Ext4Format.inodeSize), at: SuperblockLayout.inodeSize)
        bytes.put(UInt16(truncatingIfNeeded: group), at: SuperblockLayout.group)
        bytes.put(plan.features.compatible, at: SuperblockLayout.compatible)
        bytes.put(plan.features.incompatible, at: SuperblockLayout.incompatible)
        bytes.put(plan.features.readOnly, at: SuperblockLayout.readOnly)
        bytes.put(plan.uuid.bytes, at: SuperblockLayout.uuid)
        bytes.put(plan.options.label.bytes, at: SuperblockLayout.label)
        bytes.put(UInt16(geometry.reservedDescriptorBlocks), at: SuperblockLayout.reservedDescriptorBlocks)
        bytes.put(plan.uuid.bytes, at: SuperblockLayout.hashSeed)
        bytes.put(Ext4Format.halfMD4, at: SuperblockLayout.hashVersion)
        bytes.put(UInt16(DescriptorLayout.size), at: SuperblockLayout.descriptorSize)
        // user_xattr, acl
        bytes.put(UInt32(0xc), at: SuperblockLayout.mountOptions)
        bytes.put(Ext4Format.extraInodeSize, at: SuperblockLayout.minimumExtraSize)
        bytes.put(Ext4Format.extraInodeSize, at: SuperblockLayout.wantedExtraSize)
        bytes.put(Ext4Format.unsignedHash, at: SuperblockLayout.flags)
        bytes.put(UInt8(1), at: SuperblockLayout.checksumType)
        bytes.put(UInt32(truncatingIfNeeded: overhead), at: SuperblockLayout.overhead)
        if let journal = journalRecord {
            bytes.put(Ext4Format.journalInode, at: SuperblockLayout.journalInode)
            bytes.put(UInt8(1), at: SuperblockLayout.journalBackupType)
            bytes.put(journal.blockMap, at: SuperblockLayout.journalBackup)
            wide(journal.size, SuperblockLayout.journalBackup + 64, SuperblockLayout.journalBackup + 60)
        }
        bytes.put(Checksums.superblock(bytes), at: SuperblockLayout.checksum)
        return bytes
    }

    /// The journal's inode, if there is a journal.
    var journalRecord: InodeRecord? {
        guard !plan.journal.isEmpty else { return nil }
        let map = ExtentTree.encode(plan.journal, blocks: [], seed: 0).root
        return InodeRecord(
            mode: 0o100600, links: 1, size: journalBlocks << Ext4Format.blockBits, blocks: journalBlocks, flags: Ext4Format.flagExtents,
            blockMap: map)
    }

    /// The first block of an empty journal. The others are zero.
    var journalSuperblock: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        bytes.putBigEndian(Ext4Format.journalMagic, at: JournalLayout.magic)
        // A superblock of version 2.
        bytes.putBigEndian(4, at: JournalLayout.blockType)
        bytes.putBigEndian(UInt32(Ext4Format.blockSize), at: JournalLayout.blockSize)
        bytes.putBigEndian(UInt32(journalBlocks), at: JournalLayout.length)
        bytes.putBigEndian(1, at: JournalLayout.first)
        bytes.putBigEndian(1, at: JournalLayout.sequence)
        // Revocations, 64-bit block numbers, checksums of version 3.
        bytes.putBigEndian(0x13, at: JournalLayout.incompatible)
        bytes.put(plan.uuid.bytes, at: JournalLayout.uuid)
        bytes.putBigEndian(1, at: JournalLayout.users)
        bytes[JournalLayout.checksumType] = 4
        bytes.putBigEndian(crc32c(~0, bytes[..<JournalLayout.size]), at: JournalLayout.checksum)
        return bytes
    }
}
