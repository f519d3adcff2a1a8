internal import Glibc

/// A terminal's modes (termios(3)). Setting them is safe in signal handlers.
package struct TerminalModes {
    private var raw: termios

    /// The modes of a stream's terminal (tcgetattr(3)); nil if the stream is not a terminal.
    package init?(of stream: StandardStream) {
        var modes = termios()
        guard tcgetattr(stream.rawValue, &modes) == 0 else { return nil }
        raw = modes
    }

    /// The same modes for entering a secret: input is not echoed, arrives byte by byte, and the keys for signals are ordinary input.
    package func forSecrets() -> TerminalModes {
        var changed = self
        changed.raw.c_lflag &= ~tcflag_t(ECHO | ECHONL | ICANON | ISIG)
        return changed
    }

    /// The time at which modes take effect.
    package enum Moment: Sendable {
        case now
        /// After pending output is written; pending input is discarded.
        case flushed
    }

    /// Sets these modes (tcsetattr(3)).
    ///
    /// - Returns: Whether the terminal accepted them.
    @discardableResult
    package func set(on stream: StandardStream, _ moment: Moment) -> Bool {
        var modes = raw
        return tcsetattr(stream.rawValue, moment == .now ? TCSANOW : TCSAFLUSH, &modes) == 0
    }
}
