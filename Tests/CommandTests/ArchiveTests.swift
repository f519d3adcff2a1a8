import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// `save` and `load`: archives of several images, as docker, podman and skopeo write and read them.
struct ArchiveTests {
    private let folder: TemporaryFolder
    private let repo: [String]

    init() throws {
        folder = try TemporaryFolder()
        repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(["init", folder.path + "/repo", "--insecure"])
    }

    /// Two images, the second of which has the layers of the first below its own.
    private func pullTwo(compressor: String? = nil, _ options: [String] = []) throws {
        var small = LayoutBuilder.small()
        var large = LayoutBuilder.large(layers: 1, filesPerLayer: 40)
        large.layers = small.layers + large.layers
        (small.compressor, large.compressor) = (compressor, compressor)
        try small.write(to: folder.path + "/small")
        try large.write(to: folder.path + "/large")
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/small", "docker.io/library/small:1"] + options)
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/large", "quay.io/team/large:2"] + options)
    }

    private func makeOther(_ name: String = "other") throws -> [String] {
        try Cfsoci.succeed(["init", "\(folder.path)/\(name)", "--insecure"])
        return ["--repo", "\(folder.path)/\(name)"]
    }

    /// The names of the tags, with the digests of the configs and the identifiers of the images.
    private func tags(_ repo: [String]) throws -> [String: [String?]] {
        var found: [String: [String?]] = [:]
        for image in try Cfsoci.succeed(repo + ["images", "--json"]).json()["images"]?.array ?? [] {
            found[image["name"]?.string ?? ""] = [image["configDigest"]?.string, image["imageId"]?.string]
        }
        return found
    }

    private func diffIDs(_ archive: String, _ name: String) throws -> [String] {
        let config = try mustShell("skopeo inspect --config --raw 'docker-archive:\(archive):\(name)'")
        return try JSONValue.parse(Array(config.utf8))["rootfs"]?["diff_ids"]?.array?.compactMap(\.string) ?? []
    }

    @Test func pipesFromStoreToStore() throws {
        try pullTwo()
        try Cfsoci.succeed(repo + ["tag", "small:1", "app"])
        let other = try makeOther()
        try mustShell(
            "$CFSOCI --repo $1/repo save small:1 app quay.io/team/large:2 - | $CFSOCI --repo $1/other load -", [folder.path])
        #expect(try tags(other) == tags(repo) && tags(other).count == 3)
        #expect(try Cfsoci.run(other + ["fsck"]).status == 0)
        // Into a file, and compressed: the same images.
        for (index, program) in ["gzip", "zstd"].enumerated() {
            let third = try makeOther("third\(index)")
            try mustShell(
                "$CFSOCI --repo $1/repo save small:1 app quay.io/team/large:2 $1/x.tar; \(program) -q -f $1/x.tar -c > $1/x.packed; "
                    + "$CFSOCI --repo $1/third\(index) load $1/x.packed", [folder.path])
            #expect(try tags(third) == tags(repo))
        }
        let piped = try Cfsoci.succeed(repo + ["save", "small:1", "app", "quay.io/team/large:2", "-"]).output
        #expect(try piped == readFile(folder.path + "/x.tar"))
    }

    /// GNU tar, skopeo and the files of the archive itself agree with what the images are.
    @Test(.enabled("skopeo is not installed") { access("/usr/bin/skopeo", X_OK) == 0 }) func otherProgramsReadIt() throws {
        try pullTwo()
        let archive = folder.path + "/x.tar"
        let report = try Cfsoci.succeed(repo + ["save", "small:1", "quay.io/team/large:2", archive, "--json"]).json()
        let names = try mustShell("tar tf $1", [archive]).split(separator: "\n").map(String.init)
        #expect(Set(names).count == names.count)
        let small = LayoutBuilder.small().layers.map { ContentDigest.of($0) }
        #expect(small.allSatisfy { names.contains("blobs/sha256/" + $0.hex) })
        for name in names where name.hasPrefix("blobs/sha256/") && !name.hasSuffix("/") {
            let digest = try mustShell("tar xOf $1 $2 | sha256sum | cut -c -64", [archive, name]).dropLast()
            #expect("blobs/sha256/" + digest == name)
        }
        #expect(try diffIDs(archive, "docker.io/library/small:1") == small.map(\.description))
        #expect(try diffIDs(archive, "quay.io/team/large:2").count == 3)
        for (position, name) in ["docker.io/library/small:1", "quay.io/team/large:2"].enumerated() {
            try mustShell("skopeo --insecure-policy copy -q docker-archive:$1:$2 dir:$3", [archive, name, folder.path + "/d\(position)"])
            try mustShell("skopeo --insecure-policy copy -q oci-archive:$1:$2 dir:$3", [archive, name, folder.path + "/o\(position)"])
            let manifest = try readFile(folder.path + "/o\(position)/manifest.json")
            #expect(ContentDigest.of(manifest).description == report["images"]?.array?[position]["manifestDigest"]?.string)
        }
        try Cfsoci.succeed(repo + ["save", "small:1", archive, "--format", "oci-archive", "--compression", "zstd"])
        try mustShell(
            "skopeo --insecure-policy copy -q oci-archive:$1 dir:$1.d; zstd -qt < $1.d/$(jq -r '.layers[0].digest[7:]' $1.d/manifest.json)",
            [archive])
        #expect(try !mustShell("tar tf $1", [archive]).contains("manifest.json"))
    }

    /// What skopeo and docker write.
    @Test(.enabled("skopeo is not installed") { access("/usr/bin/skopeo", X_OK) == 0 }) func readsOtherPrograms() throws {
        try pullTwo(compressor: "gzip")
        let expected = try tags(repo)
        try mustShell(
            """
            cd $1
            skopeo --insecure-policy copy -q oci:small docker-archive:small.tar:small:1
            skopeo --insecure-policy copy -q oci:large oci-archive:large.tar:quay.io/team/large:2
            skopeo --insecure-policy copy -q oci:small oci:layout:v1
            skopeo --insecure-policy copy -q oci:large oci:layout:docker.io/library/large:2
            """, [folder.path])
        let other = try makeOther()
        let first = try Cfsoci.succeed(other + ["load", folder.path + "/small.tar", "--json"]).json()
        #expect(first["format"]?.string == "docker-archive")
        let second = try Cfsoci.succeed(other + ["load", folder.path + "/large.tar", "--json"]).json()
        #expect(second["format"]?.string == "oci-archive")
        #expect(try tags(other) == expected)
        #expect(try Cfsoci.succeed(other + ["load", folder.path + "/layout", "--json"]).json()["format"]?.string == "oci")
        #expect(try Set(tags(other).keys) == Set(expected.keys).union(["v1", "docker.io/library/large:2"]))
        #expect(try tags(other)["v1"] == expected["docker.io/library/small:1"])
    }

    /// Docker before version 25: two images that share layers through links, one without a name.
    @Test func olderDockerArchives() throws {
        let layers = LayoutBuilder.small().layers
        try writeDockerArchive(layers, names: #"["small:1","quay.io/other/small"]"#)
        let other = try makeOther()
        let result = try Cfsoci.succeed(other + ["load", folder.path + "/docker.tar", "--json"]).json()
        let images = try #require(result["images"]?.array)
        #expect(images.map { $0["named"]?.bool } == [true, false])
        #expect(images[0]["names"]?.array?.compactMap(\.string) == ["docker.io/library/small:1", "quay.io/other/small:latest"])
        let unnamed = try #require(images[1]["names"]?.array?.first?.string)
        #expect(unnamed == "loaded-" + (images[1]["manifestDigest"]?.string ?? "").dropFirst(7).prefix(12))
        #expect(try Set(tags(other).keys) == ["docker.io/library/small:1", "quay.io/other/small:latest", unnamed])
        #expect(try Cfsoci.succeed(other + ["cat", "quay.io/other/small", "usr/small"]).text == "hello from test layer\n")
        let diffIDs = try Cfsoci.succeed(other + ["inspect", "small:1"]).json()["layers"]?.array?.map { $0["diffId"]?.string }
        #expect(diffIDs == layers.map { ContentDigest.of($0).description })
        #expect(try Cfsoci.run(other + ["fsck"]).status == 0)
    }

    private func writeDockerArchive(_ layers: [[UInt8]], names: String, config: String = "c.json", second: String = "null") throws {
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        func text(_ ids: some StringProtocol) -> [UInt8] {
            Array(#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(ids)]}}"#.utf8)
        }
        let manifest =
            #"[{"Config":"\#(config)","RepoTags":\#(names),"Layers":["a/layer.tar","b/layer.tar"]},"#
            + #"{"Config":"d.json","RepoTags":\#(second),"Layers":["c/layer.tar"]}]"#
        let archive = tarArchive([
            TarMember(name: "a/", mode: 0o755, type: "5"), TarMember(name: "a/layer.tar", content: layers[0]),
            TarMember(name: "b/layer.tar", content: layers[1]), TarMember(name: "c/layer.tar", type: "2", link: "../a/layer.tar"),
            TarMember(name: "c.json", content: text(diffIDs)),
            TarMember(name: "d.json", content: text(diffIDs.prefix { $0 != "," })),
            TarMember(name: "manifest.json", content: Array(manifest.utf8)),
            TarMember(name: "repositories", content: Array("{}".utf8)),
        ])
        try writeFile(folder.path + "/docker.tar", archive)
    }

    /// Each is refused, with a message that names the file, and nothing gets a name.
    @Test func hostileArchives() throws {
        let other = try makeOther()
        let layers = LayoutBuilder.small().layers
        let archive = folder.path + "/docker.tar"
        func refuse(_ fragment: String, _ path: String? = nil) throws {
            let result = try Cfsoci.run(other + ["load", path ?? archive])
            #expect(result.status == 1 && result.error.contains(fragment), "\(result.status) \(result.error)")
            #expect(result.error.contains(path ?? archive))
            #expect(try tags(other).isEmpty)
        }
        try writeDockerArchive(layers, names: #"["small:1"]"#, config: "../../../../etc/passwd")
        try refuse("not a path in the archive")
        try writeDockerArchive(layers, names: #"["small:1"]"#, config: "missing.json")
        try refuse("missing.json")
        // One name for two images.
        try writeDockerArchive(layers, names: #"["small:1"]"#, second: #"["docker.io/library/small:1"]"#)
        try refuse("names several images")
        try writeFile(archive, tarArchive([TarMember(name: "etc/", mode: 0o755, type: "5"), TarMember(name: "etc/passwd", content: [1])]))
        try refuse("neither a docker archive nor an OCI layout")
        try writeFile(archive, [UInt8](repeating: 7, count: 5000))
        try refuse("tar")
        try refuse("oci-layout", folder.path)
        // The last layer is not what the config says: the first image stays without a name, too, because it is this one.
        var wrong = layers
        wrong[1][600] ^= 1
        try writeDockerArchive(layers, names: #"["small:1"]"#)
        var bytes = try readFile(archive)
        let at = try #require(bytes.indices.first { bytes[$0...].starts(with: layers[1].prefix(700)) })
        bytes[at + 600] ^= 1
        try writeFile(archive, bytes)
        let result = try Cfsoci.run(other + ["load", archive])
        #expect(result.status == 1 && result.error.contains("layer 2 of 2"), "\(result.status) \(result.error)")
        #expect(try tags(other).isEmpty)
    }

    /// Entries of one name for several platforms are one image; different images of one name are refused.
    @Test func namesInLayouts() throws {
        let other = try makeOther()
        var builder = LayoutBuilder.small()
        try builder.write(to: folder.path + "/layout")
        let index = folder.path + "/layout/index.json"
        let first = try JSONValue.parse(readFile(index))["manifests"]?.array?.first
        builder.architecture = "arm64"
        try builder.write(to: folder.path + "/layout")
        let second = try JSONValue.parse(readFile(index))["manifests"]?.array?.first
        func write(_ changes: [(entry: JSONValue?, architecture: String?, annotations: JSONValue)]) throws {
            var entries: [JSONValue] = []
            for change in changes {
                var entry = try #require(change.entry)
                if let architecture = change.architecture { entry["platform"] = ["os": "linux", "architecture": .string(architecture)] }
                entry["annotations"] = change.annotations
                entries.append(entry)
            }
            let document: JSONValue = ["schemaVersion": 2, "manifests": .array(entries)]
            try writeFile(index, document.compactBytes)
        }
        let name: JSONValue = ["org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "quay.io/team/app:1"]
        try write([(first, "amd64", name), (second, "arm64", name)])
        for architecture in ["amd64", "arm64"] {
            let loaded = try Cfsoci.succeed(other + ["load", folder.path + "/layout", "--platform", "linux/" + architecture, "--json"])
                .json()
            #expect(loaded["images"]?.array?.count == 1)
            #expect(loaded["images"]?.array?[0]["platform"]?.string == "linux/" + architecture)
            #expect(try Set(tags(other).keys) == ["quay.io/team/app:1"])
        }
        try write([(first, nil, name), (second, nil, name)])
        let refused = try Cfsoci.run(other + ["load", folder.path + "/layout"])
        #expect(refused.status == 1 && refused.error.contains("2 different images with the name \"quay.io/team/app:1\""))
        // As docker lists an image with two names, and one without a name.
        try write([
            (first, nil, name), (first, nil, ["org.opencontainers.image.ref.name": "2", "io.containerd.image.name": "quay.io/team/app:2"]),
            (first, nil, [:]), (second, nil, [:]),
        ])
        let loaded = try Cfsoci.succeed(other + ["load", folder.path + "/layout", "--json"]).json()["images"]?.array
        #expect(loaded?.map { $0["names"]?.array?.count } == [2, 1])
        #expect(loaded?.map { $0["named"]?.bool } == [true, false])
    }

    /// Kept blobs are written as they were pulled, so the manifest and its digest stay.
    @Test func keptBlobsKeepTheDigest() throws {
        try pullTwo(compressor: "gzip", ["--keep-blobs"])
        let report = try Cfsoci.succeed(repo + ["save", "small:1", "quay.io/team/large:2", folder.path + "/x.tar", "--json"]).json()
        for image in report["images"]?.array ?? [] { #expect(image["manifestDigest"] == image["sourceManifestDigest"]) }
        #expect(report["images"]?.array?.count == 2)
        let other = try makeOther()
        try Cfsoci.succeed(other + ["load", folder.path + "/x.tar"])
        #expect(try tags(other) == tags(repo))
    }

    @Test func refusals() throws {
        try pullTwo()
        let archive = folder.path + "/x.tar"
        // All images are looked up before the archive is begun.
        let missing = try Cfsoci.run(repo + ["save", "small:1", "absent", archive])
        #expect(missing.status == 3 && access(archive, F_OK) != 0)
        #expect(try Cfsoci.run(repo + ["save", archive]).status == 64)
        #expect(try Cfsoci.run(repo + ["save", "small:1", "-", "--json"]).status == 64)
        let digest = try #require(try Cfsoci.succeed(repo + ["inspect", "small:1"]).json()["manifestDigest"]?.string)
        let artifact = try writeArtifact(folder.path + "/artifact", subject: try #require(ContentDigest(digest)))
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/artifact", "sbom"])
        let refused = try Cfsoci.run(repo + ["save", "sbom", archive])
        #expect(refused.status == 1 && refused.error.contains("--format oci-archive") && access(archive, F_OK) != 0)
        let saved = try Cfsoci.succeed(repo + ["save", "sbom", archive, "--format", "oci-archive", "--json"]).json()
        #expect(saved["images"]?.array?[0]["manifestDigest"]?.string == artifact.description)
        // A directory that is none of ours, and a reader that goes away.
        #expect(try Cfsoci.run(repo + ["save", "small:1", folder.path]).status == 1)
        let closed = try shell("$CFSOCI --repo $1/repo save quay.io/team/large:2 - | head -c 1000 > /dev/null", [folder.path])
        #expect(closed.status == 1 && closed.error.contains("standard output"))
        #expect(try Cfsoci.run(repo + ["load", folder.path + "/absent"]).status == 1)
        #expect(fileList(folder.path).filter { $0.contains(".tmp-") }.isEmpty)
    }
}
