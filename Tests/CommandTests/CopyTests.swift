import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Copies of images between repositories with the real binary.
struct CopyTests {
    private struct Stores {
        let folder: TemporaryFolder
        let from: [String]
        let to: [String]

        init(_ builder: LayoutBuilder = .small(), algorithms: (String, String) = ("fsverity-sha512-12", "fsverity-sha512-12")) throws {
            folder = try TemporaryFolder()
            from = ["--repo", folder.path + "/from"]
            to = ["--repo", folder.path + "/to"]
            try builder.write(to: folder.path + "/layout")
            try Cfsoci.succeed(["init", "--insecure", "--algorithm", algorithms.0, folder.path + "/from"])
            try Cfsoci.succeed(["init", "--insecure", "--algorithm", algorithms.1, folder.path + "/to"])
            try Cfsoci.succeed(from + ["pull", "oci:\(folder.path)/layout", "image"])
        }

        func copy(_ arguments: [String]) throws -> CommandResult {
            try Cfsoci.run(to + ["copy"] + arguments + ["--from", folder.path + "/from"])
        }

        func identity(_ repo: [String], _ name: String) throws -> [JSONValue?] {
            let image = try Cfsoci.succeed(repo + ["inspect", name]).json()
            return [image["manifestDigest"], image["configDigest"], image["imageIds"], image["bootImageIds"]]
        }
    }

    @Test func everythingIsThere() throws {
        let stores = try Stores()
        let result = try stores.copy(["image", "--json"])
        #expect(result.status == 0, "\(result.error)")
        let json = try result.json()
        #expect(json["name"] == "image")
        #expect(json["layersNew"]?.int64 == 2)
        let moved = ["objectsCloned", "objectsLinked", "objectsCopied"].reduce(0) { $0 + (json[$1]?.int64 ?? 0) }
        #expect(moved > 2)
        #expect(try stores.identity(stores.to, "image") == stores.identity(stores.from, "image"))
        let fsck = try Cfsoci.run(stores.to + ["fsck"])
        #expect(fsck.status == 0, "\(fsck.text)")
        for (layer, diffID) in LayoutBuilder.small().layers.map({ ($0, ContentDigest.of($0)) }) {
            #expect(try Cfsoci.succeed(stores.to + ["layer", diffID.description]).output == layer)
        }
        // A second copy transfers nothing, also with another name.
        for name in ["image", "other"] {
            let again = try stores.copy(["image", name, "--json"]).json()
            #expect(again["layersPresent"]?.int64 == 2)
            #expect(again["layersNew"]?.int64 == 0)
            #expect(again["name"]?.string == name)
        }
        // The copy is complete without the other repository.
        _ = try launch("rm", ["-rf", stores.folder.path + "/from"])
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
        try Cfsoci.succeed(stores.to + ["gc"])
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
    }

    /// With another algorithm, objects have other names, so layers are stored again. The result equals that of a pull.
    @Test(arguments: [("fsverity-sha512-12", "fsverity-sha256-12"), ("fsverity-sha256-12", "fsverity-sha512-12")])
    func otherAlgorithms(from: String, to: String) throws {
        let stores = try Stores(algorithms: (from, to))
        let result = try stores.copy(["image"])
        #expect(result.status == 0, "\(result.error)")
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
        let pulled = ["--repo", stores.folder.path + "/pulled"]
        try Cfsoci.succeed(["init", "--insecure", "--algorithm", to, stores.folder.path + "/pulled"])
        try Cfsoci.succeed(pulled + ["pull", "oci:\(stores.folder.path)/layout", "image"])
        #expect(try stores.identity(stores.to, "image") == stores.identity(pulled, "image"))
    }

    @Test func artifactsComeAlong() throws {
        let stores = try Stores()
        let subject = try #require(try Cfsoci.succeed(stores.from + ["inspect", "image"]).json()["manifestDigest"]?.string)
        try writeArtifact(stores.folder.path + "/artifact", subject: try #require(ContentDigest(subject)))
        try Cfsoci.succeed(stores.from + ["pull", "oci:\(stores.folder.path)/artifact", "sbom"])
        try Cfsoci.succeed(stores.from + ["referrers", "add", "image", "sbom"])
        // A cyclic record does not cause an endless loop.
        try Cfsoci.succeed(stores.from + ["referrers", "add", "sbom", "image"])
        let json = try #require(try? stores.copy(["image", "--json"]).json())
        let listed = try Cfsoci.succeed(stores.to + ["referrers", "list", "image"]).lines
        #expect(listed.count == 1)
        #expect(json["referrers"]?.array?.compactMap(\.string) == listed)
        try Cfsoci.succeed(stores.to + ["gc"])
        #expect(try Cfsoci.succeed(stores.to + ["referrers", "list", subject]).lines == listed)
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
        // An artifact alone.
        let other = try stores.copy(["sbom", "alone"])
        #expect(other.status == 0, "\(other.error)")
    }

    /// Damage of the source is reported, and nothing of the image becomes visible.
    @Test(arguments: [true, false]) func damageDoesNotSpread(isSameAlgorithm: Bool) throws {
        let stores = try Stores(algorithms: ("fsverity-sha512-12", isSameAlgorithm ? "fsverity-sha512-12" : "fsverity-sha256-12"))
        let found = try launch("find", [stores.folder.path + "/from/objects", "-type", "f", "-size", "+64k"])
        let object = try #require(found.lines.first)
        var bytes = try readFile(object)
        bytes[33_333] ^= 1
        _ = try launch("chmod", ["u+w", object])
        try writeFile(object, bytes)
        let result = try stores.copy(["image"])
        #expect(result.status == 1)
        #expect(result.error.contains("layer 1 of 2"), "\(result.error)")
        if isSameAlgorithm {
            #expect(result.error.contains(object.split(separator: "/").suffix(3).joined(separator: "/")), "\(result.error)")
        }
        #expect(try Cfsoci.succeed(stores.to + ["images", "--json"]).json()["images"]?.array?.isEmpty == true)
        let names = try launch("find", [stores.folder.path + "/to/streams", stores.folder.path + "/to/images", "-type", "l"])
        #expect(names.text.isEmpty)
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
    }

    /// A layer's stream that belongs to another layer, in a store that another program wrote.
    @Test func aStreamThatIsNotTheLayers() throws {
        let stores = try Stores()
        let streams = stores.folder.path + "/from/streams"
        let layers = LayoutBuilder.small().layers.map { ContentDigest.of($0) }
        // The config's reference counts, not the link. So the objects are exchanged, which a digest check of objects detects. It cannot
        // detect a wrong hint: a hint is not trusted, but no layer is taken by a link either.
        _ = try launch("ln", ["-sfn", try readLink(streams + "/oci-layer-\(layers[1])"), streams + "/oci-layer-\(layers[0])"])
        let result = try stores.copy(["image"])
        #expect(result.status == 0, "\(result.error)")
        #expect(try stores.identity(stores.to, "image") == stores.identity(stores.from, "image"))
        #expect(try Cfsoci.run(stores.to + ["fsck"]).status == 0)
    }

    private func readLink(_ path: String) throws -> String { try #require(try launch("readlink", [path]).lines.first) }

    @Test func whatIsNotThere() throws {
        let stores = try Stores()
        for (arguments, words, status) in [
            (["nobody"], "no image \"nobody\"", Int32(3)), (["image", "@x"], "cannot be a tag", 1),
        ] {
            let result = try stores.copy(arguments)
            #expect(result.status == status)
            #expect(result.error.contains(words), "\(result.error)")
        }
        let nowhere = try Cfsoci.run(["--repo", stores.folder.path + "/new", "copy", "image", "--from", stores.folder.path + "/nowhere"])
        #expect(nowhere.status == 3)
        #expect(access(stores.folder.path + "/new", F_OK) != 0)
        // An image without a tag needs a name for the copy.
        let digest = try #require(try Cfsoci.succeed(stores.from + ["inspect", "image"]).json()["manifestDigest"]?.string)
        try Cfsoci.succeed(stores.from + ["untag", "image"])
        let nameless = try stores.copy([digest])
        #expect(nameless.status == 1)
        #expect(nameless.error.contains("has no tag"), "\(nameless.error)")
        #expect(try stores.copy([digest, "name"]).status == 0)
    }
}
