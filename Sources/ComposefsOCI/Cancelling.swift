import ComposefsConcurrency

// Every call that takes long has two forms of one name: one that blocks the caller's thread, and an async one that runs it on a thread of its
// own. Both end early when the `Cancellation` in their options is cancelled; the async one also with its task.

/// Runs `body`; what it throws once it is cancelled is `CancellationError`, however deep in it the end was noticed.
func cancellable<Value>(_ cancellation: Cancellation, _ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch {
        throw cancellation.isCancelled ? CancellationError() : error
    }
}

/// Runs `body` on a thread of its own, with a value that is cancelled with the caller's and with the task.
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
