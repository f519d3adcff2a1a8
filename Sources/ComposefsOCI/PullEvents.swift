public import ComposefsTransfer

/// The events of a pull, for one reader. The sequence ends with the pull, whether it succeeds or fails.
///
/// A slow reader, or none, does not block the pull. Of the events that have not been read, only the newest number of bytes and the newest
/// retry of each layer are kept. All other events are delivered.
public struct PullEvents: AsyncSequence, Sendable {
    let buffer = EventBuffer<PullEvent>()

    /// Iterates over the events.
    public struct AsyncIterator: AsyncIteratorProtocol {
        private let buffer: EventBuffer<PullEvent>
        private var changes: AsyncStream<Void>.Iterator

        init(_ buffer: EventBuffer<PullEvent>) {
            self.buffer = buffer
            changes = buffer.changes.makeAsyncIterator()
        }

        /// The next event; nil at the end of the pull, and if the reading task is cancelled.
        public mutating func next() async -> PullEvent? { await next(isolation: nil) }

        /// As `next()`.
        public mutating func next(isolation actor: isolated (any Actor)?) async -> PullEvent? {
            while true {
                if let event = buffer.take() { return event }
                // One change can stand for several events. The end of the changes is the end of the pull.
                if await changes.next(isolation: actor) == nil { return buffer.take() }
            }
        }
    }

    /// An iterator. Only one reader may use the sequence.
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(buffer) }
}
