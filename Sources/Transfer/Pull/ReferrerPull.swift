import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

extension ImagePull {
    /// The most referrers that are stored with one image.
    static let referrerLimit = 128

    /// Stores the artifacts that refer to a stored image, the artifacts that refer to those, and so on. Each is published together with its
    /// record as a referrer, and is kept as long as its subject. They cause no progress events.
    ///
    /// Signatures of images for several platforms refer to the index. They are recorded as referrers of the image, which the store may have without
    /// the index; their documents do not change.
    ///
    /// Listed referrers that the source does not provide are left out and reported in the result. The image is complete without them.
    func pullReferrers(of resolved: ResolvedManifest, _ result: inout PullResult) throws {
        let image = resolved.digest
        // The subject of referrers, and the manifest for which they are recorded.
        var pending = [(subject: image, owner: image)]
        if let index = resolved.index, index != image { pending.append((index, image)) }
        try pullReferrers(pending, image, &result.referrerOutcomes)
    }

    /// Stores the artifacts that refer to an index, as its own referrers. Those that cannot be stored are reported with its images.
    func pullReferrers(ofIndex index: ContentDigest) throws {
        var outcomes = ReferrerOutcomes()
        try pullReferrers([(index, index)], index, &outcomes)
    }

    private func pullReferrers(
        _ subjects: [(subject: ContentDigest, owner: ContentDigest)], _ image: ContentDigest, _ result: inout ReferrerOutcomes
    ) throws {
        var pending = subjects
        // The lists may be circular.
        var seen = Set(pending.map(\.subject))
        let limit = Self.referrerLimit + seen.count
        while let (subject, owner) = pending.popLast() {
            let listed = try orProblem(subject, nil, &result) { try source.referrers(of: subject, artifactType: nil) } ?? []
            for descriptor in listed where seen.insert(descriptor.digest).inserted {
                guard seen.count <= limit else { throw PullError.tooManyReferrers(image, limit: Self.referrerLimit) }
                try options.cancellation.check()
                let outcome = try orProblem(subject, descriptor.digest, &result) { try pullReferrer(descriptor, of: subject, for: owner) }
                switch outcome {
                case .stored:
                    result.stored.append(descriptor.digest)
                    pending.append((descriptor.digest, descriptor.digest))
                case .unknown: result.leftOut.append(descriptor.digest)
                case .other: seen.remove(descriptor.digest)
                case nil: break
                }
            }
        }
    }

    /// Returns what `body` returns. If the source does not provide it, adds a problem to the result and returns nil.
    private func orProblem<Value>(
        _ subject: ContentDigest, _ digest: ContentDigest?, _ result: inout ReferrerOutcomes, _ body: () throws -> Value
    ) throws -> Value? {
        do { return try body() } catch let error as any TransportError where error.concernsOneItem {
            // Cancellation is not a problem of the referrer.
            try options.cancellation.check()
            result.unavailable.append(ReferrerProblem(subject: subject, digest: digest, reason: "\(error)"))
            return nil
        }
    }

    private enum Referrer {
        case stored
        /// It is of a kind that the store does not support.
        case unknown
        /// It does not refer to this subject.
        case other
    }

    private func pullReferrer(
        _ descriptor: Descriptor, of subject: ContentDigest, for owner: ContentDigest
    ) throws -> Referrer {
        let digest = descriptor.digest
        // A referrer of which something is missing or damaged is stored again.
        if let known = try? store.image(digest), try store.isWhole(known),
            try store.usableStream(StreamName.config(known.configDigest)) != nil
        {
            guard known.manifest.subject?.digest == subject else { return .other }
            if try !store.referrers(of: owner).contains(digest) { try store.addReferrer(digest, to: owner) }
            return .stored
        }
        try checkSize(descriptor.size, "referrer \(digest)", options.limits)
        let bytes = try descriptor.data ?? source.manifest(descriptor)
        guard UInt64(bytes.count) == descriptor.size, ContentDigest.of(bytes, digest.algorithm) == digest else {
            throw PullError.blobDigest(digest)
        }
        let manifest: Manifest
        do throws(OCIError) {
            guard case .manifest(let parsed) = try ManifestDocument(parsing: bytes, mediaType: descriptor.mediaType) else {
                return .unknown
            }
            manifest = parsed
        } catch {
            return .unknown
        }
        guard manifest.subject?.digest == subject else { return .other }
        return try repository.storeAsOne {
            let config = try readConfig(manifest.config)
            defer { repository.dropBlob(ByteString(manifest.config.digest.description)) }
            // Images with a root file system are not stored as referrers.
            guard try manifest.imageConfig(from: config) == nil else { return .unknown }
            var publication = Repository.Publication()
            ImageStore.record(digest, of: owner, in: &publication)
            _ = try storeArtifact(manifest, digest, config, tag: nil, publication, PullReporter(nil))
            return .stored
        }
    }
}
