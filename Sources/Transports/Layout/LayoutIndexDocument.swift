import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel

/// A layout's index.json (image-spec image-index.md), as it is changed: what else is in it stays.
struct LayoutIndexDocument {
    private var document: JSONValue = ["schemaVersion": 2, "mediaType": .string(MediaType.ociIndex), "manifests": []]

    static let limit = 16 << 20
    private static let nameKey = "org.opencontainers.image.ref.name"

    /// An index without manifests.
    init() {}

    /// - Parameter name: of the file, for messages.
    init(parsing bytes: [UInt8], name: String) throws {
        _ = try ImageIndex(parsing: bytes, mediaType: nil, document: name, limit: Self.limit)
        document = try JSONValue.parse(bytes)
    }

    var bytes: [UInt8] { document.compactBytes }

    /// Adds a manifest; the name moves to it, if there is one.
    mutating func add(_ manifest: Manifest, _ blob: Descriptor, name: String?, isReferrer: Bool) {
        var entry: JSONValue = [
            "mediaType": .string(blob.mediaType), "digest": .string(blob.digest.description), "size": JSONValue(blob.size),
        ]
        // By their artifact type readers tell referrers from the image that is meant if no name says it.
        let type = isReferrer ? manifest.artifactType ?? manifest.config.mediaType : manifest.layoutArtifactType
        if let type, !type.isEmpty { entry["artifactType"] = .string(type) }
        if let name { entry["annotations"] = [Self.nameKey: .string(name)] }
        var entries = document["manifests"]?.array ?? []
        // The same manifest without a name is not needed twice.
        entries.removeAll { old in
            let oldName = old["annotations"]?[Self.nameKey]
            return name != nil && oldName == name.map { .string($0) } || oldName == nil && old["digest"] == entry["digest"]
        }
        if name != nil || !entries.contains(where: { $0["digest"] == entry["digest"] }) {
            // An image without a name comes first, where readers look that know nothing of artifact types.
            if name == nil, !isReferrer { entries.insert(entry, at: 0) } else { entries.append(entry) }
        }
        document["manifests"] = .array(entries)
    }
}

extension LayoutIndex {
    /// The file that says that a directory is a layout.
    static let marker = Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8)

    /// The name by which a destination's image is to be found.
    static func writtenName(_ name: ImageLocation.Name?, in location: ImageLocation) throws(OCIError) -> String? {
        switch name {
        case nil: return nil
        case .tag(let name):
            if let fault = fault(inName: name) { throw .invalidReference(ByteString(name), "is no reference name: \(fault)") }
            return name
        case .digest, .index:
            throw .invalidReference(
                location.text, "an image that is written has neither digest nor place for a name; write a path, or PATH:NAME")
        }
    }
}

extension Manifest {
    /// What a descriptor of this manifest says of its kind (image-spec: the config's media type where there is no `artifactType`); nil for an
    /// image, which needs none.
    package var layoutArtifactType: String? { artifactType ?? (mayBeImage ? nil : config.mediaType) }
}
