import ComposefsConcurrency
import ComposefsLinuxSystem

/// A block of a layer's uncompressed bytes, filled once and then shared by all that read from it. Its memory returns to the pool with the
/// last reference.
final class LayerBuffer: @unchecked Sendable {
    // Written by the thread that fills it, before any other sees it; only read from then on.
    let memory: UnsafeMutableRawBufferPointer
    var count = 0
    private let pool: LayerBufferPool

    fileprivate init(memory: UnsafeMutableRawBufferPointer, pool: LayerBufferPool) {
        self.memory = memory
        self.pool = pool
    }

    deinit { pool.giveBack(memory) }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }
}

/// As many buffers as one layer may hold at once: this, not the layer's size, bounds the memory of an import.
final class LayerBufferPool: Sendable {
    /// Memory of a buffer that is free again, or the permission to allocate some.
    private enum Ticket: @unchecked Sendable {
        case fresh
        case used(UnsafeMutableRawBufferPointer)
    }

    static let bufferSize = 256 * 1024
    /// A file that is not large spans at most three buffers, so eight always let the import go on.
    static let buffersPerLayer = 8

    private let tickets: BoundedQueue<Ticket>

    init() {
        tickets = BoundedQueue(capacity: Self.buffersPerLayer)
        for _ in 0..<Self.buffersPerLayer { _ = tickets.push(.fresh) }
    }

    deinit {
        tickets.close()
        while let ticket = tickets.pop() {
            if case .used(let memory) = ticket { memory.deallocate() }
        }
    }

    /// Waits for a free buffer; nil once cancelled.
    func take() -> LayerBuffer? {
        guard let ticket = tickets.pop() else { return nil }
        switch ticket {
        case .fresh: return LayerBuffer(memory: .allocate(byteCount: Self.bufferSize, alignment: 4096), pool: self)
        case .used(let memory): return LayerBuffer(memory: memory, pool: self)
        }
    }

    func cancel() { tickets.close() }

    fileprivate func giveBack(_ memory: UnsafeMutableRawBufferPointer) {
        if !tickets.push(.used(memory)) { memory.deallocate() }
    }
}

/// Part of a buffer.
struct Chunk: Sendable {
    let buffer: LayerBuffer
    let start: Int
    let count: Int

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer.memory[start..<(start + count)]) }
}
