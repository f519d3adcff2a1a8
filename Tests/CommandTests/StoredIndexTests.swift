import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Indexes in the repository: `pull --all-platforms` stores them, and everything that knows tags knows them.
@Suite struct StoredIndexTests {
    private let store: ContractStore
    private let source: IndexLayout
    private let index: IndexLayout.Entry
    private let first: IndexLayout.Entry

    init() throws {
        store = try ContractStore()
        (source, index, first) = try IndexLayout.whole(store.folder.path + "/source")
    }

    private var folder: String { store.folder.path }
    private var from: String { "oci:\(source.path):v1" }

    @discardableResult private func pull(_ options: [String] = []) throws -> JSONValue {
        try store.succeed(["pull", from, "app", "--all-platforms", "--platform", "linux/amd64", "--json"] + options).json()
    }

    /// The link of the index's stream, and what it leads to.
    private func indexStream(_ digest: ContentDigest) throws -> String {
        let name = store.path + "/streams/oci-blob-\(digest)"
        let target = try launch("readlink", [name]).lines.first ?? ""
        #expect(target.hasPrefix("../objects/"), "no stream of the index")
        return store.path + "/streams/" + target
    }

    private func names() throws -> [String] {
        try (store.succeed(["images", "--json"]).json()["images"]?.array ?? []).compactMap { $0["name"]?.string }
    }

    // MARK: Storing

    @Test func pullStoresTheIndex() throws {
        let result = try pull()
        #expect(result["index"]?["digest"]?.string == index.digest.description && result["index"]?["name"] == "app")
        #expect(result["index"]?["leftOut"] == [] && result["index"]?["manifests"]?.array?.count == 6)
        #expect(try names() == ["app", "app-linux-amd64", "app-linux-arm64", "app-linux-riscv64", "app-plan9-mips"])
        // The format, as Repo-Format.md has it.
        let link = try launch("readlink", [store.path + "/streams/refs/oci-indexes/app"])
        #expect(link.lines == ["../../oci-blob-\(index.digest)"])
        _ = try indexStream(index.digest)
        #expect(try store.succeed(["inspect", "app", "--index"]).output == readFile(source.blobPath(index.digest)))
        let inspected = try store.succeed(["inspect", "app"]).json()
        #expect(inspected["manifestDigest"]?.string == first.digest.description)
        #expect(inspected["index"]?["digest"]?.string == index.digest.description && inspected["index"]?["complete"] == true)
        #expect(
            inspected["index"]?["manifests"]?.array?.map { $0["platform"]?.string } == [
                "linux/amd64", "linux/arm64", nil, nil, nil, "linux/riscv64",
            ])
        let fsck = try store.succeed(["fsck"])
        #expect(fsck.lines.contains("indexes: 1/1 ok") && fsck.lines.contains("status: ok"), "\(fsck.text)")
        // The attestation and the artifact have no tag: the index keeps them.
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        #expect(try store.succeed(["prune", "--json"]).json()["objectsRemoved"] == 0)
        #expect(try store.succeed(["images", "--filter", "dangling=true", "--json"]).json()["images"] == [])
        let table = try store.succeed(["images"]).lines
        #expect(table.first?.contains("PLATFORMS") == true)
        #expect(table.contains { $0.hasPrefix("app ") && $0.contains("linux/amd64,linux/arm64,linux/riscv64") }, "\(table)")
        #expect(try store.succeed(["info", "--json"]).json()["counts"]?["indexes"] == 1)
        // Again: nothing changes.
        let files = store.files
        try pull()
        #expect(store.files == files)
    }

    @Test func namesOfIndexes() throws {
        try pull()
        let tagged = try store.succeed(["tag", "app", "other", "--json"]).json()
        #expect(tagged["indexDigest"]?.string == index.digest.description && tagged["manifestDigest"]?.string == first.digest.description)
        for name in try names() where name.hasPrefix("app") { try store.succeed(["untag", name]) }
        #expect(try names() == ["other"])
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        // The name of the image is removed; the index stays under its own.
        try mustShell("rm \"$1/streams/refs/oci/other\"", [store.path])
        let images = try store.succeed(["images", "--json"]).json()["images"]?.array ?? []
        #expect(images.count == 1 && images[0]["name"] == "other" && images[0]["manifestDigest"] == .null)
        #expect(images[0]["index"]?["digest"]?.string == index.digest.description)
        #expect(try store.succeed(["images"]).lines.last?.contains(" index ") == true)
        #expect(try store.succeed(["inspect", "other"]).json()["index"]?["manifests"]?.array?.count == 6)
        let refused = try store.refuse(["ls", "other"])
        #expect(refused.contains("\"other\" is the index \(index.digest), not an image; `cfsoci inspect other` lists its images"))
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        #expect(try store.succeed(["fsck"]).lines.contains("status: ok"))
        // A listed image has no name, and can be used by its digest.
        #expect(try store.succeed(["cat", first.digest.description, "amd64"]).text == "only amd64\n")
        #expect(try store.succeed(["rm", "other"]).lines == ["Removed tag other"])
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"]?.int64 != 0)
        let objects = store.files.filter { $0.hasPrefix("objects/") && $0.utf8.count > "objects/00/".utf8.count }
        #expect(objects == [])
        #expect(store.files.filter { $0.hasPrefix("streams/oci-") } == [])
    }

    /// A name that moves to another image does not keep the index of the old one, unless that lists the image.
    @Test func movingNames() throws {
        try pull()
        try LayoutBuilder.small().write(to: store.layoutPath("t"))
        try store.succeed(["pull", "oci:" + store.layoutPath("t"), "t"])
        try store.succeed(["tag", "app-linux-arm64", "app"])
        #expect(try store.succeed(["inspect", "app"]).json()["index"]?["digest"]?.string == index.digest.description)
        try store.succeed(["tag", "t", "app"])
        #expect(try store.succeed(["inspect", "app"]).json()["index"] == .null)
        #expect(expectRefusal(try store.run(["inspect", "app", "--index"]), status: 3).hasPrefix("no index \"app\" in the repository"))
    }

    // MARK: Garbage, retention, accounts

    @Test func retention() throws {
        try pull()
        for name in ["app-linux-arm64", "app-linux-riscv64", "app-plan9-mips"] { try store.succeed(["untag", name]) }
        let kept = try store.succeed(["prune", "--older-than", "1h", "--yes", "--json"]).json()
        #expect(kept["tagsRemoved"] == [] && kept["objectsRemoved"] == 0)
        // The index of a name was used when the image was.
        try mustShell("touch -h -d '2 days ago' \"$1\"/streams/refs/oci-indexes/app \"$1\"/streams/refs/oci/app-linux-amd64", [store.path])
        #expect(try store.succeed(["prune", "--older-than", "1h", "--yes", "--json"]).json()["tagsRemoved"] == ["app-linux-amd64"])
        try mustShell("touch -h -d '2 days ago' \"$1\"/streams/refs/oci/app", [store.path])
        try store.succeed(["export", "app", "oci:\(folder)/out", "--all-platforms", "--index", "rewrite"])
        #expect(try store.succeed(["prune", "--older-than", "1h", "--yes", "--json"]).json()["tagsRemoved"] == [])
        try mustShell("touch -h -d '2 days ago' \"$1\"/streams/refs/oci/app \"$1\"/streams/refs/oci-indexes/app", [store.path])
        let removed = try store.succeed(["prune", "--older-than", "1h", "--yes", "--json"]).json()
        #expect(removed["tagsRemoved"] == ["app"] && removed["objectsRemoved"]?.int64 != 0)
        #expect(store.files.filter { $0.hasPrefix("streams/oci-") } == [])
        try pull()
        #expect(try store.succeed(["prune", "--all", "--yes", "--json"]).json()["tagsRemoved"]?.array?.count == 5)
        #expect(store.files.filter { $0.hasPrefix("streams/oci-") || $0.hasPrefix("streams/refs/oci-indexes/") } == [])
    }

    @Test func accounts() throws {
        try pull()
        func costs() throws -> [String: JSONValue] {
            let rows = try store.succeed(["df", "--json"]).json()["costs"]?.array ?? []
            return Dictionary(
                uniqueKeysWithValues: rows.map { ($0["names"]?.array?.compactMap(\.string).joined(separator: " ") ?? "", $0) })
        }
        let all = try costs()
        #expect(all.keys.sorted() == ["app app-linux-amd64", "app-linux-arm64", "app-linux-riscv64", "app-plan9-mips"])
        // The name costs what its index keeps, and each other image shares all of its own with it.
        let objects = try store.succeed(["df", "--json"]).json()["objects"]?["count"]?.int64
        #expect(all["app app-linux-amd64"]?["total"]?["count"]?.int64 == objects)
        #expect(all["app-linux-arm64"]?["exclusive"]?["count"] == 0)
        for name in try names() where name != "app" { try store.succeed(["untag", name]) }
        try mustShell("rm \"$1/streams/refs/oci/app\"", [store.path])
        let only = try costs()
        #expect(only.count == 1 && only["app"]?["manifestDigest"]?.string == index.digest.description)
        #expect(only["app"]?["reclaimable"]?["count"]?.int64 == objects)
    }

    /// An image in use does not keep the index, and so not the images for other platforms.
    @Test func inUse() throws {
        try pull()
        let arm = try arm64()
        let id = try #require(try store.succeed(["inspect", arm.description]).json()["imageIds"]?["v1"]?.string)
        try mustShell("mkdir -p \"$1/state/deploy/$2\"", [folder, id])
        // The index is another name of it.
        try store.succeed(["untag", "app-linux-arm64"])
        #expect(try store.refuse(["untag", "app"], status: 6).contains("\"app\" is the last name of an image that is in use"))
        let tables = try store.succeed(["images", "--json"]).json()["images"]?.array ?? []
        #expect(tables.first { $0["name"] == "app" }?["inUse"]?.array?.isEmpty == false)
        try store.succeed(["rm", "--force"] + names())
        try store.succeed(["gc"])
        #expect(store.files.filter { $0.hasPrefix("streams/oci-manifest-") } == ["streams/oci-manifest-\(arm)"])
        #expect(store.files.filter { $0.hasPrefix("streams/oci-blob-") } == [])
        #expect(try store.succeed(["cat", arm.description, "arm64"]).text == "only arm64\n")
    }

    private func arm64() throws -> ContentDigest {
        let manifests = try store.succeed(["inspect", "app"]).json()["index"]?["manifests"]?.array ?? []
        let found = manifests.first { $0["platform"] == "linux/arm64" }?["digest"]?.string
        return try #require(found.flatMap { ContentDigest($0) })
    }

    // MARK: Damage

    @Test func damage() throws {
        try pull()
        for name in try names() where name != "app" { try store.succeed(["untag", name]) }
        let arm = try arm64()
        // A manifest that the index's record names.
        let link = "\(store.path)/streams/oci-manifest-\(arm)"
        try mustShell("rm \"$1\"", [link])
        let missing = try store.run(["fsck", "--json"])
        #expect(missing.status == 2)
        let errors = try missing.json()["imageErrors"]?.array ?? []
        #expect(errors == [["type": "index-member-missing", "image": "app", "detail": .string("oci-manifest-\(arm) is missing")]])
        #expect(try missing.json()["indexesDamaged"] == 1)
        let refused = try store.refuse(["push", "app", "oci:\(folder)/out:v1", "--all-platforms"])
        #expect(refused.contains("the index \(index.digest) lists a manifest that is not stored: linux/arm64 (\(arm))"))
        #expect(access(folder + "/out", F_OK) != 0)
        #expect(
            try store.succeed(["images"]).lines.contains { $0.hasPrefix("app ") && $0.contains("linux/amd64,linux/riscv64 (1 missing)") })
        #expect(try store.run(["fsck", "--repair", "app"]).status == 0)
        #expect(try store.succeed(["fsck"]).lines.contains("indexes: 1/1 ok"))
        // A byte of the index.
        let object = try #require(try store.object(with: readFile(source.blobPath(index.digest))))
        let path = "\(store.path)/objects/\(object.prefix(2))/\(object.dropFirst(2))"
        var bytes = try readFile(path)
        bytes[40] ^= 1
        try mustShell("rm \"$1\"", [path])
        try writeFile(path, bytes)
        let damaged = try store.run(["fsck", "--json"])
        #expect(damaged.status == 2)
        let kinds = try (damaged.json()["imageErrors"]?.array ?? []).compactMap { $0["type"]?.string }
        #expect(kinds == ["index-read-failed"])
        #expect(try store.run(["push", "app", "oci:\(folder)/out:v1", "--all-platforms"]).status == 1)
        #expect(try store.run(["inspect", "app", "--index"]).status == 1)
        #expect(try store.run(["images"]).error.contains("app"))
        #expect(access(folder + "/out", F_OK) != 0)
        let repaired = try store.run(["fsck", "--repair"])
        #expect(repaired.status == 0, "\(repaired.text) \(repaired.error)")
        #expect(try store.succeed(["inspect", "app", "--index"]).output == readFile(source.blobPath(index.digest)))
        #expect(try store.succeed(["fsck", "--deep"]).lines.contains("indexes: 1/1 ok"))
        #expect(try store.succeed(["inspect", "app"]).json()["index"]?["complete"] == true)
        // A name that leads elsewhere.
        try mustShell("ln -sfn ../../oci-manifest-\(arm) \"$1\"", [store.path + "/streams/refs/oci-indexes/app"])
        let elsewhere = try store.run(["fsck", "--json"])
        #expect(elsewhere.status == 2)
        #expect(try (elsewhere.json()["imageErrors"]?.array ?? []).compactMap { $0["type"]?.string } == ["ref-resolve-failed"])
    }

    // MARK: Policy

    /// What the policy refuses is not stored: an image for a platform ends the pull, anything else is left out.
    @Test func policy() throws {
        let policy = folder + "/policy.json"
        try writeFile(policy, Array(#"{"default":[{"type":"reject"}]}"#.utf8))
        let files = store.files
        let result = try store.run(["pull", from, "app", "--all-platforms", "--signature-policy", policy])
        #expect(result.status == 4 && store.files == files)
        try pull()
        let other = folder + "/other"
        let copied = try Cfsoci.run(
            ["copy", "app", "--all-platforms", "--from", store.path, "--repo", other, "--signature-policy", policy])
        #expect(copied.status == 4)
        #expect(access(folder + "/other", F_OK) != 0)
    }

    // MARK: Between repositories

    @Test func copies() throws {
        try pull(["--keep-blobs"])
        let repo = ["--repo", folder + "/other"]
        let result = try Cfsoci.succeed(["copy", "app", "new", "--all-platforms", "--from", store.path, "--json"] + repo).json()
        #expect(result["index"]?["digest"]?.string == index.digest.description && result["index"]?["name"] == "new")
        #expect(result["images"]?.array?.count == 6 && result["index"]?["leftOut"] == [])
        let images = try Cfsoci.succeed(["images", "--json"] + repo).json()["images"]?.array ?? []
        let tags = images.compactMap { $0["name"]?.string }
        #expect(Set(tags).isSuperset(of: ["new", "new-linux-amd64", "new-linux-arm64", "new-linux-riscv64", "new-plan9-mips"]), "\(tags)")
        #expect(try Cfsoci.succeed(["fsck", "--deep"] + repo).lines.contains("indexes: 1/1 ok"))
        #expect(try Cfsoci.succeed(["gc", "--json"] + repo).json()["objectsRemoved"] == 0)
        try Cfsoci.succeed(["export", "new", "oci:\(folder)/out:v1", "--all-platforms"] + repo)
        #expect(try blobs(ofLayout: folder + "/out") == blobs(ofLayout: source.path))
        #expect(
            expectRefusal(try Cfsoci.run(["copy", "nosuch", "--all-platforms", "--from", store.path] + repo), status: 3).contains(
                "no index"))
        #expect(try Cfsoci.run(["copy", "app", "x", "--all-platforms"] + repo).status == 64)
    }
}
