package import ComposefsTransfer
import Synchronization

/// An event that may have to wait for its reader.
package protocol WaitingEvent: Sendable {
    /// Goes behind the events that wait already. Of those it takes away what nobody needs to know any more.
    func join(_ queue: inout [Self])
}

/// Events between the threads that do something and a reader: reading slowly, or not at all, holds nobody up.
package final class EventBuffer<Event: WaitingEvent>: Sendable {
    /// Tells, without saying how often, that there are events.
    let changes: AsyncStream<Void>
    private let changed: AsyncStream<Void>.Continuation
    private let queue = Mutex<[Event]>([])

    package init() { (changes, changed) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    var count: Int { queue.withLock { $0.count } }

    package func add(_ event: Event) {
        queue.withLock { event.join(&$0) }
        changed.yield()
    }

    /// The oldest event that was not taken yet.
    func take() -> Event? { queue.withLock { $0.isEmpty ? nil : $0.removeFirst() } }

    /// All that were not taken yet, the oldest first.
    package func takeAll() -> [Event] {
        queue.withLock { queue in
            defer { queue.removeAll(keepingCapacity: true) }
            return queue
        }
    }

    /// No event comes any more; those that are here can still be taken.
    func finish() { changed.finish() }
}

extension PullEvent: WaitingEvent {
    package func join(_ queue: inout [PullEvent]) {
        switch phase {
        case .bytes:
            // Only where nothing else of the layer came between.
            if let last = queue.lastIndex(where: { $0.component == component }), queue[last].phase == .bytes { return queue[last] = self }
        case .retrying, .waiting, .resumed:
            // A resumption belongs to the retry before it; a new try makes all before it pointless.
            let keepsRetry = if case .resumed = phase { true } else { false }
            queue.removeAll { $0.component == component && $0.phase.isPassing(keepsRetry: keepsRetry) }
        default: break
        }
        queue.append(self)
    }
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

    /// Of an event that tells how far a layer is. Between two such events of one layer there is no other of it.
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
