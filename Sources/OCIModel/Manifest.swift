import ComposefsJSON

/// What a reference or an index entry leads to.
public enum ManifestDocument: Hashable, Sendable {
    case manifest(Manifest)
    case index(ImageIndex)

    /// Reads a manifest or an index. `mediaType` is what the registry or the descriptor says it is; the document must agree.
    public init(parsing bytes: [UInt8], mediaType: String?) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "manifest", limit: ImageLimits.largestManifest)
        let type = try Self.mediaType(fields, given: mediaType)
        if MediaType.isIndex(type) {
            self = .index(try ImageIndex(fields, bytes, type))
        } else {
            self = .manifest(try Manifest(fields, bytes, type))
        }
    }

    /// The document's own type, which is the given one if there is one; guessed by its members where neither is.
    package static func mediaType(_ fields: DocumentFields, given: String?) throws(OCIError) -> String {
        if let given {
            if MediaType.isDockerSchema1(given) { throw schema1 }
            guard MediaType.isManifest(given) || MediaType.isIndex(given) else {
                throw .unsupported(document: fields.document, "media type \(quoted(given)) is neither an image manifest nor an index")
            }
        }
        if fields.object["schemaVersion"] == 1 { throw schema1 }
        guard fields.object["schemaVersion"] == 2 else {
            throw fields.malformed("schemaVersion", fields.has("schemaVersion") ? "is not 2" : "is missing")
        }
        let own = try fields.string("mediaType")
        if let own {
            if MediaType.isDockerSchema1(own) { throw schema1 }
            guard given == nil || own == given else {
                throw .malformed(document: fields.document, "it calls itself \(quoted(own)), but was announced as \(quoted(given ?? ""))")
            }
            guard MediaType.isManifest(own) || MediaType.isIndex(own) else {
                throw .unsupported(document: fields.document, "media type \(quoted(own)) is neither an image manifest nor an index")
            }
        }
        // One who reads it as a manifest and one who reads it as an index would take different images for the same digest.
        let isBoth = fields.has("manifests") && (fields.has("layers") || fields.has("config"))
        guard !isBoth else { throw .malformed(document: fields.document, "it is a manifest and an index at once") }
        if let type = given ?? own { return type }
        if fields.has("manifests") { return MediaType.ociIndex }
        guard fields.has("layers") || fields.has("config") else {
            throw .malformed(document: fields.document, "it is neither an image manifest nor an index")
        }
        let config = fields.object("config")?.text("mediaType")
        return config == MediaType.dockerConfig ? MediaType.dockerManifest : MediaType.ociManifest
    }

    package static var schema1: OCIError {
        .unsupported(document: "manifest", "docker's schema 1 is not supported; push the image again with a tool of this decade")
    }
}

/// An image or an artifact: a config and layers (image-spec manifest.md; docker image manifest v2, schema 2).
public struct Manifest: Hashable, Sendable {
    /// The document as it was received; what its digest is of.
    public let bytes: [UInt8]
    /// What the document is, whether it says so itself or not.
    public let mediaType: String
    public let config: Descriptor
    public let layers: [Descriptor]
    public let artifactType: String?
    public let subject: Descriptor?
    public let annotations: [String: String]

    /// Reads a manifest; an index is refused.
    public init(parsing bytes: [UInt8], mediaType: String? = nil) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "manifest", limit: ImageLimits.largestManifest)
        try self.init(fields, bytes, ManifestDocument.mediaType(fields, given: mediaType))
    }

    fileprivate init(_ fields: DocumentFields, _ bytes: [UInt8], _ type: String) throws(OCIError) {
        guard MediaType.isManifest(type) else { throw .unsupported(document: "manifest", "it is an index, which names manifests") }
        self.bytes = bytes
        mediaType = type
        config = try Descriptor(fields.requiredFields("config"), needsType: false)
        var layers: [Descriptor] = []
        for layer in try fields.array("layers") { layers.append(try Descriptor(layer)) }
        self.layers = layers
        artifactType = fields.text("artifactType")
        // One that cannot be read is no manifest's referrer.
        subject = fields.object("subject").flatMap { try? Descriptor($0) }
        annotations = fields.texts("annotations")
    }
}
