import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Disks and snapshots that do not fit: they are refused before anything is written if that is certain, and nothing is left of what was begun.
@Suite(.enabled(if: isRoot, "needs root"))
struct DiskSpaceTests {
    /// A repository on a small file system, with an image of files of together 12 MiB.
    private final class Small: Sendable {
        let folder: TemporaryFolder
        let mount: String
        let repository: String
        static let dataBytes: UInt64 = 12 << 20

        /// - Parameters:
        ///   - options: of a tmpfs, or the size of an ext4 file system.
        init(_ options: String, ext4: Bool = false) throws {
            folder = try TemporaryFolder()
            mount = folder.path + "/mount"
            repository = mount + "/repo"
            #expect(mkdir(mount, 0o755) == 0)
            try Self.mount(
                ext4
                    ? "truncate -s $2 $1.ext4; mkfs.ext4 -q -F -m 0 -O ^has_journal $1.ext4; mount -o loop $1.ext4 $1"
                    : "mount -t tmpfs -o $2 tmpfs $1", [mount, options])
            var random = SplitMix(state: 7)
            let files = (0..<6).map { number in
                let words = (0..<(Int(Self.dataBytes) / 6 / 8)).map { _ in random.next() }
                return TarMember(name: "file\(number)", content: words.withUnsafeBytes { Array($0) })
            }
            try LayoutBuilder(layers: [tarArchive(files)]).write(to: folder.path + "/layout")
            try Cfsoci.succeed(["init", repository, "--insecure"])
        }

        private static func mount(_ script: String, _ arguments: [String]) throws {
            guard try shell(script, arguments).status == 0 else { try Test.cancel("nothing can be mounted") }
        }

        deinit { umount2(mount, Int32(MNT_DETACH)) }

        func run(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(["--repo", repository] + arguments) }

        @discardableResult
        func succeed(_ arguments: [String]) throws -> CommandResult {
            let result = try run(arguments)
            try #require(result.status == 0, "\(arguments): \(result.error)")
            return result
        }

        func pull(_ more: [String] = []) throws -> CommandResult { try run(["pull", "oci:" + folder.path + "/layout", "t"] + more) }

        func expectRefusal(_ result: CommandResult, _ text: String, sourceLocation: SourceLocation = #_sourceLocation) {
            #expect(result.status == 7 && result.error.contains(text), "\(result.status) \(result.error)", sourceLocation: sourceLocation)
        }

        /// All names.
        var files: [String] { fileList(mount).sorted() }
    }

    @Test(arguments: [false, true]) func disks(onExt4: Bool) throws {
        let small = try Small(onExt4 ? "24M" : "size=20m", ext4: onExt4)
        #expect(try small.pull().status == 0)
        let before = small.files
        let path = small.mount + "/out"
        for kind in ["single", "flat", "vmdk", "layered"] {
            small.expectRefusal(try small.run(["disk", "t", "--kind", kind]), "\(small.repository): the disk needs at least 12.00 MiB; ")
            small.expectRefusal(try small.run(["disk", "t", "--kind", kind, "-o", path]), "\(path): the disk needs at least 12.00 MiB; ")
        }
        #expect(small.files == before)
        // It has no data, and another file system has space.
        try small.succeed(["disk", "t", "--kind", "fsmeta"])
        try small.succeed(["disk", "t", "--kind", "vmdk", "-o", small.folder.path + "/out"])
    }

    /// Zeros and holes need no space.
    @Test func sparseDisks() throws {
        let small = try Small("size=20m")
        let content = [UInt8](repeating: 1, count: 70_000) + [UInt8](repeating: 0, count: 60 << 20)
        try LayoutBuilder(layers: [tarArchive([TarMember(name: "file", content: content)])], compressor: "gzip").write(
            to: small.folder.path + "/sparse")
        try small.succeed(["pull", "oci:" + small.folder.path + "/sparse", "t"])
        for kind in ["single", "flat", "vmdk"] { try small.succeed(["disk", "t", "--kind", kind]) }
    }

    /// The content fits by itself, and not with the metadata.
    @Test(arguments: ["single", "vmdk", "layered", "flat"]) func fullMeanwhile(kind: String) throws {
        let small = try Small("size=40m")
        #expect(try small.pull().status == 0)
        let before = small.files
        try mustShell("mount -o remount,size=$(( $(df -B1 --output=used $1 | tail -n 1) + $2 )) $1", [small.mount, "\(Small.dataBytes)"])
        for output in [[], ["-o", small.mount + "/out"]] {
            small.expectRefusal(try small.run(["disk", "t", "--kind", kind] + output), "No space left on device: free some space")
            // What a failed operation leaves in a repository until the next one.
            #expect(small.files.filter { !$0.hasPrefix("repo/.staging") } == before.filter { !$0.hasPrefix("repo/.staging") })
        }
        try small.succeed(["gc"])
        #expect(try small.run(["fsck", "--deep"]).status == 0)
    }

    @Test func pulledDisks() throws {
        let small = try Small("size=20m")
        let refused = try small.pull(["--disk", "vmdk"])
        small.expectRefusal(refused, "\(small.repository): the disk needs at least 12.00 MiB; ")
        #expect(refused.error.contains("--no-space-check"), "\(refused.error)")
        small.expectRefusal(try small.pull(["--disk", "vmdk", "--no-space-check"]), "No space left on device")
        #expect(try small.run(["images", "-q"]).lines.isEmpty)
        // What was stored is used.
        #expect(try small.pull().status == 0)
        let before = small.files
        small.expectRefusal(try small.pull(["--disk", "flat"]), "the disk needs at least 12.00 MiB; ")
        #expect(small.files == before)
        #expect(try small.run(["fsck", "--deep"]).status == 0)
    }

    // MARK: Snapshots

    /// A disk of 256 MiB with 12 MiB of data.
    private func makeUpper(_ small: Small) throws -> String {
        let path = small.folder.path + "/upper"
        try Cfsoci.succeed(["disk", "upper", path, "--size", "256M"])
        try write(path, 12)
        return path
    }

    /// New bytes, not in the file system of the disk, which does not matter here.
    private func write(_ path: String, _ mebibytes: Int) throws {
        try mustShell("dd if=/dev/urandom of=$1 bs=1M seek=100 count=$2 conv=notrunc status=none", [path, "\(mebibytes)"])
    }

    @Test(arguments: [false, true]) func snapshots(onExt4: Bool) throws {
        let small = try Small(onExt4 ? "36M" : "size=32m", ext4: onExt4)
        #expect(try small.pull().status == 0)
        let upper = try makeUpper(small)
        try small.succeed(["snapshot", "create", "one", "--upper", upper, "--image", "t"])
        // The whole disk would not fit, what has changed does.
        try write(upper, 1)
        let second = try small.succeed(["snapshot", "create", "two", "--upper", upper, "--parent", "one", "--json"]).json()
        #expect(second["newBytes"]?.int64 == 1 << 20)
        // The same bytes many times.
        try mustShell(
            "for n in $(seq 1 40); do dd if=$1 of=$1 bs=1M skip=100 seek=$((120 + n)) count=1 conv=notrunc status=none; done", [upper])
        try small.succeed(["snapshot", "create", "three", "--upper", upper, "--parent", "one"])
        let before = small.files
        try write(upper, 10)
        let create = ["snapshot", "create", "four", "--upper", upper, "--parent", "one"]
        small.expectRefusal(try small.run(create), "\(small.repository): the snapshot needs at least 10.00 MiB more; ")
        #expect(small.files == before)
        // The same as a directory.
        let other = small.folder.path + "/other"
        try Cfsoci.succeed(["init", other, "--insecure"])
        try Cfsoci.succeed(["pull", "oci:" + small.folder.path + "/layout", "t", "--repo", other])
        try Cfsoci.succeed(["snapshot", "create", "four", "--upper", upper, "--image", "t", "--repo", other])
        try Cfsoci.succeed(["snapshot", "export", "four", small.folder.path + "/four", "--repo", other])
        small.expectRefusal(try small.run(["snapshot", "import", small.folder.path + "/four"]), "needs at least 10.00 MiB more; ")
        #expect(small.files == before)
        for name in ["one", "two", "three"] { try small.succeed(["snapshot", "verify", name]) }
    }

    /// Neither a file nor a directory is begun for a disk that does not fit. Blocks of zeros need no space.
    @Test(arguments: [false, true]) func restoredSnapshots(onExt4: Bool) throws {
        let small = try Small(onExt4 ? "24M" : "size=20m", ext4: onExt4)
        let upper = try makeUpper(small)
        let other = small.folder.path + "/other"
        func run(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(arguments + ["--repo", other]) }
        try Cfsoci.succeed(["init", other, "--insecure"])
        try Cfsoci.succeed(["pull", "oci:" + small.folder.path + "/layout", "t", "--repo", other])
        try write(upper, 30)
        #expect(try run(["snapshot", "create", "one", "--upper", upper, "--image", "t"]).status == 0)
        let before = small.files
        let target = small.mount + "/target"
        for command in ["restore", "export"] {
            let result = try run(["snapshot", command, "one", target])
            small.expectRefusal(result, "\(target): the disk needs at least ")
            #expect(result.error.contains("free some space"), "\(result.error)")
            #expect(small.files == before)
        }
        // 512 blocks of data in as many objects of 64 KiB.
        try mustShell(
            "fallocate --punch-hole --offset 100M --length 40M $1; for n in $(seq 512); do dd if=/dev/urandom of=$1 bs=4096 count=1 seek=$((25600 + 16 * n)) conv=notrunc status=none; done",
            [upper])
        #expect(try run(["snapshot", "create", "two", "--upper", upper, "--image", "t"]).status == 0)
        #expect(try run(["snapshot", "restore", "two", target]).status == 0)
        try mustShell("cmp $1 $2", [upper, target])
    }

    /// There are bytes for the content, and no inodes. Nothing but whole objects stays, and the next collection removes them.
    @Test func noInodesLeft() throws {
        let small = try Small("size=40m,nr_inodes=250")
        #expect(try small.pull().status == 0)
        let upper = try makeUpper(small)
        let before = small.files
        let create = ["snapshot", "create", "one", "--upper", upper, "--image", "t"]
        small.expectRefusal(try small.run(create), "No space left on device: free some space or run `cfsoci gc`, then repeat the command")
        let left = Set(small.files).subtracting(before).filter { !$0.hasPrefix("repo/.staging") }
        #expect(!left.isEmpty && left.allSatisfy { $0.hasPrefix("repo/objects/") && !$0.contains("tmp") }, "\(left)")
        #expect(try small.run(["snapshot", "list", "-q"]).lines.isEmpty)
        #expect(try small.run(["fsck", "--deep"]).status == 0)
        try small.succeed(["gc"])
        let after = Set(small.files).subtracting(before)
        #expect(after.allSatisfy { $0.hasPrefix("repo/.staging") || $0.utf8.count == "repo/objects/00".utf8.count }, "\(after)")
        try mustShell("mount -o remount,nr_inodes=2000 $1", [small.mount])
        try small.succeed(create)
        try small.succeed(["snapshot", "verify", "one"])
    }
}
