// ImageStore: OCI images in a repository, wherever they came from.
//
// - Documents: manifests and configs (`StoredImage`), tags, referrers, and the names of images that were made from directories.
// - Layers: split streams that re-assemble to the original archive, kept blobs, sparse files.
// - Merge: layers and their whiteouts become one tree, within limits; the tree becomes an EROFS image.
// - `check` finds damage in all of these, and `upgrade` makes missing EROFS images.

package import ComposefsBytes
package import ComposefsEROFS
package import ComposefsFileTree
public import ComposefsHashing
import ComposefsLinuxSystem
package import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSplitStream

/// OCI images in a repository: manifests, configs, layers, tags, referrers.
///
/// Synchronous; several threads may use it at once. Besides `ImageStoreError` it throws `RepositoryError` if the repository is damaged or
/// refuses, and `OCIError` if a stored document is not that of an image.
public struct ImageStore: Sendable {
    /// The repository that holds the images.
    public let repository: Repository

    /// A store for the images of an open repository.
    public init(_ repository: Repository) { self.repository = repository }

    // MARK: Writing

    /// Stores config and manifest streams and publishes them with the content of `publication` and the tag, in one durable step.
    ///
    /// - Parameter source: the source of the image, for a repair: see `SourceHint`.
    ///
    /// Everything that the streams refer to must be in the repository and verified. The order of references is fixed (config, then layers
    /// as the config lists them, then images), so the same image always results in the same objects.
    ///
    /// - Returns: the objects of the two streams.
    @discardableResult
    package func publish(
        manifest: Manifest, digest: ContentDigest, config: [UInt8], layers: [(identifier: ContentDigest, stream: ObjectID)],
        images: [ErofsVersion: ObjectID], boot: [(key: String, id: ObjectID)] = [],
        keptBlobs: [(digest: ContentDigest, stream: ObjectID)] = [], tag: ByteString?, source: ByteString? = nil,
        _ publication: Repository.Publication = Repository.Publication()
    ) throws -> (manifestStream: ObjectID, configStream: ObjectID) {
        var publication = publication
        let streams = try store(
            manifest: manifest, digest: digest, config: config, layers: layers, images: images, boot: boot, keptBlobs: keptBlobs, tag: tag,
            source: source, &publication)
        try repository.publish(publication)
        return streams
    }

    /// As above without the last step: the streams are stored, and their names and the tag are added to `publication`. Blobs that the image
    /// keeps already stay.
    package func store(
        manifest: Manifest, digest: ContentDigest, config: [UInt8], layers: [(identifier: ContentDigest, stream: ObjectID)],
        images: [ErofsVersion: ObjectID], boot: [(key: String, id: ObjectID)] = [],
        keptBlobs: [(digest: ContentDigest, stream: ObjectID)] = [], tag: ByteString?, source: ByteString? = nil,
        _ publication: inout Repository.Publication
    ) throws -> (manifestStream: ObjectID, configStream: ObjectID) {
        var configStream = try repository.makeStreamBuilder(contentType: StreamContentType.config)
        for layer in layers { configStream.addNamedReference(layer.identifier.description, layer.stream) }
        if let id = images[.v2] { configStream.addNamedReference(ReferenceKey.image, id) }
        // One reference serves V0 and V1: that of the default format if it is one of them.
        let first = repository.erofsFormats.default == .v0 ? images[.v0] : images[.v1] ?? images[.v0]
        if let id = first ?? images[.v1] { configStream.addNamedReference(ReferenceKey.imageV1, id) }
        for (key, id) in boot.sorted(by: { $0.key < $1.key }) { configStream.addNamedReference(key, id) }
        try addContent(config, to: &configStream)
        let configID = try configStream.finish().id

        var manifestStream = try repository.makeStreamBuilder(contentType: StreamContentType.manifest)
        manifestStream.addNamedReference(ReferenceKey.config(manifest.config.digest), configID)
        for layer in layers { manifestStream.addNamedReference(layer.identifier.description, layer.stream) }
        // Other stores decide by the config's media type and store such an image as an artifact, whose layers are found by their blobs'
        // digests.
        if !MediaType.isImageConfig(manifest.config.mediaType), layers.count == manifest.layers.count {
            for (blob, layer) in zip(manifest.layers, layers) where !layers.contains(where: { $0.identifier == blob.digest }) {
                manifestStream.addNamedReference(blob.digest.description, layer.stream)
            }
        }
        for blob in try self.keptBlobs(of: manifest, digest, adding: keptBlobs) {
            manifestStream.addNamedReference(ReferenceKey.blob(blob.digest), blob.stream)
            publication.stream(StreamName.blob(blob.digest), blob.stream)
        }
        try addContent(manifest.bytes, to: &manifestStream)
        let manifestID = try manifestStream.finish().id

        if let source { for stream in [configID, manifestID] { try SourceHint.set(source, on: stream, in: repository) } }
        publication.stream(StreamName.config(manifest.config.digest), configID)
        publication.stream(StreamName.manifest(digest), manifestID)
        try renewIndexes(listing: digest, manifestID, &publication)
        if let tag { publication.streamReference(ImageTag.referencePath(tag), to: StreamName.manifest(digest)) }
        return (manifestID, configID)
    }

    /// The content as one object, whatever its size.
    func addContent(_ bytes: [UInt8], to stream: inout StreamBuilder) throws {
        let stored = try bytes.withUnsafeBytes { try repository.storeObject($0) }
        try stream.external(stored.id, size: stored.size)
    }

    /// Stores the EROFS images of a tree in all formats of the repository, and adds them to `publication`.
    package func storeImages(of tree: FileTree, _ publication: inout Repository.Publication) throws -> [ErofsVersion: ObjectID] {
        var images: [ErofsVersion: ObjectID] = [:]
        for version in repository.erofsFormats.all {
            let id = try storeImage(of: tree, version)
            images[version] = id
            publication.image(id)
        }
        return images
    }

    /// Stores a tree's EROFS image, which is not published.
    package func storeImage(of tree: FileTree, _ version: ErofsVersion) throws -> ObjectID {
        try storeImage(try ErofsPlan(tree, version: version))
    }

    package func storeImage(_ plan: ErofsPlan) throws -> ObjectID {
        var writer = try repository.makeObjectWriter()
        try plan.write { (bytes) throws(RepositoryError) in try writer.append(bytes) }
        return try writer.finish().id
    }

    // MARK: Reading

    /// A stream that holds one document: its references, and the document's bytes, verified against its digest.
    package struct Document {
        var id: ObjectID
        var bytes: [UInt8]
        var references: [NamedReference]
    }

    package func document(_ name: ByteString, _ digest: ContentDigest, type: UInt64, limit: Int) throws -> Document? {
        guard let id = try repository.stream(name) else { return nil }
        return try document(name, id, digest, type: type, limit: limit)
    }

    package func document(_ name: ByteString, _ id: ObjectID, _ digest: ContentDigest, type: UInt64, limit: Int) throws -> Document {
        var stream = try repository.openStream(id, contentType: type)
        let references = stream.namedReferences
        guard let content = try onlyObject(&stream) else {
            throw ImageStoreError.damaged(stream: name, .notOneObject)
        }
        let bytes = try repository.readObject(content, limit: limit)
        let actual = ContentDigest.of(bytes, digest.algorithm)
        guard actual == digest else { throw ImageStoreError.damaged(stream: name, .digest(actual)) }
        return Document(id: id, bytes: bytes, references: references)
    }

    /// The bytes of a config, if the store has it complete.
    package func storedConfig(_ digest: ContentDigest) -> [UInt8]? {
        let name = StreamName.config(digest)
        return (try? document(name, digest, type: StreamContentType.config, limit: ImageLimits.configBytes))?.bytes
    }

    /// Whether the repository has a manifest. Whether it has the config and layers is not checked.
    public func contains(_ manifestDigest: ContentDigest) throws -> Bool {
        try repository.stream(StreamName.manifest(manifestDigest)) != nil
    }

    /// An image by its manifest's digest; nil if the repository has none.
    ///
    /// Manifest and config are compared with their digests; layers are not read.
    ///
    /// - Throws: `ImageStoreError.damaged`, `RepositoryError`, `OCIError`.
    public func image(_ manifestDigest: ContentDigest) throws -> StoredImage? {
        let name = StreamName.manifest(manifestDigest)
        guard
            let document = try document(
                name, manifestDigest, type: StreamContentType.manifest, limit: ImageLimits.largestManifest)
        else { return nil }
        let manifest = try Manifest(parsing: document.bytes)
        let configDigest = manifest.config.digest
        let key = ReferenceKey.config(configDigest)
        guard let configID = document.references.first(where: { $0.name == key })?.id else {
            throw ImageStoreError.damaged(stream: name, .missingReference(key))
        }
        let config = try self.document(
            StreamName.config(configDigest), configID, configDigest, type: StreamContentType.config, limit: ImageLimits.configBytes)
        return StoredImage(
            manifestDigest: manifestDigest, manifestStream: document.id, manifest: manifest, configDigest: configDigest,
            configStream: configID, configBytes: config.bytes,
            config: try isStoredAsArtifact(manifest, config.references) ? nil : manifest.imageConfig(from: config.bytes),
            references: config.references, manifestReferences: document.references)
    }

    /// Whether an image was stored as an artifact, by a store that decides by the media type of its config alone: its layers are then
    /// blobs, found by their digests, until it is pulled again.
    private func isStoredAsArtifact(_ manifest: Manifest, _ references: [NamedReference]) throws -> Bool {
        guard !MediaType.isImageConfig(manifest.config.mediaType), !manifest.layers.isEmpty,
            !references.contains(where: { $0.name.hasPrefix(ReferenceKey.image) })
        else { return false }
        return manifest.layers.allSatisfy { layer in
            guard let stream = references.first(where: { $0.name == layer.digest.description })?.id else { return false }
            return !isStream(stream, StreamContentType.layer)
        }
    }
}

/// The only object of a stream; nil if it holds anything else.
func onlyObject(_ stream: inout SplitStreamReader<OpenFile>) throws -> ObjectID? {
    guard case .external(let content)? = try stream.next() else { return nil }
    if try stream.next() != nil { return nil }
    return content
}
