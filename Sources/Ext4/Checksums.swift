internal import ComposefsBytes

/// CRC-32C (polynomial 0x1edc6f41, reflected), continued from `seed` without a final inversion, as the kernel's `crc32c`.
func crc32c(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    crcTables.withUnsafeBufferPointer { table in
        var crc = seed
        var at = 0
        while at + 8 <= bytes.count {
            let word = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self)) ^ UInt64(crc)
            // Eight tables advance eight bytes at a time.
            let low =
                table[1792 + Int(word & 0xff)] ^ table[1536 + Int(word >> 8 & 0xff)] ^ table[1280 + Int(word >> 16 & 0xff)]
                ^ table[1024 + Int(word >> 24 & 0xff)]
            let high =
                table[768 + Int(word >> 32 & 0xff)] ^ table[512 + Int(word >> 40 & 0xff)] ^ table[256 + Int(word >> 48 & 0xff)]
                ^ table[Int(word >> 56)]
            crc = low ^ high
            at += 8
        }
        while at < bytes.count {
            crc = crc >> 8 ^ table[Int((crc ^ UInt32(bytes[at])) & 0xff)]
            at += 1
        }
        return crc
    }
}

func crc32c(_ seed: UInt32, _ bytes: some Collection<UInt8>) -> UInt32 {
    let direct = bytes.withContiguousStorageIfAvailable { crc32c(seed, UnsafeRawBufferPointer($0)) }
    return direct ?? Array(bytes).withUnsafeBytes { crc32c(seed, $0) }
}

func crc32c(_ seed: UInt32, _ value: some FixedWidthInteger) -> UInt32 {
    withUnsafeBytes(of: value.littleEndian) { crc32c(seed, $0) }
}

/// Table `n` has the effect of a byte that is followed by `n` zero bytes.
private let crcTables: [UInt32] = {
    var tables = [UInt32](repeating: 0, count: 2048)
    for byte in 0..<256 {
        var crc = UInt32(byte)
        for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82f6_3b78 }
        tables[byte] = crc
    }
    for index in 256..<2048 {
        let previous = tables[index - 256]
        tables[index] = previous >> 8 ^ tables[Int(previous & 0xff)]
    }
    return tables
}()

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
