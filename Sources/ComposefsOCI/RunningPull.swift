public import ComposefsRegistry
public import ComposefsTransfer
public import ComposefsTransports

/// A pull that runs in its own task: its events, and its result.
///
/// ```swift
/// let pull = store.startPull("alpine")
/// for await event in pull.events { … }
/// let image = try await pull.result
/// ```
public struct RunningPull: Sendable {
    /// The events, for one reader. They end with the pull, whether it succeeds or fails.
    public let events: PullEvents
    private let task: Task<PullResult, any Error>

    fileprivate init(events: PullEvents, task: Task<PullResult, any Error>) {
        self.events = events
        self.task = task
    }

    /// Waits for the pull and returns its result. Cancelling a task that waits here cancels the pull.
    ///
    /// - Throws: as `Store.pull`.
    public var result: PullResult {
        get async throws {
            try await withTaskCancellationHandler {
                try await task.value
            } onCancel: {
                task.cancel()
            }
        }
    }

    /// Cancels the pull. `result` then throws `CancellationError`, unless the pull was already complete.
    public func cancel() { task.cancel() }
}

extension Store {
    /// Starts a pull; see `pull` for parameters and errors. The pull runs until it is complete or cancelled, whether its events are read or
    /// not. An observer in `options` receives all events too.
    public func startPull(
        _ reference: some ImageReferenceConvertible, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
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
