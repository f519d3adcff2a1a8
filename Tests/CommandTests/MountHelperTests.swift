import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

/// `mount.composefs` with mount(8), fstab and mount namespaces.
@Suite(.serialized, .enabled(if: isRoot, "mounting needs root")) struct MountHelperTests {
    /// A repository with an image of a directory, its EROFS file and a mount point.
    private final class Setup {
        let store: ContractStore
        let id: String
        let target: String
        var objects: String { store.path + "/objects" }
        var image: String { objects + "/\(id.prefix(2))/\(id.dropFirst(2))" }

        init() throws {
            store = try ContractStore()
            let tree = store.folder.path + "/tree"
            mkdir(tree, 0o755)
            mkdir(tree + "/usr", 0o755)
            try writeFile(tree + "/usr/tool", MountHelperTests.big)
            try writeFile(tree + "/usr/small", [1, 2])
            id = try store.succeed(["create-image", tree, "tree"]).lines[0]
            target = store.folder.path + "/mounted"
            mkdir(target, 0o755)
        }

        deinit { while umount2(target, Int32(MNT_DETACH)) == 0 {} }

        func helper(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(["mount.composefs"] + arguments) }

        /// Exit status and the one line of error, without the program's name.
        func refusal(_ arguments: [String], sourceLocation: SourceLocation = #_sourceLocation) throws -> (Int32, String) {
            let result = try helper(arguments)
            #expect(result.output.isEmpty && result.error.hasPrefix("mount.composefs: "), "\(result.error)", sourceLocation: sourceLocation)
            #expect(result.error.split(separator: "\n").count == 1, "\(result.error)", sourceLocation: sourceLocation)
            #expect(mountLines(target).isEmpty, sourceLocation: sourceLocation)
            return (result.status, String(result.error.dropFirst("mount.composefs: ".count).dropLast()))
        }

        func expectContent(sourceLocation: SourceLocation = #_sourceLocation) throws {
            #expect(fileList(target) == ["usr", "usr/small", "usr/tool"], sourceLocation: sourceLocation)
            #expect(try readFile(target + "/usr/tool") == MountHelperTests.big, sourceLocation: sourceLocation)
            #expect(try readFile(target + "/usr/small") == [1, 2], sourceLocation: sourceLocation)
        }
    }

    private static let big = [UInt8]((0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ $0 >> 7) })

    @Test func argumentsInAnyOrder() throws {
        let setup = try Setup()
        let options = "rw,basedir=\(setup.objects),_netdev,x-systemd.automount"
        for arguments in [
            [setup.image, setup.target, "-o", options], ["-o", options, setup.image, setup.target],
            ["-n", setup.image, "-o" + options, setup.target], ["-nso", options, "-t", "composefs", setup.image, setup.target],
            ["-o", options, "-w", "--", setup.image, setup.target], ["-tcomposefs.x", "-r", setup.image, setup.target, "-o", options],
        ] {
            let result = try setup.helper(arguments)
            #expect(result.status == 0 && result.output.isEmpty && result.error.isEmpty, "\(arguments): \(result.error)")
            try setup.expectContent()
            let line = try #require(mountLines(setup.target).first)
            #expect(line.contains(" - overlay \(setup.image) ro,"), "\(line)")
            try setup.store.succeed(["umount", setup.target])
        }
        let loud = try setup.helper(["-v", setup.image, setup.target, "-s", "-o", options + ",nonsense"])
        #expect(
            loud.error
                == "mount.composefs: ignored: nonsense\nmount.composefs: \(setup.image) mounted on \(setup.target); "
                + "the image was not verified, the kernel does not check files\n")
        try setup.store.succeed(["umount", setup.target])
        #expect(try setup.helper(["-f", setup.image, setup.target, "-o", options]).status == 0)
        #expect(mountLines(setup.target).isEmpty)
        #expect(try setup.helper(["--help"]).text.hasPrefix("Usage: mount.composefs "))
        #expect(try setup.helper(["-V"]).text.hasPrefix("mount.composefs (cfsoci) "))
    }

    /// The binary's name decides, in any directory.
    @Test func byName() throws {
        let setup = try Setup()
        let link = setup.store.folder.path + "/mount.composefs"
        #expect(symlink(Cfsoci.binary, link) == 0)
        let result = try launch(link, [setup.image, setup.target, "-o", "basedir=\(setup.objects)"])
        #expect(result.status == 0, "\(result.error)")
        try setup.expectContent()
    }

    @Test func usage() throws {
        let setup = try Setup()
        let hint = "; mount.composefs --help shows the options"
        let options = ["-o", "basedir=\(setup.objects)"]
        for (arguments, message) in [
            ([], "an image and a directory are needed" + hint),
            ([setup.image] + options, "an image and a directory are needed" + hint),
            ([setup.image, setup.target, "more"] + options, "too many arguments: more" + hint),
            ([setup.image, setup.target, "-o"], "the option -o needs a value" + hint),
            ([setup.image, setup.target, "-x"] + options, "unknown option -x" + hint),
            ([setup.image, setup.target, "--x"] + options, "unknown option --x" + hint),
            ([setup.image, setup.target, "-t", "ext4"] + options, "file systems of type ext4 are not for this program" + hint),
            ([setup.image, setup.target], "no object directory: use basedir=DIR, or repo=DIR with the name of an image"),
            ([setup.image, setup.target, "-o", "basedir=/,wrong=1"], #"unknown mount option "wrong""#),
            (
                [setup.image, setup.target, "-o", "basedir=/,digest=12"],
                "digest=12 is not an fs-verity digest, which has 64 (sha256) or 128 (sha512) lower-case hexadecimal digits"
            ),
            (
                [setup.image, setup.target, "-o", "basedir=/,digest=sha256:\(setup.id)"],
                "digest=sha256:\(setup.id) is not an fs-verity digest, which has 64 (sha256) or 128 (sha512) lower-case hexadecimal digits"
            ),
        ] as [([String], String)] {
            #expect(try setup.refusal(arguments) == (1, message))
        }
    }

    @Test func failures() throws {
        let setup = try Setup()
        func refusal(_ source: String, _ options: String) throws -> (Int32, String) {
            try setup.refusal([source, setup.target, "-o", options])
        }
        let objects = "basedir=\(setup.objects)"
        #expect(try refusal("/none", objects) == (32, "open /none: No such file or directory"))
        #expect(try refusal(setup.image, objects + ":/none") == (32, "open /none: No such file or directory"))
        let (status, message) = try refusal(setup.store.path + "/meta.json", objects)
        #expect(status == 32 && message.contains(" \(setup.store.path)/meta.json: Invalid argument"), "\(message)")
        let fifo = setup.store.folder.path + "/fifo"
        mkfifo(fifo, 0o600)
        for (path, options) in [(fifo, ""), ("/dev/zero", ",noverity,digest=" + setup.id), ("/tmp", "")] {
            let result = try launch("timeout", ["20", Cfsoci.binary, "mount.composefs", path, setup.target, "-o", objects + options])
            #expect(result.error == "mount.composefs: \(path): not an image: neither a file nor a block device\n")
            #expect(result.status == 32)
        }
        #expect(try setup.refusal([setup.image, "/none", "-o", objects]) == (32, "open /none: No such file or directory"))
        let other = String(setup.id.reversed())
        #expect(
            try refusal(setup.image, objects + ",noverity,digest=\(other)")
                == (32, "\(setup.image): is another image: its digest is \(setup.id), not \(other)"))
        #expect(try refusal("nothing", "repo=\(setup.store.path)").0 == 32)
        #expect(try refusal("tree", "repo=\(setup.store.path),digest=\(other)") == (32, "tree is \(setup.id), not \(other)"))
        // The helper only mounts with the kernel.
        if hasProgram("setpriv") {
            let result = try launch(
                "setpriv",
                [
                    "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", Cfsoci.binary, "mount.composefs", setup.image, setup.target,
                    "-o", objects,
                ])
            #expect(result.status == 1 && result.error.hasPrefix("mount.composefs: mounting needs root privileges"), "\(result.error)")
        }
        if hasProgram("unshare"), try launch("unshare", ["-Ur", "true"]).status == 0 {
            let result = try launch("unshare", ["-Ur", Cfsoci.binary, "mount.composefs", setup.image, setup.target, "-o", objects])
            #expect(result.status == 1 && result.error.hasPrefix("mount.composefs: mounting needs root privileges"), "\(result.error)")
        }
        #expect(mountLines(setup.target).isEmpty)
    }

    @Test func digests() throws {
        let setup = try Setup()
        let objects = "basedir=\(setup.objects)"
        for options in ["digest=\(setup.id),noverity", "noverity,digest=sha512:\(setup.id)", "verity,noverity"] {
            #expect(try setup.helper([setup.image, setup.target, "-o", objects + "," + options]).status == 0, "\(options)")
            try setup.expectContent()
            try setup.store.succeed(["umount", setup.target])
        }
        // These files have no fs-verity.
        for options in ["digest=\(setup.id)", "digest=\(setup.id),verity", "digest=\(setup.id),tryverity"] {
            let (status, message) = try setup.refusal([setup.image, setup.target, "-o", objects + "," + options])
            #expect(status == 32 && message.hasPrefix("\(setup.image): has no fs-verity"), "\(message)")
        }
    }

    @Test func imagesOfARepository() throws {
        let setup = try Setup()
        for (source, options) in [("tree", ""), (setup.id, ""), ("tree@" + setup.id, ""), ("tree", ",digest=" + setup.id)] {
            let result = try setup.helper(["-v", source, setup.target, "-o", "repo=\(setup.store.path)" + options])
            #expect(
                result.status == 0
                    && result.error == "mount.composefs: \(source) (\(setup.id)) mounted on \(setup.target); the image was verified, "
                        + "the kernel does not check files\n",
                "\(result.error)")
            try setup.expectContent()
            try setup.store.succeed(["umount", setup.target])
        }
        #expect(try setup.helper(["-f", "tree", setup.target, "-o", "repo=\(setup.store.path)"]).status == 0)
        #expect(try setup.refusal(["-f", "no", setup.target, "-o", "repo=\(setup.store.path)"]).0 == 32)
    }

    /// `verity` requires a repository with fs-verity, as `--require-verity` does. This one has none.
    @Test func verityOfARepository() throws {
        let setup = try Setup()
        let options = "repo=\(setup.store.path)"
        let demanded = expectRefusal(try setup.store.run(["mount", "tree", setup.target, "--require-verity"]))
        for list in [",verity", ",tryverity,verity", ",verity,tryverity", ",verity,digest=\(setup.id)"] {
            #expect(try setup.refusal(["tree", setup.target, "-o", options + list]) == (32, demanded))
            #expect(try setup.refusal(["-f", "tree", setup.target, "-o", options + list]) == (32, demanded))
        }
        let environment = try Cfsoci.run(
            ["mount.composefs", "tree", setup.target, "-o", options], environment: ["CFSOCI_REQUIRE_VERITY=1"])
        #expect(environment.status == 32 && environment.error == "mount.composefs: \(demanded)\n", "\(environment.error)")
        #expect(
            try setup.refusal(["tree", setup.target, "-o", options + ",noverity"])
                == (1, "noverity cannot be used with repo=: if a repository has fs-verity, the kernel always checks its files"))
        #expect(try setup.helper(["tree", setup.target, "-o", options + ",tryverity"]).status == 0)
        try setup.expectContent()
    }

    @Test func upperDirectories() throws {
        let setup = try Setup()
        let (upper, work) = (setup.store.folder.path + "/up,per", setup.store.folder.path + "/wo:rk")
        for path in [upper, work] { mkdir(path, 0o755) }
        let options = #"basedir=\#(setup.objects),upperdir=\#(setup.store.folder.path)/up\,per,workdir=\#(setup.store.folder.path)/wo:rk"#
        #expect(try setup.helper([setup.image, setup.target, "-o", options]).status == 0)
        try writeFile(setup.target + "/new", [9])
        try setup.store.succeed(["umount", setup.target])
        #expect(try readFile(upper + "/new") == [9])
        #expect(try setup.helper([setup.image, setup.target, "-o", options + ",ro"]).status == 0)
        #expect(try readFile(setup.target + "/new") == [9])
        #expect(open(setup.target + "/more", O_WRONLY | O_CREAT, 0o600) < 0 && errno == EROFS)
        #expect(try setup.helper([setup.image, setup.target, "-o", "remount,rw,nosuid"]).status == 0)
        try writeFile(setup.target + "/more", [8])
        #expect(mountLines(setup.target).first?.contains(" rw,nosuid,relatime ") == true)
        #expect(try setup.helper([setup.image, setup.target, "-o", "remount,ro"]).status == 0)
        #expect(mountLines(setup.target).first?.contains(" ro,nosuid,relatime ") == true)
        try setup.store.succeed(["umount", setup.target])
        #expect(try setup.refusal([setup.image, setup.target, "-o", "remount,ro"]) == (32, "\(setup.target): not mounted"))
    }

    // MARK: mount(8)

    /// mount(8) searches helpers only in /sbin and /usr/sbin. Restores the directory afterwards.
    private func withHelperInstalled(_ body: () throws -> Void) throws {
        guard hasProgram("mount"), hasProgram("umount") else { try Test.cancel("needs mount(8)") }
        let path = "/usr/sbin/mount.composefs"
        guard access(path, F_OK) != 0 else { try Test.cancel("a mount.composefs is installed") }
        guard symlink(Cfsoci.binary, path) == 0 else { try Test.cancel("\(path) cannot be created") }
        defer { unlink(path) }
        try body()
    }

    @Test func throughMount() throws {
        try withHelperInstalled {
            let setup = try Setup()
            let objects = "basedir=\(setup.objects)"
            for (options, expected) in [
                ("", " ro,relatime "), (",nosuid,nodev,noatime,x-what=ever,nofail", " ro,nosuid,nodev,noatime "),
                (",ro,exec", " ro,relatime "),
                (",digest=\(setup.id),noverity", " ro,relatime "),
            ] {
                let result = try launch("mount", ["-t", "composefs", "-o", objects + options, setup.image, setup.target])
                #expect(result.status == 0 && result.error.isEmpty, "\(result.error)")
                try setup.expectContent()
                #expect(mountLines(setup.target).first?.contains(expected) == true)
                #expect(try launch("umount", [setup.target]).status == 0)
            }
            let wrong = try launch("mount", ["-t", "composefs", "-o", objects + ",wrong", setup.image, setup.target])
            #expect(wrong.status == 1 && wrong.error == "mount.composefs: unknown mount option \"wrong\"\n", "\(wrong.error)")
            #expect(try launch("mount", ["-t", "composefs", "-o", objects, "/none", setup.target]).status == 32)
            let fake = try launch("mount", ["-f", "-v", "-t", "composefs", "-o", objects, setup.image, setup.target])
            #expect(fake.status == 0 && mountLines(setup.target).isEmpty)
        }
    }

    /// The command line of systemd for a mount unit, with options from the unit or fstab.
    @Test func asUnitsMount() throws {
        try withHelperInstalled {
            let setup = try Setup()
            let option = "basedir=\(setup.objects)"
            for (options, expected) in [
                ("defaults", " ro,relatime "), ("ro,defaults", " ro,relatime "), ("defaults,rw", " ro,relatime "),
                ("_netdev,nofail,noauto", " ro,relatime "), ("auto,nouser,async", " ro,relatime "),
                (
                    "x-systemd.automount,x-systemd.requires=/var,x-systemd.after=network-online.target,x-systemd.mount-timeout=30",
                    " ro,relatime "
                ), ("x-systemd.device-timeout=10s,x-systemd.idle-timeout=1min,x-initrd.mount,x-gvfs-hide", " ro,relatime "),
                ("X-mount.mkdir=0700,comment=systemd.automount", " ro,relatime "), ("nosuid,nodev,nofail", " ro,nosuid,nodev,relatime "),
            ] {
                for (source, option) in [(setup.image, option), ("tree", "repo=\(setup.store.path)")] {
                    let result = try launch("mount", [source, setup.target, "-t", "composefs", "-o", option + "," + options])
                    #expect(result.status == 0 && result.output.isEmpty && result.error.isEmpty, "\(options): \(result.error)")
                    try setup.expectContent()
                    #expect(mountLines(setup.target).first?.contains(expected) == true, "\(options): \(mountLines(setup.target))")
                    #expect(try launch("umount", [setup.target, "-c"]).status == 0)
                }
            }
            // Tolerates unknown options, as with SloppyOptions=yes.
            let result = try launch("mount", ["tree", setup.target, "-s", "-t", "composefs", "-o", "repo=\(setup.store.path),unknown=1"])
            #expect(result.status == 0, "\(result.error)")
            #expect(try launch("umount", [setup.target, "-c"]).status == 0)
            // A unit with verity must not be mounted without it.
            let refused = try launch("mount", ["tree", setup.target, "-t", "composefs", "-o", "repo=\(setup.store.path),verity,nofail"])
            #expect(refused.status == 32 && mountLines(setup.target).isEmpty)
        }
    }

    private static let generator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"

    /// The mount units that systemd generates from fstab work.
    @Test(.enabled(if: access(generator, X_OK) == 0, "needs systemd")) func unitsOfFstab() throws {
        try withHelperInstalled {
            let setup = try Setup()
            let (table, units) = (setup.store.folder.path + "/fstab", setup.store.folder.path + "/units")
            let second = setup.store.folder.path + "/a second"
            for path in [second, units] { mkdir(path, 0o755) }
            defer { while umount2(second, Int32(MNT_DETACH)) == 0 {} }
            let lines = """
                \(setup.image) \(setup.target) composefs basedir=\(setup.objects),digest=\(setup.id),noverity,nofail,x-systemd.requires=/var 0 0
                tree \(second.replacing(" ", with: "\\040")) composefs repo=\(setup.store.path),_netdev,noauto,x-systemd.automount,defaults 0 0
                """
            try writeFile(table, Array((lines + "\n").utf8))
            let made = try launch(Self.generator, [units, units, units], environment: ["SYSTEMD_FSTAB=" + table])
            #expect(made.status == 0, "\(made.error)")
            var mounted: Set<String> = []
            for name in fileList(units) where name.hasSuffix(".mount") && !name.contains("/") {
                var unit: [String: String] = [:]
                for line in String(decoding: try readFile(units + "/" + name), as: UTF8.self).split(separator: "\n") {
                    let parts = line.split(separator: "=", maxSplits: 1).map(String.init)
                    if parts.count == 2 { unit[parts[0]] = parts[1] }
                }
                let (what, target) = (try #require(unit["What"]), try #require(unit["Where"]))
                let options = try #require(unit["Options"])
                #expect(unit["Type"] == "composefs")
                let result = try launch("mount", [what, target, "-t", "composefs", "-o", options])
                #expect(result.status == 0 && result.error.isEmpty, "\(options): \(result.error)")
                #expect(try readFile(target + "/usr/tool") == Self.big)
                #expect(try launch("umount", [target, "-c"]).status == 0)
                mounted.insert(target)
            }
            #expect(mounted == [setup.target, second])
        }
    }

    @Test func throughFstab() throws {
        try withHelperInstalled {
            let setup = try Setup()
            let table = setup.store.folder.path + "/fstab"
            let second = setup.store.folder.path + "/a second"
            mkdir(second, 0o755)
            defer { while umount2(second, Int32(MNT_DETACH)) == 0 {} }
            let lines = """
                \(setup.image) \(setup.target) composefs basedir=\(setup.objects),nofail,x-systemd.requires=/var 0 0
                tree \(second.replacing(" ", with: "\\040")) composefs repo=\(setup.store.path),digest=\(setup.id),_netdev 0 0
                """
            try writeFile(table, Array((lines + "\n").utf8))
            // After mounting, both are listed as mounted.
            for _ in 0..<2 {
                let result = try launch("mount", ["-T", table, "-a"])
                #expect(result.status == 0 && result.error.isEmpty, "\(result.error)")
                try setup.expectContent()
                #expect(mountLines(setup.target).count == 1)
                #expect(try readFile(second + "/usr/tool") == Self.big)
            }
            #expect(try launch("mount", ["-T", table, "-o", "remount,nosuid", setup.target]).status == 0)
            #expect(mountLines(setup.target).first?.contains("nosuid") == true)
            #expect(try launch("umount", [setup.target, second]).status == 0)
            let single = try launch("mount", ["-T", table, setup.target])
            #expect(single.status == 0, "\(single.error)")
            try setup.expectContent()
        }
    }

    // MARK: Namespaces

    /// Mounting for another mount namespace, and inside a new one.
    @Test(.enabled(if: hasProgram("unshare") && hasProgram("nsenter"), "needs unshare and nsenter")) func privateNamespaces() throws {
        let setup = try Setup()
        let options = "basedir=\(setup.objects)"
        let inside = try launch(
            "unshare",
            [
                "-m", "sh", "-ec",
                "\"$0\" mount tree \"$2\" --repo \"$1\" -q; cat \"$2/usr/small\" | wc -c; \"$0\" umount \"$2\"; ls \"$2\" | wc -l; \"$0\" mount tree \"$2\" --repo \"$1\" -q",
                Cfsoci.binary, setup.store.path, setup.target,
            ])
        #expect(inside.status == 0 && inside.lines == ["2", "0"], "\(inside.error)")
        #expect(mountLines(setup.target).isEmpty)

        let child = try start("unshare", ["-m", "sleep", "60"], output: "/dev/null", error: "/dev/null")
        defer {
            kill(child, SIGKILL)
            _ = wait(for: child)
        }
        let own = try FileDescriptor.currentDirectory.readLink(at: "/proc/self/ns/mnt")
        for _ in 0..<500 where try FileDescriptor.currentDirectory.readLink(at: ByteString("/proc/\(child)/ns/mnt")) == own {
            usleep(10_000)
        }
        for namespace in ["\(child)", "/proc/\(child)/ns/mnt"] {
            let result = try setup.helper([setup.image, setup.target, "-N", namespace, "-o", options])
            #expect(result.status == 0, "\(result.error)")
            #expect(mountLines(setup.target).isEmpty)
            #expect(try launch("nsenter", ["-m", "-t", "\(child)", "cat", setup.target + "/usr/tool"]).output == Self.big)
            #expect(try launch("nsenter", ["-m", "-t", "\(child)", Cfsoci.binary, "umount", setup.target]).status == 0)
        }
        #expect(try setup.refusal([setup.image, setup.target, "-N", "/proc/self/ns/user", "-o", options]).0 == 32)
    }

    /// The mount propagates like any other.
    @Test(.enabled(if: hasProgram("unshare") && hasProgram("nsenter"), "needs unshare and nsenter")) func propagation() throws {
        let setup = try Setup()
        let script = """
            mount --bind "$3" "$3"; mount --make-shared "$3"
            unshare -m --propagation slave sleep 60 & other=$!
            for i in 1 2 3 4 5 6 7 8 9 10; do [ "$(readlink /proc/$other/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ] || break; sleep 0.1; done
            "$0" mount tree "$2" --repo "$1" -q
            nsenter -m -t $other cat "$2/usr/small" | wc -c
            "$0" umount "$2"
            nsenter -m -t $other ls "$2" | wc -l
            kill $other
            """
        let result = try launch(
            "unshare", ["-m", "sh", "-ec", script, Cfsoci.binary, setup.store.path, setup.target, setup.store.folder.path])
        #expect(result.status == 0 && result.lines == ["2", "0"], "\(result.text)\(result.error)")
        #expect(mountLines(setup.target).isEmpty)
    }

    // MARK: What stays

    /// If the command is killed at any moment, it leaves the mount or nothing.
    @Test func killedAtManyPoints() throws {
        let setup = try Setup()
        func mount() throws -> pid_t {
            try start(Cfsoci.binary, ["mount", "tree", setup.target, "--repo", setup.store.path], output: "/dev/null", error: "/dev/null")
        }
        let begun = Host.monotonicNanoseconds()
        #expect(wait(for: try mount()) == 0)
        let span = Double(Host.monotonicNanoseconds() - begun) / 1000
        try setup.store.succeed(["umount", setup.target])
        var (mounted, attempts) = (0, 0)
        // Sixty times from its start; on a slow machine also later ones, until one is late enough.
        while attempts < 60 || (mounted == 0 && attempts < 400) {
            let pid = try mount()
            usleep(UInt32(span * Double(attempts) / 40))
            attempts += 1
            kill(pid, SIGKILL)
            _ = wait(for: pid)
            let lines = mountLines(setup.target)
            #expect(lines.count <= 1)
            if lines.isEmpty { continue }
            mounted += 1
            try setup.expectContent()
            try setup.store.succeed(["umount", setup.target])
        }
        #expect(mountLines(setup.target).isEmpty && loopDevices(setup.store.folder.path).isEmpty)
        #expect(mounted > 0 && mounted < attempts, "\(mounted) of \(attempts)")
    }

    @Test func cyclesLeaveNothing() throws {
        let setup = try Setup()
        let before = (allMounts(setup.store.folder.path), loopDevices(setup.store.folder.path), children())
        for _ in 0..<15 {
            try setup.store.succeed(["mount", "tree", setup.target, "-q"])
            try setup.store.succeed(["umount", setup.target])
            #expect(try setup.helper([setup.image, setup.target, "-o", "basedir=\(setup.objects)"]).status == 0)
            try setup.store.succeed(["umount", setup.target])
        }
        #expect(allMounts(setup.store.folder.path) == before.0 && loopDevices(setup.store.folder.path) == before.1)
        #expect(children() == before.2)
    }
}

/// The lines of mountinfo for a folder; other tests may mount at the same time.
private func allMounts(_ folder: String) -> [String] {
    String(decoding: (try? readFile("/proc/self/mountinfo")) ?? [], as: UTF8.self).split(separator: "\n").map(String.init)
        .filter { $0.contains(folder) }
}

/// The lines of mountinfo for a mount point without unusual characters.
private func mountLines(_ target: String) -> [String] {
    allMounts(target).filter { $0.split(separator: " ").dropFirst(4).first.map(String.init) == target }
}

/// Loop devices of files in a folder.
private func loopDevices(_ folder: String) -> [String] {
    fileList("/sys/block").filter { name in
        guard name.hasPrefix("loop"), let file = try? readFile("/sys/block/\(name)/loop/backing_file") else { return false }
        return String(decoding: file, as: UTF8.self).contains(folder)
    }
}

/// Child processes that were not waited for.
private func children() -> [UInt8] { (try? readFile("/proc/thread-self/children")) ?? [] }
