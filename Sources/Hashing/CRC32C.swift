internal import ComposefsCISAL

/// CRC-32C (polynomial 0x1edc6f41, reflected), continued from `seed` without a final inversion, as the kernel's `crc32c`. Computed by ISA-L.
package func crc32c(_ seed: UInt32, _ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var crc = seed
    var rest = bytes[...]
    while !rest.isEmpty {
        let part = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30))
        // ISA-L never writes to the buffer; the parameter just lacks the const.
        crc = crc32_iscsi(UnsafeMutablePointer(mutating: part.baseAddress?.assumingMemoryBound(to: UInt8.self)), Int32(part.count), crc)
        rest = rest.dropFirst(part.count)
    }
    return crc
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
