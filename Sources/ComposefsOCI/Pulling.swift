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
    /// Everything is verified, whatever it comes from, and becomes visible with its tag in one durable step: see `pullImage`. Blocks the caller's
    /// thread until the pull is done. A cancelled pull ends at the next bytes it would read; layers that are finished are kept for the next
    /// pull.
    ///
    /// - Parameters:
    ///   - reference: what to pull, and where from.
    ///   - options: platform, policy, tag, how many layers at once, the observer of the progress, what cancels the pull.
    ///   - registry: credentials, TLS and timeouts; without meaning for sources on this machine.
    /// - Throws: `OCIError`, `PullError`, `RegistryError`, `RepositoryError`, `ImageStoreError.invalidTag`, `SystemError`;
    ///   `CancellationError` if it was cancelled.
    public func pull(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PullResult {
        try cancellable(options.cancellation) {
            try pullImage(from: try openSource(reference, options, registry), into: repository, recording(reference, options))
        }
    }

    /// The same on a thread of its own. Cancelling the task ends the pull.
    public func pull(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PullResult {
        try await onOwnThread(options.cancellation) { try pull(reference, options.with($0), registry: registry) }
    }

    /// Pulls the images of all platforms that an index lists, and gives each a tag of its own: see `pullAllPlatforms(from:into:_:)` of
    /// the module `ComposefsTransfer`. The registry is asked whatever the policy.
    public func pullAllPlatforms(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> [PullResult] {
        try cancellable(options.cancellation) {
            try ComposefsTransfer.pullAllPlatforms(
                from: try openSource(reference, options, registry), into: repository, recording(reference, options))
        }
    }

    /// The same on a thread of its own. Cancelling the task ends the pull.
    public func pullAllPlatforms(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> [PullResult] {
        try await onOwnThread(options.cancellation) { try pullAllPlatforms(reference, options.with($0), registry: registry) }
    }

    /// The options, with where the image comes from, for a later repair.
    private func recording(_ reference: String, _ options: PullOptions) throws -> PullOptions {
        var options = options
        if options.recordedReference == nil { options.recordedReference = try parseReference(reference).recorded(reference) }
        return options
    }

    func openSource(_ text: String, _ options: PullOptions, _ registry: RegistryOptions) throws -> any ImageSource {
        let reference = try parseReference(text)
        if case .registry(let reference) = reference {
            var registry = registry
            registry.manifestLimit = Int(min(options.limits.manifestBytes, UInt64(ImageLimits.largestManifest)))
            let client = try RegistryClient(registry, cancellation: options.cancellation)
            // What a short name means depends on the configuration: if that cannot be read, an image that is here may be another one.
            if reference.shortName != nil { _ = try client.candidates(for: reference) }
            return RegistryImageSource(reference, client: client)
        }
        let scratch = ArchiveScratch(
            repository.path, limits: options.limits, checksSpace: options.checksSpace, cancellation: options.cancellation)
        guard let source = try reference.openLocalSource(scratch: scratch, storageRoots: { try StorageConfiguration().roots }) else {
            throw OCIError.invalidReference(ByteString(text), "names nothing that can be pulled")
        }
        return source
    }
}

extension PullOptions {
    fileprivate func with(_ cancellation: Cancellation) -> PullOptions {
        var options = self
        options.cancellation = cancellation
        return options
    }
}
