/// Whether work shall end early: a value that the caller keeps and passes down to everything that reads, waits or sleeps.
///
/// Copies share one state. Cancelling is final; all methods may be called from any thread.
public struct Cancellation: Sendable {
    private struct State {
        var isCancelled = false
        var actions: [UInt64: @Sendable () -> Void] = [:]
        var nextAction: UInt64 = 0
    }

    private let state = Guarded(State())

    public init() {}

    public var isCancelled: Bool { state.read { $0.isCancelled } }

    /// Ends what the value was passed to. Runs the actions that `onCancel` has registered, on this thread.
    public func cancel() {
        let actions = state.change { state -> [@Sendable () -> Void] in
            guard !state.isCancelled else { return [] }
            state.isCancelled = true
            let actions = state.actions.sorted { $0.key < $1.key }.map(\.value)
            state.actions = [:]
            return actions
        }
        for action in actions { action() }
    }

    /// - Throws: `CancellationError` once it is cancelled.
    public func check() throws(CancellationError) {
        if isCancelled { throw CancellationError() }
    }

    /// Sleeps, at most until the value is cancelled. Returns false if it is.
    @discardableResult
    public func sleep(_ duration: Duration) -> Bool {
        let deadline = MonotonicTime.now + duration
        return state.wait(until: deadline) { $0.isCancelled ? false : nil } ?? true
    }

    /// Registers what ends a wait that no check can interrupt. The action runs once, at once if the value is cancelled already, and not any
    /// more after the registration is gone; it must not block.
    public func onCancel(_ action: @escaping @Sendable () -> Void) -> Registration {
        let key = state.change { state -> UInt64? in
            guard !state.isCancelled else { return nil }
            state.nextAction += 1
            state.actions[state.nextAction] = action
            return state.nextAction
        }
        if key == nil { action() }
        return Registration(cancellation: self, key: key)
    }

    /// An action of `onCancel`. It is removed with its registration.
    public final class Registration: Sendable {
        private let cancellation: Cancellation
        private let key: UInt64?

        fileprivate init(cancellation: Cancellation, key: UInt64?) {
            self.cancellation = cancellation
            self.key = key
        }

        deinit {
            guard let key else { return }
            // Released outside the lock: an action may own anything.
            let removed = cancellation.state.change { $0.actions.removeValue(forKey: key) }
            _ = removed
        }
    }
}
