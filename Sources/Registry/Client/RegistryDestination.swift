internal import ComposefsHTTPClient
public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsTransports
internal import Synchronization

/// A repository in a registry, as the destination of a push.
public final class RegistryDestination: ImageDestination {
    public let client: RegistryClient
    public let reference: RegistryReference
    private let repository: RemoteRepository
    /// Uploads that the registry has started instead of mounting a blob.
    private let begun = Mutex<[HTTPURL]>([])

    /// - Parameter reference: its tag becomes the manifest's name; its digest, if any, has to be the manifest's. Mirrors and rewriting of
    ///   the registries configuration do not apply; `blocked` and `insecure` do.
    public init(_ reference: RegistryReference, client: RegistryClient) throws(RegistryError) {
        self.reference = reference
        self.client = client
        var repository = try client.finder.configuration().pushTarget(for: reference)
        repository.isWritten = true
        self.repository = repository
        client.options.observe?(.endpoint(name: repository.fullName, isMirror: false, reference: reference.canonical))
    }

    /// The reference in full: `docker.io/library/alpine:latest`.
    public var displayName: String { reference.canonical }
    public var registryReference: RegistryReference? { reference }

    public func hasBlob(_ blob: Descriptor) throws -> Bool { try client.hasBlob(repository, blob.digest, size: blob.size) }

    public func mountBlob(_ blob: Descriptor, from source: RegistryReference) throws -> Bool {
        guard source.domain == reference.domain else { return false }
        var both = repository
        both.alsoRead = source.name
        do throws(RegistryError) {
            let upload = try client.retrying(both) { () throws(Failure) in try client.beginUpload(both, mounting: blob.digest) }
            guard let upload else { return true }
            begun.withLock { $0.append(upload) }
            return false
        } catch {
            // Without permission to read there, nothing is mounted, and some registries do not support mounts. The blob is sent instead.
            guard error.concernsOneItem else { throw error }
            return false
        }
    }

    public func putBlob(_ blob: OutgoingBlob) throws -> SentBlob {
        var upload = BlobUpload(client, repository, blob, location: begun.withLock { $0.popLast() })
        return try upload.run()
    }

    public func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        let entry = Descriptor(
            mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count), annotations: manifest.annotations,
            artifactType: manifest.artifactType ?? manifest.config.mediaType)
        try put(manifest.bytes, entry, subject: manifest.subject, isNamed: isNamed)
    }

    public func putIndex(_ index: ImageIndex, digest: ContentDigest, isNamed: Bool) throws {
        let entry = Descriptor(
            mediaType: index.mediaType, digest: digest, size: UInt64(index.bytes.count), annotations: index.annotations,
            artifactType: index.artifactType)
        try put(index.bytes, entry, subject: index.subject, isNamed: isNamed)
    }

    /// - Parameter entry: the document's entry in a list of referrers.
    private func put(_ bytes: [UInt8], _ entry: Descriptor, subject: Descriptor?, isNamed: Bool) throws {
        let name = isNamed ? reference.tag ?? entry.digest.description : entry.digest.description
        let knowsSubject = try client.putManifest(
            repository, reference: name, bytes, mediaType: entry.mediaType, digest: entry.digest)
        guard let subject, !knowsSubject else { return }
        try addToTaggedReferrers(entry, of: subject.digest)
    }

    public func finish() {}

    /// If the registry has no referrers API, clients keep an index under the tag of the referrers tag schema (distribution-spec, pushing
    /// manifests with subject). Two clients that update it at the same time may lose an entry; the specification has no better way.
    ///
    /// The artifact has been pushed in any case: a list that cannot be updated causes a warning, not an error.
    private func addToTaggedReferrers(_ entry: Descriptor, of subject: ContentDigest) throws {
        let tag = RegistryClient.referrersTag(subject)
        do throws(RegistryError) {
            guard let index = try client.taggedReferrers(repository, of: subject, adding: entry) else { return }
            _ = try client.putManifest(repository, reference: tag, index, mediaType: MediaType.ociIndex, digest: .of(index))
        } catch {
            guard error.concernsOneItem else { throw error }
            client.options.warn?(
                "\(entry.digest) was pushed, but its subject does not list it: cannot update the list of referrers "
                    + "\(repository.fullName):\(tag): \(error.description)")
        }
    }
}
