extension JSONValue: CustomStringConvertible {
    /// The document without any white space; members keep their order.
    public var compactBytes: [UInt8] { serialized() }

    /// Two spaces a level, one element or member a line, no newline at the end.
    public var prettyBytes: [UInt8] { serialized(pretty: true) }

    /// Escaped is only what must be: quotation mark, backslash and what is below U+0020. Doubles that JSON cannot express become null.
    public func serialized(pretty: Bool = false) -> [UInt8] {
        var writer = JSONWriter(isPretty: pretty)
        writer.value(self, level: 0)
        return writer.bytes
    }

    public var description: String { String(decoding: compactBytes, as: UTF8.self) }
}

private struct JSONWriter {
    let isPretty: Bool
    var bytes: [UInt8] = []

    init(isPretty: Bool) { self.isPretty = isPretty }

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

    private mutating func string(_ string: String) {
        bytes.append(UInt8(ascii: "\""))
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
        bytes.append(UInt8(ascii: "\""))
    }
}
