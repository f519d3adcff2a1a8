import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `push --all-platforms` and `export --all-platforms`: a stored index arrives byte for byte, or not at all.
@Suite struct StoredIndexPushTests {
    private let store: ContractStore
    private let layout: IndexLayout
    /// Two platforms that share a layer, and an attestation of the first. gzip -1 gives blobs that cfsoci would not produce.
    private let index: IndexLayout.Entry
    private let images: [IndexLayout.Entry]
    private let attestation: IndexLayout.Entry

    init() throws {
        store = try ContractStore()
        layout = try IndexLayout(store.folder.path + "/source")
        let shared = tarArchive([TarMember(name: "shared", content: (0..<300_000).map { UInt8(truncatingIfNeeded: $0 * $0 >> 3) })])
        images = try ["amd64", "arm64"].map { [layout] name in
            try Self.image(layout, [shared, tarArchive([TarMember(name: name, content: Array("only \(name)\n".utf8))])], name)
        }
        attestation = try layout.attestation(of: images[0])
        index = try layout.index([images[0], images[1], attestation], members: #", "annotations": { "org.example": "kept" }"#)
        try layout.list(index, as: "v1")
    }

    private static func image(_ layout: IndexLayout, _ archives: [[UInt8]], _ architecture: String) throws -> IndexLayout.Entry {
        let diffIDs = archives.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        let config = try layout.blob(
            #"{"architecture":"\#(architecture)","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#,
            "application/vnd.oci.image.config.v1+json")
        let layers = try archives.map {
            try layout.blob(launch("gzip", ["-n", "-c", "-1"], input: $0).output, IndexLayout.layerType + "+gzip")
        }
        return try layout.manifest(config, layers, entry: #","platform":{"os":"linux","architecture":"\#(architecture)"}"#)
    }

    private var folder: String { store.folder.path }

    private func pull(_ options: [String] = []) throws {
        try store.succeed(["pull", "oci:\(layout.path):v1", "app", "--all-platforms"] + options)
    }

    private func raw(_ image: String) throws -> [UInt8] {
        let result = try launch("skopeo", ["inspect", "--tls-verify=false", "--raw", image])
        guard result.status == 0 else { throw RunFailure(description: "skopeo: \(result.error)") }
        return result.output
    }

    private func skopeo(_ from: String, _ to: String) throws {
        let result = try launch(
            "skopeo",
            [
                "--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false",
                from, to,
            ])
        guard result.status == 0 else { throw RunFailure(description: "skopeo: \(result.error)") }
    }

    // MARK: Unchanged

    @Test(
        .enabled("docker-registry and skopeo are not both installed") {
            ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
        })
    func toARegistry() throws {
        try pull(["--keep-blobs"])
        let registry = try PushTests.Registry(folder)
        let target = "docker://\(registry.host)/team/app:v1"
        let result = try store.succeed(["push", "app", target, "--all-platforms", "--json"]).json()
        #expect(result["indexDigest"]?.string == index.digest.description && result["sourceIndexDigest"] == result["indexDigest"])
        #expect(result["manifests"]?.array?.map { $0["platform"]?.string } == ["linux/amd64", "linux/arm64", nil])
        #expect(
            result["manifests"]?.array?.compactMap { $0["digest"]?.string }
                == (images + [attestation]).map(\.digest.description))
        #expect(result["missing"] == [])
        // Another program sees the same bytes under the tag, and finds everything.
        #expect(try raw(target) == readFile(layout.blobPath(index.digest)))
        try skopeo(target, "oci:\(folder)/copy:v1")
        #expect(try blobs(ofLayout: folder + "/copy") == blobs(ofLayout: layout.path))
        // Again: nothing is sent.
        let again = try store.succeed(["push", "app", target, "--all-platforms", "--json"]).json()
        #expect(again["bytesSent"] == 0 && again["indexDigest"] == result["indexDigest"])
        #expect(
            try store.succeed(["push", "app", "\(registry.host)/team/other:v1", "--all-platforms"]).lines
                .contains("index  \(index.digest)"))
        // To a digest: only if it is this one.
        let pinned = "docker://\(registry.host)/team/pinned@"
        try store.succeed(["push", "app", pinned + index.digest.description, "--all-platforms"])
        let other = try store.refuse(["push", "app", pinned + images[0].digest.description, "--all-platforms"])
        #expect(other.contains("has the digest \(index.digest), not \(images[0].digest)"))
        // What skopeo has written is pulled and pushed in the same way.
        try skopeo("oci:\(layout.path):v1", "docker://\(registry.host)/skopeo/app:v1")
        let second = ["--repo", folder + "/second"]
        let tls = ["--tls-verify=false"]
        try Cfsoci.succeed(["pull", "\(registry.host)/skopeo/app:v1", "--all-platforms", "--keep-blobs"] + second + tls)
        try Cfsoci.succeed(["push", "\(registry.host)/skopeo/app:v1", "oci:\(folder)/second-copy:v1", "--all-platforms"] + second)
        #expect(try blobs(ofLayout: folder + "/second-copy") == blobs(ofLayout: layout.path))
        #expect(try Cfsoci.succeed(["fsck", "--deep"] + second).lines.contains("indexes: 1/1 ok"))
    }

    @Test(arguments: ["oci:", "oci-archive:"]) func toALayout(transport: String) throws {
        try pull(["--keep-blobs"])
        let target = "\(transport)\(folder)/out:v1"
        let lines = try store.succeed(["export", "app", target, "--all-platforms"]).lines
        #expect(lines.contains("index  \(index.digest)") && lines.contains("manifests  3"))
        try Cfsoci.succeed(["copy", "--all", target, "oci:\(folder)/copy:v1"])
        #expect(try blobs(ofLayout: folder + "/copy") == blobs(ofLayout: layout.path))
        #expect(try listedDigests(ofLayout: folder + "/copy") == [index.digest.description])
    }

    /// Indexes in indexes.
    @Test func nested() throws {
        let (whole, outer, _) = try IndexLayout.whole(folder + "/whole")
        try store.succeed(["pull", "oci:\(whole.path):v1", "whole", "--all-platforms"])
        try store.succeed(["export", "whole", "oci:\(folder)/out:v1", "--all-platforms"])
        #expect(try blobs(ofLayout: folder + "/out") == blobs(ofLayout: whole.path))
        #expect(try listedDigests(ofLayout: folder + "/out") == [outer.digest.description])
    }

    @Test func referrers() throws {
        let note = try layout.artifact(of: index, "about the index")
        let inner = try layout.artifact(of: images[1], "about an image")
        let signature = try layout.artifact(of: note, "about the note")
        for entry in [note, inner, signature] { try layout.list(entry, as: nil) }
        try pull(["--keep-blobs", "--referrers"])
        #expect(try store.succeed(["fsck"]).lines.contains("status: ok"))
        let result = try store.succeed(["export", "app", "oci:\(folder)/out:v1", "--all-platforms", "--json"]).json()
        #expect(Set(result["referrers"]?.array?.compactMap(\.string) ?? []) == Set([note, inner, signature].map(\.digest.description)))
        #expect(result["referrersLeftOut"] == [])
        #expect(try blobs(ofLayout: folder + "/out") == blobs(ofLayout: layout.path))
        let without = try store.succeed(["export", "app", "oci:\(folder)/no:v1", "--all-platforms", "--referrers", "none", "--json"]).json()
        #expect(without["referrers"] == [])
        // The index keeps its referrers.
        for name in ["app-linux-amd64", "app-linux-arm64"] { try store.succeed(["untag", name]) }
        #expect(try store.succeed(["prune", "--json"]).json()["referrersRemoved"] == 0)
        try Cfsoci.succeed(["copy", "app", "--all-platforms", "--from", store.path, "--repo", folder + "/second"])
        try Cfsoci.succeed(["export", "app", "oci:\(folder)/third:v1", "--all-platforms", "--repo", folder + "/second"])
        #expect(try blobs(ofLayout: folder + "/third") == blobs(ofLayout: layout.path))
    }

    /// When an image is stored again with another stream, its index follows: gc of other programs knows only objects.
    @Test func streamsFollow() throws {
        try pull()
        for name in ["app", "app-linux-amd64", "app-linux-arm64"] {
            try mustShell("rm -f \"$1\"", ["\(store.path)/streams/refs/oci/\(name)"])
        }
        let manifest = "\(store.path)/streams/oci-manifest-\(images[1].digest)"
        func object(_ link: String) throws -> [UInt8] { try launch("readlink", [link]).output }
        let before = try (object(manifest), object("\(store.path)/streams/oci-blob-\(index.digest)"))
        try layout.list(images[1], as: "arm")
        try store.succeed(["pull", "oci:\(layout.path):arm", "arm", "--keep-blobs"])
        let after = try (object(manifest), object("\(store.path)/streams/oci-blob-\(index.digest)"))
        #expect(before.0 != after.0 && before.1 != after.1)
        try store.succeed(["untag", "arm"])
        // Only the streams that nothing has any more are garbage.
        try store.succeed(["gc"])
        let files = store.files
        let layers = try JSONValue.parse(readFile(layout.blobPath(images[1].digest)))["layers"]?.array ?? []
        for layer in layers { #expect(files.contains("streams/oci-blob-\(layer["digest"]?.string ?? "")")) }
        #expect(try store.succeed(["fsck", "--deep"]).lines.contains("indexes: 1/1 ok"))
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
    }

    /// A program that does not know indexes has stored a manifest again: the name in the index's stream keeps it.
    @Test func foreignStreams() throws {
        try pull()
        let name = "\(store.path)/streams/oci-blob-\(index.digest)"
        let before = try launch("readlink", [name]).lines[0]
        try layout.list(images[1], as: "arm")
        try store.succeed(["pull", "oci:\(layout.path):arm", "arm", "--keep-blobs"])
        try mustShell("ln -sfn \"$2\" \"$1\"", [name, before])
        for tag in ["app", "app-linux-amd64", "app-linux-arm64", "arm"] {
            try mustShell("rm -f \"$1\"", ["\(store.path)/streams/refs/oci/\(tag)"])
        }
        try store.succeed(["gc"])
        #expect(try store.succeed(["fsck", "--deep"]).lines.contains("indexes: 1/1 ok"))
        #expect(try store.succeed(["inspect", "app"]).json()["index"]?["complete"] == true)
        #expect(store.files.contains("streams/oci-manifest-\(images[1].digest)"))
    }

    // MARK: What cannot stay as it is

    @Test func changedManifests() throws {
        try pull()
        let refused = try store.refuse(["export", "app", "oci:\(folder)/out:v1", "--all-platforms"])
        #expect(refused.contains("the index names the manifest \(images[0].digest) for linux/amd64, which would be sent as sha256:"))
        #expect(refused.contains("`cfsoci pull --all-platforms --keep-blobs` stores the blobs, and --index rewrite sends a new index"))
        #expect(try listedDigests(ofLayout: folder + "/out") == [])
        // The destination may have the blobs.
        try Cfsoci.succeed(["copy", "--all", "oci:\(layout.path):v1", "oci:\(folder)/has:v0"])
        try store.succeed(["export", "app", "oci:\(folder)/has:v1", "--all-platforms"])
        #expect(try blobs(ofLayout: folder + "/has") == blobs(ofLayout: layout.path))
        // A new index on request.
        let result = try store.succeed(["export", "app", "oci:\(folder)/new:v1", "--all-platforms", "--index", "rewrite", "--json"]).json()
        let digest = try #require(result["indexDigest"]?.string)
        #expect(digest != index.digest.description && result["sourceIndexDigest"]?.string == index.digest.description)
        #expect(try listedDigests(ofLayout: folder + "/new") == [digest])
        let written = try JSONValue.parse(readFile("\(folder)/new/blobs/sha256/\(digest.dropFirst(7))"))
        let sent = try #require(result["manifests"]?.array)
        #expect(written["manifests"]?.array?.map { $0["digest"] } == sent.map { $0["digest"] })
        #expect(written["annotations"]?["org.example"] == "kept")
        #expect(written["manifests"]?[0]?["platform"]?["architecture"] == "amd64")
        // The attestation stays, and names the image as it was sent.
        #expect(sent[2]["digest"]?.string == attestation.digest.description)
        #expect(written["manifests"]?[2]?["annotations"]?["vnd.docker.reference.digest"] == sent[0]["digest"])
        let repo = ["--repo", folder + "/second"]
        for architecture in ["amd64", "arm64"] {
            try Cfsoci.succeed(["pull", "oci:\(folder)/new:v1", architecture, "--platform", "linux/" + architecture] + repo)
            #expect(try Cfsoci.succeed(["cat", architecture, architecture] + repo).text == "only \(architecture)\n")
        }
        // If nothing changes, the index is the stored one.
        try pull(["--keep-blobs"])
        let same = try store.succeed(["export", "app", "oci:\(folder)/same:v1", "--all-platforms", "--index", "rewrite", "--json"]).json()
        #expect(same["indexDigest"]?.string == index.digest.description)
    }

    /// The source lacks the attestation.
    @Test func sparse() throws {
        unlink(layout.blobPath(attestation.digest))
        let pulled = try store.run(["pull", "oci:\(layout.path):v1", "app", "--all-platforms", "--keep-blobs"])
        #expect(pulled.status == 0 && pulled.error.contains("the manifest \(attestation.digest), which the index lists, is left out: "))
        #expect(pulled.lines.contains("manifests  2 stored; 1 left out"))
        #expect(try store.succeed(["fsck"]).lines.contains("indexes: 1/1 ok"))
        #expect(try store.succeed(["inspect", "app"]).json()["index"]?["complete"] == false)
        let refused = try store.refuse(["export", "app", "oci:\(folder)/out:v1", "--all-platforms"])
        #expect(refused.contains("lists a manifest that is not stored: \(attestation.digest); `cfsoci pull --all-platforms` stores"))
        #expect(refused.contains("--index sparse sends the index without them, and --index rewrite a new index of the others"))
        #expect(access(folder + "/out", F_OK) != 0)
        let sparse = try store.run(["export", "app", "oci:\(folder)/out:v1", "--all-platforms", "--index", "sparse", "--json"])
        #expect(sparse.status == 0 && sparse.error.contains("1 manifests that the index lists are not stored and not sent"))
        #expect(try sparse.json()["missing"]?.array == [.string(attestation.digest.description)])
        #expect(try listedDigests(ofLayout: folder + "/out") == [index.digest.description])
        let rewritten = try store.run(["export", "app", "oci:\(folder)/new:v1", "--all-platforms", "--index", "rewrite", "--json"]).json()
        #expect(rewritten["manifests"]?.array?.count == 2 && rewritten["indexDigest"]?.string != index.digest.description)
        try Cfsoci.succeed(["copy", "--all", "oci:\(folder)/new:v1", "oci:\(folder)/copy:v1"])
        #expect(try listedDigests(ofLayout: folder + "/copy") == [rewritten["indexDigest"]?.string])
    }

    @Test func dockerFormat() throws {
        let old = try IndexLayout(folder + "/docker")
        let archive = tarArchive([TarMember(name: "f", content: [1, 2, 3])])
        let config = try old.blob(
            #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["\#(ContentDigest.of(archive))"]}}"#,
            "application/vnd.docker.container.image.v1+json")
        let layer = try old.blob(archive, "application/vnd.docker.image.rootfs.diff.tar")
        let manifest = try old.manifest(
            config, [layer], type: "application/vnd.docker.distribution.manifest.v2+json",
            entry: #","platform":{"os":"linux","architecture":"amd64"}"#)
        let list = try old.index([manifest], type: "application/vnd.docker.distribution.manifest.list.v2+json")
        try old.list(list, as: "v1")
        try store.succeed(["pull", "oci:\(old.path):v1", "old", "--all-platforms"])
        let kept = try store.run(["export", "old", "oci:\(folder)/out:v1", "--all-platforms"])
        #expect(kept.status == 0 && kept.error.contains("warning: the image has Docker's format, which is kept with its digests"))
        #expect(try blobs(ofLayout: folder + "/out") == blobs(ofLayout: old.path))
        let new = try store.succeed(["export", "old", "oci:\(folder)/new:v1", "--all-platforms", "--index", "rewrite", "--json"]).json()
        let digest = try #require(new["indexDigest"]?.string)
        let written = try JSONValue.parse(readFile("\(folder)/new/blobs/sha256/\(digest.dropFirst(7))"))
        #expect(written["mediaType"]?.string == IndexLayout.indexType)
        #expect(written["manifests"]?[0]?["mediaType"]?.string == IndexLayout.manifestType)
    }

    @Test func arguments() throws {
        try pull()
        #expect(try store.run(["push", "app", "oci:\(folder)/x", "--index", "sparse"]).status == 64)
        #expect(try store.run(["push", "app", "oci:\(folder)/x", "--all-platforms", "--index", "other"]).status == 64)
        #expect(try store.run(["export", "app", "-", "--all-platforms"]).status == 64)
        let missing = try store.refuse(["push", "app-linux-arm64", "oci:\(folder)/x", "--all-platforms"], status: 3)
        #expect(missing.contains("no index \"app-linux-arm64\" in the repository; `cfsoci pull --all-platforms` stores one"))
    }

    // MARK: Interruptions

    /// A push that is killed leaves no tag, or the whole; repeated, it completes.
    @Test(
        .enabled("docker-registry and skopeo are not both installed") {
            ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
        })
    func killed() throws {
        try pull(["--keep-blobs"])
        let registry = try PushTests.Registry(folder)
        var interrupted = 0
        for attempt in 0..<12 {
            let target = "docker://\(registry.host)/team/app\(attempt):v1"
            let pid = try start(
                Cfsoci.binary, ["push", "app", target, "--all-platforms", "--repo", store.path], output: folder + "/o", error: folder + "/e"
            )
            usleep(UInt32(attempt) * 9_000)
            kill(pid, SIGKILL)
            if wait(for: pid) != 0 { interrupted += 1 }
            let tag = try launch("skopeo", ["inspect", "--tls-verify=false", "--raw", target])
            if tag.status == 0 { #expect(try tag.output == readFile(layout.blobPath(index.digest))) }
            try store.succeed(["push", "app", target, "--all-platforms"])
            #expect(try raw(target) == readFile(layout.blobPath(index.digest)))
            try skopeo(target, "oci:\(folder)/copy\(attempt):v1")
        }
        #expect(interrupted > 3, "only \(interrupted) of 12 kills came in time")
        #expect(try store.succeed(["fsck"]).lines.contains("status: ok"))
    }

    /// A pull that is killed leaves no name of an index without the index and its images.
    @Test func killedPull() throws {
        var interrupted = 0
        for attempt in 0..<16 {
            let repo = folder + "/killed\(attempt)"
            try Cfsoci.succeed(["init", repo, "--insecure"])
            let pid = try start(
                Cfsoci.binary, ["pull", "oci:\(layout.path):v1", "app", "--all-platforms", "--keep-blobs", "--repo", repo],
                output: folder + "/o", error: folder + "/e")
            usleep(UInt32(attempt) * 6_000)
            kill(pid, SIGKILL)
            if wait(for: pid) != 0 { interrupted += 1 }
            let fsck = try Cfsoci.run(["fsck", "--repo", repo])
            #expect(fsck.status == 0, "\(fsck.text)")
            try Cfsoci.succeed(["gc", "--repo", repo])
            try Cfsoci.succeed(["pull", "oci:\(layout.path):v1", "app", "--all-platforms", "--keep-blobs", "--repo", repo])
            #expect(try Cfsoci.succeed(["fsck", "--deep", "--repo", repo]).lines.contains("indexes: 1/1 ok"))
            try Cfsoci.succeed(["export", "app", "oci:\(folder)/k\(attempt):v1", "--all-platforms", "--repo", repo])
            #expect(try blobs(ofLayout: folder + "/k\(attempt)") == blobs(ofLayout: layout.path))
        }
        #expect(interrupted > 3, "only \(interrupted) of 16 kills came in time")
    }
}
