import ComposefsJSON
public import ComposefsOCIModel

/// A step of the build of an image, as the image's config records it (image-spec, config.md, `history`).
public struct HistoryStep: Sendable, Hashable, Codable {
    /// As in the document, in the form of RFC 3339.
    public var created: String?
    public var createdBy: String?
    public var author: String?
    public var comment: String?
    /// The layer that the step made, as the manifest describes it; nil for a step that only changed the config.
    public var layer: Descriptor?

    public init(
        created: String? = nil, createdBy: String? = nil, author: String? = nil, comment: String? = nil, layer: Descriptor? = nil
    ) {
        self.created = created
        self.createdBy = createdBy
        self.author = author
        self.comment = comment
        self.layer = layer
    }
}

extension StoredImage {
    /// How the image was built, the first step first. Layers of which the config records no step come first, as steps that only have a layer.
    ///
    /// The config's author decides what is in it: members of other types count as absent, and steps beyond the number of layers have none.
    public var history: [HistoryStep] {
        let recorded = (try? JSONValue.parse(configBytes))?["history"]?.array ?? []
        var layers = manifest.layers[...]
        var steps: [HistoryStep] = []
        for entry in recorded {
            func text(_ key: String) -> String? { entry[key]?.string }
            let isEmpty = entry["empty_layer"] == .bool(true)
            steps.append(
                HistoryStep(
                    created: text("created"), createdBy: text("created_by"), author: text("author"), comment: text("comment"),
                    layer: isEmpty ? nil : layers.popFirst()))
        }
        return layers.map { HistoryStep(layer: $0) } + steps
    }
}
