public import ComposefsBoot
public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsDisks
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// Options of a pull.
public struct PullOptions: Sendable {
    /// The platform that is selected from an index; by default this machine's.
    public var platform: Platform
    /// When the registry is asked for the manifest.
    public var policy: PullPolicy
    /// The tag; nil for the source's canonical name.
    public var name: ByteString?
    /// The number of layers that are read at the same time; nil for one per processor, and at least two.
    public var jobs: Int?
    /// The limit for all partial blobs in the repository together, in bytes; 0 keeps none. Partial blobs let the next pull continue an
    /// interrupted download. They are kept only for remote sources, and only if there is enough free space.
    public var keptBytesLimit: UInt64 = 8 << 30
    /// Whether the original blobs of layers are kept too, so that they can be pushed and exported unchanged. They take as much space as in
    /// a registry. An artifact's blobs are always kept.
    public var keepsBlobs = false
    /// The use of fs-verity digests and signatures that the image states.
    public var imageSignatures = ImageSignatures.use
    /// Whether an image is refused unless it is sealed: its config has the label `SealLabel.key`, and the label's digest is that of the image
    /// that its layers give.
    public var requiresSeal = false
    /// The signature policy that the image must satisfy; nil asks none. `LoadedPolicy.ofHost` reads that of this machine.
    ///
    /// It is asked for each image that is read from its source, before anything of it is stored and any layer is fetched. What the policy accepts
    /// under no circumstances is refused before the first request, even if the store has it. A signature is not looked for again when the store has the
    /// image and the source is not asked.
    public var signaturePolicy: LoadedPolicy?
    /// The images for booting that are made and recorded with the image, in the same step; nil makes none. Recorded ones stay in any case.
    public var bootImages: BootImageRequest?
    /// The disks that are made of the image while its layers arrive, and kept with it, in the same step. An artifact is refused then.
    public var disks: [DiskRequest] = []
    /// Whether artifacts that refer to the image, such as signatures and bills of materials, are stored as its referrers too.
    ///
    /// This takes one request for the image and one for each artifact, in addition to those for their content. Referrers are stored after
    /// the image, so the image is stored even if a referrer is not available. A stored image that the policy reuses without a request gets
    /// no referrers.
    public var storesReferrers = false
    /// The full reference of the source, which is recorded with the image for a later repair: a hint that decides nothing. Empty for the
    /// canonical name of a registry's image; nil records none. `Store.pull` sets it.
    public var recordedReference: ByteString?
    /// Limits for the size of the image.
    public var limits = PullLimits()
    /// Whether an image that cannot fit on the file system is refused before the first layer is read.
    public var checksSpace = true
    /// Ends the pull with `CancellationError`, before the next read or during a wait. Completed layers are kept for the next pull. A
    /// `RegistryClient` has its own cancellation: pass it the same value, so that transfers end immediately.
    public var cancellation = Cancellation()
    /// Receives the pull's events; see `PullObserver`.
    public var observer: PullObserver?
    /// Called once nothing more is fetched from the source: for a program that gives up the network then (`AppliedConfinement.endNetwork`). Called on
    /// the thread of the pull; an error ends it. Not called by a pull that fails before, and by one that finds the image in the repository and
    /// fetches nothing. Layers are merged after it, except for `disks`, with `storesReferrers`, and of other platforms than the last one; without it,
    /// they are merged while others arrive.
    public var downloadsEnded: (@Sendable () throws -> Void)?

    /// Default options, except for the parameters.
    public init(
        platform: Platform = .host, policy: PullPolicy = .missing, name: ByteString? = nil, jobs: Int? = nil, observer: PullObserver? = nil
    ) {
        self.platform = platform
        self.policy = policy
        self.name = name
        self.jobs = jobs
        self.observer = observer
    }

    /// The same with a tag as text or bytes.
    public init(
        platform: Platform = .host, policy: PullPolicy = .missing, name: some ByteStringConvertible, jobs: Int? = nil,
        observer: PullObserver? = nil
    ) {
        self.init(platform: platform, policy: policy, name: Optional(name.byteString), jobs: jobs, observer: observer)
    }
}

/// The use of the fs-verity digests that an image states for itself, and of their signatures for the kernel. They are in annotations of the
/// manifest and in artifacts that refer to it (OCI sealing specification of composefs).
public enum ImageSignatures: String, Sendable, Hashable, CaseIterable {
    /// Digests and signatures are ignored.
    case ignore
    /// Digests are compared. Objects get their signatures if the repository has fs-verity and the kernel knows the certificate. Artifacts
    /// are used if that needs no request: from a layout, and from the store's referrers.
    case use
    /// As `use`; in addition a registry is asked for artifacts, and an image whose EROFS image has no signature is refused.
    case require
}
