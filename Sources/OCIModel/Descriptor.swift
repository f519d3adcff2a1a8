import ComposefsBytes
public import ComposefsHashing

/// Refers to a blob by its digest (image-spec, descriptor.md).
public struct Descriptor: Hashable, Sendable {
    public var mediaType: String
    public var digest: ContentDigest
    /// The size in bytes, at most 2^63-1.
    public var size: UInt64
    public var platform: Platform?
    public var annotations: [String: String]
    public var artifactType: String?
    public var urls: [String]
    /// The blob itself, if the document contains it. Its size and digest were checked.
    public var data: [UInt8]?

    public init(
        mediaType: String, digest: ContentDigest, size: UInt64, platform: Platform? = nil, annotations: [String: String] = [:],
        artifactType: String? = nil, urls: [String] = [], data: [UInt8]? = nil
    ) {
        self.mediaType = mediaType
        self.digest = digest
        self.size = size
        self.platform = platform
        self.annotations = annotations
        self.artifactType = artifactType
        self.urls = urls
        self.data = data
    }

    /// - Parameter needsType: Whether a missing media type is an error; if not, it is empty.
    package init(_ fields: DocumentFields, needsType: Bool = true) throws(OCIError) {
        if needsType {
            mediaType = try fields.requiredString("mediaType")
            guard !mediaType.isEmpty else { throw fields.malformed("mediaType", .empty) }
        } else {
            mediaType = try fields.string("mediaType") ?? ""
        }
        digest = try fields.digest("digest")
        size = try fields.size("size")
        platform = fields.object("platform").map { Platform($0) }
        annotations = fields.texts("annotations")
        artifactType = fields.text("artifactType")
        urls = fields.list("urls") ?? []
        if let text = try fields.string("data") {
            guard let data = Base64.decode(text.utf8) else { throw fields.malformed("data", .notBase64) }
            guard UInt64(data.count) == size, ContentDigest.of(data, digest.algorithm) == digest else {
                throw fields.malformed("data", .notDescribed)
            }
            self.data = data
        }
    }

    /// The annotations that name an entry of a layout's index.json: the specified one, then the full reference that containerd and docker
    /// add.
    package static let nameKeys = ["org.opencontainers.image.ref.name", "io.containerd.image.name"]

    /// Whether the entry of an index refers to a manifest or an index, according to its media type. Readers must ignore entries of other
    /// types (image-spec, image-index.md).
    package var isOfKnownKind: Bool { MediaType.isManifest(mediaType) || MediaType.isIndex(mediaType) }

    /// Whether registries need not have the blob: a non-distributable layer, or a blob with its own URLs.
    public var isForeign: Bool { LayerMediaType(mediaType)?.isDistributable == false || !urls.isEmpty }

    /// A note for messages about a missing foreign blob: what it is and where it can be found.
    public var foreignNote: String { Self.foreignNote(urls) }

    /// The error for a source that does not have the blob.
    package var missing: OCIError.Missing { .blob(digest, foreignURLs: isForeign ? urls : nil) }

    static func foreignNote(_ urls: [String]) -> String {
        let addresses = urls.prefix(3).map { ByteString(hidingSecrets($0)).description }
        return "it is a foreign layer, which images may leave out"
            + (addresses.isEmpty ? "" : "; the manifest says that it is at \(addresses.joined(separator: ", "))")
    }

    /// Whether the entry is not an image, but a signature or provenance record for the images of an index.
    package var isAttestation: Bool { isAnnotatedAsAttestation || platform?.isUnknown == true }

    /// Whether the entry is marked as an attestation. Some builders leave the platform of images unknown, too.
    package var isAnnotatedAsAttestation: Bool { annotations["vnd.docker.reference.type"] != nil }
}
