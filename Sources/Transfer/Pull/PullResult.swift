public import ComposefsBoot
public import ComposefsBytes
public import ComposefsDisks
public import ComposefsEROFS
public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsRepository

/// The result of a pull.
public struct PullResult: Sendable, Codable {
    /// The digest of the platform's manifest, even if the reference names an index.
    public var manifestDigest: ContentDigest
    /// The object of the manifest stream, which refers to the image's layers and config.
    public var manifestStream: ObjectID
    /// The digest of the config.
    public var configDigest: ContentDigest
    /// The object of the config stream.
    public var configStream: ObjectID
    /// The image IDs of the EROFS images, by format version; empty for an artifact.
    public var imageIDs: [ErofsVersion: ObjectID]
    /// The image ID in the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// The image for booting that `PullOptions.bootImages` asked for: the one in the default format, or the one that matches.
    public var bootImage: BootImage?
    /// The disks that `PullOptions.disks` asked for, in the same order.
    public var disks: [KeptDisk] = []
    /// The tag that refers to the image.
    public var name: ByteString
    /// The additional tag that a pull of all platforms gives to the image for `PullOptions.platform`.
    public var otherName: ByteString?
    /// The index that a pull of all platforms has stored under the name; nil if the reference names a manifest.
    public var index: PulledIndex?
    /// The layers, the lowest first, as manifest and config list them.
    public var layers: [PulledLayer]
    /// The number of distinct layers that this pull stored.
    public var newLayers: Int
    /// The number of distinct layers that the store had, verified.
    public var presentLayers: Int
    /// Objects and bytes of the new layers.
    public var statistics: LayerStatistics
    /// The numbers of objects that were signed, by the repository's signer or with the image's signatures.
    public var signatures = SignatureCounts()
    /// The stored artifacts that refer to the image, or to one of these, if `PullOptions.storesReferrers` is set.
    public var referrers: [ContentDigest] = []
    /// Referrers that cannot be stored: indexes, and manifests of unknown kinds.
    public var referrersLeftOut: [ContentDigest] = []
    /// Referrers, and lists of them, that the source does not provide. The image is complete without them.
    public var referrersUnavailable: [ReferrerProblem] = []
    /// The image's config; nil for an artifact.
    public var config: ImageConfig?
    /// The elapsed seconds per phase, summed over the pull's threads.
    public var profile: [PhaseTime]
    /// Where the image comes from.
    public var outcome = Outcome.pulled
    /// The manifest that the tag referred to before, if it was another one.
    public var previousManifestDigest: ContentDigest?

    /// The time that a phase took.
    public struct PhaseTime: Sendable, Hashable, Codable {
        public var phase: String
        public var seconds: Double

        public init(phase: String, seconds: Double) {
            self.phase = phase
            self.seconds = seconds
        }
    }

    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool { config != nil }
    /// How a container of the image is to be run; empty for an artifact.
    public var runtime: RuntimeConfig { config?.runtime ?? RuntimeConfig() }
    /// The platform that the image is for; nil for an artifact.
    public var platform: Platform? { config?.platform }
}

/// A referrer that could not be pulled or pushed.
public struct ReferrerProblem: Hashable, Sendable, Codable {
    /// The manifest that it refers to.
    public var subject: ContentDigest
    /// The digest of the referrer; nil if the referrers could not be listed.
    public var digest: ContentDigest?
    /// The reason, in one line.
    public var reason: String
}

/// What became of referrers.
struct ReferrerOutcomes {
    var stored: [ContentDigest] = []
    var leftOut: [ContentDigest] = []
    var unavailable: [ReferrerProblem] = []
}

extension PullResult {
    var referrerOutcomes: ReferrerOutcomes {
        get { ReferrerOutcomes(stored: referrers, leftOut: referrersLeftOut, unavailable: referrersUnavailable) }
        set { (referrers, referrersLeftOut, referrersUnavailable) = (newValue.stored, newValue.leftOut, newValue.unavailable) }
    }
}

/// An index that was stored with what it lists.
public struct PulledIndex: Sendable, Hashable, Codable {
    /// A manifest that the index lists and that was left out.
    public struct Missing: Sendable, Hashable, Codable {
        public var digest: ContentDigest
        /// The reason, in one line.
        public var reason: String
    }

    public var digest: ContentDigest
    /// The name of the index.
    public var name: ByteString
    /// The manifests that it lists, those of the indexes in it included, and that are stored.
    public var manifests: [ContentDigest] = []
    /// What it lists and is not stored.
    public var leftOut: [Missing] = []
}

/// A layer of a pulled image.
public struct PulledLayer: Hashable, Sendable, Codable {
    /// The digest of the uncompressed archive; nil for an artifact's blob.
    public var diffID: ContentDigest?
    /// The digest of the source's blob.
    public var digest: ContentDigest
    /// The blob's size in bytes.
    public var size: UInt64
    /// The media type in the manifest. The actual compression can differ.
    public var mediaType: String

    package static func list(_ manifest: Manifest, _ config: ImageConfig?) -> [PulledLayer] {
        manifest.layers.enumerated().map { index, layer in
            let diffIDs = config?.diffIDs ?? []
            return PulledLayer(
                diffID: diffIDs.indices.contains(index) ? diffIDs[index] : nil, digest: layer.digest, size: layer.size,
                mediaType: layer.mediaType)
        }
    }
}
