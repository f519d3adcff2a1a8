package import ComposefsBytes

/// How large an image may be, so that a hostile one ends in an error and not in a full disk or memory. Generous for honest images; whoever
/// knows better raises what is in the way.
public struct PullLimits: Hashable, Sendable {
    /// Bytes of one layer, uncompressed. Without it a few megabytes of gzip could become terabytes.
    public var layerBytes: UInt64 = 64 << 30
    /// Entries of one layer's archive. Of sparse files, which cost more, there may be a thousandth, and at least 4,096.
    public var layerEntries: UInt64 = 4_000_000
    /// Entries of all layers together.
    public var imageEntries: UInt64 = 8_000_000
    /// Bytes of memory that the merged tree and the image made of it may take, estimated from above. Large images may take more: see
    /// `treeBytes(ofLayers:)`.
    public var treeBytes: UInt64 = 384 << 20
    /// Bytes of a manifest or an index (distribution-spec: registries take 4 MiB at least); at most `ImageLimits.largestManifest`.
    public var manifestBytes: UInt64 = UInt64(ImageLimits.manifestBytes)
    /// Bytes of an entry's path. More than 4095, which is what Linux takes, are refused whatever this is.
    public var pathBytes: UInt64 = 4095
    /// Bytes of an entry's extended attributes, names and values together. Path and attributes together never exceed 1 MiB.
    public var xattrBytes: UInt64 = 256 << 10
    /// Indexes that name an index that names an index …, the first one counted; at most `ImageLimits.deepestIndex`.
    public var indexDepth: UInt64 = UInt64(ImageLimits.indexDepth)

    public init() {}

    /// What the tree of an image may take: whoever sends much may need much.
    ///
    /// - Parameter compressed: bytes of all layers as they are fetched.
    package func treeBytes(ofLayers compressed: UInt64) -> UInt64 {
        let (allowance, overflow) = compressed.multipliedReportingOverflow(by: 4)
        return overflow ? .max : max(treeBytes, allowance)
    }
}

/// A limit of `PullLimits` that an image exceeds: what is too large and how large it is, as far as that is known.
public struct LimitExceeded: Error, Hashable, Sendable, CustomStringConvertible {
    public enum Limit: Hashable, Sendable {
        case layerBytes, layerEntries, imageEntries, treeBytes, manifestBytes, pathBytes, xattrBytes, indexDepth
    }

    public var limit: Limit
    /// The most that is allowed.
    public var allowed: UInt64
    /// What there is; nil where it was refused at the first byte or entry too many.
    public var found: UInt64?
    /// The document or the archive's entry, where it is one of several.
    public var place: String?

    public init(_ limit: Limit, allowed: UInt64, found: UInt64? = nil, place: String? = nil) {
        self.limit = limit
        self.allowed = allowed
        self.found = found
        self.place = place
    }

    public var description: String {
        let count = found.map { "\($0)" } ?? "more than \(allowed)"
        let what =
            switch limit {
            case .layerBytes: "the layer has \(count) bytes"
            case .layerEntries: "the layer has \(count) entries"
            case .imageEntries: "the image's layers have \(count) entries"
            case .treeBytes: "up to here the image's tree takes \(count) bytes of memory"
            case .manifestBytes: "it has \(count) bytes"
            case .pathBytes: "its path has \(count) bytes"
            case .xattrBytes: "its extended attributes have \(count) bytes"
            case .indexDepth: "\(count) indexes, one inside the other"
            }
        return (place.map { $0 + ": " } ?? "") + what + "; the limit is \(allowed)"
    }

    /// An entry of an archive as the place.
    package static func entry(_ path: ByteString, at offset: UInt64) -> String {
        let shown = path.count > 100 ? ByteString(path.bytes.prefix(100)).description + "…" : path.description
        return "entry \"\(shown)\" at byte \(offset) of the archive"
    }
}
