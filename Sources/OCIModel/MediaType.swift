public import ComposefsCompression

/// The media types of images that are understood (image-spec media-types.md; docker image manifest v2, schema 2).
public enum MediaType {
    public static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
    public static let ociIndex = "application/vnd.oci.image.index.v1+json"
    public static let ociConfig = "application/vnd.oci.image.config.v1+json"
    public static let ociEmpty = "application/vnd.oci.empty.v1+json"
    public static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
    public static let dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
    public static let dockerConfig = "application/vnd.docker.container.image.v1+json"
    public static let dockerLayer = "application/vnd.docker.image.rootfs.diff.tar"
    public static let dockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    public static let dockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd"

    public static func isManifest(_ type: String) -> Bool { type == ociManifest || type == dockerManifest }
    public static func isIndex(_ type: String) -> Bool { type == ociIndex || type == dockerManifestList }
    /// The config of an image that has a root filesystem.
    public static func isImageConfig(_ type: String) -> Bool { type == ociConfig || type == dockerConfig }
    /// Whether a type says nothing about what it is the type of: none at all, or one that is no vendor's. Registries and builders of 2015 gave
    /// configs the type that their file server guessed.
    static func isGeneric(_ type: String) -> Bool {
        let subtype = type.split(separator: "/", maxSplits: 1).dropFirst().first ?? ""
        return !["vnd.", "prs.", "x."].contains { subtype.hasPrefix($0) }
    }
    /// A type without parameters and in lower case, as types are compared (RFC 6838, RFC 2045).
    package static func bare(_ type: String) -> String {
        let end = type.utf8.firstIndex { $0 == UInt8(ascii: ";") || $0 == 0x20 || $0 == 0x09 } ?? type.endIndex
        return type[..<end].lowercased()
    }
    /// Docker's first format, signed or not: no digests of uncompressed layers, not supported.
    public static func isDockerSchema1(_ type: String) -> Bool { type.hasPrefix("application/vnd.docker.distribution.manifest.v1+") }
    /// A type that says something about a manifest or index. Servers that keep them as plain files announce others, that say nothing:
    /// `application/octet-stream`, `text/plain`.
    package static func isOfDocuments(_ type: String) -> Bool { type.hasPrefix("application/vnd.") }
    /// A blob that only the holders of a key can read.
    public static func isEncrypted(_ type: String) -> Bool { bare(type).hasSuffix("+encrypted") }
}

/// What the media type of a layer promises about it. Content decides how a blob is unpacked: types are known to be wrong.
public struct LayerMediaType: Hashable, Sendable {
    public var compression: CompressionFormat
    /// False for layers that registries need not have (`foreign`, `nondistributable`).
    public var isDistributable: Bool

    /// Nil where `text` is not the type of a tar layer.
    public init?(_ text: String) {
        let type = MediaType.bare(text)
        let rest: Substring
        if let suffix = type.without("application/vnd.oci.image.layer.v1.tar") {
            (rest, isDistributable) = (suffix, true)
        } else if let suffix = type.without("application/vnd.oci.image.layer.nondistributable.v1.tar") {
            (rest, isDistributable) = (suffix, false)
        } else if let suffix = type.without(MediaType.dockerLayer) {
            (rest, isDistributable) = (suffix, true)
        } else if let suffix = type.without("application/vnd.docker.image.rootfs.foreign.diff.tar") {
            (rest, isDistributable) = (suffix, false)
        } else {
            return nil
        }
        let isDocker = type.hasPrefix("application/vnd.docker.")
        switch rest {
        case "": compression = .none
        case "+gzip" where !isDocker, ".gzip" where isDocker: compression = .gzip
        case "+zstd" where !isDocker, ".zstd" where isDocker: compression = .zstd
        default: return nil
        }
    }
}

extension String {
    fileprivate func without(_ prefix: String) -> Substring? { hasPrefix(prefix) ? dropFirst(prefix.count) : nil }
}
