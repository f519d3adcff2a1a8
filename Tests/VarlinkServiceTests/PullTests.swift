import ComposefsBytes
import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsTestSupport
import ComposefsVarlink
import Testing

@testable import ComposefsVarlinkService

/// The streaming method.
@Suite struct PullTests {
    private static let pull = "org.composefs.Oci.Pull"

    private func open(_ service: TestService) throws -> (client: Client, handle: UInt64) {
        let client = try service.connect()
        try client.must("org.composefs.Repository.EnsureRepository", ["path": .string(service.repository), "insecure": true])
        return (client, try client.open(service.repository))
    }

    @Test func progress() throws {
        let service = try TestService()
        let (client, handle) = try open(service)
        try client.send(Client.message(Self.pull, TestService.pull(handle), more: true))
        var replies: [VarlinkReply] = []
        repeat { replies.append(try #require(try client.receive()).reply) } while replies.last?.continues == true
        #expect(replies.count > 2)
        #expect(replies.allSatisfy { $0.error == nil && $0.parameters.members.count == 1 })
        let completed = try #require(replies.last?.parameters["completed"])
        #expect(completed["manifest_digest"] == .string(CorpusImage.manifest))
        #expect(completed["boot_image"] == nil)
        let store = try Store.open(ByteString(service.repository), OpenOptions(readOnly: true))
        let image = try store.images.open("image").image
        #expect(completed["config_digest"] == .string(image.configDigest.description))
        #expect(completed["manifest_verity"] == .string(image.manifestStream.hex))
        #expect(completed["config_verity"] == .string(image.configStream.hex))
        // Each layer begins and ends, with the size that the manifest states.
        for layer in image.manifest.layers {
            let id = JSONValue.string(layer.digest.description)
            let started = replies.compactMap { $0.parameters["started"] }.filter { $0["id"] == id }
            #expect(started == [["id": id, "total": JSONValue(layer.size), "unit": "Bytes"]])
            let done = replies.compactMap { $0.parameters["done"] }.filter { $0["id"] == id }
            #expect(done == [["id": id, "transferred": JSONValue(layer.size)]])
        }

        // The second time, all layers are there.
        try client.send(Client.message(Self.pull, TestService.pull(handle, name: "again"), more: true))
        replies = []
        repeat { replies.append(try #require(try client.receive()).reply) } while replies.last?.continues == true
        #expect(replies.compactMap { $0.parameters["skipped"] }.count == image.manifest.layers.count)
        #expect(replies.allSatisfy { $0.parameters["started"] == nil })
        service.stop()
    }

    /// Without `more` there is one reply, and with `oneway` none.
    @Test func singleReply() throws {
        let service = try TestService()
        let (client, handle) = try open(service)
        let reply = try client.must(Self.pull, TestService.pull(handle))
        #expect(reply["completed"]?["manifest_digest"] == .string(CorpusImage.manifest))
        try client.send(
            Client.message(Self.pull, TestService.pull(handle, name: "silent"), oneway: true)
                + Client.message("org.composefs.Oci.ListImages", ["handle": JSONValue(handle)]))
        let list = try #require(try client.receive()).reply
        #expect(list.parameters["images"]?.array?.map { $0["name"] } == ["image", "silent"])
        service.stop()
    }

    /// A client that wants no reply may close the connection at once.
    @Test func oneWayOutlivesTheConnection() throws {
        let service = try TestService()
        do {
            let (client, handle) = try open(service)
            try client.send(Client.message(Self.pull, TestService.pull(handle), oneway: true))
        }
        let (client, handle) = try open(service)
        var images: JSONValue?
        for _ in 0..<400 where images?[0] == nil {
            images = try client.must("org.composefs.Oci.ListImages", ["handle": JSONValue(handle)])["images"]
            Host.sleep(milliseconds: 25)
        }
        #expect(images?[0]?["manifest_digest"] == .string(CorpusImage.manifest))
        service.stop()
    }

    @Test func refusals() throws {
        let service = try TestService()
        let (client, handle) = try open(service)
        func refused(_ changes: [(String, JSONValue)]) throws -> String {
            var parameters = TestService.pull(handle)
            for (key, value) in changes { parameters[key] = value }
            return try client.fails(Self.pull, parameters).0
        }
        let oci = "org.composefs.Oci."
        #expect(try refused([("image", "oci:/nothing/here:x")]) == oci + "InternalError")
        #expect(try refused([("image", "oci:/nothing/here:x"), ("storage_root", "/s")]) == oci + "InvalidRequest")
        #expect(try refused([("image", "containers-storage:x"), ("storage_root", "s")]) == oci + "InvalidRequest")
        #expect(try refused([("image", "containers-storage:x"), ("local_fetch", "zerocopy")]) == oci + "InvalidRequest")
        // The storage is the one that is named.
        #expect(try refused([("image", "containers-storage:x"), ("storage_root", .string(service.repository))]) == oci + "InternalError")
        #expect(try refused([("expected_digest", .string(CorpusImage.id))]) == oci + "InvalidRequest")
        #expect(
            try refused([("expected_digest", .string(CorpusImage.id)), ("bootable", true), ("xattrs", "AllowlistOnly")])
                == oci + "InvalidRequest")
        #expect(try refused([("expected_digest", "abc"), ("bootable", true)]) == oci + "InvalidDigest")
        #expect(try refused([("name", "")]) == oci + "InvalidRequest")
        #expect(try refused([("local_fetch", nil)]) == "org.varlink.service.InvalidParameter")
        #expect(try client.must("org.composefs.Oci.ListImages", ["handle": JSONValue(handle)]) == ["images": []])
        service.stop()
    }

    /// The signature policy is that of every pull, and one that changes applies to the next call.
    @Test func signaturePolicy() throws {
        let folder = try TestFolder("varlink-policy")
        func write(_ type: String) throws {
            try FileDescriptor.open(folder.path + "/policy", [.writeOnly, .create, .truncate])
                .writeAll(Array(#"{"default":[{"type":"\#(type)"}]}"#.utf8))
        }
        try write("reject")
        let service = try TestService { $0.signaturePolicy = folder.path + "/policy" }
        let (client, handle) = try open(service)
        let refused = try client.fails(Self.pull, TestService.pull(handle))
        #expect(refused.0 == "org.composefs.Oci.InternalError" && refused.1["message"]?.string?.contains("policy") == true, "\(refused)")
        try write("insecureAcceptAnything")
        try client.must(Self.pull, TestService.pull(handle))
        // Documents of a client are an image, too.
        let found = try client.must("org.composefs.Oci.Inspect", ["handle": JSONValue(handle), "image": "image"])
        let config = try #require(found["config"]?.string)
        var layers: [JSONValue] = []
        for diffID in try #require(try JSONValue.parse(Array(config.utf8))["rootfs"]?["diff_ids"]?.array) {
            let layer = try client.must("org.composefs.Oci.HasLayer", ["handle": JSONValue(handle), "diff_id": diffID])
            layers.append(["diff_id": diffID, "layer_verity": try #require(layer["layer_verity"])])
        }
        let finalize: JSONValue = [
            "handle": JSONValue(handle), "manifest_json": try #require(found["manifest"]), "config_json": .string(config),
            "layers": .array(layers), "name": "other",
        ]
        try write("reject")
        #expect(try client.fails("org.composefs.Oci.FinalizeImage", finalize).0 == "org.composefs.Oci.InternalError")
        try write("insecureAcceptAnything")
        #expect(
            try client.must("org.composefs.Oci.FinalizeImage", finalize)["manifest_digest"] == .string(CorpusImage.manifest))
        service.stop()
    }

    /// A client that disconnects ends its pull, and its handle with it: a collection by another need not wait.
    @Test func disconnect() throws {
        let started = Semaphore(0)
        let registry = ScriptedServer { request in
            if request.path == "/v2/" { return [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".utf8))] }
            // A manifest that never arrives.
            started.signal()
            return [.pause(.seconds(60)), .close]
        }
        defer { registry.stop() }
        let service = try TestService()
        let (client, handle) = try open(service)
        try client.send(Client.message(Self.pull, TestService.pull(handle, registry.host + "/team/app:v1"), more: true))
        started.wait()
        client.connection.shutDown()
        let (other, second) = try open(service)
        let begin = MonotonicTime.now
        try other.must("org.composefs.Repository.Gc", ["handle": JSONValue(second), "dry_run": false, "roots": []])
        #expect(MonotonicTime.now - begin < .seconds(8))
        service.stop()
    }

    /// The end of the service ends a pull, and the client gets the error or the end of the connection.
    @Test func stop() throws {
        let started = Semaphore(0)
        let registry = ScriptedServer { _ in
            started.signal()
            return [.pause(.seconds(60)), .close]
        }
        defer { registry.stop() }
        let service = try TestService()
        let (client, handle) = try open(service)
        try client.send(Client.message(Self.pull, TestService.pull(handle, registry.host + "/team/app:v1")))
        started.wait()
        let begin = MonotonicTime.now
        service.stop()
        #expect(MonotonicTime.now - begin < .seconds(8))
        #expect(try client.receive()?.reply.error != Self.pull)
    }
}
