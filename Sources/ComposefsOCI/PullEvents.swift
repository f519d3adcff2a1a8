public import ComposefsTransfer

/// A pull's events as they happen, for one reader; they end with the pull, whether it succeeds or not.
///
/// Reading slowly, or not at all, never holds the pull up: of what has not been read yet, only the newest count of bytes of each layer is
/// kept, and only the newest retry. All other events are few, and all of them come.
public struct PullEvents: AsyncSequence, Sendable {
    let buffer = EventBuffer<PullEvent>()

    public struct AsyncIterator: AsyncIteratorProtocol {
        private let buffer: EventBuffer<PullEvent>
        private var changes: AsyncStream<Void>.Iterator

        init(_ buffer: EventBuffer<PullEvent>) {
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
