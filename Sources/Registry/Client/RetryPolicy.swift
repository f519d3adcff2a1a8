internal import ComposefsConcurrency
internal import ComposefsLinuxSystem

/// How often and how fast a request is made again.
public struct RetryPolicy: Sendable {
    /// Tries after the first, as long as nothing moves on. A blob that received at least 64 KiB more starts anew.
    public var limit = 5
    /// Tries after the first where the host cannot be reached at all.
    public var unreachableLimit = 2
    /// The first pause; doubled each time.
    public var baseDelay = Duration.milliseconds(500)
    /// The longest pause of our own choice.
    public var maximumDelay = Duration.seconds(30)
    /// The longest `Retry-After` that is waited for; a longer one is an error at once.
    public var maximumRetryAfter = Duration.seconds(300)

    public init() {}
}

/// The tries of one request or one blob.
struct RetryState {
    private var failures = 0
    private var unreachable = 0
    /// Few tries: there is another place to go to.
    private let isMirror: Bool

    init(for repository: RemoteRepository) { self.init(isMirror: repository.isMirror) }

    init(isMirror: Bool = false) { self.isMirror = isMirror }

    mutating func madeProgress() { self = RetryState(isMirror: isMirror) }

    /// The pause before the next try; throws the failure's own error where there shall be none.
    mutating func pause(after failure: Failure, _ policy: RetryPolicy) throws(RegistryError) -> Duration {
        var requested: Duration?
        switch failure.retry {
        case .never: throw failure.error
        case .unreachable:
            unreachable += 1
            guard unreachable <= (isMirror ? 0 : policy.unreachableLimit) else { throw failure.error }
        case .transient(let after): requested = after
        }
        failures += 1
        guard failures <= (isMirror ? min(policy.limit, 2) : policy.limit) else { throw failure.error }
        if let requested, requested > policy.maximumRetryAfter {
            throw RegistryError(
                failure.error.kind,
                "\(failure.error.description); it asks to wait \(requested.components.seconds) s, more than the limit of "
                    + "\(policy.maximumRetryAfter.components.seconds) s",
                status: failure.error.status, code: failure.error.code)
        }
        let doubled = policy.baseDelay * (1 << min(failures - 1, 16))
        // Half fixed, half random: many clients that failed together must not come back together.
        let own = min(doubled, policy.maximumDelay) * Double.random(in: 0.5...1)
        return max(own, requested ?? .zero)
    }
}
