import ComposefsBytes
import ComposefsHashing
package import ComposefsJSON
package import ComposefsOCI

/// The state of a push: one line for all of it.
package struct PushState: ProgressState {
    private var layers: [Int: (done: UInt64, total: UInt64)] = [:]

    package init() {}

    package mutating func apply(_ event: PushEvent, at time: Duration) {
        // The next image of an index.
        if case .began = event.phase { layers = [:] }
        if case .layer(let index, _) = event.component { layers[index] = (event.bytesDone, event.bytesTotal) }
    }

    package func lines(width: Int, height: Int, time: Duration) -> [ProgressLine] {
        let (done, total) = (layers.values.map(\.done).saturatingSum, layers.values.map(\.total).saturatingSum)
        let text = layers.isEmpty ? "looking at the image" : "sending \(humanBytes(done)) of \(humanBytes(total))"
        return ProgressRenderer.oneLine(text, width: width)
    }
}

extension PushEvent: ShownEvent {
    package var isFrequent: Bool { phase == .bytes }

    package var line: String? {
        switch (component, phase) {
        case (.image, .began(let layers)): "\(layers.count) layers, \(humanBytes(bytesTotal))"
        case (.image, .manifest): "sending the manifest"
        case (.image, .referrers): "sending referrers"
        case (.image, .done): "done"
        case (.layer(let index, let digest), .started): "layer \(index + 1) \(digest): started"
        case (.layer(let index, let digest), .finished(let outcome)): "layer \(index + 1) \(digest): \(outcome.name)"
        default: nil
        }
    }

    package var json: JSONValue {
        let name: EventName
        switch phase {
        case .began: name = .began
        case .manifest: name = .manifest
        case .referrers: name = .referrers
        case .done: name = .done
        case .queued: name = .layerQueued
        case .started: name = .layerStarted
        case .bytes: name = .layerProgress
        case .finished(.present): name = .layerPresent
        case .finished(.mounted): name = .layerMounted
        case .finished(.sent): name = .layerSent
        }
        var members: [(key: String, value: JSONValue)] = [("event", name.json)]
        if case .layer(let index, let digest) = component {
            members += [("layer", .integer(Int64(index))), ("diffId", .string(digest.description))]
        }
        members += [("bytesDone", JSONValue(bytesDone)), ("bytesTotal", JSONValue(bytesTotal))]
        return .object(JSONObject(members))
    }
}

extension PushedLayer {
    /// The name in text and JSON.
    package var name: String {
        switch self {
        case .present: "present"
        case .mounted: "mounted"
        case .sent: "sent"
        }
    }
}
