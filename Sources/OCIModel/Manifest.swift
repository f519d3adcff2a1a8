import ComposefsJSON

/// The document that a reference or an index entry refers to.
public enum ManifestDocument: Hashable, Sendable {
    case manifest(Manifest)
    case index(ImageIndex)

    /// Parses a manifest or an index.
    ///
    /// - Parameter mediaType: The type that the registry or the descriptor announced. The document must agree with it.
    public init(parsing bytes: [UInt8], mediaType: String?) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "manifest", limit: ImageLimits.largestManifest)
        let type = try Self.mediaType(fields, given: mediaType)
        if MediaType.isIndex(type) {
            self = .index(try ImageIndex(fields, bytes, type))
        } else {
            self = .manifest(try Manifest(fields, bytes, type))
        }
    }

    /// The type of the document: the announced one, or the document's own, or one derived from its members.
    package static func mediaType(_ fields: DocumentFields, given: String?) throws(OCIError) -> String {
        if let given {
            if MediaType.isDockerSchema1(given) { throw schema1 }
            guard MediaType.isManifest(given) || MediaType.isIndex(given) else {
                throw .unsupported(document: fields.document, .mediaType(given))
            }
        }
        if fields.object["schemaVersion"] == 1 { throw schema1 }
        guard fields.object["schemaVersion"] == 2 else {
            throw fields.malformed("schemaVersion", fields.has("schemaVersion") ? .notVersion2 : .missing)
        }
        let own = try fields.string("mediaType")
        if let own {
            if MediaType.isDockerSchema1(own) { throw schema1 }
            guard given == nil || own == given else {
                throw .malformed(document: fields.document, .announcedType(own: own, announced: given ?? ""))
            }
            guard MediaType.isManifest(own) || MediaType.isIndex(own) else {
                throw .unsupported(document: fields.document, .mediaType(own))
            }
        }
        // Readers that treat the document as a manifest and readers that treat it as an index would see different images under one digest.
        let isBoth = fields.has("manifests") && (fields.has("layers") || fields.has("config"))
        guard !isBoth else { throw .malformed(document: fields.document, .bothManifestAndIndex) }
        if let type = given ?? own { return type }
        if fields.has("manifests") { return MediaType.ociIndex }
        guard fields.has("layers") || fields.has("config") else {
            throw .malformed(document: fields.document, .neitherManifestNorIndex)
        }
        let config = fields.object("config")?.text("mediaType")
        return config == MediaType.dockerConfig ? MediaType.dockerManifest : MediaType.ociManifest
    }

    package static var schema1: OCIError {
        .unsupported(document: "manifest", .schema1)
    }
}

/// A manifest: the config and layers of an image or artifact (image-spec, manifest.md; docker image manifest v2, schema 2).
public struct Manifest: Hashable, Sendable {
    /// The document as received. Its digest is computed from these bytes.
    public let bytes: [UInt8]
    /// The type of the document, even if it does not specify one.
    public let mediaType: String
    public let config: Descriptor
    public let layers: [Descriptor]
    public let artifactType: String?
    public let subject: Descriptor?
    public let annotations: [String: String]

    /// Parses a manifest. An index is refused.
    public init(parsing bytes: [UInt8], mediaType: String? = nil) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "manifest", limit: ImageLimits.largestManifest)
        try self.init(fields, bytes, ManifestDocument.mediaType(fields, given: mediaType))
    }

    fileprivate init(_ fields: DocumentFields, _ bytes: [UInt8], _ type: String) throws(OCIError) {
        guard MediaType.isManifest(type) else { throw .unsupported(document: "manifest", .indexInsteadOfManifest) }
        self.bytes = bytes
        mediaType = type
        config = try Descriptor(fields.requiredFields("config"), needsType: false)
        var layers: [Descriptor] = []
        for layer in try fields.array("layers") { layers.append(try Descriptor(layer)) }
        self.layers = layers
        artifactType = fields.text("artifactType")
        // If the subject cannot be parsed, this manifest is not a referrer.
        subject = fields.object("subject").flatMap { try? Descriptor($0) }
        annotations = fields.texts("annotations")
    }
}
