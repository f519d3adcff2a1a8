import ComposefsLinuxSystem
import Synchronization

/// A few lines on standard error that are drawn over and over, and go without a trace.
///
/// Between drawings the cursor stands, hidden, at the beginning of the first line. Whatever a change of the window's size does to the lines,
/// the terminal takes the cursor along with the first of them, so that erasing from there on leaves nothing behind.
final class TerminalScreen: Sendable {
    struct Window: Equatable {
        var columns = 80
        var rows = 24
    }

    private struct Drawn {
        var window: Window?
        var lines: [ProgressLine] = []
        var isClosed = false
    }

    private let drawn = Mutex(Drawn())
    private let usesColor: Bool

    init(usesColor: Bool) {
        self.usesColor = usesColor
        TerminalGuard.install()
    }

    /// The window as it is now; 80 by 24 where there is none.
    static var window: Window {
        guard let size = Terminal.size(of: .error) else { return Window() }
        return Window(columns: size.columns, rows: size.rows)
    }

    /// Shows these lines in place of those before.
    func draw(_ lines: [ProgressLine], in window: Window) {
        // What runs in the background leaves the terminal to others.
        guard Terminal.isForeground(on: .error) else { return }
        drawn.withLock { drawn in
            guard !drawn.isClosed else { return }
            // After an interjection, or when the process was stopped, nothing of ours is there.
            let isFresh = !TerminalGuard.isDrawn
            guard isFresh || drawn.window != window || drawn.lines != lines else { return }
            // Each line is written over the old one, and what is left of the old ones below is erased: nothing flickers. Lines do not wrap
            // meanwhile, for the window may have become narrower since it was measured.
            var text = (isFresh ? "\u{1b}[?25l" : "") + "\u{1b}[?7l\r"
            text += lines.map { styled($0) + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J"
            if lines.count > 1 { text += "\u{1b}[\(lines.count - 1)A" }
            guard TerminalGuard.write(text + "\r\u{1b}[?7h", isDrawn: true) else { return }
            drawn.window = window
            drawn.lines = lines
        }
    }

    /// Writes text for good, above the lines, which the next drawing brings back.
    func interject(_ text: String) {
        _ = drawn.withLock { _ in
            TerminalGuard.write((TerminalGuard.isDrawn ? "\(TerminalGuard.erasure)" : "") + text, isDrawn: false)
        }
    }

    /// Takes the lines away.
    func close() {
        interject("")
        drawn.withLock { $0.isClosed = true }
    }

    private func styled(_ line: ProgressLine) -> String {
        guard usesColor else { return line.text }
        switch line.emphasis {
        case .plain: return line.text
        case .faint: return "\u{1b}[2m" + line.text + "\u{1b}[22m"
        case .warning: return "\u{1b}[33m" + line.text + "\u{1b}[39m"
        case .strong: return "\u{1b}[1m" + line.text + "\u{1b}[22m"
        }
    }
}

/// Sees to it that a process that is ended or stopped by a signal leaves the terminal as it found it.
enum TerminalGuard {
    /// Bit 0: lines are on the screen. Bit 1: something is being written. Bit 2: a signal has taken over, and nothing more is written.
    private static let state = Atomic<Int>(0)
    /// Erases from the cursor's line on, lets lines wrap, and shows the cursor. The erasing begins in the second column, because there are
    /// terminals that keep what was erased from the window's first place on, as if it had scrolled away.
    static var erasure: StaticString { "\r\u{1b}[K\u{1b}[C\u{1b}[J\r\u{1b}[?7h\u{1b}[?25h" }
    private static let ending: [Signal] = [.terminate, .hangUp, .quit]

    static func install() {
        // Made before a handler could be the first to ask for it.
        _ = state.load(ordering: .relaxed)
        for signal in ending { signal.handle { TerminalGuard.end(by: $0) } }
        Signal.stopFromTerminal.handle { TerminalGuard.end(by: $0) }
        Signal.continued.handle { _ in
            TerminalGuard.state.store(0, ordering: .sequentiallyConsistent)
            Signal.stopFromTerminal.handle { TerminalGuard.end(by: $0) }
        }
    }

    /// Whether there is something to erase.
    static var isDrawn: Bool { state.load(ordering: .sequentiallyConsistent) & 1 != 0 }

    /// In a signal handler: erases what is drawn, and shows the cursor.
    static func restore() {
        // Bounded, for the thread that writes may be this one.
        var tries = 0
        while state.bitwiseOr(4, ordering: .sequentiallyConsistent).newValue & 2 != 0, tries < 20 {
            Host.sleepInHandler(milliseconds: 5)
            tries += 1
        }
        guard state.load(ordering: .sequentiallyConsistent) & 1 != 0 else { return }
        StandardStream.error.write(erasure)
    }

    private static func end(by number: Int32) {
        restore()
        Signal(number).actByDefault()
    }

    /// One write(2) where the terminal takes it, unless a signal came first. Called by one thread at a time.
    @discardableResult
    static func write(_ text: String, isDrawn: Bool) -> Bool {
        guard state.bitwiseOr(2, ordering: .sequentiallyConsistent).oldValue & 4 == 0 else {
            state.bitwiseAnd(~2, ordering: .sequentiallyConsistent)
            return false
        }
        // Before the first byte: a signal in the middle has something to erase.
        if isDrawn { state.bitwiseOr(1, ordering: .sequentiallyConsistent) }
        Output.writeRaw(text, to: StandardStream.error.rawValue)
        state.bitwiseAnd(isDrawn ? ~2 : ~3, ordering: .sequentiallyConsistent)
        return true
    }
}
