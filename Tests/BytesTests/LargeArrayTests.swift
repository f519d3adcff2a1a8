import ComposefsBytes
import ComposefsTestSupport
import Testing

@Suite struct LargeArrays {
    /// Random changes of an array and of its copies, compared with those of `Array`.
    @Test(arguments: 0..<8) func equalsArray(seed: UInt64) {
        var random = SplitMix(state: seed)
        let memory: any LargeMemory = seed % 2 == 0 ? CountedMemory() : HeapMemory.shared
        var array = LargeArray<UInt32>(in: memory)
        var model: [UInt32] = []
        var copies: [(LargeArray<UInt32>, [UInt32])] = []
        for _ in 0..<4000 {
            switch random.below(9) {
            case 0...2:
                let value = UInt32(truncatingIfNeeded: random.next())
                array.append(value)
                model.append(value)
            case 3:
                let more = (0..<random.below(500)).map { _ in UInt32(truncatingIfNeeded: random.next()) }
                more.withUnsafeBufferPointer { array.append(contentsOf: $0) }
                model += more
            case 4:
                let count = random.below(300)
                array.append(repeating: 7, count: count)
                model += Array(repeating: 7, count: count)
            case 5 where !model.isEmpty:
                let index = random.below(model.count)
                array[index] &+= 1
                model[index] &+= 1
            case 6 where random.oneIn(20):
                let index = random.below(model.count + 1)
                array.removeAll(from: index)
                model.removeLast(model.count - index)
            case 7 where random.oneIn(20): copies.append((array, model))
            case 8 where random.oneIn(300):
                array.reset()
                model = []
            default: break
            }
        }
        copies.append((array, model))
        for (array, model) in copies {
            #expect(array.count == model.count && array.last == model.last)
            #expect(array.indices.allSatisfy { array[$0] == model[$0] })
            let middle = model.count / 3..<model.count
            let found = array.withElements(middle) { Array($0) }
            #expect(found == Array(model[middle]))
        }
    }

    /// A window counts once in each round.
    @Test func windows() {
        let memory = CountedMemory(windows: 8)
        let perWindow = LargeWindows.size / 8
        var array = LargeArray<UInt64>(repeating: 1, count: 64 * perWindow, in: memory)
        let filled = memory.evictions
        #expect((7...9).contains(filled))
        for _ in 0..<100_000 { array[5] &+= array[9] }
        #expect(memory.evictions == filled)
        for window in 0..<64 { #expect(array[window * perWindow + 100] == 1) }
        #expect((filled + 7...filled + 9).contains(memory.evictions))
        let before = memory.evictions
        let sum = array.withElements(0..<(64 * perWindow)) { $0.reduce(0, &+) }
        #expect(sum == UInt64(64 * perWindow) + 100_000)
        #expect((before + 7...before + 9).contains(memory.evictions))
        #expect(array.isOutsideOfHeap && !LargeArray<UInt8>(repeating: 1, count: 4).isOutsideOfHeap)
    }

    @Test func table() {
        for memory in [CountedMemory(), HeapMemory.shared] as [any LargeMemory] {
            var table = LargeTable(in: memory)
            // Many keys have the same hash.
            func hash(_ number: UInt32) -> UInt32 { number % 1000 }
            for number in 0..<UInt32(5000) { table.insert(number, hash: hash(number)) }
            for number in stride(from: UInt32(0), to: 5000, by: 3) { table.remove(number, hash: hash(number)) }
            table.remove(0, hash: hash(0))
            for number in UInt32(5000)..<9000 { table.insert(number, hash: hash(number)) }
            for number in 0..<UInt32(9500) {
                let found = table.find(hash: hash(number)) { $0 == number }
                #expect(found == (number < 5000 && number % 3 == 0 || number >= 9000 ? nil : number))
            }
        }
    }
}
