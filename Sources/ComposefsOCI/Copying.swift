public import ComposefsBytes
import ComposefsConcurrency
import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsTransfer

extension Store {
    /// Copies an image and its referrers from another store into this one; see `copyImage`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: the image's name in the other store, as for `ImageStore.resolve`.
    ///   - source: the other store. It stays open during the copy, so its garbage collection waits.
    ///   - options: the tag, the number of threads, the cancellation and the observer.
    /// - Throws: `ImageStoreError`, `PullError`, `RepositoryError`; `CancellationError` after a cancellation.
    public func copy(_ image: ByteString, from source: Store, _ options: CopyOptions = CopyOptions()) throws -> CopyResult {
        try cancellable(options.cancellation) {
            let found = try source.images.open(image)
            let result = try copyImage(found.image, from: source.images, named: found.name, into: images, options)
            source.images.noteUse(named: image)
            images.noteUse(named: result.name)
            return result
        }
    }

    /// Copies an image on another thread; otherwise as the blocking form. Cancelling the task ends the copy.
    public func copy(_ image: ByteString, from source: Store, _ options: CopyOptions = CopyOptions()) async throws -> CopyResult {
        try await onOwnThread(options.cancellation) { cancellation in
            var options = options
            options.cancellation = cancellation
            return try copy(image, from: source, options)
        }
    }
}
