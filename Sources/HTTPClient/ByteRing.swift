/// A ring buffer of fixed size. Its memory is allocated at the first write: responses without a body need none.
struct ByteRing: ~Copyable {
    let capacity: Int
    private var storage: UnsafeMutableRawBufferPointer?
    private var start = 0
    private(set) var count = 0

    init(capacity: Int) { self.capacity = capacity }

    deinit { storage?.deallocate() }

    var free: Int { capacity - count }

    /// Appends all of `bytes`; appends nothing and returns false if they do not fit.
    mutating func write(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count <= free else { return false }
        let storage = self.storage ?? .allocate(byteCount: capacity, alignment: 64)
        self.storage = storage
        let position = (start + count) % capacity
        let first = min(bytes.count, capacity - position)
        UnsafeMutableRawBufferPointer(rebasing: storage[position..<position + first]).copyMemory(from: .init(rebasing: bytes[..<first]))
        if first < bytes.count {
            UnsafeMutableRawBufferPointer(rebasing: storage[..<(bytes.count - first)]).copyMemory(from: .init(rebasing: bytes[first...]))
        }
        count += bytes.count
        return true
    }

    /// Moves the oldest bytes to `buffer`; returns how many.
    mutating func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
        guard let storage, count > 0 else { return 0 }
        let taken = min(count, buffer.count)
        let first = min(taken, capacity - start)
        buffer.copyMemory(from: .init(rebasing: storage[start..<start + first]))
        if first < taken {
            UnsafeMutableRawBufferPointer(rebasing: buffer[first...]).copyMemory(from: .init(rebasing: storage[..<(taken - first)]))
        }
        count -= taken
        start = count == 0 ? 0 : (start + taken) % capacity
        return taken
    }
}
