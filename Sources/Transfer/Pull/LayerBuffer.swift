import ComposefsConcurrency
import ComposefsLinuxSystem

/// A buffer with uncompressed bytes of a layer. It is filled once and then shared by all readers. Its memory returns to the pool when the
/// last reference is released.
final class LayerBuffer: @unchecked Sendable {
    // The reader thread fills it before it passes the buffer on. Afterwards it is only read.
    let memory: UnsafeMutableRawBufferPointer
    /// The number of bytes that are filled.
    var count = 0
    private let pool: LayerBufferPool

    fileprivate init(memory: UnsafeMutableRawBufferPointer, pool: LayerBufferPool) {
        self.memory = memory
        self.pool = pool
    }

    deinit { pool.giveBack(memory) }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<count]) }
}

/// The buffers of one layer. Their number limits the memory of an import, whatever the layer's size.
final class LayerBufferPool: Sendable {
    /// The memory of a free buffer, or the permission to allocate one.
    private enum Ticket: @unchecked Sendable {
        case fresh
        case used(UnsafeMutableRawBufferPointer)
    }

    /// In bytes.
    static let bufferSize = 256 * 1024
    /// A file that is not large spans at most three buffers, so with eight the import can always continue.
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

    /// Waits for a free buffer; nil after `cancel`.
    func take() -> LayerBuffer? {
        guard let ticket = tickets.pop() else { return nil }
        switch ticket {
        case .fresh: return LayerBuffer(memory: .allocate(byteCount: Self.bufferSize, alignment: 4096), pool: self)
        case .used(let memory): return LayerBuffer(memory: memory, pool: self)
        }
    }

    /// Wakes waiting threads; no further buffer is returned.
    func cancel() { tickets.close() }

    fileprivate func giveBack(_ memory: UnsafeMutableRawBufferPointer) {
        if !tickets.push(.used(memory)) { memory.deallocate() }
    }
}

/// A contiguous part of a buffer that belongs to one file.
struct Chunk: Sendable {
    let buffer: LayerBuffer
    let start: Int
    let count: Int

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer.memory[start..<(start + count)]) }
}
