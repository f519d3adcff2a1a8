/// An open-addressing hash table of 32-bit numbers. The keys are elsewhere: the caller compares them.
public struct LargeTable: Sendable {
    /// The upper half is the hash, the lower one the number.
    private var slots: LargeArray<UInt64>
    private var used = 0
    private static let empty = UInt64.max
    private static let removed = UInt64.max - 1

    public init(in memory: any LargeMemory = HeapMemory.shared) { slots = LargeArray(in: memory, isScattered: true) }

    /// - Parameter matches: whether a number that has the hash is the wanted one.
    public func find(hash: UInt32, where matches: (UInt32) -> Bool) -> UInt32? {
        guard !slots.isEmpty else { return nil }
        let mask = slots.count - 1
        var at = Int(hash) & mask
        while true {
            let slot = slots[at]
            if slot == Self.empty { return nil }
            if slot != Self.removed, UInt32(truncatingIfNeeded: slot >> 32) == hash, matches(UInt32(truncatingIfNeeded: slot)) {
                return UInt32(truncatingIfNeeded: slot)
            }
            at = (at + 1) & mask
        }
    }

    /// Adds a number that is not in the table, less than `UInt32.max - 1`.
    public mutating func insert(_ number: UInt32, hash: UInt32) {
        if (used + 1) * 4 > slots.count * 3 { grow() }
        Self.insert(UInt64(hash) << 32 | UInt64(number), into: &slots)
        used += 1
    }

    public mutating func remove(_ number: UInt32, hash: UInt32) {
        guard !slots.isEmpty else { return }
        let mask = slots.count - 1
        let wanted = UInt64(hash) << 32 | UInt64(number)
        var at = Int(hash) & mask
        while true {
            let slot = slots[at]
            if slot == Self.empty { return }
            if slot == wanted {
                slots[at] = Self.removed
                return
            }
            at = (at + 1) & mask
        }
    }

    private static func insert(_ slot: UInt64, into slots: inout LargeArray<UInt64>) {
        let mask = slots.count - 1
        var at = Int(slot >> 32) & mask
        while slots[at] != empty { at = (at + 1) & mask }
        slots[at] = slot
    }

    private mutating func grow() {
        var live = 0
        for index in slots.indices where slots[index] < Self.removed { live += 1 }
        var capacity = 64
        while capacity * 3 < (live + 1) * 5 { capacity *= 2 }
        var new = LargeArray<UInt64>(repeating: Self.empty, count: capacity, in: slots.memory, isScattered: true)
        for index in slots.indices where slots[index] < Self.removed { Self.insert(slots[index], into: &new) }
        slots = new
        used = live
    }
}
