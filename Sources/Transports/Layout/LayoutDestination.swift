package import ComposefsBytes
public import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// An OCI image layout in a directory (image-spec image-layout.md), made where it is missing. What other images the layout has, stays.
///
/// Blobs are written beside their names and renamed when they are complete and verified; `index.json` is replaced last, in one step, after
/// everything is durable. A layout that somebody reads meanwhile is a whole one at every moment.
public final class LayoutDestination: ImageDestination {
    /// The name of the image in the layout; nil for an image without one.
    private let name: String?
    private let path: ByteString
    private let directory: SharedDirectory
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    private static let indexLimit = 16 << 20
    private static let temporaryPrefix: ByteString = ".tmp-"

    /// `oci:DIR[:NAME]`
    ///
    /// - Throws: `OCIError` where the directory holds something else than a layout, or the name can be no layout's; `SystemError`.
    public convenience init(directory location: ImageLocation) throws {
        let (path, name) = location.located()
        switch name {
        case .tag(let tag): try self.init(path, name: tag)
        case nil: try self.init(path, name: nil)
        case .digest:
            throw OCIError.invalidReference(location.text, "an image gets no digest for a name; write oci:DIR or oci:DIR:NAME")
        }
    }

    package init(_ path: ByteString, name: String?) throws {
        if let name, let fault = LayoutIndex.fault(inName: name) {
            throw OCIError.invalidReference(ByteString(name), "is no reference name: \(fault)")
        }
        self.path = path
        self.name = name
        displayName = "oci:\(path)" + (name.map { ":" + $0 } ?? "")
        try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o755)
        let directory = try FileDescriptor.open(path, [.readOnly, .directory])
        let isNew = try directory.statusIfPresent(at: "oci-layout") == nil
        if isNew, try !directory.entries().isEmpty {
            throw OCIError.unsupported(
                document: path.description, "is a directory with something else than an OCI layout in it; name a new or empty one")
        }
        self.directory = SharedDirectory(descriptor: directory)
        if isNew {
            // First of all, so that what is left of an export that fails is a layout that the next one goes on with.
            try writeFile("oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        } else {
            try LayoutSource.checkMarker(try DirectoryFiles(path))
        }
    }

    // MARK: Blobs

    /// A blob counts as there when its bytes are right: a damaged one is written anew.
    public func hasBlob(_ blob: Descriptor) throws -> Bool {
        guard let file = try directory.descriptor.openIfPresent(at: blobPath(blob.digest), [.readOnly, .noFollow, .nonBlocking]),
            case let status = try file.status(), status.kind == .regular, status.size == blob.size
        else { return false }
        var hasher = DigestHasher(blob.digest.algorithm)
        try ImageFile(try OpenFile(file)).forEachPiece { hasher.update($0) }
        return hasher.finalize() == blob.digest
    }

    public func mountBlob(_ blob: Descriptor, from source: RegistryReference) -> Bool { false }

    public func putBlob(_ blob: OutgoingBlob) throws -> SentBlob {
        let algorithm = blob.expected?.digest.algorithm ?? .sha256
        try directory.descriptor.makeDirectoryIfMissing(at: "blobs", mode: 0o755)
        let parent = "blobs/" + ByteString(algorithm.rawValue)
        try directory.descriptor.makeDirectoryIfMissing(at: parent, mode: 0o755)
        var check = BlobCheck(blob.expected)
        return try writeFile(in: parent) { file in
            try blob.produce { bytes in
                check.update(bytes)
                try file.writeAll(bytes)
            }
            let sent = try check.finish()
            return (blobPath(sent.digest), sent)
        }
    }

    private func blobPath(_ digest: ContentDigest) -> ByteString { ByteString("blobs/\(digest.algorithm.rawValue)/\(digest.hex)") }

    /// A file that gets its name, which `body` returns, when it is complete; nothing is left of one that is not.
    private func writeFile<Value>(
        in parent: ByteString, _ body: (borrowing FileDescriptor) throws -> (name: ByteString, Value)
    ) throws -> Value {
        let here = parent.isEmpty ? "." : parent
        let temporary = here + "/" + Self.temporaryPrefix + ByteString(Host.randomName(12))
        // Until it is complete it has no name, where the file system can do that: nothing is left of a process that is killed.
        let unnamed: FileDescriptor?
        do throws(SystemError) { unnamed = try directory.descriptor.openTemporary(at: here, mode: 0o644) } catch {
            guard error.isUnsupported || [.isDirectory, .invalidArgument].contains(error.errno) else { throw error }
            unnamed = nil
        }
        let isUnnamed = unnamed != nil
        let file = try unnamed ?? directory.descriptor.open(at: temporary, [.writeOnly, .create, .exclusive], mode: 0o644)
        do {
            let (name, value) = try body(file)
            try file.syncData()
            // Through a second name, as what is there is replaced.
            if isUnnamed, try !directory.descriptor.link(temporary: file, at: temporary) { throw SystemError("link", temporary, .exists) }
            try directory.descriptor.rename(at: temporary, to: name)
            return value
        } catch {
            try? directory.descriptor.unlink(at: temporary)
            throw error
        }
    }

    // MARK: Manifests

    public func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        let blob = Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count))
        if try !hasBlob(blob) { _ = try putBlob(OutgoingBlob(manifest.bytes, digest: digest)) }
        // A referrer is found by looking through index.json.
        guard isNamed || manifest.subject != nil else { return }
        try addToIndex(manifest, blob, name: isNamed ? name : nil, isReferrer: !isNamed)
    }

    private func addToIndex(_ manifest: Manifest, _ blob: Descriptor, name: String?, isReferrer: Bool) throws {
        // Two that write different images into one layout must not lose one.
        let lock = try FileDescriptor.open(path, [.readOnly, .directory])
        try lock.lock(.exclusive)
        var index: JSONValue = ["schemaVersion": 2, "mediaType": .string(MediaType.ociIndex), "manifests": []]
        if let bytes = try DirectoryFiles(path).read("index.json", limit: Self.indexLimit) {
            _ = try ImageIndex(parsing: bytes, mediaType: nil, document: "\(path)/index.json", limit: Self.indexLimit)
            index = try JSONValue.parse(bytes)
        }
        var entry: JSONValue = [
            "mediaType": .string(blob.mediaType), "digest": .string(blob.digest.description), "size": JSONValue(blob.size),
        ]
        // By their artifact type readers tell referrers from the image that is meant where no name says it.
        let type = isReferrer ? manifest.artifactType ?? manifest.config.mediaType : manifest.layoutArtifactType
        if let type { entry["artifactType"] = .string(type) }
        if let name { entry["annotations"] = [Self.nameKey: .string(name)] }
        var entries = index["manifests"]?.array ?? []
        // The name moves; the same manifest without a name is not needed twice.
        entries.removeAll { old in
            let oldName = old["annotations"]?[Self.nameKey]
            return name != nil && oldName == name.map { .string($0) } || oldName == nil && old["digest"] == entry["digest"]
        }
        if name != nil || !entries.contains(where: { $0["digest"] == entry["digest"] }) {
            // An image without a name comes first, where those look who know nothing of artifact types.
            if name == nil, !isReferrer { entries.insert(entry, at: 0) } else { entries.append(entry) }
        }
        index["manifests"] = .array(entries)
        try syncDirectories()
        try writeFile("index.json", index.compactBytes)
        try directory.descriptor.sync()
    }

    private static let nameKey = "org.opencontainers.image.ref.name"

    private func writeFile(_ name: ByteString, _ bytes: [UInt8]) throws {
        try writeFile(in: "") { file in
            try file.writeAll(bytes)
            return (name, ())
        }
    }

    /// The blobs' own data is synced by then; their names are not.
    private func syncDirectories() throws {
        for algorithm in DigestAlgorithm.allCases {
            let parent = "blobs/" + ByteString(algorithm.rawValue)
            if let blobs = try directory.descriptor.openIfPresent(at: parent, [.readOnly, .directory]) { try blobs.sync() }
        }
        if let blobs = try directory.descriptor.openIfPresent(at: "blobs", [.readOnly, .directory]) { try blobs.sync() }
        try directory.descriptor.sync()
    }

    public func finish() {}
}

extension Manifest {
    /// What a descriptor of this manifest says of its kind (image-spec: the config's media type where there is no `artifactType`); nil for an
    /// image, which needs none.
    package var layoutArtifactType: String? { artifactType ?? (isImage ? nil : config.mediaType) }
}
