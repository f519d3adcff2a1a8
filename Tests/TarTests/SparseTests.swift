import ComposefsBytes
import Testing

@testable import ComposefsTar

/// One file in each of the four formats of GNU tar 1.34 (`tar -S`, `--sparse-version`): 245,860 bytes, mostly holes.
private enum SparseArchives {
    /// The blocks of the file that are not holes, as lines of `offset:hex` in the part that the archives of all formats have in common.
    private static let contents = """
        0:3030
        4096:3031
        8192:3032
        12288:3033
        16384:3034
        20480:3035
        24576:3036
        28672:3037
        32768:3038
        36864:3039
        40960:3130
        45056:3131
        49152:3132
        53248:3133
        57344:3134
        61440:3135
        65536:3136
        69632:3137
        73728:3138
        77824:3139
        81920:3230
        86016:3231
        90112:3232
        94208:3233
        98304:3234
        102400:3235
        106496:3236
        110592:3237
        114688:3238
        118784:3239
        122978:21
        """

    /// The headers of one format, and the contents from an offset.
    private static func archive(_ size: Int, _ headers: String, contentsAt start: Int) -> [UInt8] {
        let shared = Archives.archive(size - start, contents)
        return Array(Archives.archive(size, headers).prefix(start)) + shared
    }

    static let pax00 = archive(
        127488,
        """
        0:2e2f782f66
        100:303030303634340030303030303030003030303030303000303030303030303333353200313435323437373034303000303036363736002078
        257:7573746172003030
        512:323620474e552e7370617273652e73697a653d3234353836300a323720474e552e7370617273652e6e756d626c6f636b733d33310a323320474e552e
        572:7370617273652e6f66667365743d300a323820474e552e7370617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66
        632:667365743d31323238380a323820474e552e7370617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d
        692:32303438300a323820474e552e7370617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d3238363732
        752:0a323820474e552e7370617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d33363836340a32382047
        812:4e552e7370617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d34353035360a323820474e552e7370
        872:617273652e6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d35333234380a323820474e552e7370617273652e
        932:6e756d62797465733d343039360a323720474e552e7370617273652e6f66667365743d36313434300a323820474e552e7370617273652e6e756d6279
        992:7465733d343039360a323720474e552e7370617273652e6f66667365743d36393633320a323820474e552e7370617273652e6e756d62797465733d34
        1052:3039360a323720474e552e7370617273652e6f66667365743d37373832340a323820474e552e7370617273652e6e756d62797465733d343039360a32
        1112:3720474e552e7370617273652e6f66667365743d38363031360a323820474e552e7370617273652e6e756d62797465733d343039360a323720474e55
        1172:2e7370617273652e6f66667365743d39343230380a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e73706172
        1232:73652e6f66667365743d3130323430300a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f
        1292:66667365743d3131303539320a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365
        1352:743d3131383738340a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3132
        1412:363937360a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d313335313638
        1472:0a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3134333336300a323820
        1532:474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3135313535320a323820474e552e
        1592:7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3135393734340a323820474e552e73706172
        1652:73652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3136373933360a323820474e552e7370617273652e6e
        1712:756d62797465733d343039360a323820474e552e7370617273652e6f66667365743d3137363132380a323820474e552e7370617273652e6e756d6279
        1772:7465733d343039360a323820474e552e7370617273652e6f66667365743d3138343332300a323820474e552e7370617273652e6e756d62797465733d
        1832:343039360a323820474e552e7370617273652e6f66667365743d3139323531320a323820474e552e7370617273652e6e756d62797465733d34303936
        1892:0a323820474e552e7370617273652e6f66667365743d3230303730340a323820474e552e7370617273652e6e756d62797465733d343039360a323820
        1952:474e552e7370617273652e6f66667365743d3230383839360a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e
        2012:7370617273652e6f66667365743d3231373038380a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e73706172
        2072:73652e6f66667365743d3232353238300a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f
        2132:66667365743d3233333437320a323820474e552e7370617273652e6e756d62797465733d343039360a323820474e552e7370617273652e6f66667365
        2192:743d3234313636340a323820474e552e7370617273652e6e756d62797465733d343139360a323820474e552e7370617273652e6f66667365743d3234
        2252:353836300a323520474e552e7370617273652e6e756d62797465733d300a
        2560:66
        2660:303030303634340030303030303030003030303030303000303030303033363031343400313435323437373034303000303131323337002030
        2817:7573746172003030726f6f74
        2857:726f6f74
        2889:303030303030300030303030303030
        """, contentsAt: 3072)

    static let pax01 = archive(
        125952,
        """
        0:2e2f782f66
        100:303030303634340030303030303030003030303030303000303030303030303036373600313435323437373034303000303036373034002078
        257:7573746172003030
        512:323620474e552e7370617273652e73697a653d3234353836300a323720474e552e7370617273652e6e756d626c6f636b733d33310a323120474e552e
        572:7370617273652e6e616d653d660a33373220474e552e7370617273652e6d61703d302c343039362c31323238382c343039362c32303438302c343039
        632:362c32383637322c343039362c33363836342c343039362c34353035362c343039362c35333234382c343039362c36313434302c343039362c363936
        692:33322c343039362c37373832342c343039362c38363031362c343039362c39343230382c343039362c3130323430302c343039362c3131303539322c
        752:343039362c3131383738342c343039362c3132363937362c343039362c3133353136382c343039362c3134333336302c343039362c3135313535322c
        812:343039362c3135393734342c343039362c3136373933362c343039362c3137363132382c343039362c3138343332302c343039362c3139323531322c
        872:343039362c3230303730342c343039362c3230383839362c343039362c3231373038382c343039362c3232353238302c343039362c3233333437322c
        932:343039362c3234313636342c343139362c3234353836302c300a
        1024:2e2f474e5553706172736546696c652e31373039382f66
        1124:303030303634340030303030303030003030303030303000303030303033363031343400313435323437373034303000303134343732002030
        1281:7573746172003030726f6f74
        1321:726f6f74
        1353:303030303030300030303030303030
        """, contentsAt: 1536)

    static let pax10 = archive(
        126464,
        """
        0:2e2f782f66
        100:303030303634340030303030303030003030303030303000303030303030303031333700313435323437373034303000303036363734002078
        257:7573746172003030
        512:323220474e552e7370617273652e6d616a6f723d310a323220474e552e7370617273652e6d696e6f723d300a323120474e552e7370617273652e6e61
        572:6d653d660a333020474e552e7370617273652e7265616c73697a653d3234353836300a
        1024:2e2f474e5553706172736546696c652e31373039392f66
        1124:303030303634340030303030303030003030303030303000303030303033363131343400313435323437373034303000303134343734002030
        1281:7573746172003030726f6f74
        1321:726f6f74
        1353:303030303030300030303030303030
        1536:33310a300a343039360a31323238380a343039360a32303438300a343039360a32383637320a343039360a33363836340a343039360a34353035360a
        1596:343039360a35333234380a343039360a36313434300a343039360a36393633320a343039360a37373832340a343039360a38363031360a343039360a
        1656:39343230380a343039360a3130323430300a343039360a3131303539320a343039360a3131383738340a343039360a3132363937360a343039360a31
        1716:33353136380a343039360a3134333336300a343039360a3135313535320a343039360a3135393734340a343039360a3136373933360a343039360a31
        1776:37363132380a343039360a3138343332300a343039360a3139323531320a343039360a3230303730340a343039360a3230383839360a343039360a32
        1836:31373038380a343039360a3232353238300a343039360a3233333437320a343039360a3234313636340a343139360a3234353836300a300a
        """, contentsAt: 2048)

    static let old = archive(
        125952,
        """
        0:66
        100:303030303634340030303030303030003030303030303000303030303033363031343400313435323437373034303000303231323732002053
        257:7573746172202000726f6f74
        297:726f6f74
        386:303030303030303030303000303030303030313030303000303030303030333030303000303030303030313030303000303030303030353030303000
        446:303030303030313030303000303030303030373030303000303030303030313030303000013030303030373430313434
        512:303030303031313030303000303030303030313030303000303030303031333030303000303030303030313030303000303030303031353030303000
        572:303030303030313030303000303030303031373030303000303030303030313030303000303030303032313030303000303030303030313030303000
        632:303030303032333030303000303030303030313030303000303030303032353030303000303030303030313030303000303030303032373030303000
        692:303030303030313030303000303030303033313030303000303030303030313030303000303030303033333030303000303030303030313030303000
        752:303030303033353030303000303030303030313030303000303030303033373030303000303030303030313030303000303030303034313030303000
        812:303030303030313030303000303030303034333030303000303030303030313030303000303030303034353030303000303030303030313030303000
        872:303030303034373030303000303030303030313030303000303030303035313030303000303030303030313030303000303030303035333030303000
        932:303030303030313030303000303030303035353030303000303030303030313030303000303030303035373030303000303030303030313030303000
        992:30303030303631303030300030303030303031303030300001
        1024:303030303036333030303000303030303030313030303000303030303036353030303000303030303030313030303000303030303036373030303000
        1084:303030303030313030303000303030303037313030303000303030303030313030303000303030303037333030303000303030303030313031343400
        1144:3030303030373430313434003030303030303030303030
        """, contentsAt: 1536)

    /// The file itself: data begins at every 8192nd byte, except the first, which begins 4096 bytes later.
    static let file: [UInt8] = {
        var bytes = [UInt8](repeating: 0, count: 30 * 8192 + 100)
        for index in 0..<30 {
            let at = index * 8192 + (index > 0 ? 4096 : 0)
            bytes.replaceSubrange(at..<(at + 2), with: [0x30 + UInt8(index / 10), 0x30 + UInt8(index % 10)])
        }
        bytes[30 * 8192 + 98] = UInt8(ascii: "!")
        return bytes
    }()
}

private func expand(_ entry: TarEntry, _ stored: [UInt8], chunk: Int = .max) throws -> [UInt8] {
    var expansion = try #require(try SparseExpansion(entry))
    var whole: [UInt8] = []
    func take(_ part: SparseExpansion.Part) {
        switch part {
        case .hole(let count): whole += [UInt8](repeating: 0, count: Int(count))
        case .data(let bytes): whole += bytes
        }
    }
    try stored.withUnsafeBytes { all in
        var at = 0
        while at < all.count {
            let end = chunk < all.count - at ? at + chunk : all.count
            try expansion.feed(UnsafeRawBufferPointer(rebasing: all[at..<end]), take)
            at = end
        }
    }
    try expansion.finish(take)
    return whole
}

@Suite struct SparseTests {
    @Test(arguments: [SparseArchives.pax00, SparseArchives.pax01, SparseArchives.pax10, SparseArchives.old])
    func whatGNUTarMakes(archive: [UInt8]) throws {
        for chunk in [100, 511, 4096, Int.max] {
            let read = try parse(archive, chunk: chunk)
            let entry = try #require(read.entries.first)
            #expect(read.entries.count == 1 && entry.path == "f" && entry.kind == .regular)
            #expect(entry.sparse?.realSize == 245_860)
            let stored = try #require(read.externals.first)
            #expect(try expand(entry, stored, chunk: chunk) == SparseArchives.file)
        }
    }

    private func entry(_ records: [UInt8], _ data: [UInt8] = []) throws -> TarEntry {
        let archive = pax(records) + Block("f", size: data.count).sealed(data) + endMarker
        return try #require(try parse(archive).entries.first)
    }

    private func fault(_ records: [UInt8], _ data: [UInt8] = []) -> TarError.Reason? {
        reason(pax(records) + Block("f", size: data.count).sealed(data) + endMarker)
    }

    @Test func smallOnes() throws {
        // Only a hole, without any data.
        let hole = try entry(record("GNU.sparse.size", "1000000000000") + record("GNU.sparse.map", "1000000000000,0"))
        #expect(hole.sparse == TarSparse(realSize: 1_000_000_000_000, segments: [.init(offset: 1_000_000_000_000, size: 0)]))
        var sum: UInt64 = 0
        var expansion = try #require(try SparseExpansion(hole))
        try expansion.finish { if case .hole(let count) = $0 { sum += count } }
        #expect(sum == 1_000_000_000_000)
        let short = try entry(record("GNU.sparse.size", "10") + record("GNU.sparse.map", "2,3"), Array("abc".utf8))
        #expect(try expand(short, Array("abc".utf8)) == [0, 0] + Array("abc".utf8) + [0, 0, 0, 0, 0])
        // The name of the file, not that of the archive entry.
        #expect(try entry(record("path", "x/y") + record("GNU.sparse.size", "1") + record("GNU.sparse.name", "z")).path == "z")
        // Records have no meaning for other types than files.
        let folder = try parse(pax(record("GNU.sparse.major", "9")) + Block("d", type: "5").sealed() + endMarker)
        #expect(folder.entries.first?.kind == .directory && folder.entries.first?.sparse == nil)
    }

    @Test(arguments: [
        ("2", "0,1"), ("2", "0,4"), ("2", "1,3"), ("9", "4,1,0,2"), ("9", "0,2,1,1"), ("9", "0"), ("9", "0,1,5"),
        ("9", "9223372036854775807,3"), ("2", ""), ("9223372036854775807", "9223372036854775807,9223372036854775807"),
    ])
    func mapsThatContradict(size: String, map: String) {
        guard case .badSparse? = fault(record("GNU.sparse.size", size) + record("GNU.sparse.map", map), [1, 2, 3]) else {
            Issue.record("taken: \(size) \(map)")
            return
        }
    }

    @Test func malformed() {
        func isBad(_ records: [UInt8]) -> Bool {
            switch fault(records) {
            case .badSparse?, .badValue?: true
            default: false
            }
        }
        for (key, value) in [
            ("map", "0,1"), ("major", "0,1"), ("name", "0,1"), ("size", "0,1"), ("size", "-1"), ("size", "99999999999999999999"),
            ("major", "2"), ("minor", "7"), ("numbytes", "1"), ("map", "a,b"), ("map", "1,"), ("name", "a\0b"),
        ] {
            #expect(isBad(record("GNU.sparse." + key, value)), "\(key)=\(value)")
        }
        let size = record("GNU.sparse.size", "9")
        #expect(isBad(size + record("GNU.sparse.offset", "1")))
        #expect(isBad(size + record("GNU.sparse.offset", "1") + record("GNU.sparse.offset", "2")))
        #expect(isBad(size + record("GNU.sparse.numblocks", "2") + record("GNU.sparse.map", "0,0")))
        #expect(isBad(record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0")))
    }

    /// PAX 1.0: the map is in the content.
    @Test(arguments: [
        "", "x\n", "1\n", "1\n0\n", "1\n0\n\n", "99999999999999999999\n", "70000\n0\n1\n", "1\n0\n9223372036854775807\n", "2\n0\n3\n1\n2\n",
        "1\n0\n4\n", "1\n0\n2\n", "1\n8\n3\n", "-1\n",
    ])
    func malformedMaps(map: String) throws {
        let records =
            record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "f")
            + record("GNU.sparse.realsize", "10")
        let text = Array(map.utf8)
        let data = text + [UInt8](repeating: 0, count: (512 - text.count % 512) % 512) + [1, 2, 3]
        let found = try entry(records, data)
        let error = #expect(throws: TarError.self, "\(map)") { try expand(found, data) }
        guard case .badSparse? = error?.reason else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(error?.path == "f")
        let good = Array("1\n4\n3\n".utf8) + [UInt8](repeating: 0, count: 506) + [1, 2, 3]
        for chunk in [1, 7, 600] { #expect(try expand(try entry(records, good), good, chunk: chunk) == [0, 0, 0, 0, 1, 2, 3, 0, 0, 0]) }
    }

    /// Old GNU format: a map that continues in blocks after the header.
    @Test func oldMaps() throws {
        func header(_ pairs: [(Int, Int)], real: Int, size: Int, more: Bool = false) -> Block {
            var block = Block("f", type: "S", size: size, magic: .gnu)
            for (index, pair) in pairs.enumerated() {
                block.put(octal(pair.0), 386 + 24 * index)
                block.put(octal(pair.1), 398 + 24 * index)
            }
            block.put(octal(real), 483)
            if more { block.put([1], 482) }
            return block
        }
        func octal(_ value: Int) -> [UInt8] {
            let digits = String(value, radix: 8)
            return Array((String(repeating: "0", count: 11 - digits.count) + digits).utf8) + [0]
        }
        let empty = try #require(try parse(header([], real: 0, size: 0).sealed() + endMarker).entries.first)
        #expect(empty.kind == .regular && empty.sparse == TarSparse(realSize: 0, segments: []))
        let one = try #require(try parse(header([(5, 2)], real: 9, size: 2).sealed([7, 8]) + endMarker).entries.first)
        #expect(try expand(one, [7, 8]) == [0, 0, 0, 0, 0, 7, 8, 0, 0])
        guard case .badSparse? = reason(header([(5, 2)], real: 6, size: 2).sealed([7, 8]) + endMarker) else {
            Issue.record("data beyond the end of the file")
            return
        }
        #expect(reason(header([(5, 2)], real: 9, size: 2, more: true).sealed()) == .truncated("a sparse file's map"))
        // An endless map is refused before it fills the memory.
        var archive = header([], real: 1 << 30, size: 0, more: true).sealed()
        var block = [UInt8](repeating: 0, count: 512)
        for index in 0..<21 { block.replaceSubrange((24 * index)..<(24 * index + 24), with: octal(0) + octal(0)) }
        block[504] = 1
        for _ in 0..<4000 { archive += block }
        #expect(reason(archive) == .badSparse("its map has more than 65536 segments"))
    }
}

@Suite struct EntryLimitTests {
    @Test func directoriesByTheirNames() throws {
        for flag in ["0", "\0", "7"] as [Character] {
            let read = try parse(Block("d/", type: flag).sealed() + Block("d/e", type: flag).sealed() + endMarker)
            #expect(read.entries.map(\.kind) == [.directory, .regular])
            #expect(read.contents == [.none, .inline(ByteString())])
        }
        let long = try parse(pax(record("path", "p/")) + Block("f", type: "0").sealed() + endMarker)
        #expect(long.entries.map(\.kind) == [.directory])
        // An entry with content is a file, because a directory cannot have content.
        let odd = try parse(Block("d/", size: 600).sealed([UInt8](repeating: 1, count: 600)) + Block("f").sealed() + endMarker)
        #expect(odd.entries.map(\.kind) == [.regular, .regular] && odd.contents.first == .external(size: 600))
        // The name of a link may end in this way.
        #expect(try parse(Block("l/", type: "2").with("t", 157).sealed() + endMarker).entries.map(\.kind) == [.symbolicLink])
    }

    /// 4294967295 is -1 as a user id: chown would leave the file to root.
    @Test func noOwner() throws {
        for (key, offset) in [("uid", 108), ("gid", 116)] {
            guard case .badValue(key: ByteString(key), _)? = reason(pax(record(key, "4294967295")) + Block("f").sealed() + endMarker) else {
                Issue.record("\(key)")
                return
            }
            let field: [UInt8] = [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
            let name = key == "uid" ? "the user id" : "the group id"
            #expect(reason(Block("f").with(field, offset).sealed() + endMarker) == .badNumber(field: name, .noOwner))
            #expect(reason(pax(record(key, "4294967294")) + Block("f").sealed() + endMarker) == nil)
        }
    }

    @Test func longPaths() throws {
        func path(_ count: Int) -> [UInt8] { (0..<count).map { $0 % 100 == 99 ? 0x2f : 0x61 } }
        #expect(reason(pax(record("path", path(4095))) + Block("f").sealed() + endMarker) == nil)
        #expect(reason(pax(record("path", path(4096))) + Block("f").sealed() + endMarker) == .pathTooLong(bytes: 4096, limit: 4095))
        let long = Block("x", type: "L", size: 5000, magic: .gnu).sealed(path(5000)) + Block("f", magic: .gnu).sealed() + endMarker
        #expect(reason(long) == .pathTooLong(bytes: 5000, limit: 4095))
    }
}
