import ComposefsBytes
import ComposefsJSON
import Glibc
import Testing

/// Names from `create-image DIR NAME` can be listed, inspected, read, tagged, untagged and collected like tags.
@Suite struct ImageNameTests {
    private struct Sample {
        let store: ContractStore
        let id: String
        let content = [UInt8]((0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ $0 >> 9) })

        init(_ name: String = "team/app") throws {
            store = try ContractStore()
            let folder = store.folder.path + "/tree"
            mkdir(folder, 0o755)
            try writeFile(folder + "/big", content)
            try writeFile(folder + "/small", Array("small\n".utf8))
            id = try store.succeed(["create-image", folder, name]).lines[0]
        }

        var object: String { store.path + "/objects/" + id.prefix(2) + "/" + id.dropFirst(2) }

        func names() throws -> [String?] {
            try store.succeed(["images", "--json"]).json()["images"]?.array?.map { $0["name"]?.string } ?? []
        }
    }

    @Test func listed() throws {
        let sample = try Sample()
        let size = try readFile(sample.object).count
        var image = try #require(try sample.store.succeed(["images", "--json"]).json()["images"]?[0])
        for key in ["pulled", "lastUsed", "diskSize"] { image[key] = nil }
        #expect(
            [image] == [
                [
                    "name": "team/app", "manifestDigest": .null, "configDigest": .null, "imageId": .string(sample.id), "isContainer": true,
                    "architecture": "", "os": "", "variant": .null, "created": .null, "size": .integer(Int64(size)), "layerCount": 0,
                    "referrerCount": 0, "index": .null, "inUse": [],
                ]
            ])
        let lines = try sample.store.succeed(["images"]).lines
        #expect(lines.count == 2 && lines[1].hasPrefix("team/app  \(sample.id.prefix(12))  directory  "), "\(lines)")
        #expect(try sample.store.succeed(["images", "--no-trunc"]).text.contains(sample.id))
        // Together with tags, in the order of names.
        _ = try sample.store.pull(LayoutBuilder.small(), as: "z")
        _ = try sample.store.pull(LayoutBuilder.small(), as: "a")
        #expect(try sample.names() == ["a", "team/app", "z"])
    }

    @Test func inspectedAndLookedInto() throws {
        let sample = try Sample()
        let store = sample.store
        #expect(
            try store.succeed(["inspect", "team/app"]).json() == [
                "name": "team/app", "manifestDigest": .null, "configDigest": .null, "manifest": .null, "config": .null,
                "imageIds": ["v1": .string(sample.id)], "bootImageIds": [:], "layers": [], "referrers": [], "index": .null,
            ])
        #expect(try store.refuse(["inspect", "team/app", "--manifest"]).contains("made from a directory"))
        #expect(try store.succeed(["ls", "team/app"]).lines == ["big", "small"])
        #expect(try store.succeed(["cat", "team/app", "big"]).output == sample.content)
        #expect(try store.succeed(["compute-id", "team/app"]).text == sample.id + "\n")
        #expect(try store.succeed(["dump", "team/app"]).lines.map { $0.prefix { $0 != " " } } == ["/", "/big", "/small"])
        #expect(try store.succeed(["fsck", "team/app"]).lines.last == "status: ok")
    }

    @Test func untaggedAndCollected() throws {
        for (command, name) in [(["untag", "team/app"], "team/app"), (["rm", "team/app"], "team/app"), (["rm", "ID"], "team/app")] {
            let sample = try Sample()
            let removed = try sample.store.succeed(command.map { $0 == "ID" ? sample.id : $0 })
            #expect(removed.text == "Removed tag \(name)\n")
            #expect(try sample.names() == [])
            #expect(try sample.store.refuse(command.map { $0 == "ID" ? sample.id : $0 }, status: 3).contains("no image"))
            let gone = try sample.store.succeed(["gc", "--json"]).json()
            #expect(gone["imagesRemoved"] == 1 && gone["objectsRemoved"] == 2)
            #expect(access(sample.object, F_OK) != 0)
        }
        let sample = try Sample()
        #expect(try sample.store.succeed(["untag", "team/app", "--json"]).json() == ["removed": ["team/app"]])
    }

    /// If a name is also a tag, the tag takes precedence.
    @Test func tagsComeFirst() throws {
        let sample = try Sample("t")
        let image = try sample.store.pull(LayoutBuilder.small(), as: "t")
        #expect(try sample.names() == ["t", "t"])
        #expect(try sample.store.succeed(["inspect", "t"]).json()["manifestDigest"] == .string(image.manifest))
        #expect(try sample.store.succeed(["untag", "t"]).text == "Removed tag t\n")
        #expect(try sample.store.succeed(["inspect", "t"]).json()["manifestDigest"] == .null)
        #expect(try sample.store.succeed(["untag", "t"]).text == "Removed tag t\n")
        #expect(try sample.names() == [])
    }

    @Test func furtherNames() throws {
        let sample = try Sample()
        #expect(try sample.store.succeed(["tag", "team/app", "second"]).text == "Tagged \(sample.id) as second\n")
        #expect(try sample.names() == ["second", "team/app"])
        try sample.store.succeed(["rm", "team/app"])
        try sample.store.succeed(["gc"])
        #expect(try sample.store.succeed(["cat", "second", "big"]).output == sample.content)
        #expect(try sample.store.refuse(["tag", "second", "../x"]).contains("no valid name"))
    }

    /// If the image's object is missing or damaged, the name is reported and can be removed, and garbage is collected.
    @Test(arguments: ["gone", "damaged", "link"]) func damage(kind: String) throws {
        let sample = try Sample()
        let store = sample.store
        _ = try store.pull(LayoutBuilder.small(), as: "t")
        switch kind {
        case "gone": unlink(sample.object)
        case "damaged":
            var bytes = try readFile(sample.object)
            bytes[2000] ^= 1
            chmod(sample.object, 0o644)
            try writeFile(sample.object, bytes)
        default: unlink(store.path + "/images/" + sample.id)
        }
        let fsck = try store.run(["fsck"])
        #expect(fsck.status == 2)
        #expect(
            fsck.lines.last
                == "next step for team/app: make it again from its directory (cfsoci create-image DIR team/app), or take it from another "
                + "repository (cfsoci fsck --repair team/app --from REPO)")
        let list = try store.run(["images", "--json"])
        if kind != "damaged" { #expect(list.status == 2 && list.error.contains("team/app")) }
        let mounted = try store.refuse(["ls", "team/app"])
        #expect(mounted.contains(sample.id) || mounted.contains("team/app"))
        let collected = try store.run(["gc"])
        if kind == "damaged" {
            // The objects of the existing image cannot be determined, so nothing is removed, and the message says what to do.
            #expect(collected.status == 1 && collected.error.contains("cfsoci untag"), "\(collected.error)")
        } else {
            #expect(collected.status == 0 && collected.error.contains("images/refs/team/app leads to nothing"), "\(collected.error)")
        }
        #expect(try store.succeed(["rm", "team/app"]).text == "Removed tag team/app\n")
        try store.succeed(["gc"])
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
        #expect(try store.succeed(["cat", "t", "usr/small"]).text == "hello from test layer\n")
    }
}

/// Commands that find a damaged image of `create-image` say how to create it again, and do not recommend a pull.
@Suite struct DamagedImageNameTests {
    private static let step =
        "; make it again from its directory (cfsoci create-image DIR team/app), or take it from another repository "
        + "(cfsoci fsck --repair team/app --from REPO)\n"

    private func expectStep(_ store: ContractStore) throws {
        for command in [["ls", "team/app"], ["cat", "team/app", "f"], ["dump", "team/app"], ["mount", "team/app", "/nowhere"]] {
            let result = try store.run(command)
            #expect(result.status == 1 && result.error.hasPrefix("cfsoci: error: team/app: "), "\(command): \(result.error)")
            #expect(result.error.hasSuffix(Self.step), "\(command): \(result.error)")
        }
    }

    @Test(arguments: ["missing", "damaged", "too large", "link to no object", "link to nothing", "link to another object"])
    func saysHowToMakeItAgain(kind: String) throws {
        let store = try ContractStore()
        let folder = store.folder.path + "/tree"
        mkdir(folder, 0o755)
        try writeFile(folder + "/f", [UInt8](repeating: 1, count: 5000))
        let id = try store.succeed(["create-image", folder, "team/app"]).lines[0]
        let object = store.path + "/objects/" + id.prefix(2) + "/" + id.dropFirst(2)
        let link = store.path + "/images/" + id
        chmod(object, 0o644)
        switch kind {
        case "missing": unlink(object)
        case "damaged":
            var bytes = try readFile(object)
            bytes[2000] ^= 1
            try writeFile(object, bytes)
        case "too large": try #require(truncate(object, 3 << 30) == 0)
        case "link to no object":
            unlink(link)
            symlink("../objects/nonsense", link)
        case "link to nothing": unlink(link)
        default:
            let data = try #require(try store.object(with: [UInt8](repeating: 1, count: 5000)))
            unlink(link)
            symlink("../objects/" + data.prefix(2) + "/" + data.dropFirst(2), link)
        }
        try expectStep(store)
        // Only a lost link follows from what is here. A repair of everything else says the steps, and both mend it.
        let copy = store.folder.path + "/copy"
        _ = try mustShell(#"cp -a "$1" "$2""#, [store.path, copy])
        let isLink = kind.hasPrefix("link")
        let repaired = try store.run(["fsck", "--repair"])
        #expect(repaired.status == (isLink ? 0 : 2), "\(repaired.text)")
        if !isLink {
            #expect(
                repaired.lines.contains {
                    $0.hasPrefix("team/app: damaged: ") && $0.contains("create-image DIR team/app") && $0.contains("--from REPO")
                }, "\(repaired.text)")
        }
        try store.succeed(["create-image", folder, "team/app"])
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
        #expect(try Cfsoci.run(["fsck", "--repair", "team/app", "--from", store.path, "--repo", copy]).status == 0)
        #expect(try Cfsoci.succeed(["fsck", "--repo", copy]).lines.last == "status: ok")
        #expect(try Cfsoci.succeed(["compute-id", "--path", folder, "--repo", copy]).lines == [id])
    }

    /// The object matches its name, but is not a composefs EROFS image.
    @Test func noImageInTheObject() throws {
        let store = try ContractStore()
        let folder = store.folder.path + "/tree"
        mkdir(folder, 0o755)
        try writeFile(folder + "/f", [UInt8](repeating: 1, count: 5000))
        try store.succeed(["create-image", folder])
        let data = try #require(try store.object(with: [UInt8](repeating: 1, count: 5000)))
        symlink("../objects/" + data.prefix(2) + "/" + data.dropFirst(2), store.path + "/images/" + data)
        mkdir(store.path + "/images/refs", 0o755)
        mkdir(store.path + "/images/refs/team", 0o755)
        symlink("../../" + data, store.path + "/images/refs/team/app")
        for command in [["ls", "team/app"], ["dump", "team/app"]] {
            let result = try store.run(command)
            #expect(result.status == 1 && result.error.hasPrefix("cfsoci: error: team/app: "), "\(command): \(result.error)")
            #expect(result.error.hasSuffix(Self.step), "\(command): \(result.error)")
        }
    }

    /// A pulled image gets another recommendation.
    @Test func pulledImagesArePulledAgain() throws {
        let (store, _) = try ContractStore.small()
        let id = try #require(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        unlink(store.path + "/objects/" + id.prefix(2) + "/" + id.dropFirst(2))
        let result = try store.run(["mount", "t", "/nowhere"])
        #expect(result.status == 1 && result.error.contains("`cfsoci fsck --repair t` fetches what is damaged again"))
    }
}

/// `rm` of several names: one that cannot be removed does not prevent removing the others.
@Suite struct RemovalTests {
    @Test func continuesAfterAFailure() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "u"])
        try store.succeed(["tag", "t", "v"])
        let result = try store.run(["rm", "t", "nothing", "u", "gone"])
        #expect(result.status == 1)
        #expect(result.text == "Removed tag t\nRemoved tag u\n")
        #expect(
            result.error.split(separator: "\n").map { $0.prefix { $0 != ";" } } == [
                "cfsoci: error: no image \"nothing\" in the repository", "cfsoci: error: no image \"gone\" in the repository",
            ])
        let document = try store.run(["rm", "nothing", "v", "--json"])
        #expect(document.status == 1)
        #expect(try document.json() == ["removed": ["v"]])
        let events = document.error.split(separator: "\n")
        #expect(events.count == 2 && events[0] == #"{"event":"schema","version":1}"# && events[1].contains(#""event":"error""#))
        let none = try store.run(["rm", "nothing", "--json"])
        #expect(none.status == 3 && none.text.isEmpty)
    }

    /// A name that exists, but cannot be removed.
    @Test(.enabled(if: isRoot && hasProgram("unshare"), "needs root")) func continuesAfterAnError() throws {
        let (store, _) = try ContractStore.small()
        let tree = store.folder.path + "/tree"
        mkdir(tree, 0o755)
        try writeFile(tree + "/file", [1])
        try store.succeed(["create-image", tree, "team/app"])
        let script = #"""
            mount --bind "$1/images/refs/team" "$1/images/refs/team"
            mount -o remount,ro,bind "$1/images/refs/team"
            exec "$CFSOCI" rm team/app t --repo "$1"
            """#
        let result = try launch("unshare", ["-m", "bash", "-ec", script, "bash", store.path], environment: ["CFSOCI=" + Cfsoci.binary])
        #expect(result.status == 1 && result.text == "Removed tag t\n", "\(result.text)")
        #expect(result.error.contains("images/refs/team/app: Read-only file system"), "\(result.error)")
        #expect(try store.succeed(["images", "--json"]).json()["images"]?.array?.map { $0["name"]?.string } == ["team/app"])
    }

    /// Invalid names.
    @Test func continuesAfterWhatIsNoName() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "u"])
        let result = try store.run(["rm", "t", "a/../b", "u"])
        #expect(result.status == 1 && result.text == "Removed tag t\nRemoved tag u\n", "\(result.error)")
    }
}

/// fsck recommends an action for each damaged image.
@Suite struct FsckAdviceTests {
    @Test func eachDamagedImageHasANextStep() throws {
        let (store, _) = try ContractStore.small()
        try store.succeed(["tag", "t", "docker.io/library/app:1"])
        let layout = store.layoutPath("t")
        // A damaged file of a layer affects both tags.
        let object = try #require(try store.object(with: [UInt8]((0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) })))
        let path = store.path + "/objects/" + object.prefix(2) + "/" + object.dropFirst(2)
        let content = try readFile(path)
        chmod(path, 0o644)
        try writeFile(path, [UInt8](repeating: 1, count: content.count))
        let found = try store.run(["fsck"])
        #expect(found.status == 2)
        #expect(
            found.lines.suffix(2) == [
                "next step for docker.io/library/app:1: cfsoci fsck --repair docker.io/library/app:1 fetches it again",
                "next step for t: cfsoci fsck --repair t fetches it again",
            ])
        #expect(found.lines.contains { $0.hasPrefix("status: ") })
        // After following the advice, the store is intact.
        try store.succeed(["rm", "t", "docker.io/library/app:1"])
        try store.succeed(["gc"])
        try store.succeed(["pull", "oci:" + layout, "t"])
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
        // The EROFS image is damaged, but the layers are intact.
        let damaged = try #require(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        let image = store.path + "/objects/" + damaged.prefix(2) + "/" + damaged.dropFirst(2)
        var bytes = try readFile(image)
        let good = bytes
        bytes[2000] ^= 1
        chmod(image, 0o644)
        try writeFile(image, bytes)
        let changed = try store.run(["fsck"])
        #expect(changed.status == 2)
        #expect(changed.lines.last == "next step for t: cfsoci fsck --repair t fetches it again")
        #expect(try store.run(["mount", "t", "/nowhere"]).error.contains("cfsoci: error: t: object \(damaged) is damaged"))
        try writeFile(image, good)
        // Only the EROFS image, which follows from the layers.
        let id = try #require(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        unlink(store.path + "/objects/" + id.prefix(2) + "/" + id.dropFirst(2))
        let missing = try store.run(["fsck"])
        #expect(missing.lines.last == "next step for t: cfsoci upgrade generates the EROFS images from the layers")
        #expect(try store.run(["upgrade"]).status == 0)
        #expect(try store.succeed(["fsck"]).lines.last == "status: ok")
    }
}
