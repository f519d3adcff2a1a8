/// A read past the end of the available bytes.
public struct EndOfBytes: Error, Equatable, CustomStringConvertible {
    /// The start of the read, in bytes from the start of the reader's span.
    public var offset: Int
    /// The number of bytes that the read needed.
    public var wanted: Int
    /// The number of bytes that were left.
    public var available: Int

    @inlinable
    public init(offset: Int, wanted: Int, available: Int) {
        self.offset = offset
        self.wanted = wanted
        self.available = available
    }

    public var description: String { "needs \(wanted) bytes at offset \(offset), but only \(available) are left" }
}

/// A bounds-checked cursor over borrowed bytes. All integers are little-endian.
///
/// Every read throws ``EndOfBytes`` when fewer bytes are left than it needs, and then does not move the cursor.
public struct ByteReader: ~Escapable {
    @usableFromInline let span: RawSpan
    /// The number of bytes consumed so far.
    public var offset: Int { @inlinable get { position } }
    @usableFromInline var position: Int

    @inlinable
    @_lifetime(copy span)
    public init(_ span: RawSpan) {
        self.span = span
        position = 0
    }

    @inlinable public var remaining: Int { span.byteCount - position }
    @inlinable public var isAtEnd: Bool { remaining == 0 }

    @inlinable
    @_lifetime(self: copy self)
    mutating func load<Value: FixedWidthInteger & BitwiseCopyable>(_: Value.Type) throws(EndOfBytes) -> Value {
        let size = MemoryLayout<Value>.size
        guard remaining >= size else { throw EndOfBytes(offset: position, wanted: size, available: remaining) }
        let value = span.unsafeLoadUnaligned(fromByteOffset: position, as: Value.self)
        position += size
        return Value(littleEndian: value)
    }

    @inlinable public mutating func u8() throws(EndOfBytes) -> UInt8 { try load(UInt8.self) }
    @inlinable public mutating func u16() throws(EndOfBytes) -> UInt16 { try load(UInt16.self) }
    @inlinable public mutating func u32() throws(EndOfBytes) -> UInt32 { try load(UInt32.self) }
    @inlinable public mutating func u64() throws(EndOfBytes) -> UInt64 { try load(UInt64.self) }
    @inlinable public mutating func i64() throws(EndOfBytes) -> Int64 { try load(Int64.self) }

    /// Returns the next `count` bytes without copying them. A negative count is an error, like one that is too large.
    @inlinable
    @_lifetime(copy self)
    public mutating func take(_ count: Int) throws(EndOfBytes) -> RawSpan {
        guard count >= 0, remaining >= count else { throw EndOfBytes(offset: position, wanted: count, available: remaining) }
        let part = span.extracting(position..<(position + count))
        position += count
        return part
    }

    @inlinable
    @_lifetime(self: copy self)
    public mutating func skip(_ count: Int) throws(EndOfBytes) {
        guard count >= 0, remaining >= count else { throw EndOfBytes(offset: position, wanted: count, available: remaining) }
        position += count
    }
}
