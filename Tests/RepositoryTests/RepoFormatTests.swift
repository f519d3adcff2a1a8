import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsSplitStream
import Glibc
import Testing

@testable import ComposefsRepository

/// The examples in Repo-Format.md are what the code reads and writes.
@Suite struct RepoFormatTests {
    // MARK: The document

    static let document: [UInt8] = {
        let root = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
        guard let file = fopen(root + "/Repo-Format.md", "r") else { return [] }
        defer { fclose(file) }
        let limit = 1 << 20
        return [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in count = fread(buffer.baseAddress, 1, limit, file) }
    }()

    /// The lines of the code block that follows `marker`.
    static func block(after marker: String) -> [Substring] {
        let lines = String(decoding: document, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
        guard let start = lines.firstIndex(where: { $0.hasPrefix(marker) }),
            let open = lines[start...].firstIndex(where: { $0.hasPrefix("```") }),
            let close = lines[(open + 1)...].firstIndex(where: { $0.hasPrefix("```") })
        else { return [] }
        return Array(lines[(open + 1)..<close])
    }

    struct AnnotatedBytes {
        var bytes: [UInt8] = []
        /// What stands beside the bytes, by the offset of its line.
        var notes: [Int: String] = [:]
    }

    /// Lines are `offset  hex bytes | note`; what no line gives is zero.
    static func example(_ name: String) throws -> AnnotatedBytes {
        var result = AnnotatedBytes()
        for line in block(after: "<!-- example: \(name) -->") {
            let halves = line.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
            let fields = halves[0].split(separator: " ")
            let offset = try #require(fields.first.flatMap { Int($0, radix: 16) }, "no offset: \(line)")
            #expect(offset >= result.bytes.count, "offset goes back: \(line)")
            result.bytes.append(contentsOf: [UInt8](repeating: 0, count: max(0, offset - result.bytes.count)))
            for field in fields.dropFirst() { result.bytes.append(try #require(UInt8(field, radix: 16), "no byte: \(line)")) }
            let note = halves.count > 1 ? halves[1].drop { $0 == " " } : ""
            if !note.isEmpty { result.notes[offset] = String(note) }
        }
        try #require(!result.bytes.isEmpty, "Repo-Format.md has no example \(name)")
        return result
    }

    static func id(_ bytes: [UInt8]) -> ObjectID { bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) } }

    // MARK: Split stream

    static let configStreamID = "4839518dea22749f8ff233e7f7baec65f23dd5336462f46ad6884769af84bf95"
    static let layers = [
        (
            "sha256:757d6903198804b6ed96421a93a9973f5facc0e445a2a6c61cb0129eb67026e2",
            "61c07629b8a41273f190744a8545c132e6b784dcb2235bb31ade307a83e092ff"
        ),
        (
            "sha256:77dd145166ef191089dabd4d2c52d32143850a3c81a074fedf48dca360e2dcb9",
            "ce472620ab69da46e385b0936865ef22f940e6bf55a083d3be37b1003795e221"
        ),
        (
            "sha256:9b57f0e91c403b650e9391fd5e4154cac5dc1469acc0f3312e6149aa34f160ef",
            "99ce11df4bb808a1e80ce69425dae527b64aa7a270bf99c4a6e24d66be270f3f"
        ),
    ]
    static let configObject = "1dc5a7ea2c7a2d322c8ab613e8427bfe3fec9e6775b3c85896421a588d7c0e17"
    static let configSize: UInt64 = 299

    @Test func configStreamReads() throws {
        let example = try Self.example("config stream")
        try #require(example.bytes.count == 405)
        #expect(Self.id(example.bytes).hex == Self.configStreamID)
        #expect(String(decoding: Self.document, as: UTF8.self).contains("`\(Self.configStreamID)`"))

        var reader = try SplitStreamReader(example.bytes, algorithm: .sha256, contentType: StreamContentType.config)
        #expect(reader.totalSize == Self.configSize)
        #expect(reader.objectReferences.map(\.hex) == [Self.configObject])
        #expect(reader.namedReferences.map(\.name) == Self.layers.map(\.0))
        #expect(reader.namedReferences.map(\.id.hex) == Self.layers.map(\.1))
        guard case .external(let object) = try reader.next() else { throw Mismatch("the body does not begin with an object") }
        #expect(object.hex == Self.configObject)
        guard case nil = try reader.next() else { throw Mismatch("the body goes on") }
    }

    @Test func configStreamIsWrittenAgain() throws {
        let example = try Self.example("config stream")
        try #require(example.bytes.count == 405)
        var writer = SplitStreamWriter(algorithm: .sha256, contentType: StreamContentType.config)
        for (name, id) in Self.layers { writer.addNamedReference(name, try #require(ObjectID(hex: id))) }
        try writer.external(try #require(ObjectID(hex: Self.configObject)), size: Self.configSize)
        let parts = try writer.finish()
        let written = parts.head + parts.bodyRest
        try #require(written.count > 257)

        // The frames depend on the libzstd release, their lengths too. All else must be equal; and everything, where the frame is.
        let names = 240..<388
        let body = 388..<405
        #expect(Array(written[..<64]) == Array(example.bytes[..<64]))
        #expect(Array(written[96..<names.lowerBound]) == Array(example.bytes[96..<names.lowerBound]))
        #expect(Array(written.suffix(body.count)) == Array(example.bytes[body]))
        let end = written.count - body.count
        #expect(Self.range(written, at: 80) == [names.lowerBound, end])
        #expect(Self.range(written, at: 64) == [end, written.count])
        if written.count == example.bytes.count { #expect(written == example.bytes) }

        let reader = try SplitStreamReader(written, algorithm: .sha256, contentType: StreamContentType.config)
        #expect(reader.namedReferences.map(\.name) == Self.layers.map(\.0))
    }

    /// Every note that states a number states the one in the bytes beside it.
    @Test func notesOfTheConfigStreamHold() throws {
        let example = try Self.example("config stream")
        let bytes = example.bytes
        try #require(bytes.count == 405)
        #expect(Self.number(in: example.notes[0x10]) == Self.integer(bytes, at: 0x10))
        #expect(bytes[0..<11].elementsEqual("SplitStream".utf8))
        #expect(bytes[11] == 0 && bytes[14] == 1 && bytes[15] == 12)
        for offset in stride(from: 0x10, to: 0x60, by: 8) {
            #expect(Self.number(in: example.notes[offset]) == Self.integer(bytes, at: offset), "note at \(offset)")
        }
        #expect(bytes[0x60..<0x68].elementsEqual("ociconfg".utf8))
        #expect(Self.number(in: example.notes[0x68]) == Self.integer(bytes, at: 0x68))
        for (index, layer) in Self.layers.enumerated() {
            #expect(Array(bytes[(0x70 + 32 * index)..<(0x90 + 32 * index)]) == ObjectID(hex: layer.1)?.bytes)
        }
        #expect(Array(bytes[0xd0..<0xf0]) == ObjectID(hex: Self.configObject)?.bytes)
        let notes = example.notes.values.map { $0.drop { $0 == " " } }
        for (index, layer) in Self.layers.enumerated() { #expect(notes.contains { $0.hasPrefix("\(index):\(layer.0) 00") }) }
    }

    // MARK: EROFS

    @Test func emptyImage() throws {
        var example = try Self.example("empty image").bytes
        example.append(contentsOf: [UInt8](repeating: 0, count: 4096 - example.count))
        #expect(Self.id(example).hex == "086b702a519b57d6ef5aea6f8b3f2be24355cd1fb835cd80fb4e3d388b24d5a5")
        #expect(String(decoding: Self.document, as: UTF8.self).contains("`\(Self.id(example).hex)`"))
        let tree = FileTree(root: Metadata(permissions: 0o755, uid: 0, gid: 0, modified: Timestamp(seconds: 0)))
        #expect(try writeErofs(tree, version: .v2) == example)
        #expect(try ErofsImage(example).tree().entries(of: FileTree.root).isEmpty)
    }

    // MARK: meta.json

    @Test func metadata() throws {
        let text = Self.block(after: "## 3. meta.json").joined(separator: "\n") + "\n"
        let metadata = RepositoryMetadata(algorithm: .sha512, formats: ErofsFormats(default: .v1))
        #expect(String(decoding: metadata.serialized(), as: UTF8.self) == text)
        #expect(try RepositoryMetadata(parsing: Array(text.utf8)) == metadata)
    }

    @Test func digestsInTheText() {
        let text = String(decoding: Self.document, as: UTF8.self)
        #expect(text.contains("`\(Self.id(Array("hello world".utf8)).hex)`"))
        #expect(text.contains("`\(Self.id([]).hex)`"))
        let long = Array("hello world".utf8).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) }
        #expect(text.contains("`\(long.hex.prefix(16))`"))
    }

    // MARK: Small things

    struct Mismatch: Error {
        var text: String
        init(_ text: String) { self.text = text }
    }

    static func integer(_ bytes: [UInt8], at offset: Int) -> UInt64 {
        bytes[offset..<(offset + 8)].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    static func range(_ bytes: [UInt8], at offset: Int) -> [Int] {
        [Int(integer(bytes, at: offset)), Int(integer(bytes, at: offset + 8))]
    }

    /// The number that a note states last before a comma, colon or its end.
    static func number(in note: String?) -> UInt64? {
        guard let note else { return nil }
        return note.split { $0 == "," || $0 == ":" }.first?.split(separator: " ").last.flatMap { UInt64($0) }
    }
}
