import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer

/// Every fault that the check of the OCI level reports, caused by damage.
@Suite struct StoreCheckTests {
    /// An intact image of two layers.
    private struct Fixture {
        let scratch = try? StoreScratch()
        let store: ImageStore
        let source: ArraySource
        let name: ByteString = "localhost/test:latest"

        init() throws {
            store = ImageStore(try #require(scratch).create())
            source = ArraySource([ArraySource.Layer(.zeros("alpha", 1000)), ArraySource.Layer(.zeros("beta", 2000))])
            _ = try pullImage(from: source, into: store.repository)
            #expect(try store.faults().isEmpty)
        }

        func files() throws -> StoreScratch { try #require(scratch) }
        func image() throws -> StoredImage { try store.open(name).image }
        func stream(_ name: ByteString) throws -> ObjectID { try #require(try store.repository.stream(name)) }
        func target(_ id: ObjectID) -> ByteString { "../objects/" + ByteString(id.objectPath) }

        /// Publishes the image again under its name with other parts.
        func republish(
            source other: ArraySource? = nil, layers: [(identifier: ContentDigest, stream: ObjectID)]? = nil,
            images: [ErofsVersion: ObjectID]? = nil
        ) throws {
            let other = other ?? source
            let image = try image()
            try store.publish(
                manifest: try Manifest(parsing: other.manifest), digest: other.digest, config: other.config,
                layers: try layers ?? store.layers(of: image).map { ($0.diffID, $0.stream) },
                images: try images ?? [.v1: #require(image.imageID(.v1))], tag: name)
        }
    }

    private let alpha = LayerArchive.zeros("alpha", 1000).diffID
    private let beta = LayerArchive.zeros("beta", 2000).diffID

    @Test func clean() throws {
        let fixture = try Fixture()
        let report = try fixture.store.check()
        #expect(report.isClean && report.imagesChecked == 1 && report.imagesDamaged == 0)
        // By any name. An unknown name is an error of the caller.
        #expect(try fixture.store.check(ByteString(fixture.source.digest.description), ImageCheckOptions(deep: true)).imagesChecked == 1)
        #expect(refusal { _ = try fixture.store.check("nothing") }?.hasPrefix("no image \"nothing\"") == true)
    }

    @Test func manifests() throws {
        let fixture = try Fixture()
        let scratch = try fixture.files()
        let image = try fixture.image()
        let stream = StreamName.manifest(fixture.source.digest)
        // Another image's manifest under this one's name.
        let other = ArraySource([ArraySource.Layer(.zeros("alpha", 1000))], name: "localhost/other:1")
        _ = try pullImage(from: other, into: fixture.store.repository)
        try scratch.replaceLink("streams/" + stream, fixture.target(try fixture.stream(StreamName.manifest(other.digest))))
        #expect(
            try fixture.store.faults(fixture.name) == [
                "fsck: image-read-failed: localhost/test:latest: \(stream): \(stream): holds content with the digest \(other.digest)"
            ])
        let report = try fixture.store.check()
        #expect(report.imagesChecked == 2 && report.imagesDamaged == 1)
        // Not the stream of a manifest.
        try scratch.replaceLink("streams/" + stream, fixture.target(image.layerStream(alpha) ?? image.configStream))
        #expect(try fixture.store.faults().first?.hasPrefix("fsck: image-read-failed: localhost/test:latest: \(stream): ") == true)
        try scratch.removeObject(image.manifestStream)
        try scratch.replaceLink("streams/" + stream, fixture.target(image.manifestStream))
        #expect(try fixture.store.faults().first?.contains(image.manifestStream.hex) == true)
        try scratch.directory().unlink(at: "streams/" + stream)
        #expect(try fixture.store.faults() == ["fsck: manifest-read-failed: localhost/test:latest: \(stream) is missing"])
        #expect(
            refusal { _ = try fixture.store.open(fixture.name) } == "\(stream): is missing, but the tag \"localhost/test:latest\" names it")
    }

    @Test func documentsThatAreDamaged() throws {
        for part in ["manifest", "config"] {
            let fixture = try Fixture()
            let bytes = part == "manifest" ? fixture.source.manifest : fixture.source.config
            let content = bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
            try fixture.files().damageObject(content)
            let faults = try fixture.store.faults()
            #expect(faults.count == 1 && faults[0].hasPrefix("fsck: image-read-failed: localhost/test:latest: "))
            #expect(faults[0].contains(content.hex), "\(faults)")
            try fixture.files().removeObject(content)
            #expect(try fixture.store.faults().first?.contains(content.hex) == true)
        }
    }

    @Test func referencesToTheConfig() throws {
        let fixture = try Fixture()
        let scratch = try fixture.files()
        let stream = StreamName.config(fixture.source.configDigest)
        let alphaStream = try fixture.stream(StreamName.layer(alpha))
        let config = try fixture.image().configStream
        try scratch.replaceLink("streams/" + stream, fixture.target(alphaStream))
        #expect(
            try fixture.store.faults() == [
                "fsck: stream-mismatch: localhost/test:latest: \(stream) leads to another object than the one that is referred to, \(config)"
            ])
        try scratch.replaceLink("streams/" + stream, "nowhere")
        #expect(try fixture.store.faults().first?.hasPrefix("fsck: stream-mismatch: localhost/test:latest: streams/\(stream): ") == true)
        // A manifest's stream without the reference.
        var builder = try fixture.store.repository.makeStreamBuilder(contentType: StreamContentType.manifest)
        let content = try fixture.source.manifest.withUnsafeBytes { try fixture.store.repository.storeObject($0) }
        try builder.external(content.id, size: content.size)
        let name = StreamName.manifest(fixture.source.digest)
        try scratch.replaceLink("streams/" + name, fixture.target(try builder.finish().id))
        #expect(
            try fixture.store.faults() == [
                "fsck: image-read-failed: localhost/test:latest: \(name): \(name): has no reference config:\(fixture.source.configDigest)"
            ])
        // A stream with more than one object.
        var two = try fixture.store.repository.makeStreamBuilder(contentType: StreamContentType.manifest)
        for _ in 0..<2 { try two.external(content.id, size: content.size) }
        try scratch.replaceLink("streams/" + name, fixture.target(try two.finish().id))
        #expect(try fixture.store.faults().first?.hasSuffix("\(name): does not hold exactly one object") == true)
    }

    @Test func layerStreams() throws {
        let fixture = try Fixture()
        let scratch = try fixture.files()
        let (first, second) = (try fixture.stream(StreamName.layer(alpha)), try fixture.stream(StreamName.layer(beta)))
        let said = "the link leads to another object than the config's reference"
        try scratch.replaceLink("streams/" + StreamName.layer(alpha), fixture.target(second))
        try scratch.replaceLink("streams/" + StreamName.layer(beta), fixture.target(first))
        #expect(
            try fixture.store.faults() == [
                "fsck: layer-stream-mismatch: localhost/test:latest: \(alpha): \(said)",
                "fsck: layer-stream-mismatch: localhost/test:latest: \(beta): \(said)",
            ])
        try scratch.directory().unlink(at: "streams/" + StreamName.layer(alpha))
        try scratch.replaceLink("streams/" + StreamName.layer(beta), fixture.target(second))
        #expect(try fixture.store.faults() == ["fsck: layer-stream-missing: localhost/test:latest: \(alpha)"])
        try scratch.replaceLink("streams/" + StreamName.layer(alpha), fixture.target(first))
        #expect(try fixture.store.faults().isEmpty)
        try scratch.removeObject(second)
        #expect(try fixture.store.faults() == ["fsck: layer-object-missing: localhost/test:latest: \(beta): object \(second)"])
        #expect(try fixture.store.faults(metadataOnly: true).count == 1)
    }

    @Test func layerContents() throws {
        let fixture = try Fixture()
        let content = try objectID("f6fa43bbc0a7908e2ef77438244159e9dec289dfc4c49d229237f9797a6a9b79")
        var bytes = [UInt8](repeating: 0, count: 1000)
        bytes[999] = 1
        try fixture.files().replaceObject(content, bytes)
        // The current archive.
        var archive = LayerArchive()
        archive.add("alpha", content: bytes)
        #expect(
            try fixture.store.faults() == [
                "fsck: layer-digest-mismatch: localhost/test:latest: \(alpha): the stream re-assembles to \(archive.diffID)"
            ])
        #expect(try fixture.store.faults(metadataOnly: true).isEmpty)
        try fixture.files().removeObject(content)
        let faults = try fixture.store.faults()
        #expect(faults.count == 1 && faults[0].hasPrefix("fsck: layer-check-failed: localhost/test:latest: \(alpha): "))
        #expect(faults[0].contains(content.hex))
        // A damaged layer is reported for every image that has it.
        try fixture.store.tag(fixture.source.digest, as: "second")
        #expect(try fixture.store.faults().filter { $0.contains("layer-check-failed: second: \(alpha)") }.count == 1)
        #expect(try fixture.store.check().imagesDamaged == 2)
    }

    @Test func swappedReferences() throws {
        let fixture = try Fixture()
        let (first, second) = (try fixture.stream(StreamName.layer(alpha)), try fixture.stream(StreamName.layer(beta)))
        try fixture.republish(layers: [(alpha, second), (beta, first)])
        let faults = try fixture.store.faults()
        #expect(faults.contains("fsck: layer-digest-mismatch: localhost/test:latest: \(alpha): the stream re-assembles to \(beta)"))
        #expect(faults.contains("fsck: layer-digest-mismatch: localhost/test:latest: \(beta): the stream re-assembles to \(alpha)"))
        #expect(faults.filter { $0.contains("layer-stream-mismatch") }.count == 2 && faults.count == 4)
        try fixture.republish(layers: [(alpha, first)])
        #expect(try fixture.store.faults() == ["fsck: layer-ref-missing: localhost/test:latest: \(beta)"])
        #expect(refusal { _ = try fixture.store.tree(of: fixture.image()) }?.hasSuffix("has no reference to layer \(beta)") == true)
    }

    @Test func counts() throws {
        let fixture = try Fixture()
        let layers = try fixture.store.layers(of: fixture.image()).map { (identifier: $0.diffID, stream: $0.stream) }
        let short = ArraySource(
            [ArraySource.Layer(.zeros("alpha", 1000)), ArraySource.Layer(.zeros("beta", 2000))], diffIDs: [alpha])
        try fixture.republish(source: short, layers: [layers[0]])
        let faults = try fixture.store.faults()
        #expect(faults.first == "fsck: layer-count: localhost/test:latest: 2 layers, but 1 diff IDs")
        #expect(faults.count == 2 && faults[1].hasPrefix("fsck: image-id-mismatch: localhost/test:latest: v1: "))
        #expect(try fixture.store.faults(deep: false).count == 1)
    }

    @Test func images() throws {
        let fixture = try Fixture()
        let scratch = try fixture.files()
        let id = try #require(try fixture.image().imageID(.v1))
        let link = "images/" + ByteString(id.hex)
        try scratch.directory().unlink(at: link)
        #expect(try fixture.store.faults() == ["fsck: image-link-missing: localhost/test:latest: composefs.image.v1: images/\(id)"])
        try scratch.replaceLink(link, fixture.target(try fixture.image().configStream))
        #expect(
            try fixture.store.faults().first?.hasPrefix("fsck: image-check-failed: localhost/test:latest: composefs.image.v1: ") == true)
        try scratch.replaceLink(link, fixture.target(id))
        #expect(try fixture.store.faults().isEmpty)
        try scratch.removeObject(id)
        #expect(try fixture.store.faults() == ["fsck: image-object-missing: localhost/test:latest: composefs.image.v1: \(id)"])
    }

    @Test func imagesThatAreOthers() throws {
        let fixture = try Fixture()
        let id = try #require(try fixture.image().imageID(.v1))
        let other = ArraySource([ArraySource.Layer(.zeros("alpha", 1000))], name: "localhost/other:1")
        let wrong = try #require(try pullImage(from: other, into: fixture.store.repository).imageID)
        try fixture.republish(images: [.v1: wrong])
        #expect(
            try fixture.store.faults() == [
                "fsck: image-id-mismatch: localhost/test:latest: v1: the layers give \(id), but the config refers to \(wrong)"
            ])
        // Only the deep check merges layers.
        #expect(try fixture.store.faults(deep: false).isEmpty)
        try fixture.republish(images: [:])
        #expect(
            try fixture.store.faults() == [
                "fsck: image-ref-missing: localhost/test:latest: the config refers to no EROFS image; pull the image again"
            ])
    }

    @Test func layersThatCannotBeMerged() throws {
        let fixture = try Fixture()
        var archive = LayerArchive()
        archive.add("link", type: "1", link: "nowhere")
        let stream = try fixture.store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes))
        try fixture.republish(source: ArraySource([ArraySource.Layer(archive)]), layers: [(archive.diffID, stream)])
        let faults = try fixture.store.faults()
        #expect(faults.count == 1)
        #expect(
            faults.first?.hasPrefix("fsck: image-rebuild-failed: localhost/test:latest: ") == true
                && faults.first?.contains("entry \"link\" at byte 0 of the archive: its target \"nowhere\" is not in the image") == true)
    }

    @Test func references() throws {
        let fixture = try Fixture()
        let scratch = try fixture.files()
        let manifest = "../../oci-manifest-" + ByteString(fixture.source.digest.description)
        try scratch.replaceLink("streams/refs/oci/@bad", manifest)
        try scratch.replaceLink("streams/refs/oci/config", "../../oci-config-" + ByteString(fixture.source.configDigest.description))
        try scratch.replaceLink("streams/refs/oci/a%2Fb", "../../oci-manifest-sha256:12")
        #expect(
            Set(try fixture.store.faults()) == [
                "fsck: invalid-ref-name: @bad: leading '@' is reserved for digest references",
                "fsck: ref-resolve-failed: config: streams/refs/oci/config leads to ../../oci-config-\(fixture.source.configDigest), which is no manifest",
                "fsck: ref-resolve-failed: a/b: streams/refs/oci/a%2Fb leads to ../../oci-manifest-sha256:12, which is no manifest",
            ])
        // They are not tags.
        #expect(try fixture.store.tags().map(\.name) == ["@bad", "localhost/test:latest"])
    }

    @Test func artifacts() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let blobs = [Array("hello world".utf8), [UInt8](repeating: 5, count: 100_000)]
        let source = ArraySource(artifact: blobs)
        _ = try pullImage(from: source, into: store.repository)
        #expect(try store.faults().isEmpty)
        let image = try store.open("localhost/artifact:latest").image
        #expect(!image.isContainer && image.config == nil && image.layerIdentifiers == blobs.map { .of($0) })
        #expect(refusal { _ = try store.tree(of: image) } == "\(source.digest) is an artifact: it has no root file system")
        let digest = ContentDigest.of(blobs[1])
        let content = blobs[1].withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        try scratch.damageObject(content)
        #expect(try store.faults().first?.hasPrefix("fsck: layer-digest-mismatch: localhost/artifact:latest: \(digest): ") == true)
        let stream = try #require(try store.repository.stream(StreamName.layer(digest)))
        try scratch.removeObject(stream)
        #expect(try store.faults() == ["fsck: layer-object-missing: localhost/artifact:latest: \(digest): object \(stream)"])
        // A config's stream without the second blob.
        let first = try #require(image.layerStream(.of(blobs[0])))
        try store.publish(
            manifest: try Manifest(parsing: source.manifest), digest: source.digest, config: source.config,
            layers: [(.of(blobs[0]), first)], images: [:], tag: "localhost/artifact:latest")
        #expect(try store.faults() == ["fsck: artifact-layer-ref-missing: localhost/artifact:latest: \(digest)"])
    }
}
