package import ComposefsBytes
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream

/// What is checked before a stored stream is used for a layer or blob.
package enum ReuseCheck: Sendable {
    /// Its object and all objects that it refers to match their names, and its recorded diff ID shows that it was re-assembled once.
    case objects
    /// It is also re-assembled now, even if a diff ID is recorded.
    case content
}

/// The layers and blobs of an image that are in the store already and verified.
extension ImageStore {
    /// The stream of a layer if its content is known to be the layer: by its recorded diff ID and its objects, or because it is
    /// re-assembled now.
    ///
    /// Every object that it refers to is verified, so that damage does not become part of another image. Nil if one is missing or damaged:
    /// storing the layer again replaces it.
    package func presentLayer(_ diffID: ContentDigest, _ check: ReuseCheck = .objects) throws -> ObjectID? {
        try signed { try present(StreamName.layer(diffID), diffID, StreamContentType.layer, check, hasHint: true) }
    }

    /// The stream of an artifact's blob; nil as above.
    package func presentBlob(_ digest: ContentDigest) throws -> ObjectID? {
        try signed { try present(StreamName.layer(digest), digest, StreamContentType.blob, .content, hasHint: false) }
    }

    /// The stream of a kept blob; nil as above.
    package func presentKeptBlob(_ digest: ContentDigest, _ check: ReuseCheck = .objects) throws -> ObjectID? {
        try present(StreamName.blob(digest), digest, StreamContentType.blob, check, hasHint: true)
    }

    private func present(
        _ name: ByteString, _ digest: ContentDigest, _ type: UInt64, _ check: ReuseCheck, hasHint: Bool
    ) throws -> ObjectID? {
        for stream in [try repository.stagedStream(name), try usableStream(name)] {
            guard let stream, try isWhole(stream, type, reads: check == .content) else { continue }
            if check == .objects, hasHint, try LayerHint.isSet(digest, on: stream, in: repository) { return stream }
            // Without a recorded diff ID it was written by a store that does not check it, or copied. Or a layer and a blob have the same
            // name.
            if (try? layerDigest(of: stream, digest.algorithm)) == digest {
                // A hint that is here already keeps its time: it is older than the link, which tells a check where it is from.
                if hasHint, try !LayerHint.isSet(digest, on: stream, in: repository) {
                    try LayerHint.set(digest, on: stream, in: repository)
                }
                return stream
            }
            // Damage that the kernel detects is found by reading only.
            if repository.isSecure { repository.distrustObjects() }
        }
        return nil
    }

    /// If the repository's handle signs: the stream and its objects, signed. Nil if they cannot be signed, so that they are stored again.
    private func signed(_ find: () throws -> ObjectID?) throws -> ObjectID? {
        guard repository.signsObjects else { return try find() }
        do {
            guard let stream = try find() else { return nil }
            try repository.signObjects(Set(try repository.openStream(stream).objectReferences + [stream]))
            return stream
        } catch let error as RepositoryError {
            switch error {
            case .signature, .objectMissing, .objectDamaged: return nil
            default: throw error
            }
        }
    }

    /// Whether an object is a stream of a content type, and it and all objects that it refers to match their names.
    ///
    /// - Parameter reads: see `Repository.faulty`.
    package func isWhole(_ stream: ObjectID, _ type: UInt64, reads: Bool = false) throws -> Bool {
        guard let objects = try objects(ofStream: stream, type) else { return false }
        return try repository.faulty(objects.contents, reads: reads).isEmpty && repository.faulty(objects.named, reads: reads).isEmpty
    }

    /// The objects that a stream refers to, with its content and by name; nil if it cannot be read or has another content type.
    package func objects(ofStream stream: ObjectID, _ type: UInt64) throws -> (contents: ObjectIDList, named: [ObjectID])? {
        do {
            let reader = try repository.openStream(stream, contentType: type)
            return (reader.objectReferences, Set(reader.namedReferences.map(\.id)).sorted())
        } catch {
            if case .system(let error) = error, error.errno != .inputOutput, error.errno != .badMessage { throw error }
            return nil
        }
    }

    /// The object that a stream's link leads to; nil if there is no link, or one that does not lead to an object: it is replaced when the
    /// stream is published.
    package func usableStream(_ name: ByteString) throws -> ObjectID? {
        do throws(RepositoryError) {
            return try repository.stream(name)
        } catch {
            guard case .invalidLink = error else { throw error }
            return nil
        }
    }

    /// Whether a blob has the name of a container's layer, which then keeps it: users of the blob have a reference to its stream.
    package func isLayerName(_ digest: ContentDigest) throws -> Bool {
        guard let stream = try usableStream(StreamName.layer(digest)) else { return false }
        return isStream(stream, StreamContentType.layer)
    }

    /// The path of the first object of a stream, or of the stream's own, that is missing or is not what its name says; nil if there is none.
    package func damagedObject(of stream: ObjectID) throws -> ByteString? {
        guard try repository.isIntact(stream) else { return "objects/" + ByteString(stream.objectPath) }
        return try repository.faulty(repository.openStream(stream).objectReferences).first.map { "objects/" + ByteString($0.objectPath) }
    }

    /// Whether an object is a readable stream of a content type.
    func isStream(_ id: ObjectID, _ type: UInt64) -> Bool {
        do {
            let reader = try repository.openStream(id, contentType: type)
            return reader.contentType == type
        } catch {
            return false
        }
    }

    // MARK: Images

    /// Whether an image is in the store as it was stored: its documents, its layers' objects, its EROFS images, and the links of all of them. A power
    /// cut may lose a link and keep others that were made after it.
    ///
    /// Documents, streams and EROFS images are read; of other objects only those whose files have changed since their layer was verified.
    package func isWhole(_ image: StoredImage) throws -> Bool {
        for layer in Set(image.layerIdentifiers) {
            guard let stream = image.layerStream(layer), try isLinked(stream, layer, image),
                try isUnchanged(stream, layer, isLayer: image.isContainer)
            else { return false }
        }
        guard try usableStream(StreamName.config(image.configDigest)) != nil else { return false }
        for blob in image.keptBlobs {
            guard try usableStream(StreamName.blob(blob.digest)) == blob.stream, try isUnchanged(blob.stream, blob.digest, isLayer: false)
            else { return false }
        }
        guard image.isContainer else { return true }
        guard image.imageID(repository.erofsFormats.default) != nil else { return false }
        for id in Set(image.allImageIDs) where try !hasIntactImage(id) { return false }
        return true
    }

    /// Whether the link of a layer leads to the stream to which the image refers. A blob of an artifact may have the name of a container's layer.
    private func isLinked(_ stream: ObjectID, _ layer: ContentDigest, _ image: StoredImage) throws -> Bool {
        let linked = try usableStream(StreamName.layer(layer))
        return try linked == stream || linked != nil && !image.isContainer && isLayerName(layer)
    }

    private func isUnchanged(_ stream: ObjectID, _ digest: ContentDigest, isLayer: Bool) throws -> Bool {
        guard try repository.isIntact(stream), let verified = try repository.changeTime(of: stream),
            let objects = try objects(ofStream: stream, isLayer ? StreamContentType.layer : StreamContentType.blob)
        else { return false }
        if try LayerHint.isSet(digest, on: stream, in: repository) {
            let changed =
                try repository.changed(objects.contents, since: verified) + repository.changed(objects.named, since: verified)
            if changed.isEmpty { return true }
            guard try repository.faulty(changed).isEmpty else { return false }
        } else {
            guard try repository.faulty(objects.contents).isEmpty, try repository.faulty(objects.named).isEmpty,
                (try? layerDigest(of: stream, digest.algorithm)) == digest
            else { return false }
        }
        // The next check need not read anything: the record is newer than the objects.
        if !repository.isReadOnly { try LayerHint.set(digest, on: stream, in: repository) }
        return true
    }

    /// Whether an image's link leads to its object, and the object matches its name.
    package func hasIntactImage(_ id: ObjectID) throws -> Bool {
        do throws(RepositoryError) {
            guard try repository.hasImage(id) else { return false }
            return try repository.isIntact(id)
        } catch {
            switch error {
            case .invalidLink, .objectDamaged: return false
            default: throw error
            }
        }
    }
}
