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
            if isToBeRead(identifier) {
                let digest = try store.layerDigest(of: stream, identifier.algorithm)
                guard digest == identifier else { return ("layer-digest-mismatch", "\(identifier): the stream re-assembles to \(digest)") }
            }
            guard let hint = try LayerHint.text(on: stream, in: store.repository), hint != ByteString(identifier.description) else {
                return nil
            }
            // One stream serves the same archive under the names that different digest algorithms give it.
            if let other = hint.utf8Text.flatMap({ ContentDigest($0) }), other.algorithm != identifier.algorithm {
                if options.metadataOnly { return nil }
                if try store.layerDigest(of: stream, other.algorithm) == other { return nil }
            }
            return ("layer-mark-mismatch", "\(identifier): \(LayerHint.attribute) of object \(stream) says \(hint)")
        } catch {
            return ("layer-check-failed", "\(identifier): \(error)")
        }
    }

    /// The recorded diff ID proves nothing: the archive is re-assembled whatever it says.
    private func isToBeRead(_ identifier: ContentDigest) -> Bool {
        if options.metadataOnly { return false }
        guard let subset = options.subset else { return true }
        return identifier.bytes.withUnsafeBytes { subset.contains($0) }
    }
}
