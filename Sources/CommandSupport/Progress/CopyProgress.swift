package import ComposefsJSON
package import ComposefsOCI

/// The state of a copy: the layer of the latest event.
package struct CopyState: ProgressState {
    private var text = "looking at the image"

    package init() {}

    package mutating func apply(_ event: CopyEvent, at time: Duration) {
        if case .layer(let index, .objects(let done, let total)) = event {
            text = "copying layer \(index + 1): \(done) of \(total) objects"
        } else if let line = event.line {
            text = line
        }
    }

    package func lines(width: Int, height: Int, time: Duration) -> [ProgressLine] { ProgressRenderer.oneLine(text, width: width) }
}

extension CopyEvent: ShownEvent {
    package var isFrequent: Bool { if case .layer(_, .objects) = self { true } else { false } }

    package var line: String? {
        switch self {
        case .began(let layers): "\(layers.count) layers"
        case .layer(let index, .present): "layer \(index + 1): present"
        case .layer(let index, .started): "layer \(index + 1): started"
        case .layer(_, .objects): nil
        case .layer(let index, .stored): "layer \(index + 1): stored"
        case .merging: "merging layers"
        case .publishing: "making it durable"
        case .done: "done"
        }
    }

    package var json: JSONValue {
        func layer(_ name: EventName, _ index: Int) -> JSONValue { ["event": name.json, "layer": .integer(Int64(index))] }
        switch self {
        case .began(let layers): return ["event": EventName.began.json, "layers": .array(layers.map { .string($0.description) })]
        case .layer(let index, .present): return layer(.layerPresent, index)
        case .layer(let index, .started): return layer(.layerStarted, index)
        case .layer(let index, .stored): return layer(.layerStored, index)
        case .layer(let index, .objects(let done, let total)):
            var value = layer(.layerProgress, index)
            value["objectsDone"] = .integer(Int64(done))
            value["objectsTotal"] = .integer(Int64(total))
            return value
        case .merging: return ["event": EventName.merging.json]
        case .publishing: return ["event": EventName.publishing.json]
        case .done: return ["event": EventName.done.json]
        }
    }
}
