import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// The files of a repository's objects, as lstat(2) reports them.
struct ObjectFiles: Equatable {
    var count: Int64 = 0
    var bytes: Int64 = 0
    var diskBytes: Int64 = 0

    init(count: Int64, bytes: Int64, diskBytes: Int64) {
        self.count = count
        self.bytes = bytes
        self.diskBytes = diskBytes
    }

    init(_ json: JSONValue?) {
        count = json?["count"]?.int64 ?? -1
        bytes = json?["bytes"]?.int64 ?? -1
        diskBytes = json?["diskBytes"]?.int64 ?? -1
    }

    /// All regular files below a directory.
    init(below path: String) {
        for name in fileList(path) {
            var status = stat()
            guard lstat(path + "/" + name, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            count += 1
            bytes += Int64(status.st_size)
            diskBytes += Int64(status.st_blocks) * 512
        }
    }

    static func - (left: ObjectFiles, right: ObjectFiles) -> ObjectFiles {
        ObjectFiles(count: left.count - right.count, bytes: left.bytes - right.bytes, diskBytes: left.diskBytes - right.diskBytes)
    }

    static let none = ObjectFiles(count: 0, bytes: 0, diskBytes: 0)
}

/// `cfsoci df`: every number is compared with the files themselves, before and after a removal from a copy of the repository.
@Suite struct DiskUsageTests {
    private static func content(_ seed: Int, _ size: Int) -> [UInt8] {
        [UInt8]((0..<size).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ $0 >> 8) ^ seed) })
    }

    private static func layer(_ name: String, _ seed: Int, _ size: Int) -> [UInt8] {
        tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/" + name, content: content(seed, size))])
    }

    /// Two images that share a layer, one of them under two tags and with an artifact; an image whose only file is in another one, too; one
    /// made from a directory with such a file; untagged remains; a removed file; a partial download.
    private static func store() throws -> ContractStore {
        let store = try ContractStore(["--erofs-version", "1", "--erofs-version", "2"])
        let base = layer("base", 1, 90_000)
        _ = try store.pull(LayoutBuilder(layers: [base, layer("first", 2, 30_000)]), as: "first")
        try store.succeed(["tag", "first", "again"])
        _ = try store.pull(LayoutBuilder(layers: [base, layer("second", 3, 50_000)]), as: "second")
        _ = try store.pull(LayoutBuilder(layers: [layer("other", 3, 50_000)]), as: "other:1")
        _ = try store.pull(ContractLayout.artifact("about the first one"), as: "note")
        try store.succeed(["referrers", "add", "first", "note"])
        try store.succeed(["untag", "note"])
        let tree = store.folder.path + "/tree"
        mkdir(tree, 0o755)
        try writeFile(tree + "/file", content(2, 30_000))
        try writeFile(tree + "/own", content(9, 20_000))
        try store.succeed(["create-image", tree, "made/here"])
        _ = try store.pull(LayoutBuilder(layers: [layer("gone", 4, 70_000)]), as: "gone")
        try store.succeed(["rm", "gone"])
        mkdir(store.path + "/.damaged", 0o755)
        try writeFile(store.path + "/.damaged/objects-x.abc", content(5, 1234))
        try writeFile(store.path + "/objects/.tmp-object-abcdefabcdef", content(5, 4321))
        return store
    }

    private func copy(_ store: ContractStore) throws -> String {
        let path = store.folder.path + "/copy"
        removeTree(path)
        _ = try mustShell(#"cp -a "$1" "$2""#, [store.path, path])
        return path
    }

    /// Removes names from a copy, with all that nothing else needs, and returns what is left.
    private func files(of store: ContractStore, without names: [String]) throws -> ObjectFiles {
        let path = try copy(store)
        if !names.isEmpty { try Cfsoci.succeed(["rm", "--repo", path] + names) }
        try Cfsoci.succeed(["prune", "--repo", path])
        return ObjectFiles(below: path + "/objects")
    }

    @Test func numbersAreThoseOfTheFiles() throws {
        let store = try Self.store()
        let json = try store.succeed(["df", "--json"]).json()
        let everything = ObjectFiles(below: store.path + "/objects")
        let temporary = ObjectFiles(count: 1, bytes: 4321, diskBytes: ObjectFiles(json["temporaries"]).diskBytes)
        #expect(ObjectFiles(json["temporaries"]) == temporary && temporary.diskBytes >= 4321)
        #expect(ObjectFiles(json["objects"]) == everything - temporary)
        #expect(ObjectFiles(json["damaged"]).count == 1 && ObjectFiles(json["damaged"]).bytes == 1234)
        let links = fileList(store.path).filter { !$0.contains("/refs") }
        #expect(json["streams"]?["count"]?.int64 == Int64(links.count { $0.hasPrefix("streams/") }))
        #expect(json["images"]?["count"]?.int64 == Int64(links.count { $0.hasPrefix("images/") }))

        let kept = try files(of: store, without: [])
        let garbage = everything - temporary - kept
        #expect(garbage.count > 5 && ObjectFiles(json["reclaimable"]).bytes == garbage.bytes)
        #expect(json["reclaimable"]?["objects"]?.int64 == garbage.count && json["reclaimable"]?["diskBytes"]?.int64 == garbage.diskBytes)

        let costs = json["costs"]?.array ?? []
        let names = costs.map { ($0["names"]?.array ?? []).compactMap(\.string) }
        #expect(names == [["again", "first"], ["made/here"], ["other:1"], ["second"]])
        for (cost, own) in zip(costs, names) {
            #expect(ObjectFiles(cost["reclaimable"]) == kept - (try files(of: store, without: own)), "\(own)")
            #expect(ObjectFiles(cost["exclusive"]) == ObjectFiles(cost["reclaimable"]))
            let total = try files(of: store, without: names.filter { $0 != own }.flatMap(\.self))
            #expect(ObjectFiles(cost["total"]) == total, "\(own)")
            #expect(ObjectFiles(cost["shared"]) == total - ObjectFiles(cost["exclusive"]), "\(own)")
        }
        // The list has the same sizes.
        let listed = try store.succeed(["images", "--json"]).json()["images"]?.array ?? []
        #expect(listed.count == 5)
        for image in listed {
            let cost = zip(costs, names).first { $0.1.contains(image["name"]?.string ?? "") }?.0
            #expect(image["diskSize"] == cost?["total"]?["diskBytes"])
        }
        #expect(try Cfsoci.succeed(["du", "--json", "--repo", store.path]).json() == json)
    }

    /// An image in use frees nothing, with a name or without one.
    @Test func imagesInUse() throws {
        try requireMounting()
        let place = try FuseFixture()
        try place.mount()
        let named = try place.store.succeed(["df", "--json"]).json()["costs"]?[0]
        #expect(named?["names"] == ["docker.io/library/tool:latest"] && named?["inUse"]?[0]?["use"] == "mounted")
        #expect(ObjectFiles(named?["reclaimable"]) == .none && ObjectFiles(named?["exclusive"]) == ObjectFiles(named?["total"]))
        try place.store.succeed(["rm", "--force", "tool"])
        let json = try place.store.succeed(["df", "--json"]).json()
        #expect(json["costs"]?.array?.count == 1 && json["costs"]?[0]?["names"] == [])
        #expect(json["costs"]?[0]?["manifestDigest"] == named?["manifestDigest"] && json["costs"]?[0]?["total"] == named?["total"])
        #expect(ObjectFiles(json["costs"]?[0]?["total"]) == ObjectFiles(below: place.store.path + "/objects"))
        #expect(json["reclaimable"]?["objects"] == 0)
        #expect(try place.store.succeed(["df"]).lines[1].hasPrefix("<none> "))
        try place.store.succeed(["umount", place.fuse])
        #expect(place.isQuiet())
        let after = try place.store.succeed(["df", "--json"]).json()
        #expect(after["costs"] == [] && (after["reclaimable"]?["objects"]?.int64 ?? 0) > 5)
    }

    @Test func emptyRepository() throws {
        let store = try ContractStore()
        let json = try store.succeed(["df", "--json"]).json()
        #expect(ObjectFiles(json["objects"]) == .none && json["costs"] == [] && json["reclaimable"]?["bytes"] == 0)
        #expect(try store.succeed(["df"]).lines.first == "objects      0, 0 B")
    }

    /// A damaged stream is reported, and everything else is accounted for.
    @Test func damagedStream() throws {
        let (store, image) = try ContractStore.small()
        _ = try store.pull(LayoutBuilder(layers: [Self.layer("x", 1, 9000)]), as: "whole")
        let link = store.path + "/streams/oci-layer-" + image.diffIDs[0]
        var buffer = [CChar](repeating: 0, count: 512)
        let count = readlink(link, &buffer, 511)
        let target = String(decoding: buffer.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        try writeFile(store.path + "/streams/" + target, [1, 2, 3])
        let result = try store.run(["df", "--json"])
        #expect(result.status == 0)
        #expect(result.error.contains("is not accounted for") && result.error.contains("gc would be refused"))
        let json = try result.json()
        #expect(json["reclaimable"] == .null && json["costs"]?.array?.count == 2)
        #expect(ObjectFiles(json["objects"]) == ObjectFiles(below: store.path + "/objects"))
    }

    /// Bars only on a terminal, and never more columns than it has.
    @Test(arguments: [8, 20, 45, 60, 100, 200]) func terminal(_ columns: Int) throws {
        let store = try Self.store()
        #expect(!(try store.succeed(["df"]).text.contains("[")))
        let shown = try mustShell(
            #"export CFSOCI; script --quiet --return --command "stty cols $2 rows 10; '$CFSOCI' df --repo '$1'" /dev/null </dev/null"#,
            [store.path, "\(columns)"])
        let lines = String(decoding: shown.utf8.filter { $0 != 13 }, as: UTF8.self).split(separator: "\n")
        #expect(lines.count > 8 && lines.allSatisfy { $0.count <= columns }, "\(shown)")
        #expect(lines.contains { $0.contains("[") } == (columns != 8 && columns != 60 || lines.contains { $0.hasPrefix("[") }), "\(shown)")
    }

    @Test func info() throws {
        let store = try Self.store()
        let files = store.files
        let json = try store.succeed(["info", "--json"]).json()
        func count(_ prefix: String) -> JSONValue { .integer(Int64(files.count { $0.hasPrefix(prefix) })) }
        #expect(
            json == [
                "path": .string(store.path), "algorithm": "fsverity-sha512-12", "verity": false, "version": 1, "erofsVersions": [1, 2],
                "features": ["compatible": [], "readOnlyCompatible": ["v1_erofs"], "incompatible": []],
                "counts": [
                    "objects": .integer(ObjectFiles(below: store.path + "/objects").count - 1),
                    "streams": .integer(Int64(files.count { $0.hasPrefix("streams/oci-") })), "manifests": count("streams/oci-manifest-"),
                    "configs": count("streams/oci-config-"), "layers": count("streams/oci-layer-"), "blobs": 0,
                    "images": .integer(Int64(files.count { $0.hasPrefix("images/") && $0.utf8.count > 100 })), "tags": 4, "indexes": 0,
                    "names": 1,
                    "referrers": 1,
                ], "program": ["name": "cfsoci", "version": .string(String(try Cfsoci.succeed(["--version"]).lines[0]))],
            ])
        let lines = try store.succeed(["info"]).lines
        #expect(lines.prefix(2) == ["path       \(store.path)", "algorithm  fsverity-sha512-12"])
        #expect(try ContractStore().succeed(["info", "--json"]).json()["counts"]?["objects"] == 0)
    }
}
