import ComposefsConcurrency

/// Runs `attempt` until it returns a value.
///
/// It waits for another pull, in this or another process, to release the lease of a blob. The kernel does not report that, so this function
/// polls, at first every 10 ms and later every 100 ms.
///
/// - Throws: what `attempt` throws; `CancellationError` if the value is cancelled.
func pollingForLease<Value>(_ cancellation: Cancellation, _ attempt: () throws -> Value?) throws -> Value {
    var pause = Duration.milliseconds(10)
    while true {
        if let value = try attempt() { return value }
        guard cancellation.sleep(pause) else { throw CancellationError() }
        pause = min(pause * 2, .milliseconds(100))
    }
}
