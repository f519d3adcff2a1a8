import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsJSON
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// An image in `docker-archive:FILE[:TAG|:@N]`, the format of `docker save` and `podman save`: `manifest.json` lists configs, tags and
/// layers by path.
///
/// The archive has no image manifest, so this type creates one (docker image manifest v2, schema 2): the same bytes for the same archive.
public struct DockerArchiveSource: ImageSource {
    private let files: TarFiles
    private let root: [UInt8]
    private let paths: [ContentDigest: ByteString]
    public let canonicalName: String
    public var policyIdentity: ImageIdentity { .dockerArchive }

    /// Opens the archive and creates the image's manifest, which may read all layers.
    ///
    /// - Parameter scratch: for an archive that is compressed or comes through a pipe.
    /// - Throws: `OCIError`, `SystemError`, `LimitExceeded`, `CancellationError`.
    public init(_ location: ImageLocation, scratch: ArchiveScratch) throws {
        let (path, name) = try location.located()
        files = try TarFiles(path, scratch: scratch)
        let images = try Self.listed(in: files)
        let image = try Self.select(name, images, path)
        (root, paths) = try Self.makeManifest(image, files)
        var suffix = ""
        if case .index? = name, let name { suffix = ":\(name)" }
        canonicalName = image.tags.first.map(Self.canonical) ?? "docker-archive:\(path)" + suffix
    }

    private init(_ image: Image, at position: Int, _ files: TarFiles) throws {
        self.files = files
        (root, paths) = try Self.makeManifest(image, files)
        canonicalName = "docker-archive:\(files.name):@\(position)"
    }

    /// All images of an archive. A name belongs to one image.
    ///
    /// - Throws: `OCIError`, `SystemError`.
    static func images(of files: TarFiles) throws -> [ImageArchive.Image] {
        let images = try listed(in: files)
        guard !images.isEmpty else { throw OCIError.notFound(source: files.name, .anyImage(.archive)) }
        var owners: [String: Int] = [:]
        return try images.enumerated().map { position, image in
            var names: [String] = []
            for name in image.tags.map(canonical) where !names.contains(name) {
                guard owners.updateValue(position, forKey: name) == nil else {
                    throw OCIError.ambiguous(source: files.name, .name(name, available(images)))
                }
                names.append(name)
            }
            return ImageArchive.Image(
                names: names, position: ":@\(position)", source: try DockerArchiveSource(image, at: position, files))
        }
    }

    public func rootManifest() -> SourceManifest { SourceManifest(bytes: root, mediaType: MediaType.dockerManifest) }

    public func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        throw OCIError.notFound(source: files.name, .manifest(descriptor.digest))
    }

    public func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        guard let path = paths[descriptor.digest] else {
            throw OCIError.notFound(source: files.name, descriptor.missing)
        }
        return try files.blob(path, descriptor)
    }

    // MARK: manifest.json

    private struct Image {
        var config: ByteString
        var tags: [String]
        var layers: [ByteString]
    }

    private static func listed(in files: TarFiles) throws -> [Image] {
        guard let bytes = try files.read("manifest.json", limit: ImageLimits.manifestBytes) else {
            let isOld = try files.open("repositories") != nil
            throw OCIError.notFound(source: files.name, isOld ? .oldDockerArchive : .file("manifest.json", .dockerArchive))
        }
        return try parse(bytes, files.name)
    }

    private static func parse(_ bytes: [UInt8], _ source: ByteString) throws(OCIError) -> [Image] {
        let document = "\(source)/manifest.json"
        var images: [Image] = []
        for entry in try DocumentFields.array(parsing: bytes, document: document, limit: ImageLimits.manifestBytes) {
            let layers = try entry.strings("Layers") ?? []
            images.append(
                Image(
                    config: try path(entry.requiredString("Config"), document), tags: try entry.strings("RepoTags") ?? [],
                    layers: try layers.map { text throws(OCIError) in try path(text, document) }))
        }
        return images
    }

    private static func path(_ text: String, _ document: String) throws(OCIError) -> ByteString {
        guard let path = normalizedPath(ByteString(text), relativeTo: []) else {
            throw .malformed(document: document, .invalidPath(text))
        }
        return path
    }

    private static func canonical(_ tag: String) -> String { (try? RegistryReference(parsing: tag))?.canonical ?? tag }

    /// Images without a tag are listed by their index.
    private static func available(_ images: [Image]) -> OCIError.AvailableImages {
        OCIError.AvailableImages(
            in: .archive, images.enumerated().flatMap { index, image in image.tags.isEmpty ? [.index(index)] : image.tags.map { .tag($0) } }
        )
    }

    private static func select(_ name: ImageLocation.Name?, _ images: [Image], _ source: ByteString) throws(OCIError) -> Image {
        let available = available(images)
        guard let name else {
            guard let first = images.first else { throw .notFound(source: source, .anyImage(.archive)) }
            guard images.count == 1 else {
                throw .ambiguous(source: source, .unnamed(available))
            }
            return first
        }
        let tag: String
        switch name {
        case .tag(let text): tag = text
        case .digest: throw .notFound(source: source, .digestInArchive(available))
        case .index(let index):
            guard images.indices.contains(index) else {
                throw .notFound(source: source, .entry(index, count: images.count, available))
            }
            return images[index]
        }
        let wanted = canonical(tag)
        let found =
            images.filter { $0.tags.contains { canonical($0) == wanted } }
            // `FILE:TAG` with the tag alone, if only one image has it.
            .nonEmpty ?? images.filter { $0.tags.contains { $0.hasSuffix(":" + tag) } }
        guard var image = found.first else { throw .notFound(source: source, .image(tag, available)) }
        guard found.count == 1 else { throw .ambiguous(source: source, .name(tag, available)) }
        image.tags.removeAll { canonical($0) != wanted && !$0.hasSuffix(":" + tag) }
        return image
    }

    // MARK: The manifest that the archive lacks

    private static func makeManifest(_ image: Image, _ files: TarFiles) throws -> ([UInt8], [ContentDigest: ByteString]) {
        guard let configBytes = try files.read(image.config, limit: ImageLimits.configBytes) else {
            throw OCIError.notFound(source: files.name, .config(path: image.config))
        }
        let config = try ImageConfig(parsing: configBytes)
        guard config.diffIDs.count == image.layers.count else {
            throw OCIError.damaged(source: files.name, .layerCount(manifest: image.layers.count, config: config.diffIDs.count))
        }
        let configDigest = ContentDigest.of(configBytes)
        var paths = [configDigest: image.config]
        var layers: [JSONValue] = []
        // Layers that are the same file, by name or through links, are read once.
        var described: [UInt64: (type: String, digest: ContentDigest)] = [:]
        for (path, diffID) in zip(image.layers, config.diffIDs) {
            guard let file = try files.open(path) else { throw OCIError.notFound(source: files.name, .layer(path: path)) }
            let (type, digest) = try describe(file, path, diffID, &described)
            paths[digest] = path
            layers.append(descriptor(type, digest, file.size))
        }
        let manifest: JSONValue = [
            "schemaVersion": 2, "mediaType": .string(MediaType.dockerManifest),
            "config": descriptor(MediaType.dockerConfig, configDigest, UInt64(configBytes.count)), "layers": .array(layers),
        ]
        return (manifest.compactBytes, paths)
    }

    private static func descriptor(_ type: String, _ digest: ContentDigest, _ size: UInt64) -> JSONValue {
        ["mediaType": .string(type), "size": JSONValue(size), "digest": .string(digest.description)]
    }

    /// The media type and the digest of a layer's blob. The digest of an uncompressed layer is its diff ID. A compressed layer has to be
    /// read, unless its path states the digest. The digest is verified when the blob is read.
    private static func describe(
        _ file: ImageFile, _ path: ByteString, _ diffID: ContentDigest, _ described: inout [UInt64: (type: String, digest: ContentDigest)]
    ) throws -> (type: String, digest: ContentDigest) {
        var magic: [UInt8] = [0, 0, 0, 0]
        let count = try magic.withUnsafeMutableBytes { try file.read(at: 0, into: $0) }
        let type: String
        switch magic[..<count].withUnsafeBytes({ CompressionFormat.detect($0) }) {
        case .none: return (MediaType.dockerLayer, diffID)
        case .gzip: type = MediaType.dockerLayerGzip
        case .zstd: type = MediaType.dockerLayerZstd
        }
        let parts = path.bytes.split(separator: UInt8(ascii: "/"))
        if parts.count == 3, parts[0].elementsEqual("blobs".utf8),
            let digest = ContentDigest(String(decoding: parts[1], as: UTF8.self) + ":" + String(decoding: parts[2], as: UTF8.self))
        {
            return (type, digest)
        }
        if let known = described[file.offset] { return known }
        var hasher = DigestHasher(.sha256)
        try file.forEachBlock { hasher.update($0) }
        let found = (type: type, digest: hasher.finalize())
        described[file.offset] = found
        return found
    }
}

extension Array {
    /// The array, or nil if it is empty.
    fileprivate var nonEmpty: [Element]? { isEmpty ? nil : self }
}
