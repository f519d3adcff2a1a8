import ComposefsBytes
package import ComposefsOCI

// Calculation only: every system call is made through LinuxSystem.
import func Glibc.exp

/// The state of a pull at a moment. A value: times are parameters, counted from the start of the pull.
package struct PullState: ProgressState, Equatable {
    package enum Stage: Equatable {
        case resolving(String)
        case pulling
        case merging, writingImage, publishing, done
    }

    package enum Status: Equatable {
        case queued
        case running
        case verified
        case stored
        case present
        case repeated(Int)
        case waiting
        /// The time of the next attempt.
        case retrying(String, until: Duration)
    }

    package struct Layer: Equatable {
        /// The blob's digest without its algorithm.
        package var name: String
        package var size: UInt64
        package var done: UInt64 = 0
        package var status = Status.queued

        package var isFinished: Bool {
            switch status {
            case .stored, .present, .repeated: true
            default: false
            }
        }
        package var isActive: Bool { !isFinished && status != .queued }
    }

    package var stage: Stage
    package var layers: [Layer] = []
    package var rate = RateMeter()

    package init(_ stage: Stage) { self.stage = stage }

    /// The bytes of all layers; a layer that was in the store counts as done.
    package var done: UInt64 { layers.map { min($0.done, $0.size) }.saturatingSum }
    package var total: UInt64 { layers.map(\.size).saturatingSum }

    package mutating func lines(width: Int, height: Int, time: Duration) -> [ProgressLine] {
        rate.sample(at: time)
        return ProgressRenderer.lines(self, width: width, height: height, time: time)
    }

    package mutating func apply(_ event: PullEvent, at time: Duration) {
        switch event.phase {
        case .resolving(let reference): stage = .resolving(reference)
        case .resolved(let found):
            stage = .pulling
            layers = found.layers.map { Layer(name: $0.digest.hex, size: $0.size) }
        case .merging: stage = .merging
        case .writingImage: stage = .writingImage
        case .publishing: stage = .publishing
        case .done: stage = .done
        case .tagMoved: break
        default: if let index = event.layerIndex, layers.indices.contains(index) { apply(event, toLayer: index, at: time) }
        }
    }

    private mutating func apply(_ event: PullEvent, toLayer index: Int, at time: Duration) {
        let before = layers[index].done
        layers[index].done = event.bytesDone
        switch event.phase {
        case .queued: layers[index].status = .queued
        case .started, .resumed: layers[index].status = .running
        case .bytes:
            layers[index].status = .running
            if event.bytesDone > before { rate.add(event.bytesDone - before) }
        case .verified: layers[index].status = .verified
        case .stored: layers[index].status = .stored
        case .skipped(.present): layers[index].status = .present
        case .skipped(.repeated(let first)): layers[index].status = .repeated(first)
        case .waiting: layers[index].status = .waiting
        case .retrying(let reason, let delay): layers[index].status = .retrying(reason, until: time + delay)
        default: break
        }
    }

    /// Seconds that the rest takes at the current rate; nil if that is unknown.
    package var secondsLeft: Double? {
        guard let rate = rate.bytesPerSecond, rate >= 1, total > done else { return nil }
        return Double(total - done) / rate
    }
}

/// Bytes per second, smoothed: older samples count less and less.
package struct RateMeter: Sendable, Equatable {
    /// The time after which a sample counts a third of a new one.
    private static let memory = 4.0
    private var pending: UInt64 = 0
    private var last: Duration?
    private var average = 0.0
    private var weight = 0.0
    private var seconds = 0.0

    /// Adds the bytes since the last sample.
    package mutating func add(_ count: UInt64) { pending &+= count }

    /// Takes a sample; called about ten times a second.
    package mutating func sample(at time: Duration) {
        guard let last else {
            self.last = time
            pending = 0
            return
        }
        let passed = (time - last) / .seconds(1)
        guard passed > 0.01 else { return }
        let kept = exp(-passed / Self.memory)
        average = average * kept + Double(pending) / passed * (1 - kept)
        // The start does not count as a time without bytes.
        weight = weight * kept + (1 - kept)
        seconds += passed
        pending = 0
        self.last = time
    }

    /// Nil before the first sample.
    package var bytesPerSecond: Double? { seconds >= 0.3 && weight > 0 ? average / weight : nil }
}
