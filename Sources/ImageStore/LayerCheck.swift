import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream

/// The check of layers' and blobs' streams: each is read once, several at a time.
struct LayerCheck: Sendable {
    typealias Problem = (kind: String, detail: String)

    /// A stream, and the digest of what it gives back.
    struct Layer: Hashable, Sendable {
        var identifier: ContentDigest
        var stream: ObjectID
    }

    let store: ImageStore
    let options: ImageCheckOptions
    /// Objects that were read by the same check and are what their names say.
    let verified: Set<ObjectID>

    /// The problems of those that have one.
    func run(_ layers: [Layer]) -> [Layer: Problem] {
        let distinct = Array(Set(layers))
        let problems = parallelMap(distinct, threads: Host.processorCount, batch: 1) { self.examine($0.identifier, $0.stream) }
        var found: [Layer: Problem] = [:]
        for (layer, problem) in zip(distinct, problems) { found[layer] = problem }
        return found
    }

    func examine(_ identifier: ContentDigest, _ stream: ObjectID) -> Problem? {
        do {
            guard try store.repository.objectSize(stream) != nil else {
                return ("layer-object-missing", "\(identifier): object \(stream)")
            }
            if try isToBeRead(identifier, stream) {
                let digest = try store.layerDigest(of: stream, identifier.algorithm)
                guard digest == identifier else { return ("layer-digest-mismatch", "\(identifier): the stream re-assembles to \(digest)") }
            }
            guard let mark = try LayerMark.text(on: stream, in: store.repository), mark != ByteString(identifier.description) else {
                return nil
            }
            // One stream serves the same archive under the names that different digest algorithms give it.
            if let other = mark.utf8Text.flatMap({ ContentDigest($0) }), other.algorithm != identifier.algorithm {
                if options.metadataOnly { return nil }
                if try store.layerDigest(of: stream, other.algorithm) == other { return nil }
            }
            return ("layer-mark-mismatch", "\(identifier): \(LayerMark.attribute) of object \(stream) says \(mark)")
        } catch {
            return ("layer-check-failed", "\(identifier): \(error)")
        }
    }

    private func isToBeRead(_ identifier: ContentDigest, _ stream: ObjectID) throws -> Bool {
        if options.metadataOnly { return false }
        if let subset = options.subset, !identifier.bytes.withUnsafeBytes({ subset.contains($0) }) { return false }
        return try options.deep || !givesBack(identifier, stream)
    }

    /// Whether it is known without re-assembling the archive that the stream gives it back: it did when its mark was set, and its own object
    /// and all that it leads to have been found to be what their names say, so they are what they were then.
    ///
    /// A mark is believed only if the stream's object has not been touched since it was published: then the pull that verified the archive has
    /// set it.
    private func givesBack(_ identifier: ContentDigest, _ stream: ObjectID) throws -> Bool {
        guard verified.contains(stream), try LayerMark.isSet(identifier, on: stream, in: store.repository) else { return false }
        let names = [StreamName.layer(identifier), StreamName.blob(identifier)]
        guard let marked = try store.repository.changeTime(of: stream),
            try names.contains(where: { name in
                guard try store.usableStream(name) == stream, let published = try store.repository.changeTime(ofStream: name) else {
                    return false
                }
                return marked < published
            })
        else { return false }
        let reader = try store.repository.openStream(stream)
        return reader.objectReferences.allSatisfy(verified.contains)
    }
}
