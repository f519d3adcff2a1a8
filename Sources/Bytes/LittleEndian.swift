extension [UInt8] {
    /// The little-endian integer at an offset in bytes.
    ///
    /// For fields of structures whose size has been checked: an offset outside of the array is a fault of the caller, and traps. `ByteReader` is for
    /// bytes of unknown length.
    @inlinable
    package func load<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type, at offset: Int) -> Value {
        precondition(offset >= 0 && offset + MemoryLayout<Value>.size <= count)
        return withUnsafeBytes { Value(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Value.self)) }
    }
}
