import ComposefsBytes
import ComposefsCompression
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer

/// gzip members and zstd frames (RFC 1952, RFC 8878).
enum Pack {
    /// One member of stored blocks.
    static func gzip(_ bytes: [UInt8]) -> [UInt8] {
        var member: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
        var rest = bytes[...]
        repeat {
            let block = rest.prefix(65_535)
            rest = rest.dropFirst(block.count)
            let count = UInt16(block.count)
            member += [rest.isEmpty ? 1 : 0, UInt8(count & 255), UInt8(count >> 8), UInt8(~count & 255), UInt8(~count >> 8)] + block
        } while !rest.isEmpty
        var checksum = UInt32.max
        for byte in bytes {
            checksum ^= UInt32(byte)
            for _ in 0..<8 { checksum = checksum >> 1 ^ (checksum & 1 == 1 ? 0xedb8_8320 : 0) }
        }
        for value in [~checksum, UInt32(bytes.count)] { withUnsafeBytes(of: value.littleEndian) { member += $0 } }
        return member
    }

    static func zstd(_ bytes: [UInt8]) -> [UInt8] {
        var compressor = ZstdCompressor()
        var frame: [UInt8] = []
        bytes.withUnsafeBytes { compressor.compress($0, into: &frame) }
        compressor.finish(into: &frame)
        return frame
    }
}

private let alpha = LayerArchive.zeros("alpha", 1000)
private let beta = LayerArchive.zeros("beta", 2000)
private let gamma = LayerArchive.zeros("gamma", 3000)

private func layer(_ archive: LayerArchive) -> ArraySource.Layer { ArraySource.Layer(archive) }

/// The error of a failed pull from a source.
private func refusedPull(_ source: ArraySource, _ options: PullOptions = PullOptions()) throws -> String {
    let scratch = try StoreScratch()
    let repository = try scratch.create()
    let said = refusal { _ = try pullImage(from: source, into: repository, options) }
    // Nothing is visible; the next collection removes what was stored.
    #expect(try repository.streamNames().isEmpty && repository.imageIDs().isEmpty && repository.streamReferences().isEmpty)
    #expect(try repository.check().isOK)
    let objects = try scratch.objectCount()
    #expect(try repository.collectGarbage().objectsRemoved == objects)
    #expect(try scratch.objectCount() == 0)
    return try #require(said)
}

/// Invalid sources: every fault is found, reported with the layer's position and digest, and leaves nothing visible.
@Suite struct PullLieTests {
    private func source(diffIDs: [ContentDigest]? = nil) -> ArraySource {
        ArraySource([layer(alpha), layer(beta), layer(gamma)], diffIDs: diffIDs)
    }

    private var second: ContentDigest { .of(beta.bytes) }

    @Test func layerOfOtherContent() throws {
        let source = source()
        var bytes = beta.bytes
        bytes[600] ^= 1
        source.replace(second, with: bytes)
        #expect(
            try refusedPull(source)
                == "layer 2 of 3 (\(second)): blob \(second): the content has another digest: it is damaged or was exchanged")
        // The same if the archive cannot be read.
        bytes[0] ^= 1
        source.replace(second, with: bytes)
        #expect(try refusedPull(source).hasPrefix("layer 2 of 3 (\(second)): "))
    }

    @Test func layerOfOtherLength() throws {
        let source = source()
        source.replace(second, with: beta.bytes.dropLast())
        #expect(
            try refusedPull(source)
                == "layer 2 of 3 (\(second)): blob \(second): ends after \(beta.bytes.count - 1) of \(beta.bytes.count) bytes; fetch it again"
        )
        source.replace(second, with: [])
        #expect(try refusedPull(source).contains("blob \(second): ends after 0 of "))
        for extra in [1, 1_000_000] {
            source.replace(second, with: beta.bytes + [UInt8](repeating: 0, count: extra))
            #expect(
                try refusedPull(source)
                    == "layer 2 of 3 (\(second)): blob \(second): is longer than the \(beta.bytes.count) bytes that its descriptor announces"
            )
        }
        source.replace(second, with: nil)
        #expect(try refusedPull(source) == "layer 2 of 3 (\(second)): the source has no blob \(second)")
    }

    /// All blobs match their digests, but the config has other diff IDs.
    @Test func diffIDs() throws {
        let unknown = ContentDigest.of([1])
        #expect(
            try refusedPull(source(diffIDs: [alpha.diffID, unknown, gamma.diffID]))
                == "layer 2 of 3 (\(second)): the uncompressed archive's digest is \(beta.diffID), but the config's diff ID is \(unknown)")
        let swapped = try refusedPull(source(diffIDs: [beta.diffID, alpha.diffID, gamma.diffID]), PullOptions(jobs: 1))
        #expect(swapped.contains("the uncompressed archive's digest is ") && swapped.contains("but the config's diff ID is "))
        #expect(swapped.hasPrefix("layer 1 of 3 (") || swapped.hasPrefix("layer 2 of 3 ("))
        #expect(
            try refusedPull(source(diffIDs: [alpha.diffID, beta.diffID])) == "the manifest has 3 layers, but the config has 2 diff IDs")
        #expect(try refusedPull(source(diffIDs: [])) == "the manifest has 3 layers, but the config has 0 diff IDs")
        #expect(
            try refusedPull(source(diffIDs: [alpha, beta, gamma, alpha].map(\.diffID)))
                == "the manifest has 3 layers, but the config has 4 diff IDs")
    }

    @Test func configs() throws {
        let source = source()
        let digest = source.configDigest
        source.replace(digest, with: source.config.reversed())
        #expect(try refusedPull(source) == "blob \(digest): the content has another digest: it is damaged or was exchanged")
        source.replace(digest, with: source.config.dropLast())
        #expect(
            try refusedPull(source)
                == "blob \(digest): ends after \(source.config.count - 1) of \(source.config.count) bytes; fetch it again")
        source.replace(digest, with: source.config + [0x20])
        #expect(try refusedPull(source) == "blob \(digest): is longer than the \(source.config.count) bytes that its descriptor announces")
        #expect(source.opened.allSatisfy { $0 == digest })
    }

    @Test func manifests() throws {
        let digest = ContentDigest.of([1])
        func expecting(_ digest: ContentDigest, _ size: UInt64) -> ArraySource {
            ArraySource([layer(alpha)], expected: Descriptor(mediaType: MediaType.ociManifest, digest: digest, size: size))
        }
        let size = UInt64(ArraySource([layer(alpha)]).manifest.count)
        let exchanged = try refusedPull(expecting(digest, size))
        #expect(exchanged.contains("\(digest)") && exchanged.contains("it is damaged or was exchanged"))
        #expect(try refusedPull(expecting(digest, size + 1)).contains("\(size) bytes, but its descriptor announces \(size + 1)"))
    }

    @Test func compressedLayersThatAreCut() throws {
        for (packed, type, name) in [
            (Pack.gzip(beta.bytes), "gzip", "member"), (Pack.zstd(beta.bytes), "zstd", "frame"),
        ] {
            let blob = Array(packed.dropLast(5))
            let digest = ContentDigest.of(blob)
            let source = ArraySource([
                layer(alpha),
                ArraySource.Layer(blob: blob, diffID: beta.diffID, mediaType: "application/vnd.oci.image.layer.v1.tar+" + type),
            ])
            #expect(
                try refusedPull(source)
                    == "layer 2 of 2 (\(digest)): \(type) data, byte \(blob.count): the data ends in the middle of a \(name)")
        }
    }

    @Test func garbageBehindAMember() throws {
        let blob = Pack.gzip(beta.bytes) + Array("garbage".utf8)
        let source = ArraySource([
            ArraySource.Layer(blob: blob, diffID: beta.diffID, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip")
        ])
        #expect(try refusedPull(source).contains("bytes that are not gzip data follow the last member"))
    }

    @Test func archivesThatAreNone() throws {
        let noise = (0..<2000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 3) }
        let source = ArraySource([
            ArraySource.Layer(blob: noise, diffID: .of(noise), mediaType: "application/vnd.oci.image.layer.v1.tar")
        ])
        #expect(try refusedPull(source).hasPrefix("layer 1 of 1 (\(ContentDigest.of(noise))): tar "))
    }

    @Test func layersThatCannotBeMerged() throws {
        var archive = LayerArchive()
        archive.add("a", type: "1", link: "nowhere")
        let said = try refusedPull(ArraySource([layer(alpha), layer(archive)]))
        #expect(said == "entry \"a\" at byte 0 of the archive: its target \"nowhere\" is not in the image")
    }

    @Test func namesThatCannotBe() throws {
        #expect(try refusedPull(source(), PullOptions(name: "@x")).contains("a leading '@' is reserved for digests"))
        #expect(try refusedPull(source(), PullOptions(name: "")).contains("it is empty"))
    }

    @Test func artifacts() throws {
        let blob = [UInt8](repeating: 3, count: 300_000)
        let digest = ContentDigest.of(blob)
        let source = ArraySource(artifact: [Array("a".utf8), blob])
        source.replace(digest, with: blob.dropLast())
        #expect(try refusedPull(source) == "layer 2 of 2 (\(digest)): blob \(digest): ends after 299999 of 300000 bytes; fetch it again")
        source.replace(digest, with: blob.dropLast() + [4])
        #expect(try refusedPull(source).contains("blob \(digest): the content has another digest"))
        source.replace(digest, with: blob + [3])
        #expect(try refusedPull(source).contains("blob \(digest): is longer than the 300000 bytes"))
    }
}

@Suite struct PullTests {
    @Test func compressions() throws {
        // Both as declared and as the content is, because media types are sometimes wrong.
        let half = 1024
        let parts = [Array(beta.bytes[..<half]), Array(beta.bytes[half...])]
        let type = "application/vnd.oci.image.layer.v1.tar"
        let blobs: [(bytes: [UInt8], type: String)] = [
            (beta.bytes, type), (Pack.gzip(beta.bytes), type + "+gzip"), (Pack.zstd(beta.bytes), type + "+zstd"),
            (parts.flatMap { Pack.gzip($0) }, type + "+gzip"), (parts.flatMap { Pack.zstd($0) }, type + "+zstd"),
            (Pack.gzip(beta.bytes), type), (Pack.zstd(beta.bytes), type + "+gzip"), (beta.bytes, type + "+zstd"),
        ]
        for blob in blobs {
            let scratch = try StoreScratch()
            let store = ImageStore(try scratch.create())
            let source = ArraySource([ArraySource.Layer(blob: blob.bytes, diffID: beta.diffID, mediaType: blob.type)])
            let result = try pullImage(from: source, into: store.repository)
            #expect(try store.layerStream(beta.diffID).hex == "ce472620ab69da46e385b0936865ef22f940e6bf55a083d3be37b1003795e221")
            #expect(result.newLayers == 1 && result.manifestDigest == source.digest && result.configDigest == source.configDigest)
            #expect(try store.faults() == [])
        }
    }

    @Test func eventsAndResult() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let events = Mutex<[String]>([])
        let options = PullOptions(name: "my name", jobs: 1) { event in
            let what =
                switch event.phase {
                case .resolved(let found): "resolved \(found.manifest) \(found.layers.map(\.size))"
                default: "\(event.phase)"
                }
            let text = (event.layerIndex.map { "\($0) " } ?? "") + what + " \(event.bytesDone)/\(event.bytesTotal)"
            events.withLock { $0.append(text) }
        }
        let source = ArraySource([layer(alpha), layer(beta), layer(alpha)])
        let result = try pullImage(from: source, into: store.repository, options)
        #expect(result.name == "my name" && result.newLayers == 2 && result.presentLayers == 0)
        #expect(result.statistics.newObjects == 2 && result.statistics.presentObjects == 0 && result.statistics.storedBytes == 3000)
        #expect(result.config?.diffIDs == [alpha, beta, alpha].map(\.diffID))
        #expect(try store.tags().map(\.name) == ["my name"])
        let (small, large) = (alpha.bytes.count, beta.bytes.count)
        #expect(
            events.withLock { $0 } == [
                "resolving(reference: \"localhost/test:latest\") 0/0",
                "resolved \(source.digest) [\(small), \(large), \(small)] 0/\(small + large + small)",
                "0 queued 0/\(small)", "1 queued 0/\(large)",
                "2 skipped(ComposefsTransfer.PullEvent.Skip.repeated(of: 0)) \(small)/\(small)",
                "1 started 0/\(large)", "1 bytes \(large)/\(large)", "1 verified \(large)/\(large)", "1 stored \(large)/\(large)",
                "0 started 0/\(small)", "0 bytes \(small)/\(small)", "0 verified \(small)/\(small)", "0 stored \(small)/\(small)",
            ] + ["merging", "writingImage", "publishing", "done"].map { "\($0) \(small + large + small)/\(small + large + small)" })
        #expect(try store.faults() == [])
    }

    @Test func manyLayersAtOnce() throws {
        let archives = (0..<40).map { LayerArchive().adding("dir\($0 % 7)/file\($0)", [UInt8](repeating: UInt8($0), count: 10_000 + $0)) }
        var images: Set<ObjectID> = []
        for jobs in [1, 2, 16] {
            let scratch = try StoreScratch()
            let store = ImageStore(try scratch.create())
            let source = ArraySource(archives.map { layer($0) })
            let result = try pullImage(from: source, into: store.repository, PullOptions(jobs: jobs))
            #expect(result.newLayers == 40 && result.statistics.newObjects == 40)
            images.insert(try store.open("localhost/test:latest").image.manifestStream)
            #expect(try store.faults() == [])
        }
        // The order of work does not affect the result.
        #expect(images.count == 1)
    }

    @Test func noLayers() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let result = try pullImage(from: ArraySource([]), into: store.repository)
        // Golden value of an empty root directory.
        #expect(result.imageID?.hex == "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63")
        #expect(try store.faults() == [])
    }

    @Test func secondPull() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([layer(alpha), layer(beta)])
        let first = try pullImage(from: source, into: store.repository)
        let before = try scratch.objectCount()
        #expect(source.opened.count == 3)
        let again = try pullImage(from: source, into: store.repository)
        #expect(again.newLayers == 0 && again.presentLayers == 2 && again.imageID == first.imageID)
        #expect(source.opened.dropFirst(3) == [source.configDigest])
        #expect(try scratch.objectCount() == before)
        #expect(try store.repository.collectGarbage().objectsRemoved == 0)
        // Another image with one of the layers.
        let other = ArraySource([layer(beta), layer(gamma)], name: "localhost/other:1")
        let result = try pullImage(from: other, into: store.repository)
        #expect(result.newLayers == 1 && result.presentLayers == 1)
        #expect(other.opened == [other.configDigest, .of(gamma.bytes)])
        #expect(try store.faults() == [])
    }

    /// Layers that a failed pull had finished are not fetched again.
    @Test func afterAFailure() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([layer(alpha), layer(beta), layer(gamma)])
        // The largest layer comes first, so with one job at a time the smallest fails when the others are stored.
        source.replace(.of(alpha.bytes), with: nil)
        #expect(refusal { _ = try pullImage(from: source, into: store.repository, PullOptions(jobs: 1)) } != nil)
        #expect(try store.repository.streamNames().isEmpty && store.tags().isEmpty)
        #expect(try store.repository.stagedStream(StreamName.layer(gamma.diffID)) != nil)
        source.replace(.of(alpha.bytes), with: alpha.bytes)
        let fetched = source.opened.count
        let result = try pullImage(from: source, into: store.repository)
        #expect(source.opened.dropFirst(fetched) == [source.configDigest, .of(alpha.bytes)])
        #expect(result.newLayers == 1 && result.presentLayers == 2)
        // Nothing is staged any more.
        for archive in [alpha, beta, gamma] { #expect(try store.repository.stagedStream(StreamName.layer(archive.diffID)) == nil) }
        #expect(try store.faults() == [] && store.repository.collectGarbage().objectsRemoved == 0)
    }

    /// Importing a staged layer publishes it.
    @Test func stagedLayersAlone() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([layer(alpha), layer(beta)])
        source.replace(.of(alpha.bytes), with: nil)
        #expect(refusal { _ = try pullImage(from: source, into: store.repository, PullOptions(jobs: 1)) } != nil)
        let stream = try store.importLayer(beta.diffID, from: ArrayBlob([]))
        #expect(try store.layerStream(beta.diffID) == stream && store.archive(of: stream) == beta.bytes)
        #expect(try store.repository.stagedStream(StreamName.layer(beta.diffID)) == nil)
    }

    @Test func stagedLayersGoWithGarbage() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([layer(alpha), layer(beta)])
        source.replace(.of(alpha.bytes), with: nil)
        #expect(refusal { _ = try pullImage(from: source, into: store.repository, PullOptions(jobs: 1)) } != nil)
        #expect(try store.repository.collectGarbage().objectsRemoved == 2)
        source.replace(.of(alpha.bytes), with: alpha.bytes)
        #expect(try pullImage(from: source, into: store.repository).newLayers == 2)
        #expect(try store.faults() == [])
    }
}

/// Layers that the store has not verified against their names.
@Suite struct PullHintTests {
    private let scratch: StoreScratch
    private let store: ImageStore
    private let source = ArraySource([layer(alpha), layer(beta)])
    private let name = StreamName.layer(beta.diffID)

    init() throws {
        scratch = try StoreScratch()
        store = ImageStore(try scratch.create())
        _ = try pullImage(from: source, into: store.repository)
    }

    private func stream() throws -> ObjectID { try #require(try store.repository.stream(name)) }
    private func hasHint() throws -> Bool { try LayerHint.isSet(beta.diffID, on: stream(), in: store.repository) }
    /// 2000 zero bytes.
    private func content() throws -> ObjectID { try objectID("f13c0c1a5b8bc8b8983be2761bae9dd229cc951b260dab7b2558987542c45c23") }

    @Test func goodLayersGetTheirHint() throws {
        #expect(try hasHint())
        #expect(
            try scratch.directory().extendedAttribute("user.cfsoci.diff-id", at: scratch.objectPath(stream()))
                == ByteString(beta.diffID.description))
        try scratch.removeHint(try stream())
        #expect(try !hasHint())
        let result = try pullImage(from: source, into: store.repository)
        #expect(try result.presentLayers == 2 && hasHint())
    }

    @Test func damagedLayersAreFetchedAgain() throws {
        try scratch.removeHint(try stream())
        try scratch.damageObject(try content())
        #expect(try store.faults().count == 1)
        let result = try pullImage(from: source, into: store.repository)
        #expect(result.newLayers == 1 && result.presentLayers == 1 && result.statistics.newObjects == 1)
        #expect(try store.faults() == [])
        #expect(try hasHint() && store.repository.check().isOK)
    }

    @Test func incompleteLayersAreFetchedAgain() throws {
        for damage in 0..<4 {
            if damage == 0 {
                try scratch.removeHint(try stream())
                try scratch.removeObject(try content())
            } else if damage == 1 {
                try scratch.removeObject(try stream())
            } else if damage == 2 {
                try scratch.damageObject(try stream())
            } else {
                try scratch.directory().unlink(at: "streams/" + name)
            }
            let result = try pullImage(from: source, into: store.repository)
            #expect(result.newLayers == 1 && result.presentLayers == 1)
            #expect(try store.faults() == [])
        }
    }

    /// The hint belongs to one layer: the stream of another one under the name is not trusted.
    @Test func anothersStream() throws {
        let other = try #require(try store.repository.stream(StreamName.layer(alpha.diffID)))
        try scratch.replaceLink("streams/" + name, "../objects/" + ByteString(other.objectPath))
        let result = try pullImage(from: source, into: store.repository)
        #expect(result.newLayers == 1 && result.presentLayers == 1)
        #expect(try store.faults() == [])
    }

    @Test func damagedImportsAreDoneAgain() throws {
        let before = try stream()
        try scratch.removeHint(before)
        try scratch.damageObject(try content())
        #expect(try store.importLayer(beta.diffID, from: ArrayBlob(beta.bytes)) == before)
        #expect(try store.faults() == [] && hasHint())
    }
}

@Suite struct PullArtifactTests {
    @Test func blobs() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let blobs = [Array("hello world".utf8), [], [UInt8](repeating: 9, count: 700_000)]
        let source = ArraySource(artifact: blobs)
        let result = try pullImage(from: source, into: store.repository)
        #expect(result.imageID == nil && result.imageIDs.isEmpty && result.config == nil && result.newLayers == 3)
        // Golden value of the stream of a blob.
        let hello = try #require(try store.repository.stream(StreamName.layer(.of(blobs[0]))))
        #expect(hello.hex == "275c3f3d11d83d2c131a0bf4cb9e57825282c1d96eab4194f835fa83e9f5a89e")
        for blob in blobs {
            let stream = try store.layerStream(.of(blob))
            #expect(try store.archive(of: stream) == blob && store.blobDigest(of: stream, .sha256) == .of(blob))
        }
        #expect(try store.open("localhost/artifact:latest").image.configBytes == Array("{}".utf8))
        #expect(try store.repository.imageIDs().isEmpty && store.faults() == [] && store.repository.check().isOK)
        let again = try pullImage(from: source, into: store.repository)
        #expect(again.newLayers == 0 && again.presentLayers == 3)
        #expect(try store.repository.collectGarbage().objectsRemoved == 0)
        let list = try store.list().images
        #expect(list.count == 1 && list.first?.isContainer == false && list.first?.imageID == nil && list.first?.layerCount == 3)
    }

    @Test func damagedBlobsAreFetchedAgain() throws {
        let blob = [UInt8](repeating: 9, count: 700_000)
        let content = blob.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource(artifact: [blob])
        _ = try pullImage(from: source, into: store.repository)
        for damage in 0..<3 {
            switch damage {
            case 0: try scratch.removeObject(content)
            case 1: try scratch.damageObject(content)
            default: try scratch.removeObject(try store.layerStream(.of(blob)))
            }
            #expect(try store.faults().count == 1)
            #expect(try pullImage(from: source, into: store.repository).newLayers == 1)
            #expect(try store.faults() == [])
        }
    }

    /// A layer's archive that is stored as an artifact has the same name as the layer.
    @Test func aBlobThatIsALayer() throws {
        for imageFirst in [true, false] {
            let scratch = try StoreScratch()
            let store = ImageStore(try scratch.create())
            let sources = [ArraySource([layer(beta)]), ArraySource(artifact: [beta.bytes])]
            for source in imageFirst ? sources : sources.reversed() { _ = try pullImage(from: source, into: store.repository) }
            #expect(try store.faults() == [])
            let stream = try #require(try store.open("localhost/artifact:latest").image.layerStream(beta.diffID))
            #expect(try store.archive(of: stream) == beta.bytes)
            #expect(try store.layerInfo(beta.diffID).entryCount == 1)
            #expect(try store.repository.collectGarbage().streamsRemoved == 0)
        }
    }
}
