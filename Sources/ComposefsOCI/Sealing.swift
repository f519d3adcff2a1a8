public import ComposefsBytes
import ComposefsConcurrency
import ComposefsImageStore
public import ComposefsTransfer

extension Store {
    /// Seals a stored image: its config gets a label, and its manifest annotations, with the fs-verity digests of what is mounted, and an
    /// artifact that refers to it has their signatures if there is a key. `push` sends both. See `ImageStore.sealImage`; blocks the caller's
    /// thread.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the beginning of one; see `ImageStore.resolve`.
    ///   - options: the tag, the key, and what is stated.
    /// - Returns: the digests of the sealed image, which is another one than `image`.
    @discardableResult
    public func seal(_ image: some ByteStringConvertible, _ options: SealOptions = SealOptions()) throws -> SealedImage {
        let image = image.byteString
        return try cancellable(options.cancellation) { try images.sealImage(image, options) }
    }

    /// The same on another thread. Cancelling the task cancels it.
    @discardableResult
    public func seal(_ image: some ByteStringConvertible, _ options: SealOptions = SealOptions()) async throws -> SealedImage {
        let image = image.byteString
        return try await onOwnThread(options, \.cancellation) { try images.sealImage(image, $0) }
    }
}
