import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `cfsoci prune`: garbage collection and more; tags only on request.
@Suite struct PruneTests {
    private func names(_ store: ContractStore) throws -> [String] {
        try store.succeed(["images", "--json"]).json()["images"]?.array?.compactMap { $0["name"]?.string } ?? []
    }

    @Test func withoutAllNoTagGoes() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "second"])
        let nothing = try store.succeed(["prune", "--json"]).json()
        #expect(
            nothing == [
                "objectsRemoved": 0, "bytesRemoved": 0, "streamsRemoved": 0, "imagesRemoved": 0, "temporariesRemoved": 0,
                "danglingReferences": [], "tagsRemoved": [], "tagsKept": [], "referrersRemoved": 0, "disksRemoved": 0,
            ])
        #expect(try names(store) == ["second", "t"])
        // Data that no tag keeps is removed, as by gc.
        try store.succeed(["rm", "t", "second"])
        let before = store.files
        let dry = try store.succeed(["prune", "-n", "--json"]).json()
        #expect(store.files == before)
        let gone = try store.succeed(["prune", "--json"]).json()
        #expect(gone == dry)
        #expect((gone["objectsRemoved"]?.int64 ?? 0) > 5 && gone["streamsRemoved"] == 4 && gone["imagesRemoved"] == 1)
    }

    @Test func allRemovesTagsAndWhatTheyKept() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "second"])
        let folder = store.folder.path + "/tree"
        mkdir(folder, 0o755)
        try writeFile(folder + "/file", [UInt8](repeating: 1, count: 1000))
        let kept = try store.succeed(["create-image", folder, "kept"]).lines[0]
        let before = store.files
        let dry = try store.succeed(["prune", "--all", "--dry-run", "--json"]).json()
        #expect(dry["tagsRemoved"] == ["second", "t"])
        #expect((dry["objectsRemoved"]?.int64 ?? 0) > 5)
        #expect(store.files == before)
        let text = try store.succeed(["prune", "--all", "--dry-run"]).lines
        #expect(Array(text.prefix(3)) == ["Removed tag second", "Removed tag t", "Dry run: nothing was removed"])
        #expect(text.last == "referrers    0 removed")
        #expect(try store.succeed(["prune", "--all", "--yes", "--json"]).json() == dry)
        #expect(try names(store) == ["kept"])
        // Names of directory images stay.
        #expect(try store.succeed(["image-objects", "kept"]).lines.count == 1)
        #expect(store.files.contains("images/" + kept))
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }

    @Test func referrersGoWithTheirSubject() throws {
        let (store, _) = try ContractStore.small()
        _ = try store.pull(ContractLayout.artifact("note"), as: "note")
        _ = try store.pull(ContractLayout.artifact("note of the note"), as: "far")
        try store.succeed(["referrers", "add", "t", "note"])
        try store.succeed(["referrers", "add", "note", "far"])
        try store.succeed(["untag", "note"])
        try store.succeed(["untag", "far"])
        // Both are kept: they belong to a stored image, one of them through the other.
        #expect(try store.succeed(["prune", "--json"]).json()["referrersRemoved"] == 0)
        #expect(try store.succeed(["prune", "--json"]).json()["objectsRemoved"] == 0)
        try store.succeed(["untag", "t"])
        let dry = try store.succeed(["prune", "-n", "--json"]).json()
        #expect(dry["referrersRemoved"] == 2)
        #expect(try store.succeed(["prune", "--json"]).json() == dry)
        #expect(!store.files.contains { $0.hasPrefix("objects/") && $0.utf8.count > 12 })
    }

    @Test func damagedImageRemovesNothing() throws {
        let (store, image) = try ContractStore.small()
        let object = try #require(try store.object(with: image.manifestBytes))
        try writeFile(store.path + "/objects/\(object.prefix(2))/\(object.dropFirst(2))", Array("{}".utf8))
        let before = store.files
        _ = try store.refuse(["prune", "--all", "--yes"])
        #expect(store.files == before)
    }

    @Test func deployedImagesStay() throws {
        let (store, _) = try ContractStore.small()
        let id = try #require(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        for path in ["/state", "/state/deploy", "/state/deploy/" + id] { mkdir(store.folder.path + path, 0o755) }
        let report = try store.succeed(["prune", "--all", "--yes", "--json"]).json()
        #expect(report["tagsKept"] == [["name": "t", "use": "deployed"]])
        #expect(report["objectsRemoved"] == 0 && report["tagsRemoved"] == [])
        #expect(try store.succeed(["prune", "--all", "--yes"]).lines.first == "Kept tag t: the image is deployed")
    }

    /// Also from a mount namespace without the mount.
    @Test(.enabled(if: isRoot, "needs root")) func mountedImagesStay() throws {
        let (store, _) = try ContractStore.small()
        let target = store.folder.path + "/mounted"
        mkdir(target, 0o755)
        let mounted = try store.run(["mount", "t", target])
        guard mounted.status == 0 else { try Test.cancel("cannot mount: \(mounted.error)") }
        defer { umount2(target, Int32(MNT_DETACH)) }
        let report = try store.succeed(["prune", "--all", "--yes", "--json"]).json()
        #expect(report["tagsKept"] == [["name": "t", "use": "mounted"]])
        #expect(try readFile(target + "/usr/small") == Array("hello from test layer\n".utf8))
        let command = "umount '\(target)' && '\(Cfsoci.binary)' prune --all --repo '\(store.path)'"
        let other = try launch("unshare", ["--mount", "sh", "-c", command])
        #expect(other.text.hasPrefix("Kept tag t: the image is mounted\n"), "\(other.text)\(other.error)")
        umount2(target, Int32(MNT_DETACH))
        #expect(try store.succeed(["prune", "--all", "--yes", "--json"]).json()["tagsRemoved"] == ["t"])
    }
}
