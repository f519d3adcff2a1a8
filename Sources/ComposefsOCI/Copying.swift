public import ComposefsBytes
import ComposefsConcurrency
import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsTransfer

extension Store {
    /// Copies an image, with the artifacts that belong to it, out of another store into this one; see `copyImage`.
    ///
    /// - Parameters:
    ///   - image: what `ImageStore.resolve` of the other store takes.
    ///   - source: the other store; it stays open meanwhile, so no garbage is collected there.
    ///   - options: the tag where it shall be another one, and who is told of the progress.
    /// - Throws: `ImageStoreError`, `PullError`, `RepositoryError`; `CancellationError` if it was cancelled.
    public func copy(_ image: ByteString, from source: Store, _ options: CopyOptions = CopyOptions()) throws -> CopyResult {
        try cancellable(options.cancellation) {
            let found = try source.images.open(image)
            return try copyImage(found.image, from: source.images, named: found.name, into: images, options)
        }
    }

    /// The same on a thread of its own. Cancelling the task ends the copy.
    public func copy(_ image: ByteString, from source: Store, _ options: CopyOptions = CopyOptions()) async throws -> CopyResult {
        try await onOwnThread(options.cancellation) { cancellation in
            var options = options
            options.cancellation = cancellation
            return try copy(image, from: source, options)
        }
    }
}
