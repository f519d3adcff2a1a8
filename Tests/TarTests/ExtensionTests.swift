import ComposefsBytes
import Testing

@testable import ComposefsTar

@Suite struct Extensions {
    private let file = Block("f").sealed()

    private func entry(_ records: [UInt8], _ block: Block = Block("f")) throws -> TarEntry {
        try #require(try parse(pax(records) + block.sealed() + endMarker).entries.first)
    }

    private func fault(_ records: [UInt8], _ block: Block = Block("f")) -> TarError.Reason? {
        reason(pax(records) + block.sealed() + endMarker)
    }

    @Test func precedence() throws {
        let long = Block("././@LongLink", type: "L", size: 5, magic: .gnu).sealed(Array("long\0".utf8))
        let link = Block("././@LongLink", type: "K", size: 6, magic: .gnu).sealed(Array("klink\0".utf8))
        let header = Block("name", type: "2").with("prefix", 345).with("link", 157).sealed()
        let both = pax(record("path", "paxpath") + record("linkpath", "paxlink"))
        func read(_ archive: [UInt8]) throws -> [ByteString] {
            let entries = try parse(archive + Block("after", type: "2").with("t", 157).sealed() + endMarker).entries
            // An extension header applies to one entry only.
            #expect(entries.last?.path == "after" && entries.last?.linkTarget == "t")
            return [entries[0].path, entries[0].linkTarget]
        }
        #expect(try read(header) == ["prefix/name", "link"])
        #expect(try read(long + header) == ["long", "link"])
        #expect(try read(link + header) == ["prefix/name", "klink"])
        #expect(try read(long + link + header) == ["long", "klink"])
        #expect(try read(both + long + link + header) == ["paxpath", "paxlink"])
        #expect(try read(link + long + both + header) == ["paxpath", "paxlink"])
    }

    @Test func longNames() throws {
        func name(_ data: [UInt8]) throws -> ByteString {
            // Longer than the limit of a path.
            let limits = TarLimits(pathBytes: 100_000)
            return try #require(
                try parse(Block("L", type: "L", size: data.count).sealed(data) + file + endMarker, limits: limits).entries.first
            ).path
        }
        let many = [UInt8](repeating: 0x61, count: 70_000)
        #expect(try name(many + [0]) == ByteString(many))
        #expect(try name(many) == ByteString(many))
        #expect(try name(Array("a\0\0\0".utf8)) == "a")
        #expect(try name([]) == "")
        #expect(throws: TarError.self) { try name(Array("a\0b".utf8)) }
        #expect(throws: TarError.self) { try name(Array("a\0b\0".utf8)) }
    }

    @Test func duplicates() {
        let header = pax(record("path", "p"))
        #expect(reason(header + header + file + endMarker) == .duplicateExtension("PAX"))
        for (flag, what) in [("L", "GNU long name"), ("K", "GNU long link")] as [(Character, String)] {
            let long = Block("x", type: flag, size: 2).sealed(Array("n\0".utf8))
            #expect(reason(long + long + file + endMarker) == .duplicateExtension(what))
            #expect(reason(long + file + long + file + endMarker) == nil)
        }
        #expect(reason(header + file + header + file + endMarker) == nil)
    }

    @Test func limit() {
        let limits = TarLimits(extensionBytes: 1000)
        let value = [UInt8](repeating: 0x61, count: 600)
        let header = pax(record("comment", value))
        let long = Block("x", type: "L", size: 600).sealed(value)
        #expect(reason(header + file + long + file + endMarker, limits: limits) == nil)
        #expect(reason(header + long + file + endMarker, limits: limits) == .extensionTooLarge(limit: 1000))
        #expect(reason(pax([], type: "g") + file + endMarker, limits: limits) == nil)
        for flag in ["x", "L", "K", "g"] as [Character] {
            // Refused when the header is parsed: no data follows it.
            #expect(reason(Block("x", type: flag, size: (1 << 20) + 1).sealed()) == .extensionTooLarge(limit: 1 << 20))
            #expect(reason(Block("x", type: flag).with("77777777777\0", 124).sealed()) == .extensionTooLarge(limit: 1 << 20))
        }
    }

    @Test func globalHeaders() throws {
        // Its records are not applied, and may be malformed.
        for data in [record("path", "x") + record("mtime", "1") + record("uid", "77"), Array("rubbish".utf8), []] {
            let archive = try parse(pax(data, type: "g") + file + endMarker)
            #expect(archive.entries.map(\.path) == ["f"])
            #expect(archive.entries.map(\.uid) == [1000])
            // It may also be between an extension header and its entry.
            let between = try parse(pax(record("path", "p")) + pax(data, type: "g") + file + endMarker)
            #expect(between.entries.map(\.path) == ["p"])
        }
    }

    @Test func values() throws {
        let read = try entry(
            record("path", "p/q") + record("uid", "4294967294") + record("gid", "0") + record("size", "3") + record("mtime", "12.5")
                + record("atime", "nonsense") + record("comment", [0xff, 0x3d, 0x0a, 0]) + record("uname", "root")
                + record("LIBARCHIVE.xattr.user.x", "eA") + record("RHT.security.selinux", "label"),
            Block("f", size: 0).with([0xff, 0xff], 108).with("zzzzzzzzzzzz", 136))
        #expect(read.path == "p/q")
        #expect(read.uid == .max - 1 && read.gid == 0)
        #expect(read.mtime.seconds == 12 && read.mtime.nanoseconds == 500_000_000)
        #expect(read.extendedAttributes.isEmpty)
        // An empty value does not override the header.
        let empty = try entry(record("path", "") + record("uid", "") + record("size", "") + record("mtime", "") + record("linkpath", ""))
        #expect(empty.path == "f" && empty.uid == 1000 && empty.mtime.seconds == 1_700_000_000)
        // It cancels an earlier record.
        #expect(try entry(record("path", "p") + record("path", "")).path == "f")
        // The last of several counts.
        let last = try entry(record("path", "a") + record("mtime", "1.5") + record("path", "b") + record("mtime", "2"))
        #expect(last.path == "b" && last.mtime.seconds == 2 && last.mtime.nanoseconds == 0)
    }

    @Test func size() throws {
        // The record counts, whatever the header's field contains.
        for field in ["00000000000\0", "77777777777\0", "not a number"] {
            let data = [UInt8](repeating: 5, count: 700)
            let archive = try parse(
                pax(record("size", "700")) + Block("f").with(field, 124).sealed(data) + Block("g").sealed() + endMarker, chunk: 100)
            #expect(archive.entries.map(\.size) == [700, 0])
            #expect(archive.externals == [data])
        }
        for (value, what) in [
            ("-1", "it is negative"), ("1e3", "it is not a number"), (" 1", "it is not a number"),
            ("18446744073709551616", "it is too large"),
            ("9223372036854775808", "it is too large"),
        ] {
            #expect(fault(record("size", value)) == .badValue(key: "size", what))
        }
        #expect(fault(record("size", "9223372036854775807")) == .truncated("the file's content"))
        #expect(fault(record("uid", "4294967296")) == .badValue(key: "uid", "it is too large"))
        #expect(fault(record("gid", "-1")) == .badValue(key: "gid", "it is negative"))
    }

    @Test(arguments: [
        ("0", 0, 0), ("1700000000.123456789", 1_700_000_000, 123_456_789), ("1700000000.1234567899", 1_700_000_000, 123_456_789),
        ("1.5", 1, 500_000_000), ("1.000000001", 1, 1), ("1.", 1, 0), ("+7", 7, 0), ("-1", -1, 0), ("-1.25", -2, 750_000_000),
        ("-0.5", -1, 500_000_000), ("-0", 0, 0), ("-1.0000000001", -1, 0), ("007", 7, 0), ("9223372036854775807.9", Int64.max, 900_000_000),
        ("-9223372036854775808", Int64.min, 0),
    ])
    func time(text: String, seconds: Int64, nanoseconds: UInt32) throws {
        let read = try entry(record("mtime", text)).mtime
        #expect(read.seconds == seconds && read.nanoseconds == nanoseconds)
    }

    @Test(arguments: ["yesterday", "-", ".", ".5", "-.5", "1.2.3", "1.5x", "1e9", " 1", "1 ", "--1", "1,5", "0x10"])
    func badTime(text: String) { #expect(fault(record("mtime", text)) == .badValue(key: "mtime", "it is not a time")) }

    @Test(arguments: ["9223372036854775808", "-9223372036854775809", "-9223372036854775808.5", "99999999999999999999"])
    func largeTime(text: String) { #expect(fault(record("mtime", text)) == .badValue(key: "mtime", "it is too large")) }

    @Test func attributes() throws {
        let binary = (0...255).map { UInt8($0) }
        let read = try entry(
            record("SCHILY.xattr.security.capability", binary) + record("SCHILY.xattr.user.a", "first")
                + record("SCHILY.xattr.user.empty", "")
                + record("SCHILY.xattr.user.a", "last=\n") + record("SCHILY.xattr.user.gone", "x") + record("SCHILY.xattr.user.gone", ""))
        #expect(read.extendedAttributes.map(\.name) == ["security.capability", "user.a"])
        #expect(read.extendedAttributes.map(\.value) == [ByteString(binary), "last=\n"])
        let name = "user." + String(repeating: "n", count: 250)
        #expect(try entry(record("SCHILY.xattr." + name, "v")).extendedAttributes.map(\.name) == [ByteString(name)])
        #expect(fault(record("SCHILY.xattr." + name + "n", "v")) != nil)
        #expect(fault(record("SCHILY.xattr.", "v")) != nil)
        #expect(fault(record("SCHILY.xattr.a\0b", "v")) != nil)
        #expect(try entry(record("SCHILY.xattr.a", [UInt8](repeating: 1, count: 65_536))).extendedAttributes.map(\.value.count) == [65_536])
        #expect(fault(record("SCHILY.xattr.a", [UInt8](repeating: 1, count: 65_537))) != nil)
    }

    /// Forty thousand attributes in one header are refused or accepted quickly.
    @Test func manyAttributes() throws {
        var records: [UInt8] = []
        for index in 0..<40_000 { records += record("SCHILY.xattr.\(index)", "v") }
        #expect(try entry(records).extendedAttributes.count == 40_000)
    }

    @Test func names() {
        #expect(fault(record("path", "a\0b")) == .badValue(key: "path", "it contains a NUL byte"))
        #expect(fault(record("linkpath", "a\0b")) == .badValue(key: "linkpath", "it contains a NUL byte"))
    }

    @Test(arguments: [
        "0 path=x\n", "1 path=x\n", "2\n", "9 pathxy\n", "9 path=xy", "11 path=x\n", "99999 path=x\n", "18446744073709551628 path=x\n",
        "00000009 path=x\n", " 9 path=x\n", "9path=x\n", "-9 path=x\n", "9", "9 ", "x", "\n", "\0", "5 =x\n", "4 =\n", "9 path=x\n\0",
        "9 path=x\n9",
    ])
    func malformed(text: String) {
        switch fault(Array(text.utf8)) {
        case .badRecord?: break
        case let other: Issue.record("\(text.debugDescription): \(String(describing: other))")
        }
    }

    @Test func truncatedRecords() {
        let records = record("path", "p/q") + record("mtime", "-1.25") + record("SCHILY.xattr.user.a", "b")
        for count in 0..<records.count {
            let whole = [0, record("path", "p/q").count, record("path", "p/q").count + record("mtime", "-1.25").count].contains(count)
            #expect((fault(Array(records[..<count])) == nil) == whole, "\(count)")
        }
    }
}

@Suite struct ReadingBack {
    /// The parts of a split stream: inline bytes, and the positions of objects.
    private enum Part {
        case inline([UInt8])
        case object
    }

    private struct Splitter: TarHandler {
        var parts: [Part] = []
        var entries = Recorder()
        mutating func inline(_ bytes: UnsafeRawBufferPointer) { parts.append(.inline(Array(bytes))) }
        mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
            entries.entries.append(entry)
            entries.contents.append(content)
        }
        mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) { if isLast { parts.append(.object) } }
    }

    @Test func roundTrip() throws {
        for archive in [Archives.gnu, Archives.pax, Archives.ustar] {
            var writer = Splitter()
            var first = TarParser()
            try archive.withUnsafeBytes { try first.feed($0, to: &writer) }
            try first.finish()

            var reader = Splitter()
            var second = TarParser()
            var sizes: [UInt64] = []
            for part in writer.parts {
                switch part {
                case .inline(let bytes): try bytes.withUnsafeBytes { try second.feed($0, to: &reader) }
                case .object: sizes.append(try second.skipExternal())
                }
            }
            try second.finish()
            #expect(sizes == [65])
            #expect(reader.entries.summary == writer.entries.summary)
            #expect(second.position == UInt64(archive.count))
        }
    }

    @Test func misplaced() throws {
        let big = Block("b", size: 100).sealed()
        var recorder = Recorder()
        func attempt(_ bytes: [UInt8]) -> TarError? {
            var parser = TarParser()
            var recorder = Recorder()
            do {
                try bytes.withUnsafeBytes { try parser.feed($0, to: &recorder) }
                _ = try parser.skipExternal()
                return nil
            } catch { return error as? TarError }
        }
        #expect(attempt(big) == nil)
        #expect(attempt([])?.reason == .notAtExternalContent)
        #expect(attempt(Array(big[..<100]))?.reason == .notAtExternalContent)
        // A part of it was inline already.
        #expect(attempt(big + [1])?.reason == .notAtExternalContent)
        // Small files are inline.
        #expect(attempt(Block("s", size: 64).sealed())?.reason == .notAtExternalContent)
        #expect(attempt(Block("d", type: "5", size: 100).sealed())?.reason == .notAtExternalContent)
        // Once is enough.
        var parser = TarParser()
        try big.withUnsafeBytes { try parser.feed($0, to: &recorder) }
        #expect(try parser.skipExternal() == 100)
        #expect(throws: TarError.self) { try parser.skipExternal() }
    }

    /// Inline chunks may end between entries, never between an extension header and its entry.
    @Test func boundaries() throws {
        var archive: [UInt8] = []
        var starts: Set<Int> = []
        for index in 0..<5000 {
            starts.insert(archive.count)
            archive += pax(record("path", "file\(index)")) + Block("f", size: 3).sealed([1, 2, 3])
        }
        archive += endMarker
        let marker = archive.count
        archive += [UInt8](repeating: 7, count: 3 << 20)
        for chunk in [1000, 65_536, 1 << 20] {
            let recorder = try parse(archive, chunk: chunk)
            #expect(recorder.boundaries.count >= 9)
            #expect(recorder.boundaries.allSatisfy { starts.contains($0) || $0 > marker })
            #expect(zip(recorder.boundaries, recorder.boundaries.dropFirst()).allSatisfy { $1 - $0 < 3 << 20 })
        }
    }
}
