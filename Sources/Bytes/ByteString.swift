/// A name, path, extended attribute or link target: bytes from or for the kernel, in no particular encoding.
///
/// `String` would be wrong for these: it compares precomposed and decomposed names as equal and silently replaces invalid UTF-8.
/// Values are ordered by unsigned byte value, as the EROFS and dumpfile formats require.
public struct ByteString: Hashable, Sendable, Comparable, ExpressibleByStringLiteral, CustomStringConvertible {
    public var bytes: [UInt8]

    @inlinable
    public init() { bytes = [] }

    @inlinable
    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    @inlinable
    public init(_ bytes: some Sequence<UInt8>) { self.bytes = Array(bytes) }

    @inlinable
    public init(_ buffer: UnsafeRawBufferPointer) { bytes = Array(buffer) }

    /// The UTF-8 bytes of `string`.
    @inlinable
    public init(_ string: String) { bytes = Array(string.utf8) }

    @inlinable
    public init(stringLiteral value: StaticString) {
        bytes = value.withUTF8Buffer { Array($0) }
    }

    // One call for all bytes: the array's own hashing makes one call per byte.
    @inlinable
    public func hash(into hasher: inout Hasher) {
        bytes.withUnsafeBytes { hasher.combine(bytes: $0) }
        hasher.combine(bytes.count)
    }

    @inlinable public var count: Int { bytes.count }
    @inlinable public var isEmpty: Bool { bytes.isEmpty }

    @inlinable
    public static func < (lhs: ByteString, rhs: ByteString) -> Bool {
        lhs.bytes.withUnsafeBytes { l in rhs.bytes.withUnsafeBytes { r in compareBytes(l, r) < 0 } }
    }

    @inlinable
    public static func + (lhs: ByteString, rhs: ByteString) -> ByteString { ByteString(lhs.bytes + rhs.bytes) }

    @inlinable
    public func hasPrefix(_ prefix: ByteString) -> Bool { bytes.starts(with: prefix.bytes) }

    @inlinable
    public func hasSuffix(_ suffix: ByteString) -> Bool { bytes.suffix(suffix.count).elementsEqual(suffix.bytes) }

    /// The text, or nil when the bytes are not valid UTF-8.
    public var utf8Text: String? { String(validating: bytes, as: UTF8.self) }

    /// For messages: printable ASCII unchanged, a backslash as `\\`, every other byte as `\xHH`. Safe to write to a terminal.
    public var description: String {
        var text = ""
        text.reserveCapacity(bytes.count)
        for byte in bytes {
            switch byte {
            case 0x5c: text += "\\\\"
            case 0x20...0x7e: text.unicodeScalars.append(Unicode.Scalar(byte))
            default: text += "\\x" + Hex.encode(CollectionOfOne(byte))
            }
        }
        return text
    }
}

/// Compares by unsigned byte value, like `memcmp`; a prefix sorts before any longer string. Returns -1, 0 or 1.
@inlinable
public func compareBytes(_ lhs: UnsafeRawBufferPointer, _ rhs: UnsafeRawBufferPointer) -> Int {
    let shared = min(lhs.count, rhs.count)
    if shared > 0, let l = lhs.baseAddress, let r = rhs.baseAddress {
        var offset = 0
        while offset + 8 <= shared {
            let a = l.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            let b = r.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            if a != b { return UInt64(bigEndian: a) < UInt64(bigEndian: b) ? -1 : 1 }
            offset += 8
        }
        while offset < shared {
            let a = l.load(fromByteOffset: offset, as: UInt8.self)
            let b = r.load(fromByteOffset: offset, as: UInt8.self)
            if a != b { return a < b ? -1 : 1 }
            offset += 1
        }
    }
    return lhs.count == rhs.count ? 0 : (lhs.count < rhs.count ? -1 : 1)
}
