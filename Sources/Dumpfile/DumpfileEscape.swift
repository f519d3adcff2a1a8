internal import ComposefsBytes

/// The escaping of fields: printable ASCII is not escaped, a backslash is doubled, newline, carriage return and tab are `\n`, `\r` and
/// `\t`, and every other byte is `\xHH`.
package enum DumpfileEscape {
    package enum Style {
        /// Paths.
        case plain
        /// Paths in a list, in which spaces are not escaped.
        case list
        /// Optional fields, in which a single `-` means "none".
        case optional
        /// Names and values of extended attributes, which are separated by `=`.
        case attribute
    }

    package static func append(_ bytes: some Collection<UInt8>, _ style: Style, to out: inout [UInt8]) {
        if style == .optional {
            if bytes.isEmpty {
                out.append(UInt8(ascii: "-"))
                return
            }
            if bytes.elementsEqual(CollectionOfOne(UInt8(ascii: "-"))) {
                appendHex(UInt8(ascii: "-"), to: &out)
                return
            }
        }
        for byte in bytes {
            switch byte {
            case UInt8(ascii: "\\"):
                out.append(byte)
                out.append(byte)
            case UInt8(ascii: "\n"): escape("n", to: &out)
            case UInt8(ascii: "\r"): escape("r", to: &out)
            case UInt8(ascii: "\t"): escape("t", to: &out)
            case UInt8(ascii: "=") where style == .attribute: appendHex(byte, to: &out)
            case UInt8(ascii: " ") where style == .list: out.append(byte)
            case 0x21...0x7e: out.append(byte)
            default: appendHex(byte, to: &out)
            }
        }
    }

    /// Nil if an escape is unknown or incomplete.
    static func unescape(_ field: some Collection<UInt8>) -> ByteString? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(field.count)
        var iterator = field.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "\\") else {
                bytes.append(byte)
                continue
            }
            switch iterator.next() {
            case UInt8(ascii: "\\"): bytes.append(UInt8(ascii: "\\"))
            case UInt8(ascii: "n"): bytes.append(UInt8(ascii: "\n"))
            case UInt8(ascii: "r"): bytes.append(UInt8(ascii: "\r"))
            case UInt8(ascii: "t"): bytes.append(UInt8(ascii: "\t"))
            case UInt8(ascii: "x"):
                guard let high = iterator.next().flatMap(digit), let low = iterator.next().flatMap(digit) else { return nil }
                bytes.append(high << 4 | low)
            default: return nil
            }
        }
        return ByteString(bytes)
    }

    /// Upper and lower case are accepted, because other writers may use upper case.
    private static func digit(_ character: UInt8) -> UInt8? {
        switch character {
        case 0x41...0x46: character - 0x37
        default: Hex.value(of: character)
        }
    }

    private static func escape(_ letter: Unicode.Scalar, to out: inout [UInt8]) {
        out.append(UInt8(ascii: "\\"))
        out.append(UInt8(ascii: letter))
    }

    private static func appendHex(_ byte: UInt8, to out: inout [UInt8]) {
        escape("x", to: &out)
        out.append(Hex.digit(byte >> 4))
        out.append(Hex.digit(byte & 15))
    }
}
