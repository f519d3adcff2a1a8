import ComposefsOCI
import Glibc
import JSON
import Synchronization

/// Shows a pull's events on standard error.
final class ProgressDisplay: Sendable {
    private struct Layer {
        var name: String
        var size: UInt64
        var received: UInt64 = 0
        var state = State.waiting
    }

    private enum State: Equatable { case waiting, running, present, stored }

    private struct Screen {
        var layers: [Layer] = []
        var phase = ""
        var drawnLines = 0
        var lastDrawn: ContinuousClock.Instant?
        var began = ContinuousClock.now

        mutating func with(_ index: Int, _ body: (inout Layer) -> Void) {
            if layers.indices.contains(index) { body(&layers[index]) }
        }
    }

    private let style: ProgressStyle
    private let screen = Mutex(Screen())

    init(_ options: GlobalOptions) {
        switch options.progress {
        case .auto: style = options.quiet ? .none : Output.errorIsTerminal ? .tty : .none
        default: style = options.progress
        }
    }

    func show(_ event: PullEvent) {
        switch style {
        case .none, .auto: return
        case .json: showJSON(event)
        case .plain: showPlain(event)
        case .tty: screen.withLock { Self.update(&$0, event) }
        }
    }

    /// Takes the picture away; for when the pull has failed.
    func end() {
        if style == .tty { screen.withLock { Self.erase(&$0) } }
    }

    // MARK: Terminal

    private static func update(_ screen: inout Screen, _ event: PullEvent) {
        var isUrgent = true
        let index = event.layerIndex ?? 0
        switch event.phase {
        case .resolving(let reference): screen.phase = "resolving \(reference)"
        case .resolved(let found):
            screen.layers = found.layers.map { Layer(name: String($0.digest.hex.prefix(12)), size: $0.size) }
            screen.phase = "pulling"
        case .skipped: screen.with(index) { $0.state = .present }
        case .started: screen.with(index) { $0.state = .running }
        case .bytes, .resumed:
            screen.with(index) { $0.received = event.bytesDone }
            isUrgent = false
        case .stored:
            screen.with(index) {
                $0.state = .stored
                $0.received = $0.size
            }
        case .queued, .verified, .waiting, .retrying: break
        case .merging: screen.phase = "merging layers"
        case .writingImage: screen.phase = "writing the image"
        case .publishing: screen.phase = "making it durable"
        case .done:
            erase(&screen)
            return
        }
        let time = ContinuousClock.now
        // Ten pictures a second are enough for anybody.
        if !isUrgent, let last = screen.lastDrawn, time - last < .milliseconds(100) { return }
        screen.lastDrawn = time
        draw(&screen)
    }

    private static func erase(_ screen: inout Screen) {
        if screen.drawnLines > 0 { Output.writeError("\u{1b}[\(screen.drawnLines)A\r\u{1b}[J") }
        screen.drawnLines = 0
    }

    private static func draw(_ screen: inout Screen) {
        let width = columns()
        let received = screen.layers.filter { $0.state != .present }.reduce(0) { $0 + $1.received }
        let total = screen.layers.filter { $0.state != .present }.reduce(0) { $0 + $1.size }
        var lines: [String] = []
        for layer in screen.layers {
            let note: String
            switch layer.state {
            case .waiting: note = "waiting"
            case .present: note = "present"
            case .stored: note = "stored"
            case .running:
                note = "\(bar(layer.received, layer.size, width - 44)) \(humanBytes(layer.received)) of \(humanBytes(layer.size))"
            }
            lines.append("\(layer.name)  \(note)")
        }
        let elapsed = screen.began.duration(to: .now)
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        let rate = seconds > 0.2 ? ", \(humanBytes(UInt64(Double(received) / seconds)))/s" : ""
        lines.append(total > 0 ? "\(screen.phase): \(humanBytes(received)) of \(humanBytes(total))\(rate)" : screen.phase)
        let up = screen.drawnLines > 0 ? "\u{1b}[\(screen.drawnLines)A\r\u{1b}[J" : ""
        // More lines than the window has cannot be drawn over: the last ones tell most.
        let shown = lines.suffix(max(1, rows() - 1)).map { String($0.prefix(max(1, width - 1))) }
        Output.writeError(up + shown.joined(separator: "\n") + "\n")
        screen.drawnLines = shown.count
    }

    private static func bar(_ done: UInt64, _ total: UInt64, _ width: Int) -> String {
        guard width >= 8, total > 0 else { return "" }
        let filled = min(width, Int(Double(done) / Double(total) * Double(width)))
        return "[" + String(repeating: "#", count: filled) + String(repeating: " ", count: width - filled) + "]"
    }

    private static func window() -> (rows: Int, columns: Int) {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (24, 80) }
        return (Int(size.ws_row), Int(size.ws_col))
    }

    private static func columns() -> Int { window().columns }
    private static func rows() -> Int { window().rows }

    // MARK: Lines

    private func showPlain(_ event: PullEvent) {
        func layer(_ what: String) {
            guard case .layer(let index, let digest) = event.component else { return }
            Output.note("layer \(index + 1) \(digest): \(what)")
        }
        switch event.phase {
        case .resolving(let reference): Output.note("resolving \(reference)")
        case .resolved(let found):
            Output.note("manifest \(found.manifest), \(found.layers.count) layers, \(humanBytes(event.bytesTotal))")
        case .skipped(.present): layer("present")
        case .skipped(.repeated(let first)): layer("the same as layer \(first + 1)")
        case .started: layer("started")
        case .stored: layer("stored")
        case .waiting: layer("another process reads it; waiting")
        case .retrying(let reason, let delay): layer("trying again in \(delay): \(reason)")
        case .resumed(let offset): layer("continued at \(humanBytes(offset))")
        case .queued, .bytes, .verified: break
        case .merging: Output.note("merging layers")
        case .writingImage: Output.note("writing the image")
        case .publishing: Output.note("making it durable")
        case .done: Output.note("done")
        }
    }

    private func showJSON(_ event: PullEvent) { Output.writeError(event.json.description + "\n") }
}
