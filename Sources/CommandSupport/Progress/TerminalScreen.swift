import ComposefsLinuxSystem
import Synchronization

/// A few lines on standard error that are redrawn repeatedly and erased at the end.
///
/// Between drawings the hidden cursor is at the beginning of the first line. When the size of the window changes, the terminal moves the
/// cursor together with that line, so erasing from the cursor on removes all lines.
package final class TerminalScreen: Sendable {
    package struct Window: Equatable {
        package var columns = 80
        package var rows = 24
    }

    private struct Drawn {
        var window: Window?
        var lines: [ProgressLine] = []
        var isClosed = false
    }

    private let drawn = Mutex(Drawn())
    private let usesColor: Bool

    package init(usesColor: Bool) {
        self.usesColor = usesColor
        TerminalGuard.install()
    }

    /// The size of the window; 80 by 24 if it is unknown.
    package static var window: Window {
        guard let size = Terminal.size(of: .error) else { return Window() }
        return Window(columns: size.columns, rows: size.rows)
    }

    /// Replaces the lines that are shown.
    package func draw(_ lines: [ProgressLine], in window: Window) {
        // A background process leaves the terminal to the foreground process.
        guard Terminal.isForeground(on: .error) else { return }
        drawn.withLock { drawn in
            guard !drawn.isClosed else { return }
            // After other output, or when the process was stopped, none of our lines is on the screen.
            let isFresh = !TerminalGuard.isDrawn
            guard isFresh || drawn.window != window || drawn.lines != lines else { return }
            // Each line overwrites the old one, and the rest of the old ones is erased, so that the display does not flicker. Lines do not
            // wrap meanwhile, because the window may have become narrower since it was measured.
            var text = (isFresh ? "\u{1b}[?25l" : "") + "\u{1b}[?7l\r"
            text += lines.map { styled($0) + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J"
            if lines.count > 1 { text += "\u{1b}[\(lines.count - 1)A" }
            guard TerminalGuard.write(text + "\r\u{1b}[?7h", isDrawn: true) else { return }
            drawn.window = window
            drawn.lines = lines
        }
    }

    /// Writes permanent text above the lines, which the next drawing restores.
    package func interject(_ text: String) {
        _ = drawn.withLock { _ in
            TerminalGuard.write((TerminalGuard.isDrawn ? "\(TerminalGuard.erasure)" : "") + text, isDrawn: false)
        }
    }

    /// Erases the lines.
    package func close() {
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

/// Restores the terminal if a signal ends or stops the process.
package enum TerminalGuard {
    /// Bit 0: lines are on the screen. Bit 1: a thread is writing. Bit 2: a signal handler has taken over, and nothing more is written.
    private static let state = Atomic<Int>(0)
    /// Erases from the cursor's line on, enables line wrapping, and shows the cursor. The erasing starts in the second column, because some
    /// terminals keep text that is erased from the first column on in their scrollback.
    package static var erasure: StaticString { "\r\u{1b}[K\u{1b}[C\u{1b}[J\r\u{1b}[?7h\u{1b}[?25h" }
    private static let ending: [Signal] = [.terminate, .hangUp, .quit]

    package static func install() {
        // Initialised before a handler can be the first to use it.
        _ = state.load(ordering: .relaxed)
        for signal in ending { signal.handle { TerminalGuard.end(by: $0) } }
        Signal.stopFromTerminal.handle { TerminalGuard.end(by: $0) }
        Signal.continued.handle { _ in
            TerminalGuard.state.store(0, ordering: .sequentiallyConsistent)
            Signal.stopFromTerminal.handle { TerminalGuard.end(by: $0) }
        }
    }

    /// Whether there is something to erase.
    package static var isDrawn: Bool { state.load(ordering: .sequentiallyConsistent) & 1 != 0 }

    /// In a signal handler: erases the lines and shows the cursor.
    package static func restore() {
        // Bounded, because the writing thread may be this one.
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

    /// Writes with one write(2) if the terminal accepts it, unless a signal came first. Called by one thread at a time.
    @discardableResult
    package static func write(_ text: String, isDrawn: Bool) -> Bool {
        guard state.bitwiseOr(2, ordering: .sequentiallyConsistent).oldValue & 4 == 0 else {
            state.bitwiseAnd(~2, ordering: .sequentiallyConsistent)
            return false
        }
        // Set before the first byte, so that a signal handler during the write erases it.
        if isDrawn { state.bitwiseOr(1, ordering: .sequentiallyConsistent) }
        Output.writeRaw(text, to: StandardStream.error.rawValue)
        state.bitwiseAnd(isDrawn ? ~2 : ~3, ordering: .sequentiallyConsistent)
        return true
    }
}
