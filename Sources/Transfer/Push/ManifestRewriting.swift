import ComposefsCompression
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel

extension Manifest {
    /// The manifest with other blobs for its layers, and another subject where one is given; itself where nothing changes. Everything else
    /// stays, members in their order.
    func replacing(layers: [Descriptor], subject: Descriptor? = nil) throws -> Manifest {
        let changes = zip(self.layers, layers).contains { !$0.namesSameBlob(as: $1) }
        let subjectChanges = subject.map { subject in !(self.subject.map { $0.namesSameBlob(as: subject) } ?? false) } ?? false
        guard changes || subjectChanges else { return self }
        var document = try JSONValue.parse(bytes)
        if changes {
            var entries = document["layers"]?.array ?? []
            for (index, layer) in layers.enumerated() where entries.indices.contains(index) {
                guard !self.layers[index].namesSameBlob(as: layer) else { continue }
                entries[index] = entries[index].naming(layer)
                entries[index].dropWhatDescribesPacking()
            }
            document["layers"] = .array(entries)
        }
        if subjectChanges, let subject {
            document["subject"] = (document["subject"] ?? .object(JSONObject())).naming(subject)
        }
        return try Manifest(parsing: document.compactBytes, mediaType: mediaType)
    }
}

extension Manifest {
    /// The manifest of the same image in OCI's format; itself where it is no other. Blobs stay as they are: docker's configs are OCI configs with
    /// more members.
    func convertedToOCI(isImage: Bool) throws -> Manifest {
        guard mediaType == MediaType.dockerManifest else { return self }
        var document = try JSONValue.parse(bytes)
        document["mediaType"] = .string(MediaType.ociManifest)
        if isImage || MediaType.isImageConfig(config.mediaType) { document["config"]?["mediaType"] = .string(MediaType.ociConfig) }
        var entries = document["layers"]?.array ?? []
        for index in entries.indices where layers.indices.contains(index) {
            entries[index]["mediaType"] = .string(LayerMediaType.oci(layers[index].mediaType))
        }
        document["layers"] = .array(entries)
        return try Manifest(parsing: document.compactBytes, mediaType: MediaType.ociManifest)
    }
}

extension Descriptor {
    func namesSameBlob(as other: Descriptor) -> Bool { digest == other.digest && size == other.size && mediaType == other.mediaType }
}

extension JSONValue {
    /// A descriptor of another blob. What was only true of the old one's bytes goes: copies of them, and where they can be had.
    fileprivate func naming(_ blob: Descriptor) -> JSONValue {
        var value = self
        value["mediaType"] = .string(blob.mediaType)
        value["digest"] = .string(blob.digest.description)
        value["size"] = JSONValue(blob.size)
        value["data"] = nil
        value["urls"] = nil
        return value
    }

    /// Annotations that tell where in the packed bytes something is (zstd:chunked, eStargz): a reader that believed them would read rubbish.
    fileprivate mutating func dropWhatDescribesPacking() {
        guard var annotations = self["annotations"]?.object else { return }
        let prefixes = [
            "io.github.containers.zstd-chunked.", "io.containers.zstd-chunked.", "containerd.io/snapshot/stargz/", "io.containers.estargz.",
        ]
        let stale = annotations.keys.filter { key in prefixes.contains { key.hasPrefix($0) } }
        guard !stale.isEmpty else { return }
        for key in stale { annotations[key] = nil }
        self["annotations"] = annotations.keys.isEmpty ? nil : .object(annotations)
    }
}

extension LayerMediaType {
    /// The media type of a layer that was packed anew: of the same family, docker's or OCI's. A layer that registries need not have
    /// ("foreign") becomes an ordinary one: they refuse the others unless they know the address, and the bytes there may not be these.
    static func repacked(_ type: String, as compression: CompressionFormat) -> String {
        let isDocker = type.hasPrefix("application/vnd.docker.")
        let base = isDocker ? MediaType.dockerLayer : "application/vnd.oci.image.layer.v1.tar"
        return compression == .none ? base : base + (isDocker ? "." : "+") + compression.name
    }

    /// OCI's name for a layer of docker's; other types are what they are.
    static func oci(_ type: String) -> String {
        guard let layer = LayerMediaType(type), MediaType.bare(type).hasPrefix("application/vnd.docker.") else { return type }
        let base = "application/vnd.oci.image.layer." + (layer.isDistributable ? "" : "nondistributable.") + "v1.tar"
        return layer.compression == .none ? base : base + "+" + layer.compression.name
    }
}
