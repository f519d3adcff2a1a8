/// What names a file, an image or another thing by its bytes: text (`String`, `Substring`), bytes (`ByteString`, `[UInt8]`), and types of programs.
///
/// A type that holds a path conforms in a few lines. For `FilePath` of swift-system:
///
/// ```
/// extension FilePath: @retroactive ByteStringConvertible {
///     public var byteString: ByteString { withPlatformString { ByteString(cString: $0) } }
/// }
/// ```
public protocol ByteStringConvertible {
    /// The bytes; of text, those of its UTF-8 form.
    var byteString: ByteString { get }
}

extension ByteString: ByteStringConvertible {
    public var byteString: ByteString { self }

    /// The bytes before the NUL that ends a string of C.
    public init(cString: UnsafePointer<CChar>) {
        var count = 0
        while cString[count] != 0 { count += 1 }
        self.init(UnsafeRawBufferPointer(start: cString, count: count))
    }
}

extension String: ByteStringConvertible {
    public var byteString: ByteString { ByteString(self) }
}

extension Substring: ByteStringConvertible {
    public var byteString: ByteString { ByteString(String(self)) }
}

extension Array: ByteStringConvertible where Element == UInt8 {
    public var byteString: ByteString { ByteString(self) }
}
