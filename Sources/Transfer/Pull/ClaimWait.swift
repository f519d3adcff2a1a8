import ComposefsConcurrency

/// Runs `attempt` until it returns a value: what it waits for is another pull, here or in another process, and nothing tells when that is
/// done with a blob. So the next look comes after a pause, ten milliseconds at first and a tenth of a second in the end.
///
/// - Throws: what `attempt` throws; `CancellationError` if the caller does not wait any more.
func pollingForClaim<Value>(_ cancellation: Cancellation, _ attempt: () throws -> Value?) throws -> Value {
    var pause = Duration.milliseconds(10)
    while true {
        if let value = try attempt() { return value }
        guard cancellation.sleep(pause) else { throw CancellationError() }
        pause = min(pause * 2, .milliseconds(100))
    }
}
