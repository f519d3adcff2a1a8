import ComposefsBytes
import Testing

@testable import ComposefsCompression

/// gzip members compressed in blocks and decompressed with another library, and zstd frames compressed by several threads.
struct GzipCompressorTests {
    private func content(_ count: Int) -> [UInt8] {
        var state: UInt64 = 0x2545_f491_4f6c_dd1d
        return (0..<count).map { index in
            // Half text that repeats at all distances, half noise.
            if index % 8192 < 4096 { return UInt8(truncatingIfNeeded: 97 + index % 23) }
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 60)
        }
    }

    private func pack(_ content: [UInt8], block: Int, level: Int32 = 6) -> [UInt8] {
        var compressor = GzipBlockCompressor(level: level)
        var checksum = GzipChecksum()
        content.withUnsafeBytes { checksum.update($0) }
        var packed = GzipMember.header
        var start = 0
        repeat {
            let end = min(content.count, start + block)
            let part = Array(content[start..<end])
            let dictionary = Array(content[..<start].suffix(GzipMember.dictionarySize))
            packed += part.withUnsafeBytes { part in
                dictionary.withUnsafeBytes { compressor.pack(part, after: $0, isLast: end == content.count) }
            }
            start = end
        } while start < content.count
        return packed + GzipMember.trailer(checksum)
    }

    private func unpack(_ packed: [UInt8], _ format: CompressionFormat) throws -> [UInt8] {
        var decompressor = Decompressor(format)
        var out: [UInt8] = []
        try packed.withUnsafeBytes { packed in
            var rest = packed
            let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 40_000, alignment: 16)
            defer { chunk.deallocate() }
            while case let count = try decompressor.decompress(&rest, into: chunk), count > 0 {
                out.append(contentsOf: UnsafeRawBufferPointer(rebasing: chunk[..<count]))
            }
        }
        try decompressor.finish()
        return out
    }

    @Test(arguments: [0, 1, 999, 1000, 1001, 65_536, 300_000])
    func blocksAreOneMember(count: Int) throws {
        let content = content(count)
        for block in [1000, 65_536, 1 << 20] {
            for level in [1, 6, 9] as [Int32] {
                let packed = pack(content, block: block, level: level)
                #expect(try unpack(packed, .gzip) == content)
                #expect(pack(content, block: block, level: level) == packed)
            }
        }
    }

    /// The data before a block serves as its dictionary, so division into blocks costs little.
    @Test func dictionariesArePartOfTheContent() throws {
        let text = (0..<20_000).flatMap { Array("line \($0 % 700) of a text\n".utf8) }
        #expect(pack(text, block: 32 << 10).count < pack(text, block: 1 << 20).count * 3 / 2)
    }

    /// The bytes of an encoder must not change unnoticed, because they determine digests in registries. Header and trailer follow RFC 1952.
    @Test func emptyMember() {
        #expect(pack([], block: 1) == [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 3, 0] + [UInt8](repeating: 0, count: 8))
        #expect(Encoders.name(.gzip).hasPrefix("zlib-1."))
        #expect(Encoders.name(.zstd).hasPrefix("zstd-1."))
    }

    @Test(arguments: [0, 1, 100_000, 5_000_000]) func zstdOfThreads(count: Int) throws {
        let content = content(count)
        var results: [[UInt8]] = []
        for threads in [1, 3] as [Int32] {
            var compressor = ZstdCompressor(level: 3, threads: threads)
            var packed: [UInt8] = []
            for start in stride(from: 0, to: count, by: 70_001) {
                Array(content[start..<min(count, start + 70_001)]).withUnsafeBytes { compressor.compress($0, into: &packed) }
            }
            compressor.finish(into: &packed)
            #expect(try unpack(packed, .zstd) == content)
            results.append(packed)
        }
        #expect(results[0] == results[1])
    }
}
