import ComposefsBytes
import ComposefsTestSupport
import Testing

@Suite struct LargeSorts {
    /// More than is sorted on the heap at a time, and less.
    @Test(arguments: [0, 1, 2, 1000, 131_072, 131_073, 500_000]) func equalsArray(count: Int) {
        var random = SplitMix(state: UInt64(count))
        let values = (0..<count).map { UInt64($0) << 32 | UInt64(random.below(1 << 32)) }.shuffled(using: &random)
        let order: (UInt64, UInt64) -> Bool = { (UInt32(truncatingIfNeeded: $0), $0) < (UInt32(truncatingIfNeeded: $1), $1) }
        for memory in [CountedMemory(), HeapMemory.shared] as [any LargeMemory] {
            var array = LargeArray<UInt64>(in: memory)
            values.withUnsafeBufferPointer { array.append(contentsOf: $0) }
            let copy = array
            array.sort(by: order)
            #expect(array.withElements(array.indices) { Array($0) } == values.sorted(by: order))
            let again = array.withElements(array.indices) { Array($0) }
            array.sort(by: order)
            #expect(array.withElements(array.indices) { Array($0) } == again)
            #expect(copy.withElements(copy.indices) { Array($0) } == values, "a copy stays as it was")
        }
    }

    @Test func range() {
        var random = SplitMix(state: 7)
        let values = (0..<400_000).map { UInt64($0) }.shuffled(using: &random)
        for memory in [CountedMemory(), HeapMemory.shared] as [any LargeMemory] {
            for range in [0..<0, 5..<6, 100..<300_001, 399_000..<400_000] {
                var array = LargeArray<UInt64>(in: memory)
                values.withUnsafeBufferPointer { array.append(contentsOf: $0) }
                array.sort(range, by: <)
                var expected = values
                expected[range].sort()
                #expect(array.withElements(array.indices) { Array($0) } == expected)
            }
        }
    }
}
