import ComposefsBytes
import ComposefsTestSupport
import Testing

@Suite struct DistinctStrings {
    @Test(arguments: 0..<4) func equalsDictionary(seed: UInt64) {
        var random = SplitMix(state: seed)
        let memory: any LargeMemory = seed % 2 == 0 ? CountedMemory() : HeapMemory.shared
        var table = DistinctBytes(in: memory)
        var numbers: [[UInt8]: Int] = [:]
        var strings: [[UInt8]] = []
        var copy: DistinctBytes?
        for round in 0..<20_000 {
            let length = random.oneIn(50) ? random.below(9000) : random.below(4)
            let string = (0..<length).map { _ in UInt8(random.below(random.oneIn(3) ? 256 : 3)) }
            #expect(string.withUnsafeBytes { table.number(of: $0) } == numbers[string])
            let number = string.withUnsafeBytes { table.insert($0) }
            if numbers[string] == nil {
                numbers[string] = strings.count
                strings.append(string)
            }
            #expect(number == numbers[string] && table.count == strings.count)
            if round == 3000 { copy = table }
        }
        #expect(table.byteCount == strings.reduce(0) { $0 + $1.count })
        for (number, string) in strings.enumerated() {
            #expect(table.byteCount(of: number) == string.count && table.withBytes(of: number) { Array($0) } == string)
        }
        let old = copy.map { copy in (0..<copy.count).map { copy.withBytes(of: $0) { Array($0) } } }
        #expect(old.map { $0 == Array(strings.prefix($0.count)) && $0.count < strings.count } == true)
    }
}
