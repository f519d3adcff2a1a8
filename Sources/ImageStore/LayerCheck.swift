import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream

/// The check of the streams of layers and blobs. Each is read once, several at the same time.
struct LayerCheck: Sendable {
    typealias Problem = (kind: String, detail: String)

    /// A stream, and the expected digest of its content.
    struct Layer: Hashable, Sendable {
        var identifier: ContentDigest
        var stream: ObjectID
    }

    /// What was found out about a layer.
    struct Finding: Sendable {
        var problem: Problem?
        /// Whether the stream was re-assembled; nil if its content was not looked at.
        var isReassembled: Bool?
    }

    let store: ImageStore
    let options: ImageCheckOptions
    /// Objects that the same check has read, and that are what their names say.
    let verified: VerifiedObjects

    func run(_ layers: [Layer]) -> [Layer: Finding] {
        let distinct = Array(Set(layers))
        let findings = parallelMap(distinct, threads: Host.processorCount, batch: 1) { self.examine($0.identifier, $0.stream) }
        return Dictionary(zip(distinct, findings), uniquingKeysWith: { first, _ in first })
    }

    func examine(_ identifier: ContentDigest, _ stream: ObjectID) -> Finding {
        var finding = Finding()
        do {
            finding.problem = try problem(identifier, stream, &finding.isReassembled)
        } catch {
            finding.problem = ("layer-check-failed", "\(identifier): \(error)")
        }
        return finding
    }

    private func problem(_ identifier: ContentDigest, _ stream: ObjectID, _ isReassembled: inout Bool?) throws -> Problem? {
        guard try store.repository.objectSize(stream) != nil else {
            return ("layer-object-missing", "\(identifier): object \(stream)")
        }
        let hint = try LayerHint.text(on: stream, in: store.repository)
        if isInScope(identifier) {
            let isReread = try options.deep || !isProved(identifier, stream, hint)
            isReassembled = isReread
            if isReread {
                let digest = try store.layerDigest(of: stream, identifier.algorithm)
                guard digest == identifier else { return ("layer-digest-mismatch", "\(identifier): the stream re-assembles to \(digest)") }
            }
        }
        guard let hint, hint != ByteString(identifier.description) else { return nil }
        // One stream holds the same archive under names of different digest algorithms.
        if let other = hint.utf8Text.flatMap({ ContentDigest($0) }), other.algorithm != identifier.algorithm {
            if options.metadataOnly { return nil }
            if try store.layerDigest(of: stream, other.algorithm) == other { return nil }
        }
        return ("layer-mark-mismatch", "\(identifier): \(LayerHint.attribute) of object \(stream) says \(hint)")
    }

    private func isInScope(_ identifier: ContentDigest) -> Bool {
        if options.metadataOnly { return false }
        guard let subset = options.subset else { return true }
        return identifier.bytes.withUnsafeBytes { subset.contains($0) }
    }

    /// Whether the stream gives back the archive, as far as the hint is what the pull left that hashed the archive: the stream and all its objects
    /// have been found to be what their names say, so they are what they were then.
    ///
    /// A hint that names another digest proves nothing, and neither does one that was set, or copied, after the link was made.
    private func isProved(_ identifier: ContentDigest, _ stream: ObjectID, _ hint: ByteString?) throws -> Bool {
        guard verified.contains(stream), hint == ByteString(identifier.description),
            let marked = try store.repository.changeTime(of: stream)
        else { return false }
        let names = [StreamName.layer(identifier), StreamName.blob(identifier)]
        let isOlder = try names.contains { name in
            guard try store.usableStream(name) == stream, let linked = try store.repository.changeTime(ofStream: name) else { return false }
            return marked < linked
        }
        return try isOlder && store.repository.openStream(stream).objectReferences.allSatisfy(verified.contains)
    }
}

extension ImageReport {
    mutating func count(_ finding: LayerCheck.Finding) {
        switch finding.isReassembled {
        case true?: layersReassembled += 1
        case false?: layersByRecord += 1
        case nil: break
        }
    }
}
