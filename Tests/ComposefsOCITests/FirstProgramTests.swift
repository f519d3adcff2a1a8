import ComposefsOCI
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#endif

/// A path of another library: what `FilePath` of swift-system is to a program.
private struct PlatformPath: ByteStringConvertible {
    var characters: [CChar]

    init(_ text: String) { characters = Array(text.utf8CString) }

    var byteString: ByteString { characters.withUnsafeBufferPointer { $0.baseAddress.map { ByteString(cString: $0) } ?? ByteString() } }
}

/// What a first program does, written as a newcomer writes it: with strings, with values instead of text, and with coders.
struct FirstProgramTests {
    /// A store with the fixture's image as `image`.
    private func filled() async throws -> (folder: Folder, store: Store) {
        let folder = try Folder()
        let store = try folder.makeStore()
        _ = try await store.pull(quickstart, PullOptions(policy: .ifMissing, name: "image"))
        return (folder, store)
    }

    @Test func takesStringsAndOtherPaths() async throws {
        let folder = try Folder()
        let path: String = folder.path.description + "/repository"
        let store = try Store.openOrCreate(path).store
        let name: String = "image"
        _ = try await store.pull(quickstart, PullOptions(policy: .always, name: name))
        #expect(try await Store.open(path).get(name).reference == "image")
        #expect(try await Store.open(path[...]).get(name[...]).reference == "image")
        #expect(try await Store.open(Array(path.utf8)).inspect(Array(name.utf8)).layers.count == 2)
        #expect(try Store.open(PlatformPath(path)).image(PlatformPath(name)).manifestDigest.hex == Quickstart.manifest)
        #expect(try await store.check(name).isClean)
        try store.tag(name, as: "other")
        try store.untag("other")
        #expect(try await store.remove(name) == ["image"])
        let absent = folder.path.description + "/absent"
        #expect(throws: RepositoryError.self) { try Store.open(absent) }
    }

    @Test func optionsHaveThePolicy() throws {
        #expect(PullOptions().policy == .missing)
        #expect(PullOptions(policy: .newer).policy == .newer)
        let named = PullOptions(platform: .hostLinux, policy: .never, name: "x", jobs: 3)
        #expect(named.policy == .never && named.name == "x" && named.jobs == 3 && named.platform == .host)
        #expect(PullOptions(policy: .always, name: nil).name == nil)
        #expect(Platform.hostLinux.os == "linux" && PullPolicy.ifMissing == .missing)
    }

    @Test func pullsValues() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let reference = try ImageReference(quickstart)
        #expect(reference.description == quickstart)
        let pulled = try await store.pull(reference, PullOptions(name: "value"))
        #expect(pulled.manifestDigest.hex == Quickstart.manifest)
        let layout = ImageReference.layout(ImageLocation("\(checkout)/Tests/Fixtures/quickstart-layout:example"))
        let running = store.startPull(layout)
        let name = try await running.result.name
        // The default tag is the same as for text.
        #expect(name == ByteString(quickstart))
        let registry = Registry(platform: .hostLinux, auth: .anonymous, store: store)
        #expect(try await registry.stored(try RegistryReference(parsing: "localhost:1/absent")) == nil)
        for text in ["alpine", "oci:/a:b", "oci-archive:/a:b", "docker-archive:/a:b", "dir:/a", "containers-storage:x"] {
            let parsed = try ImageReference(text)
            #expect(parsed.description == (text == "alpine" ? "docker://docker.io/library/alpine:latest" : text))
            #expect(try ImageReference(parsed.description) == parsed)
        }
        #expect(throws: OCIError.self) { try ImageReference("sif:/x") }
        // A repair finds the source again, as it does after a pull of text.
        #expect(try store.images.recordedSources() == [ByteString(quickstart)])
    }

    @Test func readsFiles() async throws {
        let (folder, store) = try await filled()
        defer { withExtendedLifetime(folder) {} }
        #expect(String(decoding: try store.readFile("/etc/hostname", in: "image"), as: UTF8.self) == "example-two\n")
        // An object, in parts; and all of it.
        var parts: [UInt8] = []
        try store.readFile("/usr/lib/table.txt", in: "image") { parts += $0 }
        let whole = try store.readFile("usr/lib/../lib/table.txt", in: "image")
        #expect(whole == parts && whole.count > 64)
        let refused = #expect(throws: ExtractionError.self) { try store.readFile("/usr/lib/table.txt", in: "image", limit: 10) }
        #expect(refused == .tooLarge("/usr/lib/table.txt", size: UInt64(whole.count), limit: 10))
        #expect(throws: ExtractionError.isDirectory("/etc")) { try store.readFile("/etc", in: "image") }
        #expect(throws: ExtractionError.noSuchPath("/no/where")) { try store.readFile("/no/where", in: "image") }
        #expect(throws: ImageStoreError.self) { try store.readFile("/etc/hostname", in: "absent") }
    }

    @Test func looksAtPaths() async throws {
        let (folder, store) = try await filled()
        defer { withExtendedLifetime(folder) {} }
        let file = try store.resolve("/usr/lib/table.txt", in: "image")
        #expect(file.kind == .file && file.path == "/usr/lib/table.txt" && file.object != nil && file.size > 64 && file.links == 1)
        let directory = try store.resolve("usr//lib/.", in: "image")
        #expect(directory.kind == .directory && directory.path == "/usr/lib" && directory.permissions == 0o755)
        #expect(try store.resolve("/", in: "image").path == "/")
        #expect(try store.resolve("/../..", in: "image").path == "/")
        let root = try store.listFiles(in: "/", of: "image")
        #expect(root.map(\.path) == ["/bin", "/etc", "/home", "/run", "/tmp", "/usr", "/var"])
        #expect(root.allSatisfy { $0.kind == .directory && $0.uid == 0 && $0.modified.seconds == 1_700_000_000 || $0.path == "/run" })
        // The link itself, and what it leads to, which has two names.
        let link = try store.resolve("/usr/bin/hi", in: "image", followingLast: false)
        #expect(link.kind == .symlink && link.target == "hello" && link.path == "/usr/bin/hi" && link.object == nil)
        let program = try store.resolve("/usr/bin/hi", in: "image")
        #expect(program.kind == .file && program.path == "/usr/bin/hello" && program.permissions == 0o755 && program.links == 2)
        #expect(program.size == 87 && program.target == nil)
        let bin = try store.listFiles(in: "/usr/bin/", of: "image")
        #expect(bin.map(\.path) == ["/usr/bin/greet", "/usr/bin/hello", "/usr/bin/hi"] && bin.contains(link) && bin.contains(program))
        #expect(throws: ExtractionError.isNotDirectory("/etc/hostname")) { try store.listFiles(in: "/etc/hostname", of: "image") }
    }

    @Test func tellsHistory() async throws {
        let (folder, store) = try await filled()
        defer { withExtendedLifetime(folder) {} }
        let history = try store.history("image")
        // As Tests/Fixtures/make-quickstart-layout writes them.
        #expect(history.compactMap(\.layer?.digest.hex) == Quickstart.blobs)
        let artifact = "oci:\(checkout)/Tests/Fixtures/corpus/media/artifact"
        _ = try await store.pull(artifact, PullOptions(name: "artifact"))
        #expect(throws: ImageStoreError.self) { try store.history("artifact") }
    }

    @Test func makesDisksAndDirectories() async throws {
        let (folder, store) = try await filled()
        let path = folder.path.description
        let disk = try await store.makeDisk(.layered, of: "image", at: path + "/layers")
        let names = Quickstart.diffIDs.enumerated().map { "\(path)/layers/000\($0)-\($1).erofs" }
        #expect(disk.layerPaths.map(\.description) == names)
        #expect(disk.layerPaths.allSatisfy { FileManager.default.fileExists(atPath: $0.description) })
        #expect(try await store.makeDisk(.single, of: "image", at: path + "/one").layerPaths.isEmpty)
        var options = UnpackOptions()
        options.ownedByUser = true
        let report = try await store.unpack("image", into: path + "/root", options)
        #expect(report.files > 3)
        #expect(try readText(folder.path + "/root/etc/hostname") == "example-two\n")
        var archive: [UInt8] = []
        try store.writeTar(of: "image") { archive += $0 }
        #expect(archive.count > 10_240 && archive.count.isMultiple(of: 512))
    }

    @Test func resultsSurviveCoding() async throws {
        let (folder, store) = try await filled()
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        func again<Value: Codable>(_ value: Value) throws -> (value: Value, text: String) {
            let data = try encoder.encode(value)
            return (try JSONDecoder().decode(Value.self, from: data), String(decoding: data, as: UTF8.self))
        }
        var options = PullOptions(name: "image")
        options.disks = [DiskRequest(.layered), DiskRequest(.flat, size: 16 << 20)]
        let pulled = try await store.pull(quickstart, options)
        #expect(pulled.disks.count == 2 && pulled.disks[0].layerPaths.count == 2 && pulled.disks[1].layerPaths.isEmpty)
        #expect(try await store.keepDisk(DiskRequest(.layered), of: "image") == pulled.disks[0])
        let (copy, text) = try again(pulled)
        #expect(copy.manifestDigest == pulled.manifestDigest && copy.layers == pulled.layers && copy.imageIDs == pulled.imageIDs)
        #expect(copy.disks == pulled.disks)
        #expect(copy.outcome == pulled.outcome && copy.name == "image" && copy.config == pulled.config && copy.runtime == pulled.runtime)
        let id = try #require(pulled.imageID)
        #expect(text.contains(#""imageIDs":{"v1":"\#(id.hex)"}"#) && text.contains(#""manifestDigest":"sha256:\#(Quickstart.manifest)""#))

        let image = try store.image("image")
        let manifest = try again(image.manifest).value
        #expect(manifest == image.manifest && ContentDigest.of(manifest.bytes) == image.manifestDigest)
        let config = try #require(image.config)
        #expect(ContentDigest.of(try again(config).value.bytes) == image.configDigest)
        #expect(try again(config.runtime).value == config.runtime)
        let windows = Platform(os: "windows", architecture: "amd64", osVersion: "10.0.1", osFeatures: ["win32k"])
        let (platform, form) = try again(windows)
        #expect(platform == windows)
        #expect(form == #"{"architecture":"amd64","os":"windows","os.features":["win32k"],"os.version":"10.0.1"}"#)
        #expect(try again(store.history("image")).value == store.history("image"))
        #expect(try again(store.listFiles(in: "/", of: "image")).value == store.listFiles(in: "/", of: "image"))
        let disk = try await store.makeDisk(.layered, of: "image", at: folder.path + "/layers")
        #expect(try again(disk).value == disk)
        #expect(try again(PullPolicy.never).text == #""never""#)
    }

    /// A descriptor with embedded data as in a document, and one whose data is not what its digest describes.
    @Test func descriptorsAreCheckedWhenTheyAreDecoded() throws {
        let good =
            #"{"mediaType":"text/plain","digest":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","size":3,"data":"YWJj"}"#
        func decode(_ text: String) throws -> Descriptor { try JSONDecoder().decode(Descriptor.self, from: Data(text.utf8)) }
        let descriptor = try decode(good)
        #expect(descriptor.data == Array("abc".utf8) && descriptor.size == 3)
        for (part, other) in [
            ("YWJj", "YWJk"), (#""size":3"#, #""size":4"#), ("sha256:ba", "sha256:bb"), ("sha256:", "md5:"), ("YWJj", "?"),
        ] {
            #expect(throws: DecodingError.self) { try decode(good.replacing(part, with: other)) }
        }
        #expect(throws: DecodingError.self) { try decode(good.replacing(#""size":3,"data":"YWJj""#, with: #""size":9223372036854775808"#)) }
    }

    @Test func valuesOfJSONSurviveCoding() throws {
        let text = #"[null,true,-7,18446744073709551615,0.5,"x",{"a":[],"b":{"c":false}}]"#
        let value = try JSONValue.parse(Array(text.utf8))
        let decoded = try JSONDecoder().decode(JSONValue.self, from: Data(text.utf8))
        #expect(decoded == value)
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        #expect(String(decoding: try encoder.encode(value), as: UTF8.self) == text)
    }
}
