import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTransfer
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel

/// Golden values of layers made by the reference implementation.
@Suite struct StoreLayerTests {
    private static let golden: [(name: String, count: Int, diffID: String, stream: String, length: UInt64)] = [
        (
            "alpha", 1000, "757d6903198804b6ed96421a93a9973f5facc0e445a2a6c61cb0129eb67026e2",
            "61c07629b8a41273f190744a8545c132e6b784dcb2235bb31ade307a83e092ff", 237
        ),
        (
            "beta", 2000, "77dd145166ef191089dabd4d2c52d32143850a3c81a074fedf48dca360e2dcb9",
            "ce472620ab69da46e385b0936865ef22f940e6bf55a083d3be37b1003795e221", 236
        ),
        (
            "gamma", 3000, "9b57f0e91c403b650e9391fd5e4154cac5dc1469acc0f3312e6149aa34f160ef",
            "99ce11df4bb808a1e80ce69425dae527b64aa7a270bf99c4a6e24d66be270f3f", 237
        ),
    ]

    @Test func layersAndConfigOfTheReference() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        var layers: [(identifier: ContentDigest, stream: ObjectID)] = []
        for golden in Self.golden {
            let archive = LayerArchive.zeros(golden.name, golden.count)
            #expect(archive.diffID.hex == golden.diffID)
            let stream = try store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes))
            #expect(stream.hex == golden.stream)
            #expect(try store.repository.objectSize(stream) == golden.length)
            #expect(try store.archive(of: stream) == archive.bytes)
            layers.append((archive.diffID, stream))
        }
        // The config's stream refers only to the layers.
        let source = ArraySource(Self.golden.map { ArraySource.Layer(LayerArchive.zeros($0.name, $0.count)) })
        #expect(source.configDigest.hex == "5118919cc453352968579aeed8fcc26c7a75759de579722a0f90ed5aaf85bd7d")
        try store.publish(
            manifest: try Manifest(parsing: source.manifest), digest: source.digest, config: source.config, layers: layers, images: [:],
            tag: "golden")
        let config = try #require(try store.repository.stream(StreamName.config(source.configDigest)))
        #expect(config.hex == "4839518dea22749f8ff233e7f7baec65f23dd5336462f46ad6884769af84bf95")
        #expect(try store.repository.objectSize(config) == 405)
        let image = try store.open("golden").image
        #expect(image.configStream == config && image.layerIdentifiers == layers.map(\.identifier))
        #expect(image.imageID(.v1) == nil && image.imageID(.v2) == nil && image.bootImages.isEmpty)
        #expect(image.layerStream(layers[1].identifier) == layers[1].stream)
        #expect(image.layerStream(source.digest) == nil)
    }

    static func exampleLayer() -> LayerArchive {
        var archive = LayerArchive()
        for count in [0, 4095, 4096, 4097] { archive.add("file\(count)", content: [UInt8](repeating: 0, count: count)) }
        return archive
    }

    @Test func exampleOfTheReference() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archive = Self.exampleLayer()
        #expect(archive.bytes.count == 15872)
        #expect(archive.diffID.hex == "79cff667e4a080a88b2b279228358db566980968118d6cfff538867c0b2639f8")
        let stream = try store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes, chunk: 100))
        #expect(stream.hex == "8e0f713d8b20b94b206730d594f4aaebc94e9aae9ca16a3bdea717155b3b8516")
        #expect(try store.repository.objectSize(stream) == 368)
        #expect(try scratch.objectCount() == 4)
        let digests = [
            "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719",
            "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e",
            "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743",
        ]
        let lines = zip(4095...4097, digests).map { "/file\($0) \($0) 100700 1 0 0 0 0.0 \($1.prefix(2))/\($1.dropFirst(2)) - \($1)\n" }
        #expect(try store.dumpLines(of: stream) == "/file0 0 100700 1 0 0 0 0.0 - - -\n" + lines.joined())
        let info = try store.layerInfo(archive.diffID)
        #expect(
            info
                == LayerInfo(
                    diffID: archive.diffID, stream: stream, size: 15872, entryCount: 4, externalObjects: 3, externalSize: 12288,
                    inlineSize: 3584))
        #expect(try store.layerDigest(of: stream, .sha256) == archive.diffID)
        // A second import stores nothing new.
        #expect(try store.importLayer(archive.diffID, from: ArrayBlob([])) == stream)
        #expect(try scratch.objectCount() == 4)
        // Nothing keeps a layer without an image.
        let garbage = try store.repository.collectGarbage()
        #expect(garbage.objectsRemoved == 4 && garbage.streamsRemoved == 1)
        #expect(refusal { _ = try store.layerStream(archive.diffID) } == "no layer \(archive.diffID) in the repository")
        #expect(refusal { _ = try store.layerInfo(archive.diffID) } == "no layer \(archive.diffID) in the repository")
    }

    @Test func everyKindOfEntry() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        var archive = LayerArchive()
        archive.add("./", type: "5", mode: 0o755)
        archive.add("dir/", type: "5", mode: 0o750, time: 1_234_567_890)
        archive.add("dir/inline", content: [UInt8](repeating: 0x61, count: 64))
        archive.add("dir/external", content: [UInt8](repeating: 0, count: 4095), attributes: [("user.a", Array("b c".utf8))])
        archive.add("dir/again", type: "1", link: "dir/external")
        archive.add("dir/symbolic", type: "2", mode: 0o777, link: "../x y")
        archive.add("dir/null", type: "3", device: (1, 3))
        archive.add("dir/disk", type: "4", device: (8, 1))
        archive.add("dir/fifo", type: "6")
        archive.add("dir/.wh.gone")
        archive.add("twice", content: [UInt8](repeating: 0, count: 4095))
        let stream = try store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes, chunk: 511))
        #expect(try store.archive(of: stream) == archive.bytes)
        let digest = "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719"
        let external = "53/\(digest.dropFirst(2)) - \(digest)"
        #expect(
            try store.dumpLines(of: stream) == """
                /. 0 40755 1 0 0 0 0.0 - - -
                /dir 0 40750 1 0 0 0 1234567890.0 - - -
                /dir/inline 64 100700 1 0 0 0 0.0 - \(String(repeating: "a", count: 64)) -
                /dir/external 4095 100700 1 0 0 0 0.0 \(external) user.a=b\\x20c
                /dir/again 0 @120000 - - - - 0.0 /dir/external - -
                /dir/symbolic 6 120777 1 0 0 0 0.0 ../x\\x20y - -
                /dir/null 0 20700 1 0 0 259 0.0 - - -
                /dir/disk 0 60700 1 0 0 2049 0.0 - - -
                /dir/fifo 0 10700 1 0 0 0 0.0 - - -
                /dir/.wh.gone 0 100700 1 0 0 0 0.0 - - -
                /twice 4095 100700 1 0 0 0 0.0 \(external)

                """)
        let info = try store.layerInfo(archive.diffID)
        #expect(info.entryCount == 11 && info.externalObjects == 1 && info.externalSize == 8190)
        #expect(info.size == UInt64(archive.bytes.count) && info.inlineSize == info.size - 8190)
    }

    /// Larger than all buffers together, with a file that spans many buffers and files that end near the end of a buffer.
    @Test func largeArchives() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        var state: UInt64 = 1
        func noise(_ count: Int) -> [UInt8] {
            (0..<count).map { _ in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return UInt8(truncatingIfNeeded: state >> 56)
            }
        }
        var archive = LayerArchive()
        for index in 0..<40 { archive.add("small\(index)", content: noise(20_000 + index)) }
        archive.add("large", content: noise(6 * 1024 * 1024 + 7))
        archive.add("empty")
        archive.add("exactly", content: noise(1024 * 1024))
        archive.add("over", content: noise(1024 * 1024 + 1))
        let bytes = archive.bytes
        let stream = try store.importLayer(archive.diffID, from: ArrayBlob(bytes, chunk: 100_000))
        #expect(try store.archive(of: stream) == bytes)
        #expect(try store.layerInfo(archive.diffID).externalObjects == 43)
        #expect(try scratch.objectCount() == 44)
    }

    @Test func importsThatAreRefused() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archive = LayerArchive.zeros("alpha", 1000)
        let other = LayerArchive.zeros("beta", 1000)
        #expect(
            refusal { _ = try store.importLayer(archive.diffID, from: ArrayBlob(other.bytes)) }
                == "the uncompressed archive's digest is \(other.diffID), but the config's diff ID is \(archive.diffID)")
        let cut = Array(archive.bytes[..<700])
        #expect(refusal { _ = try store.importLayer(.of(cut), from: ArrayBlob(cut)) }?.contains("the archive ends inside") == true)
        var damaged = archive.bytes
        damaged[0] ^= 1
        #expect(refusal { _ = try store.importLayer(.of(damaged), from: ArrayBlob(damaged)) }?.contains("not a tar header") == true)
        #expect(try store.repository.streamNames().isEmpty)
        let left = try scratch.objectCount()
        #expect(try store.repository.collectGarbage().objectsRemoved == left)
        #expect(try scratch.objectCount() == 0)
    }

    @Test func damagedLayers() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archive = Self.exampleLayer()
        let stream = try store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes))
        let object = try objectID("babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e")
        try scratch.replaceObject(object, [UInt8](repeating: 0, count: 4000))
        #expect(refusal { _ = try store.archive(of: stream) } == "\(stream): re-assembles to 15776 bytes, but its header says 15872")
        try scratch.removeObject(object)
        #expect(refusal { _ = try store.archive(of: stream) }?.contains(object.hex) == true)
        // Listing the entries does not need the contents.
        #expect(try store.dumpLines(of: stream).contains("/file4096 4096"))
        let document = try store.repository.storeObject(stream: StreamContentType.blob)
        #expect(refusal { _ = try store.dumpLines(of: document) } != nil)
    }

    /// A foreign stream may have content in line that should be an object.
    @Test func largeFilesInLine() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archive = LayerArchive.zeros("file", 65)
        let stream = try store.repository.storeObject(stream: StreamContentType.layer, inline: archive.bytes)
        #expect(refusal { _ = try store.dumpLines(of: stream) } == "\(stream): has a file of more than 64 bytes in line")
        #expect(try store.archive(of: stream) == archive.bytes)
    }
}

extension Repository {
    /// A stream object of some inline bytes.
    func storeObject(stream type: UInt64, inline: [UInt8] = [1, 2, 3]) throws -> ObjectID {
        var builder = try makeStreamBuilder(contentType: type)
        try inline.withUnsafeBytes { try builder.inline($0) }
        return try builder.finish().id
    }
}
