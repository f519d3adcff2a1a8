import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `disk`: files that a virtual machine boots from.
struct DiskTests {
    private let folder: TemporaryFolder
    private let repository: String

    init() throws {
        folder = try TemporaryFolder()
        repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
    }

    private func pull(_ builder: LayoutBuilder, as name: String = "t") throws {
        try builder.write(to: folder.path + "/" + name)
        try Cfsoci.succeed(["pull", "oci:" + folder.path + "/" + name, name, "--repo", repository])
    }

    private func disk(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(["disk"] + arguments + ["--repo", repository]) }

    private func make(_ kind: String, _ output: String, _ more: [String] = []) throws -> JSONValue {
        let result = try disk(["t", "--kind", kind, "-o", folder.path + "/" + output, "--json"] + more)
        try #require(result.status == 0, "\(result.error)")
        return try result.json()
    }

    /// Every accepted image of the corpus, in all forms, as the kernel mounts them.
    @Test(arguments: CorpusTests.select(["accept"])) func corpus(record: CorpusTests.Record) throws {
        try requireMounting()
        guard access("/dev/loop-control", R_OK | W_OK) == 0 else { try Test.cancel("there are no loop devices") }
        // The script knows the tree of the one image without a file.
        for tree in record.trees.isEmpty ? [JSONValue.null] : record.trees {
            let work = try TemporaryFolder()
            let file = tree["file"]?.string.map { Fixtures.folder + "/corpus/" + $0 } ?? "-"
            var arguments = [Fixtures.folder + "/disk-trees.py", Cfsoci.binary, record.layout, file, work.path]
            if let reference = tree["ref"]?.string { arguments += ["--ref", reference] }
            if let platform = tree["platform"]?.string { arguments += ["--platform", platform] }
            let result = try launch("python3", arguments)
            #expect(result.status == 0, "\(result.text)\(result.error)")
        }
    }

    /// The peer keeps no attributes, so the images of layers are named by diff ID alone; here the name also tells the order.
    @Test func reportsItsFiles() throws {
        let builder = LayoutBuilder.small()
        try pull(builder)
        let report = try make("vmdk", "disk")
        let files = try #require(report["files"]?.array)
        let identifiers = try Cfsoci.succeed(["inspect", "t", "--repo", repository]).json()["layers"]?.array?.compactMap {
            $0["diffId"]?.string
        }
        #expect(files.compactMap { $0["diffId"]?.string } == identifiers && identifiers?.count == 2)
        #expect(report["kind"]?.string == "vmdk" && report["tree"]?.string == "oci" && report["exceptions"]?.array?.isEmpty == true)
        var names = ["disk.vmdk", "fsmeta.erofs"]
        for (index, identifier) in (identifiers ?? []).enumerated() { names.append("000\(index)-\(identifier.dropFirst(7)).erofs") }
        #expect(files.compactMap { $0["path"]?.string } == names.map { "\(folder.path)/disk/\($0)" })
        #expect(Set(fileList(folder.path + "/disk")) == Set(names))
        for file in files {
            var status = stat()
            #expect(stat(file["path"]?.string ?? "", &status) == 0 && Int64(status.st_size) == file["size"]?.int64)
        }
        let lines = try disk(["t", "--kind", "single", "-o", folder.path + "/one"]).lines
        var status = stat()
        stat(folder.path + "/one", &status)
        #expect(lines == ["\(folder.path)/one  \(status.st_size)"])
    }

    /// One image in repositories of both algorithms, with another one pulled before it.
    @Test func sameBytesInAnyRepository() throws {
        try pull(LayoutBuilder.large(layers: 3, filesPerLayer: 20))
        let other = folder.path + "/other"
        try Cfsoci.succeed(["init", other, "--insecure", "--algorithm", "fsverity-sha256-12"])
        try LayoutBuilder.small().write(to: folder.path + "/small")
        try Cfsoci.succeed(["pull", "oci:" + folder.path + "/small", "s", "--repo", other])
        try Cfsoci.succeed(["pull", "oci:" + folder.path + "/t", "t", "--repo", other])
        for kind in ["single", "fsmeta", "vmdk", "layered", "flat"] {
            _ = try make(kind, kind)
            try Cfsoci.succeed(["disk", "t", "--kind", kind, "-o", folder.path + "/again", "--repo", other])
            try mustShell("diff -r \"$1\" \"$2\" && rm -r \"$2\"", [folder.path + "/" + kind, folder.path + "/again"])
        }
        _ = try make("flat", "large", ["--size", "64M"])
        let check = try mustShell("stat -c %s \"$1\"; e2fsck -fn \"$1\" 2>&1; dumpe2fs -h \"$1\" 2>&1", [folder.path + "/large"])
        #expect(check.hasPrefix("67108864\n") && check.contains("has_journal"))
    }

    /// qemu finds no fault, and shows a machine the merged image and the layers, one after the other.
    @Test(.enabled("qemu-img is not installed") { access("/usr/bin/qemu-img", X_OK) == 0 }) func qemuReadsTheVirtualDisk() throws {
        try pull(LayoutBuilder.large(layers: 3, filesPerLayer: 40))
        let files = try #require(try make("vmdk", "disk")["files"]?.array).dropFirst()
        let size = files.reduce(Int64(0)) { $0 + ($1["size"]?.int64 ?? 0) }
        let descriptor = folder.path + "/disk/disk.vmdk"
        let check = try mustShell("qemu-img check -f vmdk \"$1\"", [descriptor])
        #expect(check.contains("No errors were found"), "\(check)")
        let information = try JSONValue.parse(Array(mustShell("qemu-img info -f vmdk --output json \"$1\"", [descriptor]).utf8))
        #expect(information["virtual-size"]?.int64 == size && information["format"]?.string == "vmdk")
        // In another directory, too: the names of the extents are relative.
        try mustShell(
            "mv $1/disk $1/moved; qemu-img convert -f vmdk -O raw $1/moved/disk.vmdk $1/raw; cat $1/moved/fsmeta.erofs $1/moved/0*.erofs | cmp - $1/raw",
            [folder.path])
    }

    /// `--tree composefs` shows the tree of the composefs image: root metadata, `/run`, attributes.
    @Test func composefsTree() throws {
        try requireMounting()
        try pull(
            LayoutBuilder(layers: [
                tarArchive([
                    TarMember(name: "./", mode: 0o700, type: "5"), TarMember(name: "usr/", mode: 0o751, uid: 7, mtime: 1000, type: "5"),
                    TarMember(name: "run/", mode: 0o755, type: "5"), TarMember(name: "run/lock", content: [1]),
                    TarMember(name: "usr/f", content: [UInt8](repeating: 7, count: 9000)),
                ])
            ]))
        _ = try make("single", "oci")
        for kind in ["single", "flat"] { _ = try make(kind, kind, ["--tree", "composefs"]) }
        _ = try make("vmdk", "vmdk", ["--tree", "composefs"])
        try mustShell("cat $1/vmdk/fsmeta.erofs $1/vmdk/0000-*.erofs > $1/joined", [folder.path])
        func show(_ name: String) throws -> String {
            let point = folder.path + "/point"
            return try mustShell(
                "mkdir -p $2; mount -o ro,loop $1 $2; (cd $2; stat -c '%n %a %u %Y' . run; ls run; sha256sum usr/f) || true; umount $2",
                [folder.path + "/" + name, point])
        }
        let composefs = try show("single")
        #expect(composefs.hasPrefix(". 751 7 1000\nrun 755 0 1000\n") && !composefs.contains("lock"))
        #expect(try show("flat") == composefs && show("joined") == composefs)
        #expect(try show("oci").hasPrefix(". 700 0 1234567890\nrun 755 0 1234567890\nlock\n"))
    }

    @Test func refusals() throws {
        try pull(LayoutBuilder.small())
        let path = folder.path + "/out"
        func refused(_ arguments: [String], _ status: Int32, _ text: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let result = try disk(arguments)
            #expect(result.status == status && result.error.contains(text), "\(result.error)", sourceLocation: sourceLocation)
        }
        try refused(["t", "-o", path], 64, "--kind")
        try refused(["t", "--kind", "layered", "--tree", "composefs", "-o", path], 64, "excludes")
        try refused(["t", "--kind", "single", "--size", "1G", "-o", path], 64, "--size")
        try refused(["nothing", "--kind", "single", "-o", path], 3, "no image")
        try refused(["t", "--kind", "single", "-o", folder.path + "/missing/out"], 1, "missing")
        try refused(["t", "--kind", "flat", "--size", "100K", "-o", path], 1, "102400")
        #expect(!fileList(folder.path).contains { $0.hasPrefix("out") || $0.hasPrefix(".out") })
        // What is there stays.
        try writeFile(path, Array("old".utf8))
        try refused(["t", "--kind", "vmdk", "-o", path], 1, "not an empty directory")
        try refused(["upper", path, "--size", "64M"], 1, "exists")
        #expect(try readFile(path) == Array("old".utf8))
        mkdir(folder.path + "/full", 0o755)
        try writeFile(folder.path + "/full/file", [1])
        try refused(["t", "--kind", "layered", "-o", folder.path + "/full"], 1, "not an empty directory")
        try refused(["t", "--kind", "single", "-o", folder.path + "/full"], 1, "not a regular file")
        #expect(fileList(folder.path + "/full") == ["file"])
        // A file is replaced.
        #expect(try disk(["t", "--kind", "single", "-o", path]).status == 0)
        #expect(try readFile(path).count > 70_000)
    }

    /// A damaged object is found while it is copied, and nothing is left behind.
    @Test(arguments: ["single", "vmdk", "layered", "flat"]) func damage(kind: String) throws {
        try pull(LayoutBuilder.small())
        try mustShell(
            "f=$(find $1/objects -type f -size +60k -print -quit); printf X | dd of=$f conv=notrunc bs=1 seek=50000 status=none",
            [repository])
        let result = try disk(["t", "--kind", kind, "-o", folder.path + "/out"])
        #expect(result.status == 1 && result.error.contains("digest") && result.error.contains("cfsoci fsck"), "\(result.error)")
        #expect(!fileList(folder.path).contains { $0.hasPrefix("out") || $0.hasPrefix(".out") })
    }

    @Test func upperGrows() throws {
        let path = folder.path + "/upper"
        let made = try disk(["upper", path, "--size", "256M", "--json"])
        let size = try made.json()["size"]?.int64
        #expect(made.status == 0 && size == 256 << 20, "\(made.error)")
        let check = "e2fsck -fn $1 >$1.log 2>&1 || { cat $1.log; exit 1; }"
        try mustShell(check, [path])
        let listing = try mustShell("debugfs -R 'ls -p /' $1 2>/dev/null", [path])
        for name in ["/upper/", "/work/"] { #expect(listing.contains(name), "\(listing)") }
        // A file of the guest survives.
        try mustShell("echo precious > $1.file; debugfs -w -R \"write $1.file upper/file\" $1 2>/dev/null", [path])
        #expect(try disk(["grow", path, "--size", "128M"]).status == 1)
        let grown = try disk(["grow", path, "--size", "600M"])
        #expect(grown.status == 0 && grown.lines == ["\(path)  \(600 << 20)"], "\(grown.error)")
        try mustShell(check, [path])
        #expect(try mustShell("debugfs -R 'cat upper/file' $1 2>/dev/null", [path]) == "precious\n")
        // A journal with changes: INCOMPAT_RECOVER, as in a copy of a mounted file system.
        let before = try mustShell("debugfs -w -R 'feature needs_recovery' $1 >/dev/null 2>&1; sha256sum < $1; stat -c %s $1", [path])
        let dirty = try disk(["grow", path, "--size", "700M"])
        #expect(dirty.status == 1 && dirty.error.contains("e2fsck -p"), "\(dirty.error)")
        #expect(try mustShell("sha256sum < $1; stat -c %s $1", [path]) == before)
    }

    /// A count that cannot be right, under a right checksum.
    @Test func growthOfLyingDescriptors() throws {
        let path = folder.path + "/upper"
        #expect(try disk(["upper", path, "--size", "200M"]).status == 0)
        try mustShell(
            "printf 'set_bg 1 free_blocks_count 4294967290\\nset_bg 1 checksum calc\\n' | debugfs -w -f - $1 >/dev/null 2>&1", [path])
        let before = try mustShell("sha256sum < $1", [path])
        let grown = try disk(["grow", path, "--size", "230M"])
        #expect(grown.status == 1 && grown.error.contains("4294967290 of them are free"), "\(grown.error)")
        #expect(try mustShell("sha256sum < $1", [path]) == before)
    }

    /// A byte that changed in the metadata: the disk is refused and stays as it is, or grows, and is as clean as it was.
    @Test(arguments: 0..<12) func growthOfDamagedDisks(number: Int) throws {
        let path = folder.path + "/upper"
        #expect(try disk(["upper", path, "--size", "200M"]).status == 0)
        // In the superblock, the descriptors, the bitmaps and the resize inode.
        let offsets = [
            1024 + 4, 1024 + 0x20, 1024 + 0x5c, 1024 + 0x60, 1024 + 0xfe, 4096, 4096 + 8, 4096 + 64 + 30, 1_056_768, 1_060_864, 1_067_000,
            3,
        ]
        try mustShell(
            "printf '\\x%02x' $(( $(od -An -tu1 -j$2 -N1 $1) ^ 64 )) | dd of=$1 bs=1 seek=$2 conv=notrunc status=none",
            [path, "\(offsets[number])"])
        let before = try mustShell("sha256sum < $1; stat -c %s $1", [path])
        let wasClean = try shell("e2fsck -fn $1", [path]).status == 0
        let result = try disk(["grow", path, "--size", "600M"])
        #expect(result.status == 0 || result.status == 1, "\(result.error)")
        if result.status == 1 {
            #expect(try mustShell("sha256sum < $1; stat -c %s $1", [path]) == before)
        } else if wasClean {
            #expect(try shell("e2fsck -fn $1", [path]).status == 0)
        }
        #expect(!wasClean || result.status == 0, "\(result.error)")
    }

    /// Two disks are two disks.
    @Test func uppersHaveIdentifiersOfTheirOwn() throws {
        let identifiers = try (0..<2).map { number in
            let path = folder.path + "/upper\(number)"
            #expect(try disk(["upper", path, "--size", "64M"]).status == 0)
            return try mustShell("dumpe2fs -h $1 2>/dev/null | grep UUID", [path])
        }
        #expect(identifiers[0] != identifiers[1])
    }
}
