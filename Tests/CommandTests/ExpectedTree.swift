import ComposefsHashing
import ComposefsJSON

/// One line of a dump, reduced to the fields of an expected tree.
struct DumpedFile: Equatable, CustomStringConvertible {
    var type: String
    var mode: String?
    var uid: String
    var gid: String
    var mtime: String
    var size: String?
    var target: String?
    var device: String?
    var digest: String?
    var attributes: [String: [UInt8]]
    /// The first name of the inode, for each further name.
    var hardLink: String?

    var description: String {
        "\(type) mode \(mode ?? "-") \(uid):\(gid) mtime \(mtime) size \(size ?? "-") target \(target ?? "-") device \(device ?? "-") digest \(digest ?? "-") xattrs \(attributes) link \(hardLink ?? "-")"
    }
}

/// Reads a composefs dumpfile without the project's own parser.
func readDump(_ text: String, _ algorithm: VerityAlgorithm) throws -> [String: DumpedFile] {
    var files: [String: DumpedFile] = [:]
    for line in text.split(separator: "\n") {
        let fields = line.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard fields.count >= 11 else { throw RunFailure(description: "dump line with \(fields.count) fields: \(line)") }
        let path = try plain(fields[0])
        if fields[2].hasPrefix("@") {
            files[path] = DumpedFile(
                type: "link", uid: "", gid: "", mtime: "", attributes: [:], hardLink: try plain(fields[8]))
            continue
        }
        guard let bits = UInt32(fields[2], radix: 8) else { throw RunFailure(description: "mode \(fields[2])") }
        let types: [UInt32: String] = [
            0o100000: "file", 0o040000: "dir", 0o020000: "chr", 0o060000: "blk", 0o010000: "fifo", 0o140000: "sock", 0o120000: "symlink",
        ]
        let type = types[bits & 0o170000] ?? "?"
        var file = DumpedFile(type: type, uid: fields[4], gid: fields[5], mtime: fields[7], attributes: [:])
        if type != "symlink" { file.mode = String(bits & 0o7777, radix: 8) }
        if type == "symlink" { file.target = try plain(fields[8]) }
        if type == "chr" || type == "blk" { file.device = fields[6] }
        if type == "file" {
            file.size = fields[1]
            let inline = fields[9] == "-" ? [] : try unescape(fields[9])
            file.digest = fields[10] == "-" ? inline.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm).hex } : fields[10]
        }
        for field in fields[11...] {
            guard let equals = field.firstIndex(of: "=") else { throw RunFailure(description: "xattr \(field)") }
            file.attributes[try plain(String(field[..<equals]))] = try unescape(String(field[field.index(after: equals)...]))
        }
        files[path] = file
    }
    return files
}

/// Converts a dumpfile's escapes to those of the expected trees: bytes outside 0x21…0x7e, and %, become %XX.
private func plain(_ field: String) throws -> String { percent(try unescape(field)) }

private func unescape(_ field: String) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var rest = Array(field.utf8)[...]
    while let byte = rest.popFirst() {
        guard byte == UInt8(ascii: "\\") else {
            bytes.append(byte)
            continue
        }
        switch rest.popFirst() {
        case UInt8(ascii: "\\"): bytes.append(0x5c)
        case UInt8(ascii: "n"): bytes.append(0x0a)
        case UInt8(ascii: "r"): bytes.append(0x0d)
        case UInt8(ascii: "t"): bytes.append(0x09)
        case UInt8(ascii: "x"):
            guard let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
                throw RunFailure(description: "escape in \(field)")
            }
            bytes.append(value)
            rest = rest.dropFirst(2)
        default: throw RunFailure(description: "escape in \(field)")
        }
    }
    return bytes
}

func percent(_ bytes: [UInt8]) -> String {
    bytes.map { byte in
        if (0x21...0x7e).contains(byte), byte != UInt8(ascii: "%") { return String(UnicodeScalar(byte)) }
        let hex = String(byte, radix: 16, uppercase: true)
        return "%" + (hex.count == 1 ? "0" : "") + hex
    }.joined()
}

/// An expected tree after the transform for container images: root metadata from /usr (0755 0:0, time 0 without /usr), /run emptied,
/// extended attributes reduced to the allow list.
func expectedTree(_ document: JSONValue, algorithm: String) throws -> [String: DumpedFile] {
    struct Raw {
        var entry: JSONValue
        var path: String
    }
    let raw = try (document["entries"]?.array ?? []).map { entry in
        guard let path = entry["path"]?.string else { throw RunFailure(description: "an entry without path") }
        return Raw(entry: entry, path: path)
    }
    let usr = raw.first { $0.path == "/usr" }?.entry
    var files: [String: DumpedFile] = [:]
    // The dump identifies a hard-link group by the first path in its order, the expected tree by any of its names.
    var groups: [String: [String]] = [:]
    for (entry, path) in raw.map({ ($0.entry, $0.path) }) where !path.hasPrefix("/run/") {
        var source = entry
        if path == "/" { source = usr ?? .null }
        var file = DumpedFile(
            type: entry["type"]?.string ?? "?", uid: number(source["uid"]) ?? "0", gid: number(source["gid"]) ?? "0",
            mtime: time(source["mtime"]), attributes: [:])
        if path == "/run" { file.mtime = time(usr?["mtime"]) }
        if file.type != "symlink" {
            let mode = source["mode"]?.string ?? "0755"
            file.mode = UInt32(mode, radix: 8).map { String($0, radix: 8) }
        }
        file.target = entry["target"]?.string
        if let device = entry["rdev"] { file.device = deviceNumber(device) }
        if file.type == "file" {
            file.size = number(entry["size"])
            file.digest = entry["verity_" + algorithm]?.string
        }
        for (name, value) in source["xattrs"]?.object?.members ?? [] where name == "security.capability" {
            file.attributes[name] = base64(value.string ?? "")
        }
        if path == "/" { file.attributes = [:] }
        if path == "/", usr != nil {
            for (name, value) in usr?["xattrs"]?.object?.members ?? [] where name == "security.capability" {
                file.attributes[name] = base64(value.string ?? "")
            }
        }
        files[path] = file
        if let first = entry["hardlink"]?.string { groups[first, default: [first]].append(path) }
    }
    for names in groups.values {
        let sorted = Set(names).sorted { walkOrder($0, $1) }
        guard let first = sorted.first else { continue }
        for name in sorted.dropFirst() {
            files[name] = DumpedFile(type: "link", uid: "", gid: "", mtime: "", attributes: [:], hardLink: first)
        }
    }
    return files
}

/// Depth-first order by the bytes of each name.
private func walkOrder(_ lhs: String, _ rhs: String) -> Bool {
    let l = lhs.split(separator: "/").map { Array($0.utf8) }
    let r = rhs.split(separator: "/").map { Array($0.utf8) }
    for (a, b) in zip(l, r) where a != b { return a.lexicographicallyPrecedes(b) }
    return l.count < r.count
}

private func number(_ value: JSONValue?) -> String? { value?.int64.map(String.init) }

/// `seconds.nanoseconds`, with nanoseconds as a plain number, as in the dump.
private func time(_ value: JSONValue?) -> String {
    guard let text = value?.string else { return "0.0" }
    let parts = text.split(separator: ".", maxSplits: 1)
    var nanoseconds = 0
    if parts.count == 2 {
        let digits = parts[1] + String(repeating: "0", count: max(0, 9 - parts[1].count))
        nanoseconds = Int(digits.prefix(9)) ?? 0
    }
    return "\(parts.first ?? "0").\(nanoseconds)"
}

private func deviceNumber(_ value: JSONValue) -> String? {
    let parts: [UInt64]
    if let text = value.string {
        parts = text.split(whereSeparator: { $0 == ":" || $0 == "," }).compactMap { UInt64($0) }
    } else {
        parts = (value.array ?? []).compactMap { $0.int64.map { UInt64($0) } }
    }
    guard parts.count == 2 else { return nil }
    let (major, minor) = (parts[0], parts[1])
    return String((minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xff) << 12)
}

func base64(_ text: String) -> [UInt8] {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)
    var bytes: [UInt8] = []
    var (bits, count) = (0, 0)
    for character in text.utf8 {
        guard let value = alphabet.firstIndex(of: character) else { continue }
        bits = bits << 6 | value
        count += 6
        if count >= 8 {
            count -= 8
            bytes.append(UInt8(bits >> count & 0xff))
        }
    }
    return bytes
}
