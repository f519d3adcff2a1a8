/// CRC-32C (polynomial 0x1edc6f41, reflected), continued from `seed` without a final inversion, as the kernel's `crc32c`.
package func crc32c(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
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

/// As above, of bytes in any collection.
package func crc32c(_ seed: UInt32, _ bytes: some Collection<UInt8>) -> UInt32 {
    let direct = bytes.withContiguousStorageIfAvailable { crc32c(seed, UnsafeRawBufferPointer($0)) }
    return direct ?? Array(bytes).withUnsafeBytes { crc32c(seed, $0) }
}

/// As above, of an integer in little-endian order.
package func crc32c(_ seed: UInt32, _ value: some FixedWidthInteger) -> UInt32 {
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
