import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import Glibc
import Testing

/// A directory on a file system with fs-verity, if one is available.
private let verityDirectory = getenv("CFSOCI_TEST_VERITY_DIR").map { String(cString: $0) }

/// Mounts whose files the kernel verifies.
@Suite(
    .serialized, .enabled(if: isRoot && verityDirectory != nil, "needs root, and CFSOCI_TEST_VERITY_DIR on a file system with fs-verity"))
struct SecureMountTests {
    private static let big = [UInt8]((0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) })

    /// A secure repository with one image, and a mount point.
    private final class Setup {
        let base: String
        let repository: String
        let id: String
        let target: String
        var objects: String { repository + "/objects" }
        var image: String { objects + "/\(id.prefix(2))/\(id.dropFirst(2))" }

        init(_ algorithm: String) throws {
            base = (verityDirectory ?? "") + "/secure-mount-" + Host.randomName()
            repository = base + "/repo"
            target = base + "/mounted"
            for path in [base, target, base + "/tree", base + "/tree/usr"] { mkdir(path, 0o755) }
            try writeFile(base + "/tree/usr/tool", SecureMountTests.big)
            try writeFile(base + "/tree/usr/small", [1, 2])
            try Cfsoci.succeed(["init", repository, "--algorithm", algorithm])
            id = try Cfsoci.succeed(["create-image", base + "/tree", "tree", "--repo", repository]).lines[0]
        }

        deinit {
            while umount2(target, Int32(MNT_DETACH)) == 0 {}
            removeTree(base)
        }

        /// The file system's options in mountinfo.
        func options() throws -> String {
            let lines = String(decoding: try readFile("/proc/self/mountinfo"), as: UTF8.self).split(separator: "\n")
            return lines.last { $0.contains(" \(target) ") }?.split(separator: " ").last.map(String.init) ?? ""
        }

        func expectContent(sourceLocation: SourceLocation = #_sourceLocation) throws {
            #expect(try readFile(target + "/usr/tool") == SecureMountTests.big, sourceLocation: sourceLocation)
            #expect(try readFile(target + "/usr/small") == [1, 2], sourceLocation: sourceLocation)
            #expect(try options().contains("verity=require"), sourceLocation: sourceLocation)
        }

        func unmount() throws { try Cfsoci.succeed(["umount", target]) }
    }

    @Test(arguments: ["fsverity-sha256-12", "fsverity-sha512-12"]) func byNameAndDigest(_ algorithm: String) throws {
        let setup = try Setup(algorithm)
        for form in ["tree", setup.id, "tree@" + setup.id] {
            let mounted = try Cfsoci.run(["mount", form, setup.target, "--repo", setup.repository])
            #expect(mounted.status == 0 && mounted.output.isEmpty && mounted.error.isEmpty, "\(mounted.error)")
            try setup.expectContent()
            try setup.unmount()
        }
        let other = String(setup.id.reversed())
        #expect(
            expectRefusal(try Cfsoci.run(["mount", "tree@" + other, setup.target, "--repo", setup.repository]))
                == "tree is \(setup.id), not \(other)")
        #expect(try setup.options().isEmpty)
    }

    /// The kernel measures the file under the image's name, and only the right one is mounted.
    @Test func anotherImageUnderTheName() throws {
        let setup = try Setup("fsverity-sha256-12")
        mkdir(setup.base + "/tree/more", 0o755)
        let other = try Cfsoci.succeed(["create-image", setup.base + "/tree", "other", "--repo", setup.repository]).lines[0]
        let otherFile = setup.objects + "/\(other.prefix(2))/\(other.dropFirst(2))"
        let own = try readFile(setup.image)
        func refusal() throws -> String {
            let message = expectRefusal(try Cfsoci.run(["mount", "tree", setup.target, "--repo", setup.repository]))
            #expect(try setup.options().isEmpty)
            return message
        }
        // Another valid image with fs-verity; the right one without; no image.
        #expect(unlink(setup.image) == 0 && link(otherFile, setup.image) == 0)
        #expect(try refusal().contains("its content has the digest \(other)"))
        #expect(unlink(setup.image) == 0)
        try writeFile(setup.image, own)
        #expect(try refusal().contains("has no fs-verity"))
        #expect(unlink(setup.image) == 0)
        #expect(try refusal().contains("is missing"))
    }

    @Test(arguments: ["fsverity-sha256-12", "fsverity-sha512-12"]) func helper(_ algorithm: String) throws {
        let setup = try Setup(algorithm)
        let objects = "basedir=\(setup.objects)"
        func helper(_ options: String, _ image: String? = nil) throws -> CommandResult {
            try Cfsoci.run(["mount.composefs", image ?? setup.image, setup.target, "-o", options])
        }
        for options in [
            objects + ",digest=\(setup.id)", objects + ",verity", objects + ",tryverity", objects + ",digest=\(setup.id),tryverity",
        ] {
            let result = try helper(options)
            #expect(result.status == 0 && result.error.isEmpty, "\(options): \(result.error)")
            try setup.expectContent()
            try setup.unmount()
        }
        #expect(try helper("repo=\(setup.repository),digest=\(setup.id)", "tree").status == 0)
        try setup.expectContent()
        try setup.unmount()
        for options in ["", ",verity", ",tryverity", ",digest=\(setup.id),verity"] {
            #expect(try helper("repo=\(setup.repository)" + options, "tree").status == 0)
            try setup.expectContent()
            try setup.unmount()
        }
        #expect(try helper("repo=\(setup.repository),noverity", "tree").status == 1)
        #expect(try helper(objects).status == 0)
        #expect(try setup.options().contains("verity=require") == false)
        try setup.unmount()

        let other = String(setup.id.reversed())
        let wrong = try helper(objects + ",digest=\(other)")
        #expect(
            wrong.status == 32
                && wrong.error == "mount.composefs: \(setup.image): is another image: its digest is \(setup.id), not \(other)\n",
            "\(wrong.error)")
        // A copy has the content, but no fs-verity to verify it.
        let copy = setup.base + "/copy"
        try writeFile(copy, try readFile(setup.image))
        let unmeasured = try helper(objects + ",digest=\(setup.id)", copy)
        #expect(unmeasured.status == 32 && unmeasured.error.contains("has no fs-verity"), "\(unmeasured.error)")
        // Objects on a file system without fs-verity.
        let plain = try helper("basedir=/proc,verity")
        #expect(plain.status == 32 && plain.error.contains("/proc has none, so every file would fail to open"), "\(plain.error)")
        #expect(try setup.options().isEmpty)
    }

    /// Without `verity` a repository whose meta.json was replaced counts as one without fs-verity.
    @Test func helperOfADemotedRepository() throws {
        let setup = try Setup("fsverity-sha256-12")
        let metadata = setup.repository + "/meta.json"
        let plain = setup.base + "/plain"
        try Cfsoci.succeed(["init", plain, "--algorithm", "fsverity-sha256-12", "--insecure"])
        #expect(unlink(metadata) == 0)
        try writeFile(metadata, try readFile(plain + "/meta.json"))
        func helper(_ options: String) throws -> CommandResult {
            try Cfsoci.run(["mount.composefs", "tree", setup.target, "-o", "repo=\(setup.repository)" + options])
        }
        let refused = try helper(",verity")
        #expect(refused.status == 32 && refused.error.contains("fs-verity"), "\(refused.error)")
        #expect(try setup.options().isEmpty)
        #expect(try helper("").status == 0)
        #expect(try setup.options().contains("verity=require") == false)
        try setup.unmount()
    }

    /// With an upper directory, the image's files are still verified, also when they are copied up.
    @Test func upperDirectories() throws {
        let setup = try Setup("fsverity-sha256-12")
        let (upper, work) = (setup.base + "/upper", setup.base + "/work")
        for path in [upper, work] { mkdir(path, 0o755) }
        let arguments = ["mount", "tree", setup.target, "--repo", setup.repository, "--upperdir", upper, "--workdir", work]
        try Cfsoci.succeed(arguments)
        try setup.expectContent()
        try writeFile(setup.target + "/usr/new", [3])
        let file = open(setup.target + "/usr/tool", O_WRONLY | O_APPEND)
        #expect(file >= 0 && write(file, "x", 1) == 1)
        close(file)
        #expect(try readFile(setup.target + "/usr/tool") == Self.big + Array("x".utf8))
        try setup.unmount()
        try Cfsoci.succeed(arguments + ["--read-only"])
        #expect(try readFile(setup.target + "/usr/tool") == Self.big + Array("x".utf8))
        #expect(open(setup.target + "/more", O_WRONLY | O_CREAT, 0o600) < 0 && errno == EROFS)
        try setup.unmount()
        #expect(try Cfsoci.succeed(["fsck", "--repo", setup.repository]).lines.last == "status: ok")
    }

    /// An image with every kind of entry equals the original in every attribute: `MountEqualityTests` with fs-verity.
    @Test(.enabled(if: ["python3", "igzip", "gzip", "openssl"].allSatisfy(hasProgram), "needs python3, isal, gzip and openssl"))
    func equalsTheOriginal() throws {
        let base = (verityDirectory ?? "") + "/secure-equality-" + Host.randomName()
        mkdir(base, 0o755)
        defer { removeTree(base) }
        let lines = try runEquality(["--only-mounts", "--small"], below: base)
        #expect(lines.first?.hasSuffix("in a repository with fs-verity") == true, "\(lines)")
        #expect(lines.dropFirst().dropLast() == noDifferences)
    }

    /// The features report says that everything for a secure repository works.
    @Test func features() throws {
        let found = try Cfsoci.succeed(["features", verityDirectory ?? "", "--json"]).json()
        for name in ["fsVeritySha256", "fsVeritySha512", "erofs", "dataOnlyLayers", "overlayVerity"] {
            #expect(found["features"]?[name]?["state"]?.string == "yes", "\(name)")
        }
        #expect(found["mounting"]?.string == "kernel" && found["secureMounting"]?.string == "kernel")
        let hasSignatures = access("/proc/sys/fs/verity/require_signatures", F_OK) == 0
        #expect((found["features"]?["builtinSignatures"]?["state"]?.string == "yes") == hasSignatures)
        if hasSignatures { #expect(found["features"]?["builtinSignatures"]?["required"]?.bool == false) }
    }
}
