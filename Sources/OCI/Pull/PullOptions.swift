public import Bytes
public import EROFS
public import Hashing

/// How an image is pulled.
public struct PullOptions: Sendable {
    /// Which manifest of an index is taken.
    public var platform: Platform
    /// The tag; nil takes the source's canonical name.
    public var name: ByteString?
    /// How many layers are read at the same time.
    public var jobs: Int?
    /// Receives what happens, from the pull's threads.
    public var observer: PullObserver?

    public init(platform: Platform = .host, name: ByteString? = nil, jobs: Int? = nil, observer: PullObserver? = nil) {
        self.platform = platform
        self.name = name
        self.jobs = jobs
        self.observer = observer
    }
}

/// What a pull brought.
public struct PullResult: Sendable {
    public var manifestDigest: ContentDigest
    public var configDigest: ContentDigest
    /// EROFS image identifiers by format version; empty for an artifact.
    public var imageIDs: [ErofsVersion: ObjectID]
    /// The identifier of the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// The name that now stands for the image.
    public var name: ByteString
    /// Layers, each distinct one counted once.
    public var newLayers: Int
    public var presentLayers: Int
    /// Of the new layers.
    public var statistics: LayerStatistics
    /// The image's config; nil for an artifact.
    public var config: ImageConfig?
    /// Where the pull's threads spent their time: elapsed seconds by phase, summed over threads.
    public var profile: [(phase: String, seconds: Double)]
}
