import ComposefsLinuxSystem
import Synchronization

/// Where the threads of a pull spend their time, in nanoseconds of elapsed time summed over threads.
package final class PullProfile: Sendable {
    enum Phase: Int, CaseIterable {
        case read, inflate, digest, verity, files, split, merge, image, sync

        var name: String { String(describing: self) }
    }

    private let read = Atomic<UInt64>(0)
    private let inflate = Atomic<UInt64>(0)
    private let digest = Atomic<UInt64>(0)
    private let verity = Atomic<UInt64>(0)
    private let files = Atomic<UInt64>(0)
    private let split = Atomic<UInt64>(0)
    private let merge = Atomic<UInt64>(0)
    private let image = Atomic<UInt64>(0)
    private let sync = Atomic<UInt64>(0)

    /// Nanoseconds of a clock that only moves forward.
    static func now() -> UInt64 { Host.monotonicNanoseconds() }

    func add(_ phase: Phase, _ nanoseconds: UInt64) {
        switch phase {
        case .read: read.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .inflate: inflate.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .digest: digest.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .verity: verity.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .files: files.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .split: split.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .merge: merge.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .image: image.wrappingAdd(nanoseconds, ordering: .relaxed)
        case .sync: sync.wrappingAdd(nanoseconds, ordering: .relaxed)
        }
    }

    func measure<Result, Failure: Error>(_ phase: Phase, _ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        let started = Self.now()
        defer { add(phase, Self.now() - started) }
        return try body()
    }

    /// Seconds by phase, in the order of the work.
    var seconds: [(phase: String, seconds: Double)] {
        Phase.allCases.map { ($0.name, Double(nanoseconds($0)) / 1e9) }
    }

    private func nanoseconds(_ phase: Phase) -> UInt64 {
        switch phase {
        case .read: read.load(ordering: .relaxed)
        case .inflate: inflate.load(ordering: .relaxed)
        case .digest: digest.load(ordering: .relaxed)
        case .verity: verity.load(ordering: .relaxed)
        case .files: files.load(ordering: .relaxed)
        case .split: split.load(ordering: .relaxed)
        case .merge: merge.load(ordering: .relaxed)
        case .image: image.load(ordering: .relaxed)
        case .sync: sync.load(ordering: .relaxed)
        }
    }
}
