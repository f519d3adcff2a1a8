/// An array of plain values for trees of any size: it grows without a copy, and its memory need not be on the heap.
///
/// Copies share the memory until one of them is changed, as those of `Array`.
public struct LargeArray<Element: BitwiseCopyable & Sendable>: @unchecked Sendable {
    @usableFromInline var owner: LargeOwner
    /// Where `owner` has its memory, to save a look-up.
    @usableFromInline var base: UnsafeMutablePointer<Element>
    /// Those of `owner`, if it is counted which parts are used.
    @usableFromInline var windows: Unmanaged<LargeWindows>?
    @usableFromInline var storedCount = 0
    @usableFromInline var capacity = 0

    @inlinable public var count: Int { storedCount }

    /// - Parameters:
    ///   - memory: where the elements are.
    ///   - isScattered: whether elements are used in no order.
    public init(in memory: any LargeMemory = HeapMemory.shared, isScattered: Bool = false) {
        owner = LargeOwner(memory, isScattered: isScattered)
        // Not used before there is a capacity.
        guard let nowhere = UnsafeMutablePointer<Element>(bitPattern: MemoryLayout<Element>.alignment) else {
            preconditionFailure("an alignment is not 0")
        }
        base = nowhere
    }

    public init(repeating element: Element, count: Int, in memory: any LargeMemory = HeapMemory.shared, isScattered: Bool = false) {
        self.init(in: memory, isScattered: isScattered)
        append(repeating: element, count: count)
    }

    /// Whether some elements may not be in main memory.
    public var isOutsideOfHeap: Bool { windows != nil }

    /// Where the elements are.
    public var memory: any LargeMemory { owner.memory }

    @inlinable public var isEmpty: Bool { count == 0 }
    @inlinable public var indices: Range<Int> { 0..<count }
    @inlinable public var last: Element? { count == 0 ? nil : self[count - 1] }

    @inlinable
    public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "an index outside of an array")
            windows?._withUnsafeGuaranteedRef { $0.use(UnsafeRawPointer(base + index)) }
            return withExtendedLifetime(owner) { base[index] }
        }
        _modify {
            precondition(index >= 0 && index < count, "an index outside of an array")
            if !isKnownUniquelyReferenced(&owner) { copy() }
            windows?._withUnsafeGuaranteedRef { $0.use(UnsafeRawPointer(base + index)) }
            defer { withExtendedLifetime(owner) {} }
            yield &base[index]
        }
    }

    @inlinable
    public mutating func append(_ element: Element) {
        makeRoom(for: 1)
        windows?._withUnsafeGuaranteedRef { $0.use(UnsafeRawPointer(base + count)) }
        withExtendedLifetime(owner) { base[count] = element }
        storedCount += 1
    }

    public mutating func append(repeating element: Element, count added: Int) {
        guard added > 0 else { return }
        makeRoom(for: added)
        // In pieces, so that a region that is counted is never in memory as a whole.
        var done = 0
        while done < added {
            let part = min(added - done, LargeWindows.size)
            countUse(count + done, part)
            (base + count + done).update(repeating: element, count: part)
            done += part
        }
        withExtendedLifetime(owner) {}
        storedCount += added
    }

    public mutating func append(contentsOf elements: UnsafeBufferPointer<Element>) {
        guard let start = elements.baseAddress, !elements.isEmpty else { return }
        makeRoom(for: elements.count)
        countUse(count, elements.count)
        withExtendedLifetime(owner) { (base + count).update(from: start, count: elements.count) }
        storedCount += elements.count
    }

    /// Removes the elements from an index on.
    public mutating func removeAll(from index: Int = 0) {
        precondition(index >= 0 && index <= count, "an index outside of an array")
        storedCount = index
    }

    /// Removes all elements, and gives their memory back.
    public mutating func reset() { self = LargeArray(in: owner.memory, isScattered: owner.isScattered) }

    /// Passes a range to `body`. The elements are valid only during the call.
    @inlinable
    public func withElements<Result, Failure: Error>(
        _ range: Range<Int>, _ body: (UnsafeBufferPointer<Element>) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "a range outside of an array")
        countUse(range.lowerBound, range.count)
        defer { withExtendedLifetime(owner) {} }
        return try body(UnsafeBufferPointer(start: base + range.lowerBound, count: range.count))
    }

    /// Passes all elements to `body`, for an array on the heap. They are valid only during the call.
    @inlinable
    public mutating func withMutableElements<Result>(_ body: (inout UnsafeMutableBufferPointer<Element>) -> Result) -> Result {
        precondition(windows == nil, "not all elements of a large array are in memory")
        if !isKnownUniquelyReferenced(&owner) { copy() }
        defer { withExtendedLifetime(owner) {} }
        var elements = UnsafeMutableBufferPointer(start: base, count: count)
        return body(&elements)
    }

    // MARK: Memory

    /// In bytes.
    private static var largeSize: Int { 1 << 20 }

    @inlinable
    mutating func makeRoom(for added: Int) {
        if !isKnownUniquelyReferenced(&owner) { copy() }
        if storedCount + added > capacity { grow(storedCount + added) }
    }

    @inlinable
    func countUse(_ index: Int, _ count: Int) {
        guard let windows, count > 0 else { return }
        windows._withUnsafeGuaranteedRef {
            $0.use(UnsafeRawPointer(base + index), byteCount: count * MemoryLayout<Element>.stride)
        }
    }

    @usableFromInline
    @inline(never)
    mutating func grow(_ needed: Int) {
        let stride = MemoryLayout<Element>.stride
        // Large regions grow without a copy.
        let step = capacity * stride < Self.largeSize ? capacity : capacity / 8
        owner.grow(to: max(needed, capacity + step, 16) * stride)
        take()
    }

    @usableFromInline
    @inline(never)
    mutating func copy() {
        let new = LargeOwner(owner.memory, isScattered: owner.isScattered)
        let (old, from) = (owner, base)
        if capacity > 0 {
            new.grow(to: capacity * MemoryLayout<Element>.stride)
            let part = LargeWindows.size
            for start in stride(from: 0, to: count, by: part) { copyPart(start..<min(start + part, count), from, new) }
        }
        withExtendedLifetime(old) { owner = new }
        take()
    }

    private func copyPart(_ range: Range<Int>, _ from: UnsafeMutablePointer<Element>, _ new: LargeOwner) {
        guard let region = new.region else { preconditionFailure("a region was made") }
        countUse(range.lowerBound, range.count)
        let to = region.base.assumingMemoryBound(to: Element.self)
        region.windows?.use(UnsafeRawPointer(to + range.lowerBound), byteCount: range.count * MemoryLayout<Element>.stride)
        (to + range.lowerBound).update(from: from + range.lowerBound, count: range.count)
    }

    private mutating func take() {
        guard let region = owner.region else { return }
        base = region.base.assumingMemoryBound(to: Element.self)
        capacity = region.byteCount / MemoryLayout<Element>.stride
        windows = region.windows.map { Unmanaged.passUnretained($0) }
    }
}

/// The memory of one or more equal `LargeArray`s.
@usableFromInline
final class LargeOwner: @unchecked Sendable {
    let memory: any LargeMemory
    let isScattered: Bool
    /// Changed by its only user.
    private(set) var region: LargeRegion?

    init(_ memory: any LargeMemory, isScattered: Bool) {
        self.memory = memory
        self.isScattered = isScattered
    }

    deinit {
        if let region { memory.release(region) }
    }

    func grow(to byteCount: Int) {
        if let region {
            self.region = memory.grow(region, to: byteCount, isScattered: isScattered)
        } else {
            region = memory.allocate(byteCount: byteCount, isScattered: isScattered)
        }
    }
}
