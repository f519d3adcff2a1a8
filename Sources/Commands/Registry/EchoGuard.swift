import ComposefsLinuxSystem
import Glibc
import Synchronization

/// Hides what is typed, and sees to it that a process that is ended or stopped by a signal meanwhile leaves the terminal as it found it: the
/// shell after it would show nothing that is typed.
struct EchoGuard: ~Copyable {
    private static let ending = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU]
    private static let stopping = [SIGTSTP]

    /// As the terminal was found, and as it is meanwhile. Written while no handler of ours is there to read it.
    nonisolated(unsafe) private static let modes = UnsafeMutablePointer<termios>.allocate(capacity: 2)
    /// The terminal's descriptor; negative where nothing is hidden.
    private static let terminal = Atomic<Int32>(-1)

    private var handlers: [(signal: Int32, before: sighandler_t?)] = []

    /// Nil where the descriptor's terminal cannot be set.
    init?(_ descriptor: Int32, hides flags: Int32) {
        let modes = Self.modes
        guard tcgetattr(descriptor, &modes[0]) == 0 else { return nil }
        modes[1] = modes[0]
        modes[1].c_lflag &= ~tcflag_t(flags)
        Self.terminal.store(descriptor, ordering: .sequentiallyConsistent)
        for number in Self.ending where !Host.ignores(signal: number) {
            handlers.append((number, signal(number) { EchoGuard.end(by: $0) }))
        }
        for number in Self.stopping where !Host.ignores(signal: number) {
            handlers.append((number, signal(number) { EchoGuard.stop(by: $0) }))
        }
        if tcsetattr(descriptor, TCSAFLUSH, &modes[1]) != 0 { return nil }
    }

    deinit {
        Self.set(0)
        Self.terminal.store(-1, ordering: .sequentiallyConsistent)
        for (number, before) in handlers { signal(number, before) }
    }

    // MARK: In signal handlers

    private static func set(_ which: Int) {
        let descriptor = terminal.load(ordering: .sequentiallyConsistent)
        if descriptor >= 0 { tcsetattr(descriptor, TCSANOW, &modes[which]) }
    }

    private static func end(by number: Int32) {
        set(0)
        TerminalGuard.restore()
        // As without a question.
        if number == SIGINT { _exit(130) }
        // What the signal does by itself, as soon as this handler returns.
        signal(number, SIG_DFL)
        raise(number)
    }

    private static func stop(by number: Int32) {
        let before = errno
        set(0)
        signal(number, SIG_DFL)
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, number)
        // Stops here, unless no shell is there to go on with it. What is typed after it is hidden in both cases.
        raise(number)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        signal(number) { EchoGuard.stop(by: $0) }
        set(1)
        errno = before
    }
}
