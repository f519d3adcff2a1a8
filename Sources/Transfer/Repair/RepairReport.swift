public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsOCIModel
public import ComposefsRepository
public import ComposefsTransports

/// How a store is repaired.
public struct RepairOptions: Sendable {
    /// Only this image, as `ImageStore.resolve` takes it; nil for all. What is damaged of others is set aside all the same.
    public var image: ByteString?
    /// Only say what would be done.
    public var isDryRun = false
    /// Remove references that lead to nothing, and entries of `streams/` and `images/` that do.
    public var prunesDangling = false
    /// Another repository to bring from what is damaged: object by object where it has them, else image by image.
    public var repository: ImageStore?
    /// The places that an image may be fetched from, best first: by what was recorded when it was pulled, if anything, its name, and its
    /// manifest's digest. Empty for none. Opened when something of the image must be fetched.
    public var sources: @Sendable (_ recorded: ByteString?, _ name: ByteString, _ manifest: ContentDigest) -> [RepairSource]
    /// Ends the repair.
    public var cancellation = Cancellation()
    /// Told what happens, from several threads; must not block.
    public var observer: (@Sendable (RepairEvent) -> Void)?

    public init(
        sources: @escaping @Sendable (_ recorded: ByteString?, _ name: ByteString, _ manifest: ContentDigest) -> [RepairSource] = {
            _, _, _ in []
        }
    ) { self.sources = sources }
}

/// A place that an image may be fetched from.
public struct RepairSource: Sendable {
    /// The reference, for messages.
    public var name: ByteString
    public var open: @Sendable () throws -> any ImageSource

    public init(_ name: ByteString, open: @escaping @Sendable () throws -> any ImageSource) {
        self.name = name
        self.open = open
    }
}

/// One thing that a repair did, or would do.
public enum RepairAction: Sendable, Hashable {
    /// `meta.json` was made anew; what was wrong with it.
    case metadataWritten(fault: MetadataFault)
    /// A file was taken out of the way; where it is now, nil in a dry run.
    case setAside(path: ByteString, to: ByteString?)
    /// So many objects were brought from another repository.
    case objectsBrought(count: Int)
    /// A link was written anew; what it leads to.
    case linkWritten(path: ByteString, target: ByteString)
    /// An image's documents, streams and EROFS images were made anew from what is here.
    case regenerated(image: ByteString)
    /// An image was fetched: from where, and how many of its layers, nil in a dry run.
    case fetched(image: ByteString, from: ByteString, layers: Int?)
    /// A reference, or an entry, that led to nothing was removed.
    case danglingRemoved(path: ByteString)
    /// A left-over of an interrupted operation was removed.
    case temporaryRemoved(path: ByteString)

    /// A stable name of the kind, for programs.
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
    /// Nil for an image without one.
    public var manifestDigest: ContentDigest?
    /// Whether it was whole before.
    public var wasWhole: Bool
    /// Whether it is whole now, by the same checks as `ImageStore.check`. In a dry run as before.
    public var isWhole: Bool
    /// Why it could not be repaired; nil where it was, or need not be.
    public var failure: (any Error)?
}

/// What a repair did.
public struct RepairReport: Sendable {
    public var isDryRun = false
    /// In the order in which they were done.
    public var actions: [RepairAction] = []
    public var images: [RepairedImage] = []
    /// References that lead to nothing, and were left.
    public var dangling: [ByteString] = []
    /// Whether temporaries were left because another process uses the repository.
    public var isBusy = false

    public init() {}
}

/// What a repair tells while it runs.
public enum RepairEvent: Sendable {
    case did(RepairAction)
    /// An image is not whole, and is being repaired.
    case mending(image: ByteString)
    /// An image is being fetched.
    case pull(PullEvent)
}

/// Why an image cannot be repaired.
public enum RepairError: Error, Sendable, CustomStringConvertible {
    /// Nothing says where it came from, and no place was given.
    case noSource(image: ByteString)
    /// None of the places has it, or gives it: what each said.
    case unavailable(image: ByteString, reasons: [String])
    /// It was made from a directory: nothing but its EROFS image tells its files, and nothing but that directory, or another repository, has them.
    case notRebuildable(image: ByteString)
    /// It was stored anew, and is damaged all the same: what the check says.
    case stillDamaged(image: ByteString, String)

    public var description: String {
        switch self {
        case .noSource(let image): "\(image.withoutSecrets): nothing says where it can be fetched from"
        case .unavailable(let image, let reasons): "\(image.withoutSecrets): \(reasons.joined(separator: "; "))"
        case .notRebuildable(let image): "\(image.withoutSecrets): it was made from a directory, and must be made again"
        case .stillDamaged(let image, let fault): "\(image.withoutSecrets): \(fault)"
        }
    }
}
