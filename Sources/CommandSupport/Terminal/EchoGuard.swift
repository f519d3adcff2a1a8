import ComposefsLinuxSystem
import Synchronization

/// Hides what is typed on standard input, and restores the terminal's modes if a signal ends or stops the process meanwhile: without that,
/// the shell would not show what is typed after it.
package struct EchoGuard: ~Copyable {
    private static let ending: [Signal] = [
        .interrupt, .terminate, .hangUp, .quit, .alarm, .user1, .user2, .processorLimit,
    ]
    private static let stopping: [Signal] = [.stopFromTerminal]

    /// The modes before and during the question. Written only while none of the handlers is installed.
    nonisolated(unsafe) private static let modes = UnsafeMutablePointer<TerminalModes>.allocate(capacity: 2)
    /// Whether `modes` are set and the handlers may use them.
    private static let isActive = Atomic<Bool>(false)

    private var handlers: [(signal: Signal, before: Signal.Action)] = []

    /// Nil if the modes of the terminal cannot be set.
    ///
    /// - Parameter hides: whether the input is a secret. Otherwise only the signal handlers are installed.
    package init?(hides: Bool) {
        guard let found = TerminalModes(of: .input) else { return nil }
        let wanted = hides ? found.forSecrets() : found
        Self.modes.initialize(to: found)
        (Self.modes + 1).initialize(to: wanted)
        Self.isActive.store(true, ordering: .sequentiallyConsistent)
        for signal in Self.ending where !Host.ignores(signal: signal.number) {
            handlers.append((signal, signal.handle { EchoGuard.end(by: $0) }))
        }
        for signal in Self.stopping where !Host.ignores(signal: signal.number) {
            handlers.append((signal, signal.handle { EchoGuard.stop(by: $0) }))
        }
        if !wanted.set(on: .input, .flushed) { return nil }
    }

    deinit {
        Self.set(0)
        Self.isActive.store(false, ordering: .sequentiallyConsistent)
        for (signal, before) in handlers { signal.restore(before) }
    }

    // MARK: In signal handlers

    private static func set(_ which: Int) {
        if isActive.load(ordering: .sequentiallyConsistent) { modes[which].set(on: .input, .now) }
    }

    private static func end(by number: Int32) {
        set(0)
        TerminalGuard.restore()
        // The exit status is the same as without a question.
        if number == Signal.interrupt.number { Host.exitFromHandler(130) }
        Signal(number).actByDefault()
    }

    private static func stop(by number: Int32) {
        Signal.keepingErrno {
            set(0)
            let signal = Signal(number)
            // Returns when the process is continued, or at once if no shell could continue it. Input is hidden again in both cases.
            signal.stopByDefault()
            signal.handle { EchoGuard.stop(by: $0) }
            set(1)
        }
    }
}
