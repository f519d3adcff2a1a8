import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import Synchronization

/// An event as it is told where no terminal is.
protocol ShownEvent: WaitingEvent {
    /// A line for a log, without anything that acts on a terminal; nil where it is not worth one.
    var line: String? { get }
    /// One line of JSON. Keys and names are promised to scripts; more of them may come.
    var json: JSONValue { get }
    /// Whether there are so many of the kind that they are looked at when it is time, not when they come.
    var isFrequent: Bool { get }
}

/// What is known of an operation at a moment, and how it looks. A value: times are given, counted from the begin.
protocol ProgressPicture: Sendable {
    associatedtype Event: ShownEvent
    mutating func apply(_ event: Event, at time: Duration)
    /// At most one fewer than the window has, each narrower than the window; see `ProgressRenderer.lines`.
    mutating func lines(width: Int, height: Int, time: Duration) -> [ProgressLine]
}

/// Shows an operation's events as the options want them. Its threads only hand them over; what is slow to take them holds nothing up.
final class ProgressDisplay<Picture: ProgressPicture>: Sendable {
    private enum Style {
        case terminal(TerminalScreen)
        case lines
        case json
    }

    /// How long a picture stays at least, and how often bytes are told of.
    private static var interval: Duration { .milliseconds(100) }
    private let events = EventBuffer<Picture.Event>()
    private let bell = Bell()
    private let isOver = Atomic<Bool>(false)
    /// Nil where nothing is shown.
    private let thread: WorkerPool?
    private let style: Style?

    /// Begins at once.
    init(_ options: GlobalOptions, _ picture: Picture) {
        style =
            switch options.progressStyle {
            case .auto, .none: nil
            case .tty: .terminal(TerminalScreen(usesColor: (environment("NO_COLOR") ?? "").isEmpty))
            case .plain: .lines
            case .json: .json
            }
        guard let style else {
            thread = nil
            return
        }
        let thread = WorkerPool(threads: 1)
        self.thread = thread
        if case .terminal(let screen) = style { Output.screen.withLock { $0 = screen } }
        guard thread.threadCount > 0 else { return }
        thread.submit { [self] in
            keepSignalsAway()
            switch style {
            case .terminal(let screen): draw(on: screen, picture)
            case .lines: tell { event in event.line.map(Output.note) }
            case .json: tell { Output.json($0.json) }
            }
        }
    }

    func show(_ event: Picture.Event) {
        guard style != nil else { return }
        events.add(event)
        if !event.isFrequent { bell.ring() }
    }

    /// Shows what is left to show, and takes the picture away, whether the operation succeeded or not. A second call does nothing.
    func end() {
        guard let thread, !isOver.exchange(true, ordering: .sequentiallyConsistent) else { return }
        bell.ring()
        thread.shutdown()
        if case .terminal(let screen) = style {
            screen.close()
            Output.screen.withLock { $0 = nil }
        }
    }

    private func draw(on screen: TerminalScreen, _ picture: Picture) {
        let began = ContinuousClock.now
        var picture = picture
        var pictures = 0
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            let time = began.duration(to: .now)
            for event in events.takeAll() { picture.apply(event, at: time) }
            // Who asked for a picture gets one, however short the operation.
            if isLast, pictures > 0 { return }
            pictures += 1
            let window = TerminalScreen.window
            screen.draw(picture.lines(width: window.columns, height: window.rows, time: time), in: window)
            // Until the next picture is due; the end does not wait for it.
            while began.duration(to: .now) < time + Self.interval, !isOver.load(ordering: .sequentiallyConsistent) {
                bell.wait(upTo: time + Self.interval - began.duration(to: .now))
            }
        }
    }

    private func tell(_ write: (Picture.Event) -> Void) {
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            for event in events.takeAll() { write(event) }
            if isLast { return }
            bell.wait(upTo: Self.interval)
        }
    }
}

/// Signals are for other threads: this one must not be stopped in the middle of a drawing that their handlers wait for.
private func keepSignalsAway() {
    Signal.block([.interrupt, .terminate, .hangUp, .quit, .stopFromTerminal, .continued])
}

/// Wakes a thread that has nothing to do until something happens or some time has passed.
private final class Bell: @unchecked Sendable {
    private let monitor = Monitor()
    private var isRung = false

    /// Again, before it was heard, changes nothing.
    func ring() {
        monitor.withLock {
            isRung = true
            monitor.wakeAll()
        }
    }

    func wait(upTo duration: Duration) {
        let deadline = MonotonicTime.now + duration
        monitor.withLock {
            while !isRung, monitor.wait(until: deadline) {}
            isRung = false
        }
    }
}
