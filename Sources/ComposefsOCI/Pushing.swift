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
    /// - Throws: `OCIError`, `PushError`, `RegistryError`, `RepositoryError`, `ImageStoreError`, `SystemError`; `CancellationError` if it
    ///   was cancelled.
    public func push(
        _ image: ByteString, to reference: String, _ options: PushOptions = PushOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PushResult {
        try cancellable(options.cancellation) {
            let stored = try images.open(image).image
            return try pushImage(stored, of: images, to: try openDestination(reference, options, registry), options)
        }
    }

    /// The same on a thread of its own. Cancelling the task ends the push.
    public func push(
        _ image: ByteString, to reference: String, _ options: PushOptions = PushOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PushResult {
        try await onOwnThread(options.cancellation) { cancellation in
            var options = options
            options.cancellation = cancellation
            return try push(image, to: reference, options, registry: registry)
        }
    }

    private func openDestination(
        _ text: String, _ options: PushOptions, _ registry: RegistryOptions
    ) throws -> any ImageDestination {
        switch try parseReference(text) {
        case .registry(let reference):
            return try RegistryDestination(reference, client: try RegistryClient(registry, cancellation: options.cancellation))
        case .layout(let location): return try LayoutDestination(directory: location)
        case .ociArchive(let location): return try ArchiveDestination(location)
        default:
            throw OCIError.invalidReference(
                ByteString(text), "nothing can be written there; name a registry's repository, oci:DIR[:TAG] or oci-archive:FILE[:TAG]")
        }
    }
}
