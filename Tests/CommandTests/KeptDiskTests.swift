import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Disks that the repository keeps: `disk` without an output, and `pull --disk`.
struct KeptDiskTests {
    private static let kinds = ["layered", "fsmeta", "vmdk", "single", "flat"]

    private let folder: TemporaryFolder
    private let repository: String

    init() throws {
        folder = try TemporaryFolder()
        repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
    }

    private func write(_ builder: LayoutBuilder, _ name: String = "layout") throws -> String {
        try builder.write(to: folder.path + "/" + name)
        return "oci:" + folder.path + "/" + name
    }

    private func run(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(arguments + ["--repo", repository]) }
    @discardableResult private func succeed(_ arguments: [String]) throws -> CommandResult {
        try Cfsoci.succeed(arguments + ["--repo", repository])
    }

    /// The paths of a kept disk's files.
    private func paths(_ kind: String, _ image: String = "t", _ more: [String] = []) throws -> [String] {
        let report = try succeed(["disk", image, "--kind", kind, "--json"] + more).json()
        #expect(report["kept"]?.bool == true)
        return report["files"]?.array?.compactMap { $0["path"]?.string } ?? []
    }

    private func objectCount() -> Int { fileList(repository + "/objects").filter { $0.utf8.count > 2 }.count }

    private func fsck(_ options: [String] = []) throws -> CommandResult { try run(["fsck"] + options) }

    /// What is kept is what another repository, which keeps nothing, writes as files; each file has the name that fsverity-utils compute.
    @Test(arguments: kinds) func keepsTheSameBytes(_ kind: String) throws {
        let source = try write(LayoutBuilder.large(layers: 3, filesPerLayer: 20))
        try succeed(["pull", source, "t"])
        let other = folder.path + "/other"
        try Cfsoci.succeed(["init", other, "--insecure", "--algorithm", "fsverity-sha256-12"])
        try Cfsoci.succeed(["pull", source, "t", "--repo", other])
        let written = folder.path + "/written"
        try Cfsoci.succeed(["disk", "t", "--kind", kind, "-o", written, "--repo", other])
        let kept = try paths(kind)
        for path in kept {
            let digest = try mustShell("fsverity digest --compact --hash-alg=sha512 \"$1\"", [path]).split(separator: "\n")[0]
            #expect(path.hasPrefix(repository + "/objects/") && path.dropFirst(repository.count + 9).replacing("/", with: "") == digest)
        }
        // The descriptor names objects instead of the directory's files.
        let names: [String] =
            switch kind {
            case "layered": fileList(written).sorted()
            case "vmdk": ["fsmeta.erofs"] + fileList(written).filter { $0.hasPrefix("000") }.sorted()
            default: [""]
            }
        #expect(kept.count == names.count + (kind == "vmdk" ? 1 : 0))
        for (path, name) in zip(kept.suffix(names.count), names) {
            try mustShell("cmp \"$1\" \"$2\"", [path, name.isEmpty ? written : written + "/" + name])
        }
        // A copy of it has the same bytes, the descriptor too.
        let copy = folder.path + "/copy"
        try succeed(["disk", "t", "--kind", kind, "-o", copy])
        try mustShell("diff -r \"$1\" \"$2\"", [written, copy])
        // Made once.
        let before = objectCount()
        var status = stat()
        try #require(stat(kept[0], &status) == 0)
        #expect(try paths(kind) == kept)
        var again = stat()
        try #require(stat(kept[0], &again) == 0)
        #expect(again.st_ino == status.st_ino && objectCount() == before)
        #expect(try fsck(["--deep"]).lines.contains("disks: 1/1 ok"))
        let list = try succeed(["disk", "list", "--json"]).json().array ?? []
        #expect(list.count == 1 && list[0]["kind"]?.string == kind && list[0]["names"]?.array?.first?.string == "t")
        #expect(try succeed(["disk", "list", "-q"]).lines == (kind == "layered" ? kept : [kept[0]]))
    }

    /// A machine opens the descriptor by the path of its object, and its names lead to the other objects.
    @Test(.enabled("qemu-img is not installed") { access("/usr/bin/qemu-img", X_OK) == 0 }) func qemuReadsTheKeptDisk() throws {
        try succeed(["pull", try write(LayoutBuilder.large(layers: 3, filesPerLayer: 20)), "t"])
        let files = try paths("vmdk")
        try mustShell("qemu-img convert -f vmdk -O raw \"$1\" \"$2/raw\"", [files[0], folder.path])
        try mustShell("out=$1/raw; shift; cat \"$@\" | cmp - \"$out\"", [folder.path] + files.dropFirst())
    }

    /// Images with the same lower layers share their images, and another kind uses them, too.
    @Test func layersAreShared() throws {
        let all = LayoutBuilder.large(layers: 3, filesPerLayer: 10)
        try succeed(["pull", try write(LayoutBuilder(layers: Array(all.layers.prefix(2))), "two"), "two"])
        try succeed(["pull", try write(all, "three"), "three"])
        let two = try paths("layered", "two")
        let three = try paths("vmdk", "three")
        #expect(two.count == 2 && three.count == 5 && Array(three[2..<4]) == two)
        #expect(try paths("layered", "three") == Array(three[2...]))
        #expect(try fsck(["--deep"]).lines.contains("disks: 3/3 ok"))
    }

    /// A power cut may leave a disk without the links to the images of its layers, or without what they lead to.
    @Test(arguments: [false, true]) func lostLinksComeBack(_ areObjectsLost: Bool) throws {
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        let files = try paths("layered")
        let links = fileList(repository + "/streams").filter { $0.hasPrefix("oci-erofs-") }.map { repository + "/streams/" + $0 }
        try #require(links.count == 2)
        for link in links {
            if areObjectsLost { try mustShell("rm \"$(readlink -f \"$1\")\"", [link]) }
            try mustShell("rm \"$1\"", [link])
        }
        #expect(try paths("layered") == files)
        for link in links { #expect(access(link, R_OK) == 0) }
        #expect(try fsck(["--deep"]).lines.contains("disks: 1/1 ok"))
    }

    @Test func collectionKeepsAndPruneRemoves() throws {
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        let plain = objectCount()
        let kept = try Self.kinds.flatMap { try paths($0) } + paths("flat", "t", ["--size", "32M"])
        let usage = try succeed(["df", "--json"]).json()
        #expect(ObjectFiles(usage["costs"]?.array?.first?["total"]) == ObjectFiles(below: repository + "/objects"))
        #expect(usage["disks"]?["count"]?.int64 ?? 0 > Int64(Set(kept).count))
        try succeed(["gc"])
        for path in kept { #expect(access(path, R_OK) == 0) }
        // As long as the image has a name, only on request.
        try succeed(["prune"])
        for path in kept { #expect(access(path, R_OK) == 0) }
        let removed = try succeed(["disk", "rm", "t", "--kind", "flat", "--json"]).json()
        #expect(removed["removed"]?.array?.count == 2)
        #expect(try run(["disk", "rm", "t", "--kind", "flat"]).status == 3)
        try succeed(["tag", "t", "u"])
        try succeed(["untag", "t"])
        try succeed(["gc"])
        #expect(access(kept[0], R_OK) == 0 && access(kept[kept.count - 1], R_OK) != 0)
        #expect(try succeed(["prune", "--disks", "--json"]).json()["disksRemoved"]?.int64 == 4)
        #expect(objectCount() == plain)
        _ = try paths("single", "u")
        try succeed(["untag", "u"])
        #expect(try succeed(["prune", "--json"]).json()["disksRemoved"]?.int64 == 1)
        #expect(objectCount() == 0)
        #expect(try fsck().status == 0)
    }

    /// An intact object in the place of another is found by a fresh computation only.
    @Test func deepCheckComparesWithTheLayers() throws {
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        _ = try paths("single")
        _ = try paths("fsmeta")
        let streams = repository + "/streams/"
        let names = fileList(repository + "/streams").filter { $0.hasPrefix("oci-disk-") }.sorted()
        try #require(names.count == 2)
        // Both have one file.
        try mustShell("ln -sfn \"$(readlink \"$1\")\" \"$2\"", [streams + names[0], streams + names[1]])
        #expect(try fsck().status == 0)
        let result = try fsck(["--deep"])
        #expect(result.status == 2 && result.text.contains("fsck: disk-content: oci-disks/") && result.text.contains("disks: 1/2 ok"))
    }

    /// A record must lead to the disk of its own image, of its own kind.
    @Test func recordsAreChecked() throws {
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        try succeed(["pull", try write(LayoutBuilder.large(layers: 2, filesPerLayer: 3), "other"), "o"])
        _ = try paths("single")
        _ = try paths("single", "o")
        let records = fileList(repository + "/streams/refs/oci-disks").filter { $0.hasSuffix("single-1-oci") }.sorted()
        try #require(records.count == 2)
        let folder = repository + "/streams/refs/oci-disks/"
        let first = try mustShell("readlink -n \"$1\"", [folder + records[0]])
        try mustShell("ln -sfn \"$1\" \"$2\"", [first, folder + records[1]])
        #expect(try fsck().text.contains("is not a disk of this image's layers"))
        try mustShell("mv \"$1\" \"$2\"", [folder + records[1], folder + records[1].replacing("single", with: "flat")])
        #expect(try fsck().text.contains("not to a disk of this kind"))
        // A repair gives each image what it should have.
        let repaired = try run(["fsck", "--repair"])
        #expect(repaired.status == 0, "\(repaired.text)\(repaired.error)")
        #expect(try fsck(["--deep"]).status == 0)
    }

    /// A damaged or missing file is found, not used, and made again.
    @Test(arguments: ["single", "layered", "vmdk", "flat"], [true, false]) func damageIsRepaired(_ kind: String, _ isMissing: Bool) throws {
        try succeed(["pull", try write(LayoutBuilder.large(layers: 2, filesPerLayer: 10)), "t"])
        let files = try paths(kind)
        let victim = try #require(files.last)
        try mustShell("cp \"$1\" \"$2/intact\"", [victim, folder.path])
        try mustShell(
            isMissing ? "rm \"$1\"" : "chmod u+w \"$1\"; printf X | dd of=\"$1\" bs=1 seek=1100 conv=notrunc status=none", [victim])
        #expect(try fsck().status == 2)
        // A copy verifies what it reads.
        let copied = try run(["disk", "t", "--kind", kind, "-o", folder.path + "/copy"])
        if isMissing {
            #expect(copied.status == 0)
        } else {
            #expect(copied.status == 1 && copied.error.contains("is damaged: its content has the digest"), "\(copied.error)")
            #expect(access(folder.path + "/copy", F_OK) != 0)
        }
        let plan = try run(["fsck", "--repair", "--dry-run"])
        #expect(plan.text.contains("would rebuild oci-disks/"), "\(plan.text)")
        let repaired = try run(["fsck", "--repair"])
        #expect(repaired.status == 0 && repaired.text.contains("rebuilt oci-disks/"), "\(repaired.text)\(repaired.error)")
        try mustShell("cmp \"$1\" \"$2/intact\"", [victim, folder.path])
        #expect(try fsck(["--deep"]).status == 0)
    }

    @Test func pullMakesDisks() throws {
        let source = try write(LayoutBuilder.large(layers: 4, filesPerLayer: 30))
        let arguments = Self.kinds.flatMap { ["--disk", $0] }
        let report = try succeed(["pull", source, "t", "--json"] + arguments).json()
        let disks = try #require(report["disks"]?.array)
        #expect(disks.compactMap { $0["kind"]?.string } == Self.kinds)
        for disk in disks {
            let kind = try #require(disk["kind"]?.string)
            #expect(disk["files"]?.array?.compactMap { $0["path"]?.string } == (try paths(kind)))
        }
        #expect(try fsck(["--deep"]).lines.contains("disks: 5/5 ok"))
        // Of an image that is here already.
        try succeed(["prune", "--disks"])
        #expect(try succeed(["disk", "list"]).lines.isEmpty)
        let again = try succeed(["pull", source, "t", "--disk", "single", "--policy", "missing"]).lines
        #expect(again.contains("disk  single  \(try paths("single")[0])"))
    }

    /// A pull that fails leaves no disk, whichever layer it fails at; one of an artifact makes none.
    @Test func failedPullsLeaveNoDisk() throws {
        var builder = LayoutBuilder.large(layers: 3, filesPerLayer: 30)
        builder.compressor = "gzip"
        let source = try write(builder)
        let blobs = fileList(folder.path + "/layout/blobs/sha256").filter { $0.utf8.count == 64 }
        var layers = 0
        for blob in blobs {
            let path = folder.path + "/layout/blobs/sha256/" + blob
            var status = stat()
            guard stat(path, &status) == 0, status.st_size > 20_000 else { continue }
            layers += 1
            try mustShell("cp \"$1\" \"$1.whole\"; printf XYZ | dd of=\"$1\" bs=1 seek=9000 conv=notrunc status=none", [path])
            let result = try run(["pull", source, "t", "--disk", "layered", "--disk", "flat"])
            #expect(result.status != 0 && result.error.contains("layer "), "\(result.error)")
            #expect(try succeed(["disk", "list"]).lines.isEmpty && succeed(["images", "-q"]).lines.isEmpty)
            try mustShell("mv \"$1.whole\" \"$1\"", [path])
            // Also what is staged: the next pull reads all layers again.
            try succeed(["gc"])
            #expect(try objectCount() == 0 && fsck().status == 0)
        }
        #expect(layers == 3)
        #expect(try run(["pull", source, "--disk", "single", "--all-platforms"]).status == 64)
    }

    /// A disk that the host has mounted stays, whatever is removed, and is not taken for an image.
    @Test func mountedDiskStays() throws {
        try requireMounting()
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        let path = try #require(try paths("single").first)
        let point = folder.path + "/point"
        try mustShell("mkdir $1 && mount -o loop,ro $2 $1", [point, path])
        var isMounted = true
        defer { if isMounted { _ = try? mustShell("umount $1", [point]) } }
        let usage = try run(["df"])
        #expect(usage.error.isEmpty && !usage.text.contains("<none>"), "\(usage.text)\(usage.error)")
        try succeed(["gc"])
        try succeed(["prune", "--disks"])
        try succeed(["rm", "t", "--force"])
        try succeed(["prune"])
        #expect(try mustShell("ls $1/usr", [point]).contains("big"))
        #expect(objectCount() == 1 && access(path, R_OK) == 0)
        try mustShell("umount $1", [point])
        isMounted = false
        try succeed(["gc"])
        #expect(objectCount() == 0)
    }

    /// The directory of a repository is read-only for others, who get files of their own.
    @Test func readersGetCopiesOnly() throws {
        try succeed(["pull", try write(LayoutBuilder.small()), "t"])
        try mustShell("mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\"", [repository])
        defer { _ = try? mustShell("umount \"$1\"", [repository]) }
        let result = try run(["disk", "t", "--kind", "single"])
        #expect(result.status == 1 && result.error.contains("read-only"), "\(result.error)")
        try succeed(["disk", "t", "--kind", "single", "-o", folder.path + "/copy"])
    }

    /// Contents of several extents, of several levels of an extent tree, with holes, and of parts of blocks: each has the digest that
    /// fsverity-utils compute.
    @Test(arguments: ["single", "flat"]) func filesOfManyShapes(_ kind: String) throws {
        func random(_ count: Int, _ seed: UInt8) -> [UInt8] {
            [UInt8]((0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 7) ^ seed })
        }
        var members = [TarMember(name: "usr/", mode: 0o755, type: "5")]
        for (index, size) in [65, 4095, 4096, 4097, 8192, 100_001, 131_072, 131_073, 1 << 20, (1 << 20) + 1, 3_500_000, 140_000_000]
            .enumerated()
        {
            // The largest one has more than one extent of ext4.
            let content = size > 10_000_000 ? [UInt8](repeating: 0, count: size - 5) + [1, 2, 3, 4, 5] : random(size, UInt8(index))
            members.append(TarMember(name: "usr/f\(index)", content: content))
        }
        try succeed(["pull", try write(LayoutBuilder(layers: [tarArchive(members)])), "t"])
        let path = try #require(try paths(kind).first)
        let digest = try mustShell("fsverity digest --compact --hash-alg=sha512 \"$1\"", [path]).split(separator: "\n")[0]
        #expect(path.dropFirst(repository.count + 9).replacing("/", with: "") == digest)
        #expect(try fsck(["--deep"]).lines.contains("disks: 1/1 ok"))
    }

    /// On a file system with reflinks, a file that is shared without being read must be the one that the pull verified.
    @Test(.enabled("mkfs.xfs is not installed") { access("/usr/sbin/mkfs.xfs", X_OK) == 0 }) func changedObjectsAreNotShared() throws {
        try requireMounting()
        try mustShell(
            "truncate -s 400M $1/xfs && mkfs.xfs -q $1/xfs && mkdir $1/x && mount -o loop $1/xfs $1/x", [folder.path])
        defer { _ = try? mustShell("umount $1/x", [folder.path]) }
        let store = folder.path + "/x/repo"
        let content = [UInt8]((0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 9) })
        let source = try write(
            LayoutBuilder(layers: [
                tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/large", content: content)])
            ]))
        try Cfsoci.succeed(["init", store, "--insecure"])
        try Cfsoci.succeed(["pull", source, "t", "--repo", store])
        let object = try #require(
            fileList(store + "/objects").map { store + "/objects/" + $0 }.first {
                var status = stat()
                return stat($0, &status) == 0 && status.st_size == 300_000
            })
        for kind in ["single", "flat"] {
            try Cfsoci.succeed(["disk", "t", "--kind", kind, "-o", folder.path + "/x/" + kind, "--repo", store])
            // Shared: 73 of 74 blocks.
            let extents = try mustShell("filefrag -v \"$1\"", [folder.path + "/x/" + kind])
            #expect(extents.contains("shared"), "\(extents)")
        }
        try mustShell("dd if=$1/x/single of=$1/one bs=4096 status=none", [folder.path])
        // Its time of change tells, although its content is the same.
        try mustShell("chmod u+w \"$1\"; dd if=/dev/zero of=\"$1\" bs=1 count=1 seek=5000 conv=notrunc status=none", [object])
        let result = try Cfsoci.run(["disk", "t", "--kind", "single", "-o", folder.path + "/x/other", "--repo", store])
        #expect(result.status == 1 && result.error.contains("is damaged: its content has the digest"), "\(result.error)")
        #expect(access(folder.path + "/x/other", F_OK) != 0)
    }
}
