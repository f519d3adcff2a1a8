package import ComposefsBytes
internal import Synchronization

/// Memory for trees, tables and plans of any size: what exceeds a limit is in files without a name, of which only the parts that were used last are
/// in the process's memory. The kernel can take all of it out of main memory when other programs need that.
///
/// If a file cannot be made or extended, the heap is used: on a full disk, or a file system without fallocate(2). A read error of
/// the disk ends the process (SIGBUS), as one of a swap device does.
package final class SpilledMemory: LargeMemory {
    private struct State: Sendable {
        /// Bytes on the heap.
        var onHeap = 0
        /// By the address where they begin.
        var mappings: [UInt: FileMapping] = [:]
        var cannotMap = false
    }

    private final class Shared: Sendable {
        private let state = Mutex(State())

        func withLock<Value: Sendable>(_ body: (inout State) -> Value) -> Value { state.withLock { body(&$0) } }
    }

    private let state: Shared
    private let limit: WindowLimit
    private let makeFile: @Sendable () throws -> FileDescriptor

    /// What may be on the heap, in bytes, before anything is in files.
    private static let heapLimit = 20 << 20
    /// The same of what is used in no order.
    private static let scatteredLimit = 28 << 20
    /// Smaller regions stay on the heap.
    private static let smallestFile = 1 << 20
    /// What may be used of files, in bytes, before all of it is taken out of memory again.
    private static let mappedLimit = 16 << 20

    /// - Parameter makeFile: makes an empty file without a name, open for reading and writing.
    package init(_ makeFile: @escaping @Sendable () throws -> FileDescriptor) {
        let state = Shared()
        self.state = state
        limit = WindowLimit(byteCount: Self.mappedLimit) { state.withLock { for mapping in $0.mappings.values { mapping.evict() } } }
        self.makeFile = makeFile
    }

    package func allocate(byteCount: Int, isScattered: Bool) -> LargeRegion {
        state.withLock { state in
            if let mapping = map(byteCount, isScattered, &state) { return region(of: mapping, &state) }
            state.onHeap += byteCount
            return HeapMemory.shared.allocate(byteCount: byteCount, isScattered: isScattered)
        }
    }

    package func grow(_ region: LargeRegion, to byteCount: Int, isScattered: Bool) -> LargeRegion {
        state.withLock { state in
            guard region.windows != nil else { return growOnHeap(region, to: byteCount, isScattered, &state) }
            guard let mapping = state.mappings.removeValue(forKey: UInt(bitPattern: region.base)) else {
                preconditionFailure("memory that is not mapped")
            }
            do {
                try mapping.grow(to: byteCount)
                return self.region(of: mapping, &state)
            } catch {
                state.cannotMap = true
                state.onHeap += byteCount
                let new = HeapMemory.shared.allocate(byteCount: byteCount, isScattered: isScattered)
                new.base.copyMemory(from: mapping.base, byteCount: mapping.byteCount)
                return new
            }
        }
    }

    private func growOnHeap(_ region: LargeRegion, to byteCount: Int, _ isScattered: Bool, _ state: inout State) -> LargeRegion {
        state.onHeap -= region.byteCount
        guard let mapping = map(byteCount, isScattered, &state) else {
            state.onHeap += byteCount
            return HeapMemory.shared.grow(region, to: byteCount, isScattered: isScattered)
        }
        mapping.base.copyMemory(from: region.base, byteCount: region.byteCount)
        HeapMemory.shared.release(region)
        mapping.evict()
        return self.region(of: mapping, &state)
    }

    package func release(_ region: LargeRegion) {
        state.withLock { state in
            if region.windows != nil {
                state.mappings[UInt(bitPattern: region.base)] = nil
            } else {
                state.onHeap -= region.byteCount
                HeapMemory.shared.release(region)
            }
        }
    }

    /// A new mapping, if a region of this size is not to be on the heap.
    private func map(_ byteCount: Int, _ isScattered: Bool, _ state: inout State) -> FileMapping? {
        let limit = isScattered ? Self.scatteredLimit : Self.heapLimit
        guard byteCount >= Self.smallestFile, state.onHeap + byteCount > limit, !state.cannotMap else { return nil }
        do {
            return try FileMapping(try makeFile(), byteCount: byteCount)
        } catch {
            state.cannotMap = true
            return nil
        }
    }

    private func region(of mapping: FileMapping, _ state: inout State) -> LargeRegion {
        state.mappings[UInt(bitPattern: mapping.base)] = mapping
        let windows = LargeWindows(base: mapping.base, byteCount: mapping.byteCount, limit)
        return LargeRegion(base: mapping.base, byteCount: mapping.byteCount, windows: windows)
    }
}
