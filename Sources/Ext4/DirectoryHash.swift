internal import ComposefsBytes

/// The hash of names in indexed directories: half MD4 (fs/ext4/hash.c, `ext4fs_dirhash`).
struct DirectoryHash: Sendable {
    private let start: (UInt32, UInt32, UInt32, UInt32)
    /// Whether bytes of 0x80 and above count as negative numbers. The superblock says so, because it once depended on the processor.
    private let isSigned: Bool

    init(seed: [UInt8], isSigned: Bool) {
        self.isSigned = isSigned
        let words = (0..<4).map { seed.load(UInt32.self, at: 4 * $0) }
        start = words == [0, 0, 0, 0] ? (0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476) : (words[0], words[1], words[2], words[3])
    }

    /// The major hash, whose lowest bit is 0, and the minor hash.
    func callAsFunction(_ name: UnsafeRawBufferPointer) -> (major: UInt32, minor: UInt32) {
        var state = start
        var at = 0
        while at < name.count {
            transform(&state, words(of: name, from: at))
            at += 32
        }
        // 0xfffffffe marks the end of a directory in the kernel's cursors.
        let major = state.1 & ~1
        return (major == 0xffff_fffe ? 0xffff_fffc : major, state.2)
    }

    private typealias Words = (UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32, UInt32)

    /// Eight words of up to 32 bytes of the name. The rest is filled with the length of the name from `start` on.
    private func words(of name: UnsafeRawBufferPointer, from start: Int) -> Words {
        let rest = name.count - start
        let pad = UInt32(truncatingIfNeeded: rest & 0xff) &* 0x0101_0101
        var words: Words = (pad, pad, pad, pad, pad, pad, pad, pad)
        withUnsafeMutableBytes(of: &words) { buffer in
            let words = buffer.bindMemory(to: UInt32.self)
            for index in 0..<min(rest, 32) {
                let byte = name[start + index]
                let value = isSigned ? UInt32(bitPattern: Int32(Int8(bitPattern: byte))) : UInt32(byte)
                words[index / 4] = value &+ words[index / 4] << 8
            }
        }
        return words
    }

    private func transform(_ state: inout (UInt32, UInt32, UInt32, UInt32), _ input: Words) {
        var (a, b, c, d) = state
        @inline(__always)
        func step(_ a: inout UInt32, _ value: UInt32, _ shift: UInt32) {
            a = a &+ value
            a = a << shift | a >> (32 - shift)
        }
        @inline(__always) func f(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { z ^ (x & (y ^ z)) }
        @inline(__always) func g(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { (x & y) &+ ((x ^ y) & z) &+ 0x5a82_7999 }
        @inline(__always) func h(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { (x ^ y ^ z) &+ 0x6ed9_eba1 }
        step(&a, f(b, c, d) &+ input.0, 3)
        step(&d, f(a, b, c) &+ input.1, 7)
        step(&c, f(d, a, b) &+ input.2, 11)
        step(&b, f(c, d, a) &+ input.3, 19)
        step(&a, f(b, c, d) &+ input.4, 3)
        step(&d, f(a, b, c) &+ input.5, 7)
        step(&c, f(d, a, b) &+ input.6, 11)
        step(&b, f(c, d, a) &+ input.7, 19)

        step(&a, g(b, c, d) &+ input.1, 3)
        step(&d, g(a, b, c) &+ input.3, 5)
        step(&c, g(d, a, b) &+ input.5, 9)
        step(&b, g(c, d, a) &+ input.7, 13)
        step(&a, g(b, c, d) &+ input.0, 3)
        step(&d, g(a, b, c) &+ input.2, 5)
        step(&c, g(d, a, b) &+ input.4, 9)
        step(&b, g(c, d, a) &+ input.6, 13)

        step(&a, h(b, c, d) &+ input.3, 3)
        step(&d, h(a, b, c) &+ input.7, 9)
        step(&c, h(d, a, b) &+ input.2, 11)
        step(&b, h(c, d, a) &+ input.6, 15)
        step(&a, h(b, c, d) &+ input.1, 3)
        step(&d, h(a, b, c) &+ input.5, 9)
        step(&c, h(d, a, b) &+ input.0, 11)
        step(&b, h(c, d, a) &+ input.4, 15)
        state = (state.0 &+ a, state.1 &+ b, state.2 &+ c, state.3 &+ d)
    }
}
