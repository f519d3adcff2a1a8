import ComposefsBytes
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import ComposefsVarlink
import Testing

@testable import ComposefsVarlinkService

/// What clients do that is not in the protocol, and what it costs others: nothing.
@Suite struct HostileClientTests {
    private static let info = Client.message("org.varlink.service.GetInfo")

    /// The connection is closed, with a warning, and others are served.
    private func expectClosed(_ service: TestService, _ warning: String, _ act: (Client) throws -> Void) throws {
        let client = try service.connect()
        try? act(client)
        #expect(try client.receive()?.reply == nil, "\(warning)")
        #expect(service.warnings.contains { $0.contains(warning) }, "\(warning): \(service.warnings)")
        #expect(try service.connect().must("org.varlink.service.GetInfo")["product"] == "cfsoci")
    }

    @Test func noCalls() throws {
        let service = try TestService()
        try expectClosed(service, "invalid JSON at byte 0: unexpected 'G'") { try $0.send("GET / HTTP/1.1\r\n\r\n\0") }
        try expectClosed(service, "the key \"method\" occurs twice") { try $0.send("{\"method\":\"a.B\",\"method\":\"a.C\"}\0") }
        try expectClosed(service, "levels of nesting") { try $0.send(String(repeating: "[", count: 10_000) + "\0") }
        try expectClosed(service, "more than 200000 values") {
            try $0.send("{\"method\":\"a.B\",\"parameters\":{\"x\":[" + String(repeating: "0,", count: 200_000) + "0]}}\0")
        }
        try expectClosed(service, "it is an array") { try $0.send("[]\0") }
        try expectClosed(service, "it names no method of an interface") { try $0.send("{\"method\":\"Jump\"}\0") }
        try expectClosed(service, "unknown member \"extra\"") { try $0.send("{\"method\":\"a.B\",\"extra\":1}\0") }
        try expectClosed(service, "invalid JSON") { try $0.send("\0") }
        service.stop()
    }

    @Test func longMessages() throws {
        let service = try TestService { $0.largestMessage = 1 << 16 }
        // Nothing waits for the end of a message that is too long already.
        try expectClosed(service, "a message has more than 65536 bytes") { try $0.send(String(repeating: "x", count: 1 << 18)) }
        // Bytes of several messages are no long message.
        let client = try service.connect()
        for _ in 0..<100 { try client.send(Self.info + Self.info + Self.info + Self.info) }
        for _ in 0..<400 { #expect(try client.receive()?.reply.error == nil) }
        service.stop()
    }

    @Test func replyTooLong() throws {
        let service = try TestService { $0.largestMessage = 1 << 11 }
        let client = try service.connect()
        let (name, parameters) = try client.fails("org.varlink.service.GetInterfaceDescription", ["interface": "org.composefs.Oci"])
        #expect(name.hasSuffix("InternalError"))
        #expect(parameters["message"]?.string?.contains("a message at most 2048") == true)
        service.stop()
    }

    /// A message in single bytes is read; one that does not end is not waited for.
    @Test func halfMessages() throws {
        let service = try TestService { $0.patience = .milliseconds(300) }
        let client = try service.connect()
        for byte in Self.info { try client.send([byte]) }
        #expect(try client.receive()?.reply.error == nil)
        // Waiting between messages has no limit.
        Host.sleep(milliseconds: 500)
        #expect(try client.call("org.varlink.service.GetInfo").error == nil)
        try expectClosed(service, "a message has not ended") { try $0.send("{\"method\"") }
        // Nor does a message that goes on byte by byte get more time.
        try expectClosed(service, "a message has not ended") { client in
            for byte in Self.info {
                try client.send([byte])
                Host.sleep(milliseconds: 20)
            }
        }
        service.stop()
    }

    /// A client that sends calls and reads no reply.
    @Test func slowReader() throws {
        let service = try TestService { $0.patience = .milliseconds(300) }
        let client = try service.connect()
        let call = Client.message("org.varlink.service.GetInterfaceDescription", ["interface": "org.composefs.Oci"])
        for _ in 0..<400 {
            // The socket of the server is full in both directions, or closed.
            guard (try? call.withUnsafeBytes { try client.connection.send($0) }) ?? 0 > 0 else { break }
        }
        for _ in 0..<200 where service.warnings.isEmpty { Host.sleep(milliseconds: 25) }
        #expect(service.warnings.contains { $0.contains("the client has not read a reply") })
        #expect(try service.connect().must("org.varlink.service.GetInfo")["product"] == "cfsoci")
        service.stop()
    }

    @Test func connectionFlood() throws {
        let service = try TestService { $0.mostConnections = 4 }
        var clients: [Client] = []
        for _ in 0..<4 {
            let client = try service.connect()
            try client.must("org.varlink.service.GetInfo")
            clients.append(client)
        }
        for _ in 0..<50 {
            let client = try service.connect()
            try? client.send(Self.info)
            #expect(try client.receive()?.reply == nil)
        }
        #expect(service.warnings == ["there are 4 connections, and others are closed"])
        // Those that are there go on, and one that ends makes room.
        for client in clients { try client.must("org.varlink.service.GetInfo") }
        clients.removeLast().connection.shutDown()
        var reply: VarlinkReply?
        for _ in 0..<200 where reply == nil {
            let client = try service.connect()
            try? client.send(Self.info)
            reply = try client.receive()?.reply
            if reply == nil { Host.sleep(milliseconds: 25) }
        }
        #expect(reply?.error == nil && reply != nil)
        service.stop()
    }

    // MARK: Descriptors

    /// The read end of a pipe tells, once this process has closed its own, whether the service has closed the copies of the write end.
    private func passedPipe() throws -> (read: SharedDescriptor, write: [SharedDescriptor]) {
        let pipe = try LocalPipe()
        return (pipe.read, [pipe.write])
    }

    private func expectNoWriter(_ read: SharedDescriptor, _ what: String) throws {
        var entries = [WaitEntry(read, reads: true)]
        #expect(try FileDescriptor.wait(&entries, milliseconds: 10_000) && entries[0].hasEnded, "\(what)")
    }

    /// Descriptors that no method wants are closed at once.
    @Test func unwantedDescriptors() throws {
        let service = try TestService()
        let client = try service.connect()
        for call in [Self.info, Client.message("org.x.Y"), Client.message("org.composefs.Oci.GetInfo", oneway: true)] {
            let read: SharedDescriptor
            do {
                let passed = try passedPipe()
                read = passed.read
                try client.send(call, passed.write + passed.write)
            }
            if !call.contains(UInt8(ascii: "w")) { _ = try client.receive() }
            try expectNoWriter(read, String(decoding: call, as: UTF8.self))
        }
        #expect(try client.call("org.varlink.service.GetInfo").error == nil)
        service.stop()
    }

    /// Those of a message that never ends, and those of a client that is gone.
    @Test func descriptorsOfHalfMessages() throws {
        let service = try TestService()
        let read: SharedDescriptor
        do {
            let passed = try passedPipe()
            read = passed.read
            let client = try service.connect()
            try client.send(Array("{\"method".utf8), passed.write)
        }
        try expectNoWriter(read, "half a message")
        service.stop()
    }

    @Test func tooManyDescriptors() throws {
        let service = try TestService { $0.mostDescriptors = 8 }
        let read: SharedDescriptor
        do {
            let passed = try passedPipe()
            read = passed.read
            try expectClosed(service, "a call has more than 8 descriptors") { client in
                // Four with each piece of a message.
                for piece in ["{\"met", "hod\":", "\"a.B\"", "}"] {
                    try client.send(Array(piece.utf8), Array(repeating: passed.write[0], count: 4))
                    Host.sleep(milliseconds: 20)
                }
            }
        }
        try expectNoWriter(read, "too many")
        let most = try passedPipe()
        try expectClosed(service, "a call has more than 8 descriptors") {
            try $0.send(Self.info, Array(repeating: most.write[0], count: LocalConnection.mostDescriptors))
        }
        service.stop()
    }

    /// Descriptors belong to the message whose bytes they came with, also if several messages arrive at the same time.
    @Test func descriptorsOfPipelinedCalls() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let directory = SharedDescriptor(try FileDescriptor.open(service.folder.path, [.readOnly, .directory]))
        let mount = Client.message(
            "org.composefs.Oci.OciMount",
            ["handle": JSONValue(handle), "image": "image", "bootable": false, "options": [:]])
        try client.send(Self.info)
        try client.send(mount, [directory, directory, directory])
        #expect(try client.receive()?.reply.error == nil)
        let reply = try #require(try client.receive()).reply
        #expect(reply.parameters["message"]?.string?.contains("and there are 3") == true, "\(reply)")
        service.stop()
    }

    // MARK: Disconnects

    /// Clients that come and go at any point leave nothing behind.
    @Test func disconnects() throws {
        let service = try TestService()
        let (client, handle) = try service.connectWithImage()
        let calls = [
            Self.info, Client.message("org.composefs.Oci.ListImages", ["handle": JSONValue(handle)]), Array("{".utf8),
            Client.message("org.composefs.Repository.OpenRepository", ["path": .string(service.repository)]),
        ]
        for round in 0..<100 {
            let other = try service.connect()
            try other.send(calls[round % calls.count])
        }
        #expect(
            try client.must("org.composefs.Repository.Gc", ["handle": JSONValue(handle), "dry_run": false, "roots": []])["dry_run"] == false
        )
        service.stop()
    }
}
