import ComposefsBytes
public import ComposefsHashing

/// Names a blob by its content (image-spec descriptor.md).
public struct Descriptor: Hashable, Sendable {
    public var mediaType: String
    public var digest: ContentDigest
    /// In bytes, at most 2^63-1.
    public var size: UInt64
    public var platform: Platform?
    public var annotations: [String: String]
    public var artifactType: String?
    public var urls: [String]
    /// The blob itself, where the document carries it; its size and digest were checked.
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

    /// - Parameter needsType: whether a missing media type is refused; else it is empty.
    package init(_ fields: DocumentFields, needsType: Bool = true) throws(OCIError) {
        if needsType {
            mediaType = try fields.requiredString("mediaType")
            guard !mediaType.isEmpty else { throw fields.malformed("mediaType", "is empty") }
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
            guard let data = Base64.decode(text.utf8) else { throw fields.malformed("data", "is not base64") }
            guard UInt64(data.count) == size, ContentDigest.of(data, digest.algorithm) == digest else {
                throw fields.malformed("data", "is not the blob that the descriptor names")
            }
            self.data = data
        }
    }

    /// The annotations that name an entry of a layout's index.json: the specified one first, then the whole reference that containerd and docker
    /// add.
    package static let nameKeys = ["org.opencontainers.image.ref.name", "io.containerd.image.name"]

    /// What the entry of an index leads to, as far as its media type says; nil where it is neither a manifest nor an index, and readers of
    /// indexes have to ignore it (image-spec image-index.md).
    package var isOfKnownKind: Bool { MediaType.isManifest(mediaType) || MediaType.isIndex(mediaType) }

    /// Whether registries need not have the blob: a layer that is not to be distributed, or a blob that is at addresses of its own.
    public var isForeign: Bool { LayerMediaType(mediaType)?.isDistributable == false || !urls.isEmpty }

    /// For messages about a foreign blob that is not here: what it is and where it is.
    public var foreignNote: String {
        let places = urls.prefix(3).map { ByteString(hidingSecrets($0)).description }
        return "it is a foreign layer, which need not be with the image"
            + (places.isEmpty ? "" : "; the manifest says that it is at \(places.joined(separator: ", "))")
    }

    /// A signature or provenance record beside the images of an index, not an image.
    package var isAttestation: Bool { isMarkedAsAttestation || platform?.isUnknown == true }

    /// The same where the entry says so outright. Other builders leave the platform of an image unknown, too.
    package var isMarkedAsAttestation: Bool { annotations["vnd.docker.reference.type"] != nil }
}
