public import Hashing

/// What a pull tells while it runs. Layers are counted from 0, the lowest first, as the manifest lists them. Events come from several threads, one at a time; whoever receives them must not block.
public enum PullEvent: Sendable {
    /// The reference is being looked up.
    case resolving(reference: String)
    /// The manifest is known and verified; `layers` are all layers from bottom to top, with the blob's size in bytes.
    case resolved(manifest: ContentDigest, layers: [(digest: ContentDigest, size: UInt64)])
    /// The store has the layer.
    case layerPresent(index: Int)
    /// The layer's blob is being read.
    case layerStarted(index: Int)
    /// `received` bytes of the blob have come so far.
    case layerProgress(index: Int, received: UInt64)
    /// The blob's digest and the diff ID are verified, all objects stored.
    case layerStored(index: Int)
    /// All layers are stored; their trees are being merged.
    case merging
    /// The EROFS images are being made.
    case writingImage
    /// Everything is being made durable, and then visible.
    case publishing
    /// The tag is there.
    case done
}

/// Receives a pull's events.
public typealias PullObserver = @Sendable (PullEvent) -> Void
