internal import Glibc
internal import Synchronization

/// Memory of large arrays: the heap, or something that takes a part of it out of main memory.
public protocol LargeMemory: AnyObject, Sendable {
    /// Memory that is not initialized.
    ///
    /// - Parameters:
    ///   - byteCount: not 0.
    ///   - isScattered: whether it is used in no order, which is slow for memory outside of the heap.
    func allocate(byteCount: Int, isScattered: Bool) -> LargeRegion
    /// A larger region with the same bytes at its start. The given one must not be used any more.
    func grow(_ region: LargeRegion, to byteCount: Int, isScattered: Bool) -> LargeRegion
    /// Gives a region back, which must not be used any more.
    func release(_ region: LargeRegion)
}

/// A range of memory. Its user owns it.
public struct LargeRegion: @unchecked Sendable {
    public var base: UnsafeMutableRawPointer
    public var byteCount: Int
    /// Nil if it is not counted which parts are used.
    public var windows: LargeWindows?

    public init(base: UnsafeMutableRawPointer, byteCount: Int, windows: LargeWindows? = nil) {
        self.base = base
        self.byteCount = byteCount
        self.windows = windows
    }
}

/// Counts the windows of a region that are used, which the kernel maps at once (`fault_around_bytes`).
public final class LargeWindows: @unchecked Sendable {
    /// The round in which each window was used last.
    private let rounds: UnsafeMutablePointer<Atomic<UInt32>>
    private let count: Int
    private let base: UInt
    private let limit: WindowLimit

    private static let bits: UInt = 16
    public static let size = 1 << Int(bits)

    public init(base: UnsafeMutableRawPointer, byteCount: Int, _ limit: WindowLimit) {
        self.base = UInt(bitPattern: base) >> Self.bits
        self.limit = limit
        count = Int((UInt(bitPattern: base) + UInt(byteCount) - 1) >> Self.bits - self.base) + 1
        rounds = .allocate(capacity: count)
        for index in 0..<count { (rounds + index).initialize(to: Atomic(0)) }
    }

    deinit {
        rounds.deinitialize(count: count)
        rounds.deallocate()
    }

    @usableFromInline
    func use(_ address: UnsafeRawPointer) { use(UInt(bitPattern: address) >> Self.bits) }

    /// - Parameter byteCount: not 0.
    public func use(_ address: UnsafeRawPointer, byteCount: Int) {
        let first = UInt(bitPattern: address)
        for window in (first >> Self.bits)...((first + UInt(byteCount) - 1) >> Self.bits) { use(window) }
    }

    private func use(_ window: UInt) {
        let round = limit.round.load(ordering: .relaxed)
        let index = Int(window - base)
        guard rounds[index].load(ordering: .relaxed) != round else { return }
        rounds[index].store(round, ordering: .relaxed)
        limit.count()
    }
}

/// How many windows of all regions of a memory may be in use. Then the next round begins.
public final class WindowLimit: Sendable {
    fileprivate let round = Atomic<UInt32>(1)
    private let used = Atomic<Int>(0)
    private let limit: Int
    private let reached: @Sendable () -> Void

    /// - Parameters:
    ///   - byteCount: of the windows that may be in use.
    ///   - reached: called when more are.
    public init(byteCount: Int, _ reached: @escaping @Sendable () -> Void) {
        limit = byteCount / LargeWindows.size
        self.reached = reached
    }

    fileprivate func count() {
        guard used.add(1, ordering: .relaxed).newValue >= limit else { return }
        used.store(0, ordering: .relaxed)
        round.add(1, ordering: .relaxed)
        reached()
    }
}

/// The heap. Large regions grow without a copy, since the C library moves their pages.
public final class HeapMemory: LargeMemory {
    public static let shared = HeapMemory()

    public init() {}

    public func allocate(byteCount: Int, isScattered: Bool) -> LargeRegion {
        guard let base = malloc(byteCount) else { preconditionFailure("no memory for \(byteCount) bytes") }
        return LargeRegion(base: base, byteCount: byteCount)
    }

    public func grow(_ region: LargeRegion, to byteCount: Int, isScattered: Bool) -> LargeRegion {
        guard let base = realloc(region.base, byteCount) else { preconditionFailure("no memory for \(byteCount) bytes") }
        return LargeRegion(base: base, byteCount: byteCount)
    }

    public func release(_ region: LargeRegion) { free(region.base) }
}
