import ComposefsCompression
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel

extension Manifest {
    /// The manifest with other blobs for its layers and, if given, another subject. Other members and their order stay. Returns the
    /// manifest itself if nothing changes.
    ///
    /// - Throws: `OCIError`, `JSONError`.
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
    /// The manifest of the same image in OCI format; the manifest itself if it is not in Docker's. Blobs do not change: Docker's configs
    /// are OCI configs with additional members.
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

extension ImageIndex {
    /// The annotation of an attestation's entry in an index of buildkit: the digest of the image that it is about.
    private static let referenceKey = "vnd.docker.reference.digest"

    /// The index of those manifests that were sent, by their digests in this one. Platforms, annotations and other members stay, except that
    /// attestations name the image as it was sent. Returns the index itself if it lists the same.
    ///
    /// - Parameter isOCI: whether an index in Docker's format becomes one of OCI.
    func replacing(_ sent: [ContentDigest: Descriptor], isOCI: Bool) throws -> ImageIndex {
        let type = isOCI ? MediaType.ociIndex : mediaType
        let isSame = manifests.allSatisfy { entry in sent[entry.digest].map { $0.namesSameBlob(as: entry) } ?? false }
        guard !isSame || type != mediaType else { return self }
        var document = try JSONValue.parse(bytes)
        var entries: [JSONValue] = []
        for (entry, descriptor) in zip(document["manifests"]?.array ?? [], manifests) {
            guard let now = sent[descriptor.digest] else { continue }
            var new = now.namesSameBlob(as: descriptor) ? entry : entry.naming(now)
            if let about = descriptor.annotations[Self.referenceKey].flatMap({ ContentDigest($0) }), let image = sent[about] {
                new["annotations"]?[Self.referenceKey] = .string(image.digest.description)
            }
            entries.append(new)
        }
        document["manifests"] = .array(entries)
        if type != mediaType { document["mediaType"] = .string(type) }
        return try ImageIndex(parsing: document.compactBytes, mediaType: type)
    }
}

extension Descriptor {
    func namesSameBlob(as other: Descriptor) -> Bool { digest == other.digest && size == other.size && mediaType == other.mediaType }
}

extension JSONValue {
    /// The descriptor, changed to name another blob. `data` and `urls`, which describe the old blob, are removed.
    fileprivate func naming(_ blob: Descriptor) -> JSONValue {
        var value = self
        value["mediaType"] = .string(blob.mediaType)
        value["digest"] = .string(blob.digest.description)
        value["size"] = JSONValue(blob.size)
        value["data"] = nil
        value["urls"] = nil
        return value
    }

    /// Removes annotations with offsets into the compressed bytes (zstd:chunked, eStargz), which are wrong for another blob.
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
    /// The media type of a layer that was compressed again, of the same family (Docker or OCI). A non-distributable layer becomes an
    /// ordinary one, because registries accept non-distributable layers only with a URL, and the blob at that URL can be another one.
    static func repacked(_ type: String, as compression: CompressionFormat) -> String {
        let isDocker = type.hasPrefix("application/vnd.docker.")
        let base = isDocker ? MediaType.dockerLayer : "application/vnd.oci.image.layer.v1.tar"
        return compression == .none ? base : base + (isDocker ? "." : "+") + compression.name
    }

    /// The OCI media type for a layer type of Docker. Other types are returned unchanged.
    static func oci(_ type: String) -> String {
        guard let layer = LayerMediaType(type), MediaType.bare(type).hasPrefix("application/vnd.docker.") else { return type }
        let base = "application/vnd.oci.image.layer." + (layer.isDistributable ? "" : "nondistributable.") + "v1.tar"
        return layer.compression == .none ? base : base + "+" + layer.compression.name
    }
}
