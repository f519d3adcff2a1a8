/// Distinct strings of bytes, numbered in the order in which they were added.
public struct DistinctBytes: Sendable {
    private var bytes: LargeArray<UInt8>
    /// The end of each string in `bytes`.
    private var ends: LargeArray<Int>
    private var table: LargeTable

    public init(in memory: any LargeMemory = HeapMemory.shared) {
        bytes = LargeArray(in: memory)
        ends = LargeArray(in: memory)
        table = LargeTable(in: memory)
    }

    /// Whether some strings may not be in main memory.
    public var isOutsideOfHeap: Bool { bytes.isOutsideOfHeap }

    /// The number of strings.
    public var count: Int { ends.count }

    /// The length of all strings, in bytes.
    public var byteCount: Int { bytes.count }

    /// The number of a string, which is added if it is new.
    public mutating func insert(_ string: UnsafeRawBufferPointer) -> Int {
        let hash = Self.hash(string)
        if let known = find(string, hash) { return known }
        let number = ends.count
        precondition(number < Int(UInt32.max) - 1, "more strings than a table has numbers")
        string.withMemoryRebound(to: UInt8.self) { bytes.append(contentsOf: $0) }
        ends.append(bytes.count)
        table.insert(UInt32(number), hash: hash)
        return number
    }

    public func number(of string: UnsafeRawBufferPointer) -> Int? { find(string, Self.hash(string)) }

    /// The length of a string, in bytes.
    public func byteCount(of number: Int) -> Int { range(number).count }

    /// Passes a string to `body`. The bytes are valid only during the call.
    public func withBytes<Result, Failure: Error>(
        of number: Int, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try bytes.withElements(range(number)) { (part) throws(Failure) in try body(UnsafeRawBufferPointer(part)) }
    }

    private func range(_ number: Int) -> Range<Int> { (number == 0 ? 0 : ends[number - 1])..<ends[number] }

    private func find(_ string: UnsafeRawBufferPointer, _ hash: UInt32) -> Int? {
        table.find(hash: hash) { candidate in
            byteCount(of: Int(candidate)) == string.count && withBytes(of: Int(candidate)) { compareBytes($0, string) == 0 }
        }.map(Int.init)
    }

    /// Seeded per process, so that strings cannot be chosen to collide.
    private static func hash(_ string: UnsafeRawBufferPointer) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(bytes: string)
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }
}
