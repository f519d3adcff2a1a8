public import ComposefsBoot
public import ComposefsBootFormats
public import ComposefsBytes
import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore

extension Store {
    /// Makes the images for booting of a stored image and records them with it; see `ImageStore.generateBootImage`. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: a tag, a digest or the beginning of one; see `ImageStore.resolve`.
    ///   - filtering: the extended attributes that are kept.
    /// - Returns: the image for booting in the repository's default format.
    @discardableResult
    public func generateBootImage(_ image: some ByteStringConvertible, _ filtering: XattrFiltering = .allowlistOnly) throws -> BootImage {
        try images.generateBootImage(try images.resolve(image.byteString).manifestDigest, filtering)
    }

    /// The same on another thread.
    @discardableResult
    public func generateBootImage(
        _ image: some ByteStringConvertible, _ filtering: XattrFiltering = .allowlistOnly
    ) async throws -> BootImage {
        let image = image.byteString
        return try await onOwnThread { try generateBootImage(image, filtering) }
    }

    /// Finds and records the image for booting that has an ID; see `ImageStore.findMatchingBootImage`. Blocks the caller's thread.
    ///
    /// - Throws: `NoMatchingBootImage` if there is none.
    @discardableResult
    public func findMatchingBootImage(_ image: some ByteStringConvertible, _ expected: ObjectID) throws -> BootImage {
        try images.findMatchingBootImage(try images.resolve(image.byteString).manifestDigest, expected)
    }

    /// The same on another thread.
    @discardableResult
    public func findMatchingBootImage(_ image: some ByteStringConvertible, _ expected: ObjectID) async throws -> BootImage {
        let image = image.byteString
        return try await onOwnThread { try findMatchingBootImage(image, expected) }
    }

    /// The recorded image for booting in the repository's default format; nil if there is none.
    public func bootImage(_ image: some ByteStringConvertible, _ filtering: XattrFiltering = .allowlistOnly) throws -> BootImage? {
        try images.bootImage(try images.resolve(image.byteString).manifestDigest, filtering)
    }

    /// Removes an image's references to images for booting; see `ImageStore.removeBootImage`.
    ///
    /// - Returns: the number of references that there were.
    @discardableResult
    public func removeBootImage(_ image: some ByteStringConvertible) throws -> Int {
        try images.removeBootImage(try images.resolve(image.byteString).manifestDigest)
    }

    /// The kernel argument by which the program of the early boot finds an image for booting in this repository. It allows a repository
    /// without fs-verity only if this one has none.
    public func kernelArgument(for image: BootImage) -> ComposefsArgument {
        ComposefsArgument(image.id, image.version == .v2 ? .v2 : .v1, allowsInsecure: !repository.isSecure)
    }
}
