public import ComposefsBytes
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

extension ImageStore {
    /// Stores an image whose layers are in the repository already, from `importLayer` or earlier pulls: its manifest and config as they
    /// are, its EROFS images, and its tag, in one durable step. An artifact's blobs may come from `storeBlob`.
    ///
    /// This is a pull with the documents at hand, and everything is verified as in one.
    ///
    /// - Throws: `ImageStoreError.noSuchLayer`, inside a `PullError.layer`, where a layer is missing; else as `pullImage`.
    public func storeImage(manifest: [UInt8], config: [UInt8], as name: ByteString) throws -> PullResult {
        let source = StoredLayers(store: self, manifest: manifest, config: config, digest: try Manifest(parsing: manifest).config.digest)
        return try pullImage(from: source, into: repository, PullOptions(name: name))
    }
}

/// Documents from the caller, blobs from the store.
private struct StoredLayers: ImageSource {
    let store: ImageStore
    let manifest: [UInt8]
    let config: [UInt8]
    let digest: ContentDigest

    var canonicalName: String { digest.description }

    func rootManifest() -> SourceManifest { SourceManifest(bytes: manifest) }

    func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        throw ImageStoreError.noSuchImage(ByteString(descriptor.digest.description))
    }

    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        if descriptor.digest == digest { return DataBlobReader(config) }
        guard let blob = try store.openBlob(descriptor.digest) else { throw ImageStoreError.noSuchLayer(descriptor.digest) }
        return FileBlobReader(ImageFile(try OpenFile(blob)))
    }
}
