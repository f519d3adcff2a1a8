public import ComposefsDisks
public import ComposefsHashing
public import ComposefsOCIModel

/// A progress event of a pull: the component that it concerns, the phase, and the number of bytes.
///
/// A pull reports `resolving` and `resolved`, then `skipped` or `queued` for every layer, so that the amount of work is known before the
/// first byte arrives. A queued layer reports `started`, then `bytes` until it is `verified` and `stored`. At the end the pull reports
/// `merging`, `writingImage`, `publishing`, `tagMoved` if the tag referred to another manifest, and `done`. A pull that uses a stored image
/// reports all layers as skipped. If `PullOptions.disks` asks for disks, layers are `materializing` and `materialized` at any time after they are
/// stored or skipped, and the image is `stitching` and `diskStored` before it is published. A pull of all platforms reports `resolving` once, and the other events for each image. After a failure
/// there are no further events.
public struct PullEvent: Hashable, Sendable {
    /// The component that an event concerns.
    public enum Component: Hashable, Sendable {
        /// The image as a whole.
        case image
        /// A layer: its index in the manifest, counted from 0 with the lowest layer first, and the digest of its blob.
        case layer(index: Int, digest: ContentDigest)
    }

    /// What a pull knows after it has read the manifest.
    public struct Resolution: Hashable, Sendable {
        /// The digest of the platform's manifest, which is verified.
        public var manifest: ContentDigest
        /// The descriptors of all layers, the lowest first.
        public var layers: [Descriptor]

        public init(manifest: ContentDigest, layers: [Descriptor]) {
            self.manifest = manifest
            self.layers = layers
        }
    }

    /// Why a layer is skipped.
    public enum Skip: Hashable, Sendable {
        /// The store has it, verified.
        case present
        /// It is the same as another layer of this image, which has this index.
        case repeated(of: Int)
    }

    /// The phase of the component.
    public enum Phase: Hashable, Sendable {
        // Phases of the image.
        /// The reference is being looked up.
        case resolving(reference: String)
        /// The manifest is known and verified.
        case resolved(Resolution)
        /// All layers are stored; their trees are being merged.
        case merging
        /// The EROFS images are being created.
        case writingImage
        /// Everything is being made durable, and then visible.
        case publishing
        /// The tag referred to another manifest before.
        case tagMoved(from: ContentDigest, to: ContentDigest)
        /// The tag refers to the image.
        case done

        /// All layers are stored, and what joins them to a disk is being written.
        case stitching(DiskKind)
        /// The store has the disk. It is kept if the pull succeeds.
        case diskStored(DiskKind)

        // Phases of a layer.
        /// It will be read.
        case queued
        /// Its blob is being read.
        case started
        /// More bytes of the blob have arrived; see `bytesDone`.
        case bytes
        /// The blob's digest and the diff ID have been verified.
        case verified
        /// It is in the store. The next pull uses it even if this one fails.
        case stored
        /// Its image for a disk is being written; its size in bytes.
        case materializing(DiskKind, byteCount: UInt64)
        /// Its image for a disk is in the store.
        case materialized(DiskKind)
        /// It is not read.
        case skipped(Skip)
        /// Another pull of this store is reading it, and this one waits.
        case waiting
        /// The transfer was interrupted and is retried after a pause.
        case retrying(reason: String, delay: Duration)
        /// The transfer continues at this byte of the blob.
        case resumed(from: UInt64)
    }

    /// The component that the event concerns.
    public var component: Component
    /// The phase of the component.
    public var phase: Phase
    /// The bytes of the blob that have arrived; for the image, the sum over all layers. Skipped layers count as a whole.
    public var bytesDone: UInt64
    /// The blob's size in bytes; for the image, the sum over all layers, which is 0 until it is resolved.
    public var bytesTotal: UInt64

    public init(_ component: Component, _ phase: Phase, bytesDone: UInt64 = 0, bytesTotal: UInt64 = 0) {
        self.component = component
        self.phase = phase
        self.bytesDone = bytesDone
        self.bytesTotal = bytesTotal
    }

    /// The layer's index; nil if the event concerns the image.
    public var layerIndex: Int? { if case .layer(let index, _) = component { index } else { nil } }
}

/// Receives a pull's events, on the pull's threads, possibly several at the same time. Events of one layer come in order. It must not
/// block.
public typealias PullObserver = @Sendable (PullEvent) -> Void
