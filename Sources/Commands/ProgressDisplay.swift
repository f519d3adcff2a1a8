import ComposefsOCI
import Glibc
import JSON
import LinuxSystem
import Synchronization

/// Shows a pull's events as the options want them. The pull's threads only hand them over; what is slow to take them holds nothing up.
final class ProgressDisplay: Sendable {
    private enum Style {
        case terminal(TerminalScreen)
        case lines
        case json
    }

    /// How long a picture stays at least, and how often bytes are told of.
    private static let interval = Duration.milliseconds(100)
    private let events = EventBuffer()
    private let bell = Bell()
    private let isOver = Atomic<Bool>(false)
    /// Nil where nothing is shown.
    private let thread: WorkerPool?
    private let style: Style?

    /// Begins at once, with the reference that was asked for.
    init(_ options: GlobalOptions, reference: String) {
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
            Self.keepSignalsAway()
            switch style {
            case .terminal(let screen): draw(on: screen, reference)
            case .lines: tell { event in event.line.map(Output.note) }
            case .json: tell { Output.json($0.json) }
            }
        }
    }

    func show(_ event: PullEvent) {
        guard style != nil else { return }
        events.add(event)
        // Bytes are many; they are looked at when it is time.
        if event.phase != .bytes { bell.ring() }
    }

    /// Shows what is left to show, and takes the picture away, whether the pull succeeded or not. A second call does nothing.
    func end() {
        guard let thread, !isOver.exchange(true, ordering: .sequentiallyConsistent) else { return }
        bell.ring()
        thread.shutdown()
        if case .terminal(let screen) = style {
            screen.close()
            Output.screen.withLock { $0 = nil }
        }
    }

    /// Signals are for other threads: this one must not be stopped in the middle of a drawing that their handlers wait for.
    private static func keepSignalsAway() {
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT] { sigaddset(&signals, number) }
        pthread_sigmask(SIG_BLOCK, &signals, nil)
    }

    private func draw(on screen: TerminalScreen, _ reference: String) {
        let began = ContinuousClock.now
        var state = ProgressState(.resolving(reference))
        var pictures = 0
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            let time = began.duration(to: .now)
            for event in events.takeAll() { state.apply(event, at: time) }
            // Who asked for a picture gets one, however short the pull.
            if isLast, pictures > 0 { return }
            pictures += 1
            state.rate.sample(at: time)
            let window = TerminalScreen.window
            screen.draw(ProgressRenderer.lines(state, width: window.columns, height: window.rows, time: time), in: window)
            // Until the next picture is due; the end does not wait for it.
            while began.duration(to: .now) < time + Self.interval, !isOver.load(ordering: .sequentiallyConsistent) {
                bell.wait(upTo: time + Self.interval - began.duration(to: .now))
            }
        }
    }

    private func tell(_ write: (PullEvent) -> Void) {
        while true {
            let isLast = isOver.load(ordering: .sequentiallyConsistent)
            for event in events.takeAll() { write(event) }
            if isLast { return }
            bell.wait(upTo: Self.interval)
        }
    }
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
