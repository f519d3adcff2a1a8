import ComposefsBytes
import ComposefsFileTree

/// Headers of a tar archive (POSIX.1-2001, pax interchange format): a ustar header, and before it a pax header for whatever the ustar header cannot
/// hold. Extended attributes are records `SCHILY.xattr.NAME`, as star, GNU tar and containers' tools write them.
struct TarWriter {
    private static let blockSize = 512

    /// One entry.
    struct Entry {
        var path: ByteString
        var metadata: Metadata
        /// The type flag of the ustar header.
        var type: UInt8
        /// In bytes; 0 for anything but a file.
        var size: UInt64 = 0
        var link: ByteString = ""
        var device: UInt64 = 0
    }

    /// The blocks before the content.
    ///
    /// - Throws: `ExtractionError.attributeName`.
    static func header(_ entry: Entry) throws(ExtractionError) -> [UInt8] {
        var records: [UInt8] = []
        var header = [UInt8](repeating: 0, count: blockSize)
        func put(_ bytes: some Sequence<UInt8>, _ offset: Int) {
            for (index, byte) in bytes.enumerated() where offset + index < blockSize { header[offset + index] = byte }
        }
        /// What does not fit is a record, and 0 in the header.
        func number(_ value: UInt64, _ offset: Int, _ width: Int, _ key: String) {
            let fits = value < 1 << (3 * UInt64(width - 1))
            if !fits { records += record(key, Array(String(value).utf8)) }
            put(octal(fits ? value : 0, width - 1), offset)
        }
        let metadata = entry.metadata
        if entry.path.count > 100 { records += record("path", entry.path.bytes) }
        put(entry.path.bytes.prefix(100), 0)
        put(octal(UInt64(metadata.permissions), 7), 100)
        number(UInt64(metadata.uid), 108, 8, "uid")
        number(UInt64(metadata.gid), 116, 8, "gid")
        number(entry.size, 124, 12, "size")
        let time = metadata.modified
        let isWhole = time.nanoseconds == 0 && (0..<1 << 33).contains(time.seconds)
        if !isWhole { records += record("mtime", Array(text(time).utf8)) }
        put(octal(UInt64(min(max(time.seconds, 0), (1 << 33) - 1)), 11), 136)
        header[156] = entry.type
        if entry.link.count > 100 { records += record("linkpath", entry.link.bytes) }
        put(entry.link.bytes.prefix(100), 157)
        put("ustar".utf8, 257)
        put("00".utf8, 263)
        if entry.device > 0 || entry.type == UInt8(ascii: "3") || entry.type == UInt8(ascii: "4") {
            let (major, minor) = Content.majorAndMinor(ofDevice: entry.device)
            number(UInt64(major), 329, 8, "SCHILY.devmajor")
            number(UInt64(minor), 337, 8, "SCHILY.devminor")
        }
        for attribute in metadata.extendedAttributes {
            guard !attribute.name.bytes.contains(UInt8(ascii: "=")) else { throw .attributeName(path: entry.path, attribute.name) }
            records += record("SCHILY.xattr.", attribute.name.bytes, attribute.value.bytes)
        }
        seal(&header)
        guard !records.isEmpty else { return header }
        return paxHeader(records) + header
    }

    /// The zeros that fill the last block of a file of `size` bytes.
    static func padding(_ size: UInt64) -> [UInt8] {
        [UInt8](repeating: 0, count: Int((UInt64(blockSize) - size % UInt64(blockSize)) % UInt64(blockSize)))
    }

    /// What ends an archive.
    static var end: [UInt8] { [UInt8](repeating: 0, count: 2 * blockSize) }

    private static func paxHeader(_ records: [UInt8]) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: blockSize)
        func put(_ bytes: some Sequence<UInt8>, _ offset: Int) {
            for (index, byte) in bytes.enumerated() { header[offset + index] = byte }
        }
        put("pax".utf8, 0)
        put(octal(0o644, 7), 100)
        for offset in [108, 116] { put(octal(0, 7), offset) }
        put(octal(UInt64(records.count), 11), 124)
        put(octal(0, 11), 136)
        header[156] = UInt8(ascii: "x")
        put("ustar".utf8, 257)
        put("00".utf8, 263)
        seal(&header)
        return header + records + padding(UInt64(records.count))
    }

    private static func seal(_ header: inout [UInt8]) {
        for index in 148..<156 { header[index] = 0x20 }
        let sum = header.reduce(UInt64(0)) { $0 + UInt64($1) }
        for (index, byte) in (octal(sum, 6) + [0]).enumerated() { header[148 + index] = byte }
    }

    private static func octal(_ value: UInt64, _ width: Int) -> [UInt8] {
        let digits = String(value, radix: 8)
        return Array((String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits).utf8)
    }

    /// `LENGTH KEY=VALUE` and a line end; the length counts its own digits.
    private static func record(_ key: String, _ name: [UInt8] = [], _ value: [UInt8]) -> [UInt8] {
        // Step by step: Swift 6.2 takes too long for the sum in one expression.
        var rest: [UInt8] = [UInt8(ascii: " ")]
        rest += key.utf8
        rest += name
        rest.append(UInt8(ascii: "="))
        rest += value
        rest.append(0x0a)
        var length = rest.count
        while String(length).utf8.count + rest.count != length { length = String(length).utf8.count + rest.count }
        return Array(String(length).utf8) + rest
    }

    private static func record(_ key: String, _ value: [UInt8]) -> [UInt8] { record(key, [], value) }

    /// Decimal seconds, with a fraction if there is one. The fraction counts from the value towards zero, so a time before 1970 needs care.
    private static func text(_ time: Timestamp) -> String {
        var (seconds, nanoseconds, sign) = (time.seconds, Int(time.nanoseconds), "")
        if seconds < 0 {
            sign = "-"
            if nanoseconds > 0 { (seconds, nanoseconds) = (seconds + 1, 1_000_000_000 - nanoseconds) }
        }
        guard nanoseconds > 0 else { return sign + String(seconds.magnitude) }
        let digits = String(1_000_000_000 + nanoseconds).dropFirst()
        return sign + String(seconds.magnitude) + "." + digits
    }
}
