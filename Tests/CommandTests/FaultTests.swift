import Glibc
import Testing

/// Failing machines: every system call fails once, the power fails after each, disks fail and recover, limits are reached.
@Suite(.serialized) struct FaultTests {
    /// The tools folder of this checkout.
    private static let tools = #filePath.split(separator: "/").dropLast(3).map { "/" + $0 }.joined() + "/tools"

    /// A sample of `tools/faults`.
    @Test(.enabled(if: hasProgram("python3"), "needs python3"))
    func systemCallsThatFail() throws {
        let result = try launch(
            Self.tools + "/faults", ["--every", "41", "tag", "untag", "rm", "upgrade", "pull", "copy", "gc"],
            environment: ["CFSOCI=" + Cfsoci.binary])
        #expect(result.status == 0, "\(result.text)\(result.error)")
        let last = try #require(result.lines.last)
        #expect(last.hasPrefix("7 commands, ") && last.hasSuffix(" 0 failures"))
    }

    /// A sample of `tools/crash`.
    @Test(.enabled(if: hasProgram("python3"), "needs python3"))
    func powerCuts() throws {
        let every = getenv("CFSOCI_CRASH_EVERY").map { String(cString: $0) } ?? "25"
        let commands = ["init-nested", "pull-moved", "tag", "gc", "upgrade", "repair", "export"]
        let result = try launch(Self.tools + "/crash", ["--every", every] + commands, environment: ["CFSOCI=" + Cfsoci.binary])
        // The seed, to reproduce a failure.
        print(result.lines.first ?? "nothing was printed")
        #expect(result.status == 0, "\(result.text)\(result.error)")
        let last = try #require(result.lines.last)
        #expect(last.hasPrefix("\(commands.count) commands, ") && last.hasSuffix(" 0 failures"))
    }

    /// A pull to a disk that fails for a while reports success only when everything is stored.
    @Test(
        .enabled(
            if: isRoot && hasProgram("python3") && access("/dev/loop-control", R_OK) == 0, "needs root, python3 and loop devices"),
        arguments: ["ext4", "xfs", "btrfs"])
    func failingDisk(kind: String) throws {
        guard hasProgram("mkfs." + kind), try readText("/proc/filesystems").contains("\t\(kind)\n") else { return }
        let result = try launch(Self.tools + "/failing-disk", ["2", kind], environment: ["CFSOCI=" + Cfsoci.binary])
        #expect(result.status == 0, "\(result.text)\(result.error)")
        #expect(result.lines.last?.hasSuffix("the first pull failed in 2, data lost after exit 0 in 0") == true, "\(result.text)")
    }

    private func readText(_ path: String) throws -> String { String(decoding: try readFile(path), as: UTF8.self) }

    /// A file that would exceed the process's limit gives an error, not a signal.
    @Test func limitOnTheSizeOfFiles() throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/layout", layers: 1, fileSize: 3 << 20)
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        let arguments = ["pull", "oci:" + folder.path + "/layout", "t", "--repo", repository]
        let result = try launch("bash", ["-c", "ulimit -f 1000; exec \"$0\" \"$@\"", Cfsoci.binary] + arguments)
        #expect(result.status == 1)
        #expect(result.error.contains("File too large") && result.error.contains("ulimit -f"), "\(result.error)")
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
        try Cfsoci.succeed(arguments)
        // Also for an export to an archive.
        let export = try launch(
            "bash",
            [
                "-c", "ulimit -f 1000; exec \"$0\" \"$@\"", Cfsoci.binary, "export", "t", "oci-archive:\(folder.path)/a.tar", "--repo",
                repository,
            ])
        #expect(export.status == 1 && export.error.contains("File too large"), "\(export.error)")
        #expect(access(folder.path + "/a.tar", F_OK) != 0)
    }

    /// A file in place of a directory is reported as damage, also by the command.
    @Test(arguments: ["objects", "streams", "streams/refs", "images"])
    func directoriesThatAreNone(path: String) throws {
        let (store, _) = try ContractStore.small()
        #expect(rename(store.path + "/" + path, store.path + "/../aside") == 0)
        try writeFile(store.path + "/" + path, [])
        let result = try store.run(["fsck"])
        #expect(result.status == 2, "\(result.error)")
        #expect(result.text.contains("unexpected-file-type: \(path): regular file, not a directory"), "\(result.text)")
        #expect(try store.run(["gc"]).status == 1)
    }

    @Test func missingStreamsAreSaid() throws {
        let (store, _) = try ContractStore.small()
        #expect(rename(store.path + "/streams", store.path + "/../aside") == 0)
        let result = try store.run(["fsck"])
        #expect(result.text.contains("note: streams/ is missing"), "\(result.text)")
    }
}
