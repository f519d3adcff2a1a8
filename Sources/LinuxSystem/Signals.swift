internal import Glibc

/// A signal and the process's action for it.
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

    /// The process's action for a signal.
    package struct Action: Sendable {
        fileprivate let handler: sighandler_t?
    }

    /// Installs a handler (signal(2)), which may use only the functions listed in signal-safety(7).
    ///
    /// - Returns: The previous action, for `restore`.
    @discardableResult
    package func handle(_ handler: @escaping @convention(c) (Int32) -> Void) -> Action { Action(handler: signal(number, handler)) }

    /// Restores an action that `handle` replaced.
    package func restore(_ action: Action) { signal(number, action.handler) }

    package func ignore() { signal(number, SIG_IGN) }

    /// Called in a handler of the signal: restores the default action, which takes effect as soon as the handler returns.
    package func actByDefault() {
        signal(number, SIG_DFL)
        raise(number)
    }

    /// Called in a handler of the signal: stops the process at once, as the default action does, and returns when it continues. Afterwards the
    /// signal has its default action.
    package func stopByDefault() {
        signal(number, SIG_DFL)
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, number)
        // The signal is blocked while its handler runs. The process stops when the signal is unblocked.
        raise(number)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }

    /// Runs the body of a signal handler and restores the errno of the interrupted code.
    package static func keepingErrno(_ body: () -> Void) {
        let before = errno
        body()
        errno = before
    }

    /// Blocks signals in the calling thread.
    package static func block(_ signals: [Signal]) {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal.number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }
}

extension Host {
    /// Ends the process at once; safe in a signal handler.
    package static func exitFromHandler(_ status: Int32) -> Never { _exit(status) }

    /// Writes buffered output and ends the process without running exit handlers.
    package static func exitWithoutHandlers(_ status: Int32) -> Never {
        fflush(nil)
        _exit(status)
    }

    /// Sleeps; safe in a signal handler.
    package static func sleepInHandler(milliseconds: Int32) { poll(nil, 0, milliseconds) }
}
