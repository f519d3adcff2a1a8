import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import Testing

/// The output of the commands for images, line by line and key by key.
@Suite struct ContractImagesTests {
    // MARK: init

    @Test func initPrintsThreeLines() throws {
        let folder = try TemporaryFolder()
        let path = folder.path + "/a/b/repo"
        let made = try Cfsoci.run(["init", path, "--insecure"])
        #expect(made.status == 0)
        #expect(made.error == "")
        #expect(made.lines == ["path       \(path)", "algorithm  fsverity-sha512-12", "verity     not required (insecure)"])
        // Again, with --ensure and without.
        for options in [[], ["--ensure"]] {
            let again = try Cfsoci.run(["init", path, "--insecure"] + options)
            #expect(again.status == 0)
            #expect(again.lines == made.lines)
            #expect(again.error.split(separator: "\n").count == 1 && again.error.contains("exists"))
            #expect(try Cfsoci.run(["init", path, "--insecure", "--quiet"] + options).error == "")
        }
        #expect(
            try Cfsoci.succeed(["init", folder.path + "/small", "--insecure", "--algorithm", "fsverity-sha256-12"]).lines[1]
                == "algorithm  fsverity-sha256-12")
    }

    /// A config may contain any text as architecture; it is escaped for the terminal.
    @Test func imagesShowNoControlCharacters() throws {
        let store = try ContractStore()
        var builder = LayoutBuilder.small()
        builder.architecture = "a\\u001b[31m"
        _ = try store.pull(builder, as: "x")
        let listed = try store.succeed(["images"])
        #expect(listed.lines.count == 2 && listed.lines[1].contains("\\x1b[31m"))
        #expect(!hasControls(listed.lines[1]))
    }

    /// On a file system without fs-verity, which is required by default.
    @Test func initThatFailsLeavesNothing() throws {
        let folder = try TemporaryFolder()
        let made = try Cfsoci.run(["init", folder.path + "/a/b/repo"])
        guard made.status != 0 else { return #expect(made.lines.last == "verity     required") }
        #expect(expectRefusal(made).contains("no fs-verity; --insecure"))
        #expect(try FileDescriptor.open(ByteString(folder.path), [.readOnly, .directory]).entries().isEmpty)
    }

    @Test func initAsJSON() throws {
        let folder = try TemporaryFolder()
        let arguments = [
            "init", "--repo", folder.path + "/repo", "--insecure", "--erofs-version", "2", "--erofs-version", "1", "--json",
        ]
        let made = try Cfsoci.succeed(arguments).json()
        #expect(
            made == [
                "path": .string(folder.path + "/repo"), "algorithm": "fsverity-sha512-12", "verity": false, "erofsVersions": [2, 1],
                "created": true,
            ])
        #expect(try Cfsoci.run(arguments).json()["created"] == false)
    }

    @Test func initRefusesAnotherConfiguration() throws {
        let store = try ContractStore()
        let result = try Cfsoci.run(["init", store.path, "--insecure", "--algorithm", "fsverity-sha256-12"])
        #expect(expectRefusal(result).contains("different configuration"))
        // --ensure accepts any existing repository.
        let kept = try Cfsoci.run(["init", store.path, "--ensure", "--algorithm", "fsverity-sha256-12"])
        #expect(kept.status == 0)
        #expect(kept.lines[1] == "algorithm  fsverity-sha512-12")
    }

    // MARK: pull

    @Test func pullPrintsSixLines() throws {
        let store = try ContractStore()
        let builder = LayoutBuilder.small()
        let digest = try builder.write(to: store.layoutPath("t"))
        let image = try ContractImage(layout: store.layoutPath("t"), manifest: digest, layers: builder.layers)
        let first = try store.succeed(["pull", "oci:" + store.layoutPath("t") + ":latest", "t"])
        let id = try store.succeed(["compute-id", "t"]).lines[0]
        #expect(isObjectID(id))
        // 70,000, 5,000 and 100 bytes are objects, everything else is in line.
        let inline = builder.layers.reduce(0) { $0 + $1.count } - 75_100
        #expect(
            first.lines == [
                "manifest  \(image.manifest)", "config  \(image.config)", "image  \(id)", "tagged  t", "layers  2 new + 0 present",
                "objects  3 new + 0 present; 73.34 KiB stored, \(inlineText(inline)) in line",
            ])
        let again = try store.succeed(["pull", "oci:" + store.layoutPath("t"), "t"])
        #expect(again.lines[..<4] == first.lines[..<4])
        #expect(again.lines[4...] == ["layers  0 new + 2 present", "objects  0 new + 0 present; 0 B stored, 0 B in line"])
        let json = try store.succeed(["pull", "oci:" + store.layoutPath("t"), "t2", "--json"]).json()
        let layers = zip(image.diffIDs, zip(image.layerDigests, image.layerSizes)).map { diffID, blob -> JSONValue in
            [
                "diffId": .string(diffID), "digest": .string(blob.0), "size": .integer(blob.1),
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
            ]
        }
        #expect(
            json == [
                "manifestDigest": .string(image.manifest), "configDigest": .string(image.config), "imageId": .string(id), "name": "t2",
                "layersNew": 0, "layersPresent": 2, "objectsNew": 0, "objectsPresent": 0, "bytesStored": 0, "bytesInline": 0,
                "objectsSigned": 0, "outcome": "pulled", "previousManifestDigest": .null, "platform": "linux/amd64",
                "layers": .array(layers),
                "runtime": [
                    "env": [], "entrypoint": .null, "cmd": .null, "user": .null, "workingDirectory": .null, "exposedPorts": [],
                    "volumes": [],
                    "labels": [:], "stopSignal": .null, "healthcheck": .null,
                ],
            ])
    }

    private func inlineText(_ bytes: Int) -> String {
        let hundredths = Int((Double(bytes) / 1024 * 100).rounded())
        return "\(hundredths / 100)." + (hundredths % 100 < 10 ? "0" : "") + "\(hundredths % 100) KiB"
    }

    @Test func pullMakesTheRepositoryAndSaysSo() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        let loud = try Cfsoci.run(["pull", "oci:" + folder.path + "/layout", "t", "--repo", folder.path + "/x/y"])
        #expect(loud.status == 0)
        #expect(loud.error.hasPrefix("made a repository at \(folder.path)/x/y, with"))
        #expect(loud.error.split(separator: "\n").count == 1)
        let quiet = try Cfsoci.run(["pull", "oci:" + folder.path + "/layout", "t", "--repo", folder.path + "/z", "--quiet"])
        #expect(quiet.status == 0)
        #expect(quiet.error == "")
        #expect(quiet.text == loud.text)
    }

    @Test func pullOfAnArtifactNamesNoImage() throws {
        let store = try ContractStore()
        let manifest = try ContractLayout.artifact("a note").write(to: store.layoutPath("a"))
        let result = try store.succeed(["pull", "oci:" + store.layoutPath("a"), "note"])
        #expect(result.lines.count == 5)
        #expect(result.lines[0] == "manifest  \(manifest)")
        #expect(result.lines[2] == "tagged  note")
        #expect(try store.succeed(["pull", "oci:" + store.layoutPath("a"), "note", "--json"]).json()["imageId"] == .null)
        let listed = try #require(try store.succeed(["images", "--json"]).json()["images"]?.array?.first)
        #expect(listed["isContainer"] == false)
        #expect(listed["imageId"] == .null)
        #expect(try store.succeed(["images"]).lines[1].contains("  artifact  1       "))
    }

    @Test(arguments: [
        ["ostree:x", "not supported"], ["oci:", "nothing follows oci:"], ["oci:/nowhere/at/all", "/nowhere/at/all"],
        ["https://quay.io/x", "docker://"], ["UPPER/case", "UPPER/case"],
    ])
    func pullRefusesReferences(pair: [String]) throws {
        let store = try ContractStore()
        let before = store.files
        let message = try store.refuse(["pull", pair[0], "t"])
        #expect(message.contains(pair[1]), "\(message)")
        #expect(store.files == before)
    }

    @Test(arguments: [
        ["pull", "ostree:x"], ["pull", "UPPER/case"], ["pull", "x", "@y"], ["pull", "x", "--platform", "a/b/c/d"],
        ["create-image", "/nowhere/at/all"], ["create-image", "/dev/null"],
    ])
    func whatCannotBeMakesNoRepository(arguments: [String]) throws {
        let folder = try TemporaryFolder()
        expectRefusal(try Cfsoci.run(arguments + ["--repo", folder.path + "/repo"]))
        #expect(fileList(folder.path) == [])
    }

    @Test func pullChoosesThePlatform() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("both")
        // Two manifests below one index of the layout.
        var entries: [String] = []
        var digests: [String: String] = [:]
        for architecture in ["amd64", "arm64"] {
            var builder = LayoutBuilder(layers: [
                tarArchive([TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/" + architecture)])
            ])
            builder.architecture = architecture
            let digest = try builder.write(to: layout)
            let size = try readFile(layout + "/blobs/sha256/" + digest.hex).count
            digests[architecture] = digest.description
            entries.append(
                #"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\#(digest)","size":\#(size),"#
                    + #""platform":{"os":"linux","architecture":"\#(architecture)"}}"#)
        }
        let index = Array(
            (#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#
                + entries.joined(separator: ",") + "]}").utf8)
        let digest = ContentDigest.of(index)
        try writeFile(layout + "/blobs/sha256/" + digest.hex, index)
        try writeFile(
            layout + "/index.json",
            Array(
                (#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"\#(digest)","#
                    + #""size":\#(index.count),"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#).utf8))
        for architecture in ["amd64", "arm64"] {
            let lines = try store.succeed(["pull", "oci:" + layout, architecture, "--platform", "linux/" + architecture]).lines
            #expect(lines[0] == "manifest  " + (digests[architecture] ?? ""))
            #expect(try store.succeed(["ls", architecture, "/usr"]).lines == [architecture])
        }
        let message = try store.refuse(["pull", "oci:" + layout, "t", "--platform", "linux/riscv64"])
        #expect(message.contains("linux/riscv64") && message.contains("linux/amd64") && message.contains("--platform"), "\(message)")
        #expect(try store.refuse(["pull", "oci:" + layout, "t", "--platform", "a/b/c/d"]).contains("OS/ARCH"))
    }

    // MARK: images, inspect

    @Test func imagesAsTableAndJSON() throws {
        let store = try ContractStore()
        #expect(try store.succeed(["images"]).lines == ["No images"])
        #expect(try store.succeed(["images", "--json"]).text == "{\n  \"images\": []\n}\n")
        var parts = ContractLayout(layers: LayoutBuilder.small().layers)
        parts.config =
            #"{"created":"2024-02-29T01:02:03.5Z","architecture":"arm64","variant":"v8","os":"linux","config":{},"#
            + #""rootfs":{"type":"layers","diff_ids":[DIFFIDS]}}"#
        let image = try store.pull(parts, as: "example.org/name:tag")
        let note = try store.pull(ContractLayout.artifact("x"), as: "note")
        #expect(try store.succeed(["referrers", "add", "example.org/name:tag", "note"]).error == "")
        let size = image.layerSizes.reduce(0, +)
        let json = try store.succeed(["images", "--json"]).json()
        let id = try store.succeed(["compute-id", "example.org/name:tag"]).lines[0]
        #expect(json.object?.keys == ["images"])
        var described = try #require(json["images"]?[0])
        for key in ["pulled", "lastUsed", "diskSize"] { described[key] = nil }
        #expect(
            described == [
                "name": "example.org/name:tag", "manifestDigest": .string(image.manifest), "configDigest": .string(image.config),
                "imageId": .string(id), "isContainer": true, "architecture": "arm64", "os": "linux", "variant": "v8",
                "created": "2024-02-29T01:02:03.5Z", "size": .integer(size), "layerCount": 2, "referrerCount": 1, "index": .null,
                "inUse": [],
            ])
        #expect(json["images"]?[0]?.object?.keys == json["images"]?[1]?.object?.keys)
        #expect(json["images"]?[1]?["name"] == "note")
        #expect(json["images"]?[1]?["manifestDigest"] == .string(note.manifest))
        for command in ["images", "list"] {
            let table = try store.succeed([command]).lines
            #expect(table.count == 3)
            #expect(
                table[0].split(separator: "  ").map { $0.drop { $0 == " " } }
                    == ["NAME", "DIGEST", "ARCH", "LAYERS", "SIZE", "DISK SIZE", "IMAGE ID", "CREATED", "PULLED", "LAST USED", "REFS"])
            #expect(table[0].hasPrefix("NAME                  DIGEST        ARCH      LAYERS  SIZE       DISK SIZE"))
            let digits = image.manifest.dropFirst("sha256:".count).prefix(12)
            #expect(table[1].hasPrefix("example.org/name:tag  \(digits)  arm64     2       "), "\(table[1])")
            #expect(table[1].contains("  \(id.prefix(12))  2024-02-29 01:02  20") && table[1].hasSuffix("  1"))
            #expect(table[2].contains("  -             -                 20") && table[2].hasSuffix("  0"))
        }
        #expect(try store.succeed(["images", "--no-trunc"]).lines[1].contains("  \(image.manifest)  "))
    }

    @Test func inspectShowsTheImage() throws {
        let (store, image) = try ContractStore.small(["--erofs-version", "1", "--erofs-version", "2"])
        #expect(try store.succeed(["inspect", "t", "--manifest"]).output == image.manifestBytes)
        #expect(try store.succeed(["inspect", "t", "--config"]).output == image.configBytes)
        let result = try store.succeed(["inspect", "t"])
        let json = try result.json()
        #expect(
            json.object?.keys == [
                "name", "manifestDigest", "configDigest", "manifest", "config", "imageIds", "bootImageIds", "layers", "referrers", "index",
            ])
        #expect(json["name"] == "t")
        #expect(json["manifestDigest"] == .string(image.manifest))
        #expect(json["configDigest"] == .string(image.config))
        #expect(try json["manifest"] == JSONValue.parse(image.manifestBytes))
        #expect(try json["config"] == JSONValue.parse(image.configBytes))
        for version in [1, 2] {
            let id = try store.succeed(["compute-id", "t", "--erofs-version", "\(version)"]).lines[0]
            #expect(json["imageIds"]?["v\(version)"] == .string(id))
        }
        #expect(json["imageIds"]?.object?.count == 2)
        #expect(json["bootImageIds"]?.object?.isEmpty == true)
        #expect(json["referrers"] == [])
        #expect(json["layers"]?.array?.count == 2)
        for index in 0..<2 {
            #expect(
                json["layers"]?[index] == [
                    "diffId": .string(image.diffIDs[index]), "digest": .string(image.layerDigests[index]),
                    "mediaType": "application/vnd.oci.image.layer.v1.tar", "size": .integer(image.layerSizes[index]),
                ])
        }
        // It prints JSON, with the option or without.
        #expect(try store.succeed(["inspect", "t", "--json"]).output == result.output)
        #expect(try store.run(["inspect", "t", "--manifest", "--config"]).status == 64)
    }

    // MARK: Names

    @Test func imageForms() throws {
        let store = try ContractStore()
        let image = try store.pull(LayoutBuilder.small(), as: "docker.io/library/alpine:latest")
        let digits = String(image.manifest.dropFirst("sha256:".count))
        let configDigits = String(image.config.dropFirst("sha256:".count))
        for form in [
            "docker.io/library/alpine:latest", "alpine", "alpine:latest", "library/alpine", "docker.io/library/alpine", image.manifest,
            "@" + image.manifest, image.config, "@" + image.config, String(digits.prefix(6)), String(digits.prefix(20)), digits,
            String(configDigits.prefix(6)), "sha256:" + digits.prefix(12), "@sha256:" + digits.prefix(12),
        ] {
            let found = try store.run(["inspect", form])
            #expect(found.status == 0, "\(form): \(found.error)")
            #expect(try found.json()["manifestDigest"] == .string(image.manifest), "\(form)")
            #expect(try found.json()["name"] == "docker.io/library/alpine:latest")
        }
        for form in [
            String(digits.prefix(5)), "alpine:edge", "quay.io/library/alpine", "sha256:" + String(repeating: "0", count: 64), "x",
            "@alpine",
        ] {
            let message = try store.refuse(["inspect", form], status: 3)
            #expect(message.contains("no image \"\(form)\"") && message.contains("cfsoci images"), "\(message)")
        }
    }

    /// Two manifests with one config: neither the config's digest nor a prefix of it is unique.
    @Test func ambiguityIsSaid() throws {
        let store = try ContractStore()
        var parts = ContractLayout(layers: LayoutBuilder.small().layers)
        let one = try store.pull(parts, as: "one")
        parts.manifestMembers = #","annotations":{"a":"b"}"#
        let two = try store.pull(parts, as: "two")
        #expect(one.config == two.config && one.manifest != two.manifest)
        for form in [one.config, String(one.config.dropFirst("sha256:".count).prefix(12))] {
            let message = try store.refuse(["inspect", form])
            #expect(message.contains(one.manifest) && message.contains(two.manifest), "\(message)")
        }
        #expect(try store.succeed(["inspect", "two"]).json()["manifestDigest"] == .string(two.manifest))
    }

    @Test func tagUntagRemove() throws {
        let (store, image) = try ContractStore.small()
        #expect(try store.succeed(["tag", "t", "other/name:1"]).text == "Tagged \(image.manifest) as other/name:1\n")
        #expect(try store.succeed(["tag", image.manifest, "third"]).text == "Tagged \(image.manifest) as third\n")
        #expect(try names(store) == ["other/name:1", "t", "third"])
        #expect(try store.succeed(["untag", "third"]).text == "Removed tag third\n")
        #expect(try store.refuse(["untag", "third"], status: 3).contains("no image \"third\""))
        // A tag removes only that tag, a digest all of its tags. A wrong name is an error but does not prevent removing the others.
        _ = try store.refuse(["rm", "nothing"], status: 3)
        #expect(try names(store) == ["other/name:1", "t"])
        let partly = try store.run(["rm", "nothing", "t", "neither"])
        #expect(partly.status == 1 && partly.text == "Removed tag t\n")
        #expect(partly.error.contains("no image \"nothing\"") && partly.error.contains("no image \"neither\""))
        #expect(try names(store) == ["other/name:1"])
        try store.succeed(["tag", image.manifest, "docker.io/library/short:latest"])
        #expect(try store.succeed(["rm", "short"]).text == "Removed tag docker.io/library/short:latest\n")
        try store.succeed(["tag", image.manifest, "second"])
        #expect(try store.succeed(["rm", image.manifest]).lines == ["Removed tag other/name:1", "Removed tag second"])
        #expect(try names(store) == [])
        #expect(try store.refuse(["rm", image.manifest]).contains("gc"))
        // Named twice it is removed once.
        try store.succeed(["tag", image.manifest, "u"])
        #expect(try store.succeed(["rm", "u", "u"]).text == "Removed tag u\n")
    }

    @Test(arguments: ["@x", "", ".", "..", String(repeating: "x", count: 256), "a\u{1b}[31m", "a\nb"])
    func tagsThatCannotBe(name: String) throws {
        let (store, image) = try ContractStore.small()
        #expect(try store.refuse(["tag", image.manifest, name]).contains("cannot be a tag"))
        #expect(try store.refuse(["pull", "oci:" + store.layoutPath("t"), name]).contains("cannot be a tag"))
        #expect(try names(store) == ["t"])
    }

    @Test func namesBeyondASCII() throws {
        let (store, image) = try ContractStore.small()
        let name = "l\u{e4}ufer/\u{65e5}\u{672c}"
        #expect(try store.succeed(["tag", "t", name]).text == "Tagged \(image.manifest) as \(name)\n")
        #expect(try names(store) == [name, "t"])
        #expect(try store.succeed(["inspect", name]).json()["manifestDigest"] == .string(image.manifest))
        #expect(try store.succeed(["images"]).text.contains("\n\(name)  "))
        #expect(try store.succeed(["rm", name, "--json"]).json() == ["removed": [.string(name)]])
        #expect(
            try store.succeed(["tag", "t", "u", "--json"]).json() == [
                "manifestDigest": .string(image.manifest), "indexDigest": .null, "name": "u",
            ])
        #expect(try store.succeed(["untag", "u", "--json"]).json() == ["removed": ["u"]])
        // Bytes that are not text are escaped.
        let bytes = try launch("sh", ["-c", #"exec "$0" tag t "$(printf 'x\377')" --repo "$1""#, Cfsoci.binary, store.path])
        #expect(bytes.text == "Tagged \(image.manifest) as x\\xff\n")
        #expect(fileList(store.path + "/streams/refs/oci").count == 2)
    }

    @Test func tagsMove() throws {
        let (store, _) = try ContractStore.small()
        let other = try store.pull(ContractLayout(layers: [LayoutBuilder.small().layers[0]]), as: "o")
        #expect(try store.succeed(["tag", "o", "t"]).text == "Tagged \(other.manifest) as t\n")
        #expect(try store.succeed(["inspect", "t"]).json()["manifestDigest"] == .string(other.manifest))
    }

    private func names(_ store: ContractStore) throws -> [String] {
        (try store.succeed(["images", "--json"]).json()["images"]?.array ?? []).compactMap { $0["name"]?.string }
    }

    // MARK: referrers

    @Test func referrers() throws {
        let (store, image) = try ContractStore.small()
        let note = try store.pull(ContractLayout.artifact("a note"), as: "note")
        #expect(try store.succeed(["referrers", "list", "t"]).text == "")
        #expect(
            try store.succeed(["referrers", "list", "t", "--json"]).json()
                == ["subject": .string(image.manifest), "referrers": []])
        #expect(try store.succeed(["referrers", "add", "t", "note"]).text == "Added \(note.manifest) to \(image.manifest)\n")
        #expect(try store.succeed(["referrers", "list", "t"]).lines == [note.manifest])
        #expect(try store.succeed(["referrers", "list", "t", "--json"]).json()["referrers"] == [.string(note.manifest)])
        #expect(try store.succeed(["inspect", "t"]).json()["referrers"] == [.string(note.manifest)])
        // It keeps the artifact.
        try store.succeed(["untag", "note"])
        try store.succeed(["gc"])
        #expect(try store.succeed(["inspect", note.manifest, "--manifest"]).output == note.manifestBytes)
        #expect(
            try store.succeed(["referrers", "remove", "t", note.manifest]).text == "Removed \(note.manifest) from \(image.manifest)\n")
        #expect(try store.refuse(["referrers", "remove", "t", note.manifest]).contains("not recorded"))
        try store.succeed(["gc"])
        _ = try store.refuse(["inspect", note.manifest], status: 3)
        _ = try store.refuse(["referrers", "add", "t", "nothing"], status: 3)
        _ = try store.refuse(["referrers", "list", "nothing"], status: 3)
    }
}
