import Testing

@testable import ComposefsEROFS

/// Offsets and sizes of each field as in fs/erofs/erofs_fs.h of Linux 6.12, from its declarations and its `BUILD_BUG_ON(sizeof(…) != …)`.
@Suite struct LayoutTests {
    @Test func superblock() {
        #expect(Erofs.superblockOffset == 1024 && SuperblockLayout.size == 128)
        #expect(
            [
                SuperblockLayout.magic, SuperblockLayout.checksum, SuperblockLayout.compatibleFeatures, SuperblockLayout.blockBits,
                SuperblockLayout.extraSlots, SuperblockLayout.rootNumber, SuperblockLayout.inodeCount, SuperblockLayout.buildSeconds,
                SuperblockLayout.buildNanoseconds, SuperblockLayout.blockCount, SuperblockLayout.metadataBlock,
                SuperblockLayout.attributeBlock, SuperblockLayout.uuid, SuperblockLayout.volumeName, SuperblockLayout.incompatibleFeatures,
                SuperblockLayout.unused,
            ] == [0, 4, 8, 12, 13, 14, 16, 24, 32, 36, 40, 44, 48, 64, 80, 84])
        #expect(Erofs.magic == 0xe0f5_e1e2 && Erofs.incompatChunkedFile == 4)
        #expect(Erofs.compatChecksum == 1 && Erofs.compatModified == 2 && Erofs.compatAttributeFilter == 4)
    }

    @Test func inodes() {
        #expect(CompactInodeLayout.size == 32 && ExtendedInodeLayout.size == 64 && Erofs.slotSize == 32)
        #expect(
            [
                CompactInodeLayout.format, CompactInodeLayout.attributeCount, CompactInodeLayout.mode, CompactInodeLayout.links,
                CompactInodeLayout.fileSize, CompactInodeLayout.value, CompactInodeLayout.number, CompactInodeLayout.uid,
                CompactInodeLayout.gid,
            ] == [0, 2, 4, 6, 8, 16, 20, 24, 26])
        #expect(CompactInodeLayout.reserved == 12..<16 && CompactInodeLayout.reservedAtEnd == 28..<32)
        #expect(
            [
                ExtendedInodeLayout.format, ExtendedInodeLayout.attributeCount, ExtendedInodeLayout.mode, ExtendedInodeLayout.fileSize,
                ExtendedInodeLayout.value, ExtendedInodeLayout.number, ExtendedInodeLayout.uid, ExtendedInodeLayout.gid,
                ExtendedInodeLayout.seconds, ExtendedInodeLayout.nanoseconds, ExtendedInodeLayout.links,
            ] == [0, 2, 4, 8, 16, 20, 24, 28, 32, 40, 44])
        #expect(ExtendedInodeLayout.reserved == 6..<8 && ExtendedInodeLayout.reservedAtEnd == 48..<64)
        #expect(Erofs.formatExtended == 1)
        // EROFS_INODE_FLAT_PLAIN, _FLAT_INLINE and _CHUNK_BASED are 0, 2 and 4, shifted left by 1.
        #expect([Erofs.Layout.plain, .inline, .chunked].map { $0.rawValue >> 1 } == [0, 2, 4])
    }

    @Test func directoriesAndAttributes() {
        #expect(DirectoryEntryLayout.size == 12)
        #expect(
            [
                DirectoryEntryLayout.number, DirectoryEntryLayout.nameOffset, DirectoryEntryLayout.fileType, DirectoryEntryLayout.reserved,
            ] == [0, 8, 10, 11])
        #expect(AttributeHeaderLayout.size == 12 && AttributeHeaderLayout.referenceSize == 4)
        #expect([AttributeHeaderLayout.nameFilter, AttributeHeaderLayout.sharedCount] == [0, 4])
        #expect(AttributeHeaderLayout.reserved == 5..<12)
        #expect(AttributeEntryLayout.size == 4 && AttributeEntryLayout.alignment == 4)
        #expect([AttributeEntryLayout.nameLength, AttributeEntryLayout.namePrefix, AttributeEntryLayout.valueSize] == [0, 1, 2])
        #expect(ChunkTableLayout.entrySize == 4 && Erofs.filterSeed == 0x25bb_e08f)
    }

    /// libcomposefs/lcfs-erofs.h.
    @Test func composefsHeader() {
        #expect(ComposefsHeaderLayout.size == 32 && Erofs.headerMagic == 0xd078_629a && Erofs.headerVersion == 1)
        #expect(
            [
                ComposefsHeaderLayout.magic, ComposefsHeaderLayout.version, ComposefsHeaderLayout.flags,
                ComposefsHeaderLayout.formatVersion,
                ComposefsHeaderLayout.unused,
            ] == [0, 4, 8, 12, 16])
    }
}
