public import ComposefsCompression
public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel
package import ComposefsTransports

/// Options of a push.
public struct PushOptions: Sendable {
    /// How the recorded referrers of the image (signatures, bills of materials) are pushed.
    public enum Referrers: Sendable, Hashable {
        /// They are pushed if the manifest's digest does not change. A signature is not valid for another manifest.
        case ifUnchanged
        /// They are always pushed. If the manifest's digest changes, their `subject` and thus their own digests change too.
        case rewritten
        /// They are not pushed.
        case none
    }

    /// How an index is pushed.
    public enum Index: Sendable, Hashable {
        /// Byte for byte. It is refused unless all manifests that it lists are stored and keep their digests.
        case unchanged
        /// Byte for byte, with those of its manifests that are stored; these must keep their digests. The destination may refuse it.
        case sparse
        /// A new index of the manifests that are stored, with the digests with which they are sent. It is the stored one if that lists the same.
        case rewritten
    }

    /// The compression of layers; nil for the one that the manifest states for each layer. A layer's original blob is used if it has this
    /// compression and the destination has it or can mount it, or the store keeps it.
    public var compression: CompressionFormat?
    /// The compression level: 1 to 9 for gzip (default 6), 1 to 22 for zstd (default 3).
    public var level: Int?
    /// The number of layers that are sent at the same time; nil for one per processor, and at least two.
    public var jobs: Int?
    /// How referrers are pushed.
    public var referrers: Referrers
    /// How an index is pushed; without meaning for one image.
    public var index = Index.unchanged
    /// Ends the push with `CancellationError`, before the next bytes are sent. The tag stays unchanged. A `RegistryClient` has its own
    /// cancellation: pass it the same value, so that transfers end immediately.
    public var cancellation = Cancellation()
    /// Receives the push's events; see `PushObserver`.
    public var observer: PushObserver?

    /// Default options, except for the parameters.
    public init(
        compression: CompressionFormat? = nil, level: Int? = nil, jobs: Int? = nil, referrers: Referrers = .ifUnchanged,
        observer: PushObserver? = nil
    ) {
        self.compression = compression
        self.level = level
        self.jobs = jobs
        self.referrers = referrers
        self.observer = observer
    }

    /// The valid levels of a compression format; nil if it has none.
    public static func levels(of format: CompressionFormat) -> ClosedRange<Int>? {
        switch format {
        case .none: nil
        case .gzip: 1...9
        case .zstd: 1...22
        }
    }

    /// The chosen or default level.
    ///
    /// - Throws: `PushError.level`.
    package func level(of format: CompressionFormat) throws(PushError) -> Int32 {
        guard let levels = Self.levels(of: format) else { return 0 }
        let chosen = level ?? (format == .gzip ? 6 : 3)
        guard levels.contains(chosen), let level = Int32(exactly: chosen) else { throw .level(chosen, compression: format.name) }
        return level
    }
}

/// How the destination got a layer.
public enum PushedLayer: Hashable, Sendable {
    /// The destination had it.
    case present
    /// The registry mounted it from another of its repositories.
    case mounted
    /// It was sent.
    case sent
}

/// The result of a push.
public struct PushResult: Sendable {
    /// The digest of the pushed manifest.
    public var manifestDigest: ContentDigest
    /// The digest of the manifest in the store. It differs if layers were compressed again.
    public var sourceDigest: ContentDigest
    /// The digest of the config.
    public var configDigest: ContentDigest
    /// The layers of the pushed manifest, the lowest first, and how the destination got each.
    public var layers: [(descriptor: Descriptor, outcome: PushedLayer)]
    /// The size of all blobs that were sent, including the config and referrers, in bytes.
    public var bytesSent: UInt64
    /// The digests of the pushed referrers.
    public var referrers: [ContentDigest]
    /// Referrers that were not pushed because they belong to the stored manifest only, by their digests in the store.
    public var referrersLeftOut: [ContentDigest]
    /// Referrers that the destination refused, by their digests in the store.
    public var referrersRefused: [ReferrerProblem]
    /// Whether an image in Docker's format was converted to an OCI image, because the destination accepts no others. This changes its
    /// digest.
    public var isConverted = false

    /// Whether the manifest is the stored one, byte for byte.
    public var isUnchanged: Bool { manifestDigest == sourceDigest }
}

/// The result of a push of an index.
public struct IndexPushResult: Sendable {
    /// A manifest that was sent.
    public struct Manifest: Sendable {
        public var digest: ContentDigest
        /// The digest in the store. It differs if layers were compressed again.
        public var sourceDigest: ContentDigest
        /// As the index states it.
        public var platform: Platform?
        /// The layers, the lowest first, and how the destination got each.
        public var layers: [(descriptor: Descriptor, outcome: PushedLayer)]
    }

    /// The digest of the pushed index.
    public var digest: ContentDigest
    /// The digest of the index in the store. It differs if a new index was sent.
    public var sourceDigest: ContentDigest
    /// In the order of the index.
    public var manifests: [Manifest] = []
    /// What the index lists and the store does not have.
    public var missing: [ContentDigest] = []
    /// The size of all blobs that were sent, in bytes.
    public var bytesSent: UInt64 = 0
    /// The digests of the pushed referrers, of the index and its manifests.
    public var referrers: [ContentDigest] = []
    /// Referrers that were not pushed because they belong to a stored manifest or index only, by their digests in the store.
    public var referrersLeftOut: [ContentDigest] = []
    /// Referrers that the destination refused, by their digests in the store.
    public var referrersRefused: [ReferrerProblem] = []
    /// Whether documents in Docker's format were written to a layout or an archive of one, with their digests. Other readers of layouts may not
    /// find them.
    public var hasDockerFormat = false

    /// Whether the index is the stored one, byte for byte.
    public var isUnchanged: Bool { digest == sourceDigest }
}

/// A progress event of a push; see `PullEvent`.
public struct PushEvent: Hashable, Sendable {
    /// The component that an event concerns.
    public enum Component: Hashable, Sendable {
        /// The image as a whole.
        case image
        /// A layer: its index, counted from 0 with the lowest layer first, and its diff ID, or the digest of an artifact's blob.
        case layer(index: Int, digest: ContentDigest)
    }

    /// The phase of the component.
    public enum Phase: Hashable, Sendable {
        // Phases of the image.
        /// The layers are known; their identifiers.
        case began(layers: [ContentDigest])
        /// The destination has all layers; the manifest is sent.
        case manifest
        /// The referrers are sent.
        case referrers
        /// The push is complete.
        case done

        // Phases of a layer.
        /// It will be sent.
        case queued
        /// It is being sent.
        case started
        /// More bytes of the layer were sent; see `bytesDone`.
        case bytes
        /// The destination has it. Nothing was sent if it was present or mounted.
        case finished(PushedLayer)
    }

    /// The component that the event concerns.
    public var component: Component
    /// The phase of the component.
    public var phase: Phase
    /// The bytes of the uncompressed layer that were sent; for the image, the sum over all layers. A layer that need not be sent counts as
    /// sent.
    public var bytesDone: UInt64
    /// The size of the uncompressed layer in bytes; for the image, the sum over all layers.
    public var bytesTotal: UInt64
}

/// Receives a push's events, on the push's threads, possibly several at the same time. Events of one layer come in order. It must not
/// block.
public typealias PushObserver = @Sendable (PushEvent) -> Void
