/// One challenge of a WWW-Authenticate field (RFC 9110 §11.6.1).
struct Challenge: Equatable {
    /// In lower case.
    var scheme: String
    /// Names in lower case.
    var parameters: [String: String] = [:]

    /// All challenges of all fields, in order. A syntax error ends the parsing of its field.
    static func parse(_ fields: [String]) -> [Challenge] { fields.flatMap { parse($0) } }

    private static func parse(_ field: String) -> [Challenge] {
        var scanner = Scanner(rest: Array(field.utf8)[...])
        var challenges: [Challenge] = []
        while true {
            scanner.skip { $0 == UInt8(ascii: ",") || isBlank($0) }
            let word = scanner.token()
            guard !word.isEmpty else { return challenges }
            let hadBlank = scanner.skip(isBlank) > 0
            if let last = challenges.indices.last, scanner.rest.first == UInt8(ascii: "=") {
                scanner.rest.removeFirst()
                scanner.skip(isBlank)
                guard let value = scanner.value() else { return challenges }
                // The first of two parameters with the same name counts: the second could be an attack.
                if challenges[last].parameters[word.lowercased()] == nil { challenges[last].parameters[word.lowercased()] = value }
            } else {
                challenges.append(Challenge(scheme: word.lowercased()))
                guard hadBlank || scanner.rest.isEmpty || scanner.rest.first == UInt8(ascii: ",") else { return challenges }
                scanner.skipToken68()
            }
        }
    }

    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    private struct Scanner {
        var rest: ArraySlice<UInt8>

        @discardableResult
        mutating func skip(_ matches: (UInt8) -> Bool) -> Int {
            let before = rest.count
            while let byte = rest.first, matches(byte) { rest.removeFirst() }
            return before - rest.count
        }

        /// RFC 9110 §5.6.2.
        mutating func token() -> String {
            let start = rest
            skip(Self.isTokenByte)
            return String(decoding: start[start.startIndex..<rest.startIndex], as: UTF8.self)
        }

        /// A token or quoted string; nil if the closing quote is missing.
        mutating func value() -> String? {
            guard rest.first == UInt8(ascii: "\"") else { return token() }
            rest.removeFirst()
            var out: [UInt8] = []
            while let byte = rest.popFirst() {
                if byte == UInt8(ascii: "\"") { return String(decoding: out, as: UTF8.self) }
                if byte == UInt8(ascii: "\\") {
                    guard let escaped = rest.popFirst() else { return nil }
                    out.append(escaped)
                } else {
                    out.append(byte)
                }
            }
            return nil
        }

        /// `Negotiate abc==`: a word that is neither a parameter nor the next scheme.
        mutating func skipToken68() {
            var ahead = self
            let length = ahead.skip { Self.isTokenByte($0) || $0 == UInt8(ascii: "/") }
            let padding = ahead.skip { $0 == UInt8(ascii: "=") }
            ahead.skip { $0 == 0x20 || $0 == 0x09 }
            if length > 0, ahead.rest.isEmpty || (padding > 0 && ahead.rest.first == UInt8(ascii: ",")) { self = ahead }
        }

        static func isTokenByte(_ byte: UInt8) -> Bool {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
            default: Array("!#$%&'*+-.^_`|~".utf8).contains(byte)
            }
        }
    }
}
