import ComposefsJSON
import ComposefsTestSupport
import Testing

/// `boot entries`: everything in an image that can be booted.
struct BootEntriesTests {
    private static func file(_ name: String, _ text: String) -> TarMember { TarMember(name: name, content: Array(text.utf8)) }

    static func directories(_ paths: [String]) -> [TarMember] { paths.map { TarMember(name: $0 + "/", mode: 0o755, type: "5") } }

    static let base = directories(["usr", "etc", "boot", "sysroot", "var"])

    private func entries(_ members: [TarMember], fails: Bool = false) throws -> (entries: [JSONValue], error: String) {
        let store = try ContractStore()
        _ = try store.pull(LayoutBuilder(layers: [tarArchive(Self.base + members)]), as: "t")
        let result = try store.run(["boot", "entries", "t", "--json"])
        #expect(result.status == (fails ? 1 : 0), "\(result.error)")
        return (try result.json()["entries"]?.array ?? [], result.error)
    }

    private static let kernel = EFIProgram([
        (".osrel", "ID=example\nPRETTY_NAME=\"Example OS\"\nVERSION_ID=3\n"), (".cmdline", "ro  quiet"), (".uname", "6.12.1"),
        (".linux", "kernel"),
    ])

    @Test func everyKind() throws {
        let release = "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nID=debian\n"
        let big = String(repeating: "k", count: 5000)
        let found = try entries(
            Self.directories([
                "boot/loader", "boot/loader/entries", "boot/loader/addons", "boot/EFI", "boot/EFI/Linux", "boot/EFI/Linux/a.efi.extra.d",
                "usr/lib",
                "usr/lib/modules", "usr/lib/modules/6.12.1",
            ]) + [
                Self.file("usr/lib/os-release", release), TarMember(name: "etc/os-release", type: "2", link: "../usr/lib/os-release"),
                Self.file(
                    "boot/loader/entries/old+3-1.conf",
                    "title Old\nversion 1.2\nlinux /vmlinuz-1\ninitrd\t/boot/initrd-1 \noptions ro\noptions quiet\n"),
                Self.file("boot/loader/entries/usr.conf", "title Of usr\nlinux /usr/lib/modules/6.12.1/vmlinuz\n"),
                Self.file("boot/vmlinuz-1", "kernel 1"), Self.file("boot/initrd-1", "disk"),
                Self.file("boot/initrd.img-1", "debian's disk"),
                TarMember(name: "boot/EFI/Linux/a.efi", content: Self.kernel.bytes),
                TarMember(
                    name: "boot/EFI/Linux/a.efi.extra.d/x.addon.efi", content: EFIProgram([(".cmdline", "more")]).bytes),
                TarMember(name: "boot/loader/addons/all.addon.efi", content: EFIProgram([(".cmdline", "every")]).bytes),
                Self.file("boot/loader/addons/README", "nothing"),
                TarMember(name: "usr/lib/modules/6.12.1/v.efi", content: Self.kernel.bytes),
                Self.file("usr/lib/modules/6.12.1/vmlinuz", big), Self.file("usr/lib/modules/6.12.1/initramfs.img", "disk of usr"),
            ]
        ).entries
        func named(_ path: String) throws -> JSONValue { try #require(found.first { $0["path"] == .string(path) }, "\(path)") }
        #expect(
            found.compactMap { $0["path"]?.string } == [
                "/boot/loader/entries/old+3-1.conf", "/boot/loader/entries/usr.conf", "/boot/EFI/Linux/a.efi",
                "/boot/EFI/Linux/a.efi.extra.d/x.addon.efi", "/boot/loader/addons/all.addon.efi", "/usr/lib/modules/6.12.1/v.efi",
                "/usr/lib/modules/6.12.1/vmlinuz", "/boot/vmlinuz-1",
            ])
        #expect(
            try named("/boot/loader/entries/old+3-1.conf") == [
                "type": "entry", "path": "/boot/loader/entries/old+3-1.conf", "name": "old", "version": "1.2", "title": "Old",
                "options": ["ro", "quiet"],
                "files": [
                    ["key": "linux", "path": "/vmlinuz-1", "size": 8], ["key": "initrd", "path": "/boot/initrd-1", "size": 4],
                ], "isInBootImage": false, "problem": .null,
            ])
        let program: JSONValue = .integer(Int64(Self.kernel.bytes.count))
        for (path, name, isPart) in [("/boot/EFI/Linux/a.efi", "a", false), ("/usr/lib/modules/6.12.1/v.efi", "v", true)] {
            #expect(
                try named(path) == [
                    "type": "uki", "path": .string(path), "name": .string(name), "version": "6.12.1", "title": "Example OS 3",
                    "options": ["ro", "quiet"], "files": [["key": "efi", "path": .string(path), "size": program]],
                    "isInBootImage": .bool(isPart), "problem": .null,
                ])
        }
        let addon = try named("/boot/EFI/Linux/a.efi.extra.d/x.addon.efi")
        #expect(addon["type"] == "uki-addon" && addon["name"] == "x" && addon["options"] == ["more"] && addon["title"] == .null)
        #expect(try named("/boot/loader/addons/all.addon.efi")["type"] == "global-uki-addon")
        #expect(
            try named("/usr/lib/modules/6.12.1/vmlinuz") == [
                "type": "kernel", "path": "/usr/lib/modules/6.12.1/vmlinuz", "name": "6.12.1", "version": "6.12.1",
                "title": "Debian GNU/Linux 13 (trixie)", "options": .null,
                "files": [
                    ["key": "linux", "path": "/usr/lib/modules/6.12.1/vmlinuz", "size": 5000],
                    ["key": "initrd", "path": "/usr/lib/modules/6.12.1/initramfs.img", "size": 11],
                ], "isInBootImage": true, "problem": .null,
            ])
        // Debian's kernel is not part of the boot ID.
        let debian = try named("/boot/vmlinuz-1")
        #expect(debian["type"] == "boot-kernel" && debian["version"] == "1" && debian["isInBootImage"] == false)
        #expect(debian["files"]?[1]?["path"] == "/boot/initrd.img-1" && debian["files"]?[1]?["size"] == 13)
        // The kernel of an entry in /boot may be part of the image for booting; the entry is not.
        #expect(try named("/boot/loader/entries/usr.conf")["isInBootImage"] == false)
    }

    @Test func text() throws {
        let store = try ContractStore()
        let members =
            Self.directories(["usr/lib", "usr/lib/modules", "usr/lib/modules/6"]) + [
                Self.file("usr/lib/modules/6/vmlinuz", "k"), Self.file("usr/lib/modules/6/initramfs.img", "d"),
                Self.file("boot/vmlinuz-7", "k"),
                Self.file("boot/initrd.img-7", "d"),
            ]
        _ = try store.pull(LayoutBuilder(layers: [tarArchive(Self.base + members)]), as: "t")
        #expect(
            try store.succeed(["boot", "entries", "t"]).lines == [
                "TYPE         NAME  VERSION  TITLE  IN ID  PATH", "kernel       6     6        -      yes    /usr/lib/modules/6/vmlinuz",
                "boot-kernel  7     7        -      no     /boot/vmlinuz-7",
            ])
        let (other, _) = try ContractStore.small()
        #expect(try other.succeed(["boot", "entries", "t"]).lines == ["Nothing to boot"])
        #expect(try other.refuse(["boot", "entries", "missing"], status: 3).contains("no image \"missing\""))
    }

    /// What is damaged is listed with what is wrong, and the exit status is 1.
    @Test(arguments: [
        ("boot/loader/entries/a.conf", "title x\nlinux /missing\n", "/missing is not in the image"),
        ("boot/loader/entries/a.conf", "title x\nlinux /usr\n", "/usr is not a regular file"),
        ("boot/loader/entries/a.conf", "title x\n", "it names no kernel"),
        ("boot/EFI/Linux/a.efi", "MZ", "not an EFI program: no signature at offset 0"),
        ("usr/lib/modules/6/vmlinuz", "k", "there is no initial RAM disk /usr/lib/modules/6/initramfs.img"),
        ("boot/vmlinuz-7", "k", "there is no initial RAM disk /boot/initrd.img-7"),
    ])
    func damaged(_ path: String, _ content: String, _ problem: String) throws {
        let members =
            Self.directories([
                "boot/loader", "boot/loader/entries", "boot/EFI", "boot/EFI/Linux", "usr/lib", "usr/lib/modules", "usr/lib/modules/6",
            ]) + [Self.file(path, content)]
        let (found, error) = try entries(members, fails: true)
        #expect(found.count == 1 && found[0]["problem"] == .string(problem))
        #expect(error.contains("/\(path) cannot be booted: \(problem)"))
    }

    @Test func otherFilesThanPrograms() throws {
        let without = EFIProgram([(".osrel", "ID=x\n"), (".cmdline", "ro")])
        let members =
            Self.directories(["boot/EFI", "boot/EFI/Linux", "boot/loader", "boot/loader/entries", "boot/loader/entries/d.conf"]) + [
                TarMember(name: "boot/EFI/Linux/a.efi", content: without.bytes),
                TarMember(name: "boot/EFI/Linux/b.efi", type: "2", link: "nowhere"),
                TarMember(name: "boot/EFI/Linux/notes.txt"),
            ]
        let (found, _) = try entries(members, fails: true)
        #expect(
            found.map { $0["problem"] } == [
                "/boot/loader/entries/d.conf is not a regular file", "the EFI program has no section .linux",
                "/boot/EFI/Linux/b.efi is not in the image",
            ])
    }
}
