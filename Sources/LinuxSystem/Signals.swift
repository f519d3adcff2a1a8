internal import Glibc

/// A signal's number, and what the process does about it.
package struct Signal: Hashable, Sendable {
    package var number: Int32

    package init(_ number: Int32) { self.number = number }

    package static let interrupt = Signal(SIGINT)
    package static let terminate = Signal(SIGTERM)
    package static let hangUp = Signal(SIGHUP)
    package static let quit = Signal(SIGQUIT)
    package static let stopFromTerminal = Signal(SIGTSTP)
    package static let continued = Signal(SIGCONT)
    package static let brokenPipe = Signal(SIGPIPE)
    package static let fileTooLarge = Signal(SIGXFSZ)
    package static let alarm = Signal(SIGALRM)
    package static let user1 = Signal(SIGUSR1)
    package static let user2 = Signal(SIGUSR2)
    package static let processorLimit = Signal(SIGXCPU)

    /// What the process does when a signal comes.
    package struct Action: Sendable {
        fileprivate let handler: sighandler_t?
    }

    /// Runs a function when the signal comes (signal(2)); it may do only what signal-safety(7) allows.
    ///
    /// - Returns: what the process did before; see `restore`.
    @discardableResult
    package func handle(_ handler: @escaping @convention(c) (Int32) -> Void) -> Action { Action(handler: signal(number, handler)) }

    /// Does again what `handle` replaced.
    package func restore(_ action: Action) { signal(number, action.handler) }

    package func ignore() { signal(number, SIG_IGN) }

    /// In a handler of the signal: does what the signal does by itself as soon as the handler returns.
    package func actByDefault() {
        signal(number, SIG_DFL)
        raise(number)
    }

    /// In a handler of the signal: stops the process at once, as the signal does by itself, and returns when it is continued. The signal's
    /// action is the default one afterwards.
    package func stopByDefault() {
        signal(number, SIG_DFL)
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, number)
        // The signal is blocked while its handler runs; the process stops when it is unblocked.
        raise(number)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    /// Runs a signal handler's body and leaves errno as the interrupted code had it.
    package static func keepingErrno(_ body: () -> Void) {
        let before = errno
        body()
        errno = before
    }

    /// Keeps signals from the calling thread.
    package static func block(_ signals: [Signal]) {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal.number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }
}

extension Host {
    /// Ends the process at once, in a signal handler too.
    package static func exitFromHandler(_ status: Int32) -> Never { _exit(status) }

    /// Ends the process without exit handlers, after what is buffered has been written.
    package static func exitWithoutHandlers(_ status: Int32) -> Never {
        fflush(nil)
        _exit(status)
    }

    /// Sleeps in a signal handler.
    package static func sleepInHandler(milliseconds: Int32) { poll(nil, 0, milliseconds) }
}
