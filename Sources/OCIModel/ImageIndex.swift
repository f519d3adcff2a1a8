/// Images for several platforms under one name (image-spec image-index.md; docker manifest list).
public struct ImageIndex: Hashable, Sendable {
    /// The document as it was received; what its digest is of.
    public let bytes: [UInt8]
    public let mediaType: String
    public let manifests: [Descriptor]
    public let artifactType: String?
    public let subject: Descriptor?
    public let annotations: [String: String]

    /// Reads an index; a manifest is refused.
    public init(parsing bytes: [UInt8], mediaType: String? = nil) throws(OCIError) {
        try self.init(parsing: bytes, mediaType: mediaType, document: "index", limit: ImageLimits.largestManifest)
    }

    package init(parsing bytes: [UInt8], mediaType: String?, document: String, limit: Int) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: document, limit: limit)
        try self.init(fields, bytes, ManifestDocument.mediaType(fields, given: mediaType))
    }

    package init(_ fields: DocumentFields, _ bytes: [UInt8], _ type: String) throws(OCIError) {
        guard MediaType.isIndex(type) else { throw .unsupported(document: fields.document, "it is a manifest, not an index") }
        self.bytes = bytes
        mediaType = type
        var manifests: [Descriptor] = []
        for entry in try fields.requiredArray("manifests") { manifests.append(try Descriptor(entry)) }
        self.manifests = manifests
        artifactType = try fields.string("artifactType")
        subject = if let subject = try fields.fields("subject") { try Descriptor(subject) } else { nil }
        annotations = try fields.map("annotations")
    }

    /// The entries that may lead to an image for `platform`, the best first: those that say they fit, then those that do not say anything.
    /// Attestations are left out. Among equals the first counts.
    public func candidates(for platform: Platform) -> [Descriptor] {
        var ranked: [(rank: Int, entry: Descriptor)] = []
        for entry in manifests where !entry.isAttestation {
            guard let offered = entry.platform, !(offered.os.isEmpty && offered.architecture.isEmpty) else {
                ranked.append((rank: .max, entry: entry))
                continue
            }
            if let rank = platform.rank(of: offered) { ranked.append((rank: rank, entry: entry)) }
        }
        return ranked.enumerated().sorted { ($0.element.rank, $0.offset) < ($1.element.rank, $1.offset) }.map(\.element.entry)
    }

    /// For messages: what there is.
    public var platforms: [String] {
        var names: [String] = []
        for entry in manifests where !entry.isAttestation {
            guard let name = entry.platform?.description, !names.contains(name), names.count < 100 else { continue }
            names.append(name)
        }
        return names
    }
}
