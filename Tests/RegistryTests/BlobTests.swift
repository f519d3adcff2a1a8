import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Testing

@testable import ComposefsRegistry

/// Downloads from servers that misbehave.
@Suite struct BlobTests {
    private static let blob = pattern(3_000_000)
    private static let blobDigest = ContentDigest.of(blob)
    let content = BlobTests.blob
    let digest = BlobTests.blobDigest
    var path: String { "/v2/team/app/blobs/\(digest)" }

    /// Reads the whole blob from a server with this handler.
    private func download(
        _ adjust: @escaping (inout RegistryOptions) -> Void = { _ in }, _ handler: @escaping ScriptedServer.Handler
    ) throws -> (bytes: [UInt8], requests: [ScriptedServer.Request]) {
        let server = ScriptedServer(handler)
        defer { server.stop() }
        let client = try makeClient([:], adjust)
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count))
        let bytes = try readAll(reader)
        // Reading after the end returns the end again.
        #expect(try readAll(reader) == [])
        return (bytes, server.requests(to: path))
    }

    private func failure(
        _ adjust: @escaping (inout RegistryOptions) -> Void = { _ in }, _ handler: @escaping ScriptedServer.Handler
    ) -> RegistryError? {
        registryError { _ = try download(adjust, handler) }
    }

    @Test func whole() throws {
        let (bytes, requests) = try download { [content] _ in [.reply(200, [:], content)] }
        #expect(bytes == content)
        #expect(requests.count == 1)
        #expect(requests.first?.headers["user-agent"] == "cfsoci/test")
        #expect(requests.first?.headers["accept-encoding"] == "identity")
        #expect(requests.first?.headers["range"] == nil)
    }

    /// A reader that is much slower than the server gets everything; libcurl is paused and resumed many times.
    @Test func slowReader() throws {
        let server = ScriptedServer { [content] _ in [.reply(200, [:], content)] }
        defer { server.stop() }
        let client = try makeClient()
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count))
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 70_001)
        while true {
            let count = try buffer.withUnsafeMutableBytes { try reader.read(into: $0) }
            if count == 0 { break }
            bytes += buffer[..<count]
            _ = client.session.cancellation.sleep(.milliseconds(2))
        }
        #expect(bytes == content)
    }

    @Test func emptyBlob() throws {
        let server = ScriptedServer { _ in [.reply(200)] }
        defer { server.stop() }
        let reader = try openDownload(try makeClient(), server.repository(), digest: .of([]), size: 0)
        #expect(try readAll(reader) == [])
    }

    /// Many downloads at the same time, on threads of their own, through one pool.
    @Test func manyAtOnce() throws {
        let server = ScriptedServer { [content] _ in [.reply(200, [:], content)] }
        defer { server.stop() }
        let client = try makeClient()
        var readers: [BlobDownload] = []
        for _ in 0..<8 { readers.append(try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count))) }
        // The last one is read first: the others wait with full ring buffers, and must not block it.
        for reader in readers.reversed() { #expect(try readAll(reader) == content) }
    }

    @Test func droppedReaderGivesItsConnectionUp() throws {
        let server = ScriptedServer { [content] _ in [.reply(200, [:], content)] }
        defer { server.stop() }
        let client = try makeClient()
        for _ in 0..<20 { _ = try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count)) }
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count))
        #expect(try readAll(reader) == content)
    }

    // MARK: Broken connections

    /// `from` of `bytes=from-to`, checked against the blob's size.
    private static func rangeStart(_ request: ScriptedServer.Request, size: Int) -> Int? {
        guard let range = request.headers["range"], range.hasPrefix("bytes="), range.hasSuffix("-\(size - 1)") else { return nil }
        return Int(range.dropFirst(6).prefix { $0 != "-" })
    }

    @Test(arguments: [false, true])
    func continuesAfterBreaks(byReset: Bool) throws {
        let step = 400_000
        let (bytes, requests) = try download({ $0.retry.limit = 1 }) { [content] request in
            let start = Self.rangeStart(request, size: content.count) ?? 0
            let part = Array(content[start..<min(start + step, content.count)])
            var headers = ["Content-Length": "\(content.count - start)"]
            if start > 0 { headers["Content-Range"] = "bytes \(start)-\(content.count - 1)/\(content.count)" }
            let isLast = start + step >= content.count
            return [.reply(start > 0 ? 206 : 200, headers, part)] + (isLast ? [] : [.pause(.milliseconds(20)), byReset ? .reset : .close])
        }
        #expect(bytes == content)
        let starts = requests.compactMap { Self.rangeStart($0, size: content.count) }
        #expect(starts.count == requests.count - 1 && starts.count >= 7)
        // A reset may discard bytes that the kernel still held; a normal close loses none.
        if !byReset { #expect(starts == (1...7).map { $0 * step }) }
    }

    @Test func serverIgnoresRange() throws {
        let (bytes, requests) = try download { [content] request in
            if request.number == 0 { return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<1_000_001])), .close] }
            return [.reply(200, [:], content)]
        }
        #expect(bytes == content)
        #expect(requests.map { $0.headers["range"] } == [nil, "bytes=1000001-2999999"])
    }

    @Test(arguments: ["bytes 1000000-2999999/3000000", "bytes 1000001-2999999/3000001", "bytes 1000001-3000000/3000001", "nonsense", ""])
    func wrongRangeIsNotTaken(contentRange: String) throws {
        let (bytes, requests) = try download { [content] request in
            if request.number == 0 { return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<1_000_001])), .close] }
            if request.headers["range"] != nil { return [.reply(206, ["Content-Range": contentRange], Array(content[1_000_000...]))] }
            return [.reply(200, [:], content)]
        }
        #expect(bytes == content)
        #expect(requests.map { $0.headers["range"] != nil } == [false, true, false])
    }

    @Test func rangeNotSatisfiable() throws {
        let (bytes, _) = try download { [content] request in
            if request.number == 0 { return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<500_000])), .close] }
            return request.headers["range"] != nil ? [.reply(416)] : [.reply(200, [:], content)]
        }
        #expect(bytes == content)
    }

    /// A server may send less of a range than was requested (RFC 9110 §15.3.7).
    @Test func rangeInParts() throws {
        let (bytes, requests) = try download { [content] request in
            guard let start = Self.rangeStart(request, size: content.count) else {
                return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<1_000_000])), .close]
            }
            let end = min(start + 800_000, content.count)
            return [.reply(206, ["Content-Range": "bytes \(start)-\(end - 1)/*"], Array(content[start..<end]))]
        }
        #expect(bytes == content)
        #expect(requests.count == 4)
    }

    @Test func unwantedPartIsRefused() {
        let error = failure { [content] _ in [.reply(206, ["Content-Range": "bytes 0-2999999/3000000"], content)] }
        #expect(error?.kind == .badResponse && error?.status == 206)
    }

    @Test func givesUpWhereNothingMovesOn() {
        let error = failure({ $0.retry.limit = 2 }) { [content] request in
            [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<1000])), .close]
        }
        #expect(error?.kind == .connection)
        #expect(error?.description.contains("/v2/team/app/blobs/sha256:") == true)
    }

    @Test func stalls() throws {
        let (bytes, requests) = try download({ $0.stallTimeout = .milliseconds(150) }) { [content] request in
            guard let start = Self.rangeStart(request, size: content.count) else {
                return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<2_000_000])), .pause(.milliseconds(1200))]
            }
            return [.reply(206, ["Content-Range": "bytes \(start)-2999999/3000000"], Array(content[start...]))]
        }
        #expect(bytes == content)
        #expect(requests.count == 2)
        let error = failure({
            $0.stallTimeout = .milliseconds(80)
            $0.retry.limit = 1
        }) { _ in [.pause(.milliseconds(500))] }
        #expect(error?.kind == .timeout)
        #expect(error?.description.contains("for 0.08 s") == true)
    }

    /// A byte now and then is a stall too.
    @Test func trickle() {
        let error = failure({
            $0.stallTimeout = .milliseconds(120)
            $0.retry.limit = 1
        }) { [content] _ in
            [.reply(200, ["Content-Length": "\(content.count)"])]
                + (0..<20).flatMap { _ in [ScriptedServer.Action.pause(.milliseconds(20)), .send([0])] } + [.close]
        }
        #expect(error?.kind == .timeout)
    }

    // MARK: Wrong lengths

    @Test(arguments: [2_999_999, 3_000_001, 0])
    func announcedLengthIsNotTheDescriptors(length: Int) {
        let error = failure { [content] _ in [.reply(200, [:], Array((content + [0])[..<length]))] }
        #expect(error?.kind == .sizeMismatch)
        #expect(error?.description.contains("has \(length) bytes, but its descriptor says 3000000") == true)
    }

    /// A length that exceeds every integer type is refused at once.
    @Test func announcedLengthIsBeyondAllNumbers() {
        let begun = MonotonicTime.now
        let error = failure { [content] _ in [.reply(200, ["Content-Length": "99999999999999999999999"], content), .pause(.seconds(20))] }
        #expect(error?.kind == .sizeMismatch)
        #expect(MonotonicTime.now - begun < .seconds(10))
    }

    @Test func longerWithoutAnnouncement() {
        let error = failure { [content] _ in [.chunked([:], content + [0])] }
        #expect(error?.kind == .sizeMismatch)
        #expect(error?.description.contains("is longer than the 3000000 bytes") == true)
    }

    @Test func shorterWithoutAnnouncement() {
        let error = failure { [content] _ in [.chunked([:], Array(content.dropLast()))] }
        #expect(error?.kind == .sizeMismatch)
        #expect(error?.description.contains("ends after 2999999 of 3000000 bytes") == true)
    }

    /// The blob is complete; that the end of the last chunk is missing does not matter.
    @Test func bodyWithoutItsEnd() throws {
        let (bytes, requests) = try download { [content] _ in [.chunked([:], content, isEnded: false), .close] }
        #expect(bytes == content)
        #expect(requests.count == 1)
    }

    /// As in HTTP/1.0: the end of the connection is the end of the body, or a broken connection.
    @Test func bodyEndsWithConnection() throws {
        let (bytes, requests) = try download { [content] request in
            guard let start = Self.rangeStart(request, size: content.count) else {
                return [.send(Array("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".utf8) + content[..<1_234_567]), .close]
            }
            return [.reply(206, ["Content-Range": "bytes \(start)-2999999/3000000"], Array(content[start...]))]
        }
        #expect(bytes == content)
        #expect(requests.last?.headers["range"] == "bytes=1234567-2999999")
    }

    // MARK: Statuses

    @Test func unavailableTwice() throws {
        let (bytes, requests) = try download { [content] request in
            request.number < 2 ? [.reply(503, [:], Array("<html>busy</html>".utf8))] : [.reply(200, [:], content)]
        }
        #expect(bytes == content)
        #expect(requests.count == 3)
    }

    @Test func retryAfterIsHonoured() throws {
        let started = MonotonicTime.now
        let (bytes, requests) = try download { [content] request in
            request.number < 1 ? [.reply(429, ["Retry-After": "1"])] : [.reply(200, [:], content)]
        }
        #expect(bytes == content)
        #expect(requests.count == 2)
        #expect(MonotonicTime.now - started >= .seconds(1))
    }

    @Test func retryAfterTooLong() {
        let error = failure { _ in [.reply(429, ["Retry-After": "86400"])] }
        #expect(error?.kind == .rateLimited && error?.status == 429)
        #expect(error?.description.contains("asks to wait 86400 s") == true)
    }

    @Test func notFound() {
        let body = #"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown\nto registry","detail":{}}]}"#
        let error = failure { _ in [.reply(404, ["Content-Type": "application/json"], Array(body.utf8))] }
        #expect(error?.kind == .notFound && error?.status == 404 && error?.code == "BLOB_UNKNOWN")
        #expect(error?.description.contains("404 Not Found (BLOB_UNKNOWN: blob unknown to registry)") == true)
    }

    @Test(arguments: [403, 418, 204])
    func otherStatuses(status: Int) {
        let error = failure { _ in [.reply(status)] }
        #expect(error?.status == status)
    }

    @Test func hugeHeaders() {
        let error = failure { _ in
            var text = "HTTP/1.1 200 OK\r\n"
            for index in 0..<90 { text += "X-\(index): " + String(repeating: "a", count: 1000) + "\r\n" }
            return [.send(Array((text + "Content-Length: 0\r\n\r\n").utf8))]
        }
        #expect(error?.kind == .badResponse)
        #expect(error?.description.contains("65536 bytes of header fields") == true)
    }

    // MARK: Redirects

    @Test func redirectToAnotherHostGetsNoCredentials() throws {
        let (content, digest) = (content, digest)
        let storage = ScriptedServer { _ in [.reply(200, [:], content)] }
        defer { storage.stop() }
        let server = ScriptedServer { request in
            guard request.headers["authorization"] == "Basic dTpzM2NyZXQ=" else {
                return [.reply(401, ["WWW-Authenticate": "Basic realm=x"])]
            }
            // First on the same host, which gets the credentials.
            if request.path.hasPrefix("/v2/") { return [.reply(307, ["Location": "/moved?x=1"])] }
            return [.reply(302, ["Location": "http://\(storage.host)/store/\(digest)?signature=s1gned"])]
        }
        defer { server.stop() }
        let client = try makeClient { $0.credentials = .password(user: "u", password: "s3cret") }
        let reader = try openDownload(client, server.repository(), digest: digest, size: UInt64(content.count))
        #expect(try readAll(reader) == content)
        #expect(server.requests(to: "/moved").map { $0.headers["authorization"] } == ["Basic dTpzM2NyZXQ="])
        #expect(storage.requests.count == 1)
        #expect(storage.requests.first?.headers["authorization"] == nil)
        #expect(storage.requests.first?.query == "signature=s1gned")
    }

    /// A signature in a redirect may have expired: after a break the blob is requested from the registry again.
    @Test func resumesThroughTheRegistry() throws {
        let (content, digest) = (content, digest)
        let storage = ScriptedServer { request in
            guard let start = Self.rangeStart(request, size: content.count) else {
                return [.reply(200, ["Content-Length": "\(content.count)"], Array(content[..<1_500_000])), .close]
            }
            return [.reply(206, ["Content-Range": "bytes \(start)-2999999/3000000"], Array(content[start...]))]
        }
        defer { storage.stop() }
        let server = ScriptedServer { request in [.reply(307, ["Location": "http://\(storage.host)/\(request.number)"])] }
        defer { server.stop() }
        let reader = try openDownload(try makeClient(), server.repository(), digest: digest, size: UInt64(content.count))
        #expect(try readAll(reader) == content)
        #expect(storage.requests.map(\.path) == ["/0", "/1"])
    }

    @Test func errorsAfterARedirectHideItsQuery() throws {
        let storage = ScriptedServer { _ in [.reply(403, [:], Array("<Error>".utf8))] }
        defer { storage.stop() }
        let error = failure { _ in [.reply(307, ["Location": "http://\(storage.host)/object?X-Signature=s1gned"])] }
        #expect(error?.kind == .forbidden)
        #expect(error?.description.contains("http://\(storage.host)/object returned 403") == true)
        #expect(error?.description.contains("s1gned") == false)
    }

    @Test func redirectLoop() {
        let error = failure { request in [.reply(307, ["Location": "/loop"])] }
        #expect(error?.kind == .badResponse)
        #expect(error?.description.contains("more than 10 redirects") == true)
    }

    @Test(arguments: ["", "ftp://127.0.0.1/x", "http://user:pass@127.0.0.1/x"])
    func redirectToNowhere(location: String) {
        let error = failure { _ in [.reply(307, ["Location": location])] }
        #expect(error?.kind == .badResponse && error?.status == 307)
    }

    // MARK: No registry there

    @Test func nobodyListens() throws {
        let server = ScriptedServer { _ in [] }
        server.stop()
        let error = registryError { _ = try openDownload(try makeClient(), server.repository(), digest: digest, size: 1) }
        #expect(error?.kind == .connection)
        #expect(error?.description.contains("cannot reach 127.0.0.1:\(server.port)") == true)
    }

    @Test func plainHTTPOnlyWhereAllowed() throws {
        let server = ScriptedServer { [content] _ in [.reply(200, [:], content)] }
        defer { server.stop() }
        let client = try makeClient { $0.tlsVerify = true }
        let error = registryError { _ = try openDownload(client, server.repository(), digest: digest, size: 1) }
        #expect(error?.kind == .tls || error?.kind == .connection)
        #expect(server.requests.isEmpty)
    }

    /// A server that speaks TLS and breaks the handshake off answers plain HTTP with a 400 like this one of net/http (Go). It is no reason to
    /// do without TLS from now on, and not the failure that helps.
    @Test(arguments: [nil, false]) func aRefusalOfPlainHTTPIsNotTheFailure(tlsVerify: Bool?) throws {
        let server = ScriptedServer { _ in [.reply(400, [:], Array("Client sent an HTTP request to an HTTPS server.\n".utf8))] }
        defer { server.stop() }
        let client = try makeClient {
            $0.tlsVerify = tlsVerify
            $0.retry.limit = 0
        }
        let error = registryError { _ = try openDownload(client, server.repository(), digest: digest, size: 1) }
        #expect(error?.kind == .tls || error?.kind == .connection, "\(String(describing: error))")
        #expect(client.baseURL(of: server.repository()) == nil)
        #expect(server.requests.count == 1)
    }

    /// The same status with the API's errors is the registry's answer.
    @Test func aRegistryWithoutTLSMayRefuseARequest() throws {
        let body = #"{"errors":[{"code":"NAME_INVALID","message":"invalid repository name"}]}"#
        let server = ScriptedServer { _ in [.reply(400, ["Content-Type": "application/json"], Array(body.utf8))] }
        defer { server.stop() }
        let client = try makeClient { $0.retry.limit = 0 }
        let error = registryError { _ = try openDownload(client, server.repository(), digest: digest, size: 1) }
        #expect(error?.status == 400 && error?.code == "NAME_INVALID", "\(String(describing: error))")
        #expect(client.baseURL(of: server.repository()) != nil)
    }

    @Test func cancelled() throws {
        let server = ScriptedServer { _ in [.reply(429, ["Retry-After": "60"])] }
        defer { server.stop() }
        let client = try makeClient()
        let started = MonotonicTime.now
        onThread {
            usleep(100_000)
            client.cancel()
        }
        let error = registryError { _ = try openDownload(client, server.repository(), digest: digest, size: 1) }
        #expect(error?.kind == .cancelled)
        #expect(MonotonicTime.now - started < .seconds(20))
    }
}
