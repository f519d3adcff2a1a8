internal import ComposefsBytes

/// The records of a PAX extended header, which apply to the next entry. As POSIX requires, a record with an empty value cancels an earlier
/// one and sets nothing itself, so an extended attribute cannot be empty.
struct PaxRecords {
    var path: ByteString?
    var linkTarget: ByteString?
    var size: UInt64?
    var uid: UInt32?
    var gid: UInt32?
    var mtime: (seconds: Int64, nanoseconds: UInt32)?
    var extendedAttributes: [(name: ByteString, value: ByteString)] = []
    var sparse: PaxSparse?

    /// Linux's limits in bytes (XATTR_NAME_MAX, XATTR_SIZE_MAX).
    private static let longestName = 255
    private static let longestValue = 65_536

    /// Parses concatenated records `<decimal length of the whole record> <key>=<value>\n`, which must fill the data exactly.
    init(_ data: [UInt8]) throws(TarFault) {
        var indices: [ByteString: Int] = [:]
        var at = 0
        while at < data.count {
            var length = 0
            var digits = at
            while digits < data.count, data[digits] &- 0x30 < 10 {
                // The header has at most one mebibyte: seven digits are enough, and no sum can overflow.
                guard digits - at < 7 else { throw TarFault(.badRecord("the length has too many digits")) }
                length = length * 10 + Int(data[digits] - 0x30)
                digits += 1
            }
            guard digits > at, digits < data.count, data[digits] == 0x20 else {
                throw TarFault(.badRecord("the record does not begin with a length and a space"))
            }
            let start = digits + 1
            let end = at + length
            guard end <= data.count else { throw TarFault(.badRecord("the length exceeds the header's data")) }
            guard end > start else { throw TarFault(.badRecord("the length is too small")) }
            guard data[end - 1] == 0x0a else { throw TarFault(.badRecord("the record does not end with a newline")) }
            guard let equals = data[start..<(end - 1)].firstIndex(of: 0x3d) else { throw TarFault(.badRecord("it has no =")) }
            guard equals > start else { throw TarFault(.badRecord("the key is empty")) }
            try take(data[start..<equals], data[(equals + 1)..<(end - 1)], &indices)
            at = end
        }
        extendedAttributes.removeAll { $0.value.isEmpty }
    }

    private mutating func take(
        _ key: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>, _ indices: inout [ByteString: Int]
    ) throws(TarFault) {
        func matches(_ name: StaticString) -> Bool {
            name.utf8CodeUnitCount == key.count && name.withUTF8Buffer { key.elementsEqual($0) }
        }
        // The first byte rules out nearly all keys.
        switch key.first {
        case UInt8(ascii: "p") where matches("path"): path = try name(key, value)
        case UInt8(ascii: "l") where matches("linkpath"): linkTarget = try name(key, value)
        case UInt8(ascii: "s") where matches("size"): size = try Self.number(ByteString(key), value, max: UInt64(Int64.max))
        case UInt8(ascii: "u") where matches("uid"): uid = try Self.owner(ByteString(key), value)
        case UInt8(ascii: "g") where matches("gid"): gid = try Self.owner(ByteString(key), value)
        case UInt8(ascii: "m") where matches("mtime"): mtime = try Self.time(key, value)
        case UInt8(ascii: "S") where key.starts(with: "SCHILY.xattr.".utf8):
            try attribute(key, value, &indices)
        case UInt8(ascii: "G") where key.starts(with: "GNU.sparse.".utf8):
            if sparse == nil { sparse = PaxSparse() }
            try sparse?.take(ByteString(key.dropFirst("GNU.sparse.".utf8.count)), value)
        default: break
        }
    }

    private func name(_ key: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>) throws(TarFault) -> ByteString? {
        guard !value.contains(0) else { throw TarFault(.badValue(key: ByteString(key), "it contains a NUL byte")) }
        return value.isEmpty ? nil : ByteString(value)
    }

    private mutating func attribute(
        _ key: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>, _ indices: inout [ByteString: Int]
    ) throws(TarFault) {
        let name = ByteString(key.dropFirst("SCHILY.xattr.".utf8.count))
        guard !name.isEmpty, !name.bytes.contains(0) else {
            throw TarFault(.badValue(key: ByteString(key), "it does not name an extended attribute"))
        }
        guard name.count <= Self.longestName else {
            throw TarFault(.badValue(key: ByteString(key), "the attribute's name is longer than \(Self.longestName) bytes"))
        }
        guard value.count <= Self.longestValue else {
            throw TarFault(.badValue(key: ByteString(key), "the attribute's value is longer than \(Self.longestValue) bytes"))
        }
        if let index = indices[name] {
            extendedAttributes[index].value = ByteString(value)
        } else if !value.isEmpty {
            indices[name] = extendedAttributes.count
            extendedAttributes.append((name, ByteString(value)))
        }
    }

    private static func owner(_ key: ByteString, _ value: ArraySlice<UInt8>) throws(TarFault) -> UInt32? {
        guard let number = try number(key, value, max: UInt64(UInt32.max)) else { return nil }
        guard number < UInt64(UInt32.max) else { throw TarFault(.badValue(key: key, TarHeader.noOwner)) }
        return UInt32(truncatingIfNeeded: number)
    }

    /// Nil if the value is empty.
    static func number(_ key: ByteString, _ value: ArraySlice<UInt8>, max: UInt64) throws(TarFault) -> UInt64? {
        guard !value.isEmpty else { return nil }
        var result: UInt64 = 0
        for character in value {
            let digit = character &- 0x30
            guard digit < 10 else {
                let isNegative = value.first == UInt8(ascii: "-")
                throw TarFault(.badValue(key: key, isNegative ? "it is negative" : "it is not a number"))
            }
            let (product, overflow) = result.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
            guard !overflow, !carry else { throw TarFault(.badValue(key: key, "it is too large")) }
            result = sum
        }
        guard result <= max else { throw TarFault(.badValue(key: key, "it is too large")) }
        return result
    }

    /// Parses `[-]seconds[.fraction]`. Digits of the fraction after the ninth are ignored.
    static func time(
        _ key: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>
    ) throws(TarFault) -> (seconds: Int64, nanoseconds: UInt32)? {
        guard !value.isEmpty else { return nil }
        let isNegative = value.first == UInt8(ascii: "-")
        let isSigned = isNegative || value.first == UInt8(ascii: "+")
        let parts = value.dropFirst(isSigned ? 1 : 0).split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        let fault = TarFault(.badValue(key: ByteString(key), "it is not a time"))
        guard let whole = parts.first, !whole.isEmpty else { throw fault }
        var seconds: Int64 = 0
        for character in whole {
            guard character &- 0x30 < 10 else { throw fault }
            let (product, overflow) = seconds.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.subtractingReportingOverflow(Int64(character &- 0x30))
            guard !overflow, !carry else { throw TarFault(.badValue(key: ByteString(key), "it is too large")) }
            // The sum is kept negative, because the negative half of the range is larger.
            seconds = sum
        }
        var nanoseconds: UInt32 = 0
        var scale: UInt32 = 100_000_000
        for character in parts.count > 1 ? parts[1] : [] {
            guard character &- 0x30 < 10 else { throw fault }
            nanoseconds += UInt32(character &- 0x30) * scale
            scale /= 10
        }
        if isNegative {
            guard nanoseconds > 0 else { return (seconds, 0) }
            let (floor, overflow) = seconds.subtractingReportingOverflow(1)
            guard !overflow else { throw TarFault(.badValue(key: ByteString(key), "it is too large")) }
            return (floor, 1_000_000_000 - nanoseconds)
        }
        guard seconds != .min else { throw TarFault(.badValue(key: ByteString(key), "it is too large")) }
        return (-seconds, nanoseconds)
    }
}
