import ComposefsBytes
import ComposefsConcurrency
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
import ComposefsVarlink
import Testing

@testable import ComposefsVarlinkService

/// An image of the corpus, with the values that its makers computed: the digests of its documents, and the IDs that the reference implementation
/// gives its EROFS image.
enum CorpusImage {
    static let reference: String = {
        let checkout = #filePath.split(separator: "/", omittingEmptySubsequences: false).dropLast(3).joined(separator: "/")
        return "oci:" + checkout + "/Tests/Fixtures/corpus/media/oci-gzip:latest"
    }()
    static let manifest = "sha256:d36c10775d2103bae4b4065ce8493e6041f066143b3f9af7ef09a8d66a903580"
    static let id =
        "a60c5e3c72fb797a5d0b05bdf82f89a80736c28e71ee63e2de016e2dd2c75ec5e03abda6e32463c231e3bcac72071cb394a604394ab6c3377e8c475672b93c76"
}

/// A server in this process, on a socket in a folder of its own.
final class TestService: Sendable {
    let folder: TestFolder
    let server: VarlinkServer
    private let hasEnded = Semaphore(0)
    private let warned = Guarded<[String]>([])

    var repository: String { folder.path.description + "/repository" }
    var socket: ByteString { folder.path + "/socket" }
    var warnings: [String] { warned.read { $0 } }

    init(_ change: (inout ServiceOptions) -> Void = { _ in }) throws {
        folder = try TestFolder("varlink")
        var options = ServiceOptions(version: "1.2.3")
        options.warn = { [warned] text in warned.change { $0.append(text) } }
        options.endPatience = .seconds(20)
        change(&options)
        server = try VarlinkServer(options)
        let listener = try LocalListener.bind(to: folder.path + "/socket", mode: 0o600)
        let isStarted = startThread("server") { [server, hasEnded] in
            try? server.run(listener)
            hasEnded.signal()
        }
        #expect(isStarted)
    }

    func connect() throws -> Client { Client(try LocalConnection.connect(to: socket)) }

    /// A connection with a handle of a new repository, in which the corpus's image has the tag `image`.
    func connectWithImage() throws -> (client: Client, handle: UInt64) {
        let client = try connect()
        try client.must("org.composefs.Repository.InitRepository", ["path": .string(repository), "insecure": true])
        let handle = try client.open(repository)
        try client.must("org.composefs.Oci.Pull", Self.pull(handle))
        return (client, handle)
    }

    static func pull(_ handle: UInt64, _ image: String = CorpusImage.reference, name: String = "image") -> JSONValue {
        ["handle": JSONValue(handle), "image": .string(image), "name": .string(name), "local_fetch": "disabled", "bootable": false]
    }

    /// Ends the server, and waits until its threads have ended.
    func stop() {
        server.stop()
        hasEnded.wait()
    }

    deinit { server.stop() }
}

struct NoReply: Error {}

/// A client over the raw protocol.
final class Client {
    let connection: LocalConnection
    private var frames = FrameReader(limit: 1 << 26)
    private var passed: [SharedDescriptor] = []

    init(_ connection: LocalConnection) { self.connection = connection }

    func send(_ bytes: [UInt8], _ descriptors: [SharedDescriptor] = []) throws {
        var sent = 0
        var descriptors = descriptors
        while sent < bytes.count {
            let count = try bytes.withUnsafeBytes { try connection.send(UnsafeRawBufferPointer(rebasing: $0[sent...]), descriptors) }
            if count > 0 {
                sent += count
                descriptors = []
                continue
            }
            var entries = [WaitEntry(connection.shared, writes: true)]
            guard try FileDescriptor.wait(&entries, milliseconds: 20_000) else { throw NoReply() }
        }
    }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    static func message(_ method: String, _ parameters: JSONValue = [:], more: Bool = false, oneway: Bool = false) -> [UInt8] {
        var call: JSONValue = ["method": .string(method), "parameters": parameters]
        if more { call["more"] = true }
        if oneway { call["oneway"] = true }
        return call.compactBytes + [0]
    }

    /// The next reply, and the descriptors that came with it; nil if the server has closed the connection.
    func receive() throws -> (reply: VarlinkReply, descriptors: [SharedDescriptor])? {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            if let message = try frames.next() {
                defer { passed = [] }
                return (try VarlinkReply(parsing: message), passed)
            }
            var entries = [WaitEntry(connection.shared, reads: true)]
            guard try FileDescriptor.wait(&entries, milliseconds: 20_000) else { throw NoReply() }
            let received: ReceivedBytes?
            do throws(SystemError) {
                received = try connection.receive(into: buffer)
            } catch {
                guard error.errno == .connectionReset else { throw error }
                return nil
            }
            guard let received else { continue }
            if received.count == 0 { return nil }
            frames.append(UnsafeRawBufferPointer(rebasing: buffer[..<received.count]))
            passed += received.descriptors
        }
    }

    func call(_ method: String, _ parameters: JSONValue = [:], _ descriptors: [SharedDescriptor] = []) throws -> VarlinkReply {
        try send(Self.message(method, parameters), descriptors)
        return try #require(try receive()).reply
    }

    /// Calls a method that must succeed.
    @discardableResult
    func must(_ method: String, _ parameters: JSONValue = [:]) throws -> JSONValue {
        let reply = try call(method, parameters)
        #expect(reply.error == nil, "\(method): \(reply.error ?? "") \(JSONValue.object(reply.parameters))")
        return .object(reply.parameters)
    }

    /// Calls a method that must fail, and returns the error's name after the interface, and its parameters.
    func fails(_ method: String, _ parameters: JSONValue = [:], _ descriptors: [SharedDescriptor] = []) throws -> (String, JSONValue) {
        let reply = try call(method, parameters, descriptors)
        return (try #require(reply.error, "\(method) succeeded: \(JSONValue.object(reply.parameters))"), .object(reply.parameters))
    }

    func open(_ path: String) throws -> UInt64 {
        try #require(try must("org.composefs.Repository.OpenRepository", ["path": .string(path)])["handle"]?.uint64)
    }
}
