import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsOCI

/// The program in the documentation works as documented.
struct ExampleTests {
    static let source = checkout + "/Tests/ComposefsOCITests/Example.swift"
    static let article = checkout + "/Sources/ComposefsOCI/ComposefsOCI.docc/PullingAndMounting.md"

    /// Every block of Swift in every article is this program or a part of `Snippets`, and every part appears in an article.
    @Test func articlesShowWhatIsCompiled() throws {
        let program = try readText(Self.source)
        let snippets = try Self.snippets()
        #expect(snippets.count > 9)
        var shown: Set<String> = []
        let folder = checkout + "/Sources/ComposefsOCI/ComposefsOCI.docc"
        for entry in try FileDescriptor.open(folder, [.readOnly, .directory]).entries() where entry.name.hasSuffix(".md") {
            let text = try readText(folder + "/" + entry.name)
            let blocks = text.components(between: "```swift\n", "```\n")
            // No block has another spelling of the marker.
            #expect(text.components(separatedByLinesBeginning: "```swift") == blocks.count, "\(entry.name)")
            for block in blocks where block != program {
                let isCompiled = snippets.contains(block)
                #expect(isCompiled, "\(entry.name): \(block)")
                shown.insert(block)
            }
        }
        #expect(snippets.subtracting(shown) == [])
    }

    /// The parts, without their common indentation.
    static func snippets() throws -> Set<String> {
        var found: Set<String> = []
        var lines: [Substring]?
        for line in try readText(checkout + "/Tests/ComposefsOCITests/Snippets.swift").split(
            separator: "\n", omittingEmptySubsequences: false)
        {
            let text = line.drop { $0 == " " }
            if text.hasPrefix("// snippet: ") {
                lines = []
            } else if text == "// end", let open = lines {
                let indent = open.filter { !$0.isEmpty }.map { $0.prefix { $0 == " " }.count }.min() ?? 0
                found.insert(open.map { $0.dropFirst(indent) + "\n" }.joined())
                lines = nil
            } else {
                lines?.append(line)
            }
        }
        return found
    }

    @Test func articleShowsThisProgram() throws {
        let program = try readText(Self.source)
        let blocks = try readText(Self.article).components(between: "```swift\n", "```\n")
        #expect(blocks.first == program)
        let lines = program.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
        #expect(lines.count < 40)
        #expect(lines.allSatisfy { $0.utf8.count <= 140 })
    }

    @Test func pullsAndInspects() async throws {
        let folder = try Folder()
        let repository = folder.path + "/some/where/repository"
        var said: [String] = []
        try await example([quickstart, repository.description]) { said.append($0) }
        #expect(said.prefix(2).sorted() == ["layer 1 is verified and stored", "layer 2 is verified and stored"])
        #expect(
            said.dropFirst(2) == [
                "\(quickstart) is sha256:\(Quickstart.manifest)", #"made for linux/amd64, runs ["/usr/bin/hello"]"#,
                "/bin", "/etc", "/home", "/run", "/tmp", "/usr", "/var",
            ])
        let store = try Store.open(repository)
        #expect(try store.images.tags().map(\.name) == [ByteString(quickstart)])
        #expect(try await store.check(nil, ImageCheckOptions(deep: true)).isClean)
    }

    @Test func mounts() async throws {
        try requireMounting()
        let folder = try Folder()
        let target = try folder.makeDirectory("target")
        defer { try? unmount(target, lazily: true) }
        var said: [String] = []
        try await example([quickstart, folder.path.description + "/repository", target.description]) { said.append($0) }
        #expect(said.last == "mounted at \(target)")
        #expect(try readText(target + "/etc/hostname") == "example-two\n")
        #expect(try readText(target + "/usr/bin/hello").hasPrefix("#!/bin/sh\n"))
        // Larger than inline content, so it comes from an object.
        #expect(try readText(target + "/usr/lib/table.txt").utf8.count > 64)
        let motd = try FileDescriptor.open(target, [.readOnly, .directory]).statusIfPresent(at: "etc/motd")
        #expect(motd == nil)
        try unmount(target)
    }

    @Test func tellsItsUsage() async throws {
        var said: [String] = []
        try await example([]) { said.append($0) }
        #expect(said == ["usage: example REFERENCE REPOSITORY [DIRECTORY]"])
    }
}

/// Runs the parts of the articles.
struct SnippetTests {
    private func run(_ body: (_ store: Store, _ registry: Registry, _ say: (String) -> Void) async throws -> Void) async throws -> [String]
    {
        let folder = try Folder()
        let store = try folder.makeStore()
        var said: [String] = []
        try await body(store, Registry(platform: try Platform(parsing: "linux/amd64"), auth: .anonymous, store: store)) { said.append($0) }
        return said
    }

    @Test func logging() async throws {
        let folder = try Folder()
        let pulled = try await Snippets.logging(path: folder.path + "/repository", reference: quickstart)
        #expect(pulled.manifestDigest.hex == Quickstart.manifest)
    }

    @Test func registry() async throws {
        let folder = try Folder()
        var said: [String] = []
        try await Snippets.registry(path: folder.path + "/a/repository", reference: quickstart) { said.append($0) }
        #expect(said.count == 4)
        #expect(said.first?.hasPrefix("sha256:\(Quickstart.diffIDs[0]), 19597 bytes, application/vnd.oci.image.layer.v1.tar") == true)
        #expect(said[2].hasPrefix(#"runs ["/usr/bin/hello"] in /"#))
    }

    @Test func disks() async throws {
        let folder = try Folder()
        let path = folder.path + "/repository"
        _ = try await Store.openOrCreate(path).store.pull(quickstart, PullOptions(name: "example"))
        var said: [String] = []
        try Snippets.disks(path: path, at: folder.path) { said.append($0) }
        try Snippets.upper(folder.path + "/state") { said.append($0) }
        #expect(said.first?.hasPrefix("\(folder.path)/example.disk/disk.vmdk, ") == true && said.last == "\(8 << 30) bytes")
        let store = try Store.open(path)
        let image = try store.images.open("example").image
        try Snippets.snapshots(store, image, folder.path + "/state", at: folder.path) { said.append($0) }
        #expect(said.last?.hasSuffix(" new bytes") == true && said.last?.hasPrefix("sha256:") == true)
        let again = try FileDescriptor.open(folder.path + "/again.ext4", .readOnly).status()
        #expect(again.size == 8 << 30 && again.blocks < 100_000)
        let layers = Quickstart.diffIDs.enumerated().map { "\(folder.path)/example.disk/000\($0)-\($1).erofs" }
        #expect(said[2...3].map { String($0.prefix { $0 != "," }) } == layers)
    }

    @Test func keptDisks() async throws {
        let said = try await run { store, _, say in
            _ = try await store.pull(quickstart, PullOptions(name: "example"))
            try Snippets.keptDisks(store, say: say)
            try Snippets.keptDisks(store, say: say)
        }
        #expect(said.count == 6 && said[0].contains("/repository/objects/") && said[0] == said[3])
        #expect(said[1].hasPrefix("vmdk-1-oci, ") && said[2] == "1 disks removed" && said.suffix(3) == said.prefix(3))
    }

    @Test func micro() async throws {
        let folder = try Folder()
        var said: [String] = []
        let layers = folder.path.description + "/layers"
        try await Snippets.micro(path: folder.path.description + "/a/repository", reference: quickstart, layers: layers) { said.append($0) }
        #expect(said.count == 6 && said[2] == #"runs [] with ["PATH=/usr/bin:/bin"]"#)
        #expect(said.prefix(2) == Quickstart.diffIDs.map { "sha256:\($0)" }[...])
        #expect(said[3...4] == ["0000-\(Quickstart.diffIDs[0])", "0001-\(Quickstart.diffIDs[1])"].map { "\(layers)/\($0).erofs" }[...])
        #expect(said[5].contains("VERSION_ID=1"))
    }

    @Test func files() async throws {
        let folder = try Folder()
        let said = try await run { store, _, say in
            _ = try await store.pull(quickstart, PullOptions(name: "image"))
            try await Snippets.files(store, name: "image", folder: folder.path.description + "/root", say: say)
        }
        #expect(said.prefix(2) == ["no record, 19597 bytes", "no record, 1063 bytes"])
        #expect(said.contains("/etc/hostname is a file, 12 bytes") && !said.contains { $0.contains("motd") })
        #expect(said.suffix(2) == ["/usr/bin/hello of user 0", "example-two\n"])
        #expect(try readText(folder.path + "/root/etc/hostname") == "example-two\n")
    }

    @Test func policy() async throws {
        let said = try await run { store, registry, say in
            try await Snippets.policy(registry, reference: quickstart, say: say)
            #expect(try store.images.tags().map(\.name) == ["base"])
            _ = try await store.pull("oci:\(checkout)/Tests/Fixtures/corpus/media/artifact", PullOptions(name: "base"))
            try await Snippets.policy(registry, reference: quickstart, say: say)
        }
        #expect(said.count == 1 && said.first?.hasPrefix("base moved from sha256:") == true)
    }

    @Test func progress() async throws {
        let said = try await run { _, registry, say in try await Snippets.progress(registry, reference: quickstart, say: say) }
        #expect(said.first == "2 layers, 20660 bytes" && said.last == "\(quickstart) is sha256:\(Quickstart.manifest)")
        #expect(said.count { $0.hasSuffix(" is stored") } == 2)
        #expect(said.contains("layer 0: 19597 of 19597"))
    }

    @Test func stored() async throws {
        let said = try await run { _, registry, say in
            // No registry is asked, and none is running.
            try await Snippets.stored(registry, reference: "localhost:1/absent", say: say)
            try await Snippets.stored(registry, reference: quickstart, say: say)
        }
        #expect(said == ["not here", "\(quickstart) is here"])
    }

    @Test func platforms() async throws {
        let said = try await run { _, registry, say in try await Snippets.platforms(registry, reference: quickstart, say: say) }
        #expect(said == ["\(quickstart) is for linux/amd64"])
    }

    @Test func errors() async throws {
        let said = try await run { _, registry, say in
            try await Snippets.errors(registry, reference: "oci:/nowhere", say: say)
            var offline = registry
            offline.options.retry.limit = 0
            offline.options.retry.unreachableLimit = 0
            try await Snippets.errors(offline, reference: "localhost:1/absent", say: say)
        }
        #expect(said.count == 2 && said[0].contains("/nowhere"))
    }

    @Test func askingAndOrder() async throws {
        _ = try await run { store, _, _ in
            _ = try await store.pull(quickstart, PullOptions(name: "docker.io/library/alpine:latest"))
            try Snippets.asking(store)
            #expect(try await Snippets.order(store) > 0)
            #expect(try store.images.tags().isEmpty)
        }
    }

    @Test func authenticationKeepsItsSecrets() {
        let all: [RegistryAuth] = [
            .stored, .anonymous, .basic(username: "me", password: "hush"), .identityToken("hush"), .registryToken("hush"), .file("/x"),
        ]
        for auth in all {
            var text = "\(auth) \(String(reflecting: auth))"
            dump(auth, to: &text)
            #expect(!text.contains("hush"))
            var options = RegistryOptions()
            auth.apply(to: &options)
            #expect(options.usesStoredCredentials == (auth != .anonymous))
            #expect((options.authFile == "/x") == (auth == .file("/x")))
            #expect((options.credentials == nil) == ([.stored, .anonymous, .file("/x")].contains(auth)))
        }
    }
}

extension String {
    func components(separatedByLinesBeginning mark: String) -> Int { split(separator: "\n").count { $0.hasPrefix(mark) } }

    /// The text between each pair of marks; each mark begins a line.
    func components(between begin: String, _ end: String) -> [String] {
        var found: [String] = []
        var lines: [Substring]?
        for line in split(separator: "\n", omittingEmptySubsequences: false) {
            if let open = lines {
                if line + "\n" == end {
                    found.append(open.map { $0 + "\n" }.joined())
                    lines = nil
                } else {
                    lines = open + [line]
                }
            } else if line + "\n" == begin {
                lines = []
            }
        }
        return found
    }
}
