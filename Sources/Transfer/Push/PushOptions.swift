public import ComposefsCompression
public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel
package import ComposefsTransports

/// How to push.
public struct PushOptions: Sendable {
    /// What happens to the image's referrers (signatures, bills of materials) that the store has records of.
    public enum Referrers: Sendable, Hashable {
        /// They go along where the manifest's digest stays: a signature of another manifest is none.
        case whereUnchanged
        /// They go along in any case; where the manifest's digest changes, their `subject` does, and so their own digests.
        case rewritten
        case none
    }

    /// How layers are packed; nil as the manifest says, layer by layer. Layers whose original blob the destination has, can mount, or
    /// the store keeps, stay as they are where it is packed so.
    public var compression: CompressionFormat?
    /// Of gzip 1 to 9 (default 6), of zstd 1 to 22 (default 3).
    public var level: Int?
    /// How many layers are sent at the same time; nil for one each processor, at least two.
    public var jobs: Int?
    public var referrers: Referrers
    /// Ends the push, with `CancellationError`, before the next bytes are sent; the name stays as it was. A `RegistryClient` has one of its
    /// own: give it the same, and transfers end at once.
    public var cancellation = Cancellation()
    /// Told what happens; must not block.
    public var observer: PushObserver?

    public init(
        compression: CompressionFormat? = nil, level: Int? = nil, jobs: Int? = nil, referrers: Referrers = .whereUnchanged,
        observer: PushObserver? = nil
    ) {
        self.compression = compression
        self.level = level
        self.jobs = jobs
        self.referrers = referrers
        self.observer = observer
    }

    /// The levels that a compression has.
    public static func levels(of format: CompressionFormat) -> ClosedRange<Int>? {
        switch format {
        case .none: nil
        case .gzip: 1...9
        case .zstd: 1...22
        }
    }

    package func level(of format: CompressionFormat) throws(PushError) -> Int32 {
        guard let levels = Self.levels(of: format) else { return 0 }
        let chosen = level ?? (format == .gzip ? 6 : 3)
        guard levels.contains(chosen), let level = Int32(exactly: chosen) else { throw .level(chosen, compression: format.name) }
        return level
    }
}

/// What became of a layer.
public enum PushedLayer: Hashable, Sendable {
    /// The destination had it.
    case present
    /// The registry took it over from another repository of its own.
    case mounted
    case sent
}

/// What a push did.
public struct PushResult: Sendable {
    /// Of the manifest as it was pushed.
    public var manifestDigest: ContentDigest
    /// Of the manifest in the store; another one where layers were packed anew.
    public var sourceDigest: ContentDigest
    public var configDigest: ContentDigest
    /// As the pushed manifest lists them, the lowest first, and what became of each.
    public var layers: [(descriptor: Descriptor, outcome: PushedLayer)]
    /// Of all blobs that were sent, config and referrers' included, in bytes.
    public var bytesSent: UInt64
    /// Referrers that went along.
    public var referrers: [ContentDigest]
    /// Referrers, by their digests in the store, that did not.
    public var referrersLeftOut: [ContentDigest]
    /// Referrers, by their digests in the store, that the destination does not take.
    public var referrersRefused: [ReferrerProblem]
    /// Whether an image in Docker's format was made an OCI image of, because the destination takes no others. Its digest is another one then.
    public var isConverted = false

    /// Whether the manifest is the stored one, byte for byte.
    public var isUnchanged: Bool { manifestDigest == sourceDigest }
}

/// What a push tells while it runs, in the manner of `PullEvent`.
public struct PushEvent: Hashable, Sendable {
    /// What an event is about.
    public enum Component: Hashable, Sendable {
        case image
        /// One of its layers, counted from 0, the lowest first, and the diff ID, or an artifact's blob's digest.
        case layer(index: Int, digest: ContentDigest)
    }

    /// What happens.
    public enum Phase: Hashable, Sendable {
        // Of the image.
        /// All layers are known.
        case began(layers: [ContentDigest])
        /// All layers are there.
        case manifest
        /// The artifacts that belong to the image follow.
        case referrers
        case done

        // Of a layer.
        case queued
        case started
        /// More of the layer was sent.
        case bytes
        /// It is there; nothing had to be sent where it was present or mounted.
        case finished(PushedLayer)
    }

    public var component: Component
    public var phase: Phase
    /// Bytes of the uncompressed layer that were sent; for the image, of all layers together. What needs not be sent counts as sent.
    public var bytesDone: UInt64
    /// The uncompressed layer's size in bytes; for the image, of all layers together.
    public var bytesTotal: UInt64
}

/// Receives a push's events, from the push's threads and maybe several at a time; those of one layer come in order. It must not block.
public typealias PushObserver = @Sendable (PushEvent) -> Void
