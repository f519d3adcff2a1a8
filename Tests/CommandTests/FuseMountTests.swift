import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// Images served with FUSE by the real binary, beside mounts by the kernel.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct FuseMountTests {
    // MARK: Mounting and unmounting

    @Test func mountsAndUnmounts() throws {
        let place = try FusePlace()
        let before = openFiles()
        for _ in 0..<3 {
            try place.mount()
            #expect(place.servers().count == 1)
            #expect(fileList(place.fuse) == ["usr", "usr/hard", "usr/link", "usr/other", "usr/small", "usr/tool"])
            #expect(try readFile(place.fuse + "/usr/link") == FusePlace.big)
            #expect(try readFile(place.fuse + "/usr/small") == [1, 2])
            var one = stat()
            var two = stat()
            #expect(lstat(place.fuse + "/usr/hard", &one) == 0 && lstat(place.fuse + "/usr/tool", &two) == 0)
            #expect(one.st_ino == two.st_ino && one.st_nlink == 2)
            #expect(stat(place.fuse, &one) == 0 && one.st_ino == 1)
            #expect(try readFile(place.fuse + "/usr/hard") == FusePlace.big)
            let line = try mustShell("grep -F \" $1 \" /proc/self/mountinfo", [place.fuse])
            #expect(line.contains(" - fuse.composefs composefs:") && line.contains("default_permissions"))
            try place.store.succeed(["umount", place.fuse])
            #expect(place.isQuiet())
        }
        #expect(openFiles() == before)
        #expect(try place.store.succeed(["fsck"]).lines.last == "status: ok")
    }

    private func openFiles() -> Int { fileList("/proc/self/fd").count }

    /// Whoever waits for the command's output waits for the command, not for the server.
    @Test func serverKeepsNothingOfTheCallers() throws {
        let place = try FusePlace()
        let result = try mustShell(
            #"""
            cd "$2"
            exec 7>held
            timeout 20 "$CFSOCI" mount --fuse tool fuse --repo repo 2>&1 | cat
            exec 7>&-
            pid=$(pgrep -f '^[^ ]*cfsoci mount --fuse tool fuse')
            readlink "/proc/$pid/cwd"
            ! ls -l "/proc/$pid/fd" | grep -q held
            readlink "/proc/$pid/fd/2"
            [ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$pid" ]
            "$CFSOCI" umount fuse
            for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.02; done
            exit 1
            """#, [place.store.path, place.store.folder.path])
        #expect(result == "/\n/dev/null\n")
    }

    @Test func failuresLeaveNothing() throws {
        let place = try FusePlace()
        for (arguments, message) in [
            (["nothing", place.fuse], "no image \"nothing\""), (["tool", place.fuse + "/none"], "No such file or directory"),
            (["tool", place.store.path + "/meta.json"], "Not a directory"), (["tool", place.fuse, "--bootable"], "boot"),
            (["tool", "/dev"], "/dev: cannot be covered"), (["tool", "/proc/"], "/proc: cannot be covered"),
        ] {
            for more in [[], ["--foreground"]] {
                #expect(try place.store.refuse(["mount", "--fuse"] + arguments + more).contains(message), "\(arguments)")
            }
        }
        for options in [["--upperdir", "/a", "--workdir", "/b"], ["--idmap", "/proc/self/ns/user"]] {
            #expect(try place.store.run(["mount", "--fuse", "tool", place.fuse] + options).status == 64)
        }
        #expect(place.isQuiet())
    }

    @Test(arguments: [SIGTERM, SIGINT, SIGHUP]) func signalsUnmount(signal: Int32) throws {
        let place = try FusePlace()
        try place.mount()
        let pid = try #require(place.servers().first)
        // Also while it is in use.
        let file = open(place.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        kill(pid, signal)
        #expect(place.isQuiet())
        var byte: UInt8 = 0
        // Read by the kernel itself (passthrough), or not any more.
        let count = pread(file, &byte, 1, 400_000)
        #expect(count < 0 || byte == FusePlace.big[400_000])
    }

    /// Descriptors that the process opens must not take the numbers of those that its caller closed.
    @Test(arguments: ["<&-", "<&- >&-", "<&- >&- 2>&-"]) func closedStandardDescriptors(closed: String) throws {
        let place = try FusePlace()
        let text = try mustShell(
            "timeout 20 \"$CFSOCI\" mount --fuse tool \"$2\" --repo \"$1\" \(closed); cksum <\"$2/usr/tool\"; cksum <\"$2/usr/small\"",
            [place.store.path, place.fuse])
        #expect(text.split(separator: "\n").map { $0.split(separator: " ").last ?? "" } == ["500000", "2"])
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    /// A copy of the repository may share its objects by hard links, which changes their status but not their content.
    @Test func linksMadeWhileOpen() throws {
        let place = try FusePlace()
        try place.mount()
        let file = open(place.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        var byte: UInt8 = 0
        #expect(pread(file, &byte, 1, 1000) == 1 && byte == FusePlace.big[1000])
        usleep(150_000)
        #expect(link(try place.objectPath(FusePlace.big), place.store.folder.path + "/linked") == 0)
        #expect(try readFile(place.fuse + "/usr/tool") == FusePlace.big)
        #expect(pread(file, &byte, 1, 400_000) == 1 && byte == FusePlace.big[400_000])
    }

    /// Where the mount is may change while it is there.
    @Test func signalAfterRename() throws {
        let place = try FusePlace()
        let folder = place.store.folder.path
        for path in ["/before one", "/before one/in\\ner"] { mkdir(folder + path, 0o755) }
        try place.mount(at: folder + "/before one/in\\ner")
        #expect(rename(folder + "/before one", folder + "/after wards") == 0)
        defer { umount2(folder + "/after wards/in\\ner", Int32(MNT_DETACH)) }
        kill(try #require(place.servers().first), SIGTERM)
        #expect(place.isQuiet())
        #expect(!(try readFile("/proc/self/mountinfo")).split(separator: 10).contains { $0.contains((folder + "/after\\040wards").utf8) })
    }

    /// Somebody took it out of the tree while it was in use: the server ends with the last user, or when it is told to.
    @Test func signalAfterLazyUnmount() throws {
        let place = try FusePlace()
        try place.mount()
        let file = open(place.fuse + "/usr/tool", O_RDONLY)
        defer { close(file) }
        try place.store.succeed(["umount", place.fuse, "--lazy"])
        kill(try #require(place.servers().first), SIGTERM)
        #expect(place.isQuiet())
    }

    /// nohup, and a shell's background jobs, ignore signals for what they start.
    @Test func ignoredSignals() throws {
        let place = try FusePlace()
        let (out, error) = (place.store.folder.path + "/out", place.store.folder.path + "/err")
        let pid = try start(
            "bash",
            [
                "-c", "trap '' HUP INT; exec \"$0\" mount --fuse --foreground tool \"$2\" --repo \"$1\"", Cfsoci.binary, place.store.path,
                place.fuse,
            ],
            output: out, error: error)
        for _ in 0..<200 where !place.isMounted(place.fuse) { usleep(25_000) }
        for signal in [SIGHUP, SIGINT] {
            kill(pid, signal)
            usleep(200_000)
            #expect(try readFile(place.fuse + "/usr/small") == [1, 2])
        }
        kill(pid, SIGTERM)
        #expect(wait(for: pid) == 0)
        #expect(!place.isMounted(place.fuse))
    }

    /// Whoever wanted it mounted was ended before it was.
    @Test func nobodyWaitsAnyMore() throws {
        let place = try FusePlace()
        let result = try shell(
            "exec 3> >(exit); sleep 0.3; CFSOCI_FUSE_READY=3 timeout 20 \"$CFSOCI\" mount --fuse tool \"$2\" --repo \"$1\"",
            [place.store.path, place.fuse])
        #expect(result.status != 124)
        #expect(place.isQuiet())
    }

    @Test func foreground() throws {
        let place = try FusePlace()
        let (out, error) = (place.store.folder.path + "/out", place.store.folder.path + "/err")
        let pid = try start(
            Cfsoci.binary, ["mount", "--fuse", "--foreground", "tool", place.fuse, "--repo", place.store.path], output: out, error: error)
        for _ in 0..<200 where !place.isMounted(place.fuse) { usleep(25_000) }
        let path = try place.objectPath(FusePlace.big)
        let content = try readFile(path)
        unlink(path)
        #expect(open(place.fuse + "/usr/tool", O_RDONLY) < 0 && errno == ENOENT)
        try writeFile(path, content)
        kill(pid, SIGINT)
        #expect(wait(for: pid) == 0)
        #expect(!place.isMounted(place.fuse))
        #expect(try readFile(out).isEmpty)
        let said = String(decoding: try readFile(error), as: UTF8.self)
        #expect(said.hasPrefix("cfsoci: object ") && said.contains("is missing") && said.split(separator: "\n").count == 1, "\(said)")
    }

    /// A server that was killed leaves a mount that `umount` takes away.
    @Test func killedServer() throws {
        let place = try FusePlace()
        try place.mount()
        let pid = try #require(place.servers().first)
        kill(pid, SIGKILL)
        for _ in 0..<200 where !place.servers().isEmpty { usleep(25_000) }
        #expect(open(place.fuse + "/usr/small", O_RDONLY) < 0 && errno == ENOTCONN)
        try place.store.succeed(["umount", place.fuse])
        #expect(!place.isMounted(place.fuse))
    }

    @Test func mountsInUse() throws {
        let place = try FusePlace()
        try place.mount()
        let file = open(place.fuse + "/usr/tool", O_RDONLY)
        #expect(try place.store.refuse(["umount", place.fuse]).contains("the mount is in use"))
        try place.store.succeed(["umount", place.fuse, "--lazy"])
        // It ends with its last user.
        #expect(place.servers().count == 1)
        var byte: UInt8 = 0
        #expect(pread(file, &byte, 1, 300_000) == 1 && byte == FusePlace.big[300_000])
        close(file)
        #expect(place.isQuiet())
    }

    /// While an image is served, no garbage collection runs.
    @Test func holdsTheLock() throws {
        let place = try FusePlace()
        try place.mount()
        let blocked = try launch("timeout", ["1", Cfsoci.binary, "gc", "--repo", place.store.path])
        #expect(blocked.status == 124, "\(blocked.error)")
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
        #expect(try launch("timeout", ["20", Cfsoci.binary, "gc", "--repo", place.store.path]).status == 0)
    }

    // MARK: What is seen

    private static let makeTree = #"""
        mkdir "$1"; cd "$1"
        mkdir -m 0755 usr; mkdir -m 1777 usr/sticky; mkdir -m 0700 usr/private; mkdir -p usr/deep/er/still usr/many
        for i in $(seq 600); do printf '%s' "$i" > "usr/many/a file with a name of some length $i"; done
        head -c 200000 /dev/urandom > usr/random; cp usr/random usr/same; ln usr/random usr/deep/linked
        head -c 65 /dev/zero > usr/sixtyfive; head -c 64 /dev/zero > usr/sixtyfour; : > usr/empty
        head -c 10000 /dev/zero | tr '\0' y > usr/page; truncate -s 300000 usr/holes
        ln -s random usr/link; ln -s "$(head -c "${2:-4000}" /dev/zero | tr '\0' z)" usr/long-link; ln -s /nowhere usr/dangling
        mknod usr/null c 1 3; mknod usr/disk b 300 70000; mkfifo usr/pipe
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("usr/socket")'
        touch "usr/$(printf '\377\376 odd \001')" "usr/$(head -c 255 /dev/zero | tr '\0' n)" usr/-dash usr/!bang
        chmod 4755 usr/page; chmod 0000 usr/sixtyfive; chown 12345:54321 usr/random; chown -h 7:8 usr/link; chown 4000000000:3000000000 usr/empty
        touch -d '1960-01-02 03:04:05.678901234 UTC' usr/page; touch -h -d '2038-02-01 00:00:00.5 UTC' usr/link
        setfattr -n user.one -v 1 usr/page; setfattr -n user.long -v "$(head -c 3000 /dev/zero | tr '\0' v)" usr/page usr/deep
        setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 usr/random
        setfattr -n trusted.kept -v t usr/page
        setfacl -m u:12345:rwx,g:54321:r usr/many; setfacl -d -m u:1:r usr/many; setfacl -m u:65534:r usr/private usr/same; chmod 0640 usr/same || true
        setfacl -m u:65534:r usr/same
        """#

    private static let describe = #"""
        cd "$1"
        find . -mindepth 1 -printf '%p\t%y\t%m\t%U\t%G\t%T@\t%l\t' \( -type d -printf '-\n' -o -printf '%n %s\n' \)
        echo "-- devices"; find . \( -type b -o -type c \) -exec stat -c '%n %t %T' {} +
        echo "-- content"; find . -type f -print0 | xargs -0 sha256sum
        echo "-- hard links"
        find . -type f -links +1 -printf '%i %p\n' | sort -k2 | awk '{ if (!($1 in first)) first[$1] = $2; print first[$1], $2 }'
        echo "-- attributes"; getfattr -R -h -d -m - -e hex . 2>/dev/null | awk '/^# file: / { file = $0; next } NF { print file, $0 }'
        """#

    private static let needsAttributes = hasProgram("setfattr") && hasProgram("setfacl") && hasProgram("python3")

    @Test(.enabled(if: needsAttributes, "needs attr, acl and python3"), arguments: ["0", "1", "2"])
    func equalsTheOriginalAndTheKernels(version: String) throws {
        let place = FusePlace(try ContractStore(["--erofs-version", version]))
        let tree = place.store.folder.path + "/tree"
        // Format 2 takes shorter targets: those that every kernel reads.
        try mustShell(Self.makeTree, [tree, version == "2" ? "1024" : "4000"])
        try place.store.succeed(["create-image", tree, "image", "--xattrs", "keep-user-xattrs"])
        try place.mount(["--dev"], image: "image")
        #expect(try place.store.run(["mount", "image", place.kernel, "--dev", "--quiet"]).status == 0)
        func lines(_ path: String) throws -> [String] {
            try mustShell(Self.describe, [path]).split(separator: "\n").map(String.init).sorted()
        }
        let (original, fuse, kernel) = (try lines(tree), try lines(place.fuse), try lines(place.kernel))
        #expect(fuse.count > 1200)
        #expect(Set(fuse).symmetricDifference(kernel).sorted() == [])
        // What `create-image` leaves out: ACLs and trusted attributes; what version 2 does: nanoseconds.
        func comparable(_ lines: [String]) -> Set<String> {
            Set(
                lines.filter {
                    !$0.contains(" trusted.") && !$0.contains(" system.") && !(version == "2" && $0.split(separator: "\t").count > 5)
                })
        }
        #expect(comparable(fuse).symmetricDifference(comparable(original)).sorted() == [])
        // What find does not print: access and change times, allocated size, the order of entries is each file system's own.
        for path in ["/usr/page", "/usr/deep", "/usr/link", "/usr/pipe"] {
            var (one, two) = (stat(), stat())
            #expect(lstat(place.fuse + path, &one) == 0 && lstat(place.kernel + path, &two) == 0)
            #expect(
                one.st_atim.tv_sec == two.st_atim.tv_sec && one.st_ctim.tv_nsec == two.st_ctim.tv_nsec && one.st_blksize == two.st_blksize)
        }
        for path in ["/usr/null", "/usr/disk"] { #expect(open(place.fuse + path + "/x", O_RDONLY) < 0 && errno == ENOTDIR) }
        let null = open(place.fuse + "/usr/null", O_RDWR)
        #expect(null >= 0 && write(null, "x", 1) == 1)
        close(null)
        try place.store.succeed(["umount", place.fuse])
        try place.store.succeed(["umount", place.kernel])
        #expect(place.isQuiet())
    }

    /// Whiteouts are character devices 0:0, as they were, so that an overlay over the mount honours them.
    @Test(arguments: ["1", "2"]) func whiteouts(version: String) throws {
        let place = FusePlace(try ContractStore(["--erofs-version", version]))
        let tree = place.store.folder.path + "/tree"
        try mustShell(#"mkdir -p "$1/usr/dir"; mknod "$1/usr/gone" c 0 0; mknod "$1/ff" c 0 0; echo x > "$1/usr/dir/file""#, [tree])
        try place.store.succeed(["create-image", tree, "image"])
        try place.mount(image: "image")
        var status = stat()
        #expect(lstat(place.fuse + "/usr/gone", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR && status.st_rdev == 0)
        #expect(fileList(place.fuse).contains("usr/gone"))
        let under = place.store.folder.path + "/under"
        let seen = try mustShell(
            #"mkdir -p "$1/usr/dir"; touch "$1/usr/gone" "$1/usr/kept"; mount -t overlay overlay -o "lowerdir=$2:$1" "$3"; ls "$3/usr"; umount "$3""#,
            [under, place.fuse, place.kernel])
        #expect(seen == "dir\nkept\n")
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    @Test(.enabled(if: needsAttributes && hasProgram("setpriv"), "needs attr, acl, python3 and setpriv")) func permissions() throws {
        let place = FusePlace(try ContractStore())
        let tree = place.store.folder.path + "/tree"
        try mustShell(Self.makeTree, [tree])
        try place.store.succeed(["create-image", tree, "image"])
        chmod(place.store.folder.path, 0o755)
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
        // Only the one who mounted looks inside, unless all may.
        try place.mount(image: "image")
        #expect(try shell("\(nobody) ls \"$1\"", [place.fuse]).error.contains("Permission denied"))
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
        try place.mount(["--allow-other"], image: "image")
        #expect(try shell("\(nobody) ls \"$1/usr/many\"", [place.fuse]).status == 0)
        for (path, isReadable) in [("page", true), ("sixtyfive", false), ("private/x", false)] {
            let result = try shell("\(nobody) cat \"$1/usr/\(path)\"", [place.fuse])
            #expect((result.status == 0) == isReadable, "\(path): \(result.error)")
        }
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    // MARK: Tampering

    private func openError(_ path: String) -> Int32 {
        let descriptor = open(path, O_RDONLY)
        if descriptor < 0 { return errno }
        close(descriptor)
        return 0
    }

    @Test func tamperedObjects() throws {
        let place = try FusePlace()
        let path = try place.objectPath(FusePlace.big)
        let file = place.fuse + "/usr/tool"
        // Changed before it is first opened.
        var changed = FusePlace.big
        changed[changed.count / 2] ^= 1
        try place.mount()
        unlink(path)
        try writeFile(path, changed)
        #expect(openError(file) == EIO)
        #expect(openError(place.fuse + "/usr/hard") == EIO)
        #expect(openError(place.fuse + "/usr/other") == 0)
        // Cut short, another kind of file, nothing.
        try writeFile(path, Array(FusePlace.big.dropLast()))
        #expect(openError(file) == EIO)
        unlink(path)
        mkfifo(path, 0o644)
        #expect(openError(file) == EIO)
        unlink(path)
        mkdir(path, 0o755)
        #expect(openError(file) == EIO)
        rmdir(path)
        symlink("other", path)
        #expect(openError(file) == EIO)
        unlink(path)
        #expect(openError(file) == ENOENT)
        var status = stat()
        #expect(lstat(file, &status) == 0 && status.st_size == FusePlace.big.count)
        // Good again.
        try writeFile(path, FusePlace.big)
        #expect(try openError(file) == 0 && readFile(file) == FusePlace.big)
        // Changed in place, or replaced, after it was found good, be it at once or later.
        for pause in [0, 300_000] as [UInt32] {
            usleep(pause)
            #expect(openError(file) == 0)
            usleep(pause)
            chmod(path, 0o644)
            try writeFile(path, changed)
            #expect(openError(file) == EIO, "after \(pause) µs")
            try writeFile(path, FusePlace.big)
            #expect(openError(file) == 0)
            usleep(pause)
            unlink(path)
            try writeFile(path, changed)
            // Kept open, the good one is still served; anew, the bad one is not.
            #expect([0, EIO].contains(openError(file)))
            if openError(file) == 0 { #expect(try readFile(file) == FusePlace.big) }
            unlink(path)
            try writeFile(path, FusePlace.big)
            #expect(openError(file) == 0)
        }
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    /// The same where files are opened by their first read: reading fails, and what the kernel has read stays what was verified.
    @Test func tamperedObjectsWithLazyOpens() throws {
        let place = try FusePlace()
        let path = try place.objectPath(FusePlace.big)
        let file = place.fuse + "/usr/tool"
        var changed = FusePlace.big
        changed[changed.count / 2] ^= 1
        try place.mount(["--lazy-open"])
        unlink(path)
        #expect(throws: RunFailure.self) { try readFile(file) }
        try writeFile(path, changed)
        #expect(throws: RunFailure.self) { try readFile(file) }
        #expect(try readFile(place.fuse + "/usr/small") == [1, 2])
        try writeFile(path, FusePlace.big)
        #expect(try readFile(file) == FusePlace.big)
        usleep(300_000)
        try writeFile(path, changed)
        // From the kernel's cache, or not at all.
        if let content = try? readFile(file) { #expect(content == FusePlace.big) }
        #expect(open(place.fuse + "/usr/tool", O_RDWR) < 0 && errno == EROFS)
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    @Test func damagedImagesAreNotServed() throws {
        let place = try FusePlace()
        let id = try place.store.succeed(["compute-id", "tool"]).lines[0]
        let path = place.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[bytes.count / 2] ^= 1
        unlink(path)
        try writeFile(path, bytes)
        #expect(try place.store.refuse(["mount", "--fuse", "tool", place.fuse]).contains(id))
        #expect(place.isQuiet())
    }

    // MARK: Without privileges

    /// In a user and mount namespace of its own, where root is nobody outside: mounted directly, read without passthrough.
    @Test(arguments: [["--fuse"], []]) func inAUserNamespace(options: [String]) throws {
        guard try launch("unshare", ["-Urm", "true"]).status == 0 else { return }
        let place = try FusePlace()
        let text = try mustShell(
            #"""
            unshare -Urm bash -euo pipefail -c '
                "$CFSOCI" mount tool "$2" --repo "$1" ${3:-} 2> "$1/../said"
                cmp "$2/usr/tool" "$2/usr/hard"; sha256sum < "$2/usr/tool"; stat -c "%u %s %a" "$2/usr/small"
                if : > "$2/new"; then exit 9; fi 2>/dev/null
                grep -F " $2 " /proc/self/mountinfo | grep -o "fuse.composefs composefs:"
                "$CFSOCI" umount "$2" --repo "$1"
                ! grep -qF " $2 " /proc/self/mountinfo' bash "$@"
            cat "$1/../said"
            """#, [place.store.path, place.fuse] + options)
        let lines = text.split(separator: "\n").map(String.init)
        let sum = try mustShell("sha256sum < \"$1\"", [try place.objectPath(FusePlace.big)]).split(separator: "\n").first.map(String.init)
        #expect(lines.first == sum)
        // Owners that the namespace does not have are shown as nobody.
        #expect(lines.dropFirst().first == "65534 2 640")
        #expect(lines.contains("fuse.composefs composefs:"))
        // The kernel does not mount EROFS for a namespace: FUSE is what is done instead, and said.
        let note = lines.last { $0.contains("serving the image with FUSE instead") }
        #expect((note != nil) == options.isEmpty)
        #expect(place.isQuiet())
    }

    /// Through `fusermount3`, as a user who may use `/dev/fuse`: the device's mode is changed only where this test alone sees it.
    @Test(.enabled(if: hasProgram("fusermount3") && hasProgram("setpriv"), "needs fusermount3 and setpriv")) func throughTheHelper() throws
    {
        let place = try FusePlace()
        let text = try mustShell(
            #"""
            chmod 755 "$3"; chown -R 65534:65534 "$1" "$2"
            unshare -m --propagation private bash -euo pipefail -c '
                mknod "$3/device" c 10 229; chmod 666 "$3/device"; mount --bind "$3/device" /dev/fuse
                as="setpriv --reuid 65534 --regid 65534 --clear-groups"
                $as "$CFSOCI" mount tool "$2" --repo "$1" 2>&1 | sed "s/:.*with FUSE/: with FUSE/"
                $as cmp "$2/usr/tool" "$2/usr/hard"
                grep -F " $2 " /proc/self/mountinfo | grep -c "fuse.composefs composefs:.*user_id=65534"
                if cat "$2/usr/tool" >/dev/null 2>&1; then echo "root looks inside"; fi
                $as bash -c "exec 9< \"$2/usr/tool\"; \"$CFSOCI\" umount \"$2\" --repo \"$1\"" 2>&1 || echo "status $?"
                $as "$CFSOCI" umount "$2" --repo "$1"
                ! grep -qF " $2 " /proc/self/mountinfo
                $as "$CFSOCI" mount --fuse tool "$2" --repo "$1"
                kill $(pgrep -f "^[^ ]*cfsoci mount --fuse tool $2")
                for _ in $(seq 200); do grep -qF " $2 " /proc/self/mountinfo || break; sleep 0.02; done
                ! grep -qF " $2 " /proc/self/mountinfo' bash "$@"
            """#, [place.store.path, place.fuse, place.store.folder.path])
        #expect(
            text == """
                mounting needs root's rights (CAP_SYS_ADMIN in the first user namespace): with FUSE instead
                1
                cfsoci: \(place.fuse): the mount is in use; end what uses it or unmount it lazily
                status 1

                """)
        #expect(place.isQuiet())
    }

    /// Who may not unmount is told so, not that somebody uses the mount.
    @Test(.enabled(if: hasProgram("fusermount3") && hasProgram("setpriv"), "needs fusermount3 and setpriv"), arguments: [[], ["--fuse"]])
    func mountsOfOthers(options: [String]) throws {
        let place = try FusePlace()
        chmod(place.store.folder.path, 0o755)
        #expect(try place.store.run(["mount", "tool", place.fuse, "--allow-other"] + options).status == 0)
        for lazily in [[], ["--lazy"]] {
            let result = try launch(
                "setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups", Cfsoci.binary, "umount", place.fuse] + lazily)
            #expect(result.status == 1)
            #expect(
                result.error.hasPrefix("cfsoci: unmounting needs root's rights") && result.error.contains(place.fuse), "\(result.error)")
        }
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
    }

    // MARK: Under load

    /// Many readers at once, clients killed in the middle, the kernel's caches dropped, mounts ended under their users.
    @Test(.timeLimit(.minutes(3))) func hammered() throws {
        let place = FusePlace(try hammerStore())
        try place.mount(image: "image")
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
            """#, [place.fuse, place.store.folder.path + "/tree"])
        #expect(result.status == 0 && result.text.isEmpty, "\(result.text) \(result.error)")
        #expect(place.servers().count == 1)
        // Ended while it is read.
        let ended = try shell(
            #"(cat "$1"/files/* > /dev/null 2>&1 || true) & (find "$1" -type f -exec cat {} + > /dev/null 2>&1 || true) & sleep 0.1; umount -l "$1"; wait"#,
            [place.fuse])
        #expect(ended.status == 0)
        #expect(place.isQuiet())
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
