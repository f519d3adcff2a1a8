import ComposefsBytes
public import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// An image in an OCI image layout (image-spec image-layout.md), in a directory or an archive.
public struct LayoutSource: ImageSource {
    private let files: any ImageFiles
    private let root: SourceManifest
    private let entries: [Descriptor]
    public let canonicalName: String
    public let policyIdentity: ImageIdentity

    /// Opens the image that `oci:DIR[:NAME]` names.
    ///
    /// - Throws: `OCIError`, `SystemError`.
    public init(directory location: ImageLocation) throws {
        let (path, name) = try location.located()
        try self.init(try DirectoryFiles(path), name, transport: "oci")
    }

    /// Opens the image that `oci-archive:FILE[:NAME]` names.
    ///
    /// - Parameter scratch: for an archive that is compressed or comes through a pipe.
    /// - Throws: `OCIError`, `SystemError`, `LimitExceeded`, `CancellationError`.
    public init(archive location: ImageLocation, scratch: ArchiveScratch) throws {
        let (path, name) = try location.located()
        try self.init(try TarFiles(path, scratch: scratch), name, transport: "oci-archive")
    }

    init(_ files: some ImageFiles, _ name: ImageLocation.Name?, transport: String) throws {
        self.files = files
        policyIdentity = .file(files.path, transport: transport)
        try Self.checkMarker(files)
        guard let bytes = try files.read("index.json", limit: Self.indexLimit) else {
            throw OCIError.notFound(source: files.name, .file("index.json", .layout))
        }
        let index = try ImageIndex(parsing: bytes, mediaType: nil, document: "\(files.name)/index.json", limit: Self.indexLimit)
        entries = index.manifests
        switch try LayoutIndex(source: files.name, index).select(name) {
        case .entry(let entry):
            let manifest = try entry.data ?? files.manifest(Self.path(entry), entry)
            root = SourceManifest(bytes: manifest, mediaType: entry.mediaType, expected: entry)
        case .all:
            root = SourceManifest(bytes: bytes, mediaType: MediaType.ociIndex)
        }
        // A full reference in the layout is a better name than the layout's path.
        if case .tag(let tag)? = name, tag.utf8.contains(UInt8(ascii: "/")), let reference = try? RegistryReference(parsing: tag) {
            canonicalName = reference.canonical
        } else {
            canonicalName = "\(transport):\(files.name)" + (name.map { ($0.isDigest ? "@" : ":") + $0.description } ?? "")
        }
    }

    /// A source for entries that the caller has selected.
    init(files: some ImageFiles, root: SourceManifest, entries: [Descriptor], canonicalName: String, transport: String) {
        self.files = files
        policyIdentity = .file(files.path, transport: transport)
        self.root = root
        self.entries = entries
        self.canonicalName = canonicalName
    }

    static let indexLimit = 16 << 20

    static func checkMarker(_ files: some ImageFiles) throws {
        guard let bytes = try files.read("oci-layout", limit: 4096) else {
            throw OCIError.notFound(source: files.name, .file("oci-layout", .layout))
        }
        try checkMarker(bytes, source: files.name)
    }

    static func checkMarker(_ bytes: [UInt8], source: ByteString) throws(OCIError) {
        let fields = try DocumentFields(parsing: bytes, document: "\(source)/oci-layout", limit: 4096)
        let version = try fields.requiredString("imageLayoutVersion")
        guard version.hasPrefix("1.") else {
            throw OCIError.unsupported(document: "\(source)/oci-layout", .layoutVersion(version))
        }
    }

    static func path(_ descriptor: Descriptor) -> ByteString {
        ByteString("blobs/\(descriptor.digest.algorithm.rawValue)/\(descriptor.digest.hex)")
    }

    public func rootManifest() -> SourceManifest { root }

    public func manifest(_ descriptor: Descriptor) throws -> [UInt8] { try files.manifest(Self.path(descriptor), descriptor) }

    /// All artifacts that index.json lists, whatever their subject is.
    public func referrers(of digest: ContentDigest, artifactType: String?) throws -> [Descriptor] {
        entries.filter { $0.artifactType != nil && (artifactType == nil || $0.artifactType == artifactType) }
    }

    /// Tools that copy images with their signatures keep the tags of registries.
    public func taggedSignatures(of digest: ContentDigest) throws -> [UInt8]? {
        let tag = signatureTag(of: digest)
        guard let entry = entries.first(where: { $0.annotations["org.opencontainers.image.ref.name"] == tag }) else { return nil }
        let bytes = try entry.data ?? manifest(entry)
        guard ContentDigest.of(bytes, entry.digest.algorithm) == entry.digest else {
            throw OCIError.malformed(document: "manifest \(entry.digest)", .digest(ContentDigest.of(bytes, entry.digest.algorithm)))
        }
        return bytes
    }

    public func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { try files.blob(Self.path(descriptor), descriptor) }
}

extension ImageLocation.Name {
    package var isDigest: Bool { if case .digest = self { true } else { false } }
}

/// Selects an image by its name in a layout's index.json.
struct LayoutIndex {
    let source: ByteString
    let index: ImageIndex

    enum Selection: Equatable {
        case entry(Descriptor)
        /// index.json itself is the index of one image for several platforms.
        case all
    }

    init(source: ByteString, _ index: ImageIndex) {
        self.source = source
        self.index = index
    }

    /// Selects the entry that `name` names; without a name, the only image.
    ///
    /// - Throws: `OCIError.notFound`, `.ambiguous`, `.malformed`.
    func select(_ name: ImageLocation.Name?) throws(OCIError) -> Selection {
        let entries: [Descriptor]
        switch name {
        case .digest(let digest):
            guard let entry = index.manifests.first(where: { $0.digest == digest }) else {
                throw .notFound(source: source, .listedManifest(digest, available))
            }
            return .entry(entry)
        case .index(let position):
            guard index.manifests.indices.contains(position) else {
                throw .notFound(source: source, .entry(position, count: index.manifests.count, available))
            }
            return .entry(index.manifests[position])
        case .tag(let tag):
            if let fault = Self.fault(inName: tag) {
                throw .notFound(source: source, .invalidName(tag, fault))
            }
            entries = index.manifests.filter { $0.layoutNames.contains { $0.utf8.elementsEqual(tag.utf8) } }
            guard !entries.isEmpty else { throw .notFound(source: source, .image(tag, available)) }
        case nil:
            // Artifacts such as signatures are listed beside the image. They are selected only if there is no image.
            let images = index.manifests.filter { $0.artifactType == nil }
            entries = images.allSatisfy(\.isAttestation) ? index.manifests : images
            guard !entries.isEmpty else { throw .notFound(source: source, .anyImage(.layout)) }
        }
        // Entries of unknown kinds are also listed beside an image.
        let known = entries.filter(\.isOfKnownKind)
        let images = (known.isEmpty ? entries : known).filter { !$0.isAttestation }
        guard let first = images.first ?? entries.first else { throw .notFound(source: source, .anyImage(.layout)) }
        if images.dropFirst().allSatisfy({ $0.digest == first.digest }) {
            // The name is displayed, logged and used as a tag, even if the caller did not request it.
            for name in first.layoutNames {
                if let fault = Self.fault(inName: name) {
                    throw .malformed(document: "\(source)/index.json", .referenceName(name, fault))
                }
            }
            return .entry(first)
        }
        if images.count == index.manifests.filter({ !$0.isAttestation && $0.isOfKnownKind }).count, Self.differOnlyInPlatform(images) {
            return .all
        }
        if case .tag(let tag)? = name {
            throw .ambiguous(source: source, .entries(name: tag, count: images.count))
        }
        throw .ambiguous(source: source, .unnamed(available))
    }

    private static func differOnlyInPlatform(_ entries: [Descriptor]) -> Bool {
        let platforms = Set(entries.compactMap { $0.platform?.normalized })
        let names = Set(entries.map { $0.layoutNames.first ?? "" })
        return platforms.count == entries.count && names.count == 1 && entries.allSatisfy { MediaType.isManifest($0.mediaType) }
    }

    private var available: OCIError.AvailableImages {
        OCIError.AvailableImages(in: .layout, index.manifests.map { $0.layoutNames.first.map { .tag($0) } ?? .digest($0.digest) })
    }

    /// The length of a name, in bytes.
    private static let nameLimit = 1024

    /// Why a name is refused; nil if it is accepted. The image-spec's grammar is only a recommendation
    /// (SHOULD in annotations.md), so this check is less strict: it refuses paths and characters that change the display of a terminal or a
    /// log.
    static func fault(inName name: String) -> OCIError.NameFault? {
        if name.utf8.isEmpty { return .empty }
        if name.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f }) { return .controlCharacter }
        if name.utf8.count > nameLimit { return .tooLong(limit: nameLimit) }
        let components = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        let isPath = components.contains { $0.isEmpty || $0.elementsEqual(".".utf8) || $0.elementsEqual("..".utf8) }
        return isPath ? .path : nil
    }
}

extension Descriptor {
    /// The names of an entry of index.json: first the one of the image-spec, then the full reference that containerd and docker add.
    var layoutNames: [String] {
        Self.nameKeys.compactMap { annotations[$0] }
    }
}
