package import ComposefsTransfer
import Synchronization

/// An event that can wait in a queue until it is read.
package protocol WaitingEvent: Sendable {
    /// Adds the event to the end of the queue, and removes events that it makes obsolete.
    func join(_ queue: inout [Self])
}

/// A queue of events between working threads and one reader. A slow reader, or none, does not block the threads.
package final class EventBuffer<Event: WaitingEvent>: Sendable {
    /// Yields a value after events were added; one value can stand for several events.
    let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation
    private let queue = Mutex<[Event]>([])

    package init() { (changes, changed) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    var count: Int { queue.withLock { $0.count } }

    /// Adds an event; never blocks.
    package func add(_ event: Event) {
        queue.withLock { event.join(&$0) }
        changed.yield()
    }

    /// Removes and returns the oldest event.
    func take() -> Event? { queue.withLock { $0.isEmpty ? nil : $0.removeFirst() } }

    /// Removes and returns all events, the oldest first.
    package func takeAll() -> [Event] {
        queue.withLock { queue in
            defer { queue.removeAll(keepingCapacity: true) }
            return queue
        }
    }

    /// Ends `changes`. Events in the queue can still be taken.
    func finish() { changed.finish() }
}

extension PullEvent: WaitingEvent {
    package func join(_ queue: inout [PullEvent]) {
        switch phase {
        case .bytes:
            // Replaces the previous count unless another event of the layer came in between.
            if let last = queue.lastIndex(where: { $0.component == component }), queue[last].phase == .bytes { return queue[last] = self }
        case .retrying, .waiting, .resumed:
            // A resumption belongs to the retry before it. A new attempt makes all events of the previous one obsolete.
            let keepsRetry = if case .resumed = phase { true } else { false }
            queue.removeAll { $0.component == component && $0.phase.isPassing(keepsRetry: keepsRetry) }
        default: break
        }
        queue.append(self)
    }
}

extension PullEvent.Phase {
    /// Whether the event describes a state that a newer attempt has ended.
    fileprivate func isPassing(keepsRetry: Bool) -> Bool {
        switch self {
        case .bytes, .resumed: true
        case .retrying, .waiting: !keepsRetry
        default: false
        }
    }
}

extension PushEvent: WaitingEvent {
    package func join(_ queue: inout [PushEvent]) {
        if phase == .bytes, let last = queue.lastIndex(where: { $0.component == component }), queue[last].phase == .bytes {
            queue[last] = self
        } else {
            queue.append(self)
        }
    }
}

extension CopyEvent: WaitingEvent {
    package func join(_ queue: inout [CopyEvent]) {
        if let layer = countedLayer, let last = queue.lastIndex(where: { $0.countedLayer == layer }) {
            queue[last] = self
        } else {
            queue.append(self)
        }
    }

    /// The layer's index in an event with a number of objects; nil for others. No other event of the layer comes between two of these.
    private var countedLayer: Int? { if case .layer(let index, .objects) = self { index } else { nil } }
}

extension StoreCheckEvent: WaitingEvent {
    package func join(_ queue: inout [StoreCheckEvent]) {
        // Of counts that follow each other the last says everything. They come from several threads, and not in order.
        if case .objects(let done, _) = self, case .objects(let before, _)? = queue.last {
            if done > before { queue[queue.count - 1] = self }
        } else if case .repair(.pull(let event)) = self, event.phase == .bytes, case .repair(.pull(let before))? = queue.last,
            before.phase == .bytes, before.component == event.component
        {
            queue[queue.count - 1] = self
        } else {
            queue.append(self)
        }
    }
}
