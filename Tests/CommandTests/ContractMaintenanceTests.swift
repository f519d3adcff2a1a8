import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// fsck, gc, upgrade, and images of directories.
@Suite struct ContractMaintenanceTests {
    // MARK: fsck

    @Test func fsckOfAWholeRepository() throws {
        let (store, _) = try ContractStore.small()
        let before = store.files
        // Objects: three files; the streams of two layers, config and manifest; the bytes of the last two; one image.
        let text = try store.succeed(["fsck"])
        #expect(
            text.lines == [
                "meta.json: ok", "objects: 10/10 ok", "streams: 4/4 ok", "images: 1/1 ok", "oci images: 1/1 ok", "status: ok",
            ])
        let json = try store.succeed(["fsck", "--json"]).json()
        #expect(
            json == [
                "ok": true,
                "repository": [
                    "ok": true, "hasMetadata": true, "objectsChecked": 10, "objectsCorrupted": 0, "streamsChecked": 4,
                    "streamsCorrupted": 0, "imagesChecked": 1, "imagesCorrupted": 0, "brokenLinks": 0, "missingObjects": 0, "errors": [],
                ], "imagesChecked": 1, "imagesDamaged": 0, "referrersChecked": 0, "referrersDamaged": 0, "disksChecked": 0,
                "disksDamaged": 0, "indexesChecked": 0, "indexesDamaged": 0,
                "imageErrors": [],
            ])
        for arguments in [["t"], ["--metadata-only"], ["--deep"], ["t", "--deep"]] {
            #expect(try store.succeed(["fsck"] + arguments).lines.last == "status: ok")
        }
        #expect(try store.refuse(["fsck", "nothing"], status: 3).contains("no image \"nothing\""))
        #expect(store.files == before)
        #expect(try ContractStore().succeed(["fsck"]).lines.last == "status: ok")
    }

    @Test func fsckOfADamagedOne() throws {
        let (store, _) = try ContractStore.small()
        let config = try store.succeed(["cat", "t", "etc/config"]).output
        let id = try #require(try store.object(with: config))
        let path = store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        unlink(path)
        try writeFile(path, config.dropLast() + [0])
        let text = try store.run(["fsck"])
        #expect(text.status == 2)
        #expect(text.error == "")
        #expect(text.lines.contains("objects: 9/10 ok"))
        #expect(text.lines.contains { $0.hasPrefix("  - fsck: object-digest-mismatch: objects/\(id.prefix(2))/\(id.dropFirst(2))") })
        #expect(text.lines.contains { $0.hasPrefix("status: ") && $0 != "status: ok" })
        let json = try store.run(["fsck", "--json"])
        #expect(json.status == 2)
        #expect(json.error == "")
        let document = try json.json()
        #expect(document["ok"] == false)
        #expect(document["repository"]?["objectsCorrupted"] == 1)
        let error = try #require(document["repository"]?["errors"]?[0])
        #expect(error["type"] == "object-digest-mismatch")
        #expect(error["path"] == .string("objects/\(id.prefix(2))/\(id.dropFirst(2))"))
        #expect(isObjectID(error["measured"]?.string) && error["measured"] != .string(id))
        // A check that reads no objects does not find it.
        #expect(try store.run(["fsck", "--metadata-only"]).status == 0)
    }

    @Test func fsckOfAnUnreadableOne() throws {
        let (store, _) = try ContractStore.small()
        try writeFile(store.path + "/meta.json", Array("{".utf8))
        let text = try store.run(["fsck"])
        #expect(text.status == 2)
        #expect(text.error == "")
        #expect(text.lines[..<2] == ["meta.json: error", "status: 1 error(s)"])
        let json = try store.run(["fsck", "--json"])
        #expect(json.status == 2)
        #expect(try json.json()["repository"]?["errors"]?[0]?["type"] == "metadata-parse-failed")
        // Others fail with one line.
        #expect(try store.refuse(["images"]).hasPrefix("meta.json: "))
    }

    @Test func imagesTellsWhatItCannotRead() throws {
        let (store, image) = try ContractStore.small()
        try store.succeed(["tag", "t", "u"])
        unlink(store.path + "/streams/oci-manifest-" + image.manifest)
        let result = try store.run(["images", "--json"])
        #expect(result.status == 2)
        #expect(try result.json()["images"] == [])
        let events = try result.error.split(separator: "\n").map { try JSONValue.parse(Array($0.utf8)) }
        #expect(events.first?["event"] == "schema" && events.count == 4)
        #expect(events.dropFirst().allSatisfy { $0["event"] == "error" && $0["code"] == "damaged" && $0["status"] == 2 })
        #expect(events.last?["message"]?.string?.contains("2 images cannot be read") == true)
        let told = try store.run(["images"]).error
        #expect(told.split(separator: "\n").count == 3 && told.split(separator: "\n").allSatisfy { $0.hasPrefix("cfsoci: error: ") })
    }

    // MARK: gc

    @Test func gcRemovesWhatNoTagKeeps() throws {
        let (store, _) = try ContractStore.small()
        let nothing: JSONValue = [
            "objectsRemoved": 0, "bytesRemoved": 0, "streamsRemoved": 0, "imagesRemoved": 0, "temporariesRemoved": 0,
            "danglingReferences": [],
        ]
        let first = try store.run(["gc", "--json"])
        #expect(first.status == 0)
        #expect(try first.json() == nothing)
        try store.succeed(["untag", "t"])
        let before = store.files
        let objects = before.filter { $0.hasPrefix("objects/") && $0.utf8.count > "objects/00/".utf8.count }
        let bytes = try objects.reduce(0) { $0 + (try readFile(store.path + "/" + $1).count) }
        let wanted: JSONValue = [
            "objectsRemoved": .integer(Int64(objects.count)), "bytesRemoved": .integer(Int64(bytes)), "streamsRemoved": 4,
            "imagesRemoved": 1, "temporariesRemoved": 0, "danglingReferences": [],
        ]
        let dry = try store.succeed(["gc", "--dry-run", "--json"])
        #expect(try dry.json() == wanted)
        #expect(store.files == before)
        let text = try store.succeed(["gc", "-n"])
        #expect(text.lines[0] == "Dry run: nothing was removed")
        #expect(text.lines[1].hasPrefix("objects      10 removed, "))
        #expect(Array(text.lines[2...]) == ["streams      4 removed", "images       1 removed", "temporaries  0 removed"])
        #expect(store.files == before)
        #expect(try store.succeed(["gc", "--json"]).json() == wanted)
        #expect(!store.files.contains { $0.hasPrefix("streams/oci-") || $0.hasPrefix("images/") && $0 != "images/refs" })
        #expect(try store.succeed(["gc", "--json"]).json() == nothing)
        #expect(try store.succeed(["gc"]).lines[0] == "objects      0 removed, 0 B")
    }

    @Test func gcKeepsMoreRoots() throws {
        let (store, image) = try ContractStore.small()
        try store.succeed(["untag", "t"])
        let root = "oci-manifest-" + image.manifest
        for options in [["--root", root], ["-r", root], ["-r", "unknown", "-r", root]] {
            #expect(try store.succeed(["gc", "--json"] + options).json()["objectsRemoved"] == 0)
        }
        #expect(try store.succeed(["inspect", image.manifest, "--manifest"]).output == image.manifestBytes)
        // One layer alone.
        let kept = try store.succeed(["gc", "--json", "--root", "oci-layer-" + image.diffIDs[1]]).json()
        #expect(kept["streamsRemoved"] == 3)
        #expect(try store.succeed(["layer", image.diffIDs[1]]).output == image.layers[1])
    }

    @Test func gcSaysWhatDangles() throws {
        let (store, image) = try ContractStore.small()
        unlink(store.path + "/streams/oci-manifest-" + image.manifest)
        let result = try store.run(["gc", "--dry-run", "--json"])
        #expect(result.status == 0)
        #expect(try result.json()["danglingReferences"] == ["streams/refs/oci/t"])
        #expect(result.error == "cfsoci: warning: streams/refs/oci/t leads to nothing; `cfsoci untag` removes a tag\n")
    }

    // MARK: upgrade

    @Test func upgradeOfOldRepositories() throws {
        let (store, _) = try ContractStore.small()
        let id = try store.succeed(["compute-id", "t"]).lines[0]
        let meta = try readFile(store.path + "/meta.json")
        #expect(try store.succeed(["upgrade"]).lines == ["upgraded  0", "current   1", "artifacts 0"])
        // A repository from before meta.json.
        unlink(store.path + "/meta.json")
        #expect(try store.refuse(["images"]).contains("upgrade"))
        #expect(fileList(store.path).contains("meta.json") == false)
        let result = try store.run(["upgrade", "--json"])
        #expect(result.status == 0)
        #expect(result.error == "")
        #expect(try result.json() == ["upgraded": 0, "current": 1, "artifacts": 0])
        #expect(try readFile(store.path + "/meta.json") == meta)
        #expect(try store.succeed(["compute-id", "t"]).lines[0] == id)
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    /// The EROFS image of another default format is created from the layers.
    @Test func upgradeMakesImages() throws {
        let (store, image) = try ContractStore.small(["--erofs-version", "2"])
        _ = try store.pull(ContractLayout.artifact("x"), as: "note")
        let wanted = try store.succeed(["compute-id", "t", "--erofs-version", "1"]).lines[0]
        let other = try ContractStore()
        try writeFile(store.path + "/meta.json", try readFile(other.path + "/meta.json"))
        #expect(try store.succeed(["upgrade"]).lines == ["upgraded  1", "current   0", "artifacts 1"])
        #expect(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"] == .string(wanted))
        #expect(try store.succeed(["inspect", "t"]).json()["manifestDigest"] == .string(image.manifest))
        #expect(fileList(store.path).contains("images/" + wanted))
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
        #expect(try store.succeed(["upgrade"]).lines == ["upgraded  0", "current   1", "artifacts 1"])
    }

    // MARK: Directories

    private func directory(in folder: TemporaryFolder) throws -> String {
        let path = folder.path + "/tree"
        for name in ["", "/usr", "/usr/sub", "/run"] { try #require(mkdir(path + name, 0o755) == 0) }
        try writeFile(path + "/usr/small", Array("some text".utf8))
        try writeFile(path + "/usr/sub/big", [UInt8](repeating: 0x61, count: 100_000))
        try writeFile(path + "/run/left", [1])
        symlink("sub/big", path + "/usr/link")
        link(path + "/usr/sub/big", path + "/usr/hard")
        let times = [timespec(tv_sec: 1_000_000_000, tv_nsec: 0), timespec(tv_sec: 1_000_000_000, tv_nsec: 0)]
        for name in fileList(path) + [""] { utimensat(AT_FDCWD, path + "/" + name, times, AT_SYMLINK_NOFOLLOW) }
        return path
    }

    @Test func createImage() throws {
        let folder = try TemporaryFolder()
        let tree = try directory(in: folder)
        let repository = folder.path + "/repo"
        let made = try Cfsoci.run(["create-image", tree, "name", "--repo", repository])
        #expect(made.status == 0)
        #expect(made.error.hasPrefix("made a repository at \(repository), with"))
        #expect(made.lines.count == 1 && isObjectID(made.lines.first))
        let id = made.lines[0]
        let again = try Cfsoci.run(["create-image", tree, "name", "--repo", repository, "--json"])
        #expect(again.error == "")
        #expect(try again.json() == ["imageId": .string(id), "name": "name"])
        #expect(try Cfsoci.succeed(["compute-id", "--path", tree, "--repo", repository]).text == id + "\n")
        #expect(fileList(repository).contains("images/refs/name") && fileList(repository).contains("images/" + id))
        for name in [id, "name"] {
            #expect(try Cfsoci.succeed(["image-objects", name, "--repo", repository]).lines.count == 1)
        }
        let status = try Cfsoci.succeed(["fsck", "--repo", repository])
        #expect(status.lines.last == "status: ok")
        // Only the name keeps it.
        #expect(try Cfsoci.succeed(["gc", "--json", "--repo", repository]).json()["imagesRemoved"] == 0)
        unlink(repository + "/images/refs/name")
        #expect(try Cfsoci.succeed(["gc", "--json", "--repo", repository]).json()["imagesRemoved"] == 1)
        for name in ["../x", "", "a//b", "/"] {
            let before = fileList(repository).filter { $0.hasPrefix("images") || $0.hasPrefix("streams") }
            #expect(expectRefusal(try Cfsoci.run(["create-image", tree, name, "--repo", repository])).contains("no valid name"))
            #expect(fileList(repository).filter { $0.hasPrefix("images") || $0.hasPrefix("streams") } == before)
        }
        #expect(expectRefusal(try Cfsoci.run(["create-image", tree + "/none", "--repo", repository])).contains(tree + "/none"))
        #expect(expectRefusal(try Cfsoci.run(["create-image", tree + "/usr/small", "--repo", repository])).contains("usr/small"))
    }

    /// A tree gives the same result as a directory and as an image.
    @Test func directoriesAndImagesAgree() throws {
        let folder = try TemporaryFolder()
        let tree = try directory(in: folder)
        _ = try launch("chown", ["-R", "0:0", tree])
        let dump = try Cfsoci.run(["create-dumpfile", tree, "--repo", folder.path + "/none"])
        #expect(dump.status == 0)
        #expect(dump.error == "")
        let packed = try launch("tar", ["-C", tree, "--owner=0", "--group=0", "--sort=name", "--format=ustar", "-cf", "-", "."])
        let store = try ContractStore()
        _ = try store.pull(LayoutBuilder(layers: [packed.output]), as: "t")
        if isRoot { #expect(try store.succeed(["dump", "t"]).text == dump.text) }
        #expect(dump.lines[0].hasPrefix("/ 0 40755 4 "))
        #expect(dump.lines.count == 8, "\(dump.text)")
        #expect(dump.lines[1].hasPrefix("/run 0 40755 2 ") && dump.lines[2].hasPrefix("/usr 0 40755 3 "))
        // Both algorithms, without a repository and with one.
        let none = ["--repo", folder.path + "/none"]
        #expect(isObjectID(try Cfsoci.succeed(["compute-id", "--path", tree] + none).lines[0]))
        let small = try Cfsoci.succeed(["compute-id", "--path", tree, "--hash", "sha256"] + none).lines[0]
        #expect(isObjectID(small, digits: 64))
        let other = try ContractStore(["--algorithm", "fsverity-sha256-12"])
        #expect(try other.succeed(["compute-id", "--path", tree]).lines[0] == small)
        #expect(try other.succeed(["create-image", tree]).lines[0] == small)
        if isRoot {
            #expect(try store.succeed(["compute-id", "t"]).text == Cfsoci.succeed(["compute-id", "--path", tree] + none).text)
        }
        #expect(access(folder.path + "/none", F_OK) != 0)
    }
}
