import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import Glibc
import Testing

/// What programs that use the library get if they say nothing about attributes.
@Suite struct MountDefaultTests {
    @Test func withoutPrivileges() {
        let expected: MountAttributes = [.noSetUserID, .noDevices]
        #expect(MountOptions().attributes == expected && ServeOptions().attributes == expected)
        #expect(FuseMountOptions().attributes == expected)
    }
}

/// The privileges of a mounted image.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct MountPrivilegeTests {
    /// The mount's own options, sorted.
    private func options(_ path: String) -> [String] {
        let table = (try? readFile("/proc/self/mountinfo")).map { String(decoding: $0, as: UTF8.self) } ?? ""
        for line in table.split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count > 5, fields[4] == Substring(path) { return fields[5].split(separator: ",").map(String.init).sorted() }
        }
        return []
    }

    private static let cases: [(arguments: [String], options: [String])] = [
        ([], ["nodev", "nosuid", "relatime", "ro"]), (["--suid"], ["nodev", "relatime", "ro"]), (["--dev"], ["nosuid", "relatime", "ro"]),
        (["--suid", "--dev"], ["relatime", "ro"]), (["--noexec"], ["nodev", "noexec", "nosuid", "relatime", "ro"]),
        (["--suid", "--dev", "--noexec"], ["noexec", "relatime", "ro"]),
    ]

    @Test(arguments: 0..<6) func attributes(_ index: Int) throws {
        let fixture = try FuseFixture()
        let (arguments, expected) = Self.cases[index]
        try fixture.mount(arguments)
        #expect(options(fixture.fuse) == expected)
        _ = try fixture.store.run(["mount", "tool", fixture.kernel] + arguments)
        #expect(options(fixture.kernel) == expected)
        umount2(fixture.kernel, 0)
        let (upper, work) = (fixture.store.folder.path + "/upper", fixture.store.folder.path + "/work")
        for path in [upper, work] { mkdir(path, 0o755) }
        _ = try fixture.store.run(["mount", "tool", fixture.kernel, "--upperdir", upper, "--workdir", work] + arguments)
        #expect(options(fixture.kernel) == expected.map { $0 == "ro" ? "rw" : $0 }.sorted())
        umount2(fixture.kernel, 0)
        _ = try fixture.store.run(["mount", "tool", fixture.kernel, "--upperdir", upper, "--workdir", work, "--read-only"] + arguments)
        #expect(options(fixture.kernel) == expected)
    }

    /// As with mount(8): everything that is not forbidden is allowed.
    @Test func mountHelper() throws {
        let fixture = try FuseFixture()
        for (list, expected) in [("", ["relatime", "ro"]), (",nosuid,nodev", ["nodev", "nosuid", "relatime", "ro"])] {
            let result = try launch(
                Cfsoci.binary, ["mount.composefs", "tool", fixture.kernel, "-o", "repo=" + fixture.store.path + list])
            #expect(result.status == 0 && options(fixture.kernel) == expected, "\(result.error)")
            umount2(fixture.kernel, 0)
        }
    }

    /// A set-user-ID program of root gives an ordinary user no privileges.
    @Test(.enabled(if: hasProgram("setpriv"))) func setUserIDProgram() throws {
        let fixture = try FuseFixture()
        try mustShell(
            #"""
            mkdir -p "$1/tree/usr"; cp -L "$(command -v id)" "$1/tree/usr/id"; chmod 4755 "$1/tree/usr/id"
            chmod 755 "$1" "$2"; chmod -R a+rX "$2/objects"
            "$CFSOCI" create-image "$1/tree" ids --repo "$2" > /dev/null
            """#, [fixture.store.folder.path, fixture.store.path])
        func user(_ path: String) throws -> String {
            try mustShell("setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$1/usr/id\" -u", [path])
        }
        for (arguments, expected) in [([], "65534\n"), (["--suid"], "0\n")] {
            for more in [[], ["--fuse", "--allow-other"]] {
                _ = try fixture.store.run(["mount", "ids", fixture.kernel] + arguments + more)
                #expect(try user(fixture.kernel) == expected, "\(arguments) \(more)")
                #expect(try fixture.store.run(["umount", fixture.kernel]).status == 0)
            }
        }
    }

    // MARK: The root of a fresh upper directory

    /// Mode, owner, time and attributes of a directory in a mount.
    private func root(_ path: String) throws -> String {
        try mustShell(
            "stat -c '%a %u %g %Y' \"$1\"; getfattr -d -m '^(user|security.c|system)' --absolute-names \"$1\" 2>/dev/null | tail -n +2 | sort",
            [path])
    }

    @Test(.enabled(if: hasProgram("getfattr"), "needs attr"), arguments: [0o077, 0o000])
    func freshUpperDirectory(_ mask: Int) throws {
        let fixture = try FuseFixture()
        let folder = fixture.store.folder.path
        // The root has the attributes of /usr.
        let layout = LayoutBuilder(layers: [
            tarArchive([
                TarMember(name: "usr/", mode: 0o2751, uid: 7, gid: 8, type: "5"), TarMember(name: "usr/file", mode: 0o644, content: [1]),
            ])
        ])
        _ = try fixture.store.pull(layout, as: "odd")
        #expect(try fixture.store.run(["mount", "odd", fixture.kernel]).status == 0)
        let wanted = try root(fixture.kernel)
        #expect(wanted.hasPrefix("2751 7 8 "))
        umount2(fixture.kernel, 0)
        try mustShell("umask $2; mkdir \"$1/upper\" \"$1/work\"", [folder, String(mask, radix: 8)])
        let over = ["mount", "odd", fixture.kernel, "--upperdir", folder + "/upper", "--workdir", folder + "/work"]
        #expect(try fixture.store.run(over).status == 0)
        #expect(try root(fixture.kernel) == wanted)
        // Later changes are kept, even if the upper directory is empty.
        try mustShell("chmod 00711 \"$1\"; chown 1:2 \"$1\"; umount \"$1\"", [fixture.kernel])
        #expect(fileList(folder + "/upper").isEmpty)
        #expect(try fixture.store.run(over).status == 0)
        #expect(try root(fixture.kernel).hasPrefix("711 1 2 "))
        umount2(fixture.kernel, 0)
        // An upper directory with entries is not changed.
        try mustShell("mkdir -m 700 \"$1/other\"; touch \"$1/other/file\"", [folder])
        #expect(try fixture.store.run(over.map { $0 == folder + "/upper" ? folder + "/other" : $0 }).status == 0)
        #expect(try root(fixture.kernel).hasPrefix("700 0 0 "))
        umount2(fixture.kernel, 0)
        // So does the helper for mount(8).
        try mustShell("umask $2; mkdir \"$1/third\"", [folder, String(mask, radix: 8)])
        let helped = try launch(
            Cfsoci.binary,
            ["mount.composefs", "odd", fixture.kernel, "-o", "repo=\(fixture.store.path),upperdir=\(folder)/third,workdir=\(folder)/work"])
        #expect(helped.status == 0, "\(helped.error)")
        #expect(try root(fixture.kernel) == wanted)
    }

    /// The image of a directory keeps the extended attributes of its root, and the upper directory shows them.
    @Test(.enabled(if: hasProgram("setfacl") && hasProgram("getfattr"), "needs acl and attr"))
    func freshUpperDirectoryAttributes() throws {
        let fixture = try FuseFixture()
        let folder = fixture.store.folder.path
        try mustShell(
            #"""
            mkdir -m 770 "$1/tree" "$1/tree/usr"; echo x > "$1/tree/usr/file"
            setfattr -n user.color -v green "$1/tree"; setfacl -m u:7:rx,g:8:rwx "$1/tree"; setfacl -d -m u:7:rx "$1/tree"
            for d in "$1/tree/usr"; do setfattr -n user.color -v green "$d"; setfacl -m u:7:rx,g:8:rwx "$d"; setfacl -d -m u:7:rx "$d"; done
            touch -d @1000 "$1/tree/usr" "$1/tree"; mkdir -m 700 "$1/upper" "$1/work"
            "$CFSOCI" create-image "$1/tree" tree --xattrs keep-user-xattrs --repo "$2" > /dev/null
            """#, [folder, fixture.store.path])
        #expect(try fixture.store.run(["mount", "tree", fixture.kernel]).status == 0)
        let wanted = try root(fixture.kernel)
        #expect(wanted.contains("user.color=\"green\""))
        let lists = try mustShell("getfacl -n -c -p \"$1\"", [fixture.kernel])
        umount2(fixture.kernel, 0)
        #expect(
            try fixture.store.run(["mount", "tree", fixture.kernel, "--upperdir", folder + "/upper", "--workdir", folder + "/work"]).status
                == 0
        )
        #expect(try root(fixture.kernel) == wanted)
        #expect(try mustShell("getfacl -n -c -p \"$1\"", [fixture.kernel]) == lists)
    }

    // MARK: Messages

    @Test func deadServer() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        for pid in fixture.servers() { kill(pid, SIGKILL) }
        for _ in 0..<200 where !fixture.servers().isEmpty { usleep(10_000) }
        let remedy =
            "`cfsoci umount \(fixture.fuse)` removes the mount, and `cfsoci mount --fuse tool \(fixture.fuse)` mounts it again"
        let first = "\(fixture.fuse): the process that served this mount has ended; "
        for arguments in [["mount", "tool", fixture.fuse], ["mount", "--fuse", "tool", fixture.fuse]] {
            #expect(try fixture.store.run(arguments).error == "cfsoci: error: " + first + remedy + "\n")
        }
        let inside = try fixture.store.run(["create-image", fixture.fuse])
        #expect(
            inside.status == 1
                && inside.error.contains("the process that served \(fixture.fuse) has ended: `cfsoci umount \(fixture.fuse)` "),
            "\(inside.error)")
        #expect(try fixture.store.run(["umount", fixture.fuse]).status == 0)
        try fixture.mount()
    }

    @Test func damagedImage() throws {
        let fixture = try FuseFixture()
        let id = try fixture.store.succeed(["inspect", "tool"]).json()["imageIds"]?["v1"]?.string ?? ""
        let path = fixture.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[1200] ^= 1
        try writeFile(path, bytes)
        let remedy =
            "; `cfsoci fsck tool` lists the damage; `cfsoci fsck --repair tool` fetches what is damaged again\n"
        for arguments in [["mount", "tool", fixture.kernel], ["mount", "--fuse", "tool", fixture.fuse]] {
            let result = try fixture.store.run(arguments)
            #expect(result.status == 1)
            #expect(
                result.error.hasPrefix("cfsoci: error: tool: object \(id) is damaged: ") && result.error.hasSuffix(remedy),
                "\(result.error)")
        }
        let helped = try launch(Cfsoci.binary, ["mount.composefs", "tool", fixture.kernel, "-o", "repo=" + fixture.store.path])
        #expect(helped.status == 32)
        let start = "mount.composefs: tool: object \(id) is damaged: "
        #expect(helped.error.hasPrefix(start) && helped.error.hasSuffix(remedy), "\(helped.error)")
        // Following the message works.
        try mustShell(
            "\"$CFSOCI\" rm tool --repo \"$1\"; \"$CFSOCI\" gc --repo \"$1\"; \"$CFSOCI\" pull \"oci:$2\" tool --repo \"$1\"",
            [fixture.store.path, fixture.store.layoutPath("docker.io/library/tool:latest")])
        #expect(try fixture.store.run(["mount", "tool", fixture.kernel]).status == 0)
    }
}
