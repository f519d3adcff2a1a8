import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// Files of images that the real binary serves with FUSE equal those of the kernel's mounts, and are verified.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct FuseContentTests {
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
        let fixture = FuseFixture(try ContractStore(["--erofs-version", version]))
        let tree = fixture.store.folder.path + "/tree"
        // Format 2 has a lower limit for targets.
        try mustShell(Self.makeTree, [tree, version == "2" ? "1024" : "4000"])
        try fixture.store.succeed(["create-image", tree, "image", "--xattrs", "keep-user-xattrs"])
        try fixture.mount(["--dev"], image: "image")
        #expect(try fixture.store.run(["mount", "image", fixture.kernel, "--dev", "--quiet"]).status == 0)
        func lines(_ path: String) throws -> [String] {
            try mustShell(Self.describe, [path]).split(separator: "\n").map(String.init).sorted()
        }
        let (original, fuse, kernel) = (try lines(tree), try lines(fixture.fuse), try lines(fixture.kernel))
        #expect(fuse.count > 1200)
        #expect(Set(fuse).symmetricDifference(kernel).sorted() == [])
        // `create-image` leaves out ACLs and trusted attributes; version 2 has no nanoseconds.
        func comparable(_ lines: [String]) -> Set<String> {
            Set(
                lines.filter {
                    !$0.contains(" trusted.") && !$0.contains(" system.") && !(version == "2" && $0.split(separator: "\t").count > 5)
                })
        }
        #expect(comparable(fuse).symmetricDifference(comparable(original)).sorted() == [])
        // find does not print access and change times and the allocated size. The order of entries may differ.
        for path in ["/usr/page", "/usr/deep", "/usr/link", "/usr/pipe"] {
            var (one, two) = (stat(), stat())
            #expect(lstat(fixture.fuse + path, &one) == 0 && lstat(fixture.kernel + path, &two) == 0)
            #expect(
                one.st_atim.tv_sec == two.st_atim.tv_sec && one.st_ctim.tv_nsec == two.st_ctim.tv_nsec && one.st_blksize == two.st_blksize)
        }
        for path in ["/usr/null", "/usr/disk"] { #expect(open(fixture.fuse + path + "/x", O_RDONLY) < 0 && errno == ENOTDIR) }
        let null = open(fixture.fuse + "/usr/null", O_RDWR)
        #expect(null >= 0 && write(null, "x", 1) == 1)
        close(null)
        try fixture.store.succeed(["umount", fixture.fuse])
        try fixture.store.succeed(["umount", fixture.kernel])
        #expect(fixture.isQuiet())
    }

    /// Whiteouts are character devices 0:0 again, so that an overlay of the mount honours them.
    @Test(arguments: ["1", "2"]) func whiteouts(version: String) throws {
        let fixture = FuseFixture(try ContractStore(["--erofs-version", version]))
        let tree = fixture.store.folder.path + "/tree"
        try mustShell(#"mkdir -p "$1/usr/dir"; mknod "$1/usr/gone" c 0 0; mknod "$1/ff" c 0 0; echo x > "$1/usr/dir/file""#, [tree])
        try fixture.store.succeed(["create-image", tree, "image"])
        try fixture.mount(image: "image")
        var status = stat()
        #expect(lstat(fixture.fuse + "/usr/gone", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR && status.st_rdev == 0)
        #expect(fileList(fixture.fuse).contains("usr/gone"))
        let under = fixture.store.folder.path + "/under"
        let seen = try mustShell(
            #"mkdir -p "$1/usr/dir"; touch "$1/usr/gone" "$1/usr/kept"; mount -t overlay overlay -o "lowerdir=$2:$1" "$3"; ls "$3/usr"; umount "$3""#,
            [under, fixture.fuse, fixture.kernel])
        #expect(seen == "dir\nkept\n")
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }

    @Test(.enabled(if: needsAttributes && hasProgram("setpriv"), "needs attr, acl, python3 and setpriv")) func permissions() throws {
        let fixture = FuseFixture(try ContractStore())
        let tree = fixture.store.folder.path + "/tree"
        try mustShell(Self.makeTree, [tree])
        try fixture.store.succeed(["create-image", tree, "image"])
        chmod(fixture.store.folder.path, 0o755)
        let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
        // Only the user that mounted has access, unless others are allowed.
        try fixture.mount(image: "image")
        #expect(try shell("\(nobody) ls \"$1\"", [fixture.fuse]).error.contains("Permission denied"))
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
        try fixture.mount(["--allow-other"], image: "image")
        #expect(try shell("\(nobody) ls \"$1/usr/many\"", [fixture.fuse]).status == 0)
        for (path, isReadable) in [("page", true), ("sixtyfive", false), ("private/x", false)] {
            let result = try shell("\(nobody) cat \"$1/usr/\(path)\"", [fixture.fuse])
            #expect((result.status == 0) == isReadable, "\(path): \(result.error)")
        }
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }

    // MARK: Tampering

    private func openError(_ path: String) -> Int32 {
        let descriptor = open(path, O_RDONLY)
        if descriptor < 0 { return errno }
        close(descriptor)
        return 0
    }

    @Test func tamperedObjects() throws {
        let fixture = try FuseFixture()
        let path = try fixture.objectPath(FuseFixture.big)
        let file = fixture.fuse + "/usr/tool"
        // Changed before the first open.
        var changed = FuseFixture.big
        changed[changed.count / 2] ^= 1
        try fixture.mount()
        unlink(path)
        try writeFile(path, changed)
        #expect(openError(file) == EIO)
        #expect(openError(fixture.fuse + "/usr/hard") == EIO)
        #expect(openError(fixture.fuse + "/usr/other") == 0)
        // Truncated, another kind of file, missing.
        try writeFile(path, Array(FuseFixture.big.dropLast()))
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
        #expect(lstat(file, &status) == 0 && status.st_size == FuseFixture.big.count)
        // Intact again.
        try writeFile(path, FuseFixture.big)
        #expect(try openError(file) == 0 && readFile(file) == FuseFixture.big)
        // Changed in fixture or replaced after verification, immediately or later.
        for pause in [0, 300_000] as [UInt32] {
            usleep(pause)
            #expect(openError(file) == 0)
            usleep(pause)
            chmod(path, 0o644)
            try writeFile(path, changed)
            #expect(openError(file) == EIO, "after \(pause) µs")
            try writeFile(path, FuseFixture.big)
            #expect(openError(file) == 0)
            usleep(pause)
            unlink(path)
            try writeFile(path, changed)
            // The intact file that is kept open may be served, but not the changed one.
            #expect([0, EIO].contains(openError(file)))
            if openError(file) == 0 { #expect(try readFile(file) == FuseFixture.big) }
            unlink(path)
            try writeFile(path, FuseFixture.big)
            #expect(openError(file) == 0)
        }
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }

    /// The same when files are opened by their first read: reading fails, and the kernel's cache keeps verified content.
    @Test func tamperedObjectsWithLazyOpens() throws {
        let fixture = try FuseFixture()
        let path = try fixture.objectPath(FuseFixture.big)
        let file = fixture.fuse + "/usr/tool"
        var changed = FuseFixture.big
        changed[changed.count / 2] ^= 1
        try fixture.mount(["--lazy-open"])
        unlink(path)
        #expect(throws: RunFailure.self) { try readFile(file) }
        try writeFile(path, changed)
        #expect(throws: RunFailure.self) { try readFile(file) }
        #expect(try readFile(fixture.fuse + "/usr/small") == [1, 2])
        try writeFile(path, FuseFixture.big)
        #expect(try readFile(file) == FuseFixture.big)
        usleep(300_000)
        try writeFile(path, changed)
        // From the kernel's cache or not at all.
        if let content = try? readFile(file) { #expect(content == FuseFixture.big) }
        #expect(open(fixture.fuse + "/usr/tool", O_RDWR) < 0 && errno == EROFS)
        try fixture.store.succeed(["umount", fixture.fuse])
        #expect(fixture.isQuiet())
    }

    @Test func damagedImagesAreNotServed() throws {
        let fixture = try FuseFixture()
        let id = try fixture.store.succeed(["compute-id", "tool"]).lines[0]
        let path = fixture.store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[bytes.count / 2] ^= 1
        unlink(path)
        try writeFile(path, bytes)
        #expect(try fixture.store.refuse(["mount", "--fuse", "tool", fixture.fuse]).contains(id))
        #expect(fixture.isQuiet())
    }
}
