/// Encodes a structure field by field. All integers are little-endian.
///
/// On-disk structures are always encoded this way, never by copying the memory of a Swift struct.
public struct ByteWriter: Sendable {
    public var bytes: [UInt8]

    @inlinable
    public init(capacity: Int = 0) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    @inlinable public var count: Int { bytes.count }

    @inlinable public mutating func u8(_ value: UInt8) { bytes.append(value) }
    @inlinable public mutating func u16(_ value: UInt16) { store(value) }
    @inlinable public mutating func u32(_ value: UInt32) { store(value) }
    @inlinable public mutating func u64(_ value: UInt64) { store(value) }
    @inlinable public mutating func i64(_ value: Int64) { store(value) }

    @inlinable public mutating func append(_ other: some Sequence<UInt8>) { bytes.append(contentsOf: other) }
    @inlinable public mutating func append(_ buffer: UnsafeRawBufferPointer) { bytes.append(contentsOf: buffer) }

    /// Appends `count` zero bytes; none if `count` is negative.
    @inlinable
    public mutating func zeros(_ count: Int) {
        if count > 0 { bytes.append(contentsOf: repeatElement(0, count: count)) }
    }

    /// Appends zero bytes until the length is a multiple of `alignment`.
    @inlinable
    public mutating func pad(to alignment: Int) {
        let over = bytes.count % alignment
        if over != 0 { zeros(alignment - over) }
    }

    @inlinable
    mutating func store(_ value: some FixedWidthInteger) {
        Swift.withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }
}
