import ComposefsBootFormats
import ComposefsBytes
import Testing

@Suite struct LoaderEntryTests {
    private static let text = """
        # comment
        title  Example OS
        version 6.9.0
        linux /boot/vmlinuz-6.9.0
        initrd\t/boot/initrd-6.9.0
        initrd /boot/microcode/initrd-6.9.0
        options root=/dev/vda  composefs=old ro
        options quiet
        linuxx /no/key
        x-unknown value

        """

    @Test func valuesAndFiles() {
        let entry = LoaderEntry(parsing: Self.text.utf8)
        #expect(entry["title"] == "Example OS")
        #expect(entry.values(of: "initrd") == ["/boot/initrd-6.9.0", "/boot/microcode/initrd-6.9.0"])
        #expect(entry.files == ["/boot/vmlinuz-6.9.0", "/boot/initrd-6.9.0", "/boot/microcode/initrd-6.9.0"])
        #expect(entry.options.arguments == ["root=/dev/vda", "composefs=old", "ro", "quiet"])
        #expect(entry["missing"] == nil)
        #expect(String(decoding: entry.bytes, as: UTF8.self) == Self.text)
    }

    @Test func lineEndsAreNotContent() {
        #expect(LoaderEntry(parsing: "title a\r\nlinux /k".utf8).lines == ["title a", "linux /k"])
        #expect(LoaderEntry(parsing: "\r\r\na\r\r".utf8).lines == ["", "a"])
        #expect(LoaderEntry(parsing: "".utf8).lines == [])
        #expect(LoaderEntry(parsing: "\n\nlinux /k\n".utf8).lines == ["", "", "linux /k"])
    }

    @Test func argumentsAreReplacedOrAppended() {
        var entry = LoaderEntry(parsing: Self.text.utf8)
        entry.setArgument("composefs=new")
        entry.setArgument("rw")
        #expect(entry.values(of: "options") == ["root=/dev/vda composefs=new ro rw", "quiet"])
        var bare = LoaderEntry(["linux /k"])
        bare.setArgument("composefs=new")
        #expect(bare.lines == ["linux /k", "options composefs=new"])
    }

    @Test func relocationKeepsNamesApart() {
        var entry = LoaderEntry(parsing: Self.text.utf8)
        let moved = entry.relocate(to: "abc", subdirectory: "boot")
        #expect(moved.map(\.from) == ["/boot/vmlinuz-6.9.0", "/boot/initrd-6.9.0", "/boot/microcode/initrd-6.9.0"])
        #expect(moved.map(\.to) == ["abc/vmlinuz-6.9.0", "abc/initrd-6.9.0", "abc/2-initrd-6.9.0"])
        #expect(entry["linux"] == "/boot/abc/vmlinuz-6.9.0")
        #expect(entry.values(of: "initrd") == ["/boot/abc/initrd-6.9.0", "/boot/abc/2-initrd-6.9.0"])
        #expect(entry.lines.contains("linuxx /no/key"))

        var relative = LoaderEntry(["linux vmlinuz", "initrd /i", "initrd /i"])
        #expect(relative.relocate(to: "id").map(\.to) == ["id/i"])
        #expect(relative.lines == ["linux vmlinuz", "initrd /id/i", "initrd /id/i"])
    }

    @Test(
        "Counters of boot attempts",
        arguments: [
            ("abc.conf", "abc", nil, 0), ("abc+3.conf", "abc", 3, 0), ("abc+2-1.conf", "abc", 2, 1), ("abc+0-3.conf", "abc", 0, 3),
            ("abc+x.conf", "abc+x", nil, 0), ("abc+1-.conf", "abc+1-", nil, 0), ("a+b+3.conf", "a+b", 3, 0), ("+3.conf", "+3", nil, 0),
            ("abc+9999999999.conf", "abc+9999999999", nil, 0),
        ] as [(String, String, Int?, Int)])
    func counters(file: String, name: String, left: Int?, done: Int) throws {
        let parsed = try #require(LoaderEntryName(fileName: ByteString(file)))
        #expect(parsed == LoaderEntryName(ByteString(name), attemptsLeft: left, attemptsDone: done))
        #expect(parsed.stem + ".conf" == ByteString(file))
        #expect(parsed.isBad == (left == 0))
    }

    @Test(arguments: ["abc", ".conf", "abc.CONF", "abc.conf~"])
    func otherFiles(name: String) {
        #expect(LoaderEntryName(fileName: ByteString(name)) == nil)
    }
}
