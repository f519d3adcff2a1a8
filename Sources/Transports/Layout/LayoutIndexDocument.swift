import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel

/// A layout's index.json (image-spec image-index.md) that is modified. Its other content stays.
struct LayoutIndexDocument {
    private var document: JSONValue = ["schemaVersion": 2, "mediaType": .string(MediaType.ociIndex), "manifests": []]

    static let limit = 16 << 20
    private static let nameKey = "org.opencontainers.image.ref.name"

    /// An index without manifests.
    init() {}

    /// Parses an existing index.json.
    ///
    /// - Parameter name: the file's name, for messages.
    /// - Throws: `OCIError`, `JSONError`.
    init(parsing bytes: [UInt8], name: String) throws {
        var bytes = bytes
        // Programs in Go encode an empty list as null.
        if var value = try? JSONValue.parse(bytes), value["manifests"]?.isNull == true {
            value["manifests"] = []
            bytes = value.compactBytes
        }
        _ = try ImageIndex(parsing: bytes, mediaType: nil, document: name, limit: Self.limit)
        document = try JSONValue.parse(bytes)
    }

    var bytes: [UInt8] { document.compactBytes }

    /// Adds a manifest. If another entry has the name, that entry is removed.
    ///
    /// - Parameter fullName: the canonical reference, which containerd and docker look for.
    mutating func add(_ manifest: Manifest, _ blob: Descriptor, name: String?, fullName: String? = nil, isReferrer: Bool) {
        // Readers use the artifact type to distinguish referrers from the image if there is no name.
        let type = isReferrer ? manifest.artifactType ?? manifest.config.mediaType : manifest.layoutArtifactType
        add(blob, artifactType: type, name: name, fullName: fullName, isReferrer: isReferrer)
    }

    /// Adds an index, which has its own media type as a referrer unless it has an artifact type; otherwise as for a manifest.
    mutating func add(_ index: ImageIndex, _ blob: Descriptor, name: String?, fullName: String? = nil, isReferrer: Bool) {
        let type = index.artifactType ?? (isReferrer ? index.mediaType : nil)
        add(blob, artifactType: type, name: name, fullName: fullName, isReferrer: isReferrer)
    }

    private mutating func add(_ blob: Descriptor, artifactType type: String?, name: String?, fullName: String?, isReferrer: Bool) {
        var entry: JSONValue = [
            "mediaType": .string(blob.mediaType), "digest": .string(blob.digest.description), "size": JSONValue(blob.size),
        ]
        if let type, !type.isEmpty { entry["artifactType"] = .string(type) }
        if let name { entry["annotations"] = [Self.nameKey: .string(name)] }
        if let fullName { entry["annotations"]?["io.containerd.image.name"] = .string(fullName) }
        var entries = document["manifests"]?.array ?? []
        // One entry without a name is enough for a manifest.
        entries.removeAll { old in
            let oldName = old["annotations"]?[Self.nameKey]
            return name != nil && oldName == name.map { .string($0) } || oldName == nil && old["digest"] == entry["digest"]
        }
        if name != nil || !entries.contains(where: { $0["digest"] == entry["digest"] }) {
            // An image without a name comes first, because readers that ignore artifact types use the first entry.
            if name == nil, !isReferrer { entries.insert(entry, at: 0) } else { entries.append(entry) }
        }
        document["manifests"] = .array(entries)
    }
}

extension LayoutIndex {
    /// The content of `oci-layout`, which identifies a layout.
    static let marker = Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)

    /// The name of the image in a destination; nil for none.
    ///
    /// - Throws: `OCIError.invalidReference` if the location has a digest or an index, or if the name is not valid.
    static func writtenName(_ name: ImageLocation.Name?, in location: ImageLocation) throws(OCIError) -> String? {
        switch name {
        case nil: return nil
        case .tag(let name):
            if let fault = fault(inName: name) { throw .invalidReference(ByteString(name), .invalidName(fault)) }
            return name
        case .digest, .index:
            throw .invalidReference(location.text, .destinationByDigest)
        }
    }
}

extension Manifest {
    /// The `artifactType` for a descriptor of this manifest (image-spec manifest.md: the config's media type if the manifest has no
    /// `artifactType`); nil for an image.
    package var layoutArtifactType: String? { artifactType ?? (mayBeImage ? nil : config.mediaType) }
}
