import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import Testing

@testable import ComposefsSplitStream

/// Pseudo-random bytes from a fixed seed.
func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

@Suite struct WrittenAndRead {
    @Test(arguments: VerityAlgorithm.allCases)
    func content(algorithm: VerityAlgorithm) throws {
        let a = zeros(1, algorithm)
        let b = zeros(2, algorithm)
        let long = noise(300_000)
        var writer = SplitStreamWriter(algorithm: algorithm, contentType: 7)
        try writer.put([])
        try writer.put([1, 2])
        try writer.put([3])
        try writer.external(a, size: 1)
        try writer.external(b, size: 2)
        try writer.put(long)
        try writer.external(a, size: 1)
        #expect(writer.objectReferences == [a, b])
        #expect(writer.totalSize == 300_007)
        #expect(writer.inlineSize == 300_003)
        let file = try writer.finish().file
        #expect(try chunks(file, algorithm) == [.inline([1, 2, 3]), .external(a), .external(b), .inline(long), .external(a)])
        let reader = try SplitStreamReader(file, algorithm: algorithm, contentType: 7)
        #expect(reader.objectReferences == [a, b])
        #expect(reader.namedReferences.isEmpty)
        #expect(reader.totalSize == 300_007)
        #expect(reader.contentType == 7)
    }

    @Test func empty() throws {
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: 0)
        let file = try writer.finish().file
        #expect(file.count == 112 + 9 + 9)
        #expect(try chunks(file) == [])
    }

    /// 100 inline bytes and an object of 1000 bytes, 1100 in total.
    @Test func totalSize() throws {
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: 0)
        try writer.put([UInt8](repeating: 7, count: 100))
        try writer.external(zeros(1000), size: 1000)
        let file = try writer.finish().file
        var reader = try SplitStreamReader(file, algorithm: .sha256)
        #expect(reader.totalSize == 1100)
        while try reader.next() != nil {}
        #expect(reader.inlineSize == 100)
    }

    @Test func names() throws {
        let (a, b, c) = (zeros(1), zeros(2), zeros(3))
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: 0)
        writer.addNamedReference("z:1", a)
        writer.addNamedReference("m", b)
        writer.addNamedReference("", a)
        // Precomposed and decomposed spellings are two names, although Swift compares the strings as equal.
        writer.addNamedReference("\u{e9}", c)
        writer.addNamedReference("e\u{301}", a)
        writer.addNamedReference("m", c)
        let file = try writer.finish().file
        let reader = try SplitStreamReader(file, algorithm: .sha256)
        #expect(reader.namedReferences.map { Array($0.name.utf8) } == ["", "e\u{301}", "m", "z:1", "\u{e9}"].map { Array($0.utf8) })
        #expect(reader.namedReferences.map(\.id) == [a, a, c, a, c])
        #expect(reader.namedReference("m") == c)
        #expect(reader.namedReference("e\u{301}") == a)
        #expect(reader.namedReference("\u{e9}") == c)
        #expect(reader.namedReference("z") == nil)
        // The name's first digest stays in the table, which has each digest once, in the order of the calls.
        let table = file[112..<(112 + 96)]
        #expect(Array(table) == a.bytes + b.bytes + c.bytes)
        #expect(reader.objectReferences.isEmpty)
    }

    @Test func splitDoesNotMatter() throws {
        let content = noise(5000)
        var files: Set<[UInt8]> = []
        for chunk in [1, 7, 512, 5000] {
            var writer = SplitStreamWriter(algorithm: .sha256, contentType: 1)
            for start in stride(from: 0, to: content.count, by: chunk) {
                try writer.put(Array(content[start..<min(start + chunk, content.count)]))
            }
            try writer.external(zeros(9), size: 9)
            files.insert(try writer.finish().file)
        }
        #expect(files.count == 1)
    }

    @Test func spilling() throws {
        let content = (0..<6).map { noise(900_000, seed: UInt64($0)) }
        func write(_ spill: ((UnsafeRawBufferPointer) throws -> Void)?) throws -> SplitStreamParts {
            var writer = SplitStreamWriter(algorithm: .sha512, contentType: 1, spill: spill)
            for part in content {
                try writer.put(part)
                try writer.external(zeros(part.count, .sha512), size: UInt64(part.count))
            }
            return try writer.finish()
        }
        var spilled: [UInt8] = []
        let parts = try write { spilled += $0 }
        let whole = try write(nil)
        #expect(parts.spilled == UInt64(spilled.count))
        #expect(spilled.count > 4_000_000)
        #expect(parts.bodyRest.count < 1_100_000)
        #expect(whole.spilled == 0)
        #expect(parts.head == whole.head)
        #expect(spilled + parts.bodyRest == whole.bodyRest)
        #expect(try chunks(whole.file, .sha512).count == 12)
        struct Full: Error {}
        #expect(throws: Full.self) { try write { _ in throw Full() } }
    }

    /// A run of nine mebibytes is divided only at allowed positions.
    @Test func breaks() throws {
        let mebibyte = [UInt8](repeating: 5, count: 1 << 20)
        func body(_ count: Int, allow: Bool) throws -> [UInt8] {
            var writer = SplitStreamWriter(algorithm: .sha256, contentType: 1)
            for _ in 0..<count {
                try writer.put(mebibyte)
                if allow { try writer.allowBreak() }
            }
            let parts = try writer.finish()
            #expect(try chunks(parts.file) == [.inline([UInt8](repeating: 5, count: count << 20))])
            return try parts.bodyRest.withUnsafeBytes { try zstdDecompress($0, limit: 64 << 20) }
        }
        #expect(try body(9, allow: false).count == 9 << 20 + 8)
        #expect(try body(9, allow: true).count == (9 << 20) + 16)
        #expect(try body(7, allow: true) == body(7, allow: false))
    }

    @Test func unwritable() throws {
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: 1)
        #expect(throws: SplitStreamError.self) { try writer.external(zeros(1, .sha512), size: 1) }
        writer.addNamedReference("a\0b", zeros(1))
        #expect(throws: SplitStreamError.self) { try writer.finish() }
        writer = SplitStreamWriter(algorithm: .sha256, contentType: 1)
        writer.addNamedReference("a", zeros(1, .sha512))
        #expect(throws: SplitStreamError.self) { try writer.finish() }
        writer = SplitStreamWriter(algorithm: .sha256, contentType: 1)
        try writer.external(zeros(1), size: .max)
        #expect(throws: SplitStreamError.self) { try writer.external(zeros(1), size: 1) }
    }
}

@Suite struct Reading {
    /// The pinned config stream of another implementation, except for its digests.
    static func bytes(_ text: String) -> [UInt8] { Hex.decode(Array(text.utf8.filter { $0 != 10 && $0 != 32 })) ?? [] }
    static let configuration = bytes(
        """
        53706c697453747265616d000000010c20000000000000007000000000000000
        7000000000000000d000000000000000d000000000000000f000000000000000
        84010000000000009501000000000000f0000000000000008401000000000000
        6f6369636f6e66672b01000000000000
        61c07629b8a41273f190744a8545c132e6b784dcb2235bb31ade307a83e092ff
        ce472620ab69da46e385b0936865ef22f940e6bf55a083d3be37b1003795e221
        99ce11df4bb808a1e80ce69425dae527b64aa7a270bf99c4a6e24d66be270f3f
        1dc5a7ea2c7a2d322c8ab613e8427bfe3fec9e6775b3c85896421a588d7c0e17
        28b52ffd00585d0400d2cc1f149025c903c7c00a21cc8cf097ed2e89a4ff7f01
        1b41b3dcbb2813ebc773a216d5c4abeb9aa696bdd8b68f842c7683a4f4c8d2c1
        064e804377588e5257542f7705c90ba51413541fda319dad1db928e4f8e6bb5b
        7d373c18be917083712e437f7a3969552caad9d6141093303f75b87ca344083c
        09de060b81b3498080800402000190589a229c01
        28b52ffd00584100000000000000000000
        """)

    @Test func another() throws {
        #expect(Self.configuration.count == 405)
        #expect(objectID(Self.configuration) == "4839518dea22749f8ff233e7f7baec65f23dd5336462f46ad6884769af84bf95")
        var reader = try SplitStreamReader(Self.configuration, algorithm: .sha256, contentType: StreamContentType.config)
        #expect(reader.totalSize == 299)
        #expect(
            reader.namedReferences.map(\.name) == [
                "sha256:757d6903198804b6ed96421a93a9973f5facc0e445a2a6c61cb0129eb67026e2",
                "sha256:77dd145166ef191089dabd4d2c52d32143850a3c81a074fedf48dca360e2dcb9",
                "sha256:9b57f0e91c403b650e9391fd5e4154cac5dc1469acc0f3312e6149aa34f160ef",
            ])
        #expect(reader.namedReferences.map { $0.id.hex.prefix(4) } == ["61c0", "ce47", "99ce"])
        guard case .external(let id)? = try reader.next() else {
            Issue.record("no object")
            return
        }
        #expect(id.hex == "1dc5a7ea2c7a2d322c8ab613e8427bfe3fec9e6775b3c85896421a588d7c0e17")
        #expect(try reader.next() == nil)
        #expect(reader.inlineSize == 0)
    }

    /// The header of old writers: info range, flags, magic, version, algorithm, block size.
    static func old(_ file: [UInt8]) -> [UInt8] {
        Array(file[16..<32]) + [0, 0] + Array(file[0..<12]) + Array(file[14..<16]) + Array(file[32...])
    }

    @Test func oldHeader() throws {
        let old = Self.old(Self.configuration)
        #expect(old.count == 405)
        #expect(Array(old[18..<29]) == Array("SplitStream".utf8))
        let reader = try SplitStreamReader(old, algorithm: .sha256)
        #expect(reader.namedReferences.count == 3)
        #expect(try chunks(old) == chunks(Self.configuration))
        for (offset, value) in [(29, 1), (30, 2), (31, 13)] as [(Int, UInt8)] {
            var changed = old
            changed[offset] = value
            #expect(throws: SplitStreamError.self) { _ = try SplitStreamReader(changed, algorithm: .sha256) }
        }
    }

    static func reason(_ file: [UInt8], _ algorithm: VerityAlgorithm = .sha256, _ type: UInt64? = nil) -> SplitStreamError.Reason? {
        do {
            var reader = try SplitStreamReader(file, algorithm: algorithm, contentType: type)
            while try reader.next() != nil {}
            return nil
        } catch {
            #expect(!error.description.isEmpty && !error.description.contains("\n"))
            return error.reason
        }
    }

    private func changed(_ offset: Int, _ value: UInt64, _ width: Int = 8) -> SplitStreamError.Reason? {
        var file = Self.configuration
        for index in 0..<width { file[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
        return Self.reason(file)
    }

    @Test func header() {
        #expect(changed(0, 0, 1) == .notASplitStream)
        #expect(changed(11, 1, 1) == .version(1))
        #expect(changed(12, 0xffff, 2) == nil)
        #expect(changed(14, 2, 1) == .algorithm(2))
        #expect(changed(14, 0, 1) == .algorithm(0))
        #expect(changed(15, 16, 1) == .blockSize(16))
        #expect(Self.reason(Self.configuration, .sha512) == .algorithm(1))
        #expect(
            Self.reason(Self.configuration, .sha256, StreamContentType.layer)
                == .contentType(found: StreamContentType.config, expected: StreamContentType.layer))
        #expect(Self.reason(Self.configuration, .sha256, StreamContentType.config) == nil)
        #expect(Self.reason([]) == .notASplitStream)
    }

    @Test func ranges() {
        // Info: before the header's end, too short, after the file, reversed.
        #expect(changed(16, 31) != nil)
        #expect(changed(24, 111) == .badRange("info"))
        #expect(changed(24, 406) == .badRange("info"))
        #expect(changed(24, .max) == .badRange("info"))
        #expect(changed(16, .max) == .badRange("info"))
        for (offset, name) in [(32, "stream reference"), (48, "object reference"), (64, "body"), (80, "name")] {
            #expect(changed(offset + 8, 406) == .badRange(name))
            #expect(changed(offset, 1 << 63) == .badRange(name))
            // Overlapping the header, and the info.
            #expect(changed(offset, 0) != nil)
            #expect(changed(offset, 104) != nil)
        }
        #expect(changed(32, 0) == .badRange("stream reference"))
        // The body overlapping the names.
        #expect(changed(64, 0x183) == .badRange("body"))
        // Tables whose length is not a multiple of the digest size.
        #expect(changed(40, 0xcf) == .badTable("stream reference"))
        #expect(changed(48, 0xd1) == .badTable("object reference"))
        // An empty range may be anywhere in the file.
        var file = Self.configuration
        for index in 48..<64 { file[index] = 0 }
        #expect(Self.reason(file) == .objectIndex(0, count: 0))
    }

    /// A file with the given names and body, before compression.
    static func file(names: [UInt8] = [], body: [UInt8], size: UInt64, objects: Int = 1, streams: Int = 1, rawBody: [UInt8]? = nil)
        -> [UInt8]
    {
        func pack(_ bytes: [UInt8]) -> [UInt8] {
            var encoder = ZstdCompressor()
            var out: [UInt8] = []
            bytes.withUnsafeBytes { encoder.compress($0, into: &out) }
            encoder.finish(into: &out)
            return out
        }
        let packedNames = pack(names)
        let packedBody = rawBody ?? pack(body)
        let tables = [UInt8](repeating: 0x11, count: (objects + streams) * 32)
        var writer = ByteWriter()
        writer.append(Array("SplitStream".utf8))
        writer.append([0, 0, 0, 1, 12])
        let streamsEnd = UInt64(112 + streams * 32)
        let objectsEnd = streamsEnd + UInt64(objects * 32)
        let namesEnd = objectsEnd + UInt64(packedNames.count)
        for value in [
            32, 112, 112, streamsEnd, streamsEnd, objectsEnd, namesEnd, namesEnd + UInt64(packedBody.count), objectsEnd, namesEnd, 0, size,
        ] {
            writer.u64(value)
        }
        return writer.bytes + tables + packedNames + packedBody
    }

    static func instruction(_ value: Int64) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }

    @Test func bodies() {
        func reason(_ body: [UInt8], _ size: UInt64) -> SplitStreamError.Reason? { Self.reason(Self.file(body: body, size: size)) }
        let i = Self.instruction
        #expect(reason([], 0) == nil)
        #expect(reason([], 1) == .size(declared: 1))
        #expect(reason(i(-2) + [1, 2], 2) == nil)
        // Chunks of other writers may follow each other.
        #expect(reason(i(-2) + [1, 2] + i(-1) + [3], 3) == nil)
        #expect(reason(i(-2) + [1, 2], 3) == .size(declared: 3))
        #expect(reason(i(-2) + [1, 2], 1) == .size(declared: 1))
        #expect(reason(i(-2) + [1], 2) == .bodyCut)
        #expect(reason(i(-2), 2) == .bodyCut)
        #expect(reason(i(.min), .max) == .bodyCut)
        #expect(reason(i(.min), 1 << 63 - 1) == .size(declared: 1 << 63 - 1))
        #expect(reason(i(0), 77) == nil)
        #expect(reason(i(1), 77) == .objectIndex(1, count: 1))
        #expect(reason(i(.max), 77) == .objectIndex(.max, count: 1))
        for count in 1...7 { #expect(reason(Array(i(0)[..<count]), 77) == .bodyCut) }
        for count in 1...7 { #expect(reason(i(-1) + [5] + i(0)[..<count], 77) == .bodyCut) }
    }

    @Test func packedBodies() {
        var encoder = ZstdCompressor()
        var frame: [UInt8] = []
        (Self.instruction(-3) + [1, 2, 3]).withUnsafeBytes { encoder.compress($0, into: &frame) }
        encoder.finish(into: &frame)
        func reason(_ raw: [UInt8], _ size: UInt64) -> SplitStreamError.Reason? {
            Self.reason(Self.file(body: [], size: size, rawBody: raw))
        }
        #expect(reason(frame, 3) == nil)
        #expect(reason(frame + frame, 6) == nil)
        #expect(reason(frame + frame, 3) == .size(declared: 3))
        for bad in [[], Array(frame.dropLast()), frame + [0], [0x1f, 0x8b], Array(frame[..<5])] {
            guard case .unpack? = reason(bad, 3) else {
                Issue.record("\(bad): \(String(describing: reason(bad, 3)))")
                continue
            }
        }
    }

    @Test func names() throws {
        func names(_ text: [UInt8], streams: Int = 2) throws -> [String] {
            try SplitStreamReader(Self.file(names: text, body: [], size: 0, streams: streams), algorithm: .sha256).namedReferences.map(
                \.name)
        }
        func isRefused(_ text: [UInt8]) -> Bool {
            guard case .badNames? = Self.reason(Self.file(names: text, body: [], size: 0, streams: 2)) else { return false }
            return true
        }
        #expect(try names(Array("0:a\u{0}1:b:c\u{0}0:\u{0}".utf8)) == ["a", "b:c", ""])
        #expect(try names(Array("0:a\u{0}1:a\u{0}".utf8)) == ["a"])
        for text in [
            "0:a", "a\0", "\0", ":a\0", "2:a\0", "-1:a\0", "+0:a\0", "0x0:a\0", " 0:a\0", "0 :a\0", "1000000000:a\0",
            "18446744073709551616:a\0",
            "0:a\0junk",
        ] {
            #expect(isRefused(Array(text.utf8)), "\(text.debugDescription)")
        }
        #expect(isRefused([0x30, 0x3a, 0xff, 0]))
        #expect(isRefused([0x30, 0x3a, 0xc0, 0x80, 0]))
    }

    /// A small frame with 17 MiB of names is not decompressed to its end.
    @Test func nameBomb() {
        let text = Array("0:".utf8) + [UInt8](repeating: 0x61, count: 17 << 20) + [0]
        guard case .badNames? = Self.reason(Self.file(names: text, body: [], size: 0)) else {
            Issue.record("taken")
            return
        }
    }

    private static let sample: [UInt8] = {
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: StreamContentType.layer)
        try? writer.put(noise(40))
        try? writer.external(zeros(100), size: 100)
        try? writer.put(noise(20))
        try? writer.external(zeros(200), size: 200)
        writer.addNamedReference("one", zeros(1))
        return (try? writer.finish().file) ?? []
    }()

    @Test func truncation() {
        for file in [Self.sample, Self.configuration, Self.old(Self.sample)] {
            #expect(Self.reason(file) == nil)
            for count in 0..<file.count { #expect(Self.reason(Array(file[..<count])) != nil, "\(count) of \(file.count)") }
        }
    }

    /// A split stream has no checksum; only its name is a digest. A stream with a flipped bit must be read or refused, without a trap.
    @Test func everyFlip() {
        for file in [Self.sample, Self.configuration, Self.old(Self.sample)] {
            for index in file.indices {
                for bit in 0..<8 {
                    var damaged = file
                    damaged[index] ^= 1 << bit
                    let reason = Self.reason(damaged)
                    // Changes of the header's fixed fields and the ranges must be detected. Those of flags, type, digests and compressed
                    // bytes cannot be.
                    if index < 11 { #expect(reason != nil, "byte \(index)") }
                }
            }
        }
    }

    /// A source that fails, and one that returns less than its size.
    @Test func sources() throws {
        struct Broken: RandomAccessBytes {
            struct Failure: Error {}
            var byteCount: UInt64 { 500 }
            func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int { throw Failure() }
        }
        struct Slow: RandomAccessBytes {
            let bytes: [UInt8]
            var byteCount: UInt64 { UInt64(bytes.count) }
            func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int {
                bytes.read(at: offset, into: UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(3)))
            }
        }
        struct Short: RandomAccessBytes {
            let bytes: [UInt8]
            var byteCount: UInt64 { UInt64(bytes.count) + 100 }
            func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) -> Int { bytes.read(at: offset, into: buffer) }
        }
        do {
            _ = try SplitStreamReader(Broken(), algorithm: .sha256)
            Issue.record("read")
        } catch {
            #expect(error.reason == .unreadable("Failure()"))
        }
        var slow = try SplitStreamReader(Slow(bytes: Self.sample), algorithm: .sha256)
        var count = 0
        while try slow.next() != nil { count += 1 }
        #expect(count >= 4)
        do {
            _ = try SplitStreamReader(Short(bytes: Array(Self.configuration[..<200])), algorithm: .sha256)
            Issue.record("read")
        } catch {
            #expect(error.reason != .unreadable(""))
        }
    }
}
