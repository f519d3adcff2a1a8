public import ComposefsCompression

/// The supported media types of images (image-spec, media-types.md; docker image manifest v2, schema 2).
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
    /// Whether this is the config type of an image with a root file system.
    public static func isImageConfig(_ type: String) -> Bool { type == ociConfig || type == dockerConfig }
    /// Whether a type carries no information: an empty type, or one outside the vendor, personal and private trees. Registries and builders
    /// of 2015 gave configs a type guessed by a file server.
    static func isGeneric(_ type: String) -> Bool {
        let subtype = type.split(separator: "/", maxSplits: 1).dropFirst().first ?? ""
        return !["vnd.", "prs.", "x."].contains { subtype.hasPrefix($0) }
    }
    /// A type without parameters and in lower case, the form in which types are compared (RFC 6838, RFC 2045).
    package static func bare(_ type: String) -> String {
        let end = type.utf8.firstIndex { $0 == UInt8(ascii: ";") || $0 == 0x20 || $0 == 0x09 } ?? type.endIndex
        return type[..<end].lowercased()
    }
    /// Whether this is docker's schema 1, signed or not. It has no diff IDs and is not supported.
    public static func isDockerSchema1(_ type: String) -> Bool { type.hasPrefix("application/vnd.docker.distribution.manifest.v1+") }
    /// Whether the type is specific to manifests or indexes. Servers that store them as plain files announce generic types, such as
    /// `application/octet-stream` or `text/plain`.
    package static func isOfDocuments(_ type: String) -> Bool { type.hasPrefix("application/vnd.") }
    /// Whether this is `type/subtype` without parameters, each of at most 127 letters, digits and `!#$&-^_.+` (RFC 6838, section 4.2).
    package static func isWellFormed(_ type: String) -> Bool {
        let parts = type.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return parts.count == 2
            && parts.allSatisfy { part in
                (1...127).contains(part.count) && part.first.map(isLetterOrDigit) == true
                    && part.allSatisfy { isLetterOrDigit($0) || "!#$&-^_.+".utf8.contains($0) }
            }
    }
    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
    }
    /// Whether the blob is encrypted.
    public static func isEncrypted(_ type: String) -> Bool { bare(type).hasSuffix("+encrypted") }
}

/// The information in a layer's media type. The content decides how a layer is decompressed, because media types are sometimes wrong.
public struct LayerMediaType: Hashable, Sendable {
    public var compression: CompressionFormat
    /// False for layers that registries need not have (`foreign`, `nondistributable`).
    public var isDistributable: Bool

    /// Nil if `text` is not the type of a tar layer.
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
