/// The reason why a JSON document was refused.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        case endOfInput
        /// A byte that is not allowed at this position.
        case unexpected(UInt8)
        case byteOrderMark
        case invalidUTF8
        case controlCharacter(UInt8)
        case badEscape
        case loneSurrogate
        case badNumber
        case numberTooLarge
        case duplicateKey(String)
        case tooDeep(limit: Int)
        case tooManyValues(limit: Int)
        case trailingBytes
    }

    /// The position of the error in bytes from the start.
    public var offset: Int
    public var reason: Reason

    public init(offset: Int, reason: Reason) {
        self.offset = offset
        self.reason = reason
    }

    public var description: String { "invalid JSON at byte \(offset): \(reason.text)" }
}

extension JSONError.Reason {
    var text: String {
        switch self {
        case .endOfInput: "unexpected end of the document"
        case .unexpected(let byte): "unexpected \(Self.name(byte))"
        case .byteOrderMark: "the document begins with a byte-order mark"
        case .invalidUTF8: "the text is not UTF-8"
        case .controlCharacter(let byte): "\(Self.name(byte)) inside a string must be escaped"
        case .badEscape: "invalid escape sequence"
        case .loneSurrogate: "lone surrogate"
        case .badNumber: "malformed number"
        case .numberTooLarge: "number too large"
        case .duplicateKey(let key): "the key \(JSONValue.string(key)) occurs twice in an object"
        case .tooDeep(let limit): "more than \(limit) levels of nesting"
        case .tooManyValues(let limit): "more than \(limit) values"
        case .trailingBytes: "unexpected data after the document"
        }
    }

    private static func name(_ byte: UInt8) -> String {
        if (0x21...0x7e).contains(byte) { return "'\(Unicode.Scalar(byte))'" }
        let digits = String(byte, radix: 16)
        return "byte 0x" + (digits.utf8.count == 1 ? "0" + digits : digits)
    }
}
