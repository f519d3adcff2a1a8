internal import ComposefsBytes
internal import ComposefsHashing

/// The checksums of metadata blocks. All start from a seed that depends on the file system's UUID.
struct Checksums: Sendable {
    let seed: UInt32

    init(seed: UInt32) { self.seed = seed }
    init(uuid: [UInt8]) { seed = crc32c(~0, uuid) }

    /// The start of the checksums of an inode and of the blocks that belong to it.
    func inodeSeed(_ number: UInt32, generation: UInt32 = 0) -> UInt32 { crc32c(crc32c(seed, number), generation) }

    /// - Parameter bytes: An inode.
    func inode(_ bytes: UnsafeRawBufferPointer, number: UInt32) -> UInt32 {
        let generation = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: InodeLayout.generation, as: UInt32.self))
        var crc = inodeSeed(number, generation: generation)
        var at = 0
        // The checksum's two halves count as zero.
        for half in [InodeLayout.checksumLow, InodeLayout.checksumHigh] {
            crc = crc32c(crc, UnsafeRawBufferPointer(rebasing: bytes[at..<half]))
            crc = crc32c(crc, UInt16(0))
            at = half + 2
        }
        return crc32c(crc, UnsafeRawBufferPointer(rebasing: bytes[at...]))
    }

    /// - Parameter bytes: A group descriptor.
    func descriptor(_ bytes: ArraySlice<UInt8>, group: Int) -> UInt16 {
        let field = bytes.startIndex + DescriptorLayout.checksum
        var crc = crc32c(crc32c(seed, UInt32(group)), bytes[..<field])
        crc = crc32c(crc, UInt16(0))
        return UInt16(truncatingIfNeeded: crc32c(crc, bytes[(field + 2)...]))
    }

    /// - Parameter bytes: A block of extended attributes.
    func attributeBlock(_ bytes: [UInt8], at block: UInt64) -> UInt32 {
        var crc = crc32c(crc32c(seed, block), bytes[..<AttributeLayout.checksum])
        crc = crc32c(crc, UInt32(0))
        return crc32c(crc, bytes[(AttributeLayout.checksum + 4)...])
    }

    /// - Parameters:
    ///   - bytes: A block of a directory's index.
    ///   - entries: The offset of its limit and count.
    ///   - count: The number of used entries.
    static func index(_ seed: UInt32, _ bytes: ArraySlice<UInt8>, entries: Int, count: Int) -> UInt32 {
        let start = bytes.startIndex
        var crc = crc32c(seed, bytes[start..<(start + entries + count * IndexLayout.entrySize)])
        crc = crc32c(crc, bytes[(start + IndexLayout.tail)..<(start + IndexLayout.tail + 4)])
        return crc32c(crc, UInt32(0))
    }

    static func superblock(_ bytes: [UInt8]) -> UInt32 { crc32c(~0, bytes[..<SuperblockLayout.checksum]) }
}
