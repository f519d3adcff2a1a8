/// How often, and after which pauses, a request is retried.
public struct RetryPolicy: Sendable {
    /// The most retries without progress. The count restarts each time that 64 KiB more of a blob have arrived.
    public var limit = 5
    /// The most retries while the host cannot be reached.
    public var unreachableLimit = 2
    /// The first pause; it doubles with each retry.
    public var baseDelay = Duration.milliseconds(500)
    /// The longest pause that does not come from the server.
    public var maximumDelay = Duration.seconds(30)
    /// The longest `Retry-After` to wait for. A longer one is an error immediately.
    public var maximumRetryAfter = Duration.seconds(300)

    /// The default policy.
    public init() {}
}
