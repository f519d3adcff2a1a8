import ComposefsBytes
import ComposefsHashing
import ComposefsRepository
import ComposefsSplitStream
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// The content of the documents decides what is an image, not their media types.
@Suite struct ImageKindTests {
    private static let blob = LayerArchive.zeros("alpha", 1000)

    private func pull(_ source: ArraySource) throws -> StoredImage {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let pulled = try pullImage(from: source, into: store.repository)
        #expect(try store.faults().isEmpty)
        let image = try store.open(ByteString(source.canonicalName)).image
        #expect(pulled.isContainer == image.isContainer && (pulled.imageID != nil) == image.isContainer)
        return image
    }

    @Test(arguments: [
        nil, "", "application/octet-stream", "application/json", "text/html", "text/plain", "binary/octet-stream",
        "application/json; charset=utf-8", "application/vnd.docker.container.image.v1+json; charset=utf-8",
        "application/vnd.OCI.image.config.v1+JSON",
    ])
    func configTypesThatSayNothing(_ type: String?) throws {
        let image = try pull(ArraySource([ArraySource.Layer(Self.blob), ArraySource.Layer(.zeros("b", 5))], configType: type))
        #expect(image.isContainer && image.layerIdentifiers == [Self.blob.diffID, LayerArchive.zeros("b", 5).diffID])
        // The digest of a compressed layer is not its diff ID.
        let gzip = ArraySource.Layer(blob: Pack.gzip(Self.blob.bytes), diffID: Self.blob.diffID, mediaType: gzip)
        #expect(try pull(ArraySource([gzip], configType: type)).layerIdentifiers == [Self.blob.diffID])
    }

    /// A layout lists the image as one: readers of a layout without names skip entries with an artifact type.
    @Test(arguments: [nil, "application/octet-stream", "application/json; charset=utf-8", MediaType.ociConfig])
    func exported(_ type: String?) throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([ArraySource.Layer(Self.blob)], configType: type)
        _ = try pullImage(from: source, into: store.repository)
        let location = ImageLocation((scratch.path + "/layout").description)
        _ = try pushImage(
            store.open(ByteString(source.canonicalName)).image, of: store, to: LayoutDestination(directory: location))
        let layout = try LayoutSource(directory: location)
        #expect(layout.rootManifest().expected?.digest == source.digest && layout.rootManifest().expected?.artifactType == nil)
        #expect(try pullImage(from: layout, into: store.repository, PullOptions(name: "again")).isContainer)
    }

    @Test(arguments: ["application/vnd.docker.plugin.v1+json", "application/vnd.cncf.helm.config.v1+json", MediaType.ociEmpty])
    func configTypesOfSomethingElse(_ type: String) throws {
        #expect(try !pull(ArraySource([ArraySource.Layer(Self.blob)], configType: type)).isContainer)
    }

    @Test(arguments: [
        "application/vnd.dev.cosign.simplesigning.v1+json", "application/vnd.in-toto+json", "application/vnd.dsse.envelope.v1+json",
        "text/spdx+json", "application/vnd.cyclonedx+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "application/wasm",
    ])
    func layersThatAreNone(_ type: String) throws {
        let payload = Array(#"{"critical":{}}"#.utf8)
        let layer = ArraySource.Layer(blob: payload, diffID: .of(payload), mediaType: type)
        for configType in [MediaType.ociConfig, MediaType.dockerConfig, "application/octet-stream", nil] {
            let image = try pull(ArraySource([layer], configType: configType))
            #expect(!image.isContainer && image.layerIdentifiers == [.of(payload)])
        }
    }

    @Test func layerTypesThatSayNothing() throws {
        let layer = ArraySource.Layer(blob: Self.blob.bytes, diffID: Self.blob.diffID, mediaType: "application/octet-stream")
        #expect(try pull(ArraySource([layer])).isContainer)
        // A file that was attached with the config of an empty image, without a platform.
        let manifest = try Manifest(parsing: ArraySource([layer]).manifest)
        let empty = Array(#"{"os":"","architecture":"","rootfs":{"type":"layers","diff_ids":["\#(Self.blob.diffID)"]}}"#.utf8)
        #expect(try manifest.imageConfig(from: empty) == nil)
    }

    /// An invalid image config is refused and not stored as an artifact.
    @Test func brokenConfigs() throws {
        for type in ["application/octet-stream", nil, MediaType.ociConfig] {
            let source = ArraySource([ArraySource.Layer(Self.blob)], diffIDs: [], configType: type)
            #expect(refusal { _ = try pull(source) } == "the manifest has 1 layers, but the config has 0 diff IDs")
        }
        let manifest = try Manifest(parsing: ArraySource([ArraySource.Layer(Self.blob)], configType: "application/json").manifest)
        for (text, part) in [
            (#"{"rootfs":{"type":"layers","diff_ids":["x"]}}"#, "diff_ids[0]"), (#"{"rootfs":{"diff_ids":[1]}}"#, "is a number"),
        ] {
            #expect(refusal { _ = try manifest.imageConfig(from: Array(text.utf8)) }?.contains(part) == true)
        }
        for text in ["{}", "x", "", "[]", #"{"rootfs":{}}"#] { #expect(try manifest.imageConfig(from: Array(text.utf8)) == nil) }
    }

    /// A store that relies on media types has such an image as an artifact. It stays one until it is pulled again.
    @Test func storedAsAnArtifact() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        for layer in [ArraySource.Layer(Self.blob), .init(blob: Pack.gzip(Self.blob.bytes), diffID: Self.blob.diffID, mediaType: gzip)] {
            let source = ArraySource([layer], configType: "application/octet-stream")
            let digest = ContentDigest.of(layer.blob)
            let stream = try store.importBlob(
                ArrayBlob(layer.blob), Descriptor(mediaType: layer.mediaType, digest: digest, size: UInt64(layer.blob.count))
            ).stream
            var publication = Repository.Publication()
            publication.stream(StreamName.layer(digest), stream)
            try store.publish(
                manifest: try Manifest(parsing: source.manifest), digest: source.digest, config: source.config,
                layers: [(digest, stream)], images: [:], tag: "localhost/test:latest", publication)
            #expect(try store.faults().isEmpty)
            #expect(try !store.open("localhost/test:latest").image.isContainer)
            #expect(try pullImage(from: source, into: store.repository).isContainer)
            #expect(try store.open("localhost/test:latest").image.isContainer && store.faults().isEmpty)
            // Other readers find the layer by its blob's digest.
            let image = try #require(try store.image(source.digest))
            #expect(image.manifestReferences.contains { $0.name == digest.description && $0.id == image.layerStream(Self.blob.diffID) })
        }
    }

    private let gzip = "application/vnd.oci.image.layer.v1.tar+gzip"
}
