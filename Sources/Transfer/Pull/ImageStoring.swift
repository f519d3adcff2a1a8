public import ComposefsBytes
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

extension ImageStore {
    /// Stores an image whose layers are in the repository, from `importLayer` or earlier pulls: its manifest and config, its EROFS images
    /// and its tag, in one durable step. `storeBlob` stores the blobs of an artifact.
    ///
    /// This is a pull that reads no source, so everything is verified as in a pull.
    ///
    /// - Parameters:
    ///   - manifest: the manifest's bytes, which are stored unchanged.
    ///   - config: the config's bytes, which are stored unchanged.
    ///   - name: the tag.
    /// - Throws: `PullError.layer` with the cause `ImageStoreError.noSuchLayer` if a layer is missing; else as `pullImage`.
    public func storeImage(manifest: [UInt8], config: [UInt8], as name: ByteString) throws -> PullResult {
        let source = StoredLayers(store: self, manifest: manifest, config: config, digest: try Manifest(parsing: manifest).config.digest)
        return try pullImage(from: source, into: repository, PullOptions(name: name))
    }
}

/// A source with the caller's documents and the store's blobs.
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
