public import ComposefsBytes

/// A pattern for names: `*` stands for any bytes, slashes included, `?` for one byte, `[a-z]` for one byte of a class and `[!a-z]` or `[^a-z]`
/// for one of no class; a backslash takes the next byte literally. A `[` without an end is a literal one.
public struct GlobPattern: Sendable, Hashable {
    private enum Element: Sendable, Hashable {
        case any
        case one
        case literal(UInt8)
        case oneOf([ClosedRange<UInt8>], isNegated: Bool)

        func matches(_ byte: UInt8) -> Bool {
            switch self {
            case .any, .one: true
            case .literal(let literal): literal == byte
            case .oneOf(let ranges, let isNegated): ranges.contains { $0.contains(byte) } != isNegated
            }
        }
    }

    private var elements: [Element] = []

    public init(_ text: ByteString) {
        var rest = text.bytes[...]
        while let byte = rest.popFirst() {
            switch byte {
            case UInt8(ascii: "*"): if elements.last != .any { elements.append(.any) }
            case UInt8(ascii: "?"): elements.append(.one)
            case UInt8(ascii: "\\"): elements.append(.literal(rest.popFirst() ?? byte))
            case UInt8(ascii: "["): elements.append(Self.characterClass(&rest) ?? .literal(byte))
            default: elements.append(.literal(byte))
            }
        }
    }

    /// A class after its `[`; nil if it has no end, and then nothing is consumed.
    private static func characterClass(_ rest: inout ArraySlice<UInt8>) -> Element? {
        var at = rest
        var isNegated = false
        if let first = at.first, first == UInt8(ascii: "!") || first == UInt8(ascii: "^") {
            isNegated = true
            at = at.dropFirst()
        }
        var ranges: [ClosedRange<UInt8>] = []
        while let byte = at.popFirst() {
            // A bracket in the first place belongs to the class.
            if byte == UInt8(ascii: "]"), !ranges.isEmpty {
                rest = at
                return .oneOf(ranges, isNegated: isNegated)
            }
            var low = byte
            if byte == UInt8(ascii: "\\"), let next = at.popFirst() { low = next }
            if at.count > 1, at.first == UInt8(ascii: "-"), let high = at.dropFirst().first, high != UInt8(ascii: "]") {
                at = at.dropFirst(2)
                // A range with its ends in descending order means the same as in ascending order.
                ranges.append(min(low, high)...max(low, high))
            } else {
                ranges.append(low...low)
            }
        }
        return nil
    }

    /// Whether the whole name matches. Takes time in proportion to the product of both lengths at most.
    public func matches(_ name: ByteString) -> Bool {
        let bytes = name.bytes
        var (element, byte) = (0, 0)
        // The last star, and the byte at which what follows it is tried next.
        var star: (element: Int, byte: Int)?
        while byte < bytes.count {
            if element < elements.count, elements[element] == .any {
                star = (element, byte)
                element += 1
            } else if element < elements.count, elements[element].matches(bytes[byte]) {
                element += 1
                byte += 1
            } else if let last = star {
                star = (last.element, last.byte + 1)
                (element, byte) = (last.element + 1, last.byte + 1)
            } else {
                return false
            }
        }
        return elements[element...].allSatisfy { $0 == .any }
    }
}
