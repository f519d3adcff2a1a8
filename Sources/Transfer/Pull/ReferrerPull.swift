import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

extension ImagePull {
    /// Artifacts that are stored with one image.
    private static let referrerLimit = 128

    /// Stores the artifacts that refer to an image in the store, those that refer to them, and so on. Each is recorded as a referrer in the same
    /// step in which it appears, and lives as long as its subject. Progress tells nothing of them.
    ///
    /// Signatures of images for several platforms refer to the index that the image was found in. The store has no place for that, so they
    /// are recorded as the image's own; their documents stay as they are.
    ///
    /// What is listed and cannot be had is left out, and told of: the image is whole without it.
    func pullReferrers(of resolved: ResolvedManifest, _ result: inout PullResult) throws {
        let image = resolved.digest
        // What they refer to, and for what they are recorded.
        var pending = [(subject: image, owner: image)]
        if let index = resolved.index, index != image { pending.append((index, image)) }
        // Whoever lists them may go in circles.
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
                    result.referrers.append(descriptor.digest)
                    pending.append((descriptor.digest, descriptor.digest))
                case .unknown: result.referrersLeftOut.append(descriptor.digest)
                case .other: seen.remove(descriptor.digest)
                case nil: break
                }
            }
        }
    }

    /// What `body` returns; nil, and a problem in the result, where the source does not have or give it.
    private func orProblem<Value>(
        _ subject: ContentDigest, _ digest: ContentDigest?, _ result: inout PullResult, _ body: () throws -> Value
    ) throws -> Value? {
        do { return try body() } catch let error as any PlaceError where error.concernsOneThing {
            // A caller that ends the pull wants no list of problems.
            try options.cancellation.check()
            result.referrersUnavailable.append(ReferrerProblem(subject: subject, digest: digest, reason: "\(error)"))
            return nil
        }
    }

    private enum Referrer {
        case stored
        /// Nothing that has a place in the store.
        case unknown
        /// It does not refer to this subject.
        case other
    }

    private func pullReferrer(
        _ descriptor: Descriptor, of subject: ContentDigest, for owner: ContentDigest
    ) throws -> Referrer {
        let digest = descriptor.digest
        if let known = try store.image(digest) {
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
            // A root file system would have to be merged and made an image of.
            guard try manifest.imageConfig(from: config) == nil else { return .unknown }
            var publication = Repository.Publication()
            ImageStore.record(digest, of: owner, in: &publication)
            _ = try storeArtifact(manifest, digest, config, tag: nil, publication, PullReporter(nil))
            return .stored
        }
    }
}
