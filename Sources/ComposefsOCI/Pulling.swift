import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
import ComposefsTransports

extension Store {
    /// Pulls what a reference names: a registry reference (`alpine`, `quay.io/org/name:tag`, `…@sha256:…`), `docker://…`,
    /// `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, `dir:DIR` or `containers-storage:NAME`.
    ///
    /// Everything is verified, whatever it comes from, and becomes visible with its tag in one durable step: see `pullImage`. Cancelling the
    /// task ends the pull at the next bytes it would read; layers that were finished are kept for the next pull.
    ///
    /// - Parameters:
    ///   - reference: what to pull, and where from.
    ///   - options: platform, policy, tag, how many layers at once, who is told of the progress.
    ///   - registry: credentials, TLS and timeouts; without meaning for sources on this machine.
    /// - Throws: `OCIError`, `PullError`, `RegistryError`, `RepositoryError`, `ImageStoreError.invalidTag`, `SystemError`;
    ///   `CancellationError` where the task was cancelled.
    public func pull(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PullResult {
        try await cancellable { try pull(reference, options, registry: registry, $0) }
    }

    /// Pulls the images of all platforms that an index lists, and gives each a tag of its own: see `pullAllPlatforms(from:into:_:)` of
    /// the module `ComposefsTransfer`. The registry is asked whatever the policy.
    public func pullAllPlatforms(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> [PullResult] {
        try await cancellable { interruption in
            let source = try openSource(reference, options, registry, interruption)
            return try ComposefsTransfer.pullAllPlatforms(from: source, into: repository, options)
        }
    }

    /// The same on the caller's thread; it cannot be cancelled.
    public func pullAllPlatformsSynchronously(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> [PullResult] {
        try ComposefsTransfer.pullAllPlatforms(from: try openSource(reference, options, registry, nil), into: repository, options)
    }

    /// `pull` on the caller's thread, which blocks until the pull is done; it cannot be cancelled.
    public func pullSynchronously(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PullResult {
        try pull(reference, options, registry: registry, nil)
    }

    private func pull(
        _ reference: String, _ options: PullOptions, registry: RegistryOptions, _ interruption: Interruption?
    ) throws -> PullResult {
        try pullImage(from: try openSource(reference, options, registry, interruption), into: repository, options)
    }

    private func cancellable<Value: Sendable>(_ body: @escaping @Sendable (Interruption) throws -> Value) async throws -> Value {
        let interruption = Interruption()
        return try await withTaskCancellationHandler {
            do {
                return try await onOwnThread { try body(interruption) }
            } catch {
                throw interruption.isSet ? CancellationError() : error
            }
        } onCancel: {
            interruption.set()
        }
    }

    private func openSource(
        _ text: String, _ options: PullOptions, _ registry: RegistryOptions, _ interruption: Interruption?
    ) throws -> any ImageSource {
        var registry = registry
        registry.manifestLimit = Int(min(options.limits.manifestBytes, UInt64(ImageLimits.largestManifest)))
        let scratch = ArchiveScratch(repository.path, limits: options.limits, checksSpace: options.checksSpace) {
            try interruption?.check()
        }
        let source = try openSource(text, registry, scratch, interruption)
        guard let interruption else { return source }
        return InterruptibleSource(source: source, interruption: interruption)
    }

    private func openSource(
        _ text: String, _ options: RegistryOptions, _ scratch: ArchiveScratch, _ interruption: Interruption?
    ) throws -> any ImageSource {
        let reference = try parseReference(text)
        if case .registry(let reference) = reference {
            let client = try RegistryClient(options)
            interruption?.whenSet { client.cancel() }
            // What a short name means depends on the configuration: where that cannot be read, an image that is here may be another one.
            if reference.shortName != nil { _ = try client.candidates(for: reference) }
            return RegistryImageSource(reference, client: client)
        }
        guard let source = try reference.openLocalSource(scratch: scratch, storageRoots: { try StorageConfiguration().roots }) else {
            throw OCIError.invalidReference(ByteString(text), "names nothing that can be pulled")
        }
        return source
    }
}
