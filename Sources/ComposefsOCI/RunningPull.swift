public import OCI
public import Registry
import Synchronization

/// A pull that runs in a task of its own: what happens as it happens, and in the end what it brought.
///
/// ```swift
/// let pull = store.startPull("alpine")
/// for await event in pull.events { … }
/// let image = try await pull.result
/// ```
public struct RunningPull: Sendable {
    /// What happens, for one reader; ends with the pull, whether it succeeds or not. Bytes of a layer are told of about two hundred times at
    /// most, so what nobody reads takes little memory.
    public let events: AsyncStream<PullEvent>
    private let task: Task<PullResult, any Error>

    fileprivate init(events: AsyncStream<PullEvent>, task: Task<PullResult, any Error>) {
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
        let (events, continuation) = AsyncStream.makeStream(of: PullEvent.self)
        let thinning = Mutex(EventThinning())
        var observed = options
        observed.observer = { event in
            options.observer?(event)
            if thinning.withLock({ $0.lets(event) }) { continuation.yield(event) }
        }
        let task = Task { [observed] in
            defer { continuation.finish() }
            return try await pull(reference, observed, registry: registry)
        }
        return RunningPull(events: events, task: task)
    }
}

/// Leaves out of a layer's progress what is less than half a percent more than what was told last.
struct EventThinning {
    private var layers: [(size: UInt64, told: UInt64)] = []

    mutating func lets(_ event: PullEvent) -> Bool {
        switch event {
        case .resolved(_, let found):
            layers = found.map { ($0.size, 0) }
        case .layerProgress(let index, let received) where layers.indices.contains(index):
            let (size, told) = layers[index]
            guard received >= size || received &- told >= size / 200 else { return false }
            layers[index].told = received
        default: break
        }
        return true
    }
}
