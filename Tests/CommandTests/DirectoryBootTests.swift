import Glibc
import Testing

/// Boot images of directories: `--bootable` of create-dumpfile, compute-id --path and create-image.
@Suite(.enabled(if: isRoot, "needs root: the files must be root's")) struct DirectoryBootTests {
    private func setTimes(_ root: String) throws {
        for name in fileList(root).reversed() + [""] {
            var times = [timespec(tv_sec: 1_234_567_890, tv_nsec: 0), timespec(tv_sec: 1_234_567_890, tv_nsec: 0)]
            try #require(utimensat(AT_FDCWD, root + "/" + name, &times, AT_SYMLINK_NOFOLLOW) == 0)
        }
    }

    private func makeTree(_ root: String, _ directories: [String], _ files: [(String, [UInt8])]) throws {
        for path in [""] + directories {
            try #require(mkdir(root + path, 0o755) == 0)
            chmod(root + path, 0o755)
        }
        for (path, bytes) in files {
            try writeFile(root + path, bytes)
            chmod(root + path, 0o644)
        }
        try setTimes(root)
    }

    /// The ID that the reference implementation computes for the same tree without a policy.
    @Test func withoutPolicy() throws {
        let folder = try TemporaryFolder()
        let tree = folder.path + "/tree"
        try makeTree(
            tree, ["/boot", "/boot/efi", "/sysroot", "/usr"],
            [("/boot/efi/kernel", [UInt8](repeating: 5, count: 9000)), ("/usr/hello.txt", Array("hello from bootable test layer\n".utf8))])
        let options = ["--bootable", "--hash", "sha512", "--repo", folder.path + "/none"]
        #expect(
            try Cfsoci.succeed(["compute-id", "--path", tree] + options).lines == [
                "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"
            ])
        let dump = try Cfsoci.succeed(["create-dumpfile", tree] + options).text
        #expect(!dump.contains("kernel") && dump.contains("/boot 0 40755 2 "))
        #expect(try Cfsoci.succeed(["create-dumpfile", tree, "--hash", "sha512", "--repo", folder.path + "/none"]).text.contains("kernel"))
        rmdir(tree + "/sysroot")
        #expect(expectRefusal(try Cfsoci.run(["create-dumpfile", tree] + options)).contains("no directory /sysroot"))
    }

    /// The policy's files are too large for inline content. Labels are the same from a directory, the store and a layer.
    @Test func withPolicy() throws {
        let store = try ContractStore()
        let tree = store.folder.path + "/tree"
        let comment = "# a comment, so that the policy is longer than what is kept in line\n"
        let contexts = comment + "/.*  system_u:object_r:default_t:s0\n/usr(/.*)?  system_u:object_r:usr_t:s0\n"
        let policy = "/etc/selinux/targeted/contexts/files"
        let directories = [
            "/boot", "/etc", "/etc/selinux", "/etc/selinux/targeted", "/etc/selinux/targeted/contexts", policy, "/sysroot", "/usr",
        ]
        let files: [(String, [UInt8])] = [
            ("/etc/selinux/config", Array((comment + "SELINUXTYPE=targeted\n").utf8)), (policy + "/file_contexts", Array(contexts.utf8)),
            ("/usr/tool", [UInt8](repeating: 3, count: 5000)),
        ]
        try makeTree(tree, directories, files)
        let dump = try store.succeed(["create-dumpfile", tree, "--bootable"]).text
        let lines = dump.split(separator: "\n")
        #expect(lines.first { $0.hasPrefix("/usr/tool ") }?.contains("security.selinux=system_u:object_r:usr_t:s0") == true, "\(dump)")
        #expect(lines.first { $0.hasPrefix("/etc ") }?.contains("security.selinux=system_u:object_r:default_t:s0") == true)
        let computed = try store.succeed(["compute-id", "--path", tree, "--bootable"]).lines
        #expect(try store.succeed(["create-image", tree, "os", "--bootable"]).lines == computed)

        var builder = LayoutBuilder()
        builder.layers = [
            tarArchive(
                directories.map { TarMember(name: String($0.dropFirst()) + "/", mode: 0o755, type: "5") }
                    + files.map { TarMember(name: String($0.0.dropFirst()), content: $0.1) })
        ]
        _ = try store.pull(builder, as: "t")
        #expect(try store.succeed(["compute-id", "t", "--bootable"]).lines == computed)
        // A damaged policy.
        try writeFile(tree + policy + "/file_contexts", Array((comment + "/.*\n").utf8))
        #expect(try store.refuse(["create-dumpfile", tree, "--bootable"]).contains("line 2: a pattern without a label"))
    }
}
