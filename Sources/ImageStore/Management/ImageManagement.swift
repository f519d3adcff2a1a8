public import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

// The verbs of the older library for images: get, list, inspect, remove. They take any form of a name that `resolve` takes, and names of
// images that were made from directories.
extension ImageStore {
    /// An image by its reference.
    ///
    /// - Throws: `ImageStoreError.imageNotFound`; `.ambiguous`, `.damaged`; `RepositoryError`, `OCIError`.
    public func get(_ reference: ByteString) throws -> ImageHandle { ImageHandle(try record(of: reference).record) }

    /// All references with their images, by name. An image that cannot be read has only its reference and, if it is a tag, the manifest's
    /// digest.
    ///
    /// - Throws: `RepositoryError` if references cannot be listed.
    public func handles() throws -> [ImageHandle] {
        let (records, broken) = try records()
        let digests = Dictionary(try tags().map { ($0.name, $0.manifestDigest) }, uniquingKeysWith: { first, _ in first })
        return (records.map { ImageHandle($0) } + broken.map { ImageHandle(reference: $0.name, manifestDigest: digests[$0.name]) })
            .sorted { $0.reference < $1.reference }
    }

    /// An image with its config and layers.
    ///
    /// - Throws: as `get`.
    public func inspect(_ reference: ByteString) throws -> ImageDetail {
        let (record, image) = try record(of: reference)
        var detail = ImageDetail(handle: ImageHandle(record))
        guard let image else { return detail }
        if let runtime = image.config?.runtime {
            detail.config = ImageConfigDetail(
                digest: image.configDigest, env: runtime.environment, cmd: runtime.command, entrypoint: runtime.entrypoint,
                workingDir: runtime.workingDirectory, user: runtime.user, labels: runtime.labels, stopSignal: runtime.stopSignal)
        }
        let diffIDs = image.config?.diffIDs ?? []
        let chainIDs = ContentDigest.chainIDs(of: diffIDs)
        detail.layers = try image.manifest.layers.enumerated().map { position, layer in
            let diffID = position < diffIDs.count ? diffIDs[position] : nil
            return ImageLayerDetail(
                diffID: diffID, blobDigest: layer.digest, mediaType: layer.mediaType, compressedSize: layer.size,
                erofsSize: try position < chainIDs.count ? erofsSize(ofStack: chainIDs[position]) : nil, position: position)
        }
        return detail
    }

    /// Removes an image's reference: the tag or name itself, or all tags of an image that is given by a digest. What it kept stays until the
    /// next prune or garbage collection.
    ///
    /// - Parameter force: also if the image is in use and no other reference is left; what it needs stays as long as it is in use.
    /// - Returns: the removed references.
    /// - Throws: `ImageStoreError.imageNotFound`, `.imageInUse`, `.ambiguous`; `RepositoryError`. Nothing is removed then.
    @discardableResult
    public func remove(_ reference: ByteString, force: Bool = false) throws -> [ByteString] {
        let names = try references(of: reference)
        guard !names.isEmpty else { throw ImageStoreError.imageNotFound(reference) }
        if !force { try requireUnused(names) }
        let tags = Set(try tags().map(\.name) + namedIndexes().map(\.name))
        for name in names {
            if tags.contains(name) { try untag(name, force: true) } else { _ = try removeName(name, force: true) }
        }
        return names
    }

    /// The references that a name stands for when it is removed: itself; the stored form of a short one; all tags of a digest; all names
    /// below `images/refs` of an EROFS image.
    ///
    /// - Returns: empty for an image without a reference.
    /// - Throws: `ImageStoreError.imageNotFound`, `.ambiguous`; `RepositoryError`.
    package func references(of reference: ByteString) throws -> [ByteString] {
        let tags = try tags()
        let indexes = try namedIndexes()
        if tags.contains(where: { $0.name == reference }) || indexes.contains(where: { $0.name == reference }) { return [reference] }
        let resolved: TaggedImage?
        do {
            resolved = try resolveIfPresent(reference)
        } catch ImageStoreError.onlyIndex(_, let digest) {
            let named = try resolveIndex(reference)
            if let named, !Self.isDigest(reference) { return [named.name] }
            return indexes.filter { $0.digest == digest }.map(\.name)
        }
        guard let found = resolved else {
            if try hasName(reference) { return [reference] }
            let names = try ObjectID(hex: reference.bytes).map { try self.names(of: $0) } ?? []
            guard !names.isEmpty else { throw ImageStoreError.imageNotFound(reference) }
            return names
        }
        if tags.contains(where: { $0.name == found.name }), !Self.isDigest(reference) { return [found.name] }
        return tags.filter { $0.manifestDigest == found.manifestDigest }.map(\.name)
    }

    /// Whether a name is a digest, or the beginning of one.
    private static func isDigest(_ reference: ByteString) -> Bool {
        let text = reference.utf8Text ?? ""
        let plain = text.hasPrefix("@") ? String(text.dropFirst()) : text
        let digits = plain.hasPrefix("sha256:") ? String(plain.dropFirst(7)) : plain
        return ContentDigest(plain) != nil || digits.utf8.count >= 6 && digits.utf8.allSatisfy { Hex.value(of: $0) != nil }
    }

    private func resolveIfPresent(_ reference: ByteString) throws -> TaggedImage? {
        do {
            return try resolve(reference)
        } catch ImageStoreError.noSuchImage {
            return nil
        }
    }

    private func record(of reference: ByteString) throws -> (record: ImageRecord, image: StoredImage?) {
        if let found = try resolveIfPresent(reference) {
            guard let image = try image(found.manifestDigest) else {
                throw ImageStoreError.damaged(
                    stream: StreamName.manifest(found.manifestDigest), .missing(tag: found.name))
            }
            return (try record(of: found, image), image)
        }
        guard let named = try namedImage(reference) else { throw ImageStoreError.imageNotFound(reference) }
        return (try record(of: named), nil)
    }

    /// The size of the EROFS image of a stack's highest layer, if the store keeps it.
    private func erofsSize(ofStack chainID: ContentDigest) throws -> UInt64? {
        guard let stream = try usableStream(StreamName.layerImage(chainID)) else { return nil }
        return try repository.openStream(stream).totalSize
    }
}
