extension Substring {
    /// Without blanks and tabs at both ends.
    package var trimmingBlanks: Substring {
        var slice = self
        while let first = slice.first, first == " " || first == "\t" { slice.removeFirst() }
        while let last = slice.last, last == " " || last == "\t" { slice.removeLast() }
        return slice
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters, for query values and forms.
package func percentEncoded(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var out: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
            out.append(byte)
        default:
            out += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
        }
    }
    return String(decoding: out, as: UTF8.self)
}

/// Makes a server's text fit for one line of a terminal: replaces control characters by blanks and cuts after `limit` characters.
package func printable(_ text: String, limit: Int = 200) -> String {
    var out = ""
    var count = 0
    for scalar in text.unicodeScalars {
        guard count < limit else { return out + "…" }
        switch scalar.value {
        case 0x20...0x7e: out.unicodeScalars.append(scalar)
        // Neither C1 controls nor bidirectional marks: they could rewrite the line.
        case 0xa1...0x200a, 0x2010...0x2027, 0x2030...0x205f, 0x2070...0xd7ff: out.unicodeScalars.append(scalar)
        default: if out.last != " " { out += " " }
        }
        count += 1
    }
    return out
}
