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
        for entry in try fields.requiredArray("manifests") {
            // Names decide which image is meant.
            for key in Descriptor.nameKeys { _ = try entry.object("annotations")?.string(key) }
            manifests.append(try Descriptor(entry))
        }
        self.manifests = manifests
        artifactType = fields.text("artifactType")
        subject = fields.object("subject").flatMap { try? Descriptor($0) }
        annotations = fields.texts("annotations")
    }

    /// Entries that may lead to something for a platform. Attestations that are marked as such, and entries of kinds that are not known, are left
    /// out.
    package struct Candidates {
        /// Those that say they fit, the best first; among equals in the index's order. `rank` as `Platform.rank(of:)` has it.
        package var fitting: [(rank: Int, entry: Descriptor)] = []
        /// Those that do not say enough, in the index's order: indexes, too.
        package var unsaid: [Descriptor] = []
        /// Those that say their platform is unknown: attestations, most of them.
        package var unknown: [Descriptor] = []
    }

    package func candidates(for platform: Platform) -> Candidates {
        var found = Candidates()
        for entry in manifests where entry.isOfKnownKind && !entry.isMarkedAsAttestation {
            guard let offered = entry.platform else {
                found.unsaid.append(entry)
                continue
            }
            if offered.isUnknown {
                found.unknown.append(entry)
            } else if !offered.isComplete {
                if platform.mayFit(offered) { found.unsaid.append(entry) }
            } else if let rank = platform.rank(of: offered) {
                found.fitting.append((rank: rank, entry: entry))
            }
        }
        found.fitting = found.fitting.enumerated().sorted { ($0.element.rank, $0.offset) < ($1.element.rank, $1.offset) }.map(\.element)
        return found
    }

    /// For messages: what there is.
    public var platforms: [String] {
        var names: [String] = []
        for entry in manifests where !entry.isAttestation && entry.isOfKnownKind && entry.artifactType == nil {
            guard let name = entry.platform?.description, !names.contains(name), names.count < 100 else { continue }
            names.append(name)
        }
        return names
    }
}
