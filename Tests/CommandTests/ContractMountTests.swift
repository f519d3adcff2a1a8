import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import Glibc
import Testing

/// Mounting with the command.
@Suite(.serialized, .enabled(if: isRoot, "mounting needs root")) struct ContractMountTests {
    /// A mount below its folder; detached when the value is destroyed.
    private final class Target {
        let path: String

        init(_ folder: TemporaryFolder, _ name: String = "mounted") {
            path = folder.path + "/" + name
            mkdir(path, 0o755)
        }

        deinit { umount2(path, Int32(MNT_DETACH)) }
    }

    private static let image = LayoutBuilder(layers: [
        tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/small", mode: 0o640, uid: 5, gid: 6, content: [1, 2]),
            paxMember("SCHILY.xattr.user.note", "dropped"), TarMember(name: "usr/tool", mode: 0o755, content: big),
            TarMember(name: "usr/link", type: "2", link: "tool"), TarMember(name: "usr/hard", type: "1", link: "usr/tool"),
        ])
    ])

    private static let big = [UInt8]((0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 7) })

    private func store() throws -> ContractStore {
        let store = try ContractStore()
        _ = try store.pull(Self.image, as: "docker.io/library/tool:latest")
        return store
    }

    private let note = "the repository has no fs-verity: the image was verified, but files are not checked when they are read\n"

    @Test func mountsAndUnmounts() throws {
        let store = try store()
        let target = Target(store.folder)
        let manifest = try #require(try store.succeed(["inspect", "tool"]).json()["manifestDigest"]?.string)
        let id = try store.succeed(["compute-id", "tool"]).lines[0]
        for form in ["docker.io/library/tool:latest", "tool", manifest, String(manifest.dropFirst(7).prefix(8)), id] {
            let mounted = try store.run(["mount", form, target.path])
            #expect(mounted.status == 0 && mounted.output.isEmpty && mounted.error == note, "\(form): \(mounted.error)")
            #expect(fileList(target.path) == ["usr", "usr/hard", "usr/link", "usr/small", "usr/tool"])
            #expect(try readFile(target.path + "/usr/small") == [1, 2])
            #expect(try readFile(target.path + "/usr/link") == Self.big)
            var status = stat()
            #expect(lstat(target.path + "/usr/small", &status) == 0)
            #expect(status.st_mode == S_IFREG | 0o640 && status.st_uid == 5 && status.st_gid == 6 && status.st_size == 2)
            #expect(status.st_mtim.tv_sec == 1_234_567_890)
            #expect(lstat(target.path + "/usr/hard", &status) == 0 && status.st_nlink == 2)
            #expect(attributes(of: target.path + "/usr/tool") == [])
            #expect(open(target.path + "/new", O_WRONLY | O_CREAT, 0o600) < 0 && errno == EROFS)
            let unmounted = try store.run(["umount", target.path])
            #expect(unmounted.status == 0 && unmounted.output.isEmpty && unmounted.error == "")
            #expect(fileList(target.path).isEmpty)
        }
        #expect(try store.run(["mount", "tool", target.path, "--quiet"]).error == "")
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// A digest after the name is required: an image with another digest is not mounted.
    @Test func demandedDigests() throws {
        let store = try store()
        let target = Target(store.folder)
        let inspected = try store.succeed(["inspect", "tool"]).json()
        let manifest = try #require(inspected["manifestDigest"]?.string)
        let config = try #require(inspected["configDigest"]?.string)
        let id = try store.succeed(["compute-id", "tool"]).lines[0]
        for form in ["tool@" + manifest, "tool@" + config, "docker.io/library/tool:latest@" + manifest, "tool@" + id, "@" + manifest] {
            #expect(try store.run(["mount", form, target.path, "-q"]).status == 0, "\(form)")
            #expect(try readFile(target.path + "/usr/small") == [1, 2])
            try store.succeed(["umount", target.path])
        }
        let other = "sha256:" + String(repeating: "0", count: 64)
        #expect(try store.refuse(["mount", "tool@" + other, target.path]) == "tool is \(manifest), not \(other)")
        #expect(try store.refuse(["cat", "tool@" + other, "usr/small"]) == "tool is \(manifest), not \(other)")
        #expect(try store.succeed(["cat", "tool@" + manifest, "usr/small"]).output == [1, 2])
        let otherID = String(id.reversed())
        #expect(try store.refuse(["mount", "tool@" + otherID, target.path]) == "tool is \(id), not \(otherID)")
        #expect(try store.refuse(["mount", "none@" + id, target.path], status: 3).hasPrefix("no image \"none\""))
        #expect(try store.refuse(["mount", "@" + id, target.path], status: 3).contains("no image"))
        #expect(fileList(target.path).isEmpty)
    }

    private func attributes(of path: String) -> [String] {
        let names = try? FileDescriptor.open(ByteString(path), .readOnly).extendedAttributes().map(\.name.description)
        return (names ?? ["unreadable"]).filter { $0 != "security.selinux" }
    }

    @Test func keepsCapabilities() throws {
        let folder = try TemporaryFolder()
        let tree = folder.path + "/tree"
        mkdir(tree, 0o755)
        mkdir(tree + "/usr", 0o755)
        try writeFile(tree + "/usr/tool", Self.big)
        // VFS_CAP_REVISION_2 with cap_net_raw.
        let value: [UInt8] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        for name: ByteString in ["security.capability", "user.note"] {
            try FileDescriptor.open(ByteString(tree + "/usr/tool"), .readOnly).setExtendedAttribute(name, ByteString(value))
        }
        let store = try ContractStore()
        // Images of directories are mounted by their name or ID.
        let id = try store.succeed(["create-image", tree, "group/name"]).lines[0]
        for name in [id, "group/name"] {
            let target = Target(folder)
            let mounted = try store.run(["mount", name, target.path])
            #expect(mounted.status == 0, "\(name): \(mounted.error)")
            #expect(attributes(of: target.path + "/usr/tool") == ["security.capability"])
            let kept = try FileDescriptor.open(ByteString(target.path + "/usr/tool"), .readOnly).extendedAttribute("security.capability")
            #expect(kept == ByteString(value))
            try store.succeed(["umount", target.path])
        }
    }

    @Test func writesIntoTheUpperDirectory() throws {
        let store = try store()
        let target = Target(store.folder)
        let (upper, work) = (store.folder.path + "/upper", store.folder.path + "/work")
        for path in [upper, work] { mkdir(path, 0o755) }
        for round in 0..<2 {
            let mounted = try store.run(["mount", "tool", target.path, "--upperdir", upper, "--workdir", work])
            #expect(mounted.status == 0, "\(mounted.error)")
            if round == 0 {
                try writeFile(target.path + "/usr/new", [7])
                try writeFile(target.path + "/usr/tool", [8])
                #expect(unlink(target.path + "/usr/small") == 0)
            }
            #expect(try readFile(target.path + "/usr/new") == [7])
            #expect(try readFile(target.path + "/usr/tool") == [8])
            #expect(access(target.path + "/usr/small", F_OK) != 0)
            try store.succeed(["umount", target.path])
        }
        #expect(try readFile(upper + "/usr/new") == [7])
        #expect(try store.succeed(["cat", "tool", "usr/tool"]).output == Self.big)
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    @Test func refusals() throws {
        let store = try store()
        let note = try store.pull(ContractLayout.artifact("x"), as: "note")
        let target = Target(store.folder)
        #expect(try store.refuse(["mount", "nothing", target.path], status: 3).contains("no image \"nothing\""))
        #expect(try store.refuse(["mount", String(repeating: "0", count: 128), target.path], status: 3).contains("image not found"))
        #expect(try store.refuse(["mount", "note", target.path]) == "\(note.manifest) is an artifact: it has no root file system")
        #expect(try store.refuse(["mount", "tool", target.path + "/none"]).contains("No such file or directory"))
        #expect(try store.refuse(["mount", "tool", store.path + "/meta.json"]).contains("Not a directory"))
        #expect(try store.refuse(["mount", "tool", target.path, "--bootable"]).contains("boot"))
        #expect(try store.refuse(["umount", target.path]) == "\(target.path): not mounted")
        #expect(try store.refuse(["umount", target.path + "/none"]).contains("No such file or directory"))
        #expect(fileList(target.path).isEmpty)
    }

    @Test func mountsInUse() throws {
        let store = try store()
        let target = Target(store.folder)
        #expect(try store.run(["mount", "tool", target.path]).status == 0)
        let file = open(target.path + "/usr/tool", O_RDONLY)
        #expect(file >= 0)
        #expect(
            try store.refuse(["umount", target.path], status: 6)
                == "\(target.path): the mount is in use: stop the processes that use it, or unmount it lazily")
        try store.succeed(["umount", target.path, "--lazy"])
        #expect(fileList(target.path).isEmpty)
        var byte: UInt8 = 0
        #expect(read(file, &byte, 1) == 1 && byte == Self.big[0])
        close(file)
    }

    /// The image is verified before the kernel sees it.
    @Test func damagedImagesAreNotMounted() throws {
        let store = try store()
        let target = Target(store.folder)
        let id = try store.succeed(["compute-id", "tool"]).lines[0]
        let path = store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[bytes.count / 2] ^= 1
        unlink(path)
        try writeFile(path, bytes)
        #expect(try store.refuse(["mount", "tool", target.path]).contains(id))
        #expect(fileList(target.path).isEmpty)
    }

    /// Errors that the kernel reports only in its log, or about an unknown descriptor.
    @Test func directoriesAndNamespacesThatDoNotGo() throws {
        let store = try store()
        let target = Target(store.folder)
        let (upper, work, far) = (store.folder.path + "/upper", store.folder.path + "/work", "/dev/shm/cfsoci-test-\(getpid())")
        for path in [upper, work, far] { mkdir(path, 0o755) }
        defer { rmdir(far) }
        func refusal(_ options: String...) throws -> String { try store.refuse(["mount", "tool", target.path] + options) }
        #expect(
            try refusal("--upperdir", upper, "--workdir", upper).contains("\(upper): the work directory must not be the upper directory"))
        #expect(try refusal("--upperdir", upper, "--workdir", far).contains("\(far): the work directory must be on the file system of"))
        #expect(try refusal("--idmap", "/etc/passwd").contains("by /etc/passwd: Invalid argument; use the /proc/PID/ns/user"))
        #expect(fileList(target.path).isEmpty)
    }

    @Test(.enabled(if: hasProgram("setpriv"), "needs setpriv")) func withoutRights() throws {
        let store = try store()
        let target = Target(store.folder)
        let result = try launch(
            "setpriv",
            ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin", Cfsoci.binary, "mount", "tool", target.path, "--repo", store.path])
        // FUSE is tried instead, and needs privileges, too.
        #expect(result.status == 1 && result.output.isEmpty)
        let lines = result.error.split(separator: "\n")
        #expect(lines.first?.hasPrefix("mounting needs root privileges") == true && lines.first?.hasSuffix("with FUSE instead") == true)
        #expect(lines.last?.hasPrefix("cfsoci: error: ") == true, "\(result.error)")
        #expect(fileList(target.path).isEmpty)
    }
}
