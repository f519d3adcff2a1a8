public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsOCIModel
public import ComposefsRepository
public import ComposefsTransports

/// How a store is repaired.
public struct RepairOptions: Sendable {
    /// Only this image, by a name or digest for `ImageStore.resolve`; nil for all. Damaged objects of other images are set aside in any case.
    public var image: ByteString?
    /// Only report what a repair would do.
    public var isDryRun = false
    /// Remove dangling references, and dangling entries of `streams/` and `images/`.
    public var prunesDangling = false
    /// Another repository to copy from: single objects if it has them, otherwise whole images.
    public var repository: ImageStore?
    /// The sources of an image, best first, by the source that was recorded when it was pulled (nil if none was), its name, and its manifest's
    /// digest. Empty if there are none. A source is opened when something of the image must be fetched.
    public var sources: @Sendable (_ recorded: ByteString?, _ name: ByteString, _ manifest: ContentDigest) -> [RepairSource]
    /// Ends the repair.
    public var cancellation = Cancellation()
    /// Receives events, from several threads. It must not block.
    public var observer: (@Sendable (RepairEvent) -> Void)?

    public init(
        sources: @escaping @Sendable (_ recorded: ByteString?, _ name: ByteString, _ manifest: ContentDigest) -> [RepairSource] = {
            _, _, _ in []
        }
    ) { self.sources = sources }
}

/// A source that an image may be fetched from.
public struct RepairSource: Sendable {
    /// The reference, for messages.
    public var name: ByteString
    public var open: @Sendable () throws -> any ImageSource

    public init(_ name: ByteString, open: @escaping @Sendable () throws -> any ImageSource) {
        self.name = name
        self.open = open
    }
}

/// One change that a repair made, or would make.
public enum RepairAction: Sendable, Hashable {
    /// `meta.json` was written again; what was wrong with it.
    case metadataWritten(fault: MetadataFault)
    /// A damaged file was moved; its new path, nil in a dry run.
    case setAside(path: ByteString, to: ByteString?)
    /// This number of objects was copied from another repository.
    case objectsBrought(count: Int)
    /// A link was created again; its target.
    case linkWritten(path: ByteString, target: ByteString)
    /// An image's documents, streams and EROFS images were generated from the contents of the store.
    case regenerated(image: ByteString)
    /// An image was fetched: its source, and the number of its layers that were read; nil in a dry run.
    case fetched(image: ByteString, from: ByteString, layers: Int?)
    /// A dangling reference or entry was removed.
    case danglingRemoved(path: ByteString)
    /// A temporary file of an interrupted operation was removed.
    case temporaryRemoved(path: ByteString)

    /// The name of the kind in JSON. It does not change.
    public var code: String {
        switch self {
        case .metadataWritten: "metadata-written"
        case .setAside: "set-aside"
        case .objectsBrought: "objects-brought"
        case .linkWritten: "link-written"
        case .regenerated: "regenerated"
        case .fetched: "fetched"
        case .danglingRemoved: "dangling-removed"
        case .temporaryRemoved: "temporary-removed"
        }
    }
}

/// An image after a repair.
public struct RepairedImage: Sendable {
    /// The tag; `oci-referrers/…` of a referrer; the name below `images/refs` of an image that has no manifest.
    public var name: ByteString
    /// Nil for an image without a manifest.
    public var manifestDigest: ContentDigest?
    /// Whether the image was complete and intact before.
    public var wasWhole: Bool
    /// Whether the image is complete and intact now, by the checks of `ImageStore.check`. In a dry run, the same as `wasWhole`.
    public var isWhole: Bool
    /// Why the image could not be repaired; nil if it was repaired or was intact.
    public var failure: (any Error)?

    package init(name: ByteString, manifestDigest: ContentDigest?, wasWhole: Bool, isWhole: Bool, failure: (any Error)? = nil) {
        self.name = name
        self.manifestDigest = manifestDigest
        self.wasWhole = wasWhole
        self.isWhole = isWhole
        self.failure = failure
    }
}

/// What a repair did.
public struct RepairReport: Sendable {
    public var isDryRun = false
    /// In chronological order.
    public var actions: [RepairAction] = []
    public var images: [RepairedImage] = []
    /// Dangling references that were kept.
    public var dangling: [ByteString] = []
    /// Whether temporary files were kept because another process uses the repository.
    public var isBusy = false

    public init() {}
}

/// An event of a running repair.
public enum RepairEvent: Sendable {
    case did(RepairAction)
    /// The repair of an incomplete or damaged image begins.
    case mending(image: ByteString)
    /// An image is being fetched.
    case pull(PullEvent)
}

/// Why an image cannot be repaired.
public enum RepairError: Error, Sendable, CustomStringConvertible {
    /// No source was recorded, the name is no registry reference, and the caller named no source.
    case noSource(image: ByteString)
    /// No source provides the image; the error of each.
    case unavailable(image: ByteString, reasons: [String])
    /// The image was created from a directory. Only that directory or another repository has its files.
    case notRebuildable(image: ByteString)
    /// The image was stored again and still has faults; the first finding of the check.
    case stillDamaged(image: ByteString, String)

    public var description: String {
        switch self {
        case .noSource(let image): "\(image.withoutSecrets): no source is known"
        case .unavailable(let image, let reasons): "\(image.withoutSecrets): \(reasons.joined(separator: "; "))"
        case .notRebuildable(let image): "\(image.withoutSecrets): it was created from a directory, and must be created again"
        case .stillDamaged(let image, let fault): "\(image.withoutSecrets): \(fault)"
        }
    }
}
