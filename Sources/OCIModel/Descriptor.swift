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

    package init(_ fields: DocumentFields) throws(OCIError) {
        mediaType = try fields.requiredString("mediaType")
        guard !mediaType.isEmpty else { throw fields.malformed("mediaType", "is empty") }
        digest = try fields.digest("digest")
        size = try fields.size("size")
        platform = if let platform = try fields.fields("platform") { try Platform(platform) } else { nil }
        annotations = try fields.map("annotations")
        artifactType = try fields.string("artifactType")
        urls = try fields.strings("urls") ?? []
        if let text = try fields.string("data") {
            guard let data = Base64.decode(text.utf8) else { throw fields.malformed("data", "is not base64") }
            guard UInt64(data.count) == size, ContentDigest.of(data, digest.algorithm) == digest else {
                throw fields.malformed("data", "is not the blob that the descriptor names")
            }
            self.data = data
        }
    }

    /// A signature or provenance record beside the images of an index, not an image.
    package var isAttestation: Bool { annotations["vnd.docker.reference.type"] != nil || platform?.isUnknown == true }
}
