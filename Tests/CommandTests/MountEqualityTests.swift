import Glibc
import Testing

/// The benchmark image of 30,000 entries, mounted by the kernel and with FUSE, equals the original in every attribute. Python's tarfile
/// reads the original from the layers. tools/bench/equality.py describes the comparison, and how it is tested.
@Suite(
    .serialized,
    .enabled(
        if: isRoot && access("/dev/fuse", F_OK) == 0 && ["python3", "igzip", "gzip", "openssl"].allSatisfy(hasProgram),
        "needs root, FUSE, python3, isal, gzip and openssl"))
struct MountEqualityTests {
    private func compare(_ part: String) throws -> [String] {
        let folder = try TemporaryFolder()
        return try runEquality([part], below: folder.path)
    }

    @Test(.timeLimit(.minutes(5))) func mountsAreTheOriginal() throws {
        let lines = try compare("--only-mounts")
        let entries = try #require(lines.first?.split(separator: " ").dropFirst().first.flatMap { Int($0) })
        #expect(entries >= 30_000)
        #expect(lines.dropFirst().dropLast() == noDifferences)
    }

    /// Each altered attribute of an entry is found, and nothing else.
    @Test(.timeLimit(.minutes(5))) func alterationsAreFound() throws {
        let lines = try compare("--only-alterations")
        #expect(
            lines == [
                "  altered in one entry of an image each, and found in both mounts: kind, mode, uid, gid, size, mtime, rdev, links, target, "
                    + "xattrs, content, entry, directory's mode, directory's mtime"
            ])
    }
}

/// The output of `runEquality` without its first line, the compared images, and its last line, the time.
let noDifferences = [
    "  the kernel's mount and the original: 0 differences", "  FUSE and the original: 0 differences",
    "  FUSE and the kernel's mount: 0 differences", "  the kernel's mount in itself: 0 differences", "  FUSE in itself: 0 differences",
]

/// The output lines of tools/bench/equality.py, which must succeed.
func runEquality(_ arguments: [String], below folder: String) throws -> [String] {
    let tools = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/") + "/tools"
    let result = try launch(
        "python3", ["-B", tools + "/bench/equality.py"] + arguments, environment: ["CFSOCI=" + Cfsoci.binary, "BENCH_DIR=" + folder])
    #expect(result.status == 0, "\(result.text)\(result.error)")
    return result.lines
}
