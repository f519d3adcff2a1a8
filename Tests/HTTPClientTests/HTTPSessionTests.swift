import ComposefsCompression
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsHTTPClient

private struct Policy: ConnectionPolicy {
    struct Refusal: Error {}

    var allowsDowngrade = false
    var refused = ""

    func settings(for url: HTTPURL) throws -> ConnectionSettings {
        if url.authority == refused { throw Refusal() }
        return ConnectionSettings()
    }
}

@Suite struct HTTPSessionTests {
    private func session(_ adjust: (inout HTTPOptions) -> Void = { _ in }) throws -> HTTPSession {
        var options = HTTPOptions()
        options.userAgent = "http/test"
        options.connectTimeout = .seconds(5)
        options.requestTimeout = .seconds(20)
        options.stallTimeout = .seconds(10)
        adjust(&options)
        return try HTTPSession(options)
    }

    private func url(_ server: ScriptedServer, _ path: String = "/") throws -> HTTPURL {
        try #require(HTTPURL("http://\(server.host)\(path)"))
    }

    /// The error that opening the request, or reading its body, ends with.
    private func error(
        _ request: HTTPRequest, _ session: HTTPSession, _ policy: Policy = Policy(), limit: Int = 1000
    ) -> HTTPError? {
        do throws(HTTPError) {
            _ = try session.open(request, policy).body(limit: limit)
            Issue.record("no error")
            return nil
        } catch {
            return error
        }
    }

    @Test func redirectsAreFollowedAndTheAuthorizationStaysAtItsOrigin() throws {
        let other = ScriptedServer { request in
            request.path == "/b" ? [.reply(302, ["Location": "/c"])] : [.reply(200, [:], Array("there".utf8))]
        }
        defer { other.stop() }
        let server = ScriptedServer { request in
            request.path == "/a" ? [.reply(307, ["Location": "/a2"])] : [.reply(307, ["Location": "http://\(other.host)/b"])]
        }
        defer { server.stop() }
        let response = try session().open(HTTPRequest(url(server, "/a"), authorization: "Bearer secret"), Policy())
        #expect(response.url.text == "http://\(other.host)/c")
        #expect(try response.body(limit: 5) == Array("there".utf8))
        #expect(server.requests.map { $0.headers["authorization"] } == ["Bearer secret", "Bearer secret"])
        #expect(other.requests.map { $0.headers["authorization"] } == [nil, nil])
        #expect(server.requests.first?.headers["user-agent"] == "http/test")
    }

    @Test func aRedirectBackDoesNotBringTheAuthorizationBack() throws {
        let hosts = Guarded("")
        let other = ScriptedServer { _ in [.reply(307, ["Location": "http://\(hosts.change { $0 })/end"])] }
        defer { other.stop() }
        let server = ScriptedServer { request in
            request.path == "/end" ? [.reply(200)] : [.reply(307, ["Location": "http://\(other.host)/"])]
        }
        defer { server.stop() }
        hosts.change { $0 = server.host }
        let response = try session().open(HTTPRequest(url(server, "/a"), authorization: "Basic secret"), Policy())
        #expect(response.head.status == 200)
        #expect(server.requests(to: "/end").map { $0.headers["authorization"] } == [nil])
    }

    @Test func aPostIsNotRepeatedByARedirectThatChangesTheMethod() throws {
        let server = ScriptedServer { request in
            request.path == "/a" ? [.reply(302, ["Location": "/b"])] : [.reply(201)]
        }
        defer { server.stop() }
        let response = try session().open(HTTPRequest(url(server, "/a"), method: "POST", body: .bytes([1, 2])), Policy())
        #expect(response.head.status == 302)
        #expect(server.requests.map(\.path) == ["/a"])
    }

    @Test func redirectsThatCannotBeFollowed() throws {
        let server = ScriptedServer { request in
            switch request.path {
            case "/loop": [.reply(307, ["Location": "/loop"])]
            case "/none": [.reply(307)]
            default: [.reply(307, ["Location": "ftp://elsewhere/"])]
            }
        }
        defer { server.stop() }
        let session = try session()
        let loop = error(HTTPRequest(try url(server, "/loop?sig=secret")), session)
        guard case .tooManyRedirects(10) = loop?.reason else { return #expect(Bool(false), "\(String(describing: loop))") }
        #expect(loop?.url == "http://\(server.host)/loop")
        #expect(loop?.description.contains("secret") == false)
        #expect(server.requests(to: "/loop").count == 11)
        for path in ["/none", "/ftp"] {
            let missing = error(HTTPRequest(try url(server, path)), session)
            guard case .missingLocation(307) = missing?.reason else { return #expect(Bool(false), "\(String(describing: missing))") }
            #expect(missing?.kind == .badResponse)
            #expect(missing?.status == 307)
            #expect(missing?.retry == .never)
        }
    }

    @Test func theLimitOfABody() throws {
        let server = ScriptedServer { request in
            request.path == "/announced"
                ? [.reply(200, [:], [UInt8](repeating: 7, count: 101))] : [.chunked([:], [UInt8](repeating: 7, count: 101))]
        }
        defer { server.stop() }
        let session = try session()
        let announced = error(HTTPRequest(try url(server, "/announced")), session, limit: 100)
        guard case .bodyTooLarge(101, 100) = announced?.reason else { return #expect(Bool(false), "\(String(describing: announced))") }
        let chunked = error(HTTPRequest(try url(server, "/chunked")), session, limit: 100)
        guard case .bodyTooLarge(nil, 100) = chunked?.reason else { return #expect(Bool(false), "\(String(describing: chunked))") }
        #expect(chunked?.kind == .tooLarge)
        #expect(try session.open(HTTPRequest(url(server, "/chunked")), Policy()).body(limit: 101).count == 101)
    }

    @Test func headersHaveALimit() throws {
        let server = ScriptedServer { _ in [.reply(200, ["X": String(repeating: "x", count: 70_000)])] }
        defer { server.stop() }
        let found = error(HTTPRequest(try url(server)), try session())
        guard case .headersTooLarge(65536) = found?.reason else { return #expect(Bool(false), "\(String(describing: found))") }
    }

    @Test func aDamagedEncodingIsAnError() throws {
        // gzip's magic, then nothing that follows from it.
        let server = ScriptedServer { _ in [.reply(200, ["Content-Encoding": "gzip"], [0x1f, 0x8b, 8, 0, 1, 2, 3])] }
        defer { server.stop() }
        let found = error(HTTPRequest(try url(server)), try session())
        guard case .contentEncoding = found?.reason else { return #expect(Bool(false), "\(String(describing: found))") }
        #expect(found?.kind == .badResponse)
    }

    @Test func connectionsThatFail() throws {
        let server = ScriptedServer { _ in [.close] }
        let broken = error(HTTPRequest(try url(server)), try session())
        guard case .brokenConnection = broken?.reason else { return #expect(Bool(false), "\(String(describing: broken))") }
        #expect(broken?.retry == .transient)
        #expect(broken?.suggestsPlainHTTP == false)

        let secure = error(HTTPRequest(try #require(HTTPURL("https://\(server.host)/"))), try session())
        #expect(secure?.suggestsPlainHTTP == true)
        #expect(try session().speaksNoTLS(try #require(HTTPURL("https://\(server.host)/")), Policy()))
        server.stop()

        let unresolved = error(HTTPRequest(try #require(HTTPURL("http://name.invalid:81/"))), try session())
        guard case .unresolved = unresolved?.reason else { return #expect(Bool(false), "\(String(describing: unresolved))") }
        #expect(unresolved?.host == "name.invalid:81")
        #expect(unresolved?.kind == .connection)
        #expect(unresolved?.retry == .unreachable)
    }

    @Test func aResponseThatStalls() throws {
        let server = ScriptedServer { _ in [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1".utf8)), .pause(.seconds(3))] }
        defer { server.stop() }
        let found = error(HTTPRequest(try url(server)), try session { $0.stallTimeout = .milliseconds(200) })
        guard case .receiveStalled(.milliseconds(200)) = found?.reason else { return #expect(Bool(false), "\(String(describing: found))") }
        #expect(found?.kind == .timeout)
        #expect(found?.retry == .transient)

        let late = error(HTTPRequest(try url(server)), try session { $0.requestTimeout = .milliseconds(200) })
        guard case .noResponse(.milliseconds(200)) = late?.reason else { return #expect(Bool(false), "\(String(describing: late))") }
    }

    @Test func aRefusalOfThePolicyIsTheReason() throws {
        let server = ScriptedServer { _ in [.reply(307, ["Location": "http://other.invalid/"])] }
        defer { server.stop() }
        let found = error(HTTPRequest(try url(server)), try session(), Policy(refused: "other.invalid"))
        guard case .configuration(is Policy.Refusal) = found?.reason else { return #expect(Bool(false), "\(String(describing: found))") }
        #expect(found?.kind == .configuration)
    }

    @Test func cancellingEndsARequestAndRefusesTheNext() throws {
        let server = ScriptedServer { _ in [.pause(.seconds(5)), .reply(200)] }
        defer { server.stop() }
        let session = try session()
        onThread {
            while server.requests.isEmpty { _ = Cancellation().sleep(.milliseconds(2)) }
            session.cancellation.cancel()
        }
        for _ in 0..<2 {
            let found = error(HTTPRequest(try url(server)), session)
            guard case .cancelled = found?.reason else { return #expect(Bool(false), "\(String(describing: found))") }
            #expect(found?.kind == .cancelled)
            #expect(found?.retry == .never)
        }
        #expect(server.requests.count == 1)
    }

    @Test func anUploadThatIsProducedWhileItIsSent() throws {
        let server = ScriptedServer { _ in [.reply(201)] }
        defer { server.stop() }
        let session = try session()
        let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let body = UploadBody()
        let upload = try session.begin(HTTPRequest(url(server), method: "PUT", body: .stream(body, size: UInt64(bytes.count))), Policy())
        #expect(bytes.withUnsafeBytes { body.write($0) })
        body.finish()
        #expect(try upload.response().head.status == 201)
        #expect(server.requests.first?.body == bytes)
    }
}

@Suite struct ProxyAddressTests {
    @Test func passwordsAreNotPrinted() throws {
        let proxy = try #require(try ProxyAddress("http://me:secret@proxy.example:3128"))
        #expect(proxy.text == "http://me:secret@proxy.example:3128")
        #expect("\(proxy)" == "http://proxy.example:3128")
        #expect(!String(reflecting: proxy).contains("secret"))
        #expect(try ProxyAddress("proxy:1")?.text == "http://proxy:1")
        for wrong in ["ftp://p:1", "http://", "http://a b", ""] { #expect(try ProxyAddress(wrong) == nil, "\(wrong)") }
    }
}
