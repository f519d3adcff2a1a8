import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// A directory on a file system with fs-verity, if one is available.
private let verityDirectory = getenv("CFSOCI_TEST_VERITY_DIR").map { String(cString: $0) }

/// FUSE over a secure repository: the server relies on the kernel's digest of every object.
@Suite(
    .serialized,
    .enabled(
        if: isRoot && verityDirectory != nil && access("/dev/fuse", F_OK) == 0,
        "needs root, FUSE, and CFSOCI_TEST_VERITY_DIR on a file system with fs-verity"))
struct SecureFuseTests {
    private static let big = [UInt8]((0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 11 &+ $0 >> 8) })

    @Test(arguments: [(UInt8(1), "fsverity-sha256-12"), (2, "fsverity-sha512-12")])
    func objectsAreMeasured(number: UInt8, algorithm: String) throws {
        let base = (verityDirectory ?? "") + "/secure-fuse-" + Host.randomName()
        let (repository, target) = (base + "/repo", base + "/mounted")
        for path in [base, target, base + "/tree", base + "/tree/usr"] { mkdir(path, 0o755) }
        defer {
            while umount2(target, Int32(MNT_DETACH)) == 0 {}
            removeTree(base)
        }
        try writeFile(base + "/tree/usr/tool", Self.big)
        try writeFile(base + "/tree/usr/small", [1, 2])
        try Cfsoci.succeed(["init", repository, "--algorithm", algorithm])
        try Cfsoci.succeed(["create-image", base + "/tree", "tree", "--repo", repository])
        let path = try #require(
            fileList(repository + "/objects").map { repository + "/objects/" + $0 }.first { path in
                var status = stat()
                return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && status.st_size == Self.big.count
            })
        let file = target + "/usr/tool"
        let mounted = try Cfsoci.run(["mount", "--fuse", "tree", target, "--repo", repository])
        #expect(mounted.status == 0 && mounted.error.isEmpty, "\(mounted.error)")
        #expect(try readFile(file) == Self.big && readFile(target + "/usr/small") == [1, 2])

        /// Replaces the object's file; nil for a file without fs-verity.
        func replace(_ content: [UInt8], verity: UInt8?) throws {
            unlink(path)
            try writeFile(path, content)
            if let verity { try FileDescriptor.open(ByteString(path), .readOnly).enableVerity(algorithm: verity) }
            // The previous file is still open and intact; a new server does not have it open.
            try Cfsoci.succeed(["umount", target])
            #expect(try Cfsoci.run(["mount", "--fuse", "tree", target, "--repo", repository]).status == 0)
        }
        func openError() -> Int32 {
            let descriptor = open(file, O_RDONLY)
            if descriptor < 0 { return errno }
            close(descriptor)
            return 0
        }
        // The right content without fs-verity, the wrong content with it, the right content with another algorithm.
        try replace(Self.big, verity: nil)
        #expect(openError() == EIO)
        var other = Self.big
        other[100_000] ^= 1
        try replace(other, verity: number)
        #expect(openError() == EIO)
        try replace(Self.big, verity: 3 - number)
        #expect(openError() == EIO)
        try replace(Array(Self.big.dropLast()), verity: number)
        #expect(openError() == EIO)
        unlink(path)
        #expect(openError() == ENOENT)
        try replace(Self.big, verity: number)
        #expect(openError() == 0)
        #expect(try readFile(file) == Self.big)
        try Cfsoci.succeed(["umount", target])
    }
}
