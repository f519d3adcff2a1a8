public import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
public import ComposefsOCIModel
public import ComposefsSignaturePolicy

/// An image in `containers-storage:[[DRIVER@ROOT+RUNROOT]]NAME[@ID]`, the storage of podman, buildah, skopeo and cri-o.
///
/// The storage keeps layers unpacked, with tar-split data from which their uncompressed archives are re-assembled. The manifest that this
/// source returns refers to those archives. It is the stored manifest if that refers to the same archives.
public struct StorageSource: ImageSource {
    private let storage: ContainersStorage
    private let image: ContainersStorage.Image
    private let root: SourceManifest
    private let layers: [ContentDigest: StoredLayer]
    public let canonicalName: String
    public let policyIdentity: ImageIdentity

    private struct StoredLayer: Sendable {
        var storage: ByteString
        var id: String
        var size: UInt64
    }

    /// - Parameters:
    ///   - text: the reference without `containers-storage:`.
    ///   - roots: the storages to search, unless the text names one; nil for the default locations.
    /// - Throws: `OCIError`, `SystemError`.
    public init(_ text: String, roots configured: [ByteString]? = nil) throws {
        let roots = try Self.roots(of: text, configured: configured)
        var name = Substring(text)
        if name.hasPrefix("["), let end = name.firstIndex(of: "]") { name = name[name.index(after: end)...] }
        let storages = try roots.compactMap { try ContainersStorage($0) }
        let reference = ByteString("containers-storage:" + name)
        guard !storages.isEmpty else {
            throw OCIError.notFound(source: reference, .storage(roots))
        }
        guard let (storage, image, matched) = try Self.find(String(name), storages) else {
            throw OCIError.notFound(source: reference, .storedImage(storages.map(\.root)))
        }
        self.storage = storage
        self.image = image
        guard let bytes = try storage.item("manifest", of: image, limit: ImageLimits.largestManifest) else {
            throw OCIError.damaged(source: reference, .storedManifest(imageID: image.id))
        }
        let manifest = try Manifest(parsing: bytes)
        guard let configBytes = try storage.item(manifest.config.digest.description, of: image, limit: ImageLimits.configBytes) else {
            throw OCIError.damaged(source: reference, .storedConfig(imageID: image.id))
        }
        guard let config = try manifest.imageConfig(from: configBytes) else {
            throw OCIError.unsupported(document: reference.description, .storedArtifact)
        }
        let chain = try Self.chain(image, storages, reference)
        (root, layers) = try Self.makeManifest(manifest, config, chain, reference)
        let statesID = matched == nil || name.lastIndex(of: "@").map { Self.isIdentifier(name[name.index(after: $0)...]) } == true
        policyIdentity = .storage(root: storage.root, name: matched, id: statesID ? image.id : nil)
        canonicalName = matched ?? image.names.first ?? "containers-storage:\(image.id)"
    }

    public func rootManifest() -> SourceManifest { root }

    public func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
        throw OCIError.notFound(source: storage.root, .manifest(descriptor.digest))
    }

    public func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
        if let data = descriptor.data { return DataBlobReader(data) }
        if let layer = layers[descriptor.digest] {
            let files = try DirectoryFiles(layer.storage)
            guard let index = try files.open(ByteString("overlay-layers/\(layer.id).tar-split.gz")) else {
                throw OCIError.notFound(source: storage.root, .tarSplit(layer: layer.id))
            }
            let content = try DirectoryFiles(layer.storage + ByteString("/overlay/\(layer.id)/diff"), asRoot: true)
            return try TarSplitReader(index, content)
        }
        guard let bytes = try storage.item(descriptor.digest.description, of: image, limit: ImageLimits.configBytes) else {
            throw OCIError.notFound(source: storage.root, descriptor.missing)
        }
        return DataBlobReader(bytes)
    }

    // MARK: Finding

    /// The storages to search: the one that the text names, or else those that are configured; nil for the default locations.
    package static func roots(of text: String, configured: [ByteString]?) throws(OCIError) -> [ByteString] {
        guard text.hasPrefix("["), let end = text.firstIndex(of: "]") else { return configured ?? ContainersStorage.defaultRoots() }
        return [try explicitRoot(text[text.index(after: text.startIndex)..<end], text)]
    }

    /// The root in `DRIVER@ROOT+RUNROOT:OPTIONS`. The other parts are not used.
    private static func explicitRoot(_ text: Substring, _ whole: String) throws(OCIError) -> ByteString {
        var path = text
        if let at = path.firstIndex(of: "@") {
            guard path[..<at] == "overlay" else {
                throw .unsupported(document: "containers-storage:\(ByteString(whole))", .storageDriver(String(path[..<at])))
            }
            path = path[path.index(after: at)...]
        }
        path = path.prefix { $0 != "+" && $0 != ":" }
        guard path.hasPrefix("/") else { throw .invalidReference(ByteString(whole), .relativeStorageRoot) }
        return ByteString(path.utf8)
    }

    /// Finds an image by name (completed as podman does), by digest, or by ID or its beginning; by name and ID if both are given.
    private static func find(
        _ text: String, _ storages: [ContainersStorage]
    ) throws(OCIError) -> (ContainersStorage, ContainersStorage.Image, String?)? {
        if let at = text.lastIndex(of: "@"), at != text.startIndex, case let id = text[text.index(after: at)...], isIdentifier(id) {
            let name = String(text[..<at])
            guard let (storage, image) = try find(id: id, storages) else { return nil }
            let wanted = repositories(name)
            let matching = image.names.filter { stored in repositories(stored).contains { wanted.contains($0) } }
            // The tag may have moved to another image, but the repository must be the same.
            guard !matching.isEmpty else {
                throw .notFound(
                    source: ByteString(text), .storedName(imageID: image.id, names: image.names)
                )
            }
            let exact = names(name)
            return (storage, image, matching.first { exact.contains($0) } ?? matching.first)
        }
        let reference = try? RegistryReference(parsing: text)
        for storage in storages {
            for name in names(text) {
                if let image = storage.images.first(where: { $0.names.contains(name) }) { return (storage, image, name) }
            }
            if let digest = reference?.digest, let image = storage.images.first(where: { $0.digest == digest }) {
                return (storage, image, reference?.canonical)
            }
        }
        var id = Substring(text)
        for prefix in ["sha256:", "@"] where id.hasPrefix(prefix) { id = id.dropFirst(prefix.count) }
        guard isIdentifier(id), let (storage, image) = try find(id: id, storages) else { return nil }
        return (storage, image, nil)
    }

    /// The spellings under which a name may be stored.
    private static func names(_ text: String) -> [String] {
        guard let reference = try? RegistryReference(parsing: text) else { return [text] }
        // A short name can also be that of an image that was built on this machine.
        let local = (try? RegistryReference(parsing: "localhost/" + text)).map { [$0.canonical] } ?? []
        return [text, reference.canonical] + local
    }

    private static func repositories(_ text: String) -> [String] {
        names(text).compactMap { try? RegistryReference(parsing: $0) }.map { "\($0.domain)/\($0.name)" }
    }

    /// Whether the text can be an image's ID or the beginning of one.
    private static func isIdentifier(_ text: Substring) -> Bool {
        (6...64).contains(text.utf8.count) && text.utf8.allSatisfy { Hex.value(of: $0) != nil }
    }

    private static func find(
        id: Substring, _ storages: [ContainersStorage]
    ) throws(OCIError) -> (ContainersStorage, ContainersStorage.Image)? {
        for storage in storages {
            let found = storage.images.filter { $0.id.hasPrefix(id) }
            guard found.count < 2 else { throw .ambiguous(source: ByteString(id.utf8), .imageID) }
            if let image = found.first { return (storage, image) }
        }
        return nil
    }

    /// The layers of an image, the lowest first, each with the root of its storage.
    private static func chain(
        _ image: ContainersStorage.Image, _ storages: [ContainersStorage], _ source: ByteString
    ) throws(OCIError) -> [(layer: ContainersStorage.Layer, root: ByteString)] {
        var chain: [(layer: ContainersStorage.Layer, root: ByteString)] = []
        var next = image.topLayer
        var seen: Set<String> = []
        while let id = next {
            guard seen.insert(id).inserted, let storage = storages.first(where: { $0.layers[id] != nil }), let layer = storage.layers[id]
            else {
                throw .damaged(source: source, .storedLayer(id))
            }
            chain.append((layer: layer, root: storage.root))
            next = layer.parent
        }
        return chain.reversed()
    }

    private static func makeManifest(
        _ manifest: Manifest, _ config: ImageConfig, _ chain: [(layer: ContainersStorage.Layer, root: ByteString)], _ source: ByteString
    ) throws(OCIError) -> (SourceManifest, [ContentDigest: StoredLayer]) {
        guard chain.count == config.diffIDs.count, chain.count == manifest.layers.count else {
            throw .damaged(
                source: source, .storedLayerCount(layers: chain.count, diffIDs: config.diffIDs.count))
        }
        let type = manifest.mediaType == MediaType.dockerManifest ? MediaType.dockerLayer : "application/vnd.oci.image.layer.v1.tar"
        var layers: [ContentDigest: StoredLayer] = [:]
        var descriptors: [JSONValue] = []
        var isSame = true
        for (index, (diffID, (layer, root))) in zip(config.diffIDs, chain).enumerated() {
            guard layer.digest == diffID, let size = layer.size else {
                throw .damaged(
                    source: source,
                    .layerNotRecorded(layer.id, diffID))
            }
            layers[diffID] = StoredLayer(storage: root, id: layer.id, size: size)
            descriptors.append(["mediaType": .string(type), "digest": .string(diffID.description), "size": JSONValue(size)])
            let stored = manifest.layers[index]
            if stored.digest != diffID || stored.size != size { isSame = false }
        }
        let expected = { (bytes: [UInt8]) in
            Descriptor(mediaType: manifest.mediaType, digest: .of(bytes), size: UInt64(bytes.count))
        }
        if isSame {
            return (SourceManifest(bytes: manifest.bytes, mediaType: manifest.mediaType, expected: expected(manifest.bytes)), layers)
        }
        var document: JSONValue
        do throws(JSONError) { document = try JSONValue.parse(manifest.bytes) } catch {
            throw .malformed(document: "manifest", .invalidJSON(error))
        }
        document["layers"] = .array(descriptors)
        let bytes = document.compactBytes
        return (SourceManifest(bytes: bytes, mediaType: manifest.mediaType, expected: expected(bytes)), layers)
    }
}
