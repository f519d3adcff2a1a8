extension JSONValue: CustomStringConvertible {
    /// The document without white space. The order of members is kept.
    public var compactBytes: [UInt8] { serialized() }

    /// The document with two spaces per level, one element or member per line, and no newline at the end.
    public var prettyBytes: [UInt8] { serialized(pretty: true) }

    /// Serialises the document. Only what must be escaped is escaped: quotation marks, backslashes and characters below U+0020. Doubles
    /// that JSON cannot express become null.
    ///
    /// - Parameters:
    ///   - pretty: Whether to indent and break lines.
    ///   - shown: Whether the text may reach a terminal. If so, characters that control a terminal or change the order of the text are
    ///     escaped too (U+007F to U+009F, bidirectional controls, line and paragraph separators). The document stays equivalent.
    public func serialized(pretty: Bool = false, shown: Bool = false) -> [UInt8] {
        var writer = JSONWriter(isPretty: pretty, isShown: shown)
        writer.value(self, level: 0)
        return writer.bytes
    }

    public var description: String { String(decoding: compactBytes, as: UTF8.self) }
}

private struct JSONWriter {
    let isPretty: Bool
    let isShown: Bool
    var bytes: [UInt8] = []

    init(isPretty: Bool, isShown: Bool) {
        self.isPretty = isPretty
        self.isShown = isShown
    }

    mutating func value(_ value: JSONValue, level: Int) {
        switch value {
        case .null: text("null")
        case .bool(let value): text(value ? "true" : "false")
        case .integer(let value): text(String(value))
        case .unsigned(let value): text(String(value))
        case .double(let value): text(value.isFinite ? String(value) : "null")
        case .string(let value): string(value)
        case .array(let elements):
            list("[", "]", elements, level) { writer, element in writer.value(element, level: level + 1) }
        case .object(let object):
            list("{", "}", object.members, level) { writer, member in
                writer.string(member.key)
                writer.text(writer.isPretty ? ": " : ":")
                writer.value(member.value, level: level + 1)
            }
        }
    }

    private mutating func text(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func list<Element>(
        _ open: String, _ close: String, _ elements: [Element], _ level: Int, _ write: (inout JSONWriter, Element) -> Void
    ) {
        text(open)
        var isFirst = true
        for element in elements {
            if !isFirst { text(",") }
            isFirst = false
            newLine(level + 1)
            write(&self, element)
        }
        if !elements.isEmpty { newLine(level) }
        text(close)
    }

    private mutating func newLine(_ level: Int) {
        guard isPretty else { return }
        bytes.append(0x0a)
        bytes.append(contentsOf: repeatElement(0x20, count: level * 2))
    }

    /// Whether the character changes how other text is displayed.
    private static func acts(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.value {
        case 0x7f...0x9f, 0x061c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069: true
        default: false
        }
    }

    private mutating func string(_ string: String) {
        bytes.append(UInt8(ascii: "\""))
        defer { bytes.append(UInt8(ascii: "\"")) }
        guard isShown, string.unicodeScalars.contains(where: Self.acts) else { return content(string) }
        for scalar in string.unicodeScalars {
            if Self.acts(scalar) {
                let digits = String(scalar.value, radix: 16)
                text("\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits)
            } else {
                content(String(scalar))
            }
        }
    }

    private mutating func content(_ string: String) {
        for byte in string.utf8 {
            switch byte {
            case UInt8(ascii: "\""): text("\\\"")
            case UInt8(ascii: "\\"): text("\\\\")
            case 0x08: text("\\b")
            case 0x0c: text("\\f")
            case 0x0a: text("\\n")
            case 0x0d: text("\\r")
            case 0x09: text("\\t")
            case 0..<0x20:
                text(byte < 0x10 ? "\\u000" : "\\u00")
                text(String(byte, radix: 16))
            default: bytes.append(byte)
            }
        }
    }
}
