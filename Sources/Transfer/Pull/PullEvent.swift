public import ComposefsHashing
public import ComposefsOCIModel

/// What a pull tells while it runs: what it is about, what happens to it, and how far it is.
///
/// A pull of an image tells `resolving`, `resolved`, then for every layer either `skipped` or `queued`, so that what there is to do is known
/// before the first byte comes. A queued layer is `started` and tells `bytes` until it is `verified` and `stored`. In the end come `merging`,
/// `writingImage`, `publishing`, maybe `tagMoved`, and `done`. A pull that takes what is here tells only that all layers are. One of
/// all platforms is resolved once and tells the rest for each. A pull that fails tells nothing more.
public struct PullEvent: Hashable, Sendable {
    /// What an event is about.
    public enum Component: Hashable, Sendable {
        /// The image as a whole.
        case image
        /// One of its layers, counted from 0, the lowest first, as the manifest lists them, and the digest of its blob.
        case layer(index: Int, digest: ContentDigest)
    }

    /// What the pull knows when it has the manifest.
    public struct Resolution: Hashable, Sendable {
        /// Of the platform's manifest, verified.
        public var manifest: ContentDigest
        /// All layers, the lowest first.
        public var layers: [Descriptor]

        public init(manifest: ContentDigest, layers: [Descriptor]) {
            self.manifest = manifest
            self.layers = layers
        }
    }

    /// Why a layer is not read.
    public enum Skip: Hashable, Sendable {
        /// The store has it, verified.
        case present
        /// It is the same as another layer of this image, by that layer's index.
        case repeated(of: Int)
    }

    /// What happens.
    public enum Phase: Hashable, Sendable {
        // Of the image.
        /// The reference is being looked up.
        case resolving(reference: String)
        /// The manifest is known and verified.
        case resolved(Resolution)
        /// All layers are stored; their trees are being merged.
        case merging
        /// The EROFS images are being made.
        case writingImage
        /// Everything is being made durable, and then visible.
        case publishing
        /// The tag stood for another manifest before.
        case tagMoved(from: ContentDigest, to: ContentDigest)
        /// The tag is there.
        case done

        // Of a layer.
        /// It will be read when its turn comes.
        case queued
        /// Its blob is being read.
        case started
        /// More of the blob has come: `bytesDone`.
        case bytes
        /// The blob's digest and the diff ID are right.
        case verified
        /// It is in the store, for this pull or the next one.
        case stored
        /// It is not read.
        case skipped(Skip)
        /// Another pull of this store is reading it; this one waits for that.
        case waiting
        /// The transfer broke off and is tried again after a pause.
        case retrying(reason: String, delay: Duration)
        /// The transfer goes on at this byte of the blob.
        case resumed(from: UInt64)
    }

    public var component: Component
    public var phase: Phase
    /// Bytes of the blob that have come; for the image, of all layers together. What is skipped counts as come.
    public var bytesDone: UInt64
    /// The blob's size in bytes; for the image, of all layers together. 0 for the image before it is resolved.
    public var bytesTotal: UInt64

    public init(_ component: Component, _ phase: Phase, bytesDone: UInt64 = 0, bytesTotal: UInt64 = 0) {
        self.component = component
        self.phase = phase
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
    }

    /// The layer's index; nil where the event is about the image.
    public var layerIndex: Int? { if case .layer(let index, _) = component { index } else { nil } }
}

/// Receives a pull's events, from the pull's threads and maybe several at a time; those of one layer come in order. It must not block.
public typealias PullObserver = @Sendable (PullEvent) -> Void
