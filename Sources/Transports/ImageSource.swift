public import ComposefsHashing
public import ComposefsOCIModel

/// Who has the bytes of an image: a registry, a layout, an archive. Synchronous; called from the pull's own threads, several at once.
///
/// What a source returns is not trusted: whoever calls compares size and digest with the descriptor.
public protocol ImageSource: Sendable {
    /// The manifest or index that the reference names.
    func rootManifest() throws -> SourceManifest

    /// A manifest or index that an index names; at most `ImageLimits.largestManifest`.
    func manifest(_ descriptor: Descriptor) throws -> [UInt8]

    /// The bytes of a config or a layer.
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader

    /// The bytes of a config or a layer from an offset on, at most the blob's size. By default the bytes before it are read and dropped.
    ///
    /// - Parameter observer: is told of what goes wrong on the way and is got over, by whoever opens or reads.
    func openBlob(_ descriptor: Descriptor, from offset: UInt64, _ observer: BlobObserver?) throws -> any BlobReader

    /// Whether blobs come from afar: then no two pulls of a store fetch the same one, and what a pull that was killed has fetched is kept for
    /// the next. False by default.
    var isRemote: Bool { get }

    /// Throws where the pull shall end. Asked now and then while nothing is read. Does nothing by default.
    func checkCancellation() throws

    /// Manifests that refer to this one as their `subject`, only those of one artifact type where that is given; maybe others too. None by
    /// default.
    func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor]

    /// The name that a pull tags by default.
    var canonicalName: String { get }

    /// Names under which an earlier pull may have left the image: the canonical one by default.
    var localNames: [String] { get }

    /// The digest, where the reference has one, of the manifest or index that it names. Nil by default.
    var pinnedDigest: ContentDigest? { get }
}

/// An error of a source or destination that tells how far it reaches.
public protocol PlaceError: Error {
    /// The place answers, and just does not have, give or take this one thing: others may fare better. False where nothing more is to be
    /// expected of it, and where content is not what it is said to be.
    var concernsOneThing: Bool { get }
}

extension OCIError: PlaceError {
    public var concernsOneThing: Bool { if case .notFound = self { true } else { false } }
}

extension ImageSource {
    public var isRemote: Bool { false }
    public func checkCancellation() throws {}
    public var localNames: [String] { [canonicalName] }
    public var pinnedDigest: ContentDigest? { nil }
    public func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] { [] }

    public func openBlob(_ descriptor: Descriptor, from offset: UInt64, _ observer: BlobObserver?) throws -> any BlobReader {
        let reader = try openBlob(descriptor)
        guard offset > 0 else { return reader }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * 1024, alignment: 16)
        defer { buffer.deallocate() }
        var rest = offset
        while rest > 0 {
            let count = try reader.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(min(UInt64(buffer.count), rest))]))
            // Whoever reads on finds the end and knows what is missing.
            if count == 0 { break }
            rest -= UInt64(count)
        }
        return reader
    }
}

/// What happens to a blob on its way.
public enum BlobEvent: Sendable, Hashable {
    /// The transfer broke off; the next try comes after the delay.
    case retrying(reason: String, delay: Duration)
    /// The transfer goes on at this byte.
    case resumed(from: UInt64)
}

/// Is told of a blob's adventures. It must not block.
public typealias BlobObserver = @Sendable (BlobEvent) -> Void

/// The document that a reference names, and what its source promised about it.
public struct SourceManifest: Sendable {
    public var bytes: [UInt8]
    /// Where the source says one.
    public var mediaType: String?
    /// Where the reference was by digest, or the source has a descriptor of the document. Not checked yet.
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

    /// Says that what came was not the blob, or could not be taken for it. True where somebody else may have it: whoever then opens it again,
    /// from its beginning, gets it from there. False by default.
    ///
    /// - Parameter reason: one line, for messages.
    func reject(_ reason: String) -> Bool
}

extension BlobReader {
    public func reject(_ reason: String) -> Bool { false }
}
