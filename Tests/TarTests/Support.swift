import ComposefsBytes
import Testing

@testable import ComposefsTar

/// Records everything that a parser reports.
struct Recorder: TarHandler {
    struct Failure: Error {}
    var inlined: [UInt8] = []
    var entries: [TarEntry] = []
    var contents: [TarContent] = []
    /// External content by entry, and the order of inline and external bytes.
    var externals: [[UInt8]] = []
    var whole: [UInt8] = []
    var boundaries: [Int] = []
    var failAtEntry: Int?
    private var isOpen = false

    mutating func inline(_ bytes: UnsafeRawBufferPointer) {
        #expect(!bytes.isEmpty && !isOpen)
        inlined += bytes
        whole += bytes
    }

    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
        if failAtEntry == entries.count { throw Failure() }
        #expect(!isOpen)
        entries.append(entry)
        contents.append(content)
        if case .external(let size) = content {
            #expect(size == entry.size && size > 64 && entry.kind == .regular)
            externals.append([])
            isOpen = true
        }
    }

    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) {
        #expect(isOpen && !bytes.isEmpty)
        isOpen = !isLast
        externals[externals.count - 1] += bytes
        whole += bytes
        if isLast { #expect(UInt64(externals[externals.count - 1].count) == entries.last?.size) }
    }

    mutating func boundary() { boundaries.append(whole.count) }

    /// All properties of the entries, for comparison.
    var summary: [String] {
        zip(entries, contents).map { entry, content in
            let time = "\(entry.mtime.seconds).\(entry.mtime.nanoseconds)"
            let attributes = entry.extendedAttributes.map { "\($0.name)=\($0.value)" }
            return "\(entry.kind) \(entry.path) \(entry.linkTarget) \(String(entry.mode, radix: 8)) \(entry.uid):\(entry.gid) \(time) "
                + "\(entry.size) \(entry.deviceMajor),\(entry.deviceMinor) \(attributes) \(content) @\(entry.headerOffset)"
        }
    }
}

func parse(_ archive: [UInt8], chunk: Int = .max, limits: TarLimits = .default) throws -> Recorder {
    var parser = TarParser(limits: limits)
    var recorder = Recorder()
    try archive.withUnsafeBytes { all in
        var at = 0
        while at < all.count {
            let end = chunk < all.count - at ? at + chunk : all.count
            try parser.feed(UnsafeRawBufferPointer(rebasing: all[at..<end]), to: &recorder)
            at = end
        }
    }
    try parser.finish()
    #expect(recorder.whole == archive)
    #expect(parser.position == UInt64(archive.count))
    return recorder
}

func reason(_ archive: [UInt8], limits: TarLimits = .default) -> TarError.Reason? {
    do {
        _ = try parse(archive, limits: limits)
        return nil
    } catch let error as TarError {
        #expect(!error.description.isEmpty && !error.description.contains("\n"))
        #expect(error.offset <= UInt64(archive.count))
        return error.reason
    } catch {
        Issue.record("\(error)")
        return nil
    }
}

/// One header block, field by field.
struct Block {
    enum Magic { case v7, ustar, gnu }

    var bytes = [UInt8](repeating: 0, count: 512)

    init(_ name: String, type: Character = "0", size: Int = 0, magic: Magic = .ustar) {
        put(Array(name.utf8), 0)
        put("0000644\0", 100)
        put("0001750\0", 108)
        put("0000144\0", 116)
        let octal = String(size, radix: 8)
        put(String(repeating: "0", count: 11 - octal.count) + octal + "\0", 124)
        put("14524770400\0", 136)
        bytes[156] = type.asciiValue ?? 0
        switch magic {
        case .v7: break
        case .ustar: put("ustar\u{0}00", 257)
        case .gnu: put("ustar  \u{0}", 257)
        }
    }

    mutating func put(_ value: [UInt8], _ offset: Int) { bytes.replaceSubrange(offset..<(offset + value.count), with: value) }
    mutating func put(_ text: String, _ offset: Int) { put(Array(text.utf8), offset) }

    func with(_ text: String, _ offset: Int) -> Block { with(Array(text.utf8), offset) }

    func with(_ value: [UInt8], _ offset: Int) -> Block {
        var copy = self
        copy.put(value, offset)
        return copy
    }

    /// The block with its checksum, and `data` padded to whole blocks.
    func sealed(_ data: [UInt8] = [], signed: Bool = false) -> [UInt8] {
        var block = bytes
        block.replaceSubrange(148..<156, with: Array("        ".utf8))
        let sum = block.reduce(0) { $0 + (signed ? Int(Int8(bitPattern: $1)) : Int($1)) }
        let octal = String(sum, radix: 8)
        block.replaceSubrange(148..<156, with: Array((String(repeating: "0", count: 6 - octal.count) + octal + "\0 ").utf8))
        return block + data + [UInt8](repeating: 0, count: (512 - data.count % 512) % 512)
    }
}

let endMarker = [UInt8](repeating: 0, count: 1024)

/// `length key=value`, with a length that includes itself.
func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
    let body = Array(" \(key)=".utf8) + value + [10]
    var length = body.count + 1
    while String(length).utf8.count + body.count != length { length += 1 }
    return Array(String(length).utf8) + body
}

func record(_ key: String, _ value: String) -> [UInt8] { record(key, Array(value.utf8)) }

func pax(_ data: [UInt8], type: Character = "x") -> [UInt8] { Block("PaxHeaders/x", type: type, size: data.count).sealed(data) }
