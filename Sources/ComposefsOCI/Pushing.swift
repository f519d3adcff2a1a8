public import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
import ComposefsTransports

extension Store {
    /// Sends an image to a registry (`HOST/NAME:TAG`, `docker://…`) or writes it into a layout (`oci:DIR[:TAG]`) or an archive of one
    /// (`oci-archive:FILE[:TAG]`); see `pushImage`.
    ///
    /// - Parameters:
    ///   - image: what `ImageStore.resolve` takes.
    ///   - reference: where to. Without a tag it is `latest` in a registry, and an image without a name in a layout.
    ///   - options: how layers are packed, how many at once, who is told of the progress.
    ///   - registry: credentials, TLS and timeouts; without meaning for layouts.
    /// - Throws: `OCIError`, `PushError`, `RegistryError`, `RepositoryError`, `ImageStoreError`, `SystemError`; `CancellationError` where the
    ///   task was cancelled.
    public func push(
        _ image: ByteString, to reference: String, _ options: PushOptions = PushOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PushResult {
        let interruption = Interruption()
        return try await withTaskCancellationHandler {
            do {
                return try await onOwnThread { try push(image, to: reference, options, registry: registry, interruption) }
            } catch {
                throw interruption.isSet ? CancellationError() : error
            }
        } onCancel: {
            interruption.set()
        }
    }

    /// The same on the caller's thread, which blocks until the push is done; it cannot be cancelled.
    public func pushSynchronously(
        _ image: ByteString, to reference: String, _ options: PushOptions = PushOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PushResult {
        try push(image, to: reference, options, registry: registry, nil)
    }

    private func push(
        _ image: ByteString, to reference: String, _ options: PushOptions, registry: RegistryOptions, _ interruption: Interruption?
    ) throws -> PushResult {
        let stored = try images.open(image).image
        let destination = try openDestination(reference, registry, interruption)
        guard let interruption else { return try pushImage(stored, of: images, to: destination, options) }
        return try pushImage(
            stored, of: images, to: InterruptibleDestination(destination: destination, interruption: interruption), options)
    }

    private func openDestination(
        _ text: String, _ options: RegistryOptions, _ interruption: Interruption?
    ) throws -> any ImageDestination {
        switch try parseReference(text) {
        case .registry(let reference):
            let client = try RegistryClient(options)
            interruption?.whenSet { client.cancel() }
            return try RegistryDestination(reference, client: client)
        case .layout(let location): return try LayoutDestination(directory: location)
        case .ociArchive(let location): return try ArchiveDestination(location)
        default:
            throw OCIError.invalidReference(
                ByteString(text), "nothing can be written there; name a registry's repository, oci:DIR[:TAG] or oci-archive:FILE[:TAG]")
        }
    }
}

/// A destination that takes nothing more once it is interrupted.
private struct InterruptibleDestination: ImageDestination {
    let destination: any ImageDestination
    let interruption: Interruption

    var displayName: String { destination.displayName }
    var registryReference: RegistryReference? { destination.registryReference }
    var takesDockerFormat: Bool { destination.takesDockerFormat }

    func hasBlob(_ blob: Descriptor) throws -> Bool {
        try interruption.check()
        return try destination.hasBlob(blob)
    }

    func mountBlob(_ blob: Descriptor, from source: RegistryReference) throws -> Bool {
        try interruption.check()
        return try destination.mountBlob(blob, from: source)
    }

    func putBlob(_ blob: OutgoingBlob) throws -> SentBlob {
        try destination.putBlob(
            OutgoingBlob(expected: blob.expected) { emit in
                try blob.produce { bytes in
                    try interruption.check()
                    try emit(bytes)
                }
            })
    }

    func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        try interruption.check()
        try destination.putManifest(manifest, digest: digest, isNamed: isNamed)
    }

    func finish() throws { try destination.finish() }
}
