public import OCI
import Synchronization

/// A pull's events as they happen, for one reader; they end with the pull, whether it succeeds or not.
///
/// Reading slowly, or not at all, never holds the pull up: of what has not been read yet, only the newest count of bytes of each layer is
/// kept, and only the newest retry. All other events are few, and all of them come.
public struct PullEvents: AsyncSequence, Sendable {
    let buffer = EventBuffer()

    public struct AsyncIterator: AsyncIteratorProtocol {
        private let buffer: EventBuffer
        private var changes: AsyncStream<Void>.Iterator

        init(_ buffer: EventBuffer) {
            self.buffer = buffer
            changes = buffer.changes.makeAsyncIterator()
        }

        /// The next event; nil at the end of the pull, and where the reading task is cancelled.
        public mutating func next() async -> PullEvent? { await next(isolation: nil) }

        public mutating func next(isolation actor: isolated (any Actor)?) async -> PullEvent? {
            while true {
                if let event = buffer.take() { return event }
                // One change may stand for many events, and the last one for the end.
                if await changes.next(isolation: actor) == nil { return buffer.take() }
            }
        }
    }

    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(buffer) }
}

/// Events between the pull's threads and a reader.
package final class EventBuffer: Sendable {
    /// Tells, without saying how often, that there are events.
    let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation
    private let queue = Mutex<[PullEvent]>([])

    package init() { (changes, changed) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    var count: Int { queue.withLock { $0.count } }

    package func add(_ event: PullEvent) {
        queue.withLock { queue in
            switch event.phase {
            case .bytes:
                // Only where nothing else of the layer came between.
                if let last = queue.lastIndex(where: { $0.component == event.component }), queue[last].phase == .bytes {
                    queue[last] = event
                } else {
                    queue.append(event)
                }
            case .retrying, .waiting, .resumed:
                // A resumption belongs to the retry before it; a new try makes all before it pointless.
                let keepsRetry = if case .resumed = event.phase { true } else { false }
                queue.removeAll { $0.component == event.component && $0.phase.isPassing(keepsRetry: keepsRetry) }
                queue.append(event)
            default: queue.append(event)
            }
        }
        changed.yield()
    }

    /// The oldest event that was not taken yet.
    func take() -> PullEvent? { queue.withLock { $0.isEmpty ? nil : $0.removeFirst() } }

    /// All that were not taken yet, the oldest first.
    package func takeAll() -> [PullEvent] {
        queue.withLock { queue in
            defer { queue.removeAll(keepingCapacity: true) }
            return queue
        }
    }

    /// No event comes any more; those that are here can still be taken.
    func finish() { changed.finish() }
}

extension PullEvent.Phase {
    /// Whether an event tells of a state that a newer try has ended.
    fileprivate func isPassing(keepsRetry: Bool) -> Bool {
        switch self {
        case .bytes, .resumed: true
        case .retrying, .waiting: !keepsRetry
        default: false
        }
    }
}
