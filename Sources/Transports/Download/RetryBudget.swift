public import ComposefsConcurrency

/// Whether another attempt makes sense after a failure.
public enum Retry: Sendable, Hashable {
    /// The failure is final.
    case never
    /// The host could not be reached. There are only a few attempts, because the usual cause is a wrong name.
    case unreachable
    /// A broken connection, a stall, or a status that asks the client to retry. `after` is the server's Retry-After (RFC 9110, 10.2.3).
    case transient(after: Duration?)
}

/// The error of one attempt.
public protocol AttemptFailure: Error {
    /// Whether another attempt makes sense.
    var retry: Retry { get }

    /// The error to throw if the caller cancels during the pause before the next attempt.
    var whenCancelled: Self { get }
}

/// Decides whether and when one request or one blob is retried; nothing else decides that. Used by one thread at a time.
public final class RetryBudget {
    private let policy: RetryPolicy
    private let hasAlternative: Bool
    private var failures = 0
    private var unreachable = 0
    /// The most retries with an origin that has an alternative.
    private static let alternativeLimit = 2

    /// - Parameters:
    ///   - policy: limits and delays.
    ///   - hasAlternative: whether another origin can be tried, so that a few attempts suffice.
    public init(_ policy: RetryPolicy, hasAlternative: Bool = false) {
        self.policy = policy
        self.hasAlternative = hasAlternative
    }

    /// Resets the number of failures, because the transfer has made progress.
    public func refill() {
        failures = 0
        unreachable = 0
    }

    /// Counts a failure and returns the pause before the next attempt; nil if there is no further attempt.
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
        // Half fixed, half random, so that clients that failed at the same time do not retry at the same time.
        let own = min(doubled, policy.maximumDelay) * Double.random(in: 0.5...1)
        return max(own, requested)
    }
}

/// Runs `attempt` as often as the budget allows. All requests and blobs are retried by this loop.
///
/// - Parameters:
///   - budget: decides whether there is another attempt, and after which pause.
///   - cancellation: ends a pause.
///   - willWait: called before each pause.
///   - attempt: makes one attempt.
/// - Throws: the last attempt's error, or its `whenCancelled` if the pause is cancelled.
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
