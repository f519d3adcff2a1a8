internal import Glibc

/// A point in time on the kernel's monotonic clock (`CLOCK_MONOTONIC`), in nanoseconds.
package struct MonotonicTime: Comparable, Sendable {
    package var nanoseconds: UInt64

    package static var now: MonotonicTime {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return MonotonicTime(nanoseconds: UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec))
    }

    package static func + (time: MonotonicTime, duration: Duration) -> MonotonicTime {
        MonotonicTime(nanoseconds: time.nanoseconds &+ duration.clampedNanoseconds)
    }

    package static func - (late: MonotonicTime, early: MonotonicTime) -> Duration {
        .nanoseconds(Int64(clamping: late.nanoseconds > early.nanoseconds ? late.nanoseconds - early.nanoseconds : 0))
    }

    package static func < (lhs: MonotonicTime, rhs: MonotonicTime) -> Bool { lhs.nanoseconds < rhs.nanoseconds }
}

extension Duration {
    /// The duration in nanoseconds, clamped to 0 and 100 years, so that adding it to the clock cannot overflow.
    package var clampedNanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(min(seconds, 3_155_760_000)) &* 1_000_000_000 &+ UInt64(attoseconds / 1_000_000_000)
    }

    /// Whole milliseconds, at least `minimum`: for curl's options and for poll timeouts.
    package func milliseconds(atLeast minimum: Int) -> Int {
        max(minimum, Int(clamping: clampedNanoseconds / 1_000_000))
    }
}

/// A mutex with one condition variable on the monotonic clock. `Synchronization.Mutex` has no condition variable.
package final class Monitor: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    package init() {
        mutex.initialize(to: pthread_mutex_t())
        condition.initialize(to: pthread_cond_t())
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    package func withLock<Value, Failure: Error>(_ body: () throws(Failure) -> Value) throws(Failure) -> Value {
        lock()
        defer { unlock() }
        return try body()
    }

    fileprivate func lock() { pthread_mutex_lock(mutex) }

    fileprivate func unlock() { pthread_mutex_unlock(mutex) }

    /// Call only inside `withLock`. Spurious wake-ups are possible, as with every condition variable.
    package func wait() { pthread_cond_wait(condition, mutex) }

    /// Call only inside `withLock`. Returns false once `deadline` has passed.
    package func wait(until deadline: MonotonicTime) -> Bool {
        var time = timespec()
        time.tv_sec = Int(clamping: deadline.nanoseconds / 1_000_000_000)
        time.tv_nsec = Int(clamping: deadline.nanoseconds % 1_000_000_000)
        return pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT
    }

    package func wakeAll() { pthread_cond_broadcast(condition) }
}

/// State behind a monitor's lock. Threads can wait until another thread has changed it.
///
/// The state may be of any type: values enter and leave as `sending`, so that nothing outside the lock refers to the state.
package final class Guarded<State>: Sendable {
    private let monitor = Monitor()
    // Used only between `lock` and `unlock`.
    private nonisolated(unsafe) var state: State

    package init(_ state: sending State) { self.state = state }

    /// Calls `body` under the lock, again after each change, until it returns a value. Nil means that the caller must wait. If `body` sets
    /// its second argument to `.all`, all other waiting threads wake up.
    package func wait<Result>(_ body: (inout sending State, inout Wake) -> sending Result?) -> sending Result {
        monitor.lock()
        defer { monitor.unlock() }
        while true {
            var wake = Wake.none
            let result = body(&state, &wake)
            if wake == .all { monitor.wakeAll() }
            if let result { return result }
            monitor.wait()
        }
    }

    /// Calls `body` under the lock, again after each change, until it returns a value. Returns nil once `deadline` has passed.
    package func wait<Result>(until deadline: MonotonicTime, _ body: (inout sending State) -> sending Result?) -> sending Result? {
        monitor.lock()
        defer { monitor.unlock() }
        while true {
            if let result = body(&state) { return result }
            if !monitor.wait(until: deadline) { return body(&state) }
        }
    }

    /// Reads the state under the lock, without waking any thread.
    package func read<Result>(_ body: (inout sending State) -> sending Result) -> sending Result {
        monitor.lock()
        defer { monitor.unlock() }
        return body(&state)
    }

    /// Changes the state under the lock and wakes all waiting threads.
    package func change<Result>(_ body: (inout sending State) -> sending Result) -> sending Result {
        monitor.lock()
        defer {
            monitor.wakeAll()
            monitor.unlock()
        }
        return body(&state)
    }

    package enum Wake { case none, all }
}
