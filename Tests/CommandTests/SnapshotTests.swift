import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `snapshot`: the writable disks of virtual machines in the store.
struct SnapshotTests {
    private let folder: TemporaryFolder
    private let repository: String

    init() throws {
        folder = try TemporaryFolder()
        repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        try Cfsoci.succeed(["pull", "oci:" + folder.path + "/layout", "example", "--repo", repository])
    }

    private func path(_ name: String) -> String { folder.path + "/" + name }

    private func run(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(["--repo", repository] + arguments) }

    @discardableResult
    private func snapshot(_ arguments: [String], sourceLocation: SourceLocation = #_sourceLocation) throws -> CommandResult {
        let result = try run(["snapshot"] + arguments)
        try #require(result.status == 0, "\(result.error)", sourceLocation: sourceLocation)
        return result
    }

    private func refused(
        _ arguments: [String], _ status: Int32, _ text: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let result = try run(["snapshot"] + arguments)
        #expect(result.status == status && result.error.contains(text), "\(result.status) \(result.error)", sourceLocation: sourceLocation)
    }

    /// An ext4 disk with a file; each call changes the file's content.
    private func makeDisk(_ name: String = "disk") throws {
        try Cfsoci.succeed(["disk", "upper", path(name), "--size", "64M"])
        try write("first", name)
    }

    private func write(_ text: String, _ name: String = "disk") throws {
        try mustShell(
            "printf %s \"$2\" > $1.text; debugfs -w -R 'rm upper/file' $1 >/dev/null 2>&1; debugfs -w -R \"write $1.text upper/file\" $1 2>/dev/null",
            [path(name), text])
    }

    private func identity(_ name: String) throws -> String {
        try #require(try snapshot(["inspect", name, "--json"]).json()["identity"]?.string)
    }

    /// A chain: each restores to its bytes, and the store keeps what has a name or a child with one.
    @Test func life() throws {
        try makeDisk()
        let made = try snapshot(["create", "one", "--upper", path("disk"), "--image", "example", "--label", "stage=ready", "--json"]).json()
        try mustShell("cp --sparse=always $1 $1.one", [path("disk")])
        try write("second")
        let second = try snapshot(["create", "two", "--upper", path("disk"), "--parent", "one", "--json"]).json()
        #expect(second["newBytes"]?.int64.map { $0 > 0 && $0 <= 10 << 16 } == true, "\(second)")
        #expect(second["imageStored"]?.bool == true && second["needsRecovery"]?.bool == false)

        let list = try #require(try snapshot(["list", "--json"]).json().array)
        #expect(list.compactMap { $0["name"]?.string } == ["one", "two"])
        #expect(list[1]["parent"]?.string == made["identity"]?.string && list[0]["parent"]?.isNull == true)
        #expect(list[0]["labels"]?["stage"]?.string == "ready" && list[0]["image"]?.string == "example")
        let rows = try snapshot(["list"]).lines
        #expect(rows.count == 3 && rows[2].hasPrefix("two ") && rows[2].contains(" one "))
        #expect(try snapshot(["list", "-q"]).lines == ["one", "two"])

        // Only the snapshots need their leaves; the image is needed by its tag, too.
        let usage = try #require(try run(["df", "--json"]).json()["snapshots"])
        #expect(usage["count"]?.int64 == 2 && usage["bytes"]?.int64.map { $0 > 20 << 16 && $0 < 60 << 20 } == true, "\(usage)")
        #expect(try run(["df"]).text.contains("\nsnapshots    2, "))

        // The identity is the digest of the document.
        let inspected = try snapshot(["inspect", "two", "--json"]).json()
        try writeFile(path("document"), try #require(inspected["descriptor"]).compactBytes)
        #expect(try mustShell("sha256sum < $1", [path("document")]).hasPrefix(try identity("two").dropFirst(7)))
        #expect(try snapshot(["inspect", "one"]).text.contains("label: stage=ready\n"))

        #expect(try snapshot(["restore", "one", path("again")]).lines == ["\(path("again"))  \(64 << 20)"])
        try mustShell("cmp $1.one $2; test $(stat -c %b $2) -le $(stat -c %b $1.one); e2fsck -fn $2 2>&1", [path("disk"), path("again")])
        try snapshot(["restore", try identity("two"), path("second")])
        try mustShell("cmp $1 $2", [path("disk"), path("second")])
        #expect(try snapshot(["verify", "two", "--json"]).json()["ok"]?.bool == true)
        #expect(try run(["fsck", "--deep"]).text.contains("snapshots: 2/2 ok\n"))

        // The parent stays with its child; the image stays with both.
        let names = try snapshot(["rm", "one"]).lines
        #expect(names == ["Removed snapshot one"])
        #expect(try run(["rm", "example"]).status == 0)
        #expect(try run(["gc"]).status == 0)
        try snapshot(["verify", try #require(made["identity"]?.string)])
        try snapshot(["verify", "two"])
        #expect(fileList(repository + "/streams").contains { $0.hasPrefix("oci-manifest-") })
        #expect(try run(["fsck"]).status == 0)
        try snapshot(["rm", "two"])
        #expect(try run(["gc"]).status == 0)
        #expect(try mustShell("find $1/objects -type f; find $1/streams -type l", [repository]) == "")
        try refused(["inspect", "two"], 3, "no snapshot \"two\"")
    }

    /// What the disk's image is stays known after the image was stored again.
    /// A removal that was killed between its two steps is completed by the next one.
    @Test func interruptedRemoval() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        let references = repository + "/streams/refs/"
        #expect(unlink(references + "snapshots/one") == 0)
        try snapshot(["rm", "one"])
        #expect(access(references + "snapshot-images/one", F_OK) != 0 && errno == ENOENT)
        try refused(["rm", "one"], 3, "no snapshot")
    }

    /// The snapshot's own reference leads to its content.
    @Test func lostLink() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        let streams = repository + "/streams"
        let name = try #require(fileList(streams).first { $0.hasPrefix("cfsoci-snapshot-upper-blake3:") })
        let target = try mustShell("readlink \"$1\"", [streams + "/" + name])
        #expect(unlink(streams + "/" + name) == 0)
        #expect(try run(["fsck"]).status == 2)
        let trial = try run(["fsck", "--repair", "--dry-run"])
        #expect(trial.text.contains(name) && access(streams + "/" + name, F_OK) != 0)
        let repaired = try run(["fsck", "--repair"])
        #expect(repaired.status == 0 && repaired.text.contains(name), "\(repaired.text) \(repaired.error)")
        #expect(try mustShell("readlink \"$1\"", [streams + "/" + name]) == target)
        #expect(try run(["fsck"]).status == 0)
    }

    @Test func imageStays() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        #expect(try run(["untag", "example"]).status == 0)
        #expect(try run(["gc"]).status == 0)
        let digest = try #require(try snapshot(["list", "--json"]).json()[0]?["manifestDigest"]?.string)
        #expect(try run(["inspect", digest]).status == 0)
        #expect(try run(["ls", digest, "/usr"]).text.contains("big"))
    }

    /// As microsandbox has it, and back into another repository under the same identity.
    @Test func exchange() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example", "--sandbox", "box"])
        try snapshot(["create", "two", "--upper", path("disk"), "--parent", "one"])
        try snapshot(["export", "one", path("one")])
        try snapshot(["export", "two", path("two")])
        #expect(fileList(path("one")).sorted() == ["snapshot.json", "upper.ext4"])
        try mustShell("cmp $1 $2/upper.ext4", [path("disk"), path("one")])
        let other = path("other")
        try Cfsoci.succeed(["init", other, "--insecure", "--algorithm", "fsverity-sha256-12"])
        for name in ["one", "two"] {
            let made = try Cfsoci.run(["snapshot", "import", path(name), "--json", "--repo", other])
            #expect(made.status == 0 && made.error.contains("is not in the repository; pull it"), "\(made.error)")
            let (found, expected) = (try made.json()["identity"]?.string, try identity(name))
            #expect(found == expected)
        }
        try Cfsoci.succeed(["snapshot", "verify", "two", "--repo", other])
        let details = try Cfsoci.succeed(["snapshot", "inspect", "two", "--json", "--repo", other]).json()
        #expect(details["parentStored"]?.bool == true && details["imageStored"]?.bool == false)
        #expect(details["descriptor"]?["source_sandbox"]?.isNull == true)
        // Formatted otherwise, with the digests of older releases, and without one.
        try mustShell(
            """
            import hashlib, json, sys
            base = sys.argv[1]
            content = open(base + "/upper.ext4", "rb").read()
            plain = hashlib.sha256(content).hexdigest()
            sparse = hashlib.sha256(b"msb-sparse-sha256-v1\\0" + len(content).to_bytes(8, "little") + content).hexdigest()
            for name, value in [("sha256", plain), ("msb-sparse-sha256-v1", sparse), (None, None)]:
                document = json.load(open(base + "/snapshot.json"))
                document["state"]["upper"]["integrity"] = name and {"algorithm": name, "digest": "sha256:" + value}
                json.dump(document, open(base + "/" + str(name), "w"), indent=4, sort_keys=True)
            """.asPython, [path("one")])
        for name in ["sha256", "msb-sparse-sha256-v1", "None"] {
            try mustShell("mv $1/$2 $1/snapshot.json", [path("one"), name])
            try Cfsoci.succeed(["snapshot", "import", path("one"), name, "--repo", other])
            let verified = try Cfsoci.succeed(["snapshot", "verify", name, "--json", "--repo", other]).json()
            #expect(verified["recorded"]?.bool == (name != "None"), "\(verified)")
        }
        // The same descriptor without a digest is that of another disk now.
        try mustShell("printf X | dd of=$1/upper.ext4 conv=notrunc bs=1 seek=5000000 status=none", [path("one")])
        let differs = try Cfsoci.run(["snapshot", "import", path("one"), "differs", "--repo", other])
        #expect(differs.status == 1 && differs.error.contains("with other content"), "\(differs.error)")
        #expect(try Cfsoci.succeed(["snapshot", "list", "-q", "--repo", other]).lines.count == 5)
    }

    @Test func refusals() throws {
        try makeDisk()
        let create = ["create", "one", "--upper", path("disk")]
        try refused(create, 64, "--image")
        try refused(create + ["--image", "example", "--label", "x"], 64, "KEY=VALUE")
        try refused(create + ["--image", "nothing"], 3, "no image")
        try refused(create + ["--parent", "nothing"], 3, "no snapshot")
        try refused(["create", "one", "--upper", path("missing"), "--image", "example"], 1, "missing")
        try refused(["create", "one", "--upper", folder.path, "--image", "example"], 1, "not a regular file")
        for name in ["a/b", ".a", "~a", "a:b", "a\\b", "", String(repeating: "n", count: 256)] {
            try refused(["create", "--image", "example", "--upper", path("disk"), "--", name], 1, "cannot name a snapshot")
        }
        try writeFile(path("text"), Array("no file system".utf8))
        try refused(["create", "one", "--upper", path("text"), "--image", "example"], 1, "no ext4 file system; name its file system")
        try writeFile(path("empty"), [])
        try refused(["create", "one", "--upper", path("empty"), "--image", "example"], 1, "is empty")
        try refused(["rm", "one"], 3, "no snapshot")
        try refused(["verify", "sha256:" + String(repeating: "0", count: 64)], 3, "no snapshot")
        #expect(fileList(repository + "/streams/refs/snapshots").isEmpty)

        try snapshot(create + ["--image", "example"])
        let before = try identity("one")
        try refused(create + ["--image", "example"], 1, "already; choose another name, or replace it with --force")
        #expect(try identity("one") == before)
        try snapshot(create + ["--image", "example", "--force"])
        #expect(try identity("one") != before)
        // Another image than the parent's.
        try LayoutBuilder.large(layers: 1, filesPerLayer: 2).write(to: path("other"))
        try Cfsoci.succeed(["pull", "oci:" + path("other"), "other", "--repo", repository])
        try refused(
            ["create", "two", "--upper", path("disk"), "--image", "other", "--parent", "one"], 1, "the parent belongs to the image")
        // Nothing is replaced by a restore or an export.
        try refused(["restore", "one", path("text")], 1, "exists already")
        #expect(try readFile(path("text")) == Array("no file system".utf8))
        try refused(["export", "one", folder.path], 1, "not an empty directory")
        try refused(["restore", "one", path("missing/disk")], 1, "missing")
        // One unknown name: nothing is removed.
        try refused(["rm", "one", "two"], 3, "no snapshot \"two\"")
        #expect(try snapshot(["list", "-q"]).lines == ["one"])
    }

    /// A file that another program changes: the lock of growth, and the lock by which qemu tells that it writes.
    @Test func filesInUse() throws {
        try makeDisk()
        let file = open(path("disk"), O_RDWR)
        defer { close(file) }
        let create = ["create", "one", "--upper", path("disk"), "--image", "example"]
        #expect(flock(file, LOCK_EX) == 0)
        try refused(create, 6, "another program has it open for writing; stop the virtual machine first")
        #expect(flock(file, LOCK_UN) == 0)
        // Byte 100 says that something reads, byte 101 that something writes.
        for (byte, isRefused) in [(100, false), (101, true)] {
            var lock = Glibc.flock()
            lock.l_type = Int16(F_RDLCK)
            lock.l_whence = Int16(SEEK_SET)
            lock.l_start = off_t(byte)
            lock.l_len = 1
            // F_OFD_SETLK
            #expect(fcntl(file, 37, &lock) == 0)
            if isRefused { try refused(create + ["--force"], 6, "another program") } else { try snapshot(create + ["--force"]) }
        }
    }

    /// A journal with changes is part of the snapshot, and is told.
    @Test func dirtyJournal() throws {
        try makeDisk()
        try mustShell("debugfs -w -R 'feature needs_recovery' $1 >/dev/null 2>&1", [path("disk")])
        let made = try snapshot(["create", "one", "--upper", path("disk"), "--image", "example", "--json"])
        #expect(try made.json()["needsRecovery"]?.bool == true && made.error.contains("was not unmounted"), "\(made.error)")
        #expect(try snapshot(["inspect", "one", "--json"]).json()["needsRecovery"]?.bool == true)
    }

    /// qcow2 is stored as it is, if it is complete. A raw disk is never taken for one.
    @Test(.enabled("qemu-img is not installed") { access("/usr/bin/qemu-img", X_OK) == 0 }) func qcow2() throws {
        try makeDisk()
        try mustShell(
            "qemu-img convert -O qcow2 $1 $1.qcow2; qemu-img create -q -f qcow2 -b $1.qcow2 -F qcow2 $1.backed", [path("disk")])
        let (complete, backed) = (path("disk.qcow2"), path("disk.backed"))
        try refused(["create", "one", "--upper", complete, "--image", "example"], 1, "--format qcow2 stores it as such")
        try refused(["create", "one", "--upper", backed, "--image", "example", "--format", "qcow2"], 1, "backing file")
        try refused(["create", "one", "--upper", path("disk"), "--image", "example", "--format", "qcow2"], 1, "is not a qcow2 file")
        try snapshot(["create", "one", "--upper", complete, "--image", "example", "--format", "qcow2"])
        try snapshot(["export", "one", path("out")])
        try mustShell("cmp $1 $2/upper.qcow2; qemu-img check -q $2/upper.qcow2", [complete, path("out")])
        #expect(try snapshot(["list", "--json"]).json()[0]?["format"]?.string == "qcow2")
    }

    @Test func importRefusals() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        try snapshot(["export", "one", path("out")])
        func edit(_ script: String) throws {
            try mustShell(
                """
                import json, sys
                document = json.load(open(sys.argv[1] + "/snapshot.json"))
                upper = document["state"]["upper"]
                \(script)
                json.dump(document, open(sys.argv[1] + "/edited", "w"))
                """.asPython, [path("out")])
            try mustShell(
                "rm -rf $1.edited; cp -r --sparse=always $1 $1.edited; mv $1.edited/edited $1.edited/snapshot.json", [path("out")])
        }
        let edited = ["import", path("out.edited"), "two"]
        try edit("upper['size_bytes'] += 1; upper['integrity']['logical_size'] += 1")
        try refused(edited, 1, "bytes, snapshot.json says")
        try edit("upper['integrity']['root'] = 'blake3:' + 64 * '0'")
        try refused(edited, 1, "snapshot.json says blake3:0000")
        try edit("upper['integrity'] = {'algorithm': 'sha256', 'digest': 'sha256:' + 64 * '0'}")
        try refused(edited, 1, "snapshot.json says sha256:0000")
        try edit("document['extensions'] = {'org.example/1': {}}; document['requires'] = ['org.example/1']")
        try refused(edited, 1, "requires extensions that are not supported: org.example/1")
        try edit("document['schema'] = 'microsandbox.snapshot/1'")
        try refused(edited, 1, "the schema is \"microsandbox.snapshot/1\"; supported is 1")
        try edit("upper['file'] = '../disk'")
        try refused(edited, 1, "\"state.upper.file\" does not name a file")
        try edit("document['scope'] = 'resumable'")
        try refused(edited, 1, "it is a snapshot of kind resumable")
        // What is not a file of the directory.
        try edit("")
        try mustShell("mv $1.edited/upper.ext4 $1.x; ln -s $1.x $1.edited/upper.ext4", [path("out")])
        try refused(edited, 1, "upper.ext4: is not a regular file")
        try edit("")
        try mustShell("rm $1.edited/snapshot.json; mkfifo $1.edited/snapshot.json", [path("out")])
        try refused(edited, 1, "snapshot.json: is not a regular file")
        try refused(["import", folder.path, "two"], 1, "snapshot.json")
        #expect(try snapshot(["list", "-q"]).lines == ["one"])
        // The name has this snapshot: nothing changes. Another one needs --force.
        let before = fileList(repository).sorted()
        #expect(try snapshot(["import", path("out"), "one", "--json"]).json()["identity"]?.string == identity("one"))
        #expect(fileList(repository).sorted() == before)
        try mustShell("printf X | dd of=$1/upper.ext4 conv=notrunc bs=1 seek=5000000 status=none", [path("out")])
        try refused(["import", path("out"), "one"], 1, "upper.ext4: has the digest")
        try edit("document['created_at'] = '2026-01-02T03:04:05.000000000Z'; upper['integrity'] = None")
        try refused(["import", path("out.edited"), "one"], 1, "there is a snapshot \"one\" already")
        try snapshot(["import", path("out.edited"), "one", "--force"])
    }

    /// A damaged object: verify, fsck and restore find it, and restore leaves nothing behind.
    @Test func damagedContent() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        // The leaf of the superblock.
        try mustShell(
            "for f in $(find $1/objects -type f -size -65k -size +63k); do if cmp -s -n 65536 $f $2; then chmod u+w $f; printf X | dd of=$f conv=notrunc bs=1 seek=60000 status=none; exit; fi; done; exit 1",
            [repository, path("disk")])
        try refused(["verify", "one"], 2, "digest")
        try refused(["restore", "one", path("out")], 1, "digest")
        try refused(["export", "one", path("out")], 1, "digest")
        #expect(!fileList(folder.path).contains { $0.hasPrefix("out") || $0.hasPrefix(".out") })
        #expect(try run(["fsck"]).status == 2)
        // The next snapshot of the same disk repairs it.
        try snapshot(["create", "two", "--upper", path("disk"), "--image", "example"])
        try snapshot(["verify", "one"])
    }

    /// Intact streams under wrong names, and streams that lead to each other wrongly.
    @Test func forgedStreams() throws {
        try makeDisk()
        try snapshot(["create", "one", "--upper", path("disk"), "--image", "example"])
        try write("second")
        try snapshot(["create", "two", "--upper", path("disk"), "--image", "example"])
        let (one, two) = (try identity("one"), try identity("two"))
        let streams = repository + "/streams/"
        func stream(_ identity: String) -> String { streams + "cfsoci-snapshot-" + identity }
        let kept = try mustShell("readlink $1; ln -sfn $(readlink $2) $1", [stream(one), stream(two)])
        try refused(["verify", "one"], 2, "its descriptor has the identity \(two)")
        let damaged = try run(["fsck"])
        #expect(
            damaged.status == 2 && damaged.text.contains("fsck: snapshot-damaged: one: its descriptor has the identity"), "\(damaged.text)")
        let document = try run(["fsck", "--json"]).json()
        #expect(document["snapshotsDamaged"]?.int64 == 1 && document["ok"]?.bool == false, "\(document)")
        let list = try run(["snapshot", "list", "-q"])
        #expect(list.status == 2 && list.lines == ["two"])
        try mustShell("ln -sfn $2 $1", [stream(one), String(kept.dropLast())])
        // The content of the other one under the root of this one.
        let upper = try #require(fileList(streams).first { $0.hasPrefix("cfsoci-snapshot-upper-") })
        let other = try #require(fileList(streams).last { $0.hasPrefix("cfsoci-snapshot-upper-") })
        #expect(upper != other)
        try mustShell("ln -sfn $(readlink $1) $2", [streams + upper, streams + other])
        #expect(try run(["fsck"]).text.contains("does not lead to the content of its disk"))
    }
}

extension String {
    /// A script of bash that runs the text with Python.
    fileprivate var asPython: String { "python3 - \"$@\" <<'END'\n" + self + "\nEND" }
}
