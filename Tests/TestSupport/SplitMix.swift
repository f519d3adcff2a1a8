/// SplitMix64: a seed gives the same numbers everywhere, so that random inputs can be pinned after a comparison with other tools.
public struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    public init(state: UInt64) { self.state = state }

    public mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    /// 0..<count.
    public mutating func below(_ count: Int) -> Int { Int(next() % UInt64(count)) }
    public mutating func oneIn(_ count: Int) -> Bool { below(count) == 0 }
    public mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }
}
