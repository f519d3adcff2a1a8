internal import ComposefsConcurrency
internal import ComposefsLinuxSystem
internal import Synchronization

/// Calls `body` for each element on our own threads. The results have the order of the elements, and only they take memory.
package func parallelMap<Element: Sendable, Value: Sendable>(
    _ elements: [Element], threads: Int, batch: Int? = nil, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil,
    _ body: @escaping @Sendable (Element) -> Value
) -> [Value] {
    let shared = ParallelResults<Value>()
    let threads = max(1, min(threads, elements.count))
    let pool = WorkerPool(threads: threads)
    // A job takes a few elements at a time until none is left: one job for each element would cost a lock for each.
    let batch = batch ?? max(1, min(64, elements.count / (threads * 4)))
    for _ in 0..<max(1, pool.threadCount) {
        pool.submit {
            while true {
                let start = shared.next.add(batch, ordering: .relaxed).oldValue
                guard start < elements.count else { return }
                let values = elements[start..<min(start + batch, elements.count)].map(body)
                shared.parts.withLock { $0.append((start, values)) }
                progress?(shared.done.add(values.count, ordering: .relaxed).newValue, elements.count)
            }
        }
    }
    pool.shutdown()
    return shared.parts.withLock { $0.sorted { $0.start < $1.start }.flatMap(\.values) }
}

private final class ParallelResults<Value: Sendable>: Sendable {
    let next = Atomic<Int>(0)
    let done = Atomic<Int>(0)
    let parts = Mutex<[(start: Int, values: [Value])]>([])
}
