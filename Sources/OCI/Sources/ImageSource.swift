/// Who has the bytes of an image: a registry, a layout, an archive. Synchronous; called from the pull's own threads, several at once.
///
/// What a source returns is not trusted: whoever calls compares size and digest with the descriptor.
public protocol ImageSource: Sendable {
    /// The manifest or index that the reference names.
    func rootManifest() throws -> SourceManifest

    /// A manifest or index that an index names; at most `ImageLimits.manifestBytes`.
    func manifest(_ descriptor: Descriptor) throws -> [UInt8]

    /// The bytes of a config or a layer.
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader

    /// The name that a pull tags by default.
    var canonicalName: String { get }
}

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
}
