import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Glibc
import Testing

/// The real program on a disk that is a directory, in a mount namespace of its own. fs-verity is not available everywhere, so the repository is
/// insecure and the arguments have a `?`; tools/boot-test boots with fs-verity.
@Suite(.serialized) struct SetupRootTests {
    /// A disk with a repository, an image and its deployment.
    private final class Disk {
        let folder: TestFolder
        let id: ObjectID
        var path: String { folder.path.description + "/disk" }
        var deployment: String { path + "/state/deploy/" + id.hex }
        var argument: String { "composefs.digest=?v1-sha512-12:" + id.hex }

        static let big = [UInt8]((0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ $0 >> 7) })

        /// - Parameter directories: those of the image, besides `usr`.
        init(_ directories: [ByteString] = ["etc", "var", "sysroot"]) throws {
            try requireMounting()
            folder = try TestFolder("setup-root")
            let tree = folder.path + "/tree"
            for name in ["", "/usr"] + directories.map({ "/" + $0 }) as [ByteString] {
                try FileDescriptor.makeDirectory(tree + name, mode: 0o755)
            }
            try Self.write(Self.big, to: tree + "/usr/big")
            if directories.contains("etc") {
                try Self.write(Array("image\n".utf8), to: tree + "/etc/file")
                try FileDescriptor.currentDirectory.changeMode(at: tree + "/etc", 0o711)
            }
            try FileDescriptor.makeDirectory(folder.path + "/disk", mode: 0o755)
            let repository = try Repository.initialize(
                folder.path + "/disk/composefs", RepositoryConfiguration(verity: .insecure)
            ).repository
            let image = try repository.storeImage(writeErofs(repository.importDirectory(tree), version: .v1))
            var publication = Repository.Publication()
            publication.image(image.id)
            try repository.publish(publication)
            id = image.id
            for name in ["", "/deploy", "/deploy/" + id.hex, "/deploy/\(id.hex)/etc", "/os", "/os/default", "/os/default/var"] {
                try FileDescriptor.makeDirectory(folder.path + "/disk/state" + ByteString(name), mode: 0o755)
            }
            let disk = try FileDescriptor.open(folder.path + "/disk", [.readOnly, .directory])
            try disk.symlink(target: "../../os/default/var", at: "state/deploy/" + ByteString(id.hex) + "/var")
            try Self.write(Array("data\n".utf8), to: folder.path + "/disk/state/os/default/var/file")
        }

        static func write(_ bytes: [UInt8], to path: ByteString) throws {
            try FileDescriptor.open(path, [.writeOnly, .create, .truncate], mode: 0o644).writeAll(bytes)
        }

        /// Runs the program, and then the script in the directory that was the disk. All mounts end with it.
        func run(
            _ script: String = "", line: String? = nil, configuration: String = "", before: String = ""
        ) throws -> (status: Int32, output: String, error: String) {
            try Self.write(Array(configuration.utf8), to: folder.path + "/conf.toml")
            let text = """
                mount --bind "$1" "$1"
                \(before)
                "$2" --sysroot "$1" --config "$1/../conf.toml" --cmdline "$3" 2> "$1/../error"
                echo "status $?"
                cd "$1" || exit
                \(script)
                """
            try Self.write(Array(text.utf8), to: folder.path + "/script")
            let output = folder.path.description + "/output"
            var actions = posix_spawn_file_actions_t()
            posix_spawn_file_actions_init(&actions)
            defer { posix_spawn_file_actions_destroy(&actions) }
            posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
            posix_spawn_file_actions_adddup2(&actions, 1, 2)
            let arguments = [
                "unshare", "--mount", "--propagation", "private", "sh", folder.path.description + "/script", path, SetupRootTests.program,
                line ?? argument,
            ]
            var strings: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
            defer { for string in strings { free(string) } }
            var child: pid_t = 0
            try #require(posix_spawnp(&child, "unshare", &actions, nil, &strings, environ) == 0)
            var raw: Int32 = 0
            while waitpid(child, &raw, 0) < 0, errno == EINTR {}
            func read(_ name: ByteString) -> String {
                String(decoding: (try? FileDescriptor.open(folder.path + name, .readOnly).readAll(limit: 1 << 20)) ?? [], as: UTF8.self)
            }
            var lines = read("/output").split(separator: "\n", omittingEmptySubsequences: false)
            let first = lines.isEmpty ? "" : lines.removeFirst()
            let status = first.hasPrefix("status ") ? Int32(first.dropFirst(7)) : nil
            return (try #require(status, "\(read("/output"))"), lines.joined(separator: "\n"), read("/error"))
        }
    }

    /// The program that was built together with the tests.
    private static let program: String = {
        let runner = (try? FileDescriptor.currentDirectory.readLink(at: "/proc/self/exe"))?.description ?? ""
        return "/" + runner.split(separator: "/").dropLast().joined(separator: "/") + "/cfsoci-setup-root"
    }()

    /// The mounts at and below the directory, in their order: the path below it, whether it is read-only, the type and the source.
    private static let mounts = """
        while read -r _ _ _ root place options rest; do
            case $place in "$1" | "$1"/*) echo "[${place#"$1"}] ${options%%,*} $(set -- ${rest#*- }; echo $1 $2)" ;; esac
        done < /proc/self/mountinfo
        """

    @Test func theImageTakesThePlaceOfTheDisk() throws {
        let disk = try Disk()
        let result = try disk.run(
            Self.mounts + """

                cat etc/file var/file; cmp usr/big "$1/../tree/usr/big" && echo equal
                echo local > etc/file; echo more > var/more; ls sysroot
                touch usr/new 2>/dev/null || echo read-only
                stat -c %a etc
                """)
        #expect(
            result.status == 0
                && result.error == "cfsoci-setup-root: \(disk.argument) is the root file system; the kernel does not check its files\n")
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(lines.first == "[] ro overlay composefs:\(disk.id.hex)")
        #expect(lines.dropFirst().prefix(3).map { String($0.prefix { $0 != " " }) } == ["[/sysroot]", "[/etc]", "[/var]"])
        #expect(lines[2] == "[/etc] rw overlay overlay")
        #expect(Array(lines.dropFirst(4)) == ["image", "data", "equal", "composefs", "state", "read-only", "711"], "\(result.output)")
        // Changes are on the disk, and the next start shows them.
        #expect(try disk.run("cat etc/file var/more").output == "local\nmore\n")
        #expect(
            try String(
                decoding: FileDescriptor.open(ByteString(disk.deployment) + "/etc/upper/file", .readOnly).readAll(limit: 9), as: UTF8.self)
                == "local\n")
    }

    @Test func configured() throws {
        let disk = try Disk()
        var result = try disk.run(
            "touch usr/new etc/new && ls usr etc; cat etc/file; ls -A \"$1/sysroot/state/deploy/\"*/etc",
            configuration: "[root]\ntransient = true\n[etc]\ntransient = true\nmont = 1\n[var]\nmount = \"none\"\n")
        #expect(result.status == 0 && result.output == "etc:\nfile\nnew\n\nusr:\nbig\nnew\nimage\n", "\(result.output)\(result.error)")
        #expect(
            result.error.hasPrefix(
                "cfsoci-setup-root: \(disk.folder.path)/disk/../conf.toml:5: the key etc.mont is unknown and has no effect\n"))
        // Changes to /etc are on the disk, even if those to all else are not.
        result = try disk.run("touch usr/new etc/kept; stat -c %a . etc", configuration: "[root]\ntransient = true\n")
        #expect(result.status == 0 && result.output == "755\n711\n", "\(result.output)\(result.error)")
        #expect(try disk.run("ls -A usr etc; rm etc/kept").output == "etc:\nfile\nkept\n\nusr:\nbig\n")
        result = try disk.run("ls -A usr etc var", configuration: "[etc]\nmount = \"none\"\n[var]\nmount = \"transient\"\n")
        #expect(result.output == "etc:\nfile\n\nusr:\nbig\n\nvar:\n", "\(result.output)")
        // bootc: a whole copy of /etc.
        result = try Disk().run("ls -A etc; ls -A var", configuration: "[etc]\nmount = \"bind\"\n")
        #expect(result.output == "file\n", "\(result.output)\(result.error)")
    }

    /// Each refusal is one line, and the disk stays where it was.
    @Test func refusals() throws {
        let disk = try Disk()
        let other = String(repeating: "0123456789abcdef", count: 8)
        let strict = disk.argument.replacing("?")
        for (line, configuration, before, message) in [
            ("quiet", "", "", "no kernel argument composefs= or composefs.digest= names an image; `cfsoci boot karg IMAGE` prints it"),
            ("composefs=?\(other)", "", "", "composefs=?\(other): \(disk.path)/composefs has no such image"),
            // An image that is not there is followed by the next; another fault ends the attempts.
            (
                "composefs=?\(other) \(strict)", "", "",
                "\(strict): \(disk.path)/composefs: the repository is without fs-verity (meta.json has none), but verity is required; a ? before"
            ),
            ("composefs=xyz \(disk.argument)", "", "", "kernel argument composefs=xyz: the digest is not"),
            ("composefs=?\(other.prefix(64))", "", "", "composefs=?\(other.prefix(64)): repository algorithm "),
            (disk.argument, "[etc]\nmount = 1", "", "\(disk.path)/../conf.toml:2: etc.mount must be one of"),
            (
                disk.argument, "", "mount -o remount,bind,ro \"$1\"",
                "\(disk.argument): \(disk.path) is mounted read-only, and changes to /etc"
            ),
            (
                disk.argument, "", "mv \"$1/state/deploy\" \"$1/state/old\"",
                "\(disk.argument): \(disk.deployment)/etc is missing; `cfsoci boot prepare`"
            ),
        ] {
            let result = try disk.run(
                Self.mounts + "\nls", line: line, configuration: configuration, before: before)
            #expect(result.status == 1, "\(line): \(result.error)")
            #expect(result.error.split(separator: "\n").count == 1 && result.error.hasSuffix("\n"), "\(result.error)")
            #expect(result.error.hasPrefix("cfsoci-setup-root: " + message), "\(result.error)")
            let lines = result.output.split(separator: "\n")
            #expect(lines.count == 3 && lines[0].hasPrefix("[] ") && lines[1...].elementsEqual(["composefs", "state"]), "\(result.output)")
        }
    }

    @Test func damageIsRefused() throws {
        let disk = try Disk()
        let hex = disk.id.hex
        let object = ByteString("\(disk.path)/composefs/objects/\(hex.prefix(2))/\(hex.dropFirst(2))")
        try FileDescriptor.currentDirectory.changeMode(at: object, 0o644)
        let file = try FileDescriptor.open(object, .readWrite)
        try [UInt8(1)].withUnsafeBytes { (bytes) throws in try file.pwriteAll(bytes, at: 100) }
        let result = try disk.run(Self.mounts)
        #expect(result.status == 1 && result.error.split(separator: "\n").count == 1, "\(result.error)")
        #expect(result.error.hasPrefix("cfsoci-setup-root: \(disk.argument): "), "\(result.error)")
        #expect(result.output.split(separator: "\n").count == 1, "\(result.output)")
    }

    /// What was mounted when a later step fails is unmounted.
    @Test func anImageWithoutADirectory() throws {
        let disk = try Disk(["etc"])
        var result = try disk.run(Self.mounts)
        #expect(
            result.status == 1
                && result.error == "cfsoci-setup-root: \(disk.argument): the image has no directory /var to mount the deployment's on\n")
        #expect(result.output.split(separator: "\n").count == 1, "\(result.output)")
        result = try disk.run(Self.mounts, configuration: "[var]\nmount = \"none\"")
        #expect(result.status == 0 && result.output.split(separator: "\n").count == 2, "\(result.error)\(result.output)")
    }

    @Test func theKernelsLogHasTheLine() throws {
        guard let log = try? FileDescriptor.open("/dev/kmsg", [.readOnly, .nonBlocking]) else {
            try Test.cancel("no access to the kernel's log")
        }
        let unique = "composefs=" + Host.randomName()
        _ = try Disk().run(line: unique)
        var records: [String] = []
        var buffer = [UInt8](repeating: 0, count: 8192)
        while true {
            do {
                let count = try buffer.withUnsafeMutableBytes { try log.read(into: $0) }
                let record = String(decoding: buffer.prefix(count), as: UTF8.self)
                if record.contains(unique) { records.append(record) }
            } catch let error as SystemError {
                // EPIPE: the record was overwritten meanwhile; the next read returns a later one.
                guard error.errno == .brokenPipe else { break }
            }
        }
        #expect(records.count == 1, "\(records)")
        // Facility 1 is user space: 8 + level 3, which `quiet` does not hide.
        let parts = try #require(records.first).split(separator: ";", maxSplits: 1)
        #expect(parts.first?.hasPrefix("11,") == true, "\(records)")
        #expect(parts.last?.hasPrefix("cfsoci-setup-root: kernel argument \(unique): ") == true)
    }

    /// The program under the other name.
    @Test func mountComposefs() throws {
        let disk = try Disk()
        let result = try disk.run(
            """
            mkdir "$1/../bin" "$1/../target"; ln -s "$2" "$1/../bin/mount.composefs"; repo=$1/sysroot/composefs
            for source in \(disk.id.hex) \(String(repeating: "ab", count: 64)); do
                "$1/../bin/mount.composefs" -v $source "$1/../target" -o repo=$repo 2>&1; echo "status $?"
            done
            cmp usr/big "$1/../target/usr/big" && echo equal
            "$1/../bin/mount.composefs" $repo/images/\(disk.id.hex) "$1/../target" -o basedir=$repo/objects,noverity,digest=\(disk.id.hex); echo "status $?"
            "$1/../bin/mount.composefs" x; echo "status $?"
            """)
        let lines = result.output.split(separator: "\n").map(String.init)
        try #require(lines.count == 8, "\(result.output)")
        #expect(lines[0].hasSuffix("the image was verified, the kernel does not check files") && lines[1] == "status 0")
        #expect(lines[2].hasPrefix("mount.composefs: ") && lines[3] == "status 32", "\(lines[2])")
        #expect(lines[4] == "equal" && lines[5] == "status 0")
        #expect(
            lines[6] == "mount.composefs: an image and a directory are needed; mount.composefs --help shows the options"
                && lines[7] == "status 1")
    }
}

extension String {
    /// Without a character.
    fileprivate func replacing(_ character: Character) -> String { filter { $0 != character } }
}
