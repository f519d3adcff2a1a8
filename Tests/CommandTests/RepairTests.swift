import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `fsck --repair` repairs every kind of damage of every kind of file, and so does `pull --policy always`.
@Suite struct RepairTests {
    /// A repository of one image that was pulled from a layout.
    private final class Fixture {
        let folder: TemporaryFolder
        let layout: String
        let repository: String
        let manifest: ContentDigest

        init(_ builder: LayoutBuilder = .small(), pull: [String]? = nil, options: [String] = []) throws {
            folder = try TemporaryFolder()
            layout = folder.path + "/layout"
            repository = folder.path + "/repo"
            manifest = try builder.write(to: layout)
            try Cfsoci.succeed(["init", repository, "--insecure", "--algorithm", "fsverity-sha256-12"])
            try Cfsoci.succeed(["pull"] + (pull ?? ["oci:" + layout, "t"]) + options + ["--repo", repository])
        }

        func run(_ arguments: [String]) throws -> CommandResult { try Cfsoci.run(arguments + ["--repo", repository]) }

        func files(_ kind: mode_t, below prefix: String = "") -> [String] {
            fileList(repository).filter { name in
                var status = stat()
                return name.hasPrefix(prefix) && lstat(repository + "/" + name, &status) == 0 && status.st_mode & S_IFMT == kind
            }
        }

        var objects: [String] { files(S_IFREG, below: "objects/") }

        /// Links of `streams/` and `images/`, not references.
        var links: [String] { files(S_IFLNK).filter { !$0.contains("/refs/") && !$0.hasPrefix(".") } }

        func mends(_ arguments: [String], _ what: String) throws {
            let found = try run(["fsck"])
            #expect(found.status == 2, "\(what) is not found: \(found.text)")
            #expect(found.lines.contains { $0.hasPrefix("next step") }, "\(what): \(found.text)")
            let repaired = try run(arguments)
            #expect(repaired.status == 0, "\(what) is not repaired: \(repaired.text)\(repaired.error)")
            let again = try run(["fsck", "--deep"])
            #expect(again.status == 0, "\(what) is still damaged: \(again.text)")
        }
    }

    enum Damage: String, CaseIterable, Sendable {
        case removed, emptied, truncated, flipped, fifo, directory, symlink

        func apply(to path: String) throws {
            let bytes = try readFile(path)
            switch self {
            case .emptied: return try writeFile(path, [])
            case .truncated: return try writeFile(path, Array(bytes.dropLast()))
            case .flipped:
                var flipped = bytes
                flipped[flipped.count / 2] ^= 1
                return try writeFile(path, flipped)
            default: unlink(path)
            }
            switch self {
            case .fifo: mkfifo(path, 0o644)
            case .directory: mkdir(path, 0o755)
            case .symlink: Glibc.symlink("../../meta.json", path)
            default: break
            }
        }
    }

    @Test(arguments: Damage.allCases) func everyObject(_ damage: Damage) throws {
        let fixture = try Fixture()
        for object in fixture.objects {
            try damage.apply(to: fixture.repository + "/" + object)
            try fixture.mends(["fsck", "--repair"], "\(object) \(damage)")
        }
        // A garbage collection removes the files that were set aside, and nothing else.
        let before = fixture.objects
        let kept = fileList(fixture.repository + "/.damaged").count
        #expect(damage == .removed ? kept == 0 : kept >= before.count)
        #expect(try fixture.run(["gc"]).status == 0)
        #expect(fileList(fixture.repository + "/.damaged").isEmpty && fixture.objects == before)
    }

    @Test(arguments: ["removed", "dangling", "other", "nowhere", "file"]) func everyLink(_ damage: String) throws {
        let fixture = try Fixture()
        for link in fixture.links {
            let path = fixture.repository + "/" + link
            var buffer = [CChar](repeating: 0, count: 4096)
            let count = readlink(path, &buffer, buffer.count)
            let target = buffer.prefix(count).map { UInt8(bitPattern: $0) }
            unlink(path)
            switch damage {
            case "dangling":
                var other = target
                other[other.count - 1] = other[other.count - 1] == UInt8(ascii: "0") ? UInt8(ascii: "1") : UInt8(ascii: "0")
                symlink(String(decoding: other, as: UTF8.self), path)
            case "other": symlink("../" + (fixture.objects.first { !target.reversed().starts(with: $0.utf8.reversed()) } ?? ""), path)
            case "nowhere": symlink("nothing", path)
            case "file": try writeFile(path, Array("a file".utf8))
            default: break
            }
            try fixture.mends(["fsck", "--repair"], "\(link) \(damage)")
        }
    }

    @Test(arguments: ["removed", "emptied", "truncated", "flipped", "garbage", "symlink"]) func metadata(_ damage: String) throws {
        let fixture = try Fixture()
        let path = fixture.repository + "/meta.json"
        let original = try readFile(path)
        switch damage {
        case "garbage":
            unlink(path)
            try writeFile(path, Array("[1, 2".utf8))
        default: try #require(Damage(rawValue: damage)).apply(to: path)
        }
        // Without the file it might be a repository of an old program, which is no damage.
        #expect(try fixture.run(["fsck"]).status == (damage == "removed" ? 1 : 2))
        #expect(try fixture.run(["fsck", "--repair"]).status == 0)
        #expect(try fixture.run(["fsck", "--deep"]).status == 0)
        #expect(try readFile(path) == original)
    }

    /// From the registry that the image was pulled from, layer by layer: of two, only the damaged one is asked for.
    @Test(arguments: Damage.allCases) func fromARegistry(_ damage: Damage) throws {
        let folder = try TemporaryFolder()
        let builder = LayoutBuilder.small()
        try builder.write(to: folder.path + "/layout")
        let server = try LayoutServer(layout: folder.path + "/layout")
        defer { server.stop() }
        let fixture = try Fixture(builder, pull: [server.reference, "--tls-verify=false"])
        let sizes = [5000: 1, 70_000: 0]
        for (size, layer) in sizes {
            let object = try #require(
                fixture.objects.first { name in
                    var status = stat()
                    return lstat(fixture.repository + "/" + name, &status) == 0 && Int(status.st_size) == size
                })
            try damage.apply(to: fixture.repository + "/" + object)
            server.forget()
            try fixture.mends(["fsck", "--repair", "--tls-verify=false"], "\(object) \(damage)")
            #expect(server.requests.map(\.blob) == [ContentDigest.of(builder.layers[layer]).hex])
        }
    }

    /// Kept blobs, referrers and a second name are repaired, each from its source.
    @Test func everythingThatBelongsToAnImage() throws {
        var builder = LayoutBuilder.small()
        builder.compressor = "gzip"
        let fixture = try Fixture(builder, options: ["--keep-blobs"])
        let artifact = fixture.folder.path + "/artifact"
        let digest = try writeArtifact(artifact, subject: fixture.manifest)
        #expect(try fixture.run(["pull", "oci:" + artifact, "sbom"]).status == 0)
        #expect(try fixture.run(["referrers", "add", "t", "sbom"]).status == 0)
        #expect(try fixture.run(["untag", "sbom"]).status == 0)
        #expect(try fixture.run(["tag", "t", "second"]).status == 0)
        #expect(try fixture.run(["fsck", "--deep"]).status == 0)
        for object in fixture.objects {
            try Damage.flipped.apply(to: fixture.repository + "/" + object)
            try fixture.mends(["fsck", "--repair"], object)
        }
        let inspected = try fixture.run(["inspect", "second"])
        #expect(inspected.text.contains(digest.description), "\(inspected.text)")
        let layout = fixture.folder.path + "/pushed"
        #expect(try fixture.run(["push", "t", "oci:" + layout + ":x"]).status == 0)
        #expect(
            try readFile(layout + "/blobs/sha256/" + fixture.manifest.hex)
                == readFile(fixture.layout + "/blobs/sha256/" + fixture.manifest.hex))
    }

    @Test func fromWhatIsGiven() throws {
        let fixture = try Fixture()
        let other = try Fixture()
        // The layout that the image came from is gone.
        rename(fixture.layout, fixture.folder.path + "/moved")
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        func damage() throws { try Damage.flipped.apply(to: fixture.repository + "/" + object) }
        try damage()
        let failed = try fixture.run(["fsck", "--repair", "--json"])
        #expect(failed.status == 2)
        let image = try #require(try failed.json()["repair"]?["images"]?.array?.first)
        #expect(image["isWhole"]?.bool == false && image["reason"]?.string?.contains("/layout") == true)
        // What is damaged was set aside all the same: no file has a name that is not its own.
        #expect(throws: RunFailure.self) { try readFile(fixture.repository + "/" + object) }
        // The next repair continues.
        try fixture.mends(["fsck", "--repair", "--from", fixture.folder.path + "/moved"], "a layout")
        try damage()
        try fixture.mends(["fsck", "--repair", "--from", "oci:" + fixture.folder.path + "/moved:latest"], "a reference")
        try damage()
        try fixture.mends(["fsck", "--repair", "--from", other.repository], "a repository")
        // A repository of another algorithm has none of the objects, but the image.
        let third = fixture.folder.path + "/third"
        try Cfsoci.succeed(["init", third, "--insecure", "--algorithm", "fsverity-sha512-12"])
        try Cfsoci.succeed(["pull", "oci:" + other.layout, "t", "--repo", third])
        try damage()
        try fixture.mends(["fsck", "--repair", "--from", third], "a repository of another algorithm")
    }

    @Test func dryRunChangesNothing() throws {
        let fixture = try Fixture()
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        try Damage.flipped.apply(to: fixture.repository + "/" + object)
        let before = fileList(fixture.repository)
        let planned = try fixture.run(["fsck", "--repair", "--dry-run", "--json"])
        #expect(planned.status == 2 && fileList(fixture.repository) == before)
        let actions = try #require(try planned.json()["repair"]?["actions"]?.array)
        #expect(actions.map { $0["action"]?.string } == ["set-aside", "fetched"])
        #expect(actions[0]["path"]?.string == object && actions[0]["to"] == .null)
        #expect(actions[1]["from"]?.string == "oci:" + fixture.layout && actions[1]["layers"] == .integer(1))
    }

    /// A dangling tag is reported, and removed only on request.
    @Test func danglingReferences() throws {
        let fixture = try Fixture()
        symlink("../../oci-manifest-sha256:" + String(repeating: "0", count: 64), fixture.repository + "/streams/refs/oci/gone")
        let left = try fixture.run(["fsck", "--repair"])
        #expect(left.status == 2 && left.lines.contains("streams/refs/oci/gone leads to nothing; --prune-dangling removes it"))
        try fixture.mends(["fsck", "--repair", "--prune-dangling"], "a tag")
        #expect(try Cfsoci.succeed(["images", "--json", "--repo", fixture.repository]).json()["images"]?.array?.count == 1)
    }

    /// A digit of a tag's link that is wrong is put right.
    @Test func damagedReferences() throws {
        let fixture = try Fixture()
        let path = fixture.repository + "/streams/refs/oci/t"
        unlink(path)
        symlink("../../oci-manifest-sha256:" + fixture.manifest.hex.dropLast() + (fixture.manifest.hex.last == "0" ? "1" : "0"), path)
        try fixture.mends(["fsck", "--repair"], "the tag")
    }

    @Test func temporariesGo() throws {
        let fixture = try Fixture()
        try writeFile(fixture.repository + "/objects/.tmp-object-AAAAAAAAAAAA", [1])
        symlink("x", fixture.repository + "/.symlink-BBBBBBBBBBBB")
        let result = try fixture.run(["fsck", "--repair"])
        #expect(result.status == 0)
        #expect(result.lines.contains("removed objects/.tmp-object-AAAAAAAAAAAA, left by an interrupted operation"))
        #expect(!fileList(fixture.repository).contains { $0.contains(".tmp-object-") || $0.contains(".symlink-") })
    }

    /// Half of it is read each time, and all of it in two.
    @Test func subsets() throws {
        let fixture = try Fixture()
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        try Damage.flipped.apply(to: fixture.repository + "/" + object)
        let parts = try ["1/2", "2/2"].map { try fixture.run(["fsck", "--subset", $0, "--json"]) }
        let counts = try parts.map { try $0.json()["repository"]?["objectsChecked"]?.int64 ?? 0 }
        #expect(counts.reduce(0, +) == Int64(fixture.objects.count) && counts.allSatisfy { $0 > 0 })
        #expect(parts.contains { $0.text.contains(object) })
        for wrong in ["0/2", "3/2", "1", "x/2", "1/0"] { #expect(try fixture.run(["fsck", "--subset", wrong]).status == 64) }
    }

    @Test func progress() throws {
        let fixture = try Fixture()
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        try Damage.flipped.apply(to: fixture.repository + "/" + object)
        let events = try fixture.run(["fsck", "--repair", "--progress", "json"]).error.split(separator: "\n").map {
            try JSONValue.parse(Array($0.utf8))
        }
        let names = events.compactMap { $0["event"]?.string }
        #expect(
            names.prefix(2) == ["schema", "objects"] && names.contains("images") && names.contains("mending") && names.contains("again"))
        #expect(events.first { $0["event"]?.string == "repaired" }?["action"]?["action"]?.string == "set-aside")
        let lines = try fixture.run(["fsck", "--progress", "plain"]).error
        #expect(lines.contains("objects read: \(fixture.objects.count)"))
    }

    /// Damage under a running mount: each refusal names the file and the next step, and changes nothing. A pull of another image with the damaged layer
    /// fails if it cannot fetch the layer, and otherwise repairs it.
    @Test(arguments: [[], ["--fuse"]]) func damageUnderAMount(_ options: [String]) throws {
        try requireMounting()
        let fixture = try Fixture()
        let mounted = fixture.folder.path + "/mounted"
        mkdir(mounted, 0o755)
        #expect(try fixture.run(["mount", "t", mounted, "--quiet"] + options).status == 0)
        defer { _ = try? fixture.run(["umount", mounted]) }
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        try Damage.flipped.apply(to: fixture.repository + "/" + object)
        let before = fileList(fixture.repository)
        func expectRefusal(_ result: CommandResult, sourceLocation: SourceLocation = #_sourceLocation) {
            #expect(result.status == 1, sourceLocation: sourceLocation)
            #expect(
                result.error.contains(object) && result.error.contains("`cfsoci fsck`"), "\(result.error)", sourceLocation: sourceLocation)
        }
        let pushed = fixture.folder.path + "/pushed"
        for format in ["none", "gzip", "zstd"] {
            expectRefusal(try fixture.run(["push", "t", "oci:" + pushed + ":x", "--compression", format]))
            expectRefusal(try fixture.run(["export", "t", "oci:" + pushed + ":x", "--compression", format]))
        }
        expectRefusal(try fixture.run(["export", "t", "oci-archive:" + pushed + ".tar"]))
        #expect(!fileList(fixture.folder.path).contains("pushed.tar"))
        #expect(!fileList(pushed).contains { $0.hasPrefix("blobs/sha256/" + fixture.manifest.hex) })
        let target = fixture.folder.path + "/target"
        try Cfsoci.succeed(["init", target, "--insecure", "--algorithm", "fsverity-sha256-12"])
        expectRefusal(try Cfsoci.run(["copy", "t", "--from", fixture.repository, "--repo", target]))
        #expect(try Cfsoci.succeed(["images", "--repo", target]).lines == ["No images"])
        // Another image with the same layers and one more.
        var other = LayoutBuilder.small()
        other.layers.append(tarArchive([TarMember(name: "more", mode: 0o644, content: [UInt8](repeating: 5, count: 3000))]))
        let layout = fixture.folder.path + "/other"
        try other.write(to: layout)
        let blobs = fileList(layout).filter { $0.hasPrefix("blobs/") && ((try? readFile(layout + "/" + $0).count) ?? 0) > 70_000 }
        #expect(blobs.count == 1)
        for blob in blobs { rename(layout + "/" + blob, fixture.folder.path + "/blob") }
        expectRefusal(try fixture.run(["pull", "oci:" + layout, "other"]))
        #expect(try fixture.run(["images", "--json"]).json()["images"]?.array?.count == 1)
        #expect(fileList(fixture.repository).filter { before.contains($0) } == before)
        for blob in blobs { rename(fixture.folder.path + "/blob", layout + "/" + blob) }
        #expect(try fixture.run(["pull", "oci:" + layout, "other"]).status == 0)
        #expect(try fixture.run(["fsck", "--deep"]).status == 0)
    }

    /// Damage does not spread: a push and a copy refuse it, and a pull repairs it.
    @Test func damageIsNotPassedOn() throws {
        let fixture = try Fixture()
        let object = try #require(fixture.objects.first { (try? readFile(fixture.repository + "/" + $0).count) == 70_000 })
        try Damage.flipped.apply(to: fixture.repository + "/" + object)
        let pushed = try fixture.run(["push", "t", "oci:" + fixture.folder.path + "/pushed:x"])
        #expect(pushed.status == 1 && pushed.error.contains("fsck"), "\(pushed.error)")
        let target = fixture.folder.path + "/target"
        try Cfsoci.succeed(["init", target, "--insecure", "--algorithm", "fsverity-sha256-12"])
        let copied = try Cfsoci.run(["copy", "t", "--from", fixture.repository, "--repo", target])
        #expect(copied.status == 1)
        #expect(try Cfsoci.run(["fsck", "--repo", target]).status == 0)
        try fixture.mends(["pull", "oci:" + fixture.layout, "t"], "what a pull finds")
    }
}
