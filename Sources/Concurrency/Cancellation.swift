/// A request to end work early: a value that the caller keeps and passes to everything that reads, waits or sleeps.
///
/// Copies share one state. A cancellation is final. All methods may be called from any thread.
public struct Cancellation: Sendable {
    private struct State {
        var isCancelled = false
        var actions: [UInt64: @Sendable () -> Void] = [:]
        var nextAction: UInt64 = 0
    }

    private let state = Guarded(State())

    public init() {}

    public var isCancelled: Bool { state.read { $0.isCancelled } }

    /// Cancels all work that the value was passed to. Runs the registered actions of `onCancel` on the calling thread.
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

    /// - Throws: `CancellationError` if the value has been cancelled.
    public func check() throws(CancellationError) {
        if isCancelled { throw CancellationError() }
    }

    /// Sleeps until the time is over or the value is cancelled. Returns false if it is cancelled.
    @discardableResult
    public func sleep(_ duration: Duration) -> Bool {
        let deadline = MonotonicTime.now + duration
        return state.wait(until: deadline) { $0.isCancelled ? false : nil } ?? true
    }

    /// Registers an action that ends a wait which cannot check the value. The action runs at most once: when the value is cancelled, or at
    /// once if it is cancelled already. It does not run after the registration is released. It must not block.
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

    /// A registered action of `onCancel`, which is removed when the registration is released.
    public final class Registration: Sendable {
        private let cancellation: Cancellation
        private let key: UInt64?

        fileprivate init(cancellation: Cancellation, key: UInt64?) {
            self.cancellation = cancellation
            self.key = key
        }

        deinit {
            guard let key else { return }
            // The action is released outside the lock, because it may own anything.
            let removed = cancellation.state.change { $0.actions.removeValue(forKey: key) }
            _ = removed
        }
    }
}
