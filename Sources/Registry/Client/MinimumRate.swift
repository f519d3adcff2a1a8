internal import ComposefsConcurrency

/// Measures whether a server sends enough, averaged over a window: a server that sends just enough not to stall could hold a pull forever.
///
/// Only the time spent waiting for its bytes counts. A slow reader and the pauses between attempts are not the server's fault.
struct MinimumRate {
    /// In bytes per second; 0 disables the check.
    private let rate: UInt64
    private let window: Duration
    private var waited = Duration.zero
    private var received: UInt64 = 0

    init(_ options: RegistryOptions) {
        rate = options.minimumRate
        window = options.minimumRateWindow
    }

    /// Runs `body`, which waits for the server and returns the number of bytes received.
    mutating func measure<Failure: Error>(_ body: () throws(Failure) -> Int) throws(Failure) -> Int {
        let start = MonotonicTime.now
        defer { waited += MonotonicTime.now - start }
        let count = try body()
        received += UInt64(count)
        return count
    }

    /// The rate in bytes per second, if a window is over and the rate was too low; otherwise nil. A new window begins after each.
    mutating func isTooLow() -> UInt64? {
        guard rate > 0, waited >= window else { return nil }
        let (thousandfold, overflows) = received.multipliedReportingOverflow(by: 1000)
        let average = overflows ? .max : thousandfold / UInt64(waited.milliseconds(atLeast: 1))
        waited = .zero
        received = 0
        return average < rate ? average : nil
    }
}
