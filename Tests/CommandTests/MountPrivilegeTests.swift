import ComposefsJSON
import Glibc
import Testing

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
        let place = try FusePlace()
        let (arguments, expected) = Self.cases[index]
        try place.mount(arguments)
        #expect(options(place.fuse) == expected)
        _ = try place.store.run(["mount", "tool", place.kernel] + arguments)
        #expect(options(place.kernel) == expected)
        umount2(place.kernel, 0)
        let (upper, work) = (place.store.folder.path + "/upper", place.store.folder.path + "/work")
        for path in [upper, work] { mkdir(path, 0o755) }
        _ = try place.store.run(["mount", "tool", place.kernel, "--upperdir", upper, "--workdir", work] + arguments)
        #expect(options(place.kernel) == expected.map { $0 == "ro" ? "rw" : $0 }.sorted())
        umount2(place.kernel, 0)
        _ = try place.store.run(["mount", "tool", place.kernel, "--upperdir", upper, "--workdir", work, "--read-only"] + arguments)
        #expect(options(place.kernel) == expected)
    }

    /// As with mount(8): everything that is not forbidden is allowed.
    @Test func mountHelper() throws {
        let place = try FusePlace()
        for (list, expected) in [("", ["relatime", "ro"]), (",nosuid,nodev", ["nodev", "nosuid", "relatime", "ro"])] {
            let result = try launch(
                Cfsoci.binary, ["mount.composefs", "tool", place.kernel, "-o", "repo=" + place.store.path + list])
            #expect(result.status == 0 && options(place.kernel) == expected, "\(result.error)")
            umount2(place.kernel, 0)
        }
    }

    /// A set-user-ID program of root gives an ordinary user no privileges.
    @Test(.enabled(if: hasProgram("setpriv"))) func setUserIDProgram() throws {
        let place = try FusePlace()
        try mustShell(
            #"""
            mkdir -p "$1/tree/usr"; cp -L "$(command -v id)" "$1/tree/usr/id"; chmod 4755 "$1/tree/usr/id"
            chmod 755 "$1" "$2"; chmod -R a+rX "$2/objects"
            "$CFSOCI" create-image "$1/tree" ids --repo "$2" > /dev/null
            """#, [place.store.folder.path, place.store.path])
        func user(_ path: String) throws -> String {
            try mustShell("setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$1/usr/id\" -u", [path])
        }
        for (arguments, expected) in [([], "65534\n"), (["--suid"], "0\n")] {
            for more in [[], ["--fuse", "--allow-other"]] {
                _ = try place.store.run(["mount", "ids", place.kernel] + arguments + more)
                #expect(try user(place.kernel) == expected, "\(arguments) \(more)")
                #expect(try place.store.run(["umount", place.kernel]).status == 0)
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
        let place = try FusePlace()
        let folder = place.store.folder.path
        // The root has the attributes of /usr.
        let layout = LayoutBuilder(layers: [
            tarArchive([
                TarMember(name: "usr/", mode: 0o2751, uid: 7, gid: 8, type: "5"), TarMember(name: "usr/file", mode: 0o644, content: [1]),
            ])
        ])
        _ = try place.store.pull(layout, as: "odd")
        #expect(try place.store.run(["mount", "odd", place.kernel]).status == 0)
        let wanted = try root(place.kernel)
        #expect(wanted.hasPrefix("2751 7 8 "))
        umount2(place.kernel, 0)
        try mustShell("umask $2; mkdir \"$1/upper\" \"$1/work\"", [folder, String(mask, radix: 8)])
        let over = ["mount", "odd", place.kernel, "--upperdir", folder + "/upper", "--workdir", folder + "/work"]
        #expect(try place.store.run(over).status == 0)
        #expect(try root(place.kernel) == wanted)
        // Later changes are kept, even if the upper directory is empty.
        try mustShell("chmod 00711 \"$1\"; chown 1:2 \"$1\"; umount \"$1\"", [place.kernel])
        #expect(fileList(folder + "/upper").isEmpty)
        #expect(try place.store.run(over).status == 0)
        #expect(try root(place.kernel).hasPrefix("711 1 2 "))
        umount2(place.kernel, 0)
        // An upper directory with entries is not changed.
        try mustShell("mkdir -m 700 \"$1/other\"; touch \"$1/other/file\"", [folder])
        #expect(try place.store.run(over.map { $0 == folder + "/upper" ? folder + "/other" : $0 }).status == 0)
        #expect(try root(place.kernel).hasPrefix("700 0 0 "))
        umount2(place.kernel, 0)
        // So does the helper for mount(8).
        try mustShell("umask $2; mkdir \"$1/third\"", [folder, String(mask, radix: 8)])
        let helped = try launch(
            Cfsoci.binary,
            ["mount.composefs", "odd", place.kernel, "-o", "repo=\(place.store.path),upperdir=\(folder)/third,workdir=\(folder)/work"])
        #expect(helped.status == 0, "\(helped.error)")
        #expect(try root(place.kernel) == wanted)
    }

    /// The image of a directory keeps the extended attributes of its root, and the upper directory shows them.
    @Test(.enabled(if: hasProgram("setfacl") && hasProgram("getfattr"), "needs acl and attr"))
    func freshUpperDirectoryAttributes() throws {
        let place = try FusePlace()
        let folder = place.store.folder.path
        try mustShell(
            #"""
            mkdir -m 770 "$1/tree" "$1/tree/usr"; echo x > "$1/tree/usr/file"
            setfattr -n user.color -v green "$1/tree"; setfacl -m u:7:rx,g:8:rwx "$1/tree"; setfacl -d -m u:7:rx "$1/tree"
            for d in "$1/tree/usr"; do setfattr -n user.color -v green "$d"; setfacl -m u:7:rx,g:8:rwx "$d"; setfacl -d -m u:7:rx "$d"; done
            touch -d @1000 "$1/tree/usr" "$1/tree"; mkdir -m 700 "$1/upper" "$1/work"
            "$CFSOCI" create-image "$1/tree" tree --xattrs keep-user-xattrs --repo "$2" > /dev/null
            """#, [folder, place.store.path])
        #expect(try place.store.run(["mount", "tree", place.kernel]).status == 0)
        let wanted = try root(place.kernel)
        #expect(wanted.contains("user.color=\"green\""))
        let lists = try mustShell("getfacl -n -c -p \"$1\"", [place.kernel])
        umount2(place.kernel, 0)
        #expect(
            try place.store.run(["mount", "tree", place.kernel, "--upperdir", folder + "/upper", "--workdir", folder + "/work"]).status == 0
        )
        #expect(try root(place.kernel) == wanted)
        #expect(try mustShell("getfacl -n -c -p \"$1\"", [place.kernel]) == lists)
    }

    // MARK: Messages

    @Test func deadServer() throws {
        let place = try FusePlace()
        try place.mount()
        for pid in place.servers() { kill(pid, SIGKILL) }
        for _ in 0..<200 where !place.servers().isEmpty { usleep(10_000) }
        let remedy =
            "`cfsoci umount \(place.fuse)` removes the mount, and `cfsoci mount --fuse tool \(place.fuse)` makes it anew"
        let first = "\(place.fuse): the process that served this mount has ended; "
        for arguments in [["mount", "tool", place.fuse], ["mount", "--fuse", "tool", place.fuse]] {
            #expect(try place.store.run(arguments).error == "cfsoci: " + first + remedy + "\n")
        }
        let inside = try place.store.run(["create-image", place.fuse])
        #expect(
            inside.status == 1 && inside.error.contains("the process that served \(place.fuse) has ended: `cfsoci umount \(place.fuse)` "),
            "\(inside.error)")
        #expect(try place.store.run(["umount", place.fuse]).status == 0)
        try place.mount()
    }

    @Test func damagedImage() throws {
        let place = try FusePlace()
        let id = try place.store.succeed(["inspect", "tool"]).json()["imageIds"]?["v1"]?.string ?? ""
        let path = place.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[1200] ^= 1
        try writeFile(path, bytes)
        let remedy =
            "; `cfsoci fsck tool` lists the damage; `cfsoci fsck --repair tool` fetches what is damaged again\n"
        for arguments in [["mount", "tool", place.kernel], ["mount", "--fuse", "tool", place.fuse]] {
            let result = try place.store.run(arguments)
            #expect(result.status == 1)
            #expect(result.error.hasPrefix("cfsoci: tool: object \(id) is damaged: ") && result.error.hasSuffix(remedy), "\(result.error)")
        }
        let helped = try launch(Cfsoci.binary, ["mount.composefs", "tool", place.kernel, "-o", "repo=" + place.store.path])
        #expect(helped.status == 32)
        let start = "mount.composefs: tool: object \(id) is damaged: "
        #expect(helped.error.hasPrefix(start) && helped.error.hasSuffix(remedy), "\(helped.error)")
        // Following the message works.
        try mustShell(
            "\"$CFSOCI\" rm tool --repo \"$1\"; \"$CFSOCI\" gc --repo \"$1\"; \"$CFSOCI\" pull \"oci:$2\" tool --repo \"$1\"",
            [place.store.path, place.store.layoutPath("docker.io/library/tool:latest")])
        #expect(try place.store.run(["mount", "tool", place.kernel]).status == 0)
    }
}
