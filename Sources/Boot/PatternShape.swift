/// What is known of a regular expression without matching it: the bytes with which every match begins, and whether the rest is one of the
/// forms that nearly all lines of a policy have.
///
/// If there is any doubt, the stem is empty, which is always correct: the pattern is then tried on every path.
struct PatternShape: Equatable {
    enum Rest: Equatable {
        /// Nothing follows the stem.
        case nothing
        /// `(/.*)?`
        case optionalSubtree
        /// `.*`
        case anything
        case pattern
    }

    /// Every match begins with these bytes.
    var stem: [UInt8] = []
    var rest = Rest.pattern
    /// The rest of the pattern is matched by PCRE2.
    var keepsEnd = false

    init(_ pattern: ArraySlice<UInt8>) {
        var at = pattern.startIndex
        var stem: [UInt8] = []
        while at < pattern.endIndex {
            var byte = pattern[at]
            var next = at + 1
            if byte == UInt8(ascii: "\\") {
                // An escaped letter or digit is a class, an assertion or a back reference.
                guard next < pattern.endIndex, Self.isPunctuation(pattern[next]) else { break }
                byte = pattern[next]
                next += 1
            } else if Self.isSpecial(byte) {
                break
            }
            stem.append(byte)
            at = next
        }
        let remaining = pattern[at...]
        guard Self.standsAlone(remaining) else { return }
        if let first = remaining.first, Self.isQuantifier(first) {
            // The quantifier repeats the last byte, possibly zero times.
            guard stem.popLast() != nil else { return }
        } else if remaining.isEmpty {
            rest = .nothing
        } else if remaining.elementsEqual("(/.*)?".utf8) {
            rest = .optionalSubtree
        } else if remaining.elementsEqual(".*".utf8) {
            rest = .anything
        }
        self.stem = stem
        keepsEnd = true
    }

    private static func isPunctuation(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x21...0x2f, 0x3a...0x40, 0x5b...0x60, 0x7b...0x7e: true
        default: false
        }
    }

    private static func isSpecial(_ byte: UInt8) -> Bool { #".^$[](){}|*+?\"#.utf8.contains(byte) }

    private static func isQuantifier(_ byte: UInt8) -> Bool { "*+?{".utf8.contains(byte) }

    /// Whether the rest of a pattern leaves the stem a prefix of every match: no alternative to it, no group closed that was opened in the
    /// stem, nothing that changes how the pattern is read.
    private static func standsAlone(_ rest: ArraySlice<UInt8>) -> Bool {
        var depth = 0
        var at = rest.startIndex
        while at < rest.endIndex {
            switch rest[at] {
            case UInt8(ascii: "\\"):
                at += 1
                // Quoting.
                if at < rest.endIndex, rest[at] == UInt8(ascii: "Q") || rest[at] == UInt8(ascii: "E") { return false }
            case UInt8(ascii: "["):
                guard let end = endOfClass(rest, at) else { return false }
                at = end
            case UInt8(ascii: "("):
                // Look-around, options, comments, verbs, conditions.
                if at + 1 < rest.endIndex, rest[at + 1] == UInt8(ascii: "?") || rest[at + 1] == UInt8(ascii: "*") { return false }
                depth += 1
            case UInt8(ascii: ")"):
                depth -= 1
                if depth < 0 { return false }
            case UInt8(ascii: "|"):
                if depth == 0 { return false }
            default: break
            }
            at += 1
        }
        return depth == 0
    }

    /// The index of the `]` that ends a class; nil if that is not certain.
    private static func endOfClass(_ rest: ArraySlice<UInt8>, _ start: Int) -> Int? {
        var at = start + 1
        if at < rest.endIndex, rest[at] == UInt8(ascii: "^") { at += 1 }
        if at < rest.endIndex, rest[at] == UInt8(ascii: "]") { at += 1 }
        while at < rest.endIndex {
            switch rest[at] {
            case UInt8(ascii: "]"): return at
            // Escapes in a class, and nested classes.
            case UInt8(ascii: "["): return nil
            case UInt8(ascii: "\\"):
                at += 1
                if at < rest.endIndex, !isPunctuation(rest[at]) { return nil }
            default: break
            }
            at += 1
        }
        return nil
    }
}
