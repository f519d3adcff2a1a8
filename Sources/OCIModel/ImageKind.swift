/// What tells an image, which has a root filesystem, from an artifact, which is blobs to keep and to copy.
///
/// Media types say less than they should. Builders of 2015 gave configs the type that a file server guessed, or none; signatures, attestations and
/// bills of materials come with the config of an empty image. So the documents decide: what the config is, and what the layers are.
extension Manifest {
    /// The image's config; nil for an artifact. The only place that decides.
    ///
    /// - Parameter bytes: the blob that `config` names.
    /// - Throws: `OCIError` where this is an image, but its config or the types of its layers are no image's.
    public func imageConfig(from bytes: [UInt8]) throws(OCIError) -> ImageConfig? {
        guard mayBeImage else { return nil }
        // A type that says nothing: what looks like an image's config, is one, and is refused where something is wrong with it.
        guard MediaType.isImageConfig(MediaType.bare(self.config.mediaType)) || ImageConfig.isLikely(bytes) else { return nil }
        if layerKind == .anything {
            // Tools that sign and attach files make do with an empty image's config: it is for no system.
            guard let config = try? ImageConfig(parsing: bytes), config.platform.isComplete, config.diffIDs.count == layers.count else {
                return nil
            }
        }
        let config = try ImageConfig(parsing: bytes)
        try checkLayerTypes()
        return config
    }

    /// Whether the config decides. Where this is false, the manifest alone says that it is an artifact's.
    public var mayBeImage: Bool {
        let type = MediaType.bare(config.mediaType)
        guard layerKind != .others else { return false }
        if MediaType.isImageConfig(type) { return true }
        return MediaType.isGeneric(type) && (artifactType ?? "").isEmpty
    }

    /// Whether the config's type and those of the layers agree that this is an image.
    package var isImageByItsTypes: Bool {
        MediaType.isImageConfig(MediaType.bare(config.mediaType)) && [.archives, .absent].contains(layerKind)
    }

    private enum LayerKind {
        /// One of them at least is a layer of a root filesystem, by its type.
        case archives
        /// There are none.
        case absent
        /// Their types say nothing.
        case anything
        /// None of them is.
        case others
    }

    private var layerKind: LayerKind {
        if layers.isEmpty { return .absent }
        if layers.contains(where: { Self.isOfLayer(MediaType.bare($0.mediaType)) }) { return .archives }
        return layers.allSatisfy { Self.isOfUnknownBlob(MediaType.bare($0.mediaType)) } ? .anything : .others
    }

    /// The types of layers that are understood, and those of image layers that are not.
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
                throw .unsupported(
                    document: "manifest", "layer \(index + 1) is encrypted; decrypt the image first, as skopeo can")
            }
            guard LayerMediaType(layer.mediaType) != nil || Self.isOfUnknownBlob(MediaType.bare(layer.mediaType)) else {
                throw .unsupported(
                    document: "manifest",
                    "layer \(index + 1) has the media type \(quoted(layer.mediaType)), which is no layer of a root filesystem")
            }
        }
    }
}
