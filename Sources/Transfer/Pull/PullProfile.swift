import ComposefsLinuxSystem
import Synchronization

/// The time that a pull spends in each phase: elapsed nanoseconds, summed over its threads.
package final class PullProfile: Sendable {
    enum Phase: Int, CaseIterable {
        case read, inflate, digest, verity, files, split, merge, image, disk, sync

        var name: String { String(describing: self) }
    }

    private let sums = Mutex([UInt64](repeating: 0, count: Phase.allCases.count))

    /// Nanoseconds on the monotonic clock.
    static func now() -> UInt64 { Host.monotonicNanoseconds() }

    func add(_ phase: Phase, _ nanoseconds: UInt64) { sums.withLock { $0[phase.rawValue] &+= nanoseconds } }

    func measure<Result, Failure: Error>(_ phase: Phase, _ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        let started = Self.now()
        defer { add(phase, Self.now() - started) }
        return try body()
    }

    /// Seconds per phase, in the order of the work.
    var seconds: [PullResult.PhaseTime] {
        let sums = sums.withLock { $0 }
        return Phase.allCases.map { PullResult.PhaseTime(phase: $0.name, seconds: Double(sums[$0.rawValue]) / 1e9) }
    }
}
