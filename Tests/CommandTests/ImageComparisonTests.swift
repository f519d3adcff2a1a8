import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsCommands

/// What images are made of, and how they differ: `history`, `diff`, `--format`, the list of mounts, `version`.
@Suite struct ImageComparisonTests {
    // MARK: history

    /// Steps without a layer between steps with one, as docker writes them.
    @Test func history() throws {
        let store = try ContractStore()
        var layout = ContractLayout(layers: LayoutBuilder.small().layers)
        layout.config = #"""
            {"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[DIFFIDS]},"history":[
            {"created":"2024-01-02T03:04:05Z","created_by":"ADD rootfs.tar /","comment":"base"},
            {"created":"2024-01-02T03:04:06Z","created_by":"ENV A=b","empty_layer":true},
            {"created":"2024-01-02T03:04:07.5Z","created_by":"RUN make\n\tinstall\u001b[2J","author":"somebody"}]}
            """#
        let image = try store.pull(layout, as: "t")
        let document = try store.succeed(["history", "t", "--json"]).json()
        #expect(document["name"] == "t" && document["manifestDigest"] == .string(image.manifest))
        let steps = try #require(document["history"]?.array)
        #expect(steps.map { $0["createdBy"]?.string } == ["RUN make\n\tinstall\u{1b}[2J", "ENV A=b", "ADD rootfs.tar /"])
        #expect(steps.map { $0["digest"]?.string } == [image.layerDigests[1], nil, image.layerDigests[0]])
        #expect(steps.map { $0["size"]?.int64 } == [image.layerSizes[1], nil, image.layerSizes[0]])
        #expect(steps.map { $0["emptyLayer"] } == [false, true, false])
        #expect(steps[0]["author"] == "somebody" && steps[2]["comment"] == "base" && steps[1]["comment"] == .null)
        let lines = try store.succeed(["history", "t"]).lines
        #expect(lines.count == 4 && lines[0].hasPrefix("CREATED  ") && lines[1].contains("RUN make") && lines[3].hasSuffix("base"))
        #expect(!hasControls(lines.joined()))
        let fields = try store.succeed(["history", "t", "--format", "created,emptyLayer,comment"]).lines
        #expect(
            fields == ["2024-01-02T03:04:07.5Z\tfalse\t", "2024-01-02T03:04:06Z\ttrue\t", "2024-01-02T03:04:05Z\tfalse\tbase"])
    }

    /// The config's author decides what its history is: whatever it is, all layers are shown, each once.
    @Test(arguments: [
        #""history":[]"#, #""history":null"#, #""history":{}"#, #""history":[1,"x",null,[],{"created":7}]"#,
        #""history":[{"empty_layer":"yes"},{},{},{},{}]"#, #""x":0"#,
    ])
    func oddHistories(member: String) throws {
        let store = try ContractStore()
        var layout = ContractLayout(layers: LayoutBuilder.small().layers)
        layout.config = #"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[DIFFIDS]},\#(member)}"#
        let image = try store.pull(layout, as: "t")
        let document = try store.succeed(["history", "t", "--json"]).json()
        #expect(document["history"]?.array?.compactMap { $0["digest"]?.string } == image.layerDigests.reversed())
        try store.succeed(["history", "t"])
    }

    @Test func imagesWithoutHistory() throws {
        let store = try ContractStore()
        let note = try store.pull(ContractLayout.artifact("x"), as: "note")
        #expect(try store.refuse(["history", "note"]) == "\(note.manifest) is an artifact: it has no root file system")
        mkdir(store.folder.path + "/tree", 0o755)
        try store.succeed(["create-image", store.folder.path + "/tree", "made"])
        #expect(try store.refuse(["history", "made"]) == "made was made from a directory: it has no history")
        #expect(try store.run(["history", "none"]).error.hasPrefix("cfsoci: error: no image \"none\""))
    }

    // MARK: diff

    private func pull(_ store: ContractStore, _ name: String, _ members: [TarMember]) throws {
        _ = try store.pull(LayoutBuilder(layers: [tarArchive(members)]), as: name)
    }

    @Test func differences() throws {
        let store = try ContractStore()
        let (big, other) = ([UInt8](repeating: 7, count: 5000), [UInt8](repeating: 8, count: 5000))
        try pull(
            store, "a",
            [
                TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/same", content: big),
                TarMember(name: "usr/content", content: big), TarMember(name: "usr/small", content: [1]),
                TarMember(name: "usr/mode", mode: 0o644, content: big), TarMember(name: "usr/owner", uid: 1, content: big),
                TarMember(name: "usr/link", type: "2", link: "same"), TarMember(name: "usr/kind/", mode: 0o755, type: "5"),
                TarMember(name: "usr/kind/below", content: [1]), TarMember(name: "usr/gone/", mode: 0o755, type: "5"),
                TarMember(name: "usr/gone/x", content: big),
            ])
        try pull(
            store, "b",
            [
                TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/same", content: big),
                TarMember(name: "usr/content", content: other), TarMember(name: "usr/small", content: [2]),
                TarMember(name: "usr/mode", mode: 0o600, content: big), TarMember(name: "usr/owner", uid: 2, content: big),
                TarMember(name: "usr/link", type: "2", link: "content"), TarMember(name: "usr/kind", content: big),
                TarMember(name: "usr/new/", mode: 0o755, type: "5"), TarMember(name: "usr/new/\u{1b}y", content: other),
            ])
        let shown = try store.succeed(["diff", "a", "b"])
        #expect(
            shown.lines
                == [
                    "C /usr/content (content)", "D /usr/gone", "D /usr/gone/x", "C /usr/kind (type)", "D /usr/kind/below",
                    "C /usr/link (content)", "C /usr/mode (mode)", "A /usr/new", #"A /usr/new/\x1by"#, "C /usr/owner (owner)",
                    "C /usr/small (content)",
                ].map { $0.hasPrefix("C /usr/kind") ? "C /usr/kind (type, mode)" : $0 })
        let document = try store.succeed(["diff", "a", "b", "--json"]).json()
        func paths(_ key: String) -> [String?]? { document[key]?.array?.map { $0["path"]?.string } }
        #expect(paths("added") == ["/usr/new", "/usr/new/\u{1b}y"])
        #expect(paths("removed") == ["/usr/gone", "/usr/gone/x", "/usr/kind/below"])
        #expect(paths("changed") == ["content", "kind", "link", "mode", "owner", "small"].map { "/usr/" + $0 })
        #expect(document["added"]?[1]?["size"] == 5000 && document["added"]?[1]?["type"] == "file")
        #expect(document["changed"]?[1]?["differences"]?.array == ["type", "mode"])
        #expect(
            try store.succeed(["diff", "b", "a"]).lines.filter { $0.hasPrefix("A ") } == [
                "A /usr/gone", "A /usr/gone/x", "A /usr/kind/below",
            ])
        for image in ["a", "b"] { #expect(try store.succeed(["diff", image, image]).text == "") }
        #expect(try store.succeed(["diff", "a", "b", "-q"]).lines.first == "/usr/content")
        #expect(try store.succeed(["diff", "a", "b", "--format", "change,path"]).lines.first == "changed\t/usr/content")
        // Contents are not read: without the objects of the files the result is the same.
        for content in [big, other] {
            let id = try #require(try store.object(with: content))
            unlink(store.path + "/objects/\(id.prefix(2))/\(id.dropFirst(2))")
        }
        #expect(try store.succeed(["diff", "a", "b"]).text == shown.text)
    }

    @Test func timesAndImagesOfDirectories() throws {
        let store = try ContractStore()
        let tree = store.folder.path + "/tree"
        mkdir(tree, 0o755)
        try writeFile(tree + "/file", [1])
        try mustShell(#"touch -d @1000 "$1/file" "$1""#, [tree])
        try store.succeed(["create-image", tree, "one"])
        try mustShell(#"touch -d @2000 "$1/file""#, [tree])
        try store.succeed(["create-image", tree, "two"])
        #expect(try store.succeed(["diff", "one", "two"]).text == "")
        #expect(try store.succeed(["diff", "one", "two", "--times"]).lines == ["C /file (time)"])
        #expect(try store.refuse(["diff", "one", "none"], status: 3).hasPrefix("no image \"none\""))
    }

    // MARK: --format

    @Test func formats() throws {
        let (store, image) = try ContractStore.small()
        #expect(try store.succeed(["images", "--format", "name,manifestDigest,layerCount,variant"]).lines == ["t\t\(image.manifest)\t2\t"])
        #expect(try store.succeed(["images", "-q"]).lines == ["t"])
        // Every member of the documents is a field, and nothing else is.
        let members = try #require(try store.succeed(["images", "--json"]).json()["images"]?[0]?.object?.keys)
        #expect(Set(members) == Set(ImageTable.fields))
        let note = try store.pull(ContractLayout.artifact("x"), as: "note")
        try store.succeed(["referrers", "add", "t", "note"])
        #expect(
            try store.succeed(["referrers", "list", "t", "--format", "digest,artifactType,subject"]).lines
                == ["\(note.manifest)\tapplication/vnd.example.note\t\(image.manifest)"])
        for arguments in [
            ["images", "--format", "nme"], ["images", "--format", ""], ["images", "--format", "name,"],
            ["images", "--format", "name", "--json"],
            ["history", "t", "--format", "x"], ["diff", "t", "t", "--format", "x"], ["mount", "--format", "x"],
            ["referrers", "list", "t", "--format", "x"], ["mount", "t", "/tmp", "--json"],
        ] {
            let result = try store.run(arguments)
            #expect(result.status == 64 && result.output.isEmpty, "\(arguments)")
        }
    }

    // MARK: Mounts

    @Test(.enabled(if: isRoot && access("/dev/fuse", F_OK) == 0, "needs root and FUSE"))
    func listsMounts() throws {
        let (store, _) = try ContractStore.small()
        let target = store.folder.path + "/mount point"
        mkdir(target, 0o755)
        #expect(try store.run(["mount", "--fuse", "t", target]).status == 0)
        defer { _ = try? store.run(["umount", target]) }
        let id = try store.succeed(["compute-id", "t"]).lines[0]
        let all = try #require(try store.succeed(["mount", "--json"]).json()["mounts"]?.array)
        let own = all.filter { $0["directory"] == .string(target) }
        #expect(own.count == 1 && own[0]["names"]?.array == ["t"] && own[0]["imageId"] == .string(id) && own[0]["type"] == "fuse")
        #expect(Set(own[0].object?.keys ?? []) == Set(MountList.fields))
        #expect(try store.succeed(["mount"]).lines.contains { $0.hasPrefix(target + "  fuse") && $0.hasSuffix("  t") })
        #expect(try store.succeed(["mount", "-q"]).lines.contains(target))
        #expect(try store.succeed(["mount", "--format", "directory,imageId"]).lines.contains("\(target)\t\(id)"))
        // Without a repository, mounts are shown all the same.
        #expect(try Cfsoci.succeed(["mount", "-q", "--repo", "/nowhere"]).lines.contains(target))
        try store.succeed(["umount", target])
        #expect(try !store.succeed(["mount", "-q"]).lines.contains(target))
    }

    // MARK: version

    @Test func version() throws {
        let release = try Cfsoci.succeed(["--version"]).lines
        let text = try Cfsoci.succeed(["version"])
        #expect(text.lines[0].split(separator: " ").map(String.init) == ["cfsoci"] + release)
        let document = try Cfsoci.succeed(["version", "--json"]).json()
        #expect(document["version"] == .string(release[0]))
        for name in ["openssl", "curl", "zstd", "zlib", "isa-l", "pcre2"] {
            let version = try #require(document["libraries"]?[name]?.string)
            #expect(version.first?.isNumber == true && version.contains("."), "\(name): \(version)")
        }
        // As the libraries' own programs say.
        if hasProgram("openssl") {
            let said = try launch("openssl", ["version"]).text
            #expect(said.contains(document["libraries"]?["openssl"]?.string ?? "?"), "\(said)")
        }
    }
}
