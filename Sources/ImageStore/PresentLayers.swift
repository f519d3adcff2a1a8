import ComposefsBytes
package import ComposefsHashing
import ComposefsRepository
import ComposefsSplitStream

/// What of an image is in the store already, and can be believed.
extension ImageStore {
    /// The stream of a layer, where its content is known to be the layer's: by its mark, or because it is hashed now.
    ///
    /// A layer that turns out to be damaged is nil, and then no object is believed any more without being read: one of them is not what its
    /// name says, and storing the layer again must put it right.
    package func presentLayer(_ diffID: ContentDigest) throws -> ObjectID? { try signed { try verifiedLayer(diffID) } }

    private func verifiedLayer(_ diffID: ContentDigest) throws -> ObjectID? {
        let name = StreamName.layer(diffID)
        if let staged = try repository.stagedStream(name), try LayerMark.isSet(diffID, on: staged, in: repository) { return staged }
        guard let stream = try repository.stream(name), try repository.objectSize(stream) != nil else { return nil }
        if try LayerMark.isSet(diffID, on: stream, in: repository) { return stream }
        // Written by a store that does not check diff IDs, or copied without its mark. Or an artifact's blob, which may have the same name.
        guard isStream(stream, StreamContentType.layer), (try? layerDigest(of: stream, diffID.algorithm)) == diffID else {
            repository.distrustObjects()
            return nil
        }
        try LayerMark.set(diffID, on: stream, in: repository)
        return stream
    }

    /// The stream of an artifact's blob, hashed now; nil as above.
    package func presentBlob(_ digest: ContentDigest) throws -> ObjectID? { try signed { try verifiedBlob(digest) } }

    /// Where the repository's handle signs: the stream and its objects, signed. Nil where they cannot be, so that they are stored again.
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

    private func verifiedBlob(_ digest: ContentDigest) throws -> ObjectID? {
        let name = StreamName.layer(digest)
        guard let stream = try repository.stagedStream(name) ?? repository.stream(name) else { return nil }
        guard isStream(stream, StreamContentType.blob), (try? blobDigest(of: stream, digest.algorithm)) == digest else {
            repository.distrustObjects()
            return nil
        }
        return stream
    }

    /// Whether a blob's name is the name of a container's layer, which then keeps it: whoever wants the blob has a reference to its stream.
    package func isLayerName(_ digest: ContentDigest) throws -> Bool {
        guard let stream = try repository.stream(StreamName.layer(digest)) else { return false }
        return isStream(stream, StreamContentType.layer)
    }

    /// Whether an object is a readable stream of a type.
    func isStream(_ id: ObjectID, _ type: UInt64) -> Bool {
        do {
            let reader = try repository.openStream(id, contentType: type)
            return reader.contentType == type
        } catch {
            return false
        }
    }
}
