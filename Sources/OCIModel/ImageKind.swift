/// Distinguishes images, which have a root file system, from artifacts, whose blobs are only kept and copied.
///
/// Media types are not enough. Builders of 2015 gave configs a type guessed by a file server, or none; signatures, attestations and bills
/// of materials use the config type of an image with an empty config. So the content of the config and the types of the layers decide.
extension Manifest {
    /// The image's config; nil for an artifact. This is the only place that decides between the two.
    ///
    /// - Parameter bytes: The blob that `config` refers to.
    /// - Throws: `OCIError` if this is an image, but its config or the media types of its layers are invalid.
    public func imageConfig(from bytes: [UInt8]) throws(OCIError) -> ImageConfig? {
        guard mayBeImage else { return nil }
        // For a generic type, a blob that looks like an image's config is treated as one, and is refused if it has errors.
        guard MediaType.isImageConfig(MediaType.bare(self.config.mediaType)) || ImageConfig.isLikely(bytes) else { return nil }
        if layerKind == .anything {
            // Tools that sign and attach files use the config of an empty image, which has no platform.
            guard let config = try? ImageConfig(parsing: bytes), config.platform.isComplete, config.diffIDs.count == layers.count else {
                return nil
            }
        }
        let config = try ImageConfig(parsing: bytes)
        try checkLayerTypes()
        return config
    }

    /// Whether the config must be read to decide. If false, the manifest alone shows that this is an artifact.
    public var mayBeImage: Bool {
        let type = MediaType.bare(config.mediaType)
        guard layerKind != .others else { return false }
        if MediaType.isImageConfig(type) { return true }
        return MediaType.isGeneric(type) && (artifactType ?? "").isEmpty
    }

    /// Whether the types of config and layers agree that this is an image.
    package var isImageByItsTypes: Bool {
        MediaType.isImageConfig(MediaType.bare(config.mediaType)) && [.archives, .absent].contains(layerKind)
    }

    private enum LayerKind {
        /// At least one has the type of an image layer.
        case archives
        /// There are no layers.
        case absent
        /// All types are generic.
        case anything
        /// No layer has the type of an image layer.
        case others
    }

    private var layerKind: LayerKind {
        if layers.isEmpty { return .absent }
        if layers.contains(where: { Self.isOfLayer(MediaType.bare($0.mediaType)) }) { return .archives }
        return layers.allSatisfy { Self.isOfUnknownBlob(MediaType.bare($0.mediaType)) } ? .anything : .others
    }

    /// The supported layer types, and image layer types that are not supported.
    private static func isOfLayer(_ type: String) -> Bool {
        LayerMediaType(type) != nil || MediaType.isEncrypted(type)
            || ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."].contains { type.hasPrefix($0) }
    }

    private static func isOfUnknownBlob(_ type: String) -> Bool {
        [
            "application/octet-stream", "binary/octet-stream", "application/gzip", "application/x-gzip", "application/x-tar",
            "application/x-gtar", "application/tar", "application/tar+gzip", "application/zstd",
        ].contains(type)
    }

    private func checkLayerTypes() throws(OCIError) {
        for (index, layer) in layers.enumerated() {
            if MediaType.isEncrypted(layer.mediaType) {
                throw .unsupported(document: "manifest", .encryptedLayer(index + 1))
            }
            guard LayerMediaType(layer.mediaType) != nil || Self.isOfUnknownBlob(MediaType.bare(layer.mediaType)) else {
                throw .unsupported(document: "manifest", .layerMediaType(layer: index + 1, layer.mediaType))
            }
        }
    }
}
