public import ComposefsBytes
import Glibc
import Synchronization

/// Memory as that of very large trees: every region is counted, and moves when it grows.
public final class CountedMemory: LargeMemory {
    private let counter: Counter
    private let limit: WindowLimit

    public init(windows: Int = 4) {
        let counter = Counter()
        self.counter = counter
        limit = WindowLimit(byteCount: windows * LargeWindows.size) { counter.count.add(1, ordering: .relaxed) }
    }

    private final class Counter: Sendable {
        let count = Atomic<Int>(0)
    }

    /// How often the limit was reached.
    public var evictions: Int { counter.count.load(ordering: .relaxed) }

    public func allocate(byteCount: Int, isScattered: Bool) -> LargeRegion {
        let region = HeapMemory.shared.allocate(byteCount: byteCount, isScattered: isScattered)
        let windows = LargeWindows(base: region.base, byteCount: byteCount, limit)
        return LargeRegion(base: region.base, byteCount: byteCount, windows: windows)
    }

    public func grow(_ region: LargeRegion, to byteCount: Int, isScattered: Bool) -> LargeRegion {
        let new = allocate(byteCount: byteCount, isScattered: isScattered)
        new.base.copyMemory(from: region.base, byteCount: region.byteCount)
        release(region)
        return new
    }

    public func release(_ region: LargeRegion) {
        // A use of it afterwards shows.
        memset(region.base, 0xee, region.byteCount)
        HeapMemory.shared.release(region)
    }
}
