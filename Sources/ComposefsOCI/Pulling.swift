import ComposefsBytes
import ComposefsConcurrency
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
public import ComposefsTransports

extension Store {
    /// Pulls the image that a reference names: a registry reference (`alpine`, `quay.io/org/name:tag`, `…@sha256:…`), `docker://…`,
    /// `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `dir:DIR` or `containers-storage:NAME`.
    ///
    /// Everything is verified, whatever the source, and becomes visible with its tag in one durable step; see `pullImage`. Blocks the
    /// caller's thread until the pull is complete. A cancelled pull ends at its next read; completed layers are kept for the next pull.
    ///
    /// - Parameters:
    ///   - reference: the image and its source: text, or a value of `ImageReference` or `RegistryReference`.
    ///   - options: platform, policy, tag, number of layers at the same time, cancellation and observer.
    ///   - registry: credentials, TLS and timeouts; ignored for sources on this machine.
    /// - Throws: `OCIError`, `PullError`, `SignatureRefusal`, `RegistryError`, `RepositoryError`, `ImageStoreError.invalidTag`, `SystemError`;
    ///   `CancellationError` after a cancellation.
    public func pull(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PullResult {
        let reference = try reference.imageReference()
        return try cancellable(options.cancellation) {
            let result = try pullImage(from: try openSource(reference, options, registry), into: repository, recording(reference, options))
            noteUse(of: result)
            return result
        }
    }

    /// Pulls an image on another thread; otherwise as the blocking form. Cancelling the task ends the pull.
    public func pull(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PullResult {
        try await onOwnThread(options, \.cancellation) { try pull(reference, $0, registry: registry) }
    }

    /// Pulls the images for all platforms of an index, each with its own tag; see `pullAllPlatforms(from:into:_:)` of the module
    /// `ComposefsTransfer`. The source is read whatever the policy. Blocks the caller's thread.
    ///
    /// - Returns: the image for `PullOptions.platform` first, if there is one.
    /// - Throws: as `pull`.
    public func pullAllPlatforms(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> [PullResult] {
        let reference = try reference.imageReference()
        return try cancellable(options.cancellation) {
            let results = try ComposefsTransfer.pullAllPlatforms(
                from: try openSource(reference, options, registry), into: repository, recording(reference, options))
            for result in results { noteUse(of: result) }
            return results
        }
    }

    /// Pulls the images for all platforms on another thread; otherwise as the blocking form. Cancelling the task ends the pull.
    public func pullAllPlatforms(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> [PullResult] {
        try await onOwnThread(options, \.cancellation) { try pullAllPlatforms(reference, $0, registry: registry) }
    }

    /// A pull of an image that is here already is a use of its tag, too.
    private func noteUse(of result: PullResult) {
        images.noteUse(named: result.name)
    }

    /// The options with the source of the image, for a later repair, and with the logger of the store.
    private func recording(_ reference: ImageReference, _ options: PullOptions) -> PullOptions {
        var options = options.logging(to: logger)
        if options.recordedReference == nil { options.recordedReference = reference.recorded }
        return options
    }

    func openSource(_ reference: ImageReference, _ options: PullOptions, _ registry: RegistryOptions) throws -> any ImageSource {
        if case .registry(let reference) = reference {
            var registry = logged(registry)
            registry.manifestLimit = Int(min(options.limits.manifestBytes, UInt64(ImageLimits.largestManifest)))
            let client = try RegistryClient(registry, cancellation: options.cancellation)
            // The configuration determines the meaning of a short name. If it cannot be read, a stored image could be the wrong one.
            if reference.shortName != nil { _ = try client.candidates(for: reference) }
            return RegistryImageSource(reference, client: client)
        }
        let scratch = ArchiveScratch(
            repository.path, limits: options.limits, checksSpace: options.checksSpace, cancellation: options.cancellation)
        guard let source = try reference.openLocalSource(scratch: scratch, storageRoots: { try StorageConfiguration().roots }) else {
            throw OCIError.invalidReference(reference.bytes, .notSource)
        }
        return source
    }
}
