import ComposefsConcurrency

// Pulls, pushes and copies have two forms of one name: one blocks the caller's thread, the other is async and runs the work on its own
// thread. Both end early when the `Cancellation` in their options is cancelled. The async form also ends when its task is cancelled.

/// Runs `body`. If it throws any error after the cancellation, that is reported as `CancellationError`.
func cancellable<Value>(_ cancellation: Cancellation, _ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch {
        throw cancellation.isCancelled ? CancellationError() : error
    }
}

/// Runs `body` on its own thread, with options whose cancellation is cancelled together with the given one and with the task.
///
/// - Parameter cancellation: the options' cancellation.
/// - Throws: `CancellationError` after a cancellation; else what `body` throws.
func onOwnThread<Options: Sendable, Value: Sendable>(
    _ options: Options, _ cancellation: any WritableKeyPath<Options, Cancellation> & Sendable,
    _ body: @escaping @Sendable (Options) throws -> Value
) async throws -> Value {
    try await onOwnThread(options[keyPath: cancellation]) { own in
        var options = options
        options[keyPath: cancellation] = own
        return try body(options)
    }
}

/// Runs `body` on its own thread. The value that it receives is cancelled together with `cancellation` and with the task.
///
/// - Throws: `CancellationError` after a cancellation; else what `body` throws.
func onOwnThread<Value: Sendable>(
    _ cancellation: Cancellation, _ body: @escaping @Sendable (Cancellation) throws -> Value
) async throws -> Value {
    let own = Cancellation()
    let link = cancellation.onCancel { own.cancel() }
    defer { withExtendedLifetime(link) {} }
    return try await withTaskCancellationHandler {
        try await onOwnThread { try cancellable(own) { try body(own) } }
    } onCancel: {
        own.cancel()
    }
}
