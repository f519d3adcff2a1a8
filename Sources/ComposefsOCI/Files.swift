public import ComposefsBytes
public import ComposefsExtraction
public import ComposefsImageStore

// What is in an image, without mounting it.

extension Store {
    /// A stored image with its documents.
    ///
    /// - Parameter reference: a tag, a short form of one, a digest or the beginning of one; see `ImageStore.resolve`.
    /// - Throws: `ImageStoreError.noSuchImage`, `.ambiguous`, `.otherImage`, `.damaged`; `RepositoryError`, `OCIError`.
    public func image(_ reference: some ByteStringConvertible) throws -> StoredImage { try images.open(reference.byteString).image }

    /// How an image was built, the first step first.
    ///
    /// - Throws: `ImageStoreError.isArtifact` for an artifact; else as `image`.
    public func history(_ reference: some ByteStringConvertible) throws -> [HistoryStep] {
        let image = try image(reference)
        guard image.isContainer else { throw ImageStoreError.isArtifact(image.manifestDigest) }
        return image.history
    }

    /// Gives an image another name, durably. A name that is in use moves to the image.
    ///
    /// - Parameters:
    ///   - reference: as for `image`.
    ///   - name: the tag.
    /// - Throws: `ImageStoreError.invalidTag`; else as `image`.
    public func tag(_ reference: some ByteStringConvertible, as name: some ByteStringConvertible) throws {
        try images.tag(try images.resolve(reference.byteString).manifestDigest, as: name.byteString)
    }

    /// Removes a tag, durably; see `ImageStore.untag`.
    ///
    /// - Throws: `ImageStoreError.noSuchImage` if there is no such tag; `.imageInUse`.
    public func untag(_ name: some ByteStringConvertible, force: Bool = false) throws {
        try images.untag(name.byteString, force: force)
    }

    /// The tree of an image, as it is mounted: of a pulled one merged again from its layers, of one that was made of a directory from its EROFS
    /// image. To read several files, make one `ImageTree` of it: every call of `readFile` makes the tree again.
    ///
    /// - Parameter image: as for `image`, or a name in `images/refs`.
    /// - Throws: `ImageStoreError`, `RepositoryError`, `ErofsError`.
    public func files(of image: some ByteStringConvertible) throws -> ImageTree {
        ImageTree(try images.tree(ofImage: image.byteString), repository)
    }

    /// What is at a path of an image.
    ///
    /// - Parameters:
    ///   - path: from the root of the image on. Symbolic links are followed inside the image.
    ///   - image: as for `files`.
    ///   - followingLast: whether a link at the end of the path is followed, too.
    /// - Throws: `ExtractionError.noSuchPath`; else as `files`.
    public func resolve(
        _ path: some ByteStringConvertible, in image: some ByteStringConvertible, followingLast: Bool = true
    ) throws -> ImageEntry {
        try files(of: image).file(at: path.byteString, followingLast: followingLast)
    }

    /// The entries of a directory of an image, by name in ascending byte order. Parameters are those of `resolve`.
    ///
    /// - Throws: `ExtractionError.noSuchPath`, `.isNotDirectory`; else as `files`.
    public func listFiles(in path: some ByteStringConvertible, of image: some ByteStringConvertible) throws -> [ImageEntry] {
        try files(of: image).files(in: path.byteString)
    }

    /// The content of a regular file of an image, verified.
    ///
    /// - Parameters:
    ///   - path: from the root of the image on. All symbolic links are followed, inside the image.
    ///   - image: as for `files`.
    ///   - limit: the most bytes; a larger file is refused before it is read.
    /// - Throws: `ExtractionError.noSuchPath`, `.isDirectory`, `.isNotFile`, `.tooLarge`; `RepositoryError` if the content is missing or damaged;
    ///   else as `files`.
    public func readFile(
        _ path: some ByteStringConvertible, in image: some ByteStringConvertible, limit: UInt64 = ImageTree.defaultReadLimit
    ) throws -> [UInt8] {
        try files(of: image).readFile(path.byteString, limit: limit)
    }

    /// Calls `body` with consecutive parts of a regular file, which is verified before the first. The memory is valid only during the call.
    /// Parameters and errors are those of the other form, without a limit.
    public func readFile(
        _ path: some ByteStringConvertible, in image: some ByteStringConvertible, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        try files(of: image).readFile(path.byteString, body)
    }

    /// Writes the files of an image into a directory, durably; see `ImageTree.unpack`. Unlike the mounted tree, these have all extended attributes
    /// and the root's metadata as the layers have them. Blocks the caller's thread.
    ///
    /// - Parameters:
    ///   - image: as for `files`.
    ///   - directory: missing or empty.
    ///   - options: whose the files are, and the cancellation.
    /// - Throws: `ExtractionError`, `RepositoryError`, `ImageStoreError`, `SystemError`; `CancellationError` after a cancellation.
    @discardableResult
    public func unpack(
        _ image: some ByteStringConvertible, into directory: some ByteStringConvertible, _ options: UnpackOptions = UnpackOptions()
    ) throws -> UnpackReport {
        try cancellable(options.cancellation) { try layerFiles(of: image.byteString).unpack(into: directory.byteString, options) }
    }

    /// Unpacks on another thread; otherwise as the blocking form. Cancelling the task ends it.
    @discardableResult
    public func unpack(
        _ image: some ByteStringConvertible, into directory: some ByteStringConvertible, _ options: UnpackOptions = UnpackOptions()
    ) async throws -> UnpackReport {
        let (image, directory) = (image.byteString, directory.byteString)
        return try await onOwnThread(options, \.cancellation) { try unpack(image, into: directory, $0) }
    }

    /// Writes the files of an image as one tar archive; see `ImageTree.writeTar`.
    ///
    /// - Parameters:
    ///   - image: as for `files`.
    ///   - write: takes consecutive parts of the archive. The memory is valid only during the call.
    /// - Returns: the paths of sockets, which a tar archive cannot hold.
    /// - Throws: as `unpack`; what `write` throws.
    @discardableResult
    public func writeTar(of image: some ByteStringConvertible, _ write: (UnsafeRawBufferPointer) throws -> Void) throws -> [ByteString] {
        try layerFiles(of: image.byteString).writeTar(write)
    }

    /// The tree with all that the layers say.
    private func layerFiles(of image: ByteString) throws -> ImageTree {
        switch try images.find(image) {
        case .tagged(_, let image): try ImageTree(of: image, in: images)
        case .named(let image): try ImageTree(of: image, in: images)
        }
    }
}
