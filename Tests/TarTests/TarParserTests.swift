import ComposefsBytes
import Testing

@testable import ComposefsTar

@Suite struct RealArchives {
    private let long = "d/" + String(repeating: "n", count: 120)
    private let target = String(repeating: "t", count: 130)
    private let y64 = String(repeating: "y", count: 64)

    @Test func gnu() throws {
        let archive = try parse(Archives.gnu)
        #expect(
            archive.summary.map { String($0.prefix { $0 != "@" }) } == [
                "directory d/  755 1:3000000 1700000000.0 0 0,0 [] none ",
                "characterDevice d/dev  644 1:3000000 1700000000.0 0 5,300 [] none ",
                "regular d/f64  644 1:3000000 -2.0 64 0,0 [] inline(\(y64)) ",
                "regular d/f65  4755 1:3000000 1700000000.0 65 0,0 [] external(size: 65) ",
                "fifo d/fifo  644 1:3000000 1700000000.0 0 0,0 [] none ",
                "regular d/hard  644 1:3000000 1700000000.0 5 0,0 [] inline(hello) ",
                "hardLink \(long) d/hard 644 1:3000000 1700000000.0 0 0,0 [] none ",
                "symbolicLink d/sym \(target) 777 1:3000000 1700000000.0 0 0,0 [] none ",
            ])
        #expect(archive.externals == [[UInt8](repeating: 0x78, count: 65)])
        #expect(archive.entries.map(\.headerOffset) == [0, 512, 1024, 2048, 3072, 3584, 5632, 7168])
    }

    @Test func posix() throws {
        let archive = try parse(Archives.pax)
        #expect(
            archive.summary.map { String($0.prefix { $0 != "@" }) } == [
                "directory d/  755 1:3000000 1700000000.123456789 0 0,0 [] none ",
                "characterDevice d/dev  644 1:3000000 1700000000.123456789 0 5,300 [] none ",
                "regular d/f64  644 1:3000000 -2.750000000 64 0,0 [] inline(\(y64)) ",
                "regular d/f65  4755 1:3000000 1700000000.123456789 65 0,0 [\"user.test=value\"] external(size: 65) ",
                "fifo d/fifo  644 1:3000000 1700000000.123456789 0 0,0 [] none ",
                "regular d/hard  644 1:3000000 1700000000.123456789 5 0,0 [] inline(hello) ",
                "hardLink \(long) d/hard 644 1:3000000 1700000000.123456789 0 0,0 [] none ",
                "symbolicLink d/sym \(target) 777 1:3000000 1700000000.500000000 0 0,0 [] none ",
            ])
    }

    @Test func plain() throws {
        let ustar = try parse(Archives.ustar)
        #expect(
            ustar.summary == [
                "directory d/  755 1:3 1700000000.0 0 0,0 [] none @0",
                "regular d/f64  644 1:3 1700000000.0 64 0,0 [] inline(\(y64)) @512",
                "regular d/f65  4755 1:3 1700000000.0 65 0,0 [] external(size: 65) @1536",
                "regular d/hard  644 1:3 1700000000.0 5 0,0 [] inline(hello) @2560",
            ])
        #expect(try parse(Archives.v7).summary == ustar.summary)
    }

    /// However the bytes are divided, the entries are the same and every byte is passed on once, in order.
    @Test(arguments: [1, 2, 3, 63, 64, 65, 511, 512, 513, 1000, 4096])
    func chunks(chunk: Int) throws {
        for archive in [Archives.gnu, Archives.pax, Archives.ustar, Archives.v7] {
            let whole = try parse(archive)
            let cut = try parse(archive, chunk: chunk)
            #expect(cut.summary == whole.summary)
            #expect(cut.externals == whole.externals)
            #expect(cut.inlined == whole.inlined)
        }
    }

    /// An archive may end at the end of an entry or in the padding of the last block. A truncation at any other position is detected.
    @Test func truncation() throws {
        for archive in [Archives.gnu, Archives.pax, Archives.ustar] {
            let entries = try parse(archive).summary
            for count in 0..<archive.count {
                let part = Array(archive[..<count])
                switch reason(part) {
                case .truncated?, .danglingExtension?: break
                case nil:
                    let read = try parse(part).summary
                    #expect(read == Array(entries.prefix(read.count)))
                    // The missing bytes up to the next entry are all zero.
                    let next = (count + 511) / 512 * 512
                    #expect(archive[count..<min(next, archive.count)].allSatisfy { $0 == 0 }, "cut at \(count)")
                case let other?: Issue.record("cut at \(count): \(other)")
                }
            }
        }
    }

    @Test func everyFlip() throws {
        for archive in [Archives.gnu, Archives.pax, Archives.v7] {
            let entries = try parse(archive).summary
            var headers = Set<Int>()
            for entry in try parse(archive).entries { headers.insert(Int(entry.headerOffset)) }
            for index in archive.indices {
                var damaged = archive
                damaged[index] ^= 1 << UInt8(index % 8)
                let inHeader = headers.contains(index / 512 * 512)
                if reason(damaged) == nil, inHeader {
                    // Only bytes of the checksum field itself do not count.
                    #expect(148..<156 ~= index % 512, "byte \(index)")
                    #expect(try parse(damaged).summary == entries)
                }
            }
        }
    }
}

@Suite struct Ends {
    private let file = Block("f", size: 3).sealed([1, 2, 3])

    @Test func accepted() throws {
        #expect(try parse([]).entries.isEmpty)
        #expect(try parse(endMarker).entries.isEmpty)
        // No marker, one block, one and a half, one and less than half a header.
        for tail in [0, 512, 700, 512 + 511, 100, 1024, 10240] {
            #expect(try parse(file + [UInt8](repeating: 0, count: tail)).summary.count == 1)
        }
        // Any data after the marker belongs to the stream.
        let garbage = (0..<3000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ 1) }
        let archive = try parse(file + endMarker + garbage, chunk: 700)
        #expect(archive.entries.count == 1)
        #expect(archive.inlined.suffix(3000) == garbage[...])
        #expect(try parse(file + endMarker + file).entries.count == 1)
        // The padding of the last file is missing.
        #expect(try parse(Array(file[..<515])).contents == [.inline(ByteString([1, 2, 3] as [UInt8]))])
    }

    @Test func refused() {
        let zero = [UInt8](repeating: 0, count: 512)
        #expect(reason(file + zero + file) == .strayZeroBlock)
        #expect(reason(file + zero + [UInt8](repeating: 1, count: 512)) == .strayZeroBlock)
        #expect(reason(file + zero + [0, 1]) == .truncated("a header"))
        #expect(reason(Array(file[..<514])) == .truncated("the file's content"))
        #expect(reason(Array(file[..<511])) == .truncated("a header"))
        #expect(reason(Array(file[..<1])) == .truncated("a header"))
        let header = pax(record("path", "p"))
        #expect(reason(header) == .danglingExtension)
        #expect(reason(header + endMarker) == .danglingExtension)
        #expect(reason(Array(header[..<515])) == .truncated("a PAX header"))
        #expect(reason(Array(header[..<530])) == .danglingExtension)
        let big = Block("b", size: 1000).sealed()
        #expect(reason(big + [1, 2, 3]) == .truncated("the file's content"))
        #expect(reason(Block("v", type: "V", size: 10).sealed() + [1]) == .truncated("an entry's data"))
        #expect(reason(Array("this is no archive, but some text that is much longer than one block of it. ".utf8) + file) == .checksum)
        #expect(reason(Block("huge").with("77777777777\0", 124).sealed() + endMarker) == .truncated("the file's content"))
    }

    @Test func handlerErrorsPass() throws {
        var parser = TarParser()
        var recorder = Recorder()
        recorder.failAtEntry = 0
        #expect(throws: Recorder.Failure.self) { try file.withUnsafeBytes { try parser.feed($0, to: &recorder) } }
    }
}

@Suite struct Headers {
    private func one(_ block: Block, _ data: [UInt8] = []) throws -> TarEntry {
        try #require(try parse(block.sealed(data) + endMarker).entries.first)
    }

    private func fault(_ block: Block) -> TarError.Reason? { reason(block.sealed() + endMarker) }

    @Test func kinds() throws {
        for (flag, kind) in [
            ("0", .regular), ("\0", .regular), ("7", .regular), ("1", .hardLink), ("2", .symbolicLink), ("3", .characterDevice),
            ("4", .blockDevice), ("5", .directory), ("6", .fifo), ("V", .other(0x56)), ("D", .other(0x44)), ("Z", .other(0x5a)),
        ] as [(Character, TarEntry.Kind)] {
            let archive = try parse(Block("n", type: flag).with("target", 157).sealed() + endMarker)
            #expect(archive.entries.map(\.kind) == [kind])
            #expect(archive.contents == [kind == .regular ? .inline(ByteString()) : .none])
        }
        #expect(try one(Block("n", type: "S", magic: .gnu)).sparse == TarSparse(realSize: 0, segments: []))
        // Without a magic these letters mean nothing.
        for flag in ["x", "L", "K", "S"] as [Character] {
            #expect(try one(Block("n", type: flag, magic: .v7)).kind == .other(flag.asciiValue ?? 0))
        }
    }

    @Test func contentSizes() throws {
        for size in [0, 1, 63, 64, 65, 511, 512, 513, 1024, 100_000] {
            let data = (0..<size).map { UInt8(truncatingIfNeeded: $0) }
            for chunk in [7, 512, Int.max] {
                let archive = try parse(Block("f", size: size).sealed(data) + Block("g").sealed() + endMarker, chunk: chunk)
                #expect(archive.entries.map(\.size) == [UInt64(size), 0])
                if size <= 64 {
                    #expect(archive.contents[0] == .inline(ByteString(data)))
                    #expect(archive.externals.isEmpty)
                } else {
                    #expect(archive.contents[0] == .external(size: UInt64(size)))
                    #expect(archive.externals == [data])
                }
            }
        }
    }

    /// The size field of a link, device or directory is ignored: no data follows.
    @Test func sizesWithoutData() throws {
        for flag in ["1", "2", "3", "4", "5", "6"] as [Character] {
            let archive = try parse(Block("n", type: flag, size: 5000).with("t", 157).sealed() + Block("g").sealed() + endMarker)
            #expect(archive.entries.map(\.size) == [0, 0])
        }
        // The data of unknown types is skipped.
        let archive = try parse(
            Block("n", type: "V", size: 600).sealed([UInt8](repeating: 9, count: 600)) + Block("g").sealed() + endMarker)
        #expect(archive.entries.map(\.size) == [600, 0])
        #expect(archive.contents[0] == .none)
    }

    @Test func names() throws {
        let full = String(repeating: "n", count: 100)
        let prefix = String(repeating: "p", count: 155)
        #expect(try one(Block(full)).path == ByteString(full))
        #expect(try one(Block(full).with(prefix, 345)).path == ByteString(prefix + "/" + full))
        #expect(try one(Block("short").with("pre/fix", 345)).path == "pre/fix/short")
        // GNU has times at that offset; V7 defines nothing.
        #expect(try one(Block("short", magic: .gnu).with("14524770400", 345)).path == "short")
        #expect(try one(Block("short", magic: .v7).with("xyz", 345)).path == "short")
        // A magic with another version is neither.
        #expect(try one(Block("short").with("ustar\u{0}01", 257).with("xyz", 345)).path == "short")
        #expect(try one(Block("real\0rubbish").with("x", 345)).path == "x/real")
        #expect(try one(Block("")).path == "")
        let link = try one(Block("l", type: "2").with(String(repeating: "t", count: 100), 157))
        #expect(link.linkTarget == ByteString(String(repeating: "t", count: 100)))
        #expect(try one(Block("l", type: "2").with("to\0rubbish", 157)).linkTarget == "to")
        #expect(try one(Block("").with([0xff, 0xfe, 0x2f, 0x0a], 0)).path == ByteString([0xff, 0xfe, 0x2f, 0x0a]))
    }

    @Test func links() throws {
        #expect(fault(Block("l", type: "1")) == .emptyLinkTarget)
        #expect(fault(Block("l", type: "2")) == .emptyLinkTarget)
        func target(_ count: Int) -> [UInt8] {
            pax(record("linkpath", String(repeating: "t", count: count))) + Block("l", type: "2").sealed() + endMarker
        }
        #expect(try parse(target(4095)).entries.map(\.linkTarget.count) == [4095])
        #expect(reason(target(4096)) == .linkTargetTooLong(limit: 4095))
    }

    @Test func numbers() throws {
        func mode(_ field: String) throws -> UInt32 { try one(Block("n").with(field, 100)).mode }
        #expect(try mode("0000644\0") == 0o644)
        #expect(try mode("   644 \0") == 0o644)
        #expect(try mode("644\0\0\0\0\0") == 0o644)
        #expect(try mode("00000644") == 0o644)
        #expect(try mode("644 \0xyz") == 0o644)
        #expect(try mode("\0\0\0\0\0\0\0\0") == 0)
        #expect(try mode("        ") == 0)
        #expect(try mode("\0\0 0755\0") == 0o755)
        // Type bits of the mode are not permissions.
        #expect(try mode("0100644\0") == 0o644)
        #expect(try mode("0147777\0") == 0o7777)
        for bad in ["0000648\0", "-000644\0", "0x1ff\0\0\0", "644 5\0\0\0", "abcdefgh"] {
            #expect(fault(Block("n").with(bad, 100)) == .badNumber(field: "the mode", .notANumber))
        }
        #expect(fault(Block("n").with([0x80, 0, 0, 1, 0, 0, 0, 0], 100)) == .badNumber(field: "the mode", .tooLarge))

        #expect(try one(Block("n").with([0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe], 108)).uid == .max - 1)
        #expect(fault(Block("n").with([0x80, 0, 0, 1, 0, 0, 0, 0], 108)) == .badNumber(field: "the user id", .tooLarge))
        #expect(fault(Block("n").with([0x80, 0, 0, 1, 0, 0, 0, 0], 116)) == .badNumber(field: "the group id", .tooLarge))
        #expect(fault(Block("n").with([UInt8](repeating: 0xff, count: 8), 108)) == .badNumber(field: "the user id", .negative))
    }

    @Test func sizes() {
        func size(_ bytes: [UInt8]) -> TarError.Reason? { fault(Block("n").with(bytes, 124)) }
        #expect(size([UInt8](repeating: 0xff, count: 12)) == .badNumber(field: "the size", .negative))
        // 2^64 + 512, and 2^63. With one less, only the data is missing.
        #expect(size([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0]) == .badNumber(field: "the size", .tooLarge))
        #expect(size([0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]) == .badNumber(field: "the size", .tooLarge))
        #expect(size([0x80, 0, 0, 0, 0x7f] + [UInt8](repeating: 0xff, count: 7)) == .truncated("the file's content"))
        #expect(size([0x80] + [UInt8](repeating: 0, count: 11)) == nil)
        #expect(size(Array("00000000009\0".utf8)) == .badNumber(field: "the size", .notANumber))
    }

    @Test func times() throws {
        func time(_ bytes: [UInt8]) throws -> Int64 { try one(Block("n").with(bytes, 136)).mtime.seconds }
        #expect(try time(Array("77777777777\0".utf8)) == 8_589_934_591)
        #expect(try time([UInt8](repeating: 0xff, count: 12)) == -1)
        #expect(try time([UInt8](repeating: 0xff, count: 8) + [0x7f, 0xff, 0xff, 0xff]) == -2_147_483_649)
        #expect(try time([0x80, 0, 0, 0] + [0x7f] + [UInt8](repeating: 0xff, count: 7)) == .max)
        #expect(try time([0xff, 0xff, 0xff, 0xff, 0x80] + [UInt8](repeating: 0, count: 7)) == .min)
        #expect(fault(Block("n").with([0xff, 0xff, 0xff, 0xff, 0x7f] + [UInt8](repeating: 0xff, count: 7), 136)) != nil)
        #expect(
            fault(Block("n").with([0x80, 0, 0, 0, 0x80] + [UInt8](repeating: 0, count: 7), 136))
                == .badNumber(field: "the modification time", .tooLarge))
    }

    @Test func devices() throws {
        let device = try one(Block("d", type: "3").with("0007777\0", 329).with("3777777\0", 337))
        #expect(device.deviceMajor == 4095)
        #expect(device.deviceMinor == 1_048_575)
        let binary = try one(Block("d", type: "4").with([0x80, 0, 0, 0, 0, 0, 1, 3], 329))
        #expect(binary.deviceMajor == 259)
        #expect(fault(Block("d", type: "3").with("0010000\0", 329)) == .badNumber(field: "the major device number", .tooLarge))
        #expect(fault(Block("d", type: "3").with("4000000\0", 337)) == .badNumber(field: "the minor device number", .tooLarge))
        #expect(fault(Block("d", type: "3", magic: .v7)) == .noDeviceNumbers)
        // The fields are not parsed for other types.
        #expect(try one(Block("f").with("zzzzzzzz", 329)).deviceMajor == 0)
    }

    @Test func checksums() throws {
        let name: [UInt8] = [0xe4, 0xf6, 0xfc, 0x62]
        let block = Block("").with(name, 0)
        #expect(try parse(block.sealed() + endMarker).entries.map(\.path) == [ByteString(name)])
        #expect(try parse(block.sealed(signed: true) + endMarker).entries.map(\.path) == [ByteString(name)])
        for field in ["        ", "\0\0\0\0\0\0\0\0", "checksum", "0000000\0"] {
            var bytes = block.sealed()
            bytes.replaceSubrange(148..<156, with: Array(field.utf8))
            #expect(reason(bytes + endMarker) == .checksum)
        }
        // A leading space instead of zeros, and no terminator.
        var bytes = Block("abc").sealed()
        let digits = Array(bytes[148..<154])
        bytes.replaceSubrange(148..<156, with: [0x20, 0x20] + digits)
        #expect(try parse(bytes + endMarker).entries.count == 1)
    }
}
