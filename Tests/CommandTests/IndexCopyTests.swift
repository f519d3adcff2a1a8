import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// `copy --all` with the real binary: all bytes of an index arrive, and nothing else changes.
@Suite struct IndexCopyTests {
    private let folder: TemporaryFolder
    private let source: IndexLayout
    private let index: IndexLayout.Entry
    private let first: IndexLayout.Entry

    /// Configs and layers: three for the first image, and two for each of the other four and the attestation; the layer that images share
    /// counts once.
    private static let blobCount: Int64 = 3 + 5 * 2

    init() throws {
        folder = try TemporaryFolder()
        (source, index, first) = try IndexLayout.whole(folder.path + "/source")
    }

    private var from: String { "oci:\(folder.path)/source:v1" }
    private var destination: String { folder.path + "/copy" }

    @discardableResult private func copy(_ from: String, _ to: String, _ options: [String] = []) throws -> JSONValue {
        try Cfsoci.succeed(["copy", "--all", from, to, "--json"] + options).json()
    }

    /// The layout has all of the source and is listed as the index.
    private func expectWhole(_ path: String) throws {
        #expect(try blobs(ofLayout: path) == blobs(ofLayout: source.path))
        #expect(try listedDigests(ofLayout: path) == [index.digest.description])
    }

    @Test func layoutToLayout() throws {
        let result = try copy(from, "oci:\(destination):v2")
        #expect(result["digest"]?.string == index.digest.description && result["isIndex"] == true)
        #expect(result["manifests"]?.array?.count == 6 && result["nestedIndexes"]?.array?.count == 1)
        #expect(result["blobsSent"]?.int64 == Self.blobCount && result["blobsPresent"]?.int64 == 0)
        try expectWhole(destination)
        let second = try copy(from, "oci:\(destination):v2")
        #expect(second["blobsSent"]?.int64 == 0 && second["blobsPresent"]?.int64 == Self.blobCount && second["bytesSent"]?.int64 == 0)
        try expectWhole(destination)
        // What was copied can be pulled, for each platform.
        let repo = ["--repo", folder.path + "/repo"]
        for (platform, file) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64"), ("linux/riscv64", "riscv64")] {
            try Cfsoci.succeed(repo + ["pull", "oci:\(destination):v2", file, "--platform", platform])
            #expect(try Cfsoci.succeed(repo + ["cat", file, file]).text == "only \(file)\n")
        }
    }

    @Test func throughAnArchive() throws {
        let archive = "oci-archive:\(folder.path)/x.tar:v1"
        #expect(try copy(from, archive)["digest"]?.string == index.digest.description)
        try mustShell("gzip -k $1", [folder.path + "/x.tar"])
        for (number, form) in [archive, "oci-archive:\(folder.path)/x.tar.gz:v1"].enumerated() {
            let path = destination + "\(number)"
            #expect(try copy(form, "oci:\(path)")["digest"]?.string == index.digest.description)
            try expectWhole(path)
        }
        // The same image gives the same archive.
        #expect(try copy("oci:\(destination)0", "oci-archive:\(folder.path)/y.tar:v1")["blobsSent"]?.int64 == Self.blobCount)
        #expect(try readFile(folder.path + "/x.tar") == readFile(folder.path + "/y.tar"))
    }

    @Test(
        .enabled("docker-registry and skopeo are not both installed") {
            ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
        })
    func throughARegistry() throws {
        let registry = try PushTests.Registry(folder.path)
        let target = "docker://\(registry.host)/team/app:v1"
        #expect(try copy(from, target)["blobsSent"]?.int64 == Self.blobCount)
        // Another program sees the same bytes under the tag, and finds everything.
        let raw = try launch("skopeo", ["inspect", "--tls-verify=false", "--raw", target])
        #expect(try raw.output == readFile(source.blobPath(index.digest)))
        let mounted = try copy(target, "docker://\(registry.host)/other/name:v1")
        #expect(mounted["blobsMounted"]?.int64 == Self.blobCount && mounted["blobsSent"]?.int64 == 0)
        let present = try copy(target, "docker://\(registry.host)/other/name:v2")
        #expect(present["blobsPresent"]?.int64 == Self.blobCount && present["bytesSent"]?.int64 == 0)
        #expect(try copy("docker://\(registry.host)/other/name:v2", "oci:\(destination):v1")["blobsSent"]?.int64 == Self.blobCount)
        try expectWhole(destination)
        // By its digest, without a tag at the source.
        let pinned = try copy("docker://\(registry.host)/team/app@\(index.digest)", "oci-archive:\(folder.path)/x.tar")
        #expect(pinned["digest"]?.string == index.digest.description)
        // To a digest: only if it is this one.
        let other = try Cfsoci.run(["copy", "--all", from, "docker://\(registry.host)/team/app@\(first.digest)"])
        #expect(expectRefusal(other).contains("has the digest \(index.digest), not \(first.digest)"))
    }

    /// What skopeo has copied with --all is read, and the reverse.
    @Test(.enabled("skopeo is not installed") { access("/usr/bin/skopeo", X_OK) == 0 })
    func otherPrograms() throws {
        // Skopeo refuses indexes in indexes.
        let layout = try IndexLayout(folder.path + "/flat")
        let image = try layout.image([tarArchive([TarMember(name: "a", content: [1, 2, 3])])], ("linux", "amd64"))
        let other = try layout.image([tarArchive([TarMember(name: "b", content: [4, 5])])], ("linux", "s390x"))
        let flat = try layout.index([image, other])
        try layout.list(flat, as: "v1")
        func skopeo(_ from: String, _ to: String) throws {
            let result = try launch("skopeo", ["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", from, to])
            guard result.status == 0 else { throw RunFailure(description: "skopeo: \(result.error)") }
        }
        try skopeo("oci:\(layout.path):v1", "oci-archive:\(folder.path)/s.tar:v1")
        #expect(try copy("oci-archive:\(folder.path)/s.tar:v1", "oci:\(destination):v1")["digest"]?.string == flat.digest.description)
        #expect(try blobs(ofLayout: destination) == blobs(ofLayout: layout.path))
        #expect(try copy("oci:\(layout.path):v1", "oci-archive:\(folder.path)/c.tar:v1")["blobsSent"]?.int64 == 4)
        try skopeo("oci-archive:\(folder.path)/c.tar:v1", "oci:\(folder.path)/back:v1")
        #expect(try blobs(ofLayout: folder.path + "/back") == blobs(ofLayout: layout.path))
    }

    @Test func oneManifest() throws {
        try source.list(first, as: "single")
        let result = try copy("oci:\(source.path):single", "oci:\(destination)")
        #expect(result["digest"]?.string == first.digest.description && result["isIndex"] == false)
        #expect(result["manifests"]?.array == [.string(first.digest.description)])
        #expect(try blobs(ofLayout: destination).count == 4)
        #expect(
            try Cfsoci.succeed(["copy", "--all", "oci:\(source.path):single", "oci:\(destination)"]).lines.first
                == "manifest  \(first.digest)")
    }

    // MARK: Referrers

    /// Artifacts of the index and of a manifest, and one of an artifact.
    @Test(arguments: ["oci:", "oci-archive:"]) func referrers(transport: String) throws {
        let note = try source.artifact(of: index, "about the index")
        let inner = try source.artifact(of: first, "about an image")
        let signature = try source.artifact(of: note, "about the note")
        let foreign = try source.artifact(of: note.changed(), "about something else")
        for entry in [note, inner, signature, foreign] { try source.list(entry, as: nil) }
        // They were not requested.
        #expect(try copy(from, "oci:\(folder.path)/without:v1")["referrers"]?.array == [])
        let target = transport + folder.path + "/target" + ":v1"
        let result = try copy(from, target, ["--referrers"])
        #expect(Set(result["referrers"]?.array?.compactMap(\.string) ?? []) == Set([note, inner, signature].map(\.digest.description)))
        let again = try copy(target, "oci:\(destination):v1", ["--referrers"])
        #expect(again["referrers"]?.array?.count == 3)
        var expected = try blobs(ofLayout: source.path)
        expected[foreign.digest.hex] = nil
        expected[ContentDigest.of(Array("about something else".utf8)).hex] = nil
        #expect(try blobs(ofLayout: destination) == expected)
        let listed = try listedDigests(ofLayout: destination)
        #expect(Set(listed) == Set([index, note, inner, signature].map(\.digest.description)) && listed.count == 4)
    }

    @Test(.enabled("docker-registry is not installed") { access("/usr/bin/docker-registry", X_OK) == 0 })
    func referrersInARegistry() throws {
        let registry = try PushTests.Registry(folder.path)
        let note = try source.artifact(of: index, "about the index")
        try source.list(note, as: nil)
        let target = "docker://\(registry.host)/team/app:v1"
        #expect(try copy(from, target, ["--referrers"])["referrers"]?.array == [.string(note.digest.description)])
        #expect(try copy(target, "oci:\(destination):v1", ["--referrers"])["referrers"]?.array == [.string(note.digest.description)])
        #expect(try blobs(ofLayout: destination) == blobs(ofLayout: source.path))
    }

    // MARK: What is refused

    /// Nothing is listed at the destination, and the image that is there stays.
    @Test(arguments: ["layer", "config", "manifest", "missing"]) func aDamagedSource(what: String) throws {
        try copy(from, "oci:\(destination):kept")
        let manifest = try JSONValue.parse(readFile(source.blobPath(first.digest)))
        let digest: ContentDigest =
            switch what {
            case "config": try #require(manifest["config"]?["digest"]?.string.flatMap { ContentDigest($0) })
            case "manifest": first.digest
            default: try #require(manifest["layers"]?.array?.last?["digest"]?.string.flatMap { ContentDigest($0) })
            }
        let path = source.blobPath(digest)
        if what == "missing" {
            #expect(unlink(path) == 0)
        } else {
            var bytes = try readFile(path)
            bytes[bytes.count / 2] ^= 1
            try writeFile(path, bytes)
        }
        let kept = try (blobs(ofLayout: destination), readFile(destination + "/index.json"))
        for target in ["oci:\(folder.path)/new:v1", "oci-archive:\(folder.path)/new.tar:v1"] {
            let refusal = expectRefusal(try Cfsoci.run(["copy", "--all", from, target]))
            #expect(refusal.contains(digest.description) && !refusal.contains("store is damaged"), "\(refusal)")
        }
        #expect(access(folder.path + "/new.tar", F_OK) != 0)
        #expect(try what == "manifest" ? access(folder.path + "/new", F_OK) != 0 : listedDigests(ofLayout: folder.path + "/new") == [])
        // The layout has everything already, so only a damaged document is read again.
        let again = try Cfsoci.run(["copy", "--all", from, "oci:\(destination):kept"])
        #expect(again.status == (what == "manifest" ? 1 : 0), "\(again.error)")
        #expect(try blobs(ofLayout: destination) == kept.0 && readFile(destination + "/index.json") == kept.1)
    }

    @Test(arguments: ["docker-archive:FOLDER/x.tar", "dir:FOLDER/x", "containers-storage:alpine"]) func withoutIndexes(form: String) throws
    {
        let other = form.replacing("FOLDER", with: folder.path)
        for arguments in [[from, other], [other, "oci:\(destination)"]] {
            let refusal = expectRefusal(try Cfsoci.run(["copy", "--all"] + arguments))
            #expect(refusal.contains("cannot hold an index") && refusal.contains(other), "\(refusal)")
        }
        #expect(access(folder.path + "/x", F_OK) != 0 && access(folder.path + "/x.tar", F_OK) != 0 && access(destination, F_OK) != 0)
    }

    @Test func hostileIndexes() throws {
        // Deeper than the limit.
        var nested = first
        for _ in 0..<9 { nested = try source.index([nested]) }
        try source.list(nested, as: "deep")
        let deep = ["copy", "--all", "oci:\(source.path):deep"]
        #expect(expectRefusal(try Cfsoci.run(deep + ["oci:\(destination)"])).contains("limit is 8, --max-index-depth raises it"))
        #expect(try Cfsoci.run(deep + ["oci:\(folder.path)/deep", "--max-index-depth", "10"]).status == 0)
        let small = expectRefusal(try Cfsoci.run(["copy", "--all", from, "oci:\(destination)", "--max-manifest-size", "100"]))
        #expect(small.contains("--max-manifest-size"))
        // More documents than the limit.
        let many = try source.index(try (0..<65).map { try source.image([], ("linux", "a\($0)")) })
        try source.list(many, as: "many")
        #expect(expectRefusal(try Cfsoci.run(["copy", "--all", "oci:\(source.path):many", "oci:\(destination)"])).contains("64 documents"))
        // An entry that is no manifest: without it the copy would not be the index.
        let strange = try source.index([first, try source.blob("{}", "application/vnd.example.other+json")])
        try source.list(strange, as: "strange")
        let refusal = expectRefusal(try Cfsoci.run(["copy", "--all", "oci:\(source.path):strange", "oci:\(destination)"]))
        #expect(refusal.contains("application/vnd.example.other+json") && refusal.contains(strange.digest.description))
        // A size that no file has.
        let layer = IndexLayout.Entry(mediaType: IndexLayout.layerType, digest: .of([1]), size: Int.max)
        let huge = try source.index([
            try source.manifest(try source.blob("{}", "application/vnd.oci.image.config.v1+json"), [layer], entry: "")
        ])
        try source.list(huge, as: "huge")
        expectRefusal(try Cfsoci.run(["copy", "--all", "oci:\(source.path):huge", "oci-archive:\(destination)"]))
        // Nothing was left at the destination.
        #expect(access(destination, F_OK) != 0)
    }

    @Test func usage() throws {
        for (arguments, part) in [
            ([from], "--from"), (["--all", from], "source and a destination"), (["--all", from, "oci:x", "--from", "y"], "exclude"),
            (["--all", from, "oci:x", "--repo", "y"], "--repo"), ([from, "--from", "y", "--referrers"], "--all"),
            ([from, "--from", "y", "--tls-verify", "false"], "--all"), ([from, "--from", "y", "--max-index-depth", "2"], "--all"),
            (["--all", "docker://a.example/x", "docker://b.example/x", "--creds", "me:secret"], "--authfile"),
        ] {
            let result = try Cfsoci.run(["copy"] + arguments)
            #expect(result.status == 64 && result.error.contains(part) && !result.error.contains("secret"), "\(result.error)")
        }
    }

    // MARK: Formats

    /// Documents in Docker's format keep their digests.
    @Test func dockerFormat() throws {
        let layout = try IndexLayout(folder.path + "/docker")
        let config = try layout.blob(
            #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            "application/vnd.docker.container.image.v1+json")
        let manifest = try layout.manifest(config, [], type: "application/vnd.docker.distribution.manifest.v2+json")
        let list = try layout.index([manifest], type: "application/vnd.docker.distribution.manifest.list.v2+json")
        try layout.list(list, as: "v1")
        let result = try Cfsoci.succeed(["copy", "--all", "oci:\(layout.path):v1", "oci:\(destination):v1"])
        #expect(result.lines.first == "index  \(list.digest)" && result.error.contains("Docker's format"))
        #expect(try blobs(ofLayout: destination) == blobs(ofLayout: layout.path))
    }

    /// A foreign layer that the source has is copied, one that it does not have is left out.
    @Test func foreignLayers() throws {
        let type = "application/vnd.oci.image.layer.nondistributable.v1.tar"
        let urls = #","urls":["https://layers.example/base"]"#
        let present = try source.blob("a layer that is here", type, urls)
        let missing = IndexLayout.Entry(mediaType: type, digest: .of(Array("elsewhere".utf8)), size: 9, members: urls)
        let config = try source.blob(
            #"{"architecture":"amd64","os":"windows","rootfs":{"type":"layers","diff_ids":[]}}"#, "application/vnd.oci.image.config.v1+json"
        )
        let list = try source.index([try source.manifest(config, [present, missing])])
        try source.list(list, as: "windows")
        let result = try copy("oci:\(source.path):windows", "oci:\(destination)")
        #expect(result["blobsLeftOut"]?.array == [.string(missing.digest.description)] && result["blobsSent"]?.int64 == 2)
        #expect(try readFile("\(destination)/blobs/sha256/\(present.digest.hex)") == Array("a layer that is here".utf8))
    }
}

extension IndexLayout.Entry {
    /// The descriptor of something else.
    fileprivate func changed() -> Self {
        var entry = self
        entry.digest = .of([0, 1, 2])
        return entry
    }
}
