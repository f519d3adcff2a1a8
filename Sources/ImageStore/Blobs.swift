package import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// Blobs: content that is stored unchanged, of artifacts or without an image.
extension ImageStore {
    /// Opens a blob of an artifact for reading, by its index among the manifest's layers, counted from 0. It is verified as other objects
    /// of the repository are.
    ///
    /// - Throws: `ImageStoreError.noSuchLayer` if the blob is not in the store, `.damaged` if it is a container's layer or not a blob's
    ///   stream.
    public func openBlob(_ index: Int, of image: StoredImage) throws -> FileDescriptor {
        guard image.manifest.layers.indices.contains(index) else {
            throw ImageStoreError.damaged(
                stream: StreamName.manifest(image.manifestDigest), .noLayer(index: index, count: image.manifest.layers.count))
        }
        let digest = image.manifest.layers[index].digest
        guard !image.isContainer, let stream = image.layerStream(digest) else { throw ImageStoreError.noSuchLayer(digest) }
        return try openBlob(stream: stream, StreamName.layer(digest))
    }

    /// Opens a blob that `storeBlob` stored; nil if there is none with this digest.
    public func openBlob(_ digest: ContentDigest) throws -> FileDescriptor? {
        guard let stream = try repository.stream(StreamName.blob(digest)) else { return nil }
        return try openBlob(stream: stream, StreamName.blob(digest))
    }

    /// Stores a blob that belongs to no image, durably, and returns its digest and its stream's object. An existing blob is not stored
    /// again.
    ///
    /// No reference keeps it: garbage collection removes it unless an image that contains it is stored (`storeImage`).
    public func storeBlob(
        _ content: UnsafeRawBufferPointer, _ algorithm: DigestAlgorithm = .sha256
    ) throws -> (digest: ContentDigest, stream: ObjectID) {
        var hasher = DigestHasher(algorithm)
        hasher.update(content)
        let digest = hasher.finalize()
        // An index is a blob, too, and its stream refers to its manifests.
        if let known = try usableStream(StreamName.blob(digest)), try isWhole(known, StreamContentType.blob),
            (try? layerDigest(of: known, algorithm)) == digest
        {
            return (digest, known)
        }
        let object = try repository.storeObject(content)
        var builder = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try builder.external(object.id, size: object.size)
        let stream = try builder.finish().id
        var publication = Repository.Publication()
        publication.stream(StreamName.blob(digest), stream)
        try repository.publish(publication)
        return (digest, stream)
    }

    package func openBlob(stream id: ObjectID, _ name: ByteString) throws -> FileDescriptor {
        var stream = try repository.openStream(id, contentType: StreamContentType.blob)
        guard let content = try onlyObject(&stream) else {
            throw ImageStoreError.damaged(stream: name, .notOneObject)
        }
        return try repository.openObject(content)
    }
}
