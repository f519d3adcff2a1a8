/// Reading past the end of what there is.
public struct EndOfBytes: Error, Equatable, CustomStringConvertible {
    /// Where the read began, in bytes from the reader's start.
    public var offset: Int
    /// How many bytes were asked for.
    public var wanted: Int
    /// How many bytes were left.
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
public struct ByteReader: ~Escapable {
    @usableFromInline let span: RawSpan
    /// Bytes consumed so far.
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

    /// The next `count` bytes, still borrowed. A negative count is refused like one that is too large.
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
