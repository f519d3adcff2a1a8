import ComposefsBytes
import Testing

@Suite struct ByteStrings {
    @Test func orderIsThatOfUnsignedBytes() {
        let names: [ByteString] = ["", "a", "a\0", "ab", "b", ByteString([0x7f]), ByteString([0x80]), ByteString([0xff])]
        #expect(names.shuffled().sorted() == names)
        // Differences at every position of the eight bytes that are compared at once.
        for offset in 0..<20 {
            var (low, high) = ([UInt8](repeating: 0x80, count: 20), [UInt8](repeating: 0x80, count: 20))
            low[offset] = 0x01
            high[offset] = 0xfe
            #expect(ByteString(low) < ByteString(high))
            #expect(!(ByteString(high) < ByteString(low)))
        }
    }

    @Test func bytesAreNotText() {
        // Canonically equivalent as text, different as names.
        let (composed, decomposed) = (ByteString([0xc3, 0xa9]), ByteString([0x65, 0xcc, 0x81]))
        #expect(composed != decomposed)
        #expect(composed.utf8Text == decomposed.utf8Text)
        #expect(ByteString([0xff]).utf8Text == nil)
    }

    @Test func descriptionIsSafeToPrint() {
        #expect(ByteString("a b\\\n\u{1b}[2J").description == #"a b\\\x0a\x1b[2J"#)
        #expect(ByteString([0xff, 0x41]).description == #"\xffA"#)
    }

    @Test func prefixesAndSuffixes() {
        let name: ByteString = ".wh.file"
        #expect(name.hasPrefix(".wh.") && !name.hasPrefix(".wh.file.") && name.hasPrefix(""))
        #expect(name.hasSuffix("file") && !name.hasSuffix("x.wh.file") && name.hasSuffix(""))
    }
}

@Suite struct HexDigits {
    @Test func bothWays() {
        let all = Array(UInt8.min...UInt8.max)
        let text = Hex.encode(all)
        #expect(text.hasPrefix("000102") && text.hasSuffix("fdfeff"))
        #expect(Hex.decode(text.utf8) == all)
        #expect(Hex.decode("".utf8) == [])
    }

    @Test(arguments: ["0", "0G", "AB", "a ", "é", "0x"])
    func refused(text: String) { #expect(Hex.decode(text.utf8) == nil) }
}

@Suite struct ReadingAndWriting {
    @Test func fieldsInOrder() throws {
        var writer = ByteWriter()
        writer.u8(0x01)
        writer.u16(0x0302)
        writer.u32(0x0706_0504)
        writer.u64(0x0f0e_0d0c_0b0a_0908)
        writer.i64(-2)
        writer.append([0xaa, 0xbb])
        writer.pad(to: 32)
        // Split up, because the compiler takes too long for one expression.
        var expected = [UInt8](1...15)
        expected += [0xfe] + [UInt8](repeating: 0xff, count: 7)
        expected += [0xaa, 0xbb] + [UInt8](repeating: 0, count: 7)
        #expect(writer.bytes == expected)
        var reader = ByteReader(writer.bytes.span.bytes)
        let u8Value = try reader.u8()
        #expect(u8Value == 0x01)
        let u16Value = try reader.u16()
        #expect(u16Value == 0x0302)
        let u32Value = try reader.u32()
        #expect(u32Value == 0x0706_0504)
        let u64Value = try reader.u64()
        #expect(u64Value == 0x0f0e_0d0c_0b0a_0908)
        let i64Value = try reader.i64()
        #expect(i64Value == -2)
        let taken = try reader.take(2)
        let (count, second) = (taken.byteCount, taken.unsafeLoad(fromByteOffset: 1, as: UInt8.self))
        #expect(count == 2 && second == 0xbb)
        try reader.skip(7)
        let isAtEnd = reader.isAtEnd
        #expect(isAtEnd)
    }

    @Test func theEndIsAnError() throws {
        let bytes: [UInt8] = [1, 2, 3]
        var reader = ByteReader(bytes.span.bytes)
        try reader.skip(1)
        #expect(throws: EndOfBytes(offset: 1, wanted: 4, available: 2)) { try readU32(bytes, after: 1) }
        #expect(throws: EndOfBytes(offset: 0, wanted: -1, available: 3)) { try skip(bytes, -1) }
        #expect(throws: EndOfBytes(offset: 0, wanted: Int.max, available: 3)) { try skip(bytes, .max) }
        let remaining = reader.remaining
        #expect(remaining == 2)
    }

    private func readU32(_ bytes: [UInt8], after offset: Int) throws -> UInt32 {
        var reader = ByteReader(bytes.span.bytes)
        try reader.skip(offset)
        return try reader.u32()
    }

    private func skip(_ bytes: [UInt8], _ count: Int) throws {
        var reader = ByteReader(bytes.span.bytes)
        try reader.skip(count)
    }

    @Test func arraysCanBeReadAnywhere() {
        let bytes: [UInt8] = [1, 2, 3, 4]
        withUnsafeTemporaryAllocation(byteCount: 3, alignment: 1) { buffer in
            #expect(bytes.read(at: 0, into: buffer) == 3)
            #expect(bytes.read(at: 2, into: buffer) == 2)
            #expect(buffer[0] == 3 && buffer[1] == 4)
            #expect(bytes.read(at: 4, into: buffer) == 0)
            #expect(bytes.read(at: .max, into: buffer) == 0)
        }
        #expect(bytes.byteCount == 4)
    }
}
