public import ComposefsBytes
internal import ComposefsHashing

/// A file or device that holds a file system and can be changed.
public protocol Ext4Storage: RandomAccessBytes {
    /// Writes all bytes at `offset`, which is before `byteCount`.
    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws

    /// Returns after everything that was written is durable.
    func sync() throws
}

/// Makes an ext4 file system larger. It must not be mounted, and must have been unmounted cleanly. Contents are not touched.
///
/// What belongs to the new groups is written first. Then the superblock is marked as unclean, the metadata of the old groups is changed, and last the
/// superblock gets the new size; each step is durable before the next. After an interruption, the old size is still valid; `e2fsck -fy` repairs
/// what is half changed, and a file system that is marked as unclean is not grown again before that.
///
/// - Parameters:
///   - storage: Already has the new size.
///   - bytes: The new size. It is rounded down to whole blocks of 4 KiB; a last group that is too small for its own metadata stays unused.
///   - zeroes: The offset from which the storage is known to read as zeros, for example its size before it was enlarged. Before it, inode tables
///     are written.
/// - Returns: The new size of the file system in bytes, which is the old one if there was nothing to do.
/// - Throws: `Ext4Error`: `.notClean`, `.cannotShrink`, `.growthExceedsReserve`, `.storageTooSmall` and the errors of `Ext4Image`, all before
///   anything is written; or what the storage throws.
@discardableResult
public func growExt4(_ storage: some Ext4Storage, to bytes: UInt64, zeroes: UInt64 = .max) throws -> UInt64 {
    try growExt4(storage, to: bytes, zeroes: zeroes, comparesChecksums: true)
}

/// For fuzzers, which cannot make checksums.
package func growExt4(_ storage: some Ext4Storage, to bytes: UInt64, zeroes: UInt64, comparesChecksums: Bool) throws -> UInt64 {
    var growth = try Growth(storage, bytes: bytes, comparesChecksums)
    try growth.run(zeroes: zeroes)
    return growth.new.blocks << Ext4Format.blockBits
}

/// The steps of making a file system larger.
private struct Growth<Storage: Ext4Storage> {
    private let storage: Storage
    private let image: Ext4Image<Storage>
    private let old: Geometry
    private(set) var new: Geometry
    private var descriptors: [GroupDescriptor] = []
    /// The block bitmap of the last old group, if it changes.
    private var lastBitmap: [UInt8]?
    /// The resize inode, and its double indirect block.
    private var resize: (inode: [UInt8], block: UInt64)?

    private var checksums: Checksums { image.superblock.checksums }

    init(_ storage: Storage, bytes: UInt64, _ comparesChecksums: Bool) throws {
        self.storage = storage
        image = try Ext4Image(storage, verifiesChecksums: comparesChecksums)
        old = image.superblock.geometry
        new = old
        try Self.checkClean(image)
        try findGeometry(bytes)
        guard new != old else { return }
        try readDescriptors()
        try readResizeInode()
    }

    // MARK: Checks

    private static func checkClean(_ image: Ext4Image<Storage>) throws {
        let superblock = image.superblock
        let state = superblock.bytes.load(UInt16.self, at: SuperblockLayout.state)
        guard state == 1 else { throw Ext4Error.notClean(.state(state)) }
        let orphan = superblock.bytes.load(UInt32.self, at: SuperblockLayout.lastOrphan)
        guard orphan == 0, superblock.features.readOnly & Features.ReadOnly.orphanPresent == 0 else {
            throw Ext4Error.notClean(.orphans(inode: orphan))
        }
        guard superblock.features.compatible & Features.Compatible.journal != 0 else { return }
        let number = superblock.bytes.load(UInt32.self, at: SuperblockLayout.journalInode)
        guard number != 0 else { throw Ext4Error.unsupported("a journal on another device") }
        let inode = try image.inode(number)
        guard let first = try image.extents(of: inode).first, first.logical == 0 else {
            throw Ext4Error.damaged(inode: number, offset: 0, "the journal has no block")
        }
        let bytes = try image.block(first.start, inode: number)
        guard bytes.load(UInt32.self, at: JournalLayout.magic).byteSwapped == Ext4Format.journalMagic else {
            throw Ext4Error.damaged(inode: number, offset: first.start << Ext4Format.blockBits, "the journal has no superblock")
        }
        guard bytes.load(UInt32.self, at: JournalLayout.start) == 0 else { throw Ext4Error.notClean(.journal) }
    }

    private mutating func findGeometry(_ bytes: UInt64) throws {
        let blocks = bytes >> Ext4Format.blockBits
        guard blocks >= old.blocks else {
            throw Ext4Error.cannotShrink(from: old.blocks << Ext4Format.blockBits, to: bytes)
        }
        guard blocks <= Ext4Format.maximumBlocks else { throw Ext4Error.tooLarge(bytes: bytes) }
        guard storage.byteCount >> Ext4Format.blockBits >= blocks else {
            throw Ext4Error.storageTooSmall(bytes: storage.byteCount, needed: blocks << Ext4Format.blockBits)
        }
        new.blocks = blocks
        new.groups = Geometry.groups(blocks: blocks)
        let reserve = old.descriptorBlocks + old.reservedDescriptorBlocks
        guard new.descriptorBlocks <= reserve else {
            let groups = reserve * Ext4Format.descriptorsPerBlock
            throw Ext4Error.growthExceedsReserve(bytes: bytes, maximum: new.firstBlock(groups) << Ext4Format.blockBits)
        }
        new.reservedDescriptorBlocks = reserve - new.descriptorBlocks
        let last = new.groups - 1
        if last >= old.groups, blocks < new.dataStart(last) + Layout.leastDataBlocks {
            new.groups = last
            new.blocks = new.firstBlock(last)
            new.reservedDescriptorBlocks = reserve - new.descriptorBlocks
        }
        guard new.inodes <= UInt64(UInt32.max) else { throw Ext4Error.tooManyInodes(new.inodes) }
    }

    private mutating func readDescriptors() throws {
        descriptors = try (0..<old.groups).map { try image.descriptor($0) }
        let last = old.groups - 1
        let (before, after) = (old.blockCount(last), new.blockCount(last))
        if after > before {
            var descriptor = descriptors[last]
            guard descriptor.freeBlocks <= UInt32(before) else {
                throw Ext4Error.damaged(
                    inode: 0, offset: UInt64(Ext4Format.blockSize + last * DescriptorLayout.size),
                    "group \(last) has \(before) blocks, and its descriptor says that \(descriptor.freeBlocks) of them are free")
            }
            if descriptor.flags & GroupDescriptor.blocksUninitialized == 0 {
                var bitmap = try image.block(descriptor.blockBitmap, inode: 0)
                guard !image.verifiesChecksums || crc32c(checksums.seed, bitmap) == descriptor.blockBitmapChecksum else {
                    throw Ext4Error.damaged(
                        inode: 0, offset: descriptor.blockBitmap << Ext4Format.blockBits,
                        "the checksum of group \(last)'s block bitmap is wrong")
                }
                Bitmap.clear(&bitmap, before..<after)
                descriptor.blockBitmapChecksum = crc32c(checksums.seed, bitmap)
                lastBitmap = bitmap
            }
            descriptor.freeBlocks += UInt32(after - before)
            descriptors[last] = descriptor
        }
        for group in old.groups..<new.groups { descriptors.append(GroupTable.emptyGroup(new, group, checksums)) }
    }

    /// Reads the resize inode, whose blocks must be exactly the reserved ones.
    private mutating func readResizeInode() throws {
        guard image.superblock.features.compatible & Features.Compatible.resizeInode != 0 else {
            guard old.reservedDescriptorBlocks == 0 else { throw Ext4Error.unsupported("a reserve for group descriptors without an inode") }
            return
        }
        let number = Ext4Format.resizeInode
        _ = try image.inode(number)
        let offset = try image.offset(ofInode: number)
        let bytes = try image.bytes(at: offset, count: Ext4Format.inodeSize, inode: number)
        let block = UInt64(bytes.load(UInt32.self, at: InodeLayout.blockMap + 4 * ResizeInode.indirectSlot))
        let expected = ResizeInode(geometry: old, block: block)
        var isRight = try image.block(block, inode: number) == expected.doubleIndirect
        for index in 0..<old.reservedDescriptorBlocks where isRight {
            isRight = try image.block(UInt64(1 + old.descriptorBlocks + index), inode: number) == expected.indirect(index)
        }
        guard isRight else {
            throw Ext4Error.damaged(inode: number, offset: offset, "the resize inode does not own the reserve for group descriptors")
        }
        resize = (bytes, block)
    }

    // MARK: Writing

    mutating func run(zeroes: UInt64) throws {
        guard new != old else { return }
        let table = GroupTable.encode(descriptors, checksums)
        try writeNewGroups(table, zeroes: zeroes)
        try storage.sync()
        var unclean = image.superblock.bytes
        unclean.put(UInt16(0), at: SuperblockLayout.state)
        try writeSuperblock(unclean)
        try storage.sync()
        try writeOldGroups(table)
        try storage.sync()
        try writeSuperblock(superblock(group: 0))
        try storage.sync()
    }

    private func write(_ bytes: [UInt8], block: UInt64) throws {
        try bytes.withUnsafeBytes { try storage.write($0, at: block << Ext4Format.blockBits) }
    }

    private func writeSuperblock(_ bytes: [UInt8]) throws {
        var bytes = bytes
        bytes.put(Checksums.superblock(bytes), at: SuperblockLayout.checksum)
        try bytes.withUnsafeBytes { try storage.write($0, at: UInt64(Ext4Format.superblockOffset)) }
    }

    /// Writes what is in the new groups: nothing of it is part of the old file system.
    private func writeNewGroups(_ table: [UInt8], zeroes: UInt64) throws {
        let emptyBlocks = [UInt8](repeating: 0, count: 64 * Ext4Format.blockSize)
        for group in old.groups..<new.groups {
            if Geometry.hasSuperblock(group) { try writeCopy(group, table) }
            if descriptors[group].flags & GroupDescriptor.blocksUninitialized == 0 {
                try write(GroupTable.emptyBlockBitmap(new, group), block: new.blockBitmap(group))
            }
            var block = new.inodeTable(group)
            var left = new.inodeTableBlocks
            while left > 0, block << Ext4Format.blockBits < zeroes {
                let count = min(left, 64)
                try write(Array(emptyBlocks[..<(count * Ext4Format.blockSize)]), block: block)
                block += UInt64(count)
                left -= count
            }
        }
    }

    private func writeOldGroups(_ table: [UInt8]) throws {
        if let resize {
            let changed = ResizeInode(geometry: new, block: resize.block)
            for index in 0..<new.reservedDescriptorBlocks {
                try write(changed.indirect(index), block: UInt64(1 + new.descriptorBlocks + index))
            }
            try write(changed.doubleIndirect, block: resize.block)
            var inode = resize.inode
            let sectors = changed.record.blocks * 8
            inode.put(UInt32(truncatingIfNeeded: sectors), at: InodeLayout.sectorsLow)
            inode.put(UInt16(truncatingIfNeeded: sectors >> 32), at: InodeLayout.sectorsHigh)
            InodeRecord.seal(&inode, Ext4Format.resizeInode, checksums)
            let offset = try image.offset(ofInode: Ext4Format.resizeInode)
            try inode.withUnsafeBytes { try storage.write($0, at: offset) }
        }
        if let lastBitmap { try write(lastBitmap, block: descriptors[old.groups - 1].blockBitmap) }
        try write(table, block: 1)
        for group in old.backupGroups { try writeCopy(group, table) }
    }

    /// Writes the superblock's copy and the descriptors of a group.
    private func writeCopy(_ group: Int, _ table: [UInt8]) throws {
        var block = [UInt8](repeating: 0, count: Ext4Format.blockSize)
        block.put(superblock(group: group), at: 0)
        try write(block, block: new.firstBlock(group))
        try write(table, block: new.firstBlock(group) + 1)
    }

    private func superblock(group: Int) -> [UInt8] {
        var bytes = image.superblock.bytes
        func wide(_ value: UInt64, _ low: Int, _ high: Int) {
            bytes.put(UInt32(truncatingIfNeeded: value), at: low)
            bytes.put(UInt32(truncatingIfNeeded: value >> 32), at: high)
        }
        wide(new.blocks, SuperblockLayout.blocksLow, SuperblockLayout.blocksHigh)
        wide(descriptors.reduce(0) { $0 + UInt64($1.freeBlocks) }, SuperblockLayout.freeBlocksLow, SuperblockLayout.freeBlocksHigh)
        bytes.put(UInt32(new.inodes), at: SuperblockLayout.inodes)
        let freeInodes = descriptors.reduce(UInt64(0)) { $0 + UInt64($1.freeInodes) }
        bytes.put(UInt32(truncatingIfNeeded: freeInodes), at: SuperblockLayout.freeInodes)
        bytes.put(UInt16(new.reservedDescriptorBlocks), at: SuperblockLayout.reservedDescriptorBlocks)
        let overhead = bytes.load(UInt32.self, at: SuperblockLayout.overhead)
        if overhead > 0 {
            let added = (old.groups..<new.groups).reduce(UInt64(0)) { $0 + UInt64(new.overhead($1)) }
            bytes.put(UInt32(truncatingIfNeeded: UInt64(overhead) + added), at: SuperblockLayout.overhead)
        }
        bytes.put(UInt16(truncatingIfNeeded: group), at: SuperblockLayout.group)
        bytes.put(Checksums.superblock(bytes), at: SuperblockLayout.checksum)
        return bytes
    }
}
