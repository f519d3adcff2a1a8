import ComposefsBytes
import ComposefsDumpfile
import ComposefsFileTree
import ComposefsHashing
import Testing

/// The merged tree of the reference implementation's five-layer test image, as pinned by its tests.
private let baseImage = """
    / 0 40755 6 0 0 0 0.0 - - -
    /etc 0 40755 2 0 0 0 0.0 - - -
    /etc/hostname 9 100644 1 0 0 0 0.0 - test-host -
    /etc/os-release 23 100644 1 0 0 0 0.0 - ID=test\\nVERSION_ID=1.0\\n -
    /etc/passwd 100 100644 1 0 0 0 0.0 f2/c4fd5735bd46db3b18d402ae87c5086c97c0e1321901cfd30f320b73ef25aa - f2c4fd5735bd46db3b18d402ae87c5086c97c0e1321901cfd30f320b73ef25aa
    /tmp 0 40755 2 0 0 0 0.0 - - -
    /usr 0 40755 3 0 0 0 0.0 - - -
    /usr/bin 0 40755 2 0 0 0 0.0 - - -
    /usr/bin/busybox 4096 100755 1 0 0 0 0.0 f0/f7e1e58fdd31f5792222087377a4a976760c416ecdf5f426193e608681b7a1 - f0f7e1e58fdd31f5792222087377a4a976760c416ecdf5f426193e608681b7a1
    /usr/bin/cat 7 120777 1 0 0 0 0.0 busybox - -
    /usr/bin/ping 7 120777 1 0 0 0 0.0 busybox - - security.capability=\\x02\\x00\\x00\\x02\\x00\\x20\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00
    /var 0 40755 2 0 0 0 0.0 - - -

    """

private func parse(_ text: String) throws -> FileTree { try parseDumpfile(Array(text.utf8)) }

private let root = "/ 0 40755 2 0 0 0 0.0 - - -\n"

@Suite struct DumpfileWriting {
    @Test func referenceTextSurvives() throws {
        let text = String(decoding: dumpfile(of: try parse(baseImage)), as: UTF8.self)
        #expect(text == baseImage)
    }

    @Test func everyKindOfLine() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let plain = Metadata(permissions: 0o644, uid: 1, gid: 2, modified: Timestamp(seconds: 3, nanoseconds: 4))
        let id = try #require(ObjectID(hex: String(repeating: "ab", count: 32)))
        let path = "ab/" + String(repeating: "ab", count: 31)
        let leaf = try tree.addLeaf("a", in: FileTree.root, plain, .inline("-"))
        try tree.addLink("b", in: FileTree.root, to: leaf)
        try tree.addLeaf("c", in: FileTree.root, plain, .externalWithoutVerity(id, size: 9))
        try tree.addLeaf("d", in: FileTree.root, plain, .sparse(size: 77))
        try tree.addLeaf("e", in: FileTree.root, plain, .blockDevice(2049))
        try tree.addLeaf("f", in: FileTree.root, plain, .characterDevice(0))
        try tree.addLeaf("g", in: FileTree.root, plain, .fifo)
        try tree.addLeaf("h", in: FileTree.root, plain, .socket)
        try tree.addLeaf(
            "i", in: FileTree.root,
            Metadata(
                permissions: 0o777, modified: Timestamp(seconds: -2, nanoseconds: 750_000_000),
                extendedAttributes: [
                    ExtendedAttribute(name: "user.b=", value: "-"), ExtendedAttribute(name: "user.a", value: ByteString([0, 0x3d, 0xff])),
                    ExtendedAttribute(name: "user.c", value: ""),
                ]), .symbolicLink("\\ \n"))
        try tree.addLeaf("j", in: FileTree.root, plain, .inline(""))
        try tree.addLeaf(ByteString([0x6b, 0x20, 0x0d, 0x09, 0x7f, 0xc3]), in: FileTree.root, plain, .external(id, size: 10))
        let text = String(decoding: dumpfile(of: tree), as: UTF8.self)
        let lines = text.split(separator: "\n").map(String.init)
        #expect(
            lines == [
                "/ 0 40755 2 0 0 0 0.0 - - -",
                "/a 1 100644 2 1 2 0 3.4 - \\x2d -",
                "/b 0 @120000 - - - - 0.0 /a - -",
                "/c 9 100644 1 1 2 0 3.4 \(path) - -",
                "/d 77 100644 1 1 2 0 3.4 - - -",
                "/e 0 60644 1 1 2 2049 3.4 - - -",
                "/f 0 20644 1 1 2 0 3.4 - - -",
                "/g 0 10644 1 1 2 0 3.4 - - -",
                "/h 0 140644 1 1 2 0 3.4 - - -",
                "/i 3 120777 1 0 0 0 -2.750000000 \\\\\\x20\\n - - user.a=\\x00\\x3d\\xff user.b\\x3d=- user.c=",
                "/j 0 100644 1 1 2 0 3.4 - - -",
                "/k\\x20\\r\\t\\x7f\\xc3 10 100644 1 1 2 0 3.4 \(path) - \(id.hex)",
            ])
        #expect(dumpfile(of: try parse(text)) == Array(text.utf8))
    }

    @Test func layerLines() {
        let line = dumpfileLine(path: "/d", metadata: Metadata(permissions: 0o700), .directory(links: 1))
        #expect(line == Array("/d 0 40700 1 0 0 0 0.0 - - -\n".utf8))
        let link = dumpfileLine(path: "/l", metadata: Metadata(permissions: 0), .hardLink(to: "/a b"))
        #expect(link == Array("/l 0 @120000 - - - - 0.0 /a\\x20b - -\n".utf8))
    }

    @Test func linesAreBounded() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        for number in 0..<5000 { try tree.addLeaf(ByteString("f\(number)"), in: FileTree.root, Metadata(permissions: 0), .fifo) }
        var chunks = 0
        var largest = 0
        writeDumpfile(tree) {
            chunks += 1
            largest = max(largest, $0.count)
        }
        #expect(chunks > 1)
        #expect(largest < 80 << 10)
    }

    @Test func deepTreesNeedNoStack() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        var at = FileTree.root
        for _ in 0..<2000 { at = try tree.addDirectory("d", in: at, Metadata(permissions: 0o755)) }
        let again = try parseDumpfile(dumpfile(of: tree))
        #expect(dumpfile(of: again) == dumpfile(of: tree))
    }

    @Test func outputErrorsPassThrough() {
        struct Full: Error {}
        #expect(throws: Full.self) { try writeDumpfile(FileTree(root: Metadata(permissions: 0))) { _ throws(Full) in throw Full() } }
    }
}

@Suite struct DumpfileParsing {
    @Test func formsOfOtherWriters() throws {
        // A part of the reference implementation's special_v1 file: directory sizes, permissions and devices as mkcomposefs writes them.
        let tree = try parse(
            """
            / 4096 40555 2 0 0 0 1633950376.0 - - - trusted.foo1=bar-1 user.foo2=bar-2
            /blockdev 0 60777 1 0 0 107690 1633950376.0 - - - trusted.bar=bar-2
            /escaped-xattr 0 100777 1 0 0 0 1633950376.0 - - - trusted.overlay.redirect=/foo\\n user.foo=bar-2
            /inline 15 100777 1 0 0 0 1633950376.0 - FOOBAR\\nINAFILE\\n - user.foo=bar-2
            /later 0 @120000 - - - - 0.0 /z - -
            /z 0 10644 7 0 0 0 -5.1 - - -
            """)
        #expect(tree.content(of: try #require(tree.lookup(path: "/inline"))) == .inline("FOOBAR\nINAFILE\n"))
        let fifo = try #require(tree.lookup(path: "/later"))
        #expect(tree.lookup(path: "/z") == fifo)
        #expect(tree.linkCount(of: fifo) == 2)
        #expect(tree.modified(of: fifo) == Timestamp(seconds: -5, nanoseconds: 1))
        #expect(tree.metadata(of: FileTree.root)[attribute: "user.foo2"] == "bar-2")
        let escaped = try #require(tree.lookup(path: "/escaped-xattr"))
        #expect(tree.metadata(of: escaped)[attribute: "trusted.overlay.redirect"] == "/foo\n")
    }

    static let refused: [(String, Int, DumpfileError.Field)] = [
        ("", 0, .path),
        ("\n", 1, .line),
        (root + "\n", 2, .line),
        ("/ 0 40755 2 0 0 0 0.0 - -\n", 1, .line),
        ("/ 0 40755 2 0 0 0 0.0 - -  -\n", 1, .attribute),
        ("/ 0 100644 2 0 0 0 0.0 - - -\n", 1, .mode),
        ("/a 0 40755 2 0 0 0 0.0 - - -\n", 1, .path),
        (root + root, 2, .path),
        ("/ 0 @120000 - - - - 0.0 /x - -\n", 1, .path),
        // The classes of the C tool's should-fail files.
        (root + "/a 513 100644 1 0 0 0 0.0 - \(String(repeating: "x", count: 513)) -\n", 2, .content),
        (root + "/d 0 40755 2 0 0 0 0.0 - - -\n/e 0 @120000 - - - - 0.0 /d - -\n", 3, .path),
        (root + "/d 0 40755 2 0 0 0 0.0 - - -\n/e 0 @40000 - - - - 0.0 /d - -\n", 3, .mode),
        (root + "/. 0 40755 2 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/a/.. 0 40755 2 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/a 0 120777 1 0 0 0 0.0 - - -\n", 2, .payload),
        (root + "/a 0 @120000 - - - - 0.0 - - -\n", 2, .payload),
        (root + "// 0 40755 2 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/a/ 0 40755 2 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - =x\n", 2, .attribute),
        (root + "/a 1 120777 1 0 0 0 0.0 \(String(repeating: "x", count: 4096)) - -\n", 2, .payload),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - \(String(repeating: "k", count: 256))=x\n", 2, .attribute),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - k=\(String(repeating: "v", count: 65536))\n", 2, .attribute),
        (root + "/a 0 644 1 0 0 0 0.0 - - -\n", 2, .mode),
        (root + "/a 0 @120000 - - - - 0.0 /a - -\n", 2, .payload),
        (root + "/a 9500000000000000 100777 1 0 0 0 0.0 - - -\n", 2, .size),
        // Each field.
        (root + "a 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/\\q 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/\\x4 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/a\\x00 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/\(String(repeating: "n", count: 256)) 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + String(repeating: "/n", count: 2049) + " 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/x/a 0 100644 1 0 0 0 0.0 - - -\n", 2, .path),
        (root + "/x 0 100644 1 0 0 0 0.0 - - -\n/x/a 0 100644 1 0 0 0 0.0 - - -\n", 3, .path),
        (root + "/x 0 100644 1 0 0 0 0.0 - - -\n/x 0 100644 1 0 0 0 0.0 - - -\n", 3, .path),
        (root + "/a -1 100644 1 0 0 0 0.0 - - -\n", 2, .size),
        (root + "/a 18446744073709551616 100644 1 0 0 0 0.0 - - -\n", 2, .size),
        (root + "/a 0 100844 1 0 0 0 0.0 - - -\n", 2, .mode),
        (root + "/a 0 1100644 1 0 0 0 0.0 - - -\n", 2, .mode),
        (root + "/a 0 100644 x 0 0 0 0.0 - - -\n", 2, .nlink),
        (root + "/a 0 100644 1 4294967296 0 0 0.0 - - -\n", 2, .uid),
        (root + "/a 0 100644 1 0 4294967296 0 0.0 - - -\n", 2, .gid),
        (root + "/a 0 100644 1 0 0 1 0.0 - - -\n", 2, .rdev),
        (root + "/a 0 20644 1 0 0 4294967296 0.0 - - -\n", 2, .rdev),
        (root + "/a 0 100644 1 0 0 0 0 - - -\n", 2, .mtime),
        (root + "/a 0 100644 1 0 0 0 .0 - - -\n", 2, .mtime),
        (root + "/a 0 100644 1 0 0 0 -.0 - - -\n", 2, .mtime),
        (root + "/a 0 100644 1 0 0 0 0.1000000000 - - -\n", 2, .mtime),
        (root + "/a 0 100644 1 0 0 0 9223372036854775808.0 - - -\n", 2, .mtime),
        (root + "/a 0 100644 1 0 0 0 -9223372036854775809.0 - - -\n", 2, .mtime),
        (root + "/a 1 100644 1 0 0 0 0.0 ab - -\n", 2, .payload),
        (root + "/a 1 100644 1 0 0 0 0.0 ab/\(String(repeating: "ab", count: 31)) x -\n", 2, .content),
        (root + "/a 1 100644 1 0 0 0 0.0 ab/\(String(repeating: "ab", count: 31)) - abc\n", 2, .digest),
        (
            root + "/a 1 100644 1 0 0 0 0.0 ab/\(String(repeating: "ab", count: 31)) - \(String(repeating: "cd", count: 32))\n", 2,
            .digest
        ),
        (root + "/a 1 100644 1 0 0 0 0.0 - - \(String(repeating: "cd", count: 32))\n", 2, .digest),
        (root + "/a 2 100644 1 0 0 0 0.0 - x -\n", 2, .content),
        (root + "/a 0 40755 1 0 0 0 0.0 x - -\n", 2, .payload),
        (root + "/a 0 10644 1 0 0 0 0.0 - x -\n", 2, .content),
        (root + "/a 0 140644 1 0 0 0 0.0 - - ab\n", 2, .digest),
        (root + "/a 1 120777 1 0 0 0 0.0 a x -\n", 2, .content),
        (root + "/a 1 120777 1 0 0 0 0.0 a - ab\n", 2, .digest),
        (root + "/a 1 120777 1 0 0 0 0.0 a\\x00 - -\n", 2, .payload),
        (root + "/a 0 @120000 - - - - 0.0 a - -\n", 2, .payload),
        (root + "/a 0 @120000 - - - - 0.0 /gone - -\n", 2, .payload),
        (root + "/a 0 @0 - - - - 0.0 /gone - -\n", 2, .mode),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - k\n", 2, .attribute),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - k=1 k=2\n", 2, .attribute),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - k\\x00=1\n", 2, .attribute),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - k=\\x\n", 2, .attribute),
        (root + "/a 0 100644 1 0 0 0 0.0 - - - \n", 2, .attribute),
    ]

    @Test(arguments: refused) func refuses(text: String, line: Int, field: DumpfileError.Field) {
        let error = #expect(throws: DumpfileError.self) { try parse(text) }
        #expect(error?.line == line)
        #expect(error?.field == field)
        #expect(error?.description.contains("\n") == false)
    }

    @Test func messageNamesTheLine() {
        let error = #expect(throws: DumpfileError.self) { try parse(root + "/a b 0 100644 1 0 0 0 0.0 - - -\n") }
        #expect(error?.description == "dumpfile line 2 (/a): size: 'b' is not a number in base 10")
    }

    @Test func damageIsAnErrorOrATree() {
        let text = Array(baseImage.utf8)
        for end in 0..<text.count { _ = try? parseDumpfile(Array(text[..<end])) }
        for at in text.indices {
            var damaged = text
            for flip: UInt8 in [0x01, 0x20, 0x80] {
                damaged[at] ^= flip
                if let tree = try? parseDumpfile(damaged) {
                    let again = dumpfile(of: tree)
                    #expect((try? parseDumpfile(again)).map(dumpfile(of:)) == again)
                }
                damaged[at] ^= flip
            }
        }
    }
}
