public import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCIModel

/// All images of a file or directory that other tools have written: a docker archive (`docker save`), an archive of an OCI layout, or an OCI
/// layout in a directory.
///
/// The path is opened once, so it may be a pipe. An archive that is both, as docker has written since version 25, is read as a layout, because
/// that has the manifests.
public struct ImageArchive: Sendable {
    /// What the path is. The raw value is the name of the transport.
    public enum Format: String, Sendable, Hashable, CaseIterable {
        case layout = "oci"
        case ociArchive = "oci-archive"
        case dockerArchive = "docker-archive"
    }

    /// One image, for one or for several platforms.
    public struct Image: Sendable {
        /// The recorded names, without repetition: canonical references, and other names as they are. Empty for an image without a name.
        public var names: [String]
        /// What names the image after the path: `@DIGEST` or `:@N`; nil for entries of several platforms, which have no common name.
        public var position: String?
        /// The source for a pull. Its canonical name is not one of the recorded names.
        public var source: any ImageSource
    }

    /// What the path is.
    public let format: Format
    /// The images in the order of the archive, at least one.
    public let images: [Image]

    /// Opens an archive or a layout and lists its images. Of a docker archive, this may read all layers.
    ///
    /// - Parameters:
    ///   - path: a regular file, a pipe (`/dev/stdin`), or a directory.
    ///   - scratch: for an archive that is compressed or comes through a pipe.
    /// - Throws: `OCIError`, `SystemError`, `LimitExceeded`, `CancellationError`.
    public init(_ path: ByteString, scratch: ArchiveScratch) throws {
        if try FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true)?.kind == .directory {
            format = .layout
            images = try LayoutSource.images(of: try DirectoryFiles(path), transport: Format.layout.rawValue)
            return
        }
        let files = try TarFiles(path, scratch: scratch)
        if try files.open("oci-layout") != nil, try files.open("index.json") != nil {
            format = .ociArchive
            images = try LayoutSource.images(of: files, transport: Format.ociArchive.rawValue)
        } else if try files.open("manifest.json") != nil || files.open("repositories") != nil {
            format = .dockerArchive
            images = try DockerArchiveSource.images(of: files)
        } else {
            throw OCIError.notFound(source: path, .imageFiles)
        }
    }
}

extension LayoutSource {
    /// The images that index.json lists. Entries of one name that differ only in their platform are one image.
    static func images(of files: some ImageFiles, transport: String) throws -> [ImageArchive.Image] {
        try checkMarker(files)
        guard let bytes = try files.read("index.json", limit: indexLimit) else {
            throw OCIError.notFound(source: files.name, .file("index.json", .layout))
        }
        let document = "\(files.name)/index.json"
        let index = try ImageIndex(parsing: bytes, mediaType: nil, document: document, limit: indexLimit)
        return try RecordedImages(source: files.name, index).groups.map { group in
            let entries = group.entries.map { index.manifests[$0] }
            let root: SourceManifest
            var position: String?
            if entries.count == 1 {
                let manifest = try entries[0].data ?? files.manifest(path(entries[0]), entries[0])
                root = SourceManifest(bytes: manifest, mediaType: entries[0].mediaType, expected: entries[0])
                position = "@\(entries[0].digest)"
            } else {
                root = SourceManifest(bytes: try subset(of: bytes, group.entries), mediaType: MediaType.ociIndex)
            }
            let source = LayoutSource(
                files: files, root: root, entries: index.manifests, canonicalName: "\(transport):\(files.name)" + (position ?? ""),
                transport: transport)
            return ImageArchive.Image(names: group.names, position: position, source: source)
        }
    }

    /// An index with some of the entries of index.json.
    private static func subset(of bytes: [UInt8], _ chosen: [Int]) throws -> [UInt8] {
        var document = try JSONValue.parse(bytes)
        let entries = document["manifests"]?.array ?? []
        document["manifests"] = .array(chosen.map { entries[$0] })
        return document.compactBytes
    }
}

/// The images of an index.json by their recorded names.
struct RecordedImages {
    struct Group: Equatable {
        var names: [String]
        /// The indices of the entries: several only for several platforms.
        var entries: [Int]
    }

    private(set) var groups: [Group] = []

    /// - Throws: `OCIError.notFound` without an image, `.ambiguous` if different images have one name, `.malformed` for an invalid name.
    init(source: ByteString, _ index: ImageIndex) throws(OCIError) {
        let manifests = index.manifests
        var chosen = manifests.indices.filter {
            manifests[$0].artifactType == nil && manifests[$0].isOfKnownKind && !manifests[$0].isAttestation
        }
        // Some builders leave the platform of images unknown, as it is for attestations.
        if chosen.isEmpty { chosen = manifests.indices.filter { manifests[$0].isOfKnownKind && !manifests[$0].isAnnotatedAsAttestation } }
        guard !chosen.isEmpty else { throw .notFound(source: source, .anyImage(.layout)) }
        var named: [(name: String, entries: [Int])] = []
        var positions: [String: Int] = [:]
        var unnamed: [Int] = []
        for entry in chosen {
            guard let name = try Self.name(of: manifests[entry], source) else {
                unnamed.append(entry)
                continue
            }
            if let position = positions[name] {
                let isKnown = named[position].entries.contains { manifests[$0].digest == manifests[entry].digest }
                if !isKnown { named[position].entries.append(entry) }
            } else {
                positions[name] = named.count
                named.append((name, [entry]))
            }
        }
        for (name, entries) in named {
            guard Self.differInPlatform(entries, manifests) else {
                throw .ambiguous(source: source, .entries(name: name, count: entries.count))
            }
            let digests = entries.map { manifests[$0].digest }
            if let same = groups.firstIndex(where: { $0.entries.map { manifests[$0].digest } == digests }) {
                groups[same].names.append(name)
            } else {
                groups.append(Group(names: [name], entries: entries))
            }
        }
        // An entry without a name repeats one that has a name, or is an image of its own.
        var seen = Set(groups.flatMap { $0.entries.map { manifests[$0].digest } })
        unnamed = unnamed.filter { seen.insert(manifests[$0].digest).inserted }
        if unnamed.count > 1, groups.isEmpty, Self.differInPlatform(unnamed, manifests) {
            groups = [Group(names: [], entries: unnamed)]
        } else {
            groups += unnamed.map { Group(names: [], entries: [$0]) }
        }
    }

    private static func differInPlatform(_ entries: [Int], _ manifests: [Descriptor]) -> Bool {
        guard entries.count > 1 else { return true }
        let platforms = Set(entries.compactMap { manifests[$0].platform?.normalized })
        return platforms.count == entries.count && entries.allSatisfy { MediaType.isManifest(manifests[$0].mediaType) }
    }

    /// The full reference that containerd and docker record, else the name of the image-spec, which with docker is a tag alone.
    private static func name(of entry: Descriptor, _ source: ByteString) throws(OCIError) -> String? {
        for key in Descriptor.nameKeys {
            guard let name = entry.annotations[key], !name.utf8.isEmpty, let fault = LayoutIndex.fault(inName: name) else { continue }
            throw .malformed(document: "\(source)/index.json", .referenceName(name, fault))
        }
        func annotation(_ key: String) -> String? { entry.annotations[key].flatMap { $0.utf8.isEmpty ? nil : $0 } }
        let short = annotation("org.opencontainers.image.ref.name")
        guard let full = annotation("io.containerd.image.name") else { return short.map(canonicalName) }
        // A name that is short for the reference is what the image was called.
        if let short, (try? RegistryReference(parsing: short))?.canonical == full { return canonicalName(short) }
        return canonicalName(full)
    }

    /// The canonical reference of a name with a repository; a name such as `1.0` stays as it is.
    static func canonicalName(_ name: String) -> String {
        guard name.utf8.contains(where: { $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: ":") }) else { return name }
        return (try? RegistryReference(parsing: name))?.canonical ?? name
    }
}
