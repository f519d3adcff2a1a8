public import ComposefsBytes

/// Compares two versions as boot loaders do (UAPI "Version Format Specification"). Returns -1, 0 or 1.
///
/// A version is a sequence of numbers, words and separators; other characters are ignored. `~` is older than all else, even than the end, so
/// that `1~rc1` comes before `1`. Then follow the end, `-`, `^` and `.`; a word is older than a number. Numbers are compared by value, words
/// byte by byte.
public func compareVersions(_ lhs: ByteString, _ rhs: ByteString) -> Int {
    var left = lhs.bytes[...]
    var right = rhs.bytes[...]
    while true {
        left = left.drop { !isVersionByte($0) }
        right = right.drop { !isVersionByte($0) }
        if let order = takeSeparator("~", &left, &right) { return order }
        if left.isEmpty || right.isEmpty { return order(left.count, right.count) }
        for separator in [UInt8(ascii: "-"), UInt8(ascii: "^"), UInt8(ascii: ".")] {
            if let order = takeSeparator(Unicode.Scalar(separator), &left, &right) { return order }
        }
        let isNumber = left.first.map(isDigit) == true || right.first.map(isDigit) == true
        let difference = isNumber ? takeNumber(&left, &right) : takeWord(&left, &right)
        if difference != 0 { return difference }
    }
}

private func order(_ left: Int, _ right: Int) -> Int { left == right ? 0 : (left < right ? -1 : 1) }

/// If one side starts with the separator, the other is newer. If both do, it is removed from both.
private func takeSeparator(_ separator: Unicode.Scalar, _ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>) -> Int? {
    let byte = UInt8(ascii: separator)
    let (isLeft, isRight) = (left.first == byte, right.first == byte)
    guard isLeft || isRight else { return nil }
    guard isLeft, isRight else { return isLeft ? -1 : 1 }
    left.removeFirst()
    right.removeFirst()
    return nil
}

/// A missing number is older than any.
private func takeNumber(_ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>) -> Int {
    let (first, second) = (left.prefix(while: isDigit), right.prefix(while: isDigit))
    left = left.dropFirst(first.count)
    right = right.dropFirst(second.count)
    if first.isEmpty || second.isEmpty { return order(first.count, second.count) }
    // Of any length: more digits without leading zeros are a larger number.
    let (a, b) = (first.drop { $0 == UInt8(ascii: "0") }, second.drop { $0 == UInt8(ascii: "0") })
    return a.count == b.count ? bytewise(a, b) : order(a.count, b.count)
}

private func takeWord(_ left: inout ArraySlice<UInt8>, _ right: inout ArraySlice<UInt8>) -> Int {
    let (first, second) = (left.prefix(while: isLetter), right.prefix(while: isLetter))
    left = left.dropFirst(first.count)
    right = right.dropFirst(second.count)
    return bytewise(first, second)
}

private func bytewise(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>) -> Int {
    left.withUnsafeBytes { a in right.withUnsafeBytes { b in compareBytes(a, b) } }
}

private func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
private func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte) }
private func isVersionByte(_ byte: UInt8) -> Bool { isDigit(byte) || isLetter(byte) || "~-^.".utf8.contains(byte) }
