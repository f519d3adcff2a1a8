/// How often and how fast a request is made again.
public struct RetryPolicy: Sendable {
    /// Attempts after the first, as long as nothing moves on. A blob that received at least 64 KiB more starts anew.
    public var limit = 5
    /// Attempts after the first if the host cannot be reached at all.
    public var unreachableLimit = 2
    /// The first pause; doubled each time.
    public var baseDelay = Duration.milliseconds(500)
    /// The longest pause of our own choice.
    public var maximumDelay = Duration.seconds(30)
    /// The longest `Retry-After` that is waited for; a longer one is an error at once.
    public var maximumRetryAfter = Duration.seconds(300)

    public init() {}
}
