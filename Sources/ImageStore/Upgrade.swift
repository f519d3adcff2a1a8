import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsRepository

extension ImageStore {
    /// The result of `upgrade`, counted in tags.
    public struct UpgradeResult: Sendable, Hashable {
        /// Tags that got their missing EROFS images.
        public var upgraded = 0
        /// Tags that lacked nothing.
        public var alreadyCurrent = 0
        /// Tags without a root file system.
        public var artifacts = 0
        /// Whether `meta.json` was rewritten in the form that programs write.
        public var metadataWritten = false
    }

    /// Creates the EROFS images of the repository's formats for every tagged image if the default one is missing or damaged, or if the link of
    /// its config is missing. References to images of other formats are kept, and `meta.json` is rewritten in the form that programs write. Each
    /// tag is upgraded in one durable step.
    ///
    /// - Throws: at the first image that cannot be read; the tags before it are upgraded.
    public func upgrade() throws -> UpgradeResult {
        var result = UpgradeResult()
        // An upgrade that was killed has published images without syncing their names. They would count as current.
        _ = try repository.recoverInterruptedPull()
        result.metadataWritten = try repository.normalizeMetadata()
        for tag in try tags() {
            guard let image = try image(tag.manifestDigest) else {
                throw ImageStoreError.damaged(stream: StreamName.manifest(tag.manifestDigest), .missing(tag: nil))
            }
            guard image.isContainer else {
                result.artifacts += 1
                continue
            }
            if let id = image.imageID(repository.erofsFormats.default), try hasIntactImage(id), try hasConfigName(image) {
                result.alreadyCurrent += 1
                continue
            }
            let tree = try tree(of: image)
            var publication = Repository.Publication()
            let images = try image.imageIDs(besides: storeImages(of: tree, &publication))
            try publish(
                manifest: image.manifest, digest: tag.manifestDigest, config: image.configBytes,
                layers: try layers(of: image).map { ($0.diffID, $0.stream) }, images: images, boot: image.bootImages, tag: tag.name,
                source: SourceHint.text(of: image, in: repository), publication)
            result.upgraded += 1
        }
        return result
    }

    /// Whether the name of an image's config leads to its config stream, or to that of another tagged image with the same config.
    private func hasConfigName(_ image: StoredImage) throws -> Bool {
        guard let stream = try usableStream(StreamName.config(image.configDigest)) else { return false }
        if stream == image.configStream { return true }
        return try tags().contains { tag in (try? self.image(tag.manifestDigest))?.configStream == stream }
    }
}
