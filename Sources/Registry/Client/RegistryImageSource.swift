public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsSignaturePolicy
public import ComposefsTransports
internal import Synchronization

extension RegistryClient {
    /// The manifest or index that `reference` names: by its digest if it has one, else by its tag. The content is compared with that digest
    /// and with the one that the registry announces.
    ///
    /// The mirrors are asked first, in the order of the registries configuration, then the registry; for a short name without an alias,
    /// each registry to search. The endpoint that has the manifest is asked first for the other parts of the image.
    public func manifest(_ reference: RegistryReference) throws(RegistryError) -> SourceManifest { try locate(reference).manifest }

    /// Like `manifest`, and returns the full reference that a short name stands for.
    public func locate(_ reference: RegistryReference) throws(RegistryError) -> (reference: RegistryReference, manifest: SourceManifest) {
        let found = try finder.locate(reference) { reference, repository throws(RegistryError) in try manifest(reference, repository) }
        return (found.reference, found.value)
    }

    /// The references that a short name may stand for, in the order that `manifest` tries them, or the one that it has found. A full
    /// reference stands for itself. Sends no request.
    public func candidates(for reference: RegistryReference) throws(RegistryError) -> [RegistryReference] {
        try finder.meanings(of: reference)
    }

    private func manifest(_ reference: RegistryReference, _ repository: RemoteRepository) throws(RegistryError) -> SourceManifest {
        let name = reference.digest?.description ?? reference.tag ?? "latest"
        let fetched = try fetchManifest(repository, reference: name, expected: reference.digest, limit: options.manifestLimit)
        // Servers that serve manifests as plain files do not know the type: then the document's own type decides.
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

    /// A manifest or index that an index in `reference`'s repository lists. Size and digest are compared with the descriptor.
    public func manifest(_ descriptor: Descriptor, of reference: RegistryReference) throws(RegistryError) -> [UInt8] {
        let name = "\(reference.domain)/\(reference.name)@\(descriptor.digest)"
        guard let size = Int(exactly: descriptor.size), size <= options.manifestLimit else {
            throw RegistryError(.manifestTooLarge(name, size: descriptor.size, limit: options.manifestLimit))
        }
        let digest = descriptor.digest
        return try finder.atEndpoints(of: reference) { repository throws(RegistryError) in
            let bytes = try fetchManifest(repository, reference: digest.description, expected: digest, limit: options.manifestLimit).bytes
            guard bytes.count == size else {
                throw RegistryError(.manifestSize(name, size: bytes.count, expected: size))
            }
            return bytes
        }
    }

    /// Starts the download of a config or layer, and waits for an endpoint that responds. The reader returns exactly as many bytes as the
    /// descriptor says, or fails; it does not check the digest. It keeps the client alive, and needs at most 1 MiB of memory for bytes that
    /// are not read yet.
    ///
    /// - Parameters:
    ///   - offset: the number of bytes that the caller already has.
    ///   - observer: receives failed attempts, and how the download continues.
    public func openBlob(
        _ descriptor: Descriptor, of reference: RegistryReference, from offset: UInt64 = 0, observer: BlobObserver? = nil
    ) throws -> BlobDownload {
        let download = BlobDownload(descriptor, from: offset, session.cancellation, observer) {
            try RegistryBlobOrigins(self, reference, descriptor)
        }
        try download.connect()
        return download
    }

    /// The manifests in `reference`'s repository whose `subject` is `digest`, in the registry's order; only those with the given artifact
    /// type, if it is not nil.
    public func referrers(
        of digest: ContentDigest, in reference: RegistryReference, artifactType: String? = nil
    ) throws(RegistryError) -> [Descriptor] {
        // Mirrors often have images without their referrers.
        let all = try finder.atEndpoints(of: reference, isEnough: { !$0.isEmpty }) { repository throws(RegistryError) in
            try fetchReferrers(repository, of: digest)
        }
        guard let artifactType else { return all }
        return all.filter { $0.artifactType == artifactType }
    }

    /// The manifest of the signatures that cosign keeps for a manifest or index in `reference`'s repository, under a tag made from its digest; nil if
    /// there is none. Mirrors often have images without their signatures.
    public func taggedSignatures(of digest: ContentDigest, in reference: RegistryReference) throws(RegistryError) -> [UInt8]? {
        try finder.atEndpoints(of: reference, isEnough: { $0 != nil }) { repository throws(RegistryError) -> [UInt8]? in
            do throws(RegistryError) {
                let tag = signatureTag(of: digest)
                return try fetchManifest(repository, reference: tag, expected: nil, limit: options.manifestLimit).bytes
            } catch {
                guard error.kind == .notFound else { throw error }
                return nil
            }
        }
    }

    /// The document's own media type, if the server sent none; nil if it is not a manifest, which its reader will find out.
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

    /// The full reference: `docker.io/library/alpine:latest`. Mirrors do not change it. For an ambiguous short name it is the first
    /// candidate until the root manifest has been found.
    public var canonicalName: String { current.canonical }

    /// The full references from `client.candidates`.
    public var localNames: [String] { ((try? client.candidates(for: reference)) ?? [reference]).map(\.canonical) }

    public var pinnedDigest: ContentDigest? { reference.digest }

    /// For an ambiguous short name, the same as `canonicalName`.
    public var registryReference: RegistryReference? { current }

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

    public func taggedSignatures(of digest: ContentDigest) throws -> [UInt8]? { try client.taggedSignatures(of: digest, in: current) }

    /// That of the full reference; mirrors do not change it.
    public var policyIdentity: ImageIdentity { .registry(current) }

    public var isRemote: Bool { true }
}
