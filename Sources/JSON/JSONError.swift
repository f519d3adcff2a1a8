/// Why bytes are no JSON document that is taken.
public struct JSONError: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Reason: Hashable, Sendable {
        case endOfInput
        /// A byte that cannot stand here.
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

    /// Where, in bytes from the start.
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
        case .endOfInput: "the document ends too early"
        case .unexpected(let byte): "unexpected \(Self.name(byte))"
        case .byteOrderMark: "a byte-order mark stands before the document"
        case .invalidUTF8: "the text is not UTF-8"
        case .controlCharacter(let byte): "\(Self.name(byte)) inside a string must be escaped"
        case .badEscape: "no such escape sequence"
        case .loneSurrogate: "half of a surrogate pair"
        case .badNumber: "malformed number"
        case .numberTooLarge: "number too large"
        case .duplicateKey(let key): "the key \(JSONValue.string(key)) comes twice in one object"
        case .tooDeep(let limit): "more than \(limit) levels of nesting"
        case .tooManyValues(let limit): "more than \(limit) values"
        case .trailingBytes: "something follows the document"
        }
    }

    private static func name(_ byte: UInt8) -> String {
        if (0x21...0x7e).contains(byte) { return "'\(Unicode.Scalar(byte))'" }
        let digits = String(byte, radix: 16)
        return "byte 0x" + (digits.utf8.count == 1 ? "0" + digits : digits)
    }
}
