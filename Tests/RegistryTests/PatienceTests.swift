import ComposefsConcurrency
import ComposefsHashing
import ComposefsTestSupport
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsRegistry

/// How long the client waits, how often it tries again, and from which offset it continues.
@Suite struct PatienceTests {
    private let manifest = Array(#"{"schemaVersion":2}"#.utf8)
    private let blob = pattern(300_000)
    private var digest: ContentDigest { .of(blob) }

    /// A response that arrives byte by byte, too fast to be a stall.
    @Test(arguments: [true, false])
    func slowAnswers(inHead: Bool) throws {
        let drops = (0..<100).flatMap { _ in [ScriptedServer.Action.pause(.milliseconds(10)), .send(Array("X: y\r\n".utf8))] }
        let server = ScriptedServer { _ in
            [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\(inHead ? "" : "\r\n")".utf8))] + drops + [.close]
        }
        defer { server.stop() }
        let client = try makeClient {
            $0.requestTimeout = .milliseconds(200)
            $0.retry.limit = 1
        }
        let started = ContinuousClock.now
        let error = registryError {
            _ = try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 1 << 16)
        }
        #expect(error?.kind == .timeout)
        #expect(error?.description.contains("no complete response within 0.2 s") == true)
        #expect(server.requests(to: "/v2/team/app/manifests/latest").count == 2)
        #expect(ContinuousClock.now - started < .seconds(5))
    }

    /// A blob may take longer than a request.
    @Test func slowBlobs() throws {
        let chunks = stride(from: 0, to: blob.count, by: 30_000).flatMap {
            [ScriptedServer.Action.pause(.milliseconds(40)), .send(Array(blob[$0..<min($0 + 30_000, blob.count)]))]
        }
        let server = ScriptedServer { [blob] _ in [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: \(blob.count)\r\n\r\n".utf8))] + chunks }
        defer { server.stop() }
        let client = try makeClient { $0.requestTimeout = .milliseconds(200) }
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(blob.count))
        #expect(try readAll(reader) == blob)
        #expect(server.requests.count { $0.path.contains("/blobs/") } == 1)
    }

    // MARK: A minimum

    private func chunks(_ size: Int, _ pause: Duration, upTo count: Int) -> [ScriptedServer.Action] {
        stride(from: 0, to: count, by: size).flatMap {
            [ScriptedServer.Action.pause(pause), .send(Array(blob[$0..<min($0 + size, count)]))]
        }
    }

    private func head(_ start: Int = 0) -> ScriptedServer.Action {
        let status = start > 0 ? "206 OK\r\nContent-Range: bytes \(start)-\(blob.count - 1)/\(blob.count)" : "200 OK"
        return .send(Array("HTTP/1.1 \(status)\r\nContent-Length: \(blob.count - start)\r\n\r\n".utf8))
    }

    /// Reads the blob with a minimum of 100 kB/s over 300 ms. Returns the number of requests.
    private func readAtARate(
        pause: Duration = .zero, rate: UInt64 = 100_000, _ handler: @escaping ScriptedServer.Handler
    ) throws -> Int {
        let server = ScriptedServer(handler)
        defer { server.stop() }
        let client = try makeClient {
            $0.minimumRate = rate
            $0.minimumRateWindow = .milliseconds(300)
        }
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(blob.count))
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 30_000, alignment: 16)
        defer { buffer.deallocate() }
        var read: [UInt8] = []
        do {
            while case let count = try reader.read(into: buffer), count > 0 {
                read += buffer[..<count]
                if pause > .zero { _ = client.session.cancellation.sleep(pause) }
            }
        } catch {
            #expect(server.requests(to: "/v2/team/app/blobs/\(digest)").count == 1)
            throw error
        }
        #expect(read == blob)
        return server.requests(to: "/v2/team/app/blobs/\(digest)").count
    }

    /// More than a stall, but not enough: an error, without another attempt.
    @Test func trickles() throws {
        let started = ContinuousClock.now
        let error = registryError { _ = try readAtARate { _ in [head()] + chunks(100, .milliseconds(10), upTo: 100_000) } }
        #expect(error?.kind == .timeout)
        #expect(error?.description.contains("bytes per second in 0.3 s; the minimum is 100000") == true, "\(error?.description ?? "")")
        #expect(ContinuousClock.now - started < .seconds(4))
        // Without a minimum it continues.
        #expect(try readAtARate(rate: 0) { _ in [head()] + chunks(5_000, .milliseconds(10), upTo: blob.count) } == 1)
    }

    /// A server with a sufficient average may pause, and the reader may be slow.
    @Test func fastEnough() throws {
        #expect(try readAtARate { _ in [head()] + chunks(60_000, .milliseconds(150), upTo: blob.count) } == 1)
        #expect(try readAtARate(pause: .milliseconds(100)) { _ in [.reply(200, [:], blob)] } == 1)
    }

    /// All connections count together, even if each makes enough progress to refill the retry budget.
    @Test func tricklesOverSeveralConnections() throws {
        let server = ScriptedServer { [self] request in
            let start = request.rangeStart
            let end = min(start + 66_000, blob.count)
            return [head(start), .pause(.milliseconds(200)), .send(Array(blob[start..<end])), .pause(.milliseconds(200)), .reset]
        }
        defer { server.stop() }
        let client = try makeClient {
            $0.minimumRate = 2_000_000
            $0.minimumRateWindow = .milliseconds(500)
        }
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(blob.count))
        #expect(registryError { _ = try readAll(reader) }?.description.contains("the minimum is 2000000") == true)
    }

    @Test(arguments: [408, 425, 429, 500, 502, 503, 504, 507, 520, 599])
    func triedAgain(status: Int) throws {
        let server = ScriptedServer { [manifest] request in request.number < 2 ? [.reply(status)] : [.reply(200, [:], manifest)] }
        defer { server.stop() }
        let client = try makeClient()
        #expect(try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 1 << 16).bytes == manifest)
    }

    @Test(arguments: [400, 405, 418, 501, 505])
    func notTriedAgain(status: Int) throws {
        let server = ScriptedServer { _ in [.reply(status)] }
        defer { server.stop() }
        let client = try makeClient()
        let error = registryError {
            _ = try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 1 << 16)
        }
        #expect(error?.status == status)
        #expect(server.requests(to: "/v2/team/app/manifests/latest").count == 1)
    }

    /// Doubled each time, at least half of that, never more than the maximum; or the time that the server asks for.
    @Test func pauses() throws {
        var policy = RetryPolicy()
        policy.limit = 20
        let budget = RetryBudget(policy)
        for round in 0..<20 {
            let expected = min(Duration.milliseconds(500) * (1 << round), .seconds(30))
            let pause = try #require(budget.pause(after: .transient(after: nil)))
            #expect(pause >= expected / 2 && pause <= expected)
        }
        #expect(budget.pause(after: .transient(after: nil)) == nil)
        budget.refill()
        #expect(budget.pause(after: .transient(after: .seconds(100))) == .seconds(100))
        #expect(budget.pause(after: .transient(after: .seconds(301))) == nil)
    }

    // MARK: From an offset

    private func read(
        from offset: UInt64, _ handler: @escaping ScriptedServer.Handler
    ) throws -> (bytes: [UInt8], requests: [ScriptedServer.Request], events: [BlobEvent]) {
        let server = ScriptedServer(handler)
        defer { server.stop() }
        let log = Mutex<[BlobEvent]>([])
        let reader = try openDownload(
            try makeClient(), server.repository(), digest: digest, size: UInt64(blob.count), from: offset,
            observer: { event in log.withLock { $0.append(event) } })
        return (try readAll(reader), server.requests(to: "/v2/team/app/blobs/\(digest)"), log.withLock { $0 })
    }

    @Test func fromAnOffset() throws {
        let (bytes, requests, _) = try read(from: 100_001) { [blob] request in
            let start = Int(request.headers["range"]?.dropFirst(6).prefix { $0 != "-" } ?? "") ?? 0
            return [.reply(206, ["Content-Range": "bytes \(start)-\(blob.count - 1)/\(blob.count)"], Array(blob[start...]))]
        }
        #expect(bytes == Array(blob[100_001...]))
        #expect(requests.map { $0.headers["range"] } == ["bytes=100001-299999"])
    }

    @Test func fromTheEnd() throws {
        let (bytes, requests, _) = try read(from: UInt64(blob.count)) { _ in [.reply(500)] }
        #expect(bytes == [] && requests.isEmpty)
    }

    /// Servers without ranges, in all their ways: the whole blob is fetched, and the known bytes are skipped.
    @Test(arguments: [0, 1, 2, 3])
    func rangesRefused(way: Int) throws {
        let (bytes, _, _) = try read(from: 100_001) { [blob] request in
            guard request.headers["range"] != nil else { return [.reply(200, [:], blob)] }
            switch way {
            case 0: return [.reply(200, [:], blob)]
            case 1: return [.reply(416)]
            case 2: return [.reply(206, ["Content-Range": "bytes 0-299999/300000"], blob)]
            default: return [.reply(206, [:], Array(blob[100_001...]))]
            }
        }
        #expect(bytes == Array(blob[100_001...]))
    }

    @Test func adventuresAreTold() throws {
        let (bytes, _, told) = try read(from: 0) { [blob] request in
            if request.number == 0 { return [.reply(200, ["Content-Length": "\(blob.count)"], Array(blob[..<70_000])), .close] }
            return [.reply(206, ["Content-Range": "bytes 70000-\(blob.count - 1)/\(blob.count)"], Array(blob[70_000...]))]
        }
        #expect(bytes == blob)
        #expect(told.count == 2 && told.last == .resumed(from: 70_000))
        if case .retrying(let reason, let delay)? = told.first {
            #expect(reason.contains("the connection broke") && delay > .zero)
        } else {
            Issue.record("\(told)")
        }
    }
}
