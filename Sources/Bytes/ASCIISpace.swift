/// Space, `\t`, `\n`, `\v`, `\f` and `\r`, as C's `isspace` in the C locale.
@inlinable
package func isASCIISpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0d).contains(byte) }

/// `text` without white space at both ends.
package func trimmingASCIISpace(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    guard let first = text.firstIndex(where: { !isASCIISpace($0) }), let last = text.lastIndex(where: { !isASCIISpace($0) }) else {
        return []
    }
    return text[first...last]
}
