internal import ComposefsConcurrency

/// What a server has to send, averaged over a window: one that sends just enough not to stall could hold a pull for ever.
///
/// Only the time counts in which its bytes were waited for: neither a slow reader here nor a pause between two tries is its fault.
struct MinimumRate {
    /// Bytes a second; 0 asks for nothing.
    private let rate: UInt64
    private let window: Duration
    private var waited = Duration.zero
    private var received: UInt64 = 0

    init(_ options: RegistryOptions) {
        rate = options.minimumRate
        window = options.minimumRateWindow
    }

    /// Runs `body`, which waits for the server and returns how many bytes it brought.
    mutating func measure<Failure: Error>(_ body: () throws(Failure) -> Int) throws(Failure) -> Int {
        let start = MonotonicTime.now
        defer { waited += MonotonicTime.now - start }
        let count = try body()
        received += UInt64(count)
        return count
    }

    /// What came a second, in bytes, where a window is over and that was too little. After each window a new one begins.
    mutating func isTooLow() -> UInt64? {
        guard rate > 0, waited >= window else { return nil }
        let (thousandfold, overflows) = received.multipliedReportingOverflow(by: 1000)
        let average = overflows ? .max : thousandfold / UInt64(waited.milliseconds(atLeast: 1))
        waited = .zero
        received = 0
        return average < rate ? average : nil
    }
}
