import ComposefsBytes
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
    func pullReferrers(of image: ContentDigest, _ result: inout PullResult) throws {
        var pending = [image]
        // Whoever lists them may go in circles.
        var seen: Set<ContentDigest> = [image]
        while let subject = pending.popLast() {
            for descriptor in try source.referrers(of: subject, artifactType: nil) where seen.insert(descriptor.digest).inserted {
                guard seen.count <= Self.referrerLimit + 1 else {
                    throw PullError.tooManyReferrers(image, limit: Self.referrerLimit)
                }
                try source.checkCancellation()
                switch try pullReferrer(descriptor, of: subject) {
                case .stored:
                    result.referrers.append(descriptor.digest)
                    pending.append(descriptor.digest)
                case .unknown: result.referrersLeftOut.append(descriptor.digest)
                case .other: seen.remove(descriptor.digest)
                }
            }
        }
    }

    private enum Referrer {
        case stored
        /// Nothing that has a place in the store.
        case unknown
        /// It does not refer to this subject.
        case other
    }

    private func pullReferrer(_ descriptor: Descriptor, of subject: ContentDigest) throws -> Referrer {
        let digest = descriptor.digest
        if let known = try store.image(digest) {
            guard known.manifest.subject?.digest == subject else { return .other }
            if try !store.referrers(of: subject).contains(digest) { try store.addReferrer(digest, to: subject) }
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
        // A root file system would have to be merged and made an image of.
        guard !manifest.isImage else { return .unknown }
        try repository.storeAsOne {
            let config = try readConfig(manifest.config)
            var publication = Repository.Publication()
            ImageStore.record(digest, of: subject, in: &publication)
            _ = try storeArtifact(manifest, digest, config, tag: nil, publication, PullReporter(nil))
            repository.dropBlob(ByteString(manifest.config.digest.description))
        }
        return .stored
    }
}
