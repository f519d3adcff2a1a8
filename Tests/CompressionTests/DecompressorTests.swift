import Testing

@testable import ComposefsCompression

/// Decompresses `data`, with input buffers of `inputChunk` bytes and output buffers of `outputChunk` bytes.
func unpack(_ data: [UInt8], _ format: CompressionFormat, input inputChunk: Int = .max, output outputChunk: Int = 65_536) throws -> [UInt8]
{
    var decoder = Decompressor(format)
    var result: [UInt8] = []
    var room = [UInt8](repeating: 0xa5, count: outputChunk)
    try data.withUnsafeBytes { all in
        var at = 0
        repeat {
            let end = inputChunk < all.count - at ? at + inputChunk : all.count
            var chunk = UnsafeRawBufferPointer(rebasing: all[at..<end])
            at = end
            while true {
                let count = try room.withUnsafeMutableBytes { try decoder.decompress(&chunk, into: $0) }
                result += room[..<count]
                #expect(count == outputChunk || chunk.isEmpty)
                if count == 0 { break }
            }
            #expect(chunk.isEmpty)
        } while at < all.count
    }
    try decoder.finish()
    #expect(decoder.consumed == UInt64(data.count))
    #expect(decoder.produced == UInt64(result.count))
    return result
}

func reason(_ data: [UInt8], _ format: CompressionFormat) -> CompressionError.Reason? {
    do {
        _ = try unpack(data, format)
        return nil
    } catch let error as CompressionError {
        #expect(error.format == format)
        #expect(error.offset <= UInt64(data.count))
        #expect(!error.description.isEmpty && !error.description.contains("\n"))
        return error.reason
    } catch {
        Issue.record("\(error)")
        return nil
    }
}

@Suite struct Formats {
    @Test func detection() {
        func detect(_ bytes: [UInt8]) -> CompressionFormat { bytes.withUnsafeBytes { CompressionFormat.detect($0) } }
        #expect(detect(Fixtures.gzip) == .gzip)
        #expect(detect(Fixtures.zstdFar) == .zstd)
        #expect(detect(Fixtures.zstd) == .zstd)
        #expect(detect([]) == .none)
        #expect(detect([0x1f]) == .none)
        #expect(detect([0x28, 0xb5, 0x2f]) == .none)
        #expect(detect([0x4f, 0x2a, 0x4d, 0x18]) == .none)
        #expect(detect([0x5f, 0x2a, 0x4d, 0x18]) == .zstd)
        // A format of zstd before version 1.
        #expect(detect([0x25, 0xb5, 0x2f, 0xfd]) == .none)
        #expect(detect(Array("usr/".utf8)) == .none)
        #expect(CompressionFormat.allCases.map(\.name) == ["none", "gzip", "zstd"])
    }

    @Test func none() throws {
        #expect(try unpack(Fixtures.text, .none, input: 7, output: 3) == Fixtures.text)
        #expect(try unpack([], .none).isEmpty)
    }
}

@Suite struct GzipStreams {
    @Test(arguments: [1, 2, 3, 5, 8, 13, 64, 477, Int.max], [1, 2, 7, 257, 65_536])
    func members(input: Int, output: Int) throws {
        #expect(try unpack(Fixtures.gzip, .gzip, input: input, output: output) == Fixtures.text)
    }

    @Test(arguments: [1, 11, 1000, Int.max], [97, 4096, 33_000, 100_000, 300_000])
    func farMatches(input: Int, output: Int) throws {
        #expect(try unpack(Fixtures.gzipFar, .gzip, input: input, output: output) == Fixtures.far)
    }

    /// Splits the input at every position. No byte of the second member is lost.
    @Test func everySplit() throws {
        for split in 0...Fixtures.gzip.count {
            var decoder = Decompressor(.gzip)
            var result: [UInt8] = []
            var room = [UInt8](repeating: 0, count: 100)
            for part in [Fixtures.gzip[..<split], Fixtures.gzip[split...]] {
                try Array(part).withUnsafeBytes { all in
                    var rest = all
                    while true {
                        let count = try room.withUnsafeMutableBytes { try decoder.decompress(&rest, into: $0) }
                        if count == 0 { break }
                        result += room[..<count]
                    }
                }
            }
            try decoder.finish()
            #expect(result == Fixtures.text, "split at \(split)")
        }
    }

    @Test func truncation() throws {
        var complete: Set<Int> = []
        for count in 0..<Fixtures.gzip.count {
            switch reason(Array(Fixtures.gzip[..<count]), .gzip) {
            case .empty?: #expect(count == 0)
            case .truncated?: #expect(count > 0)
            case nil:
                complete.insert(count)
                let part = try unpack(Array(Fixtures.gzip[..<count]), .gzip)
                #expect(part == Array(Fixtures.text[..<part.count]))
            case let other?: Issue.record("\(count): \(other)")
            }
        }
        // Only at the end of one of the four members.
        #expect(complete.count == 3, "\(complete.sorted())")
    }

    @Test func everyFlip() throws {
        for index in Fixtures.gzip.indices {
            for bit in 0..<8 {
                var damaged = Fixtures.gzip
                damaged[index] ^= 1 << bit
                if reason(damaged, .gzip) == nil { #expect(try unpack(damaged, .gzip) == Fixtures.text, "byte \(index) bit \(bit)") }
            }
        }
    }

    @Test func faults() {
        #expect(reason(Fixtures.gzip + [0], .gzip) == .trailingGarbage)
        #expect(reason(Fixtures.gzip + [UInt8](repeating: 0, count: 512), .gzip) == .trailingGarbage)
        #expect(reason(Fixtures.gzip + Array("garbage".utf8), .gzip) == .trailingGarbage)
        #expect(reason(Fixtures.gzip + [0x1f], .gzip) == .truncated)
        #expect(reason(Fixtures.gzip + [0x1f, 0x8c], .gzip) == .trailingGarbage)
        #expect(reason(Fixtures.text, .gzip) == .notTheFormat)
        #expect(reason(Fixtures.zstd, .gzip) == .notTheFormat)
        #expect(reason([], .gzip) == .empty)
        var changed = Fixtures.gzipFar
        changed[2] = 7
        #expect(reason(changed, .gzip) == .badHeader("compression method 7 is not deflate"))
        changed = Fixtures.gzipFar
        changed[3] = 0x20
        #expect(reason(changed, .gzip) == .badHeader("reserved flags are set"))
        // The first member has a checksum of its header; its modification time is part of that.
        changed = Fixtures.gzip
        changed[4] ^= 1
        #expect(reason(changed, .gzip) == .badHeader("its checksum does not match"))
        for trailer in 1...8 {
            changed = Fixtures.gzipFar
            changed[changed.count - trailer] ^= 0x40
            #expect(reason(changed, .gzip) == .checksum)
        }
        // Deflate block type 3 does not exist.
        #expect(reason([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x07, 0, 0, 0, 0, 0, 0, 0, 0], .gzip) == .corrupt("invalid deflate block"))
        // A match in the first symbol reaches before the start (fixed code: length 3, distance 1).
        #expect(
            reason([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x03, 0x02, 0, 0, 0, 0, 0, 0, 0, 0], .gzip)
                == .corrupt("deflate distance before the start"))
    }

    /// A name of a megabyte is skipped, not kept.
    @Test func longName() throws {
        var data: [UInt8] = [0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]
        data += [UInt8](repeating: 0x61, count: 1 << 20) + [0]
        data += [0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        #expect(try unpack(data, .gzip, input: 4096).isEmpty)
    }
}

@Suite struct ZstdStreams {
    @Test(arguments: [1, 2, 3, 5, 8, 13, 64, Int.max], [1, 2, 7, 257, 65_536])
    func frames(input: Int, output: Int) throws {
        #expect(try unpack(Fixtures.zstd, .zstd, input: input, output: output) == Fixtures.text)
    }

    @Test(arguments: [1, 11, Int.max], [97, 4096, 300_000])
    func farMatches(input: Int, output: Int) throws {
        #expect(try unpack(Fixtures.zstdFar, .zstd, input: input, output: output) == Fixtures.far)
    }

    @Test func truncation() throws {
        var complete: [Int] = []
        for count in 0..<Fixtures.zstd.count {
            switch reason(Array(Fixtures.zstd[..<count]), .zstd) {
            case .empty?: #expect(count == 0)
            case .truncated?: #expect(count > 0)
            case nil: complete.append(count)
            case let other?: Issue.record("\(count): \(other)")
            }
        }
        // Only at the end of one of the six frames.
        #expect(complete.count == 5, "\(complete)")
        #expect(complete.first == 13)
    }

    @Test func everyFlip() throws {
        for index in Fixtures.zstdFar.indices {
            for bit in 0..<8 {
                var damaged = Fixtures.zstdFar
                damaged[index] ^= 1 << bit
                if reason(damaged, .zstd) == nil {
                    // If the checksum flag is cleared, the checksum itself becomes trailing bytes, so the change is detected.
                    #expect(try unpack(damaged, .zstd) == Fixtures.far, "byte \(index) bit \(bit)")
                }
            }
        }
    }

    @Test func faults() {
        #expect(reason(Fixtures.zstd + [0], .zstd) == .trailingGarbage)
        #expect(reason(Fixtures.zstd + Fixtures.gzip, .zstd) == .trailingGarbage)
        #expect(reason(Fixtures.text, .zstd) == .notTheFormat)
        #expect(reason([0x25, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0], .zstd) == .notTheFormat)
        #expect(reason(Fixtures.zstdDictionary, .zstd) == .dictionary)
        #expect(reason(Fixtures.zstdHugeWindow, .zstd) == .windowTooLarge)
        var changed = Fixtures.zstdFar
        changed[changed.count - 1] ^= 1
        #expect(reason(changed, .zstd) == .checksum)
    }

    @Test func inMemory() throws {
        #expect(try Fixtures.zstd.withUnsafeBytes { try zstdDecompress($0, limit: Fixtures.text.count) } == Fixtures.text)
        #expect(throws: CompressionError.self) {
            try Fixtures.zstd.withUnsafeBytes { try zstdDecompress($0, limit: Fixtures.text.count - 1) }
        }
        #expect(throws: CompressionError.self) { try [].withUnsafeBytes { try zstdDecompress($0, limit: 10) } }
    }
}

@Suite struct ZstdFrames {
    private func pack(_ data: [UInt8], chunk: Int) -> [UInt8] {
        var encoder = ZstdCompressor()
        var result: [UInt8] = []
        data.withUnsafeBytes { all in
            var at = 0
            while at < all.count {
                let end = min(at + chunk, all.count)
                encoder.compress(UnsafeRawBufferPointer(rebasing: all[at..<end]), into: &result)
                at = end
            }
        }
        encoder.finish(into: &result)
        return result
    }

    @Test func nothingWritten() {
        #expect(pack([], chunk: 1) == [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0])
    }

    /// Eight zero bytes: the body of every config and manifest stream, as another implementation writes it.
    @Test func oneInstruction() {
        let expected: [UInt8] = [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, 0x41, 0, 0] + [UInt8](repeating: 0, count: 8)
        #expect(pack([UInt8](repeating: 0, count: 8), chunk: 8) == expected)
    }

    @Test func splitDoesNotMatter() throws {
        let whole = pack(Fixtures.far, chunk: .max)
        #expect(whole.starts(with: [0x28, 0xb5, 0x2f, 0xfd, 0, 0x58]))
        for chunk in [1, 513, 65_536, 131_072] { #expect(pack(Fixtures.far, chunk: chunk) == whole) }
        #expect(try unpack(whole, .zstd) == Fixtures.far)
    }

    @Test func reuse() throws {
        var encoder = ZstdCompressor()
        for _ in 0..<3 {
            var frame: [UInt8] = []
            Fixtures.text.withUnsafeBytes { encoder.compress($0, into: &frame) }
            encoder.finish(into: &frame)
            #expect(frame == pack(Fixtures.text, chunk: .max))
            #expect(try unpack(frame, .zstd) == Fixtures.text)
            var empty: [UInt8] = []
            encoder.finish(into: &empty)
            #expect(empty.count == 9)
        }
    }
}
