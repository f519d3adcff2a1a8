public import ComposefsConcurrency

/// Whether another attempt makes sense after one that failed.
public enum Retry: Sendable, Hashable {
    case never
    /// The host could not be reached at all: a few attempts only, since mostly its name is wrong.
    case unreachable
    /// A broken connection, a stall or a status that says "later". `after` is the server's Retry-After.
    case transient(after: Duration?)
}

/// The error of one attempt.
public protocol AttemptFailure: Error {
    var retry: Retry { get }

    /// The error of a caller that does not wait for the next attempt any more.
    var whenCancelled: Self { get }
}

/// The attempts of one request or one blob: the only place where a retry is decided. Used by one thread at a time.
public final class RetryBudget {
    private let policy: RetryPolicy
    private let hasAlternative: Bool
    private var failures = 0
    private var unreachable = 0
    /// Attempts of a host that has an alternative.
    private static let alternativeLimit = 2

    /// - Parameter hasAlternative: there is another place to ask, so a few attempts are enough.
    public init(_ policy: RetryPolicy, hasAlternative: Bool = false) {
        self.policy = policy
        self.hasAlternative = hasAlternative
    }

    /// What is fetched has moved on: the next failure is the first again.
    public func refill() {
        failures = 0
        unreachable = 0
    }

    /// The pause before the next attempt; nil if there is none.
    public func pause(after retry: Retry) -> Duration? {
        var requested = Duration.zero
        switch retry {
        case .never: return nil
        case .unreachable:
            unreachable += 1
            guard unreachable <= (hasAlternative ? 0 : policy.unreachableLimit) else { return nil }
        case .transient(let after): requested = after ?? .zero
        }
        failures += 1
        guard failures <= (hasAlternative ? min(policy.limit, Self.alternativeLimit) : policy.limit), requested <= policy.maximumRetryAfter
        else { return nil }
        let doubled = policy.baseDelay * (1 << min(failures - 1, 16))
        // Half fixed, half random: many clients that failed together must not come back together.
        let own = min(doubled, policy.maximumDelay) * Double.random(in: 0.5...1)
        return max(own, requested)
    }
}

/// Runs `attempt` as often as the budget allows: the one retry loop, of requests and of blobs.
///
/// - Parameter willWait: called before each pause.
/// - Throws: the last attempt's error, or its `whenCancelled` if the pause is cut short.
public func retrying<Value, Failure: AttemptFailure>(
    _ budget: RetryBudget, _ cancellation: Cancellation, willWait: (Failure, Duration) -> Void = { _, _ in },
    _ attempt: () throws(Failure) -> Value
) throws(Failure) -> Value {
    while true {
        do throws(Failure) {
            return try attempt()
        } catch {
            guard let pause = budget.pause(after: error.retry) else { throw error }
            willWait(error, pause)
            guard cancellation.sleep(pause) else { throw error.whenCancelled }
        }
    }
}
