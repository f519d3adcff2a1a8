public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsRepository

/// What a pull brought.
public struct PullResult: Sendable {
    /// Of the platform's manifest, also where the reference named an index.
    public var manifestDigest: ContentDigest
    /// The manifest stream's object, which has the image's layers and config below it.
    public var manifestStream: ObjectID
    /// Of the config's bytes.
    public var configDigest: ContentDigest
    /// The config stream's object.
    public var configStream: ObjectID
    /// EROFS image identifiers by format version; empty for an artifact.
    public var imageIDs: [ErofsVersion: ObjectID]
    /// The identifier of the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// The name that now stands for the image.
    public var name: ByteString
    /// A second name, which a pull of all platforms gives to the one that is wanted here.
    public var otherName: ByteString?
    /// The layers from bottom to top, as manifest and config list them.
    public var layers: [PulledLayer]
    /// Layers that this pull stored, each distinct one counted once.
    public var newLayers: Int
    /// Layers that the store had, verified, each distinct one counted once.
    public var presentLayers: Int
    /// Of the new layers.
    public var statistics: LayerStatistics
    /// What was signed, by the repository's signer or with signatures that came with the image.
    public var signatures = SignatureCounts()
    /// Artifacts that refer to the image, or to one of these, and are stored as such now; where `PullOptions.storesReferrers` asks for them.
    public var referrers: [ContentDigest] = []
    /// Those that are nothing that can be stored: indexes, or manifests of a kind that is not known.
    public var referrersLeftOut: [ContentDigest] = []
    /// Those that the source lists and does not have or give, and lists that it does not give. The image is whole without them.
    public var referrersUnavailable: [ReferrerProblem] = []
    /// The image's config; nil for an artifact.
    public var config: ImageConfig?
    /// Where the pull's threads spent their time: elapsed seconds by phase, summed over threads.
    public var profile: [(phase: String, seconds: Double)]
    /// How it came to this image.
    public var outcome = Outcome.pulled
    /// What the name stood for before, where that was another image: the tag has moved.
    public var previousManifestDigest: ContentDigest?

    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool { config != nil }
    /// How a container of the image is run; empty for an artifact.
    public var runtime: RuntimeConfig { config?.runtime ?? RuntimeConfig() }
    /// What the image is made for; nil for an artifact.
    public var platform: Platform? { config?.platform }
}

/// Why an artifact that refers to an image could not be had or sent.
public struct ReferrerProblem: Hashable, Sendable {
    /// What it refers to.
    public var subject: ContentDigest
    /// Nil where it is not known what there is.
    public var digest: ContentDigest?
    /// One line.
    public var reason: String
}

/// A layer of an image that was pulled.
public struct PulledLayer: Hashable, Sendable {
    /// Of the uncompressed archive; nil for an artifact's blob.
    public var diffID: ContentDigest?
    /// Of the blob, as the source has it.
    public var digest: ContentDigest
    /// The blob's size in bytes.
    public var size: UInt64
    /// As the manifest has it; the content's real compression may be another.
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
