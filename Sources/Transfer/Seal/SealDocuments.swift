import ComposefsHashing
import ComposefsImageStore
import ComposefsJSON
import ComposefsOCIModel

// The documents of a sealed image. All members that sealing does not concern stay as they are, in their order.

extension ImageConfig {
    /// The config with the label that states `id`; the config itself, byte for byte, if it has that label.
    func sealed(_ id: ObjectID) throws -> ImageConfig {
        guard runtime.labels[SealLabel.key] != id.hex else { return self }
        var document = try JSONValue.parse(bytes)
        var runtime = document["config"]?.object.map { JSONValue.object($0) } ?? .object(JSONObject())
        var labels = runtime["Labels"]?.object.map { JSONValue.object($0) } ?? .object(JSONObject())
        labels[SealLabel.key] = .string(id.hex)
        runtime["Labels"] = labels
        document["config"] = runtime
        return try ImageConfig(parsing: document.compactBytes)
    }
}

extension Manifest {
    /// The manifest with another config, and annotations with the digests of the parts. Those of an earlier seal are removed.
    ///
    /// - Parameters:
    ///   - config: the sealed config's bytes.
    ///   - digests: the digests of `.config`, `.merged` and `.bootable`.
    ///   - layers: the digests of the layers, in the manifest's order; nil to state none.
    func sealed(
        config bytes: [UInt8], _ digests: [SealedPart: ObjectID], layers digestsOfLayers: [ObjectID]?, _ algorithm: VerityAlgorithm
    ) throws -> Manifest {
        var document = try JSONValue.parse(self.bytes)
        document.unseal()
        for part in [SealedPart.merged, .bootable] {
            if let id = digests[part] { document.annotate(part.annotation(algorithm), id) }
        }
        var config = document["config"] ?? .object(JSONObject())
        config["digest"] = .string(ContentDigest.of(bytes).description)
        config["size"] = JSONValue(UInt64(bytes.count))
        // They are of the config as it was.
        config["data"] = nil
        config["urls"] = nil
        config.unseal()
        if let id = digests[.config] { config.annotate(SealedPart.config.annotation(algorithm), id) }
        document["config"] = config
        var layers = document["layers"]?.array ?? []
        for index in layers.indices {
            layers[index].unseal()
            if let digestsOfLayers, digestsOfLayers.indices.contains(index) {
                layers[index].annotate(SealedPart.layer.annotation(algorithm), digestsOfLayers[index])
            }
        }
        document["layers"] = .array(layers)
        return try Manifest(parsing: document.compactBytes, mediaType: mediaType)
    }

    /// The manifest of a seal's artifact without the signature of the manifest that it refers to, for an artifact that is to refer to another
    /// one: a signature that does not match would make the image useless. Other manifests stay as they are.
    func withoutSignatureOfSubject() throws -> Manifest {
        guard artifactType == ImageSeal.artifactType else { return self }
        let keys = VerityAlgorithm.allCases.map { SealedPart.manifest.annotation($0) }
        guard layers.contains(where: { layer in keys.contains { layer.annotations[$0] != nil } }) else { return self }
        var document = try JSONValue.parse(bytes)
        let kept = zip(document["layers"]?.array ?? [], layers).filter { _, layer in !keys.contains { layer.annotations[$0] != nil } }
        document["layers"] = .array(kept.map(\.0))
        return try Manifest(parsing: document.compactBytes, mediaType: mediaType)
    }
}

extension JSONValue {
    /// Adds an annotation to a manifest or descriptor.
    fileprivate mutating func annotate(_ key: String, _ id: ObjectID) {
        var annotations = self["annotations"]?.object ?? JSONObject()
        annotations[key] = .string(id.hex)
        self["annotations"] = .object(annotations)
    }

    /// Removes the annotations of an earlier seal: digests and signatures, of any algorithm and format.
    fileprivate mutating func unseal() {
        guard var annotations = self["annotations"]?.object else { return }
        let stale = annotations.keys.filter { key in SealedPart.allCases.contains { key.hasPrefix("composefs.\($0.rawValue).") } }
        guard !stale.isEmpty else { return }
        for key in stale { annotations[key] = nil }
        self["annotations"] = annotations.keys.isEmpty ? nil : .object(annotations)
    }
}
