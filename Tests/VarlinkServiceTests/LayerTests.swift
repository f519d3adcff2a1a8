import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsRepository
import ComposefsTestSupport
import ComposefsVarlink
import Testing

@testable import ComposefsVarlinkService

/// Layers as streams with passed descriptors: out of one repository and into another, with diff IDs from the corpus's config.
@Suite struct LayerTests {
    private static let oci = "org.composefs.Oci."

    /// The diff IDs of the image, from its config.
    private func diffIDs(_ client: Client, _ handle: UInt64) throws -> [String] {
        let found = try client.must(Self.oci + "Inspect", ["handle": JSONValue(handle), "image": "image"])
        let config = try JSONValue.parse(Array(try #require(found["config"]?.string).utf8))
        return try #require(config["rootfs"]?["diff_ids"]?.array).compactMap(\.string)
    }

    private func get(_ client: Client, _ handle: UInt64, _ diffID: String, all: Bool = true) throws -> (
        reply: VarlinkReply, descriptors: [SharedDescriptor]
    ) {
        let parameters: JSONValue = [
            "handle": JSONValue(handle),
            "params": ["diff_id": .string(diffID), "storage": nil, "consumer_has_cap_dac_override": .bool(all)],
        ]
        try client.send(Client.message(Self.oci + "GetLayer", parameters, more: true))
        return try #require(try client.receive())
    }

    /// The archive that a stream describes, as any consumer would put it together, and the number of its chunks of each kind.
    private func reconstruct(_ descriptors: [SharedDescriptor], _ directories: Int) throws -> (bytes: [UInt8], files: Int, lines: Int) {
        var stream = DirectoryStreamReader()
        let raw = try descriptors[0].descriptor.readAll(limit: 1 << 26)
        raw.withUnsafeBytes { stream.append($0) }
        var bytes: [UInt8] = []
        var (files, lines) = (0, 0)
        while let chunk = try stream.next() {
            switch chunk {
            case .bytes(let count):
                var part = [UInt8](repeating: 0, count: count)
                let taken = part.withUnsafeMutableBytes { stream.takeBytes(into: $0) }
                #expect(taken == count)
                bytes += part
                lines += 1
            case .file(let directory, let path, let size):
                #expect(directory < UInt32(directories))
                let file = try descriptors[1 + Int(directory)].descriptor.open(at: path, .readOnly, resolve: [.beneath, .noSymlinks])
                let content = try file.readAll(limit: 1 << 26)
                #expect(UInt64(content.count) == size)
                bytes += content
                files += 1
            }
        }
        try stream.finish()
        return (bytes, files, lines)
    }

    @Test func get() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let list = try diffIDs(client, handle)
        #expect(!list.isEmpty)
        let store = try Store.open(ByteString(service.repository), OpenOptions(readOnly: true))
        var files = 0
        for diffID in list {
            let digest = try #require(ContentDigest(diffID))
            let stream = try store.images.layerStream(digest).hex
            #expect(
                try client.must(Self.oci + "HasLayer", ["handle": JSONValue(handle), "diff_id": .string(diffID)])
                    == ["present": true, "layer_verity": .string(stream)])
            let (reply, descriptors) = try get(client, handle, diffID)
            #expect(reply.error == nil && reply.parameters["dir_count"] == 1 && !reply.continues)
            #expect(descriptors.count == 3)
            let archive = try reconstruct(descriptors, 1)
            #expect(ContentDigest.of(archive.bytes) == digest)
            files += archive.files
        }
        #expect(files > 0)
        service.stop()
    }

    /// Objects that the client could not open are in the stream itself.
    @Test func inLine() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let objects = ByteString(service.repository) + "/objects"
        for diffID in try diffIDs(client, handle) {
            let open = try reconstruct(try get(client, handle, diffID, all: false).descriptors, 1)
            try FileDescriptor.currentDirectory.changeMode(at: objects, 0o700)
            let closed = try reconstruct(try get(client, handle, diffID, all: false).descriptors, 1)
            try FileDescriptor.currentDirectory.changeMode(at: objects, 0o755)
            #expect(closed.files == 0 && closed.lines == open.lines + open.files)
            #expect(closed.bytes == open.bytes)
        }
        service.stop()
    }

    @Test func layerErrors() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let number = JSONValue(handle)
        let unknown = "sha256:" + String(repeating: "0", count: 64)
        #expect(try client.must(Self.oci + "HasLayer", ["handle": number, "diff_id": .string(unknown)]) == ["present": false])
        #expect(try client.fails(Self.oci + "HasLayer", ["handle": number, "diff_id": "x"]).0 == Self.oci + "InvalidDigest")
        #expect(
            try client.fails(Self.oci + "GetLayer", ["handle": number, "params": ["diff_id": .string(unknown)]])
                == (Self.oci + "NoSuchLayer", ["diff_id": .string(unknown)]))
        #expect(
            try client.fails(
                Self.oci + "GetLayer", ["handle": number, "params": ["storage": ["storage_path": "/s", "layer_id": "l"]]]
            ).0 == Self.oci + "InvalidRequest")
        #expect(try client.fails(Self.oci + "GetLayer", ["handle": number, "params": [:]]).0 == Self.oci + "InvalidRequest")
        let put: JSONValue = ["handle": number, "diff_id": .string(unknown), "zerocopy": false]
        #expect(try client.fails(Self.oci + "PutLayer", put).0 == Self.oci + "InvalidRequest")
        let zero: JSONValue = ["handle": number, "diff_id": .string(unknown), "zerocopy": true]
        #expect(try client.fails(Self.oci + "PutLayer", zero).0 == Self.oci + "InvalidRequest")
        service.stop()
    }

    /// As composefs-rs's `copy`: layers from one connection into the other, then the documents.
    @Test func copy() throws {
        let service = try TestService()
        let (source, from) = try service.connectWithImage()
        let target = try service.connect()
        let path = service.folder.path.description + "/target"
        try target.must("org.composefs.Repository.InitRepository", ["path": .string(path), "insecure": true])
        let into = try target.open(path)
        var layers: [JSONValue] = []
        for diffID in try diffIDs(source, from) {
            let descriptors = try get(source, from, diffID).descriptors
            let parameters: JSONValue = ["handle": JSONValue(into), "diff_id": .string(diffID), "zerocopy": false]
            let reply = try target.call(Self.oci + "PutLayer", parameters, Array(descriptors[...1]))
            #expect(reply.error == nil && reply.parameters["already_present"] == false, "\(reply)")
            #expect(reply.parameters["objects_reflinked"] == 0 && reply.parameters["objects_hardlinked"] == 0)
            layers.append(["diff_id": .string(diffID), "layer_verity": try #require(reply.parameters["layer_verity"])])
            // Once more: all of it is read, and nothing is stored.
            let again = try target.call(Self.oci + "PutLayer", parameters, Array(try get(source, from, diffID).descriptors[...1]))
            #expect(again.parameters["already_present"] == true && again.parameters["objects_copied"] == 0)
            #expect(again.parameters["layer_verity"] == reply.parameters["layer_verity"])
        }
        let documents = try source.must(Self.oci + "Inspect", ["handle": JSONValue(from), "image": "image"])
        var finalize: JSONValue = [
            "handle": JSONValue(into), "manifest_json": try #require(documents["manifest"]),
            "config_json": try #require(documents["config"]), "layers": .array(Array(layers.dropLast())), "name": "copied",
        ]
        #expect(try target.fails(Self.oci + "FinalizeImage", finalize).0 == Self.oci + "InvalidRequest")
        finalize["layers"] = .array(layers)
        let done = try target.must(Self.oci + "FinalizeImage", finalize)
        #expect(done["manifest_digest"] == .string(CorpusImage.manifest))
        let found = try target.must(Self.oci + "Inspect", ["handle": JSONValue(into), "image": "copied"])
        #expect(found["composefs_erofs"] == .string(CorpusImage.id))
        #expect(try target.must(Self.oci + "Check", ["handle": JSONValue(into)])["ok"] == true)

        // Without a name there is no tag, and nothing else that would keep the image.
        try target.must(Self.oci + "Untag", ["handle": JSONValue(into), "name": "copied"])
        finalize["name"] = nil
        #expect(try target.must(Self.oci + "FinalizeImage", finalize) == done)
        #expect(try target.must(Self.oci + "ListImages", ["handle": JSONValue(into)]) == ["images": []])
        #expect(try target.must(Self.oci + "Inspect", ["handle": JSONValue(into), "image": .string(CorpusImage.manifest)]) == found)

        layers[0]["layer_verity"] = .string(CorpusImage.id)
        finalize["layers"] = .array(layers)
        #expect(try target.fails(Self.oci + "FinalizeImage", finalize).0 == Self.oci + "InvalidDigest")
        service.stop()
    }

    // MARK: Hostile streams

    /// Sends a stream of the client's own making, with the folder as its only directory.
    private func put(_ service: TestService, _ stream: [UInt8], diffID: String? = nil) throws -> (String, JSONValue) {
        let client = try service.connect()
        try client.must("org.composefs.Repository.EnsureRepository", ["path": .string(service.repository), "insecure": true])
        let handle = try client.open(service.repository)
        let pipe = try LocalPipe()
        try pipe.write.descriptor.writeAll(stream)
        let end = [pipe.read, SharedDescriptor(try FileDescriptor.open(service.folder.path, [.readOnly, .directory]))]
        let wanted = diffID ?? "sha256:" + String(repeating: "1", count: 64)
        try client.send(
            Client.message(Self.oci + "PutLayer", ["handle": JSONValue(handle), "diff_id": .string(wanted), "zerocopy": false]), end)
        withExtendedLifetime(consume pipe) {}
        let reply = try #require(try client.receive()).reply
        #expect(try client.must(Self.oci + "HasLayer", ["handle": JSONValue(handle), "diff_id": .string(wanted)]) == ["present": false])
        return (try #require(reply.error), .object(reply.parameters))
    }

    private func file(_ path: ByteString, size: UInt64, directory: UInt32 = 0) -> [UInt8] {
        DirectoryStreamChunk.file(directory: directory, path: path, size: size)
    }

    @Test func otherArchive() throws {
        let service = try TestService()
        let archive = [UInt8](repeating: 0, count: 1024)
        let (name, parameters) = try put(service, DirectoryStreamChunk.head(ofBytes: archive.count) + archive)
        #expect(name == Self.oci + "DiffIdMismatch")
        #expect(parameters["expected"] == .string("sha256:" + String(repeating: "1", count: 64)))
        #expect(parameters["actual"] == .string(ContentDigest.of(archive).description))
        service.stop()
    }

    @Test func badStreams() throws {
        let service = try TestService()
        let folder = service.folder.path
        try FileDescriptor.open(folder + "/file", [.writeOnly, .create]).writeAll([1, 2, 3])
        try FileDescriptor.currentDirectory.symlink(target: "/etc/passwd", at: folder + "/link")
        try FileDescriptor.currentDirectory.symlink(target: "..", at: folder + "/up")
        try FileDescriptor.currentDirectory.makeNode(at: folder + "/fifo", mode: 0o10600)
        let streams: [(String, [UInt8], String)] = [
            ("unknown chunk", [7], "no chunk of type 7"),
            ("half a chunk", [0, 9, 0, 0, 0, 1], "ends inside a chunk"),
            ("absolute path", [2] + Array(repeating: 0, count: 12) + [2, 0, 0, 0] + Array("/x".utf8), "absolute"),
            ("no such directory", file("file", size: 3, directory: 1), "names the directory 1, and 1 were passed"),
            ("no such file", file("none", size: 3), "No such file"),
            ("a link", file("link", size: 3), "symbolic links"),
            ("through a link", file("up/file", size: 3), "symbolic links"),
            ("a FIFO", file("fifo", size: 3), "no regular file"),
            ("a directory", file("repository", size: 3), "no regular file"),
            ("another size", file("file", size: 4), "4 bytes, and the file has 3"),
        ]
        for (what, stream, text) in streams {
            let (name, parameters) = try put(service, stream)
            #expect(name == Self.oci + "InternalError", "\(what)")
            #expect(parameters["message"]?.string?.contains(text) == true, "\(what): \(parameters)")
        }
        service.stop()
    }

    /// A client that keeps the pipe open and disconnects does not hold the repository.
    @Test func disconnectDuringPut() throws {
        let service = try TestService()
        let client = try service.connect()
        try client.must("org.composefs.Repository.InitRepository", ["path": .string(service.repository), "insecure": true])
        let handle = try client.open(service.repository)
        let pipe = try LocalPipe()
        let directory = SharedDescriptor(try FileDescriptor.open(service.folder.path, [.readOnly, .directory]))
        let parameters: JSONValue = [
            "handle": JSONValue(handle), "diff_id": .string("sha256:" + String(repeating: "1", count: 64)), "zerocopy": false,
        ]
        try client.send(Client.message(Self.oci + "PutLayer", parameters), [pipe.read, directory])
        client.connection.shutDown()
        let other = try service.connect()
        let second = JSONValue(try other.open(service.repository))
        // Waits for the first handle.
        _ = try other.must("org.composefs.Repository.Gc", ["handle": second, "dry_run": false, "roots": []])
        withExtendedLifetime(pipe) {}
        service.stop()
    }

    /// A client that does not read the pipe, and one that never says that it is done.
    @Test func slowReaders() throws {
        let service = try TestService { options in
            options.patience = .milliseconds(200)
            options.mostTransfers = 1
        }
        let (client, handle) = try service.connectWithImage()
        let diffID = try #require(try diffIDs(client, handle).first)
        var held = try get(client, handle, diffID).descriptors
        let parameters: JSONValue = ["handle": JSONValue(handle), "params": ["diff_id": .string(diffID)]]
        #expect(try client.fails(Self.oci + "GetLayer", parameters).0 == Self.oci + "InternalError")
        held = []
        var reply: VarlinkReply
        repeat { reply = try client.call(Self.oci + "GetLayer", parameters) } while reply.error != nil
        withExtendedLifetime(held) {}
        service.stop()
    }
}
