public import Bytes
public import EROFS
public import Hashing
public import Repository

/// How an image is pulled.
public struct PullOptions: Sendable {
    /// Which manifest of an index is taken; this machine's where nothing else is said.
    public var platform: Platform
    /// The tag; nil takes the source's canonical name.
    public var name: ByteString?
    /// How many layers are read at the same time; nil for one a processor, two at least.
    public var jobs: Int?
    /// What unfinished blobs may take in the repository, all together, in bytes, so that a pull that was killed can be continued; 0 keeps
    /// none. Only blobs that come from afar are kept, and none where space is short.
    public var keptBytesLimit: UInt64 = 8 << 30
    /// Whether the blobs that layers come in are kept beside what is made of them, so that they can be pushed and exported as they are. They
    /// take the space that they take in a registry. An artifact's blobs are kept in any case.
    public var keepsBlobs = false
    /// What is done with fs-verity digests and signatures that come with the image.
    public var imageSignatures = ImageSignatures.use
    /// How large the image may be.
    public var limits = PullLimits()
    /// Whether an image is refused at the start that can hardly fit on the file system.
    public var checksSpace = true
    /// Receives what happens, from the pull's threads: see `PullObserver`.
    public var observer: PullObserver?

    public init(platform: Platform = .host, name: ByteString? = nil, jobs: Int? = nil, observer: PullObserver? = nil) {
        self.platform = platform
        self.name = name
        self.jobs = jobs
        self.observer = observer
    }
}

/// What a pull does with what an image says of its own fs-verity digests, and with the kernel's signatures of them: annotations of its
/// manifest, and artifacts that refer to it (OCI sealing specification of composefs).
public enum ImageSignatures: String, Sendable, Hashable, CaseIterable {
    /// Nothing.
    case ignore
    /// Digests are compared; signatures are put on the objects that they are of, where the repository has fs-verity and the kernel knows
    /// their certificate. Artifacts are looked for where that costs no request: in a layout, and among the store's referrers.
    case use
    /// The same, a registry is asked for artifacts too, and an image whose EROFS image ends up without a signature is refused.
    case require
}

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
    /// Layers that this pull stored, each distinct one counted once.
    public var newLayers: Int
    /// Layers that the store had, verified, each distinct one counted once.
    public var presentLayers: Int
    /// Of the new layers.
    public var statistics: LayerStatistics
    /// What was signed, by the repository's signer or with signatures that came with the image.
    public var signatures = SignatureCounts()
    /// The image's config; nil for an artifact.
    public var config: ImageConfig?
    /// Where the pull's threads spent their time: elapsed seconds by phase, summed over threads.
    public var profile: [(phase: String, seconds: Double)]

    /// Whether the image has a root file system; an artifact has none.
    public var isContainer: Bool { config != nil }
}
