internal import ComposefsBytes

/// Scans the tokens of a TOML document that is valid UTF-8.
struct TOMLScanner {
    private let bytes: [UInt8]
    private var position = 0
    /// From 1.
    private(set) var line = 1

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func peek(_ ahead: Int) -> UInt8? { ahead < bytes.count - position ? bytes[position + ahead] : nil }

    private func problem(_ reason: String) -> TOMLError { TOMLError(line: line, reason: reason) }

    /// The next character, for messages.
    private var next: String {
        guard position < bytes.count else { return "the end of the file" }
        if bytes[position] == 0x0a || bytes[position] == 0x0d { return "the end of the line" }
        let text = String(decoding: bytes[position...].prefix(32).prefix { $0 > 0x20 }, as: UTF8.self)
        return "\"" + printable(text, limit: 16) + "\""
    }

    mutating func advance() { position = min(position + 1, bytes.count) }

    mutating func skip(_ byte: UInt8) -> Bool {
        guard peek == byte else { return false }
        position += 1
        return true
    }

    mutating func expect(_ character: Character, after what: String) throws(TOMLError) {
        guard let byte = character.asciiValue, skip(byte) else { throw problem("\(character) is missing after \(what), where \(next) is") }
    }

    // MARK: Space

    mutating func skipBlanks() { while let byte = peek, byte == 0x20 || byte == 0x09 { position += 1 } }

    /// Blanks, line ends and comments.
    mutating func skipBlankLines() throws(TOMLError) {
        while true {
            skipBlanks()
            switch peek {
            case UInt8(ascii: "#"), 0x0a, 0x0d: try endLine()
            default: return
            }
        }
    }

    /// A comment, and the end of the line or of the document.
    mutating func endLine() throws(TOMLError) {
        skipBlanks()
        if peek == UInt8(ascii: "#") {
            while let byte = peek, byte != 0x0a, !(byte == 0x0d && peek(1) == 0x0a) {
                guard !Self.isControl(byte) else { throw problem("a control character in a comment") }
                position += 1
            }
        }
        guard peek != nil else { return }
        guard newline() else { throw problem("unexpected text at the end of the line: \(next)") }
    }

    private mutating func newline() -> Bool {
        let length = peek == 0x0a ? 1 : peek == 0x0d && peek(1) == 0x0a ? 2 : 0
        position += length
        if length > 0 { line += 1 }
        return length > 0
    }

    private static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 && byte != 0x09 || byte == 0x7f }

    // MARK: Keys

    /// One part of a key.
    mutating func key() throws(TOMLError) -> String {
        if peek == UInt8(ascii: "\"") || peek == UInt8(ascii: "'") {
            guard !isTripled else { throw problem("a multi-line string cannot be a key") }
            return try string()
        }
        let start = position
        while let byte = peek, Self.isBare(byte) { position += 1 }
        guard position > start else { throw problem("a key is missing where \(next) is") }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), UInt8(ascii: "-"):
            true
        default: false
        }
    }

    // MARK: Strings

    private var isTripled: Bool { peek(1) == peek && peek(2) == peek }

    /// One of the four kinds of strings; the next byte is its quote.
    mutating func string() throws(TOMLError) -> String {
        guard let quote = peek else { throw problem("a string is missing") }
        let escapes = quote == UInt8(ascii: "\"")
        let isLong = isTripled
        position += isLong ? 3 : 1
        if isLong { _ = newline() }
        var text: [UInt8] = []
        while let byte = peek {
            if byte == quote {
                guard isLong else {
                    position += 1
                    return String(decoding: text, as: UTF8.self)
                }
                // One or two quotes may precede the three that end the string.
                var count = 0
                while count < 5, peek(count) == quote { count += 1 }
                position += count
                if count >= 3 {
                    text += Array(repeating: quote, count: count - 3)
                    return String(decoding: text, as: UTF8.self)
                }
                text += Array(repeating: quote, count: count)
            } else if escapes, byte == UInt8(ascii: "\\") {
                position += 1
                try escape(&text, isLong)
            } else if isLong, newline() {
                text.append(0x0a)
            } else {
                guard !Self.isControl(byte) else { throw problem("a string contains a control character or is not terminated on its line") }
                text.append(byte)
                position += 1
            }
        }
        throw problem("a string is not terminated")
    }

    /// The character that an escape stands for.
    private mutating func escape(_ text: inout [UInt8], _ isLong: Bool) throws(TOMLError) {
        guard let byte = peek else { throw problem("a string is not terminated") }
        switch byte {
        case UInt8(ascii: "b"): text.append(0x08)
        case UInt8(ascii: "t"): text.append(0x09)
        case UInt8(ascii: "n"): text.append(0x0a)
        case UInt8(ascii: "f"): text.append(0x0c)
        case UInt8(ascii: "r"): text.append(0x0d)
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): text.append(byte)
        case UInt8(ascii: "u"): return try scalar(digits: 4, &text)
        case UInt8(ascii: "U"): return try scalar(digits: 8, &text)
        default:
            // A backslash at the end of a line removes all white space up to the next text.
            guard isLong else { throw problem("an unknown escape in a string") }
            skipBlanks()
            guard newline() else { throw problem("an unknown escape in a string") }
            repeat { skipBlanks() } while newline()
            return
        }
        position += 1
    }

    private mutating func scalar(digits: Int, _ text: inout [UInt8]) throws(TOMLError) {
        position += 1
        var value: UInt32 = 0
        for _ in 0..<digits {
            guard let byte = peek, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw problem("\\u and \\U need 4 and 8 hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            position += 1
        }
        guard let scalar = Unicode.Scalar(value) else { throw problem("an escape that is not a Unicode character") }
        text += Array(String(Character(scalar)).utf8)
    }

    // MARK: Other values

    mutating func scalar() throws(TOMLError) -> TOMLValue.Content {
        let start = position
        while let byte = peek, Self.isBare(byte) || [UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: ":")].contains(byte) {
            position += 1
        }
        // A blank may separate a date and its time.
        if position - start == 10, bytes[start + 4] == UInt8(ascii: "-"), peek == 0x20, let hour = peek(1), (0x30...0x39).contains(hour) {
            position += 1
            while let byte = peek, Self.isBare(byte) || [UInt8(ascii: "+"), UInt8(ascii: "."), UInt8(ascii: ":")].contains(byte) {
                position += 1
            }
        }
        let word = String(decoding: bytes[start..<position], as: UTF8.self)
        switch word {
        case "": throw problem("a value is missing where \(next) is")
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        case "inf", "+inf", "-inf", "nan", "+nan", "-nan": return .other
        default: break
        }
        if let number = Self.integer(word) { return .integer(number) }
        // Floats, dates and times begin with a digit, after an optional sign, and are not integers.
        let digits = word.first == "+" || word.first == "-" ? word.dropFirst() : word[...]
        let isOther =
            digits.first?.isNumber == true && !digits.hasPrefix("0x") && !digits.hasPrefix("0o") && !digits.hasPrefix("0b")
            && digits.contains { $0 == "." || $0 == ":" || $0 == "-" || $0 == "e" || $0 == "E" }
        guard isOther else { throw problem("\(printable(word, limit: 40)) is not a value; put strings in quotes") }
        return .other
    }

    /// Decimal with a sign, or hexadecimal, octal or binary; underscores between digits.
    private static func integer(_ word: String) -> Int64? {
        var digits = word[...]
        var radix = 10
        for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] where digits.hasPrefix(prefix) {
            digits = digits.dropFirst(2)
            radix = base
        }
        let sign = radix == 10 && (digits.first == "+" || digits.first == "-") ? String(digits.removeFirst()) : ""
        let groups = digits.split(separator: "_", omittingEmptySubsequences: false)
        guard groups.allSatisfy({ !$0.isEmpty && $0.allSatisfy { $0.isHexDigit } }) else { return nil }
        guard radix != 10 || digits == "0" || digits.first != "0" else { return nil }
        return Int64(sign + groups.joined(), radix: radix)
    }
}
