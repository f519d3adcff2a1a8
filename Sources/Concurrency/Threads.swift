internal import ComposefsCLinux
public import ComposefsLinuxSystem
internal import Glibc

/// A first-in first-out queue that holds no more than its capacity: the bound on memory between two stages of work.
public final class BoundedQueue<Element: Sendable>: Sendable {
    private struct State {
        var ring: [Element?]
        var first = 0
        var count = 0
        var isClosed = false
        var waiting = 0
    }

    private let monitor: Guarded<State>

    /// `capacity` is taken as at least 1.
    public init(capacity: Int) {
        monitor = Guarded(State(ring: Array(repeating: nil, count: max(1, capacity))))
    }

    /// Appends, waiting while the queue is full. False, and nothing appended, once it is closed.
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
            if state.waiting > 0 { wake = .everybody }
            return true
        }
    }

    /// The oldest element, waiting while there is none; nil once the queue is closed and empty.
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
            if state.waiting > 0 { wake = .everybody }
            return .some(element)
        }
    }

    /// No more will come: `pop` gives what is left, then nil.
    public func close() { monitor.change { $0.isClosed = true } }

    /// Closes and drops what is left.
    public func cancel() {
        let dropped = monitor.change { state -> [Element?] in
            let dropped = state.ring
            state.ring = Array(repeating: nil, count: dropped.count)
            state.count = 0
            state.isClosed = true
            return dropped
        }
        // Released outside the lock: an element's deinit may do anything.
        _ = dropped
    }
}

/// A counting semaphore.
public final class Semaphore: Sendable {
    private let monitor: Guarded<Int>

    public init(_ count: Int) { monitor = Guarded(count) }

    /// Takes one, waiting while there is none.
    public func wait() {
        monitor.wait { count, _ -> Void? in
            guard count > 0 else { return nil }
            count -= 1
            return ()
        }
    }

    /// Gives one back.
    public func signal() { monitor.change { $0 += 1 } }

    /// Takes one while `body` runs.
    public func withPermit<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        wait()
        defer { signal() }
        return try body()
    }
}

/// Threads of our own that run jobs in the order they came. Blocking work on Swift's cooperative threads would stall every task.
public final class WorkerPool: Sendable {
    private struct State {
        var jobs: [@Sendable () -> Void] = []
        var first = 0
        var isClosed = false
        var running = 0
    }

    private let monitor = Guarded(State())
    /// How many threads there are.
    public let threadCount: Int

    /// Starts the threads; `threads` is taken as at least 1. Where the kernel gives fewer, the pool works with those; with none at all
    /// `submit` runs the job itself.
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

    /// Runs `job` on one of the threads. After `shutdown` it is run by the caller.
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

    /// Waits until all jobs submitted before are done and the threads have ended. Must not be called by a job.
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

/// Runs `body` on a thread of its own and waits for it without blocking the caller's task.
public func onOwnThread<T: Sendable>(_ body: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        let isStarted = startThread("cfsoci") { continuation.resume(with: Result { try body() }) }
        if !isStarted { continuation.resume(throwing: SystemError(operation: "start a thread", errno: .tryAgain)) }
    }
}

/// Runs `body` on a thread of its own and blocks the caller until it is done: for what changes the thread it runs on for good.
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

/// Starts a detached thread; false where the kernel gives none.
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
