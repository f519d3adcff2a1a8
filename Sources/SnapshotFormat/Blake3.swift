internal import ComposefsBytes

/// A BLAKE3 digest of 32 bytes (The BLAKE3 specification, <https://github.com/BLAKE3-team/BLAKE3-specs>).
public struct Blake3Digest: Hashable, Sendable, CustomStringConvertible {
    /// The bytes, as little-endian words.
    let words: SIMD8<UInt32>

    init(words: SIMD8<UInt32>) { self.words = words }

    /// Nil unless `hex` is 64 lower-case hex digits.
    public init?(hex: some Collection<UInt8>) {
        guard hex.count == 64, let bytes = Hex.decode(hex) else { return nil }
        var words = SIMD8<UInt32>()
        for index in 0..<32 { words[index / 4] |= UInt32(bytes[index]) << (8 * UInt32(index % 4)) }
        self.words = words
    }

    /// The 32 bytes.
    public var bytes: [UInt8] { (0..<32).map { UInt8(truncatingIfNeeded: words[$0 / 4] >> (8 * UInt32($0 % 4))) } }

    /// 64 lower-case hex digits.
    public var description: String { Hex.encode(bytes) }

    /// The digest of content that is in memory.
    public static func of(_ content: UnsafeRawBufferPointer) -> Blake3Digest { Blake3Digest(words: Blake3.digest(content)) }
}

/// The functions of BLAKE3, without key and with an output of 32 bytes.
enum Blake3 {
    typealias Words = SIMD8<UInt32>

    static let chunkSize = 1024
    private static let blockSize = 64
    private static let chunkStart: UInt32 = 1
    private static let chunkEnd: UInt32 = 2
    private static let parent: UInt32 = 4
    private static let root: UInt32 = 8

    private static var key: Words {
        Words(0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A, 0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19)
    }

    static func digest(_ content: UnsafeRawBufferPointer) -> Words { value(content, firstChunk: 0, root) }

    /// The chaining value of a tree of chunks. The left part of a tree is the largest complete tree that leaves something for the right part.
    /// The recursion is as deep as the tree is high.
    private static func value(_ content: UnsafeRawBufferPointer, firstChunk: UInt64, _ flags: UInt32) -> Words {
        guard content.count > chunkSize else { return chunk(content, firstChunk, flags) }
        let chunks = (content.count + chunkSize - 1) / chunkSize
        let left = 1 << (Int.bitWidth - 1 - (chunks - 1).leadingZeroBitCount)
        let middle = left * chunkSize
        let first = value(UnsafeRawBufferPointer(rebasing: content[..<middle]), firstChunk: firstChunk, 0)
        let second = value(UnsafeRawBufferPointer(rebasing: content[middle...]), firstChunk: firstChunk + UInt64(left), 0)
        return withUnsafeBytes(of: (first.littleEndianWords, second.littleEndianWords)) {
            compress(key, $0, counter: 0, length: UInt32(blockSize), parent | flags)
        }
    }

    private static func chunk(_ content: UnsafeRawBufferPointer, _ counter: UInt64, _ flags: UInt32) -> Words {
        var chaining = key
        var start = 0
        var startFlag = chunkStart
        while content.count - start > blockSize {
            let block = UnsafeRawBufferPointer(rebasing: content[start..<(start + blockSize)])
            chaining = compress(chaining, block, counter: counter, length: UInt32(blockSize), startFlag)
            startFlag = 0
            start += blockSize
        }
        let rest = UnsafeRawBufferPointer(rebasing: content[start...])
        let last = startFlag | chunkEnd | flags
        if rest.count == blockSize { return compress(chaining, rest, counter: counter, length: UInt32(blockSize), last) }
        var padded = SIMD64<UInt8>()
        return withUnsafeMutableBytes(of: &padded) { buffer in
            buffer.copyBytes(from: rest)
            return compress(chaining, UnsafeRawBufferPointer(buffer), counter: counter, length: UInt32(rest.count), last)
        }
    }

    /// Compresses one block of 64 bytes.
    private static func compress(
        _ chaining: Words, _ block: UnsafeRawBufferPointer, counter: UInt64, length: UInt32, _ flags: UInt32
    ) -> Words {
        func word(_ index: Int) -> UInt32 { UInt32(littleEndian: block.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)) }
        let (a, b, c, d, e, f, g, h) = (word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))
        let (i, j, k, l, m, n, o, p) = (word(8), word(9), word(10), word(11), word(12), word(13), word(14), word(15))
        var state = State(chaining, key, counter, length, flags)
        // Each round takes the words of the round before it in the order 2 6 3 10 7 0 4 13 1 11 12 5 9 14 15 8.
        state.round(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
        state.round(c, g, d, k, h, a, e, n, b, l, m, f, j, o, p, i)
        state.round(d, e, k, m, n, c, h, o, g, f, j, a, l, p, i, b)
        state.round(k, h, m, j, o, d, n, p, e, a, l, c, f, i, b, g)
        state.round(m, n, j, l, p, k, o, i, h, c, f, d, a, b, g, e)
        state.round(j, o, l, f, i, m, p, b, n, d, a, k, c, g, e, h)
        state.round(l, p, f, a, b, j, i, g, o, k, c, m, d, e, h, n)
        return state.result
    }

    private struct State {
        var v0: UInt32, v1: UInt32, v2: UInt32, v3: UInt32, v4: UInt32, v5: UInt32, v6: UInt32, v7: UInt32
        var v8: UInt32, v9: UInt32, v10: UInt32, v11: UInt32, v12: UInt32, v13: UInt32, v14: UInt32, v15: UInt32

        @inline(__always)
        init(_ chaining: Words, _ key: Words, _ counter: UInt64, _ length: UInt32, _ flags: UInt32) {
            (v0, v1, v2, v3) = (chaining[0], chaining[1], chaining[2], chaining[3])
            (v4, v5, v6, v7) = (chaining[4], chaining[5], chaining[6], chaining[7])
            (v8, v9, v10, v11) = (key[0], key[1], key[2], key[3])
            (v12, v13, v14, v15) = (UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32), length, flags)
        }

        @inline(__always)
        var result: Words {
            Words(v0 ^ v8, v1 ^ v9, v2 ^ v10, v3 ^ v11, v4 ^ v12, v5 ^ v13, v6 ^ v14, v7 ^ v15)
        }

        @inline(__always)
        mutating func round(
            _ a: UInt32, _ b: UInt32, _ c: UInt32, _ d: UInt32, _ e: UInt32, _ f: UInt32, _ g: UInt32, _ h: UInt32,
            _ i: UInt32, _ j: UInt32, _ k: UInt32, _ l: UInt32, _ m: UInt32, _ n: UInt32, _ o: UInt32, _ p: UInt32
        ) {
            Self.mix(&v0, &v4, &v8, &v12, a, b)
            Self.mix(&v1, &v5, &v9, &v13, c, d)
            Self.mix(&v2, &v6, &v10, &v14, e, f)
            Self.mix(&v3, &v7, &v11, &v15, g, h)
            Self.mix(&v0, &v5, &v10, &v15, i, j)
            Self.mix(&v1, &v6, &v11, &v12, k, l)
            Self.mix(&v2, &v7, &v8, &v13, m, n)
            Self.mix(&v3, &v4, &v9, &v14, o, p)
        }

        @inline(__always)
        private static func mix(_ a: inout UInt32, _ b: inout UInt32, _ c: inout UInt32, _ d: inout UInt32, _ x: UInt32, _ y: UInt32) {
            a = a &+ b &+ x
            d = rotate(d ^ a, 16)
            c = c &+ d
            b = rotate(b ^ c, 12)
            a = a &+ b &+ y
            d = rotate(d ^ a, 8)
            c = c &+ d
            b = rotate(b ^ c, 7)
        }

        @inline(__always)
        private static func rotate(_ value: UInt32, _ count: UInt32) -> UInt32 { value &>> count | value &<< (32 &- count) }
    }
}

extension SIMD8<UInt32> {
    fileprivate var littleEndianWords: SIMD8<UInt32> {
        var words = self
        for index in 0..<8 { words[index] = self[index].littleEndian }
        return words
    }
}
