public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsTransports
internal import Synchronization

extension RegistryClient {
    /// The manifest or index that `reference` names: by its digest where it has one, else by its tag. Compared with that digest and with the one
    /// the registry announces.
    ///
    /// Asked for are, in the order of the registries configuration, the mirrors and then the registry; for a short name without an alias, those
    /// of all registries to search. The image's other parts are asked for where its manifest was found, and then further on.
    public func manifest(_ reference: RegistryReference) throws(RegistryError) -> SourceManifest { try locate(reference).manifest }

    /// The same, and what a short name turned out to be.
    public func locate(_ reference: RegistryReference) throws(RegistryError) -> (reference: RegistryReference, manifest: SourceManifest) {
        let found = try places.locate(reference) { reference, repository throws(RegistryError) in try manifest(reference, repository) }
        return (found.reference, found.value)
    }

    /// What a short name may mean, in the order that `manifest` tries, or does mean once that has found it; a reference that is complete is
    /// itself. Asks nobody.
    public func candidates(for reference: RegistryReference) throws(RegistryError) -> [RegistryReference] {
        try places.meanings(of: reference)
    }

    private func manifest(_ reference: RegistryReference, _ repository: RemoteRepository) throws(RegistryError) -> SourceManifest {
        let name = reference.digest?.description ?? reference.tag ?? "latest"
        let fetched = try fetchManifest(repository, reference: name, expected: reference.digest, limit: options.manifestLimit)
        // Servers that keep manifests as plain files know no better: then the document's own type decides.
        let type = fetched.mediaType.flatMap { MediaType.isOfDocuments($0) ? $0 : nil }
        if fetched.isWebPage {
            throw RegistryError(.webPage(.manifest("\(repository.fullName)\(reference.digest == nil ? ":" : "@")\(name)")))
        }
        var expected: Descriptor?
        if let digest = reference.digest {
            expected = Descriptor(mediaType: type ?? Self.ownType(fetched.bytes) ?? "", digest: digest, size: UInt64(fetched.bytes.count))
        }
        return SourceManifest(bytes: fetched.bytes, mediaType: type, expected: expected)
    }

    /// A manifest or index that an index of `reference`'s repository names. Compared with the descriptor's size and digest.
    public func manifest(_ descriptor: Descriptor, of reference: RegistryReference) throws(RegistryError) -> [UInt8] {
        let name = "\(reference.domain)/\(reference.name)@\(descriptor.digest)"
        guard let size = Int(exactly: descriptor.size), size <= options.manifestLimit else {
            throw RegistryError(.manifestTooLarge(name, size: descriptor.size, limit: options.manifestLimit))
        }
        let digest = descriptor.digest
        return try places.atEndpoints(of: reference) { repository throws(RegistryError) in
            let bytes = try fetchManifest(repository, reference: digest.description, expected: digest, limit: options.manifestLimit).bytes
            guard bytes.count == size else {
                throw RegistryError(.manifestSize(name, size: bytes.count, expected: size))
            }
            return bytes
        }
    }

    /// Begins the download of a config or layer, and waits for a registry that answers. The reader gives exactly as many bytes as the
    /// descriptor says, or fails; it does not check the digest. It keeps the client alive, and takes at most 1 MiB of memory for bytes that were
    /// not read yet.
    ///
    /// - Parameters:
    ///   - offset: bytes that the caller has already.
    ///   - observer: receives the attempts that failed and what was done then.
    public func openBlob(
        _ descriptor: Descriptor, of reference: RegistryReference, from offset: UInt64 = 0, observer: BlobObserver? = nil
    ) throws -> BlobDownload {
        let download = BlobDownload(descriptor, from: offset, session.cancellation, observer) {
            try RegistryBlobOrigins(self, reference, descriptor)
        }
        try download.connect()
        return download
    }

    /// Manifests in `reference`'s repository whose `subject` is `digest`, in the registry's order; only those of one artifact type where
    /// that is given.
    public func referrers(
        of digest: ContentDigest, in reference: RegistryReference, artifactType: String? = nil
    ) throws(RegistryError) -> [Descriptor] {
        // Mirrors often have images without what refers to them.
        let all = try places.atEndpoints(of: reference, isEnough: { !$0.isEmpty }) { repository throws(RegistryError) in
            try fetchReferrers(repository, of: digest)
        }
        guard let artifactType else { return all }
        return all.filter { $0.artifactType == artifactType }
    }

    /// What a document without a media type from the server calls itself; nil where it is no manifest, as its reader will find out.
    private static func ownType(_ bytes: [UInt8]) -> String? {
        switch try? ManifestDocument(parsing: bytes, mediaType: nil) {
        case .manifest(let manifest): manifest.mediaType
        case .index(let index): index.mediaType
        case nil: nil
        }
    }
}

extension RemoteRepository {
    init(_ reference: RegistryReference) { self.init(domain: reference.domain, name: reference.name) }
}

/// An image in a registry, for a pull.
public final class RegistryImageSource: ImageSource {
    public let client: RegistryClient
    public let reference: RegistryReference

    public init(_ reference: RegistryReference, client: RegistryClient) {
        self.reference = reference
        self.client = client
    }

    private let located = Mutex<RegistryReference?>(nil)

    /// The reference in full: `docker.io/library/alpine:latest`. Mirrors do not change it. Of a short name that may mean several, the first
    /// until the root manifest was found.
    public var canonicalName: String { current.canonical }

    /// The names that `client.candidates` gives, in full.
    public var localNames: [String] { ((try? client.candidates(for: reference)) ?? [reference]).map(\.canonical) }

    public var pinnedDigest: ContentDigest? { reference.digest }

    private var current: RegistryReference {
        if let known = located.withLock({ $0 }) { return known }
        return (try? client.candidates(for: reference))?.first ?? reference
    }

    public func rootManifest() throws -> SourceManifest {
        let found = try client.locate(reference)
        located.withLock { $0 = found.reference }
        return found.manifest
    }

    public func manifest(_ descriptor: Descriptor) throws -> [UInt8] { try client.manifest(descriptor, of: current) }
    public func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { try client.openBlob(descriptor, of: current) }

    public func origins(of descriptor: Descriptor) throws -> any BlobOrigins { try RegistryBlobOrigins(client, current, descriptor) }

    public func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] {
        try client.referrers(of: digest, in: reference, artifactType: artifactType)
    }

    public var isRemote: Bool { true }
}
