public import ComposefsRegistry
public import ComposefsTransfer

/// A pull that runs in a task of its own: what happens as it happens, and in the end what it brought.
///
/// ```swift
/// let pull = store.startPull("alpine")
/// for await event in pull.events { … }
/// let image = try await pull.result
/// ```
public struct RunningPull: Sendable {
    /// What happens, for one reader; ends with the pull, whether it succeeds or not.
    public let events: PullEvents
    private let task: Task<PullResult, any Error>

    fileprivate init(events: PullEvents, task: Task<PullResult, any Error>) {
        self.events = events
        self.task = task
    }

    /// What the pull brought, once it is done. A task that waits here and is cancelled cancels the pull.
    ///
    /// Throws what `Store.pull` throws.
    public var result: PullResult {
        get async throws {
            try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        }
    }

    /// Ends the pull; `result` throws `CancellationError` then, unless it was done already.
    public func cancel() { task.cancel() }
}

extension Store {
    /// Begins to pull what a reference names; see `pull` for references, options and errors. It runs until it is done or cancelled, whether
    /// anybody reads its events or not. An observer in `options` is told of all events as well.
    public func startPull(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) -> RunningPull {
        let events = PullEvents()
        var observed = options
        observed.observer = { [buffer = events.buffer] event in
            options.observer?(event)
            buffer.add(event)
        }
        let task = Task { [observed] in
            defer { events.buffer.finish() }
            return try await pull(reference, observed, registry: registry)
        }
        return RunningPull(events: events, task: task)
    }
}
