import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// Layers with sparse files: the image has the whole file, and the layer's stream still restores the archive byte for byte.
@Suite struct SparseLayerTests {
    private static func record(_ key: String, _ value: String) -> [UInt8] {
        let rest = 3 + key.utf8.count + value.utf8.count
        var length = rest + 1
        while rest + String(length).utf8.count != length { length += 1 }
        return Array("\(length) \(key)=\(value)\n".utf8)
    }

    /// One PAX sparse file after a directory.
    private static func archive(_ records: [(String, String)], _ stored: [UInt8]) -> [UInt8] {
        var layer = LayerArchive()
        layer.add("usr/", type: "5", mode: 0o755)
        layer.add("x", type: "x", content: records.flatMap { record("GNU.sparse." + $0.0, $0.1) })
        layer.add("usr/GNUSparseFile.0/s", mode: 0o600, content: stored)
        layer.add("usr/after", content: [UInt8](repeating: 9, count: 100))
        return layer.bytes
    }

    private static let one = [UInt8](repeating: 0x41, count: 512)
    private static func map(_ text: String) -> [UInt8] { Array(text.utf8) + [UInt8](repeating: 0, count: 512 - text.utf8.count) }

    /// Archives, and the content of the sparse file.
    private static let archives: [(archive: [UInt8], content: [UInt8])] = [
        // As in FreeBSD's images.
        (
            archive(
                [("major", "1"), ("minor", "0"), ("name", "usr/s"), ("realsize", "32768")], map("2\n0\n512\n32768\n0\n") + one),
            one + [UInt8](repeating: 0, count: 32256)
        ),
        (
            archive([("major", "0"), ("minor", "1"), ("name", "usr/s"), ("size", "2000"), ("map", "1000,512,2000,0")], one),
            [UInt8](repeating: 0, count: 1000) + one + [UInt8](repeating: 0, count: 488)
        ),
        // A small part of a large file is stored, a large part of a small one, and nothing of another.
        (
            archive([("name", "usr/s"), ("size", "5000000"), ("map", "4000000,3")], [1, 2, 3]),
            [UInt8](repeating: 0, count: 4_000_000) + [1, 2, 3] + [UInt8](repeating: 0, count: 999_997)
        ),
        (archive([("major", "1"), ("minor", "0"), ("name", "usr/s"), ("realsize", "3")], map("1\n1\n2\n") + [7, 8]), [0, 7, 8]),
        (archive([("name", "usr/s"), ("size", "100000"), ("map", "")], []), [UInt8](repeating: 0, count: 100_000)),
    ]

    private static func layer(_ archive: [UInt8]) -> ArraySource.Layer {
        ArraySource.Layer(blob: archive, diffID: .of(archive), mediaType: "application/vnd.oci.image.layer.v1.tar")
    }

    @Test(arguments: archives.indices)
    func pulled(index: Int) throws {
        let (archive, content) = Self.archives[index]
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        _ = try pullImage(from: ArraySource([Self.layer(archive)]), into: repository)
        let store = ImageStore(repository)
        let stream = try store.layerStream(.of(archive))
        var again: [UInt8] = []
        try store.readLayer(stream) { again += $0 }
        #expect(again == archive)

        let image = try store.open("localhost/test:latest").image
        let tree = try store.tree(of: image)
        let file = try #require(tree.lookup(path: "usr/s"))
        #expect(tree.permissions(of: file) == 0o600)
        let id = content.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        if content.count > 64 {
            #expect(tree.content(of: file) == .external(id, size: UInt64(content.count)))
            #expect(try repository.readObject(id, limit: content.count) == content)
        } else {
            #expect(tree.content(of: file) == .inline(ByteString(content)))
        }
        #expect(tree.lookup(path: "usr/GNUSparseFile.0") == nil && tree.lookup(path: "usr/after") != nil)
        let info = try store.layerInfo(.of(archive))
        #expect(info.size == UInt64(archive.count) && info.entryCount == 3)
        // It is checked, and the layer alone keeps it.
        #expect(try store.check(nil, ImageCheckOptions(deep: true)).isClean)
        #expect(try repository.check().problems.isEmpty)
        _ = try repository.collectGarbage()
        #expect(try store.check(nil, ImageCheckOptions(deep: true)).isClean)
        if content.count > 64 { #expect(try repository.readObject(id, limit: content.count) == content) }
    }

    /// Holes count towards the layer's size, whose limit applies.
    @Test func limit() throws {
        let archive = Self.archive([("name", "usr/s"), ("size", "5000000"), ("map", "4000000,3")], [1, 2, 3])
        func attempt(_ limit: UInt64) throws {
            let scratch = try StoreScratch()
            var options = PullOptions()
            options.limits.layerBytes = limit
            _ = try pullImage(from: ArraySource([Self.layer(archive)]), into: try scratch.create(), options)
        }
        try attempt(5_000_000)
        #expect(
            refusal { try attempt(4_999_999) }?.contains(
                "entry \"usr/s\" at byte 1536 of the archive: the layer has more than 4999999 bytes; the limit is 4999999") == true)
        for size in ["9223372036854775807", "70000000000"] {
            let archive = Self.archive([("name", "usr/s"), ("size", size), ("map", "")], [])
            let scratch = try StoreScratch()
            let repository = try scratch.create()
            #expect(
                refusal { _ = try pullImage(from: ArraySource([Self.layer(archive)]), into: repository) }?.contains("more than 68719476736")
                    == true)
        }
    }

    @Test func damaged() throws {
        let bad = Self.archive([("major", "1"), ("minor", "0"), ("name", "usr/s"), ("realsize", "9")], Self.map("1\n0\n512\n") + Self.one)
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        let said = refusal { _ = try pullImage(from: ArraySource([Self.layer(bad)]), into: repository) }
        #expect(
            said?.contains("tar entry usr/s at byte 1536: invalid sparse file: its segments exceed its size of 9 bytes")
                == true)
    }

    /// The stream's reference to the content is not trusted: one to another object does not become the file.
    @Test func referencesAreNotBelieved() throws {
        let (archive, _) = Self.archives[0]
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        _ = try pullImage(from: ArraySource([Self.layer(archive)]), into: repository)
        let store = ImageStore(repository)
        let good = try store.layerStream(.of(archive))
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.layer)
        var reader = try repository.openStream(good)
        var other: ObjectID?
        while let chunk = try reader.next() {
            switch chunk {
            case .inline(let bytes): try builder.inline(bytes)
            case .external(let id):
                other = id
                try builder.external(id, size: UInt64(try repository.readObject(id, limit: 1 << 20).count))
            }
        }
        builder.addNamedReference("sparse:1536", try #require(other))
        let forged = try builder.finish().id
        let error = #expect(throws: ImageStoreError.self) { try store.forEachEntry(of: forged) { _, _ in } }
        #expect("\(String(describing: error))".contains("no reference to the content of the sparse file"))
    }
}
