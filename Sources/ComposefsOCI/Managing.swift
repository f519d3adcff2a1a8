public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsImageStore
import ComposefsRepository

// Each call has a blocking form and an async one of the same name.

extension Store {
    /// An image by its reference: a tag, a short form of one, a digest or the beginning of one, or the name of an image that was made from a
    /// directory.
    ///
    /// - Throws: `ImageStoreError.imageNotFound`; `.ambiguous` or `.damaged`; `RepositoryError`.
    public func get(_ reference: some ByteStringConvertible) throws -> ImageHandle { try images.get(reference.byteString) }

    /// The same on another thread.
    public func get(_ reference: some ByteStringConvertible) async throws -> ImageHandle {
        let reference = reference.byteString
        return try await onOwnThread { try get(reference) }
    }

    /// All references with their images, by name. Of an image that cannot be read only the reference and the manifest's digest are known.
    ///
    /// - Throws: `RepositoryError` if references cannot be listed.
    public func list() throws -> [ImageHandle] { try images.handles() }

    /// The same on another thread.
    public func list() async throws -> [ImageHandle] { try await onOwnThread { try list() } }

    /// An image with its config and layers. Parameters and errors are those of `get`.
    public func inspect(_ reference: some ByteStringConvertible) throws -> ImageDetail { try images.inspect(reference.byteString) }

    /// The same on another thread.
    public func inspect(_ reference: some ByteStringConvertible) async throws -> ImageDetail {
        let reference = reference.byteString
        return try await onOwnThread { try inspect(reference) }
    }

    /// Removes an image's reference: the tag or name itself, or all tags of an image that is given by a digest. `prune` then frees the space.
    ///
    /// - Parameters:
    ///   - reference: as for `get`.
    ///   - force: whether to remove it even if the image is in use and no other reference is left; see `ImageStore.untag`.
    /// - Returns: the removed references.
    /// - Throws: `ImageStoreError.imageNotFound`, `.imageInUse`; `RepositoryError`.
    @discardableResult
    public func remove(_ reference: some ByteStringConvertible, force: Bool = false) throws -> [ByteString] {
        try images.remove(reference.byteString, force: force)
    }

    /// The same on another thread.
    @discardableResult
    public func remove(_ reference: some ByteStringConvertible, force: Bool = false) async throws -> [ByteString] {
        let reference = reference.byteString
        return try await onOwnThread { try remove(reference, force: force) }
    }

    /// What each image costs, and where the store's space is.
    ///
    /// - Parameters:
    ///   - withGarbage: whether to determine what a garbage collection would remove, too.
    ///   - cancellation: ends the call. Cancelling the task does so too.
    /// - Throws: `RepositoryError`; `CancellationError` after a cancellation.
    public func usage(withGarbage: Bool = true, cancellation: Cancellation = Cancellation()) throws -> StoreUsage {
        try cancellable(cancellation) { try images.usage(withGarbage: withGarbage, cancellation: cancellation) }
    }

    /// The same on another thread.
    public func usage(withGarbage: Bool = true, cancellation: Cancellation = Cancellation()) async throws -> StoreUsage {
        try await onOwnThread(cancellation) { try images.usage(withGarbage: withGarbage, cancellation: $0) }
    }
}
