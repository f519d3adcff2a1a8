/// Base64 (RFC 4648, section 4).
///
/// Line breaks are accepted anywhere in the text, because documents and auth files often contain the output of programs that wrap it.
package enum Base64 {
    private static let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    private static let padding = UInt8(ascii: "=")

    package static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let bits = group.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } << (8 * UInt32(3 - group.count))
            for position in 0..<4 {
                text.append(position <= group.count ? digits[Int(bits >> (18 - 6 * UInt32(position)) & 63)] : padding)
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The decoded bytes, or nil when the text is not valid base64: a character outside the alphabet, an impossible length, wrong padding,
    /// or trailing bits that belong to no byte and are not zero.
    ///
    /// CR and LF are skipped, as in Go's decoder, which most container tools use.
    ///
    /// - Parameter lenient: Accepts what hand-written files contain: missing padding, and trailing bits that are not zero.
    package static func decode(_ text: some Collection<UInt8>, lenient: Bool = false) -> [UInt8]? {
        var digits = text.filter { $0 != UInt8(ascii: "\r") && $0 != UInt8(ascii: "\n") }
        let length = digits.count
        while digits.last == padding, length - digits.count < 2 { digits.removeLast() }
        guard digits.count % 4 != 1, length % 4 == 0 || (lenient && length == digits.count) else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 4 * 3 + 2)
        var (bits, held) = (UInt32(0), UInt32(0))
        for digit in digits {
            let value: UInt8
            switch digit {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = digit - 65
            case UInt8(ascii: "a")...UInt8(ascii: "z"): value = digit - 71
            case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit + 4
            case UInt8(ascii: "+"): value = 62
            case UInt8(ascii: "/"): value = 63
            default: return nil
            }
            bits = bits << 6 | UInt32(value)
            held += 6
            if held >= 8 {
                held -= 8
                bytes.append(UInt8(truncatingIfNeeded: bits >> held))
            }
        }
        guard lenient || bits & (1 << held - 1) == 0 else { return nil }
        return bytes
    }
}
