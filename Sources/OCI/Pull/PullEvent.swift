public import Hashing

/// What a pull tells while it runs. Events come from several threads, one at a time; whoever receives them must not block.
public enum PullEvent: Sendable {
    /// The reference is being looked up.
    case resolving(reference: String)
    /// The manifest is known and verified; `layers` are all layers from bottom to top, with the blob's size in bytes.
    case resolved(manifest: ContentDigest, layers: [(digest: ContentDigest, size: UInt64)])
    /// The store has the layer.
    case layerPresent(index: Int)
    case layerStarted(index: Int)
    /// `received` bytes of the blob have come so far.
    case layerProgress(index: Int, received: UInt64)
    /// The blob's digest and the diff ID are verified, all objects stored.
    case layerStored(index: Int)
    case merging
    case writingImage
    case publishing
    case done
}

/// Receives a pull's events.
public typealias PullObserver = @Sendable (PullEvent) -> Void
