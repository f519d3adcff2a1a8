package import ComposefsBytes

/// Limits of an image's size, so that a hostile image causes an error instead of a full disk or memory. The defaults are generous; callers
/// can raise them.
public struct PullLimits: Hashable, Sendable {
    /// The uncompressed size of a layer in bytes. Without this limit, a few megabytes of gzip could become terabytes.
    public var layerBytes: UInt64 = 64 << 30
    /// The number of entries in a layer. The limit for sparse files, which cost more, is a thousandth of it, and at least 4,096.
    public var layerEntries: UInt64 = 4_000_000
    /// The number of entries in all layers together.
    public var imageEntries: UInt64 = 8_000_000
    /// The memory in bytes that the merged tree and its image may use, by an upper estimate. Large images may use more: see
    /// `treeBytes(ofLayers:)`.
    public var treeBytes: UInt64 = 384 << 20
    /// The size of a manifest or an index in bytes (distribution-spec: registries should accept at least 4 MiB); at most
    /// `ImageLimits.largestManifest`.
    public var manifestBytes: UInt64 = UInt64(ImageLimits.manifestBytes)
    /// The length of an entry's path in bytes. Paths of more than 4095 bytes, Linux's limit, are always refused.
    public var pathBytes: UInt64 = 4095
    /// The size of an entry's extended attributes in bytes, names and values together. Path and attributes together never exceed 1 MiB.
    public var xattrBytes: UInt64 = 256 << 10
    /// The depth of nested indexes, including the first one; at most `ImageLimits.deepestIndex`.
    public var indexDepth: UInt64 = UInt64(ImageLimits.indexDepth)

    public init() {}

    /// The memory limit for the tree of an image, which grows with the size of the image.
    ///
    /// - Parameter compressed: The size of all layers as fetched, in bytes.
    package func treeBytes(ofLayers compressed: UInt64) -> UInt64 {
        let (allowance, overflow) = compressed.multipliedReportingOverflow(by: 4)
        return overflow ? .max : max(treeBytes, allowance)
    }
}

/// An image exceeds a limit of `PullLimits`: the kind of limit, its value, and the size found, if known.
public struct LimitExceeded: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Limit: Hashable, Sendable {
        case layerBytes, layerEntries, imageEntries, treeBytes, manifestBytes, pathBytes, xattrBytes, indexDepth
    }

    public var limit: Limit
    /// The value of the limit.
    public var allowed: UInt64
    /// The size found; nil if the image was refused at the first byte or entry over the limit.
    public var found: UInt64?
    /// The document or the archive entry, if it is one of several.
    public var location: String?

    public init(_ limit: Limit, allowed: UInt64, found: UInt64? = nil, location: String? = nil) {
        self.limit = limit
        self.allowed = allowed
        self.found = found
        self.location = location
    }

    public var description: String {
        let count = found.map { "\($0)" } ?? "more than \(allowed)"
        let what =
            switch limit {
            case .layerBytes: "the layer has \(count) bytes"
            case .layerEntries: "the layer has \(count) entries"
            case .imageEntries: "the image's layers have \(count) entries"
            case .treeBytes: "the image's tree uses \(count) bytes of memory so far"
            case .manifestBytes: "it has \(count) bytes"
            case .pathBytes: "its path has \(count) bytes"
            case .xattrBytes: "its extended attributes have \(count) bytes"
            case .indexDepth: "the indexes are nested \(count) levels deep"
            }
        return (location.map { $0 + ": " } ?? "") + what + "; the limit is \(allowed)"
    }

    /// Describes an archive entry for `location`.
    package static func entry(_ path: ByteString, at offset: UInt64) -> String {
        let shown = path.count > 100 ? ByteString(path.bytes.prefix(100)).description + "…" : path.description
        return "entry \"\(shown)\" at byte \(offset) of the archive"
    }
}
