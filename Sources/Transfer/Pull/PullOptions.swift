public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsOCIModel

/// How an image is pulled.
public struct PullOptions: Sendable {
    /// Which manifest of an index is taken; this machine's where nothing else is said.
    public var platform: Platform
    /// When a registry is asked.
    public var policy = PullPolicy.missing
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
    /// Whether artifacts that refer to the image, such as signatures and bills of materials, are stored as its referrers too. Costs requests: one
    /// for the image and for each artifact, besides those for what they consist of. They come after the image: it is there, too, where one
    /// of them cannot be had. Of an image that is here nobody is asked.
    public var storesReferrers = false
    /// The reference that the image comes from, in full, for a later repair: it is kept with the image, as a hint that decides nothing. Empty for
    /// the source's canonical name in a registry; nil keeps none. `Store.pull` sets it.
    public var recordedReference: ByteString?
    /// How large the image may be.
    public var limits = PullLimits()
    /// Whether an image is refused at the start that can hardly fit on the file system.
    public var checksSpace = true
    /// Ends the pull, with `CancellationError`, before the next bytes are read and in the middle of a wait. Layers that are finished are kept
    /// for the next pull. A `RegistryClient` has one of its own: give it the same, and transfers end at once.
    public var cancellation = Cancellation()
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
