/// Choices that the fuzzer's bytes make. After their end every choice is 0, which is always the harmless one.
package struct Choices {
    private let data: UnsafeRawBufferPointer
    private var position = 0

    package init(_ start: UnsafePointer<UInt8>?, _ count: Int) { data = UnsafeRawBufferPointer(start: start, count: count) }

    package var isAtEnd: Bool { position >= data.count }

    package mutating func byte() -> UInt8 {
        guard position < data.count else { return 0 }
        defer { position += 1 }
        return data[position]
    }

    /// A number from 0 to `count` - 1.
    package mutating func below(_ count: Int) -> Int {
        if count <= 256 { return Int(byte()) % max(1, count) }
        return (Int(byte()) << 16 | Int(byte()) << 8 | Int(byte())) % count
    }

    /// True once in `count` for random bytes; false at the end.
    package mutating func rarely(_ count: Int) -> Bool { below(count) == count - 1 }

    package mutating func one<Element>(of elements: [Element]) -> Element { elements[below(elements.count)] }

    /// At most so many of the next bytes; their number is chosen, too.
    package mutating func bytes(upTo limit: Int) -> [UInt8] {
        let count = min(below(limit + 1), data.count - position)
        defer { position += count }
        return Array(data[position..<(position + count)])
    }

    /// All bytes that are left.
    package mutating func rest() -> [UInt8] {
        defer { position = data.count }
        return Array(data[position...])
    }

    package mutating func integer() -> UInt64 {
        switch below(4) {
        case 0: UInt64(byte())
        case 1: UInt64(byte()) << 8 | UInt64(byte())
        case 2: (0..<8).reduce(UInt64(0)) { value, _ in value << 8 | UInt64(byte()) }
        default: one(of: [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, 1 << 53, 1 << 62, 0x7fff_ffff_ffff_ffff, 1 << 63, .max])
        }
    }
}
