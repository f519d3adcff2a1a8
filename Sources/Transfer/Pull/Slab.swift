import ComposefsConcurrency
import ComposefsLinuxSystem

/// A block of a layer's uncompressed bytes, filled once and then shared by all who read from it. Its memory returns to the pool when the
/// last of them lets go.
final class Slab: @unchecked Sendable {
    // Written by the thread that fills it, before any other sees it; only read from then on.
    let memory: UnsafeMutableRawBufferPointer
    var count = 0
    private let pool: SlabPool

    fileprivate init(memory: UnsafeMutableRawBufferPointer, pool: SlabPool) {
        self.memory = memory
        self.pool = pool
    }

    deinit { pool.giveBack(memory) }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }
}

/// As many slabs as one layer may hold at once: this, not the layer's size, bounds the memory of an import.
final class SlabPool: Sendable {
    /// Memory that a slab has given back, or leave to allocate some.
    private enum Ticket: @unchecked Sendable {
        case fresh
        case used(UnsafeMutableRawBufferPointer)
    }

    static let slabSize = 256 * 1024
    /// A file that is not large spans at most three slabs, so eight always let the import go on.
    static let slabsPerLayer = 8

    private let tickets: BoundedQueue<Ticket>

    init() {
        tickets = BoundedQueue(capacity: Self.slabsPerLayer)
        for _ in 0..<Self.slabsPerLayer { _ = tickets.push(.fresh) }
    }

    deinit {
        tickets.close()
        while let ticket = tickets.pop() {
            if case .used(let memory) = ticket { memory.deallocate() }
        }
    }

    /// Waits for a free slab; nil once cancelled.
    func take() -> Slab? {
        guard let ticket = tickets.pop() else { return nil }
        switch ticket {
        case .fresh: return Slab(memory: .allocate(byteCount: Self.slabSize, alignment: 4096), pool: self)
        case .used(let memory): return Slab(memory: memory, pool: self)
        }
    }

    func cancel() { tickets.close() }

    fileprivate func giveBack(_ memory: UnsafeMutableRawBufferPointer) {
        if !tickets.push(.used(memory)) { memory.deallocate() }
    }
}

/// Part of a slab.
struct Piece: Sendable {
    let slab: Slab
    let start: Int
    let count: Int

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: slab.memory[start..<(start + count)]) }
}
