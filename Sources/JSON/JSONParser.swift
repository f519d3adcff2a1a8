/// Limits of a document's memory use. The caller limits its length.
public struct JSONLimits: Sendable, Hashable {
    /// The deepest nesting of arrays and objects.
    public var depth: Int
    /// The number of values of any kind. Each needs about 50 bytes of memory.
    public var values: Int

    public init(depth: Int = 64, values: Int = 1_000_000) {
        self.depth = depth
        self.values = values
    }

    public static let `default` = JSONLimits()
}

extension JSONValue {
    /// Parses one document: strictly RFC 8259, UTF-8 without a byte-order mark, no duplicate key in an object.
    ///
    /// - Throws: `JSONError` with the position and the reason.
    public static func parse(_ bytes: UnsafeRawBufferPointer, limits: JSONLimits = .default) throws(JSONError) -> JSONValue {
        var parser = JSONParser(bytes, limits)
        return try parser.document()
    }

    /// Parses one document: strictly RFC 8259, UTF-8 without a byte-order mark, no duplicate key in an object.
    ///
    /// - Throws: `JSONError` with the position and the reason.
    public static func parse(_ bytes: [UInt8], limits: JSONLimits = .default) throws(JSONError) -> JSONValue {
        // withUnsafeBytes rethrows untyped errors, so the result is passed as a value.
        let outcome = bytes.withUnsafeBytes { buffer -> Result<JSONValue, JSONError> in
            do throws(JSONError) { return .success(try parse(buffer, limits: limits)) } catch { return .failure(error) }
        }
        return try outcome.get()
    }
}

/// A recursive-descent parser. `JSONLimits.depth` limits the recursion.
struct JSONParser {
    private let bytes: UnsafeRawBufferPointer
    private let limits: JSONLimits
    private var at = 0
    private var depth = 0
    private var values = 0

    init(_ bytes: UnsafeRawBufferPointer, _ limits: JSONLimits) {
        self.bytes = bytes
        self.limits = limits
    }

    mutating func document() throws(JSONError) -> JSONValue {
        if bytes.count >= 3, bytes[0] == 0xef, bytes[1] == 0xbb, bytes[2] == 0xbf { throw fault(.byteOrderMark) }
        let value = try value()
        skipSpace()
        guard at == bytes.count else { throw fault(.trailingBytes) }
        return value
    }

    private func fault(_ reason: JSONError.Reason) -> JSONError { JSONError(offset: at, reason: reason) }

    /// The error for an unexpected byte, or the end of the input, at the cursor.
    private func surprise() -> JSONError { fault(at < bytes.count ? .unexpected(bytes[at]) : .endOfInput) }

    private var current: UInt8? { at < bytes.count ? bytes[at] : nil }

    private mutating func skipSpace() {
        while at < bytes.count {
            switch bytes[at] {
            case 0x20, 0x09, 0x0a, 0x0d: at += 1
            default: return
            }
        }
    }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard current == byte else { return false }
        at += 1
        return true
    }

    private mutating func value() throws(JSONError) -> JSONValue {
        skipSpace()
        values += 1
        guard values <= limits.values else { throw fault(.tooManyValues(limit: limits.values)) }
        switch current {
        case UInt8(ascii: "{"): return .object(try object())
        case UInt8(ascii: "["): return .array(try array())
        case UInt8(ascii: "\""): return .string(try string())
        case .some(UInt8(ascii: "-")), .some(0x30...0x39): return try number()
        case UInt8(ascii: "t"): return try word("true", .bool(true))
        case UInt8(ascii: "f"): return try word("false", .bool(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: throw surprise()
        }
    }

    private mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONError) -> JSONValue {
        for index in 0..<text.utf8CodeUnitCount {
            guard current == text.withUTF8Buffer({ $0[index] }) else { throw surprise() }
            at += 1
        }
        return value
    }

    private mutating func enter() throws(JSONError) {
        guard depth < limits.depth else { throw fault(.tooDeep(limit: limits.depth)) }
        depth += 1
        at += 1
        skipSpace()
    }

    private mutating func array() throws(JSONError) -> [JSONValue] {
        try enter()
        defer { depth -= 1 }
        var elements: [JSONValue] = []
        if take(UInt8(ascii: "]")) { return elements }
        while true {
            elements.append(try value())
            skipSpace()
            if take(UInt8(ascii: "]")) { return elements }
            guard take(UInt8(ascii: ",")) else { throw surprise() }
        }
    }

    private mutating func object() throws(JSONError) -> JSONObject {
        try enter()
        defer { depth -= 1 }
        var members: [(key: String, value: JSONValue)] = []
        if take(UInt8(ascii: "}")) { return JSONObject() }
        // A linear search is faster in a short list; a long list must not take quadratic time.
        var seen: Set<ExactKey> = []
        while true {
            skipSpace()
            guard current == UInt8(ascii: "\"") else { throw surprise() }
            let start = at
            let key = try string()
            let isNew: Bool
            if members.count < 16 {
                isNew = !members.contains { $0.key.utf8.elementsEqual(key.utf8) }
            } else {
                if seen.isEmpty { seen = Set(members.map { ExactKey(text: $0.key) }) }
                isNew = seen.insert(ExactKey(text: key)).inserted
            }
            guard isNew else { throw JSONError(offset: start, reason: .duplicateKey(key)) }
            skipSpace()
            guard take(UInt8(ascii: ":")) else { throw surprise() }
            members.append((key: key, value: try value()))
            skipSpace()
            if take(UInt8(ascii: "}")) { return JSONObject(unique: members) }
            guard take(UInt8(ascii: ",")) else { throw surprise() }
        }
    }

    private mutating func digits() throws(JSONError) {
        guard let first = current, (0x30...0x39).contains(first) else { throw at < bytes.count ? fault(.badNumber) : fault(.endOfInput) }
        while let byte = current, (0x30...0x39).contains(byte) { at += 1 }
    }

    private mutating func number() throws(JSONError) -> JSONValue {
        let start = at
        let isNegative = take(UInt8(ascii: "-"))
        let first = at
        try digits()
        if bytes[first] == 0x30, at - first > 1 { throw JSONError(offset: start, reason: .badNumber) }
        var isInteger = true
        if take(UInt8(ascii: ".")) {
            isInteger = false
            try digits()
        }
        if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
            isInteger = false
            at += 1
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            try digits()
        }
        let text = String(decoding: bytes[start..<at], as: UTF8.self)
        if isInteger {
            if let value = Int64(text), !(isNegative && value == 0) { return .integer(value) }
            // The check of the sign comes first because `UInt64` also parses "-0".
            if !isNegative, let value = UInt64(text) { return .unsigned(value) }
        }
        guard let value = Double(text), value.isFinite else { throw JSONError(offset: start, reason: .numberTooLarge) }
        return .double(value)
    }

    // MARK: Strings

    private mutating func string() throws(JSONError) -> String {
        at += 1
        let start = at
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "\""):
                let text = try text(start, at)
                at += 1
                return text
            case UInt8(ascii: "\\"):
                return try escapedString(from: start)
            case let byte where byte < 0x20: throw fault(.controlCharacter(byte))
            default: at += 1
            }
        }
        throw fault(.endOfInput)
    }

    private func text(_ start: Int, _ end: Int) throws(JSONError) -> String {
        guard let text = String(validating: bytes[start..<end], as: UTF8.self) else { throw JSONError(offset: start, reason: .invalidUTF8) }
        return text
    }

    /// Parses a string that began at `start`. The cursor is at its first escape.
    private mutating func escapedString(from start: Int) throws(JSONError) -> String {
        var result = Array(bytes[start..<at])
        while at < bytes.count {
            switch bytes[at] {
            case UInt8(ascii: "\""):
                guard let text = String(validating: result, as: UTF8.self) else { throw JSONError(offset: start, reason: .invalidUTF8) }
                at += 1
                return text
            case UInt8(ascii: "\\"):
                let scalar = try escape()
                result.append(contentsOf: UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter)
            case let byte where byte < 0x20: throw fault(.controlCharacter(byte))
            case let byte:
                result.append(byte)
                at += 1
            }
        }
        throw fault(.endOfInput)
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        let start = at
        at += 1
        guard let kind = current else { throw fault(.endOfInput) }
        at += 1
        switch kind {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(kind)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): break
        default: throw JSONError(offset: start, reason: .badEscape)
        }
        let unit = try hexUnit()
        if let scalar = Unicode.Scalar(unit) { return scalar }
        // A high surrogate must be followed by a low surrogate, also escaped.
        guard unit < 0xdc00, at + 1 < bytes.count, bytes[at] == UInt8(ascii: "\\"), bytes[at + 1] == UInt8(ascii: "u") else {
            throw JSONError(offset: start, reason: .loneSurrogate)
        }
        at += 2
        let low = try hexUnit()
        guard (0xdc00...0xdfff).contains(low),
            let scalar = Unicode.Scalar(0x10000 + (UInt32(unit & 0x3ff) << 10 | UInt32(low & 0x3ff)))
        else { throw JSONError(offset: start, reason: .loneSurrogate) }
        return scalar
    }

    private mutating func hexUnit() throws(JSONError) -> UInt16 {
        var unit: UInt16 = 0
        for _ in 0..<4 {
            guard let byte = current else { throw fault(.endOfInput) }
            let digit: UInt8
            switch byte {
            case 0x30...0x39: digit = byte - 0x30
            case 0x41...0x46: digit = byte - 0x37
            case 0x61...0x66: digit = byte - 0x57
            default: throw fault(.badEscape)
            }
            unit = unit << 4 | UInt16(digit)
            at += 1
        }
        return unit
    }
}

/// A key that is compared by its bytes. `String` would compare canonically equivalent spellings as equal.
private struct ExactKey: Hashable {
    var text: String
    static func == (lhs: ExactKey, rhs: ExactKey) -> Bool { lhs.text.utf8.elementsEqual(rhs.text.utf8) }
}
