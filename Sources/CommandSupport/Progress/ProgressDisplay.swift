import ComposefsConcurrency
package import ComposefsJSON
import ComposefsLinuxSystem
package import ComposefsOCI
import Synchronization

/// An event as it is printed without a terminal.
package protocol ShownEvent: WaitingEvent {
    /// A line for a log, without control characters; nil if the event is not logged.
    var line: String? { get }
    /// One line of JSON. Keys and names are promised to scripts; later releases may add some.
    var json: JSONValue { get }
    /// Whether there are so many events of this kind that they are shown at intervals and not at once.
    var isFrequent: Bool { get }
}

/// The state of an operation at a moment, and the lines that show it. A value: times are parameters, counted from the start.
package protocol ProgressState: Sendable {
    associatedtype Event: ShownEvent
    mutating func apply(_ event: Event, at time: Duration)
    /// At most one line fewer than the window has, each narrower than the window; see `ProgressRenderer.lines`.
    mutating func lines(width: Int, height: Int, time: Duration) -> [ProgressLine]
}

/// Shows the events of an operation as the options require. The operation's threads only pass them on: a slow terminal does not slow it
/// down.
package final class ProgressDisplay<State: ProgressState>: Sendable {
    private enum Style {
        case terminal(TerminalScreen)
        case lines
        case json
    }

    /// The shortest time between two drawings, and between two reports of bytes.
    private static var interval: Duration { .milliseconds(100) }
    private let events = EventBuffer<State.Event>()
    private let notifier = Notifier()
    private let isOver = Atomic<Bool>(false)
    /// Nil if nothing is shown.
    private let thread: WorkerPool?
    private let style: Style?

    /// Starts showing events at once.
    package init(_ options: GlobalOptions, _ initial: State) {
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
            case .terminal(let screen): draw(on: screen, initial)
            case .lines: tell { event in event.line.map(Output.note) }
            case .json: tell { Output.json($0.json) }
            }
        }
    }

    package func show(_ event: State.Event) {
        guard style != nil else { return }
        events.add(event)
        if !event.isFrequent { notifier.notify() }
    }

    /// Shows the remaining events and erases the display, whether the operation succeeded or not. A second call does nothing.
    package func end() {
        guard let thread, !isOver.exchange(true, ordering: .sequentiallyConsistent) else { return }
        notifier.notify()
        thread.shutdown()
        if case .terminal(let screen) = style {
            screen.close()
            Output.screen.withLock { $0 = nil }
        }
    }

    private func draw(on screen: TerminalScreen, _ initial: State) {
        let began = ContinuousClock.now
        var state = initial
        var drawings = 0
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            let time = began.duration(to: .now)
            for event in events.takeAll() { state.apply(event, at: time) }
            // With --progress tty there is a drawing, however short the operation.
            if isLast, drawings > 0 { return }
            drawings += 1
            let window = TerminalScreen.window
            screen.draw(state.lines(width: window.columns, height: window.rows, time: time), in: window)
            // Waits until the next drawing is due, or the operation ends.
            while began.duration(to: .now) < time + Self.interval, !isOver.load(ordering: .sequentiallyConsistent) {
                notifier.wait(upTo: time + Self.interval - began.duration(to: .now))
            }
        }
    }

    private func tell(_ write: (State.Event) -> Void) {
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            for event in events.takeAll() { write(event) }
            if isLast { return }
            notifier.wait(upTo: Self.interval)
        }
    }
}

/// Signals are handled by other threads: this one must not be stopped while it draws, because their handlers wait for it.
private func keepSignalsAway() {
    Signal.block([.interrupt, .terminate, .hangUp, .quit, .stopFromTerminal, .continued])
}

/// Wakes a thread when something happens or some time has passed.
private final class Notifier: @unchecked Sendable {
    private let monitor = Monitor()
    private var isNotified = false

    /// A second call before the thread wakes has no effect.
    func notify() {
        monitor.withLock {
            isNotified = true
            monitor.wakeAll()
        }
    }

    func wait(upTo duration: Duration) {
        let deadline = MonotonicTime.now + duration
        monitor.withLock {
            while !isNotified, monitor.wait(until: deadline) {}
            isNotified = false
        }
    }
}
