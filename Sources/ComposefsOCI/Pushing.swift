public import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
import ComposefsRepository
public import ComposefsTransfer
public import ComposefsTransports

extension Store {
    /// Pushes an image to a registry (`HOST/NAME:TAG`, `docker://…`), or writes it into a layout (`oci:DIR[:TAG]`) or an archive of a
    /// layout (`oci-archive:FILE[:TAG]`; `-` instead of FILE is standard output); see `pushImage`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: the image's name, as for `ImageStore.resolve`.
    ///   - reference: the destination: text, or a value of `ImageReference` or `RegistryReference`. Without a tag, the tag is `latest` in a registry, and the image has no name in a layout.
    ///   - options: compression, number of layers at the same time, cancellation and observer.
    ///   - registry: credentials, TLS and timeouts; ignored for layouts and archives.
    /// - Throws: `OCIError`, `PushError`, `RegistryError`, `RepositoryError`, `ImageStoreError`, `SystemError`; `CancellationError` after a
    ///   cancellation.
    public func push(
        _ image: some ByteStringConvertible, to reference: some ImageReferenceConvertible, _ options: PushOptions = PushOptions(),
        registry: RegistryOptions = RegistryOptions()
    ) throws -> PushResult {
        let image = image.byteString
        return try cancellable(options.cancellation) {
            let stored = try images.open(image).image
            let result = try pushImage(stored, of: images, to: try destination(reference.imageReference(), options, registry), options)
            images.noteUse(named: image)
            return result
        }
    }

    /// Pushes an image on another thread; otherwise as the blocking form. Cancelling the task ends the push.
    public func push(
        _ image: some ByteStringConvertible, to reference: some ImageReferenceConvertible, _ options: PushOptions = PushOptions(),
        registry: RegistryOptions = RegistryOptions()
    ) async throws -> PushResult {
        let image = image.byteString
        return try await onOwnThread(options, \.cancellation) { try push(image, to: reference, $0, registry: registry) }
    }

    /// Pushes an index with its images for all platforms; see `pushIndex`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: the name of the index, as for `ImageStore.resolveIndex`.
    ///   - reference: as for `push`.
    ///   - options: as for `push`, and whether the index may be sent without some of its manifests, or a new one in its place.
    ///   - registry: as for `push`.
    /// - Throws: `ImageStoreError.noSuchIndex`, and as `push`.
    public func pushAllPlatforms(
        _ image: some ByteStringConvertible, to reference: some ImageReferenceConvertible, _ options: PushOptions = PushOptions(),
        registry: RegistryOptions = RegistryOptions()
    ) throws -> IndexPushResult {
        let image = image.byteString
        return try cancellable(options.cancellation) {
            let stored = try images.openIndex(image).index
            let result = try pushIndex(stored, of: images, to: try destination(reference.imageReference(), options, registry), options)
            images.noteUse(named: image)
            return result
        }
    }

    /// Pushes an index on another thread; otherwise as the blocking form. Cancelling the task ends the push.
    public func pushAllPlatforms(
        _ image: some ByteStringConvertible, to reference: some ImageReferenceConvertible, _ options: PushOptions = PushOptions(),
        registry: RegistryOptions = RegistryOptions()
    ) async throws -> IndexPushResult {
        let image = image.byteString
        return try await onOwnThread(options, \.cancellation) { try pushAllPlatforms(image, to: reference, $0, registry: registry) }
    }

    private func destination(
        _ reference: ImageReference, _ options: PushOptions, _ registry: RegistryOptions
    ) throws -> any ImageDestination {
        try openDestination(reference, scratch: repository.path) {
            try RegistryClient(logged(registry), cancellation: options.cancellation)
        }
    }
}

/// Opens the destination of a push or copy.
///
/// - Parameter scratch: the directory of unnamed files for an archive on standard output.
func openDestination(
    _ reference: ImageReference, scratch: ByteString, _ client: () throws -> RegistryClient
) throws -> any ImageDestination {
    switch reference {
    case .registry(let reference): return try RegistryDestination(reference, client: try client())
    case .layout(let location): return try LayoutDestination(directory: location)
    case .ociArchive(let location) where location.isStream:
        return try ArchiveDestination(stream: location, scratch: scratch) { try StandardStream.output.writeAll($0) }
    case .ociArchive(let location): return try ArchiveDestination(location)
    default: throw OCIError.invalidReference(reference.bytes, .notDestination)
    }
}
