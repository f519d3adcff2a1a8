internal import ComposefsCLinux
public import ComposefsLinuxSystem
internal import Glibc

/// A first-in first-out queue of limited capacity, which bounds the memory between two stages of work.
public final class BoundedQueue<Element: Sendable>: Sendable {
    private struct State {
        var ring: [Element?]
        var first = 0
        var count = 0
        var isClosed = false
        var waiting = 0
    }

    private let monitor: Guarded<State>

    /// - Parameter capacity: The largest number of elements; values below 1 count as 1.
    public init(capacity: Int) {
        monitor = Guarded(State(ring: Array(repeating: nil, count: max(1, capacity))))
    }

    /// Appends an element and waits while the queue is full. Returns false, without appending, when the queue is closed.
    @discardableResult
    public func push(_ element: Element) -> Bool {
        var waits = false
        return monitor.wait { state, wake in
            if waits {
                state.waiting -= 1
                waits = false
            }
            if state.isClosed { return false }
            guard state.count < state.ring.count else {
                state.waiting += 1
                waits = true
                return nil
            }
            state.ring[(state.first + state.count) % state.ring.count] = element
            state.count += 1
            if state.waiting > 0 { wake = .all }
            return true
        }
    }

    /// Removes the oldest element and waits while there is none. Returns nil when the queue is closed and empty.
    public func pop() -> Element? {
        var waits = false
        return monitor.wait { (state, wake) -> Element?? in
            if waits {
                state.waiting -= 1
                waits = false
            }
            guard state.count > 0 else {
                if state.isClosed { return .some(nil) }
                state.waiting += 1
                waits = true
                return nil
            }
            let element = state.ring[state.first]
            state.ring[state.first] = nil
            state.first = (state.first + 1) % state.ring.count
            state.count -= 1
            if state.waiting > 0 { wake = .all }
            return .some(element)
        }
    }

    /// Closes the queue: `push` appends nothing from now on, and `pop` returns the remaining elements, then nil.
    public func close() { monitor.change { $0.isClosed = true } }

    /// Closes the queue and drops the remaining elements.
    public func cancel() {
        let dropped = monitor.change { state -> [Element?] in
            let dropped = state.ring
            state.ring = Array(repeating: nil, count: dropped.count)
            state.count = 0
            state.isClosed = true
            return dropped
        }
        // The elements are released outside the lock, because a deinitialiser may do anything.
        _ = dropped
    }
}

/// A counting semaphore.
public final class Semaphore: Sendable {
    private let monitor: Guarded<Int>

    public init(_ count: Int) { monitor = Guarded(count) }

    /// Takes one permit and waits while there is none.
    public func wait() {
        monitor.wait { count, _ -> Void? in
            guard count > 0 else { return nil }
            count -= 1
            return ()
        }
    }

    /// Returns one permit.
    public func signal() { monitor.change { $0 += 1 } }

    /// Holds one permit while `body` runs.
    public func withPermit<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        wait()
        defer { signal() }
        return try body()
    }
}

/// A pool of threads that runs jobs in the order of submission. Blocking work on Swift's cooperative threads would stall all tasks.
public final class WorkerPool: Sendable {
    private struct State {
        var jobs: [@Sendable () -> Void] = []
        var first = 0
        var isClosed = false
        var running = 0
    }

    private let monitor = Guarded(State())
    /// The number of threads that were started.
    public let threadCount: Int

    /// Starts the threads. If the kernel refuses some of them, the pool works with fewer; without any thread, `submit` runs the job itself.
    ///
    /// - Parameter threads: The number of threads; values below 1 count as 1.
    public init(threads: Int) {
        var started = 0
        let monitor = monitor
        for _ in 0..<max(1, threads) {
            monitor.change { $0.running += 1 }
            if startThread("worker", { WorkerPool.work(monitor) }) {
                started += 1
            } else {
                monitor.change { $0.running -= 1 }
                break
            }
        }
        threadCount = started
    }

    deinit { monitor.change { $0.isClosed = true } }

    /// Runs `job` on one of the threads. After `shutdown`, the calling thread runs it.
    public func submit(_ job: @escaping @Sendable () -> Void) {
        let isTaken =
            threadCount > 0
            && monitor.change { state in
                if state.isClosed { return false }
                state.jobs.append(job)
                return true
            }
        if !isTaken { job() }
    }

    /// Waits until all submitted jobs are done and the threads have ended. A job must not call this.
    public func shutdown() {
        monitor.change { $0.isClosed = true }
        monitor.wait { state, _ -> Void? in state.running == 0 ? () : nil }
    }

    private static func work(_ monitor: Guarded<State>) {
        while true {
            let job = monitor.wait { (state, _) -> (@Sendable () -> Void)?? in
                if state.first < state.jobs.count {
                    let job = state.jobs[state.first]
                    state.first += 1
                    if state.first == state.jobs.count {
                        state.jobs.removeAll(keepingCapacity: state.first <= 1024)
                        state.first = 0
                    } else if state.first >= 1024, state.first * 2 >= state.jobs.count {
                        state.jobs.removeFirst(state.first)
                        state.first = 0
                    }
                    return .some(job)
                }
                return state.isClosed ? .some(nil) : nil
            }
            guard let job else { break }
            job()
        }
        monitor.change { $0.running -= 1 }
    }
}

/// Runs `body` on a new thread and suspends the calling task until it is done.
///
/// - Throws: The error of `body`, or `SystemError` if no thread can be started.
public func onOwnThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        let isStarted = startThread("cfsoci") { continuation.resume(with: Result { try body() }) }
        if !isStarted { continuation.resume(throwing: SystemError(operation: "start a thread", errno: .tryAgain)) }
    }
}

/// Runs `body` on a new thread and blocks the calling thread until it is done: for work that changes its thread permanently, such as
/// `unshare`.
///
/// - Throws: `SystemError` if no thread can be started.
public func blockingOnOwnThread<T: Sendable>(_ body: @escaping @Sendable () -> T) throws(SystemError) -> T {
    let monitor = Guarded<T?>(nil)
    let isStarted = startThread("cfsoci") {
        let result = body()
        monitor.change { $0 = result }
    }
    guard isStarted else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
    return monitor.wait { result, _ in result }
}

private final class ThreadBody: Sendable {
    let body: @Sendable () -> Void

    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// Starts a detached thread. Returns false when the kernel refuses.
package func startThread(_ name: StaticString, _ body: @escaping @Sendable () -> Void) -> Bool {
    let box = Unmanaged.passRetained(
        ThreadBody {
            name.withUTF8Buffer { bytes in
                guard let start = bytes.baseAddress else { return }
                UnsafeRawPointer(start).withMemoryRebound(to: CChar.self, capacity: bytes.count + 1) { cl_set_thread_name($0) }
            }
            body()
        })
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    if result != 0 { box.release() }
    return result == 0
}
