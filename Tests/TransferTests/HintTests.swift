import ComposefsBytes
import ComposefsCompression
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// Hints in extended attributes and records decide nothing, and the check reports wrong ones.
@Suite struct HintTests {
    private let scratch: StoreScratch
    private let store: ImageStore
    private let alpha = LayerArchive.zeros("alpha", 1000)
    private let beta = LayerArchive.zeros("beta", 2000)

    init() throws {
        scratch = try StoreScratch()
        store = ImageStore(try scratch.create())
        let type = "application/vnd.oci.image.layer.v1.tar+gzip"
        let layers = [alpha, beta].map { ArraySource.Layer(blob: Pack.gzip($0.bytes), diffID: $0.diffID, mediaType: type) }
        _ = try pullImage(from: ArraySource(layers), into: store.repository)
    }

    private let name: ByteString = "localhost/test:latest"
    private func stream(_ archive: LayerArchive) throws -> ObjectID { try store.layerStream(archive.diffID) }

    private func object(_ archive: LayerArchive) throws -> FileDescriptor {
        try scratch.directory().open(at: scratch.objectPath(stream(archive)), .readOnly)
    }

    private func packingHint(_ archive: LayerArchive) throws -> (name: ByteString, value: String) {
        let found = try object(archive).extendedAttributes().first { $0.name.hasPrefix("user.cfsoci.packed.gzip-") }
        let hint = try #require(found)
        return (hint.name, try #require(hint.value.utf8Text))
    }

    /// Writes the image to the layout and returns the decompressed blobs of its layers.
    private func export() throws -> (layers: [[UInt8]], outcomes: [PushedLayer], digest: ContentDigest) {
        let layout = scratch.path + "/layout"
        let result = try pushImage(
            store.open(name).image, of: store, to: LayoutDestination(directory: ImageLocation(layout.description + ":x")))
        let source = try LayoutSource(directory: ImageLocation(layout.description + ":x"))
        let manifest = try Manifest(parsing: source.rootManifest().bytes)
        let layers = try manifest.layers.map { layer in
            let packed = try source.readBlob(layer, limit: 1 << 20)
            var decompressor = Decompressor(.gzip)
            var plain = [UInt8](repeating: 0, count: 1 << 16)
            let count = try packed.withUnsafeBytes { bytes in
                var rest = bytes
                var filled = 0
                while true {
                    let count = try plain.withUnsafeMutableBytes {
                        try decompressor.decompress(&rest, into: UnsafeMutableRawBufferPointer(rebasing: $0[filled...]))
                    }
                    if count == 0 { return filled }
                    filled += count
                }
            }
            return Array(plain[..<count])
        }
        return (layers, result.layers.map(\.outcome), result.manifestDigest)
    }

    /// The hint of one layer names the blob of another, which the layout has. Trusting it would give a valid manifest with the wrong blob.
    @Test func packingHintsAreNotTrusted() throws {
        let first = try export()
        #expect(first.layers == [alpha.bytes, beta.bytes] && first.outcomes == [.sent, .sent])
        let second = try export()
        #expect(second.outcomes == [.present, .present] && second.digest == first.digest)
        let (attribute, good) = try packingHint(alpha)
        let other = try packingHint(beta).value.split(separator: " ")
        let forged = good.split(separator: " ").prefix(3) + other.suffix(2)
        #expect(try store.checkPackingHints().isEmpty)
        try object(alpha).setExtendedAttribute(attribute, ByteString(forged.joined(separator: " ")))
        let problems = try store.checkPackingHints()
        #expect(problems.count == 1 && problems.first?.kind == "packing-mark-mismatch")
        #expect(problems.first?.image == StreamName.layer(alpha.diffID))
        #expect(try store.checkPackingHints(name).count == 1)
        // Reading does not show the fault, but compressing does.
        #expect(try store.checkPackingHints(nil, ImageCheckOptions(metadataOnly: true)).isEmpty)
        let third = try export()
        #expect(third.layers == [alpha.bytes, beta.bytes] && third.digest == first.digest)
        #expect(try store.checkPackingHints().isEmpty)
    }

    @Test(arguments: ["", "1", "2 zlib a b 5", "1 zlib-1 sha256:x sha256:y 5", "\u{1b}[2J"])
    func packingHintsThatCannotBeRead(_ value: String) throws {
        _ = try export()
        try object(alpha).setExtendedAttribute(packingHint(alpha).name, ByteString(value))
        #expect(try store.checkPackingHints().first?.detail.hasSuffix("cannot be read") == true)
        #expect(try export().layers == [alpha.bytes, beta.bytes])
    }

    @Test func packingHintsOfOtherLayers() throws {
        _ = try export()
        try object(alpha).setExtendedAttribute(packingHint(alpha).name, ByteString(packingHint(beta).value))
        #expect(try store.checkPackingHints(nil, ImageCheckOptions(metadataOnly: true)).first?.detail.contains("\(beta.diffID)") == true)
    }

    @Test func diffIDHints() throws {
        #expect(try store.faults().isEmpty)
        try object(alpha).setExtendedAttribute(LayerHint.attribute, ByteString(beta.diffID.description))
        let fault =
            "fsck: layer-mark-mismatch: localhost/test:latest: \(alpha.diffID): user.cfsoci.diff-id of object \(try stream(alpha)) says "
        #expect(try store.faults() == [fault + "\(beta.diffID)"])
        #expect(try store.faults(metadataOnly: true).count == 1)
        // The same archive under a digest of another algorithm is not a fault.
        try object(alpha).setExtendedAttribute(LayerHint.attribute, ByteString(ContentDigest.of(alpha.bytes, .sha512).description))
        #expect(try store.faults().isEmpty)
        try object(alpha).setExtendedAttribute(LayerHint.attribute, ByteString(ContentDigest.of(beta.bytes, .sha512).description))
        #expect(try store.faults().count == 1)
    }

    /// The check also covers layers without an image, because the next pull would use them.
    @Test func hintsOfLayersWithoutAnImage() throws {
        let gamma = LayerArchive.zeros("gamma", 3000)
        let good = try store.importLayer(gamma.diffID, from: ArrayBlob(gamma.bytes))
        #expect(try store.faults().isEmpty)
        let delta = LayerArchive.zeros("delta", 4000)
        try scratch.replaceLink("streams/" + StreamName.layer(delta.diffID), "../objects/" + ByteString(good.objectPath))
        try scratch.directory().open(at: scratch.objectPath(good), .readOnly).setExtendedAttribute(
            LayerHint.attribute, ByteString(delta.diffID.description))
        let faults = try store.faults()
        #expect(faults.contains { $0.hasPrefix("fsck: layer-digest-mismatch: oci-layer-\(delta.diffID): ") })
        #expect(faults.contains { $0.hasPrefix("fsck: layer-mark-mismatch: oci-layer-\(gamma.diffID): ") })
    }

    // MARK: Referrers

    @Test func referrers() throws {
        let subject = try store.open(name).image.manifestDigest
        let artifact = ArraySource(artifact: [Array("signature".utf8)])
        _ = try pullImage(from: artifact, into: store.repository)
        try store.addReferrer(artifact.digest, to: subject)
        try store.untag("localhost/artifact:latest")
        let report = try store.check()
        #expect(report.isClean && report.imagesChecked == 1 && report.referrersChecked == 1)
        #expect(try store.check(name).referrersChecked == 1)

        let image = try #require(try store.image(artifact.digest))
        let record = "oci-referrers/\(subject)/\(artifact.digest)"
        let blob = try #require(image.layerStream(.of(Array("signature".utf8))))
        func damage(_ path: ByteString, _ target: ByteString?, _ kind: String) throws {
            let good = try scratch.directory().readLink(at: path)
            if let target { try scratch.replaceLink(path, target) } else { try scratch.directory().unlink(at: path) }
            let report = try store.check()
            #expect(
                report.problems.map(\.kind) == [kind] && report.referrersDamaged == 1 && report.imagesDamaged == 0, "\(report.problems)")
            #expect(try store.check(name).problems.map(\.kind) == [kind])
            try scratch.replaceLink(path, good)
            #expect(try store.check().isClean)
        }
        let manifest = "streams/" + StreamName.manifest(artifact.digest)
        try damage(manifest, nil, "manifest-read-failed")
        try damage("streams/" + StreamName.config(image.configDigest), nil, "stream-mismatch")
        try damage("streams/" + StreamName.layer(.of(Array("signature".utf8))), nil, "layer-stream-missing")
        try damage("streams/refs/" + ByteString(record), ByteString("../../../oci-manifest-\(subject)"), "referrer-mismatch")
        try scratch.replaceLink("streams/refs/oci-referrers/x", ByteString("../../oci-manifest-\(subject)"))
        #expect(try store.check().problems.map(\.kind) == ["referrer-name"])
        try scratch.directory().unlink(at: "streams/refs/oci-referrers/x")
        try scratch.removeObject(blob)
        #expect(try store.check().problems.map(\.kind) == ["layer-object-missing"])
        #expect(try store.check().problems.first?.image == ByteString(record))
    }
}

/// Images in Docker's format, in a layout.
@Suite struct LayoutFormatTests {
    @Test func dockerImagesBecomeOCI() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archives = [LayerArchive.zeros("a", 100), LayerArchive.zeros("b", 200), LayerArchive.zeros("c", 300)]
        let types = ["diff.tar.gzip", "foreign.diff.tar.gzip", "diff.tar"].map { "application/vnd.docker.image.rootfs." + $0 }
        let config = Array(
            #"{"os":"linux","architecture":"amd64","container":"x","rootfs":{"type":"layers","diff_ids":[\#(archives.map { "\"\($0.diffID)\"" }.joined(separator: ","))]}}"#
                .utf8)
        let blobs = zip(archives, types).map { $1.hasSuffix("gzip") ? Pack.gzip($0.bytes) : $0.bytes }
        func descriptor(_ bytes: [UInt8], _ type: String) -> String {
            #"{"mediaType":"\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)}"#
        }
        let manifest = Array(
            """
            {"schemaVersion":2,"mediaType":"\(MediaType.dockerManifest)","config":\(descriptor(config, "application/octet-stream")),\
            "layers":[\(zip(blobs, types).map(descriptor).joined(separator: ","))]}
            """.utf8)
        let files = MemoryBlobs([config] + blobs, manifest)
        var options = PullOptions(name: "docker:1")
        options.keepsBlobs = true
        _ = try pullImage(from: files, into: store.repository, options)

        let layout = scratch.path + "/layout"
        let result = try pushImage(
            store.open("docker:1").image, of: store, to: LayoutDestination(directory: ImageLocation(layout.description + ":x")))
        #expect(result.isConverted && !result.isUnchanged && result.configDigest == .of(config))
        let source = try LayoutSource(directory: ImageLocation(layout.description + ":x"))
        #expect(source.rootManifest().mediaType == MediaType.ociManifest && source.rootManifest().expected?.artifactType == nil)
        let read = try Manifest(parsing: source.rootManifest().bytes)
        #expect(read.mediaType == MediaType.ociManifest && read.config.mediaType == MediaType.ociConfig)
        // Blobs are unchanged.
        #expect(read.config.digest == .of(config) && read.layers.map(\.digest) == blobs.map { .of($0) })
        #expect(
            read.layers.map(\.mediaType) == [
                "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                "application/vnd.oci.image.layer.v1.tar",
            ])
        #expect(ContentDigest.of(read.bytes) == result.manifestDigest)
        // Exporting again gives the same result, and it can be pulled.
        let again = try pushImage(
            store.open("docker:1").image, of: store, to: LayoutDestination(directory: ImageLocation(layout.description + ":x")))
        #expect(again.manifestDigest == result.manifestDigest)
        #expect(
            try pullImage(from: source, into: store.repository, PullOptions(name: "oci:1")).imageID
                == store.open("docker:1").image.imageID(.v1))
    }
}

/// Documents and blobs in memory.
private final class MemoryBlobs: ImageSource {
    let blobs: [ContentDigest: [UInt8]]
    let manifest: [UInt8]
    let canonicalName = "localhost/memory:latest"

    init(_ blobs: [[UInt8]], _ manifest: [UInt8]) {
        self.blobs = Dictionary(blobs.map { (ContentDigest.of($0), $0) }) { first, _ in first }
        self.manifest = manifest
    }

    func rootManifest() -> SourceManifest { SourceManifest(bytes: manifest) }
    func manifest(_ descriptor: Descriptor) throws -> [UInt8] { throw ArraySource.NoBlob(digest: descriptor.digest) }
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        guard let bytes = blobs[descriptor.digest] else { throw ArraySource.NoBlob(digest: descriptor.digest) }
        return ArrayBlob(bytes)
    }
}
