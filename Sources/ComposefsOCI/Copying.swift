public import ComposefsBytes
import ComposefsConcurrency
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRegistry
public import ComposefsTransfer
import ComposefsTransports

extension Store {
    /// Copies an image and its referrers from another store into this one; see `copyImage`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: the image's name in the other store, as for `ImageStore.resolve`.
    ///   - source: the other store. It stays open during the copy, so its garbage collection waits.
    ///   - options: the tag, the number of threads, the cancellation and the observer.
    /// - Throws: `ImageStoreError`, `PullError`, `RepositoryError`; `CancellationError` after a cancellation.
    public func copy(
        _ image: some ByteStringConvertible, from source: Store, _ options: CopyOptions = CopyOptions()
    ) throws -> CopyResult {
        let image = image.byteString
        return try cancellable(options.cancellation) {
            let found = try source.images.open(image)
            let result = try copyImage(found.image, from: source.images, named: found.name, into: images, options)
            source.images.noteUse(named: image)
            images.noteUse(named: result.name)
            return result
        }
    }

    /// Copies an index with its images for all platforms from another store into this one; see `copyStoredIndex`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: the name of the index in the other store, as for `ImageStore.resolveIndex`.
    ///   - source: as for `copy`.
    ///   - options: as for `copy`.
    /// - Throws: `ImageStoreError.noSuchIndex`, and as `copy`.
    public func copyAllPlatforms(
        _ image: some ByteStringConvertible, from source: Store, _ options: CopyOptions = CopyOptions()
    ) throws -> StoredIndexCopyResult {
        let image = image.byteString
        return try cancellable(options.cancellation) {
            let found = try source.images.openIndex(image)
            let result = try copyStoredIndex(found.index, from: source.images, named: found.name, into: images, options)
            source.images.noteUse(named: image)
            images.noteUse(named: result.name)
            return result
        }
    }

    /// Copies an index on another thread; otherwise as the blocking form. Cancelling the task ends the copy.
    public func copyAllPlatforms(
        _ image: some ByteStringConvertible, from source: Store, _ options: CopyOptions = CopyOptions()
    ) async throws -> StoredIndexCopyResult {
        let image = image.byteString
        return try await onOwnThread(options, \.cancellation) { try copyAllPlatforms(image, from: source, $0) }
    }

    /// Copies an image on another thread; otherwise as the blocking form. Cancelling the task ends the copy.
    public func copy(
        _ image: some ByteStringConvertible, from source: Store, _ options: CopyOptions = CopyOptions()
    ) async throws -> CopyResult {
        let image = image.byteString
        return try await onOwnThread(options, \.cancellation) { try copy(image, from: source, $0) }
    }
}

/// Copies an image for all platforms, byte for byte, between registries (`HOST/NAME:TAG`, `docker://…`), layouts (`oci:DIR[:TAG]`) and
/// archives of layouts (`oci-archive:FILE[:TAG]`; `-` instead of FILE is standard input or output); see `copyIndex(from:to:_:)` of the module
/// `ComposefsTransfer`. No store is involved. Blocks the caller's thread.
///
/// - Parameters:
///   - source: the image.
///   - destination: where it is copied to. Without a tag, the tag is `latest` in a registry, and the image has no name in a layout.
///   - options: number of blobs at the same time, referrers, limits, cancellation and observer.
///   - registry: credentials, TLS and timeouts for both sides; ignored for layouts and archives.
///   - scratch: the directory of unnamed files, for an archive that is compressed, or that is standard input or output.
/// - Throws: `OCIError`, which is `.invalidReference` for a transport without indexes; `LimitExceeded`, `PullError`, `PushError`,
///   `RegistryError`, `SystemError`; `CancellationError` after a cancellation.
public func copyIndex(
    _ source: String, to destination: String, _ options: IndexCopyOptions = IndexCopyOptions(),
    registry: RegistryOptions = RegistryOptions(), scratch: ByteString = "/var/tmp"
) throws -> IndexCopyResult {
    let (from, to) = try (parseReference(source), parseReference(destination))
    for (reference, text) in [(from, source), (to, destination)] where !reference.holdsIndexes {
        throw OCIError.invalidReference(ByteString(text), .noIndex)
    }
    var registry = registry
    registry.manifestLimit = Int(min(options.limits.manifestBytes, UInt64(ImageLimits.largestManifest)))
    return try cancellable(options.cancellation) {
        // Both sides share connections and tokens, if they are in the same registry.
        var known: RegistryClient?
        func client() throws -> RegistryClient {
            if let known { return known }
            let client = try RegistryClient(registry, cancellation: options.cancellation)
            known = client
            return client
        }
        let opened: any ImageSource
        if case .registry(let reference) = from {
            opened = RegistryImageSource(reference, client: try client())
        } else {
            let scratch = ArchiveScratch(scratch, limits: options.limits, cancellation: options.cancellation)
            guard let local = try from.openLocalSource(scratch: scratch) else {
                throw OCIError.invalidReference(ByteString(source), .notSource)
            }
            opened = local
        }
        return try copyIndex(from: opened, to: try openDestination(to, scratch: scratch, client), options)
    }
}

/// Copies an image for all platforms on another thread; otherwise as the blocking form. Cancelling the task ends the copy.
public func copyIndex(
    _ source: String, to destination: String, _ options: IndexCopyOptions = IndexCopyOptions(),
    registry: RegistryOptions = RegistryOptions(), scratch: ByteString = "/var/tmp"
) async throws -> IndexCopyResult {
    try await onOwnThread(options, \.cancellation) { try copyIndex(source, to: destination, $0, registry: registry, scratch: scratch) }
}

extension ImageReference {
    /// Whether the transport has indexes.
    fileprivate var holdsIndexes: Bool {
        switch self {
        case .registry, .layout, .ociArchive: true
        case .dockerArchive, .directory, .containersStorage: false
        }
    }
}
