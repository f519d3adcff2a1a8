public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// The source of a pull: an image in a registry, a layout or an archive. Its methods block, and several threads of the pull call them at
/// once.
///
/// What a source returns is not trusted. The caller compares size and digest with the descriptor.
public protocol ImageSource: Sendable {
    /// Reads the manifest or index that the reference names.
    func rootManifest() throws -> SourceManifest

    /// Reads a manifest or index that an index lists, of at most `ImageLimits.largestManifest` bytes.
    func manifest(_ descriptor: Descriptor) throws -> [UInt8]

    /// Opens a config or a layer at its first byte.
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader

    /// The origins from which a config or a layer is downloaded; by default one, `openBlob`.
    func origins(of descriptor: Descriptor) throws -> any BlobOrigins

    /// Whether blobs come over the network. If so, no two pulls of a store fetch the same blob at the same time, and partial blobs of an
    /// interrupted pull are kept for the next one. False by default.
    var isRemote: Bool { get }

    /// Lists the manifests whose `subject` is this one; with an artifact type, only those. The list may contain others too. Empty by
    /// default.
    func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor]

    /// The manifest of the signatures that cosign keeps under a tag made from this digest (`signatureTag`); nil if there is none. Nil by default.
    func taggedSignatures(of digest: ContentDigest) throws -> [UInt8]?

    /// What the image is to a signature policy; by default unknown, so that only a policy's global default applies.
    var policyIdentity: ImageIdentity { get }

    /// The default tag of a pull.
    var canonicalName: String { get }

    /// The tags under which an earlier pull may have stored the image; by default only the canonical name.
    var localNames: [String] { get }

    /// The full reference if the source is a registry: its blobs can be mounted in other repositories of the same registry. Nil by default.
    var registryReference: RegistryReference? { get }

    /// The digest in the reference, which names a manifest or index; nil if it has none. Nil by default.
    var pinnedDigest: ContentDigest? { get }
}

/// An error of a source or destination that says what it affects.
public protocol TransportError: Error {
    /// Whether the error affects only this one document or blob: the source or destination responds, but does not have, provide or accept
    /// it. False if further requests will fail too, and if content does not match its digest.
    var concernsOneItem: Bool { get }
}

extension OCIError: TransportError {
    public var concernsOneItem: Bool { if case .notFound = self { true } else { false } }
}

extension ImageSource {
    public var isRemote: Bool { false }
    public var localNames: [String] { [canonicalName] }
    public var pinnedDigest: ContentDigest? { nil }
    public var registryReference: RegistryReference? { nil }
    public func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] { [] }
    public func taggedSignatures(of digest: ContentDigest) throws -> [UInt8]? { nil }
    public var policyIdentity: ImageIdentity { .unknown }
    public func origins(of descriptor: Descriptor) throws -> any BlobOrigins { LocalOrigin { try openBlob(descriptor) } }

    /// The download of a config or a layer, with retries.
    ///
    /// - Parameters:
    ///   - descriptor: of the blob.
    ///   - partial: the partial blob, if bytes are kept.
    ///   - cancellation: ends the download, with `CancellationError`.
    ///   - observer: receives the download's events.
    public func download(
        _ descriptor: Descriptor, partial: (any PartialBlob)? = nil, _ cancellation: Cancellation = Cancellation(),
        _ observer: BlobObserver? = nil
    ) -> BlobDownload {
        BlobDownload(descriptor, partial: partial, cancellation, observer) { try origins(of: descriptor) }
    }
}

/// The tag under which cosign keeps the signatures of a manifest or index: `sha256-HEX.sig`.
package func signatureTag(of digest: ContentDigest) -> String { "\(digest.algorithm.rawValue)-\(digest.hex).sig" }

/// The document that a reference names, with what the source states about it.
public struct SourceManifest: Sendable {
    /// The document.
    public var bytes: [UInt8]
    /// The media type, if the source states one.
    public var mediaType: String?
    /// The document's descriptor, if the reference has a digest or the source has a descriptor. The bytes have not been compared with it.
    public var expected: Descriptor?

    public init(bytes: [UInt8], mediaType: String? = nil, expected: Descriptor? = nil) {
        self.bytes = bytes
        self.mediaType = mediaType
        self.expected = expected
    }
}

/// Reads a blob from beginning to end. Used by one thread at a time.
public protocol BlobReader: AnyObject {
    /// Reads the next bytes into the front of `buffer` and returns their number; 0 at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int
}
