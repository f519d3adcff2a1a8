import ComposefsOCI
import Hashing
import JSON
import Synchronization

/// Shows the events of a push or a copy on standard error: one line for all of it on a terminal, lines of text or JSON elsewhere.
final class PushProgress: Sendable {
    private struct State {
        var lastDrawn: ContinuousClock.Instant?
        var layers: [Int: (done: UInt64, total: UInt64)] = [:]
    }

    private let style: ProgressStyle
    private let screen: TerminalScreen?
    private let state = Mutex(State())

    init(_ options: GlobalOptions) {
        style = options.progressStyle
        screen = style == .tty ? TerminalScreen(usesColor: (environment("NO_COLOR") ?? "").isEmpty) : nil
        if let screen { Output.screen.withLock { $0 = screen } }
    }

    func show(_ event: PushEvent) {
        switch style {
        case .none, .auto: return
        case .plain: if let text = text(event) { Output.note(text) }
        case .json: Output.json(json(event))
        case .tty: draw(event)
        }
    }

    func show(_ event: CopyEvent) {
        switch style {
        case .none, .auto: return
        case .plain: if let text = text(event) { Output.note(text) }
        case .json: Output.json(json(event))
        case .tty:
            guard case .layer(let index, .objects(let done, let total)) = event else { return }
            draw("copying layer \(index + 1): \(done) of \(total) objects")
        }
    }

    /// Takes the line away. A second call does nothing.
    func end() {
        guard let screen else { return }
        screen.close()
        Output.screen.withLock { $0 = nil }
    }

    private func draw(_ event: PushEvent) {
        guard case .layer(let index, _) = event.component else { return }
        let (done, total) = state.withLock { state in
            state.layers[index] = (event.bytesDone, event.bytesTotal)
            return state.layers.values.reduce((UInt64(0), UInt64(0))) { ($0.0 &+ $1.done, $0.1 &+ $1.total) }
        }
        draw("sending \(humanBytes(done)) of \(humanBytes(total))")
    }

    private func draw(_ text: String) {
        let isDue = state.withLock { state in
            let time = ContinuousClock.now
            // Ten pictures a second are enough for anybody.
            if let last = state.lastDrawn, time - last < .milliseconds(100) { return false }
            state.lastDrawn = time
            return true
        }
        guard isDue, let screen else { return }
        let window = TerminalScreen.window
        screen.draw([ProgressLine(text: String(text.prefix(max(1, window.columns - 1))), emphasis: .strong)], in: window)
    }

    private func text(_ event: PushEvent) -> String? {
        switch (event.component, event.phase) {
        case (.image, .began(let layers)): "\(layers.count) layers, \(humanBytes(event.bytesTotal))"
        case (.image, .manifest): "sending the manifest"
        case (.image, .referrers): "sending referrers"
        case (.image, .done): "done"
        case (.layer(let index, let digest), .started): "layer \(index + 1) \(digest): started"
        case (.layer(let index, let digest), .finished(let outcome)): "layer \(index + 1) \(digest): \(name(outcome))"
        default: nil
        }
    }

    /// One line of JSON an event; keys and names are promised to scripts, more of them may come.
    private func json(_ event: PushEvent) -> JSONValue {
        let name: String
        switch event.phase {
        case .began: name = "began"
        case .manifest: name = "manifest"
        case .referrers: name = "referrers"
        case .done: name = "done"
        case .queued: name = "layerQueued"
        case .started: name = "layerStarted"
        case .bytes: name = "layerProgress"
        case .finished(.present): name = "layerPresent"
        case .finished(.mounted): name = "layerMounted"
        case .finished(.sent): name = "layerSent"
        }
        var members: [(key: String, value: JSONValue)] = [("event", .string(name))]
        if case .layer(let index, let digest) = event.component {
            members += [("layer", .integer(Int64(index))), ("diffId", .string(digest.description))]
        }
        members += [("bytesDone", JSONValue(event.bytesDone)), ("bytesTotal", JSONValue(event.bytesTotal))]
        return .object(JSONObject(members))
    }

    private func text(_ event: CopyEvent) -> String? {
        switch event {
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

    private func json(_ event: CopyEvent) -> JSONValue {
        func layer(_ name: String, _ index: Int) -> JSONValue { ["event": .string(name), "layer": .integer(Int64(index))] }
        switch event {
        case .began(let layers): return ["event": "began", "layers": .array(layers.map { .string($0.description) })]
        case .layer(let index, .present): return layer("layerPresent", index)
        case .layer(let index, .started): return layer("layerStarted", index)
        case .layer(let index, .stored): return layer("layerStored", index)
        case .layer(let index, .objects(let done, let total)):
            var value = layer("layerProgress", index)
            value["objectsDone"] = .integer(Int64(done))
            value["objectsTotal"] = .integer(Int64(total))
            return value
        case .merging: return ["event": "merging"]
        case .publishing: return ["event": "publishing"]
        case .done: return ["event": "done"]
        }
    }
}
