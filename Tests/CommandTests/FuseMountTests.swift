import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import Glibc
import Testing

/// Images that the real binary serves with FUSE, compared with mounts by the kernel.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct FuseMountTests {
    // MARK: Mounting and unmounting

    @Test func mountsAndUnmounts() throws {
        let fixture = try FuseFixture()
        let before = openFiles()
        for _ in 0..<3 {
            try fixture.mount()
            #expect(fixture.servers().count == 1)
            #expect(fileList(fixture.fuse) == ["usr", "usr/hard", "usr/link", "usr/other", "usr/small", "usr/tool"])
            #expect(try readFile(fixture.fuse + "/usr/link") == FuseFixture.big)
            #expect(try readFile(fixture.fuse + "/usr/small") == [1, 2])
            var one = stat()
            var two = stat()
            #expect(lstat(fixture.fuse + "/usr/hard", &one) == 0 && lstat(fixture.fuse + "/usr/tool", &two) == 0)
            #expect(one.st_ino == two.st_ino && one.st_nlink == 2)
            #expect(stat(fixture.fuse, &one) == 0 && one.st_ino == 1)
            #expect(try readFile(fixture.fuse + "/usr/hard") == FuseFixture.big)
            let line = try mustShell("grep -F \" $1 \" /proc/self/mountinfo", [fixture.fuse])
            #expect(line.contains(" - fuse.composefs composefs:") && line.contains("default_permissions"))
            try fixture.store.succeed(["umount", fixture.fuse])
            #expect(fixture.isQuiet())
        }
        #expect(openFiles() == before)
        #expect(try fixture.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    private func openFiles() -> Int { fileList("/proc/self/fd").count }

    /// A caller that waits for the end of the command's output does not wait for the server.
    @Test func serverKeepsNothingOfTheCallers() throws {
        let fixture = try FuseFixture()
        let result = try mustShell(
            #"""
            cd "$2"
            exec 7>held
            timeout 20 "$CFSOCI" mount --fuse tool fuse --repo repo 2>&1 | cat
            exec 7>&-
            pid=$(pgrep -f '^[^ ]*cfsoci mount --fuse tool fuse')
            readlink "/proc/$pid/cwd"
            ! ls -l "/proc/$pid/fd" | grep held > /dev/null
            readlink "/proc/$pid/fd/2"
            [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
            "$CFSOCI" umount fuse
            for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.02; done
            exit 1
            """#, [fixture.store.path, fixture.store.folder.path])
        #expect(result == "/\n/dev/null\n")
    }

    @Test func failuresLeaveNothing() throws {
        let fixture = try FuseFixture()
        for (arguments, message) in [
            (["nothing", fixture.fuse], "no image \"nothing\""), (["tool", fixture.fuse + "/none"], "No such file or directory"),
            (["tool", fixture.store.path + "/meta.json"], "Not a directory"), (["tool", fixture.fuse, "--bootable"], "boot"),
            (["tool", "/dev"], "/dev: cannot mount a FUSE image here"), (["tool", "/proc/"], "/proc: cannot mount a FUSE image here"),
        ] {
            for more in [[], ["--foreground"]] {
                let status: Int32 = arguments[0] == "nothing" ? 3 : 1
                #expect(try fixture.store.refuse(["mount", "--fuse"] + arguments + more, status: status).contains(message), "\(arguments)")
            }
        }
        for options in [["--upperdir", "/a", "--workdir", "/b"], ["--idmap", "/proc/self/ns/user"]] {
            #expect(try fixture.store.run(["mount", "--fuse", "tool", fixture.fuse] + options).status == 64)
        }
        #expect(fixture.isQuiet())
    }

    @Test(arguments: [SIGTERM, SIGINT, SIGHUP]) func signalsUnmount(signal: Int32) throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let pid = try #require(fixture.servers().first)
        // Also while it is in use.
        let file = open(fixture.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        kill(pid, signal)
        #expect(fixture.isQuiet())
        var byte: UInt8 = 0
        // Read directly by the kernel (passthrough), or not readable any more.
        let count = pread(file, &byte, 1, 400_000)
        #expect(count < 0 || byte == FuseFixture.big[400_000])
    }

    /// Descriptors of the process must not get the numbers 0, 1 and 2, even if the caller closed them.
    @Test(arguments: ["<&-", "<&- >&-", "<&- >&- 2>&-"]) func closedStandardDescriptors(closed: String) throws {
        let fixture = try FuseFixture()
        let text = try mustShell(
            "timeout 20 \"$CFSOCI\" mount --fuse tool \"$2\" --repo \"$1\" \(closed); cksum <\"$2/usr/tool\"; cksum <\"$2/usr/small\"",
            [fixture.store.path, fixture.fuse])
        #expect(text.split(separator: "\n").map { $0.split(separator: " ").last ?? "" } == ["500000", "2"])
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }

    /// A copy of the repository may share its objects by hard links, which changes their status but not their content.
    @Test func linksMadeWhileOpen() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let file = open(fixture.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        var byte: UInt8 = 0
        #expect(pread(file, &byte, 1, 1000) == 1 && byte == FuseFixture.big[1000])
        usleep(150_000)
        #expect(link(try fixture.objectPath(FuseFixture.big), fixture.store.folder.path + "/linked") == 0)
        #expect(try readFile(fixture.fuse + "/usr/tool") == FuseFixture.big)
        #expect(pread(file, &byte, 1, 400_000) == 1 && byte == FuseFixture.big[400_000])
    }

    /// The path of a mount may change.
    @Test func signalAfterRename() throws {
        let fixture = try FuseFixture()
        let folder = fixture.store.folder.path
        for path in ["/before one", "/before one/in\\ner"] { mkdir(folder + path, 0o755) }
        try fixture.mount(at: folder + "/before one/in\\ner")
        #expect(rename(folder + "/before one", folder + "/after wards") == 0)
        defer { umount2(folder + "/after wards/in\\ner", Int32(MNT_DETACH)) }
        kill(try #require(fixture.servers().first), SIGTERM)
        #expect(fixture.isQuiet())
        #expect(!(try readFile("/proc/self/mountinfo")).split(separator: 10).contains { $0.contains((folder + "/after\\040wards").utf8) })
    }

    /// A mount that was detached while in use: the server ends with the last user, or on a signal.
    @Test func signalAfterLazyUnmount() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let file = open(fixture.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        try fixture.store.succeed(["umount", fixture.fuse, "--lazy"])
        kill(try #require(fixture.servers().first), SIGTERM)
        #expect(fixture.isQuiet())
    }

    /// Programs started by nohup, or as a shell's background jobs, ignore some signals.
    @Test func ignoredSignals() throws {
        let fixture = try FuseFixture()
        let (out, error) = (fixture.store.folder.path + "/out", fixture.store.folder.path + "/err")
        let pid = try start(
            "bash",
            [
                "-c", "trap '' HUP INT; exec \"$0\" mount --fuse --foreground tool \"$2\" --repo \"$1\"", Cfsoci.binary, fixture.store.path,
                fixture.fuse,
            ],
            output: out, error: error)
        for _ in 0..<200 where !fixture.isMounted(fixture.fuse) { usleep(25_000) }
        for signal in [SIGHUP, SIGINT] {
            kill(pid, signal)
            usleep(200_000)
            #expect(try readFile(fixture.fuse + "/usr/small") == [1, 2])
        }
        kill(pid, SIGTERM)
        #expect(wait(for: pid) == 0)
        #expect(!fixture.isMounted(fixture.fuse))
    }

    /// The calling process was killed before the mount was complete.
    @Test func nobodyWaitsAnyMore() throws {
        let fixture = try FuseFixture()
        let result = try shell(
            "exec 3> >(exit); sleep 0.3; CFSOCI_FUSE_READY=3 timeout 20 \"$CFSOCI\" mount --fuse tool \"$2\" --repo \"$1\"",
            [fixture.store.path, fixture.fuse])
        #expect(result.status != 124)
        #expect(fixture.isQuiet())
    }

    @Test func foreground() throws {
        let fixture = try FuseFixture()
        let (out, error) = (fixture.store.folder.path + "/out", fixture.store.folder.path + "/err")
        let pid = try start(
            Cfsoci.binary, ["mount", "--fuse", "--foreground", "tool", fixture.fuse, "--repo", fixture.store.path], output: out,
            error: error)
        for _ in 0..<200 where !fixture.isMounted(fixture.fuse) { usleep(25_000) }
        let path = try fixture.objectPath(FuseFixture.big)
        let content = try readFile(path)
        unlink(path)
        #expect(open(fixture.fuse + "/usr/tool", O_RDONLY) < 0 && errno == ENOENT)
        try writeFile(path, content)
        kill(pid, SIGINT)
        #expect(wait(for: pid) == 0)
        #expect(!fixture.isMounted(fixture.fuse))
        #expect(try readFile(out).isEmpty)
        let said = String(decoding: try readFile(error), as: UTF8.self)
        #expect(
            said.hasPrefix("cfsoci: error: object ") && said.contains("is missing") && said.split(separator: "\n").count == 1, "\(said)")
    }

    /// `umount` removes the mount of a killed server.
    @Test func killedServer() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let pid = try #require(fixture.servers().first)
        kill(pid, SIGKILL)
        for _ in 0..<200 where !fixture.servers().isEmpty { usleep(25_000) }
        #expect(open(fixture.fuse + "/usr/small", O_RDONLY) < 0 && errno == ENOTCONN)
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(!fixture.isMounted(fixture.fuse))
    }

    @Test func mountsInUse() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let file = open(fixture.fuse + "/usr/tool", O_RDONLY)
        #expect(try fixture.store.refuse(["umount", fixture.fuse], status: 6).contains("the mount is in use"))
        try fixture.store.succeed(["umount", fixture.fuse, "--lazy"])
        // It ends with its last user.
        #expect(fixture.servers().count == 1)
        var byte: UInt8 = 0
        #expect(pread(file, &byte, 1, 300_000) == 1 && byte == FuseFixture.big[300_000])
        close(file)
        #expect(fixture.isQuiet())
    }

    /// While an image is served, garbage is collected, and nothing of the image.
    @Test func doesNotHoldTheLock() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        let before = fixture.store.files
        #expect(try fixture.store.succeed(["gc", "--wait", "0", "--json"]).json()["objectsRemoved"] == 0)
        #expect(fixture.store.files == before)
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
        #expect(try launch("timeout", ["20", Cfsoci.binary, "gc", "--repo", fixture.store.path]).status == 0)
    }

    // MARK: Under load

    /// Many simultaneous readers, killed clients, dropped caches, and unmounting during use.
    @Test(.timeLimit(.minutes(3))) func hammered() throws {
        let fixture = FuseFixture(try hammerStore())
        try fixture.mount(image: "image")
        let result = try shell(
            #"""
            sum() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }
            expected=$(sum "$2")
            end=$((SECONDS + 8))
            for reader in 1 2 3 4; do
                (while [ $SECONDS -lt $end ]; do [ "$(sum "$1")" = "$expected" ] || { echo "reader $reader read something else"; break; }; done) &
            done
            # Killed at any moment, while they look, open and read.
            (while [ $SECONDS -lt $end ]; do
                cat "$1"/files/* > /dev/null & one=$!
                find "$1" -ls > /dev/null & two=$!
                sleep 0.0$((RANDOM % 90 + 10)); kill -9 $one $two; wait $one $two || true
            done) 2>/dev/null &
            # A storm of forgets.
            (while [ $SECONDS -lt $end ]; do echo 2 > /proc/sys/vm/drop_caches; sleep 0.2; done) &
            # Names that are not there, directories, seeks to anywhere.
            (while [ $SECONDS -lt $end ]; do ls "$1"/files/nothing-$RANDOM "$1"/../fuse/files > /dev/null 2>&1 || true; done) &
            wait
            """#, [fixture.fuse, fixture.store.folder.path + "/tree"])
        #expect(result.status == 0 && result.text.isEmpty, "\(result.text) \(result.error)")
        #expect(fixture.servers().count == 1)
        // Unmounted during a read.
        let ended = try shell(
            #"(cat "$1"/files/* > /dev/null 2>&1 || true) & (find "$1" -type f -exec cat {} + > /dev/null 2>&1 || true) & sleep 0.1; umount -l "$1"; wait"#,
            [fixture.fuse])
        #expect(ended.status == 0)
        #expect(fixture.isQuiet())
    }

    private func hammerStore() throws -> ContractStore {
        let store = try ContractStore()
        let tree = store.folder.path + "/tree"
        try mustShell(
            #"""
            mkdir -p "$1/files" "$1/more/dirs"
            for i in $(seq 300); do head -c $((RANDOM * 3)) /dev/urandom > "$1/files/$i"; done
            head -c 20000000 /dev/urandom > "$1/more/large"
            for i in $(seq 50); do mkdir "$1/more/dirs/$i"; ln "$1/files/$i" "$1/more/dirs/$i/link"; done
            """#, [tree])
        try store.succeed(["create-image", tree, "image"])
        return store
    }
}
