/// An index: manifests for several platforms under one name (image-spec, image-index.md; docker manifest list).
public struct ImageIndex: Hashable, Sendable {
    /// The document as received. Its digest is computed from these bytes.
    public let bytes: [UInt8]
    public let mediaType: String
    public let manifests: [Descriptor]
    public let artifactType: String?
    public let subject: Descriptor?
    public let annotations: [String: String]

    /// Parses an index. A manifest is refused.
    public init(parsing bytes: [UInt8], mediaType: String? = nil) throws(OCIError) {
        try self.init(parsing: bytes, mediaType: mediaType, document: "index", limit: ImageLimits.largestManifest)
    }

    package init(parsing bytes: [UInt8], mediaType: String?, document: String, limit: Int) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: document, limit: limit)
        try self.init(fields, bytes, ManifestDocument.mediaType(fields, given: mediaType))
    }

    package init(_ fields: DocumentFields, _ bytes: [UInt8], _ type: String) throws(OCIError) {
        guard MediaType.isIndex(type) else { throw .unsupported(document: fields.document, .manifestInsteadOfIndex) }
        self.bytes = bytes
        mediaType = type
        var manifests: [Descriptor] = []
        for entry in try fields.requiredArray("manifests") {
            // Names determine which image is selected, so they are read strictly.
            for key in Descriptor.nameKeys { _ = try entry.object("annotations")?.string(key) }
            manifests.append(try Descriptor(entry))
        }
        self.manifests = manifests
        artifactType = fields.text("artifactType")
        subject = fields.object("subject").flatMap { try? Descriptor($0) }
        annotations = fields.texts("annotations")
    }

    /// Entries that may provide an image for a platform. Entries that are marked as attestations, and entries of unknown types, are left
    /// out.
    package struct Candidates {
        /// Entries whose platform fits, the best first; equal ones in the index's order. For `rank`, see `Platform.rank(of:)`.
        package var fitting: [(rank: Int, entry: Descriptor)] = []
        /// Entries whose platform is incomplete, in the index's order, including nested indexes.
        package var unsaid: [Descriptor] = []
        /// Entries whose platform is `unknown`; most of them are attestations.
        package var unknown: [Descriptor] = []
    }

    package func candidates(for platform: Platform) -> Candidates {
        var found = Candidates()
        for entry in manifests where entry.isOfKnownKind && !entry.isAnnotatedAsAttestation {
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

    /// The platforms of all entries, for messages.
    public var platforms: [String] {
        var names: [String] = []
        for entry in manifests where !entry.isAttestation && entry.isOfKnownKind && entry.artifactType == nil {
            guard let name = entry.platform?.description, !names.contains(name), names.count < 100 else { continue }
            names.append(name)
        }
        return names
    }
}
