public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel

/// An image in a registry, a layout or an archive. Synchronous; called from the pull's own threads, several at once.
///
/// What a source returns is not trusted: the caller compares size and digest with the descriptor.
public protocol ImageSource: Sendable {
    /// The manifest or index that the reference names.
    func rootManifest() throws -> SourceManifest

    /// A manifest or index that an index names; at most `ImageLimits.largestManifest`.
    func manifest(_ descriptor: Descriptor) throws -> [UInt8]

    /// The bytes of a config or a layer, from the first to the last.
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader

    /// Where a download finds the bytes of a config or a layer: `openBlob`, by default.
    func origins(of descriptor: Descriptor) throws -> any BlobOrigins

    /// Whether blobs come from afar: then no two pulls of a store fetch the same one, and what a pull that was killed has fetched is kept for
    /// the next. False by default.
    var isRemote: Bool { get }

    /// Manifests that refer to this one as their `subject`, only those of one artifact type if it is given; maybe others too. None by
    /// default.
    func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor]

    /// The name that a pull tags by default.
    var canonicalName: String { get }

    /// Names under which an earlier pull may have left the image: the canonical one by default.
    var localNames: [String] { get }

    /// The digest, if the reference has one, of the manifest or index that it names. Nil by default.
    var pinnedDigest: ContentDigest? { get }
}

/// An error of a source or destination that tells how far it reaches.
public protocol PlaceError: Error {
    /// The source or destination answers, and only does not have, give or take this one thing: others may fare better. False if nothing more
    /// is to be expected of it, and if content is not what it is said to be.
    var concernsOneThing: Bool { get }
}

extension OCIError: PlaceError {
    public var concernsOneThing: Bool { if case .notFound = self { true } else { false } }
}

extension ImageSource {
    public var isRemote: Bool { false }
    public var localNames: [String] { [canonicalName] }
    public var pinnedDigest: ContentDigest? { nil }
    public func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] { [] }
    public func origins(of descriptor: Descriptor) throws -> any BlobOrigins { LocalOrigin { try openBlob(descriptor) } }

    /// The download of a config or a layer.
    ///
    /// - Parameter partial: what is kept of the blob.
    public func download(
        _ descriptor: Descriptor, partial: (any PartialBlob)? = nil, _ cancellation: Cancellation = Cancellation(),
        _ observer: BlobObserver? = nil
    ) -> BlobDownload {
        BlobDownload(descriptor, partial: partial, cancellation, observer) { try origins(of: descriptor) }
    }
}

/// The document that a reference names, and what its source promised about it.
public struct SourceManifest: Sendable {
    public var bytes: [UInt8]
    /// If the source says one.
    public var mediaType: String?
    /// If the reference was by digest, or the source has a descriptor of the document. Not checked yet.
    public var expected: Descriptor?

    public init(bytes: [UInt8], mediaType: String? = nil, expected: Descriptor? = nil) {
        self.bytes = bytes
        self.mediaType = mediaType
        self.expected = expected
    }
}

/// A blob's bytes from beginning to end. Used by one thread at a time.
public protocol BlobReader: AnyObject {
    /// Fills the front of `buffer`; 0 is the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}
