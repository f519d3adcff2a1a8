import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

private let verityDirectory = getenv("CFSOCI_TEST_VERITY_DIR").map { String(cString: $0) }

/// Every command on a repository with fs-verity. These tests are here because they use the runner of the real binary.
@Suite(.serialized, .enabled(if: verityDirectory != nil, "needs CFSOCI_TEST_VERITY_DIR on a file system with fs-verity"))
struct SecureCommandTests {
    private final class Setup: Sendable {
        let folder: String
        let path: String
        let algorithm: VerityAlgorithm

        init(_ algorithm: VerityAlgorithm) throws {
            self.algorithm = algorithm
            folder = (verityDirectory ?? "") + "/secure-" + Host.randomName()
            path = folder + "/repo"
            try #require(mkdir(folder, 0o755) == 0)
            try Cfsoci.succeed(["init", path, "--algorithm", "fsverity-\(algorithm.name)-12", "--quiet"])
        }

        deinit { removeTree(folder) }

        /// Runs the command and requires exit status 0 and an empty standard error.
        @discardableResult
        func succeed(_ arguments: [String], input: [UInt8]? = nil) throws -> CommandResult {
            let result = try Cfsoci.run(arguments + ["--repo", path, "--require-verity"], input: input)
            guard result.status == 0, result.error.isEmpty else {
                throw RunFailure(description: "cfsoci \(arguments.joined(separator: " ")): status \(result.status): \(result.error)")
            }
            return result
        }

        /// With the small image of `LayoutBuilder`, as `t`.
        static func pulled(_ algorithm: VerityAlgorithm) throws -> Setup {
            let setup = try Setup(algorithm)
            try LayoutBuilder.small().write(to: setup.folder + "/layout")
            try setup.succeed(["pull", "oci:" + setup.folder + "/layout", "t"])
            return setup
        }

        var objects: [String] { fileList(path + "/objects").filter { $0.utf8.count > 2 } }

        /// Checks that every object has the fs-verity digest in its name, and returns their number.
        @discardableResult
        func expectMeasured(sourceLocation: SourceLocation = #_sourceLocation) throws -> Int {
            for object in objects {
                let measured = try measure(path + "/objects/" + object)
                let name = object.replacing("/", with: "")
                #expect(measured == name, sourceLocation: sourceLocation)
                #expect(name.utf8.count == (algorithm == .sha256 ? 64 : 128), "\(object)", sourceLocation: sourceLocation)
            }
            return objects.count
        }
    }

    /// The kernel's digest in hex, or nil if the file has no fs-verity.
    private static func measure(_ path: String) throws -> String? {
        try FileDescriptor.open(ByteString(path), .readOnly).measureVerity().map { Hex.encode($0.digest) }.map(String.init(describing:))
    }

    /// The digest that fsverity-utils computes for a file's content.
    private static func digest(_ path: String, _ algorithm: VerityAlgorithm) throws -> String {
        let result = try launch("fsverity", ["digest", "--compact", "--hash-alg=\(algorithm.name)", path])
        return String(result.text.prefix { $0 != "\n" })
    }

    /// The files of disks that the repository keeps have fs-verity, whether a command or a pull makes them.
    @Test(arguments: VerityAlgorithm.allCases) func keptDisks(_ algorithm: VerityAlgorithm) throws {
        let setup = try Setup.pulled(algorithm)
        let plain = setup.objects.count
        var paths: Set<String> = []
        for kind in ["single", "flat", "fsmeta", "layered", "vmdk"] {
            let files = try setup.succeed(["disk", "t", "--kind", kind, "--json"]).json()["files"]?.array ?? []
            #expect(!files.isEmpty)
            for path in files.compactMap({ $0["path"]?.string }) {
                #expect(open(path, O_WRONLY) == -1 && errno == EPERM)
                paths.insert(path)
            }
        }
        // Each file, and a stream for each disk and each layer.
        #expect(try setup.expectMeasured() == plain + paths.count + 5 + 2)
        #expect(try setup.succeed(["fsck", "--deep"]).lines.contains("disks: 5/5 ok"))
        try setup.succeed(["prune", "--disks"])
        #expect(try setup.expectMeasured() == plain)
        try setup.succeed(["rm", "t"])
        try setup.succeed(["gc"])
        try setup.succeed(["pull", "oci:" + setup.folder + "/layout", "t", "--disk", "vmdk", "--disk", "flat"])
        try setup.expectMeasured()
        #expect(try setup.succeed(["fsck", "--deep"]).lines.contains("disks: 2/2 ok"))
    }

    /// The objects of snapshots have fs-verity. One that was replaced is found and never restored, and the next snapshot of the same disk repairs it.
    @Test(arguments: VerityAlgorithm.allCases) func snapshots(_ algorithm: VerityAlgorithm) throws {
        let setup = try Setup.pulled(algorithm)
        let plain = setup.objects.count
        let (disk, out) = (setup.folder + "/disk", setup.folder + "/out")
        func write(_ name: String) throws {
            try mustShell("head -c 300000 /dev/urandom > $1.file; debugfs -w -R \"write $1.file upper/$2\" $1 2>/dev/null", [disk, name])
        }
        try setup.succeed(["disk", "upper", disk, "--size", "64M"])
        try write("one")
        try setup.succeed(["snapshot", "create", "one", "--upper", disk, "--image", "t"])
        let first = try setup.expectMeasured()
        try mustShell("cp --sparse=always $1 $1.one", [disk])
        try write("two")
        try setup.succeed(["snapshot", "create", "two", "--upper", disk, "--parent", "one"])
        let second = try setup.expectMeasured()
        // At least the five leaves of a file, and at most the changes.
        #expect(first >= plain + 5 && second >= first + 5 && second < first + 30)
        for object in setup.objects { #expect(open(setup.path + "/objects/" + object, O_WRONLY) == -1 && errno == EPERM) }
        func expectContents() throws {
            for (name, expected) in [("one", disk + ".one"), ("two", disk)] {
                #expect(try setup.succeed(["snapshot", "verify", name, "--json"]).json()["ok"]?.bool == true)
                try setup.succeed(["snapshot", "restore", name, out])
                try mustShell("cmp $1 $2; rm $2", [expected, out])
            }
            #expect(try setup.succeed(["fsck", "--deep"]).lines.contains("snapshots: 2/2 ok"))
        }
        try expectContents()
        try setup.succeed(["gc"])
        #expect(try setup.expectMeasured() == second)

        // The leaf of the superblock as the same file without fs-verity, and as another file with it.
        try mustShell("head -c 65536 $1 > $1.leaf", [disk])
        let id = try Self.digest(disk + ".leaf", algorithm)
        let leaf = setup.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        for tampering in [
            "true",
            "chmod u+w $1.new; printf X | dd of=$1.new conv=notrunc bs=1 seek=60000 status=none; fsverity enable --hash-alg=$2 $1.new",
        ] {
            try mustShell("cp $1 $1.new; \(tampering); mv -f $1.new $1", [leaf, algorithm.name])
            for (arguments, status) in [(["verify", "two"], Int32(2)), (["restore", "two", out], 1), (["export", "two", out], 1)] {
                let result = try Cfsoci.run(["snapshot"] + arguments + ["--repo", setup.path])
                #expect(result.status == status && result.error.contains(id), "\(arguments): \(result.status) \(result.error)")
            }
            #expect(!fileList(setup.folder).contains { $0.hasPrefix("out") || $0.hasPrefix(".out") })
            #expect(try Cfsoci.run(["fsck", "--repo", setup.path]).status == 2)
            try setup.succeed(["snapshot", "verify", "one"])
            try setup.succeed(["snapshot", "create", "again", "--upper", disk, "--parent", "one"])
            try setup.succeed(["snapshot", "rm", "again"])
            try setup.succeed(["gc"])
            #expect(try setup.expectMeasured() == second)
            try expectContents()
        }

        // The parent stays with its child.
        let identity = try #require(try setup.succeed(["snapshot", "inspect", "one", "--json"]).json()["identity"]?.string)
        try setup.succeed(["snapshot", "rm", "one"])
        try setup.succeed(["gc"])
        #expect(try setup.expectMeasured() == second)
        try setup.succeed(["snapshot", "verify", identity])
        try setup.succeed(["snapshot", "rm", "two"])
        try setup.succeed(["gc"])
        #expect(try setup.expectMeasured() == plain)
        #expect(try setup.succeed(["fsck"]).text.contains("status: ok"))
    }

    @Test(arguments: VerityAlgorithm.allCases) func initialize(_ algorithm: VerityAlgorithm) throws {
        let setup = try Setup(algorithm)
        let metadata = setup.path + "/meta.json"
        let measured = try #require(try Self.measure(metadata))
        #expect(measured == (try Self.digest(metadata, algorithm)))
        #expect(open(metadata, O_WRONLY) == -1 && errno == EPERM)
        let again = try setup.succeed(["init", setup.path, "--algorithm", "fsverity-\(algorithm.name)-12", "--ensure", "--json", "--quiet"])
        #expect(try again.json()["verity"]?.bool == true)
    }

    @Test(arguments: VerityAlgorithm.allCases) func everyObject(_ algorithm: VerityAlgorithm) throws {
        let setup = try Setup.pulled(algorithm)
        let pulled = try setup.expectMeasured()
        #expect(pulled >= 6)
        let tree = setup.folder + "/tree"
        for path in [tree, tree + "/usr"] { mkdir(path, 0o755) }
        try writeFile(tree + "/usr/tool", [UInt8](repeating: 7, count: 300_000))
        try setup.succeed(["create-image", tree, "tree"])
        let created = try setup.expectMeasured()
        #expect(created == pulled + 2)
        let layer = tarArchive([TarMember(name: "new", content: [UInt8](repeating: 9, count: 5000))])
        try setup.succeed(["import-layer", ContentDigest.of(layer).description], input: layer)
        #expect(try setup.expectMeasured() == created + 2)
        // Stored objects are not stored again and keep fs-verity.
        try setup.succeed(["pull", "oci:" + setup.folder + "/layout", "again"])
        #expect(try setup.expectMeasured() == created + 2)
        for object in setup.objects {
            #expect(open(setup.path + "/objects/" + object, O_WRONLY) == -1 && errno == EPERM)
            #expect(try Self.digest(setup.path + "/objects/" + object, algorithm) == object.replacing("/", with: ""))
        }
    }

    /// Each command works and leaves a clean repository in which all objects have fs-verity.
    @Test(arguments: VerityAlgorithm.allCases) func everyCommand(_ algorithm: VerityAlgorithm) throws {
        let setup = try Setup.pulled(algorithm)
        let id = try setup.succeed(["compute-id", "t"]).lines[0]
        #expect(try setup.succeed(["images"]).text.contains("t"))
        #expect(try setup.succeed(["inspect", "t"]).text.contains(id))
        #expect(try setup.succeed(["ls", "t", "usr"]).text.contains("big"))
        let big = [UInt8]((0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })
        #expect(try setup.succeed(["cat", "t", "usr/big"]).output == big)
        #expect(try setup.succeed(["dump", "t"]).text.contains("/usr/big"))
        #expect(try setup.succeed(["image-objects", id]).lines.count == 2)
        try setup.succeed(["tag", "t", "second"])
        try setup.succeed(["upgrade"])
        try setup.succeed(["untag", "t"])
        try setup.succeed(["gc", "--dry-run"])
        try setup.succeed(["gc"])
        #expect(try setup.succeed(["cat", "second", "usr/big"]).output == big)
        #expect(try setup.succeed(["compute-id", "second"]).lines[0] == id)
        try setup.expectMeasured()
        for arguments in [["fsck"], ["fsck", "--deep"], ["fsck", "second"], ["fsck", "--metadata-only"]] {
            #expect(try setup.succeed(arguments).text.contains("status: ok"))
        }
        try setup.succeed(["rm", "second"])
        try setup.succeed(["gc"])
        #expect(setup.objects.isEmpty)
        #expect(try setup.succeed(["fsck"]).text.contains("status: ok"))
    }

    /// A copy lacks only fs-verity. No command treats it as the original or as an insecure repository.
    @Test(arguments: ["/dev/shm", verityDirectory ?? "/"]) func copied(_ directory: String) throws {
        let setup = try Setup.pulled(.sha256)
        let copy = directory + "/copied-" + Host.randomName()
        defer { removeTree(copy) }
        #expect(try launch("cp", ["-a", setup.path, copy]).status == 0)
        let why =
            "\(copy): the repository was made with fs-verity, but its meta.json has none: a copy does not keep it. Pull the images into a "
            + "new repository, or make this one insecure: cfsoci init --insecure \(copy)"
        let target = setup.folder + "/target"
        mkdir(target, 0o755)
        for arguments in [
            ["images"], ["inspect", "t"], ["ls", "t"], ["cat", "t", "usr/big"], ["dump", "t"], ["tag", "t", "u"], ["untag", "t"],
            ["rm", "t"],
            ["gc"], ["upgrade"], ["mount", "t", target], ["mount", "--fuse", "t", target], ["create-image", setup.folder + "/layout"],
            ["pull", "oci:" + setup.folder + "/layout", "t"], ["init", copy, "--ensure", "--algorithm", "fsverity-sha256-12"],
        ] {
            #expect(expectRefusal(try Cfsoci.run(arguments + ["--repo", copy])) == why, "\(arguments)")
        }
        let checked = try Cfsoci.run(["fsck", "--repo", copy])
        #expect(checked.status == 2 && checked.text.contains(why), "\(checked.text)")
        // With an explicit option, it becomes an insecure repository.
        let made = try Cfsoci.succeed(["init", "--insecure", copy, "--algorithm", "fsverity-sha256-12", "--json", "--quiet"])
        #expect(try made.json()["verity"]?.bool == false)
        try Cfsoci.succeed(["fsck", "--repo", copy])
        for environment in [[], ["CFSOCI_REQUIRE_VERITY=1"]] {
            let required = try Cfsoci.run(
                ["images", "--repo", copy] + (environment.isEmpty ? ["--require-verity"] : []), environment: environment)
            #expect(expectRefusal(required) == "\(copy): the repository is without fs-verity (meta.json has none), but verity is required")
        }
    }
}

/// `--require-verity` without fs-verity.
@Suite struct RequireVerityTests {
    @Test func refused() throws {
        let (store, _) = try ContractStore.small()
        let why = "\(store.path): the repository is without fs-verity (meta.json has none), but verity is required"
        for arguments in [["images"], ["cat", "t", "usr/big"], ["gc"], ["fsck"], ["pull", "oci:" + store.layoutPath("t"), "u"]] {
            #expect(try store.refuse(arguments + ["--require-verity"]) == why)
            #expect(expectRefusal(try store.run(arguments, environment: ["CFSOCI_REQUIRE_VERITY=1"])) == why)
            #expect(try store.run(arguments, environment: ["CFSOCI_REQUIRE_VERITY=0"]).status == 0)
        }
        let both = try Cfsoci.run(["init", store.folder.path + "/other", "--insecure", "--require-verity"])
        #expect(both.status == 64 && both.error.contains("exclude each other"))
    }

    /// A disk with a secure repository in a machine whose kernel lacks fs-verity: none of its files can be opened.
    @Test(
        .enabled(
            if: isRoot && access("/sys/fs/ext4/features/verity", F_OK) != 0 && access("/sys/fs/ext4", F_OK) == 0 && hasProgram("debugfs"),
            "needs root, debugfs, and a kernel with ext4 and without fs-verity"))
    func kernelWithout() throws {
        let (store, _) = try ContractStore.small()
        let (disk, target) = (store.folder.path + "/disk", store.folder.path + "/mounted")
        mkdir(target, 0o755)
        #expect(
            try launch("mkfs.ext4", ["-q", "-F", "-b", "4096", "-O", "verity", "-d", store.folder.path + "/repo", disk, "32M"]).status == 0)
        // EXT4_VERITY_FL and EXT4_EXTENTS_FL.
        #expect(try launch("debugfs", ["-w", "-R", "set_inode_field meta.json flags 0x180000", disk]).status == 0)
        guard try launch("mount", ["-o", "ro,loop", disk, target]).status == 0 else { try Test.cancel("no loop devices") }
        defer { umount2(target, Int32(MNT_DETACH)) }
        for arguments in [["images"], ["cat", "t", "usr/big"], ["fsck"], ["mount", "t", store.folder.path]] {
            let why = expectRefusal(try Cfsoci.run(arguments + ["--repo", target]))
            #expect(
                why == "\(target): the repository has fs-verity, and this kernel cannot even open such files: use one with CONFIG_FS_VERITY"
            )
        }
    }
}
