import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// Nothing in a mounted image can be changed, and every attempt gets an error.
@Suite(.serialized, .enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
struct ReadOnlyMountTests {
    @Test func everyChangeIsRefused() throws {
        let fixture = try FuseFixture()
        try fixture.mount()
        #expect(try fixture.store.run(["mount", "tool", fixture.kernel, "--quiet"]).status == 0)
        for root in [fixture.kernel, fixture.fuse] {
            let (file, directory, new) = (root + "/usr/tool", root + "/usr", root + "/usr/new")
            let descriptor = open(file, O_RDONLY)
            #expect(descriptor >= 0)
            var times = [timespec(tv_sec: 1, tv_nsec: 2), timespec(tv_sec: 3, tv_nsec: 4)]
            let calls: [(String, () -> Int32)] = [
                ("open O_WRONLY", { open(file, O_WRONLY) }), ("open O_RDWR", { open(file, O_RDWR) }),
                ("open O_TRUNC", { open(file, O_WRONLY | O_TRUNC) }), ("open O_APPEND", { open(file, O_WRONLY | O_APPEND) }),
                ("open O_CREAT", { open(new, O_RDONLY | O_CREAT, 0o600) }),
                ("open O_CREAT, writing", { open(new, O_RDWR | O_CREAT, 0o600) }),
                ("open O_CREAT O_EXCL", { open(new, O_RDWR | O_CREAT | O_EXCL, 0o600) }), ("creat", { creat(new, 0o600) }),
                // O_TMPFILE
                ("open O_TMPFILE", { open(directory, O_RDWR | 0o20200000, 0o600) }),
                ("mkdir", { mkdir(new, 0o700) }), ("mknod regular", { mknod(new, S_IFREG | 0o600, 0) }),
                ("mknod fifo", { mknod(new, S_IFIFO | 0o600, 0) }), ("mknod socket", { mknod(new, S_IFSOCK | 0o600, 0) }),
                ("mknod device", { mknod(new, S_IFCHR | 0o600, 259) }), ("mkfifo", { mkfifo(new, 0o600) }),
                ("symlink", { symlink("x", new) }), ("link", { link(file, new) }), ("unlink", { unlink(file) }),
                ("unlink symlink", { unlink(root + "/usr/link") }), ("rmdir", { rmdir(directory) }), ("rename", { rename(file, new) }),
                ("rename over", { rename(file, root + "/usr/small") }), ("rename directory", { rename(directory, root + "/new") }),
                ("renameat2 RENAME_EXCHANGE", { attempt { try opened(root).rename(at: "usr/tool", to: "usr/small", flags: .exchange) } }),
                ("renameat2 RENAME_NOREPLACE", { attempt { try opened(root).rename(at: "usr/tool", to: "new", flags: .noReplace) } }),
                ("chmod", { chmod(file, 0o777) }), ("fchmod", { fchmod(descriptor, 0o777) }), ("chown", { chown(file, 1, 1) }),
                ("lchown", { lchown(root + "/usr/link", 1, 1) }), ("fchown", { fchown(descriptor, 1, 1) }),
                ("truncate", { truncate(file, 0) }), ("truncate longer", { truncate(file, 1 << 30) }),
                ("utimensat", { utimensat(AT_FDCWD, file, &times, 0) }),
                ("utimensat link", { utimensat(AT_FDCWD, root + "/usr/link", &times, AT_SYMLINK_NOFOLLOW) }),
                ("futimens", { futimens(descriptor, &times) }), ("utimes", { utimes(file, nil) }),
                ("setxattr", { attempt { try opened(root).setExtendedAttribute("user.x", "y", at: "usr/tool") } }),
                ("setxattr trusted", { attempt { try opened(root).setExtendedAttribute("trusted.x", "y", at: "usr/tool") } }),
                ("setxattr security", { attempt { try opened(root).setExtendedAttribute("security.x", "y", at: "usr/tool") } }),
                ("setxattr ACL", { attempt { try opened(root).setExtendedAttribute("system.posix_acl_access", acl, at: "usr/tool") } }),
                ("lsetxattr", { attempt { try opened(root).setExtendedAttribute("trusted.x", "y", at: "usr/link") } }),
                ("fsetxattr", { attempt { try opened(file).setExtendedAttribute("user.x", "y") } }),
                ("removexattr", { attempt { try opened(root).removeExtendedAttribute("user.x", at: "usr/tool") } }),
                ("lremovexattr", { attempt { try opened(root).removeExtendedAttribute("trusted.x", at: "usr/link") } }),
                ("fremovexattr", { attempt { try opened(file).removeExtendedAttribute("user.x") } }),
                ("access W_OK", { access(file, W_OK) }),
                ("access W_OK directory", { access(directory, W_OK) }),
                ("bind", { bindSocket(new) }),
            ]
            for (name, call) in calls {
                errno = 0
                let result = call()
                let code = errno
                #expect(result == -1 && code == EROFS, "\(name) in \(root): \(result), \(String(cString: strerror(code)))")
                if result > 2 { close(result) }
            }
            // For descriptors that are open for reading only, these calls fail on any file system.
            #expect(ftruncate(descriptor, 0) == -1 && errno == EINVAL)
            #expect(attempt { try opened(file).allocate(10) } == -1 && errno == EBADF)
            #expect(write(descriptor, "x", 1) == -1 && errno == EBADF)
            #expect(mmap(nil, 4096, PROT_WRITE, Int32(MAP_SHARED), descriptor, 0) == MAP_FAILED && errno == EACCES)
            // Syncing is not a change.
            #expect(fsync(descriptor) == 0 && fdatasync(descriptor) == 0)
            close(descriptor)
            #expect(fileList(root) == ["usr", "usr/hard", "usr/link", "usr/other", "usr/small", "usr/tool"])
        }
        // Remounting does not make it writable.
        #expect(
            try shell("mount -o remount,rw \"$1\"", [fixture.fuse]).status != 0
                || open(fixture.fuse + "/new", O_WRONLY | O_CREAT, 0o600) < 0)
        try fixture.store.succeed(["umount", fixture.fuse])
        try fixture.store.succeed(["umount", fixture.kernel])
        #expect(fixture.isQuiet())
    }

    /// Every way of changing, for every kind of file, by root and by user 65534: both mounts answer like a read-only tmpfs, and are
    /// unchanged afterwards.
    @Test(.enabled(if: access("/usr/bin/python3", X_OK) == 0 && hasProgram("setpriv"), "needs python3 and setpriv"), arguments: [0, 65534])
    func answersAsAnyReadOnlyFileSystem(user: Int) throws {
        let fixture = FuseFixture(try ContractStore())
        let folder = fixture.store.folder.path
        let (tree, plain) = (folder + "/tree", folder + "/plain")
        for path in [tree, plain] { mkdir(path, 0o755) }
        chmod(folder, 0o755)
        try mustShell(
            #"""
            cd "$1"
            mkdir empty full; echo file > file; ln file hard; head -c 5000 /dev/zero > full/below; ln -s file link
            mkfifo pipe; mknod null c 1 3; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
            # Operations that would change something if the mount were not read-only.
            chmod 777 . empty full pipe null socket; chmod 666 file full/below
            mount -t tmpfs -o mode=777 tmpfs "$2"; cp -a . "$2"; mount -o remount,ro "$2"
            """#, [tree, plain])
        defer { umount2(plain, Int32(MNT_DETACH)) }
        try fixture.store.succeed(["create-image", tree, "image"])
        try fixture.mount(["--allow-other", "--dev"], image: "image")
        #expect(try fixture.store.run(["mount", "image", fixture.kernel, "--dev", "--quiet"]).status == 0)
        let script = String(decoding: try readFile(Fixtures.folder + "/read-only.py"), as: UTF8.self)
        func tries(_ root: String) throws -> [String] {
            func state() throws -> String {
                try mustShell(
                    #"cd "$1"; find . -printf '%p %y %m %U %G %s %n %T@ %l\n' | sort; find . -type f -exec cksum {} + | sort"#, [root])
            }
            let before = try state()
            let result = try launch(
                "setpriv", ["--reuid", "\(user)", "--regid", "\(user)", "--clear-groups", "/usr/bin/python3", "-c", script, root])
            #expect(result.status == 0 && result.error.isEmpty, "\(result.error)")
            #expect(try state() == before)
            return result.lines
        }
        let (kernel, fuse) = (try tries(fixture.kernel), try tries(fixture.fuse))
        #expect(fuse.difference(from: kernel).isEmpty, "\(fuse.difference(from: kernel))")
        // File systems differ in which of these they support.
        let comparable = try tries(plain).filter { !$0.contains(" ioctl ") }
        let difference = fuse.filter { !$0.contains(" ioctl ") }.difference(from: comparable)
        #expect(difference.isEmpty, "\(difference)")
        #expect(fuse.count > 400 && fuse.count { $0.hasSuffix(": EROFS") } > 300, "\(fuse.count)")
        for line in fuse where line.hasSuffix(": done") {
            let isSpecial = ["pipe ", "null ", "socket "].contains { line.hasPrefix($0) }
            let harmless = isSpecial ? [" open ", " access W_OK:"] : [" open O_RDONLY|O_CREAT:", " fsync:", " flock:"]
            #expect(harmless.contains { line.contains($0) }, "\(line)")
        }
        try fixture.store.succeed(["umount", fixture.fuse])
        try fixture.store.succeed(["umount", fixture.kernel])
        #expect(fixture.isQuiet())
    }

    /// An ACL with an entry for user 1: version 2, then tag, permissions and ID of each entry.
    private let acl = ByteString([
        2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 1, 0, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255,
        32, 0,
        4, 0, 255, 255, 255, 255,
    ])

    private func opened(_ path: String) throws(SystemError) -> FileDescriptor { try FileDescriptor.open(ByteString(path), .readOnly) }

    /// As in the C library: -1, with the reason in errno.
    private func attempt(_ body: () throws -> Void) -> Int32 {
        do {
            try body()
            return 0
        } catch {
            errno = (error as? SystemError)?.errno.rawValue ?? 0
            return -1
        }
    }

    private func bindSocket(_ path: String) -> Int32 {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { let code = errno; close(descriptor); errno = code }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // The path may be too long for a socket address.
        let folder = open(String(path.dropLast(4)), O_RDONLY | O_DIRECTORY)
        defer { let code = errno; close(folder); errno = code }
        let short = Array("/proc/self/fd/\(folder)/new".utf8)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: short) }
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
    }
}
