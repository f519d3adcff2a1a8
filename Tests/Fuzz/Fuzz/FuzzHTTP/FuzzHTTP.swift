import ComposefsBytes
import ComposefsFuzzSupport
import ComposefsHTTPClient
import ComposefsHashing
import ComposefsOCIModel
import ComposefsRegistry
import ComposefsTransports
import Glibc

private let secret = "s3cr3t-passw0rd"

/// A registry whose answers the bytes determine: status lines, header fields, challenges, redirects, tokens and bodies. Reads a manifest, the
/// referrers and a blob: no trap, no hang, printable errors without the password, and only bytes that match their digest are accepted.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var choices = Choices(start, count)
    checkFields(&choices)
    server.answers((0..<12).map { _ in choices.isAtEnd ? nil : answer(&choices) }.compactMap(\.self))
    var options = RegistryOptions()
    options.credentials = .password(user: "user", password: secret)
    options.connectTimeout = .seconds(1)
    options.stallTimeout = .seconds(1)
    options.requestTimeout = .seconds(1)
    options.retry.limit = 1
    options.retry.unreachableLimit = 0
    options.retry.baseDelay = .milliseconds(1)
    options.retry.maximumDelay = .milliseconds(1)
    options.retry.maximumRetryAfter = .milliseconds(1)
    do {
        let client = try RegistryClient(options)
        let source = RegistryImageSource(try RegistryReference(parsing: "127.0.0.1:\(server.port)/a/b:t"), client: client)
        attempt {
            let found = try source.rootManifest()
            if let expected = found.expected { _ = expected.digest.hex }
            _ = try? ManifestDocument(parsing: found.bytes, mediaType: found.mediaType)
        }
        attempt { _ = try source.referrers(of: .of(blob), artifactType: nil) }
        attempt {
            let reader = try source.openBlob(Descriptor(mediaType: "text/plain", digest: .of(blob), size: UInt64(blob.count)))
            var buffer = [UInt8](repeating: 0, count: 4096)
            var total = 0
            while total < 1 << 20 {
                let count = try buffer.withUnsafeMutableBytes { try reader.read(into: $0) }
                if count == 0 { break }
                total += count
            }
        }
        client.cancel()
    } catch {
        requirePrintable(error)
    }
    return 0
}

private func attempt(_ body: () throws -> Void) {
    do { try body() } catch {
        requirePrintable(error)
        let text = "\(error)"
        precondition(!text.contains(secret) && !text.contains(Base64.encode(Array("user:\(secret)".utf8))), "a secret in a message")
    }
}

/// The parsers of single fields.
private func checkFields(_ choices: inout Choices) {
    var head = ResponseHead(status: 200)
    let names = ["content-length", "retry-after", "date", "content-type", "location"]
    for _ in 0..<choices.below(4) {
        head.fields.append((choices.one(of: names), String(decoding: choices.bytes(upTo: 60), as: UTF8.self)))
    }
    if let wait = head.retryAfter { precondition(wait >= .zero, "a negative time") }
    _ = head.contentLength
    _ = head.mediaType
    _ = head.endsWithConnection
    let text = String(decoding: choices.bytes(upTo: 40), as: UTF8.self)
    if let range = ContentRange(text) { precondition(range.first <= range.last && range.total.map { range.last < $0 } ?? true) }
    if let base = HTTPURL("http://127.0.0.1:5000/v2/a/b/manifests/t"), let next = base.resolving(text) {
        precondition(next.scheme == "http" || next.scheme == "https", "another scheme")
        precondition(HTTPURL(next.text) == next, "another URL after parsing it again")
        precondition(next.display.unicodeScalars.allSatisfy { $0.value >= 0x20 }, "an unprintable URL")
        _ = next.target
    }
}

// MARK: Answers

private let blob = Array("hello".utf8)
private let manifest = Array(
    (#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","#
        + #""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#).utf8)

private func answer(_ choices: inout Choices) -> [UInt8] {
    if choices.rarely(12) { return choices.bytes(upTo: 250) }
    let here = "127.0.0.1:\(server.port)"
    let status =
        choices.rarely(10)
        ? Int(choices.integer() % 1000) : choices.one(of: [200, 401, 302, 307, 206, 404, 429, 503, 301, 308, 403, 416, 400, 204, 304, 100])
    let index =
        #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"a/b","digest":"\#(ContentDigest.of(blob))","size":5}]}"#
    var body = choices.one(of: [
        manifest, blob, Array(#"{"token":"abc","expires_in":60}"#.utf8),
        Array(#"{"access_token":"x","expires_in":-9223372036854775808}"#.utf8),
        Array(index.utf8), Array(#"{"errors":[{"code":"DENIED","message":"no\u001b[31m"}]}"#.utf8), Array("<html>no</html>".utf8), [],
    ])
    if choices.rarely(6) { body = choices.bytes(upTo: 250) }
    var head = "HTTP/1.1 \(status) \(choices.rarely(20) ? "\u{1b}[31m" : "OK")\r\n"
    func field(_ name: String, _ value: String) { head += "\(name): \(value)\r\n" }
    for _ in 0..<choices.below(6) {
        switch choices.below(11) {
        case 0:
            field(
                "Content-Type",
                choices.one(of: [
                    "application/vnd.oci.image.manifest.v1+json", "application/json; charset=utf-8",
                    "application/vnd.oci.image.index.v1+json", "text/html", "", ";",
                ]))
        case 1:
            field(
                "WWW-Authenticate",
                choices.one(of: [
                    #"Bearer realm="http://\#(here)/token",service="s",scope="repository:a/b:pull""#, #"Basic realm="x""#, "Bearer",
                    "Negotiate abc==, Basic realm=x",
                    #"Bearer realm="https://\#(here)/token",error="invalid_token""#, #"Bearer realm="/token""#,
                    #"Bearer realm="file:///etc/passwd""#,
                    #"Bearer realm="http://user:pw@\#(here)/token",service="\"#,
                ]))
        case 2: field("WWW-Authenticate", String(decoding: choices.bytes(upTo: 80).filter { $0 != 0x0a && $0 != 0x0d }, as: UTF8.self))
        case 3:
            field(
                "Location",
                choices.one(of: [
                    "/v2/a/b/manifests/t", "http://\(here)/v2/c/d/blobs/x", "//\(here)/x", "https://\(here)/x", "?a=b", "", "ftp://x/",
                    "http://[::1/", "http://\(here)/v2/",
                    "http://other.example/v2/a/b/manifests/t",
                ]))
        case 4: field("Location", String(decoding: choices.bytes(upTo: 60).filter { $0 != 0x0a && $0 != 0x0d }, as: UTF8.self))
        case 5:
            field(
                "Docker-Content-Digest",
                choices.one(of: [ContentDigest.of(manifest).description, ContentDigest.of(blob).description, "sha256:x", "", "md5:00"]))
        case 6: field("Retry-After", choices.one(of: ["0", "1", "99999999999999999999", "-1", "x", "Fri, 31 Dec 9999 23:59:59 GMT"]))
        case 7:
            field(
                "Content-Range",
                choices.one(of: ["bytes 0-4/5", "bytes 1-4/5", "bytes 0-0/*", "bytes 5-4/5", "x", "bytes 0-18446744073709551615/*"]))
        case 8:
            field(
                "Link",
                choices.one(of: [
                    #"</v2/a/b/referrers/x?n=1>; rel="next""#, #"<http://other.example/>; rel=next"#, "<", #"<?a=b>; rel="next""#,
                    "x; <y>; rel=next",
                ]))
        case 9: field("Content-Encoding", choices.one(of: ["gzip", "identity", "br", "x"]))
        default:
            field(
                choices.one(of: ["X", "Set-Cookie", "Date", "ETag", "Accept-Ranges", "Docker-Distribution-API-Version"]),
                String(decoding: choices.bytes(upTo: 100).filter { $0 != 0x0a && $0 != 0x0d }, as: UTF8.self))
        }
    }
    if choices.rarely(6) {
        field("Transfer-Encoding", "chunked")
        let size = choices.rarely(4) ? "ffffffffffffffff" : String(body.count, radix: 16)
        body = Array("\(size)\r\n".utf8) + body + Array((choices.rarely(4) ? "" : "\r\n0\r\n\r\n").utf8)
    } else if !choices.rarely(8) {
        field(
            "Content-Length",
            choices.rarely(10) ? choices.one(of: ["-1", "x", "18446744073709551616", "5000000000", "1"]) : "\(body.count)")
    }
    return Array((head + "\r\n").utf8) + body
}

// MARK: Server

/// Answers one request after the other with prepared bytes, and closes the connection after each.
private final class Server: @unchecked Sendable {
    private(set) var port: UInt16 = 0
    private let listener: Int32
    private var prepared: [[UInt8]] = []
    private var lock = pthread_mutex_t()

    init() {
        signal(SIGPIPE, SIG_IGN)
        pthread_mutex_init(&lock, nil)
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let fd = listener
        let isReady = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { generic -> Bool in
                bind(fd, generic, length) == 0 && listen(fd, 64) == 0 && getsockname(fd, generic, &length) == 0
            }
        }
        guard isReady else { fatalError("no socket") }
        port = UInt16(bigEndian: address.sin_port)
        // Whatever host a redirect names, its requests come here.
        for name in ["http_proxy", "https_proxy", "all_proxy"] { setenv(name, "http://127.0.0.1:\(port)", 1) }
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { _ in
                server.serve()
                return nil
            }, nil)
    }

    func answers(_ answers: [[UInt8]]) {
        pthread_mutex_lock(&lock)
        prepared = answers.reversed()
        pthread_mutex_unlock(&lock)
    }

    private func next() -> [UInt8] {
        pthread_mutex_lock(&lock)
        defer { pthread_mutex_unlock(&lock) }
        return prepared.popLast() ?? Array("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".utf8)
    }

    fileprivate func serve() {
        var buffer = [UInt8](repeating: 0, count: 16384)
        while true {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { continue }
            var limit = timeval(tv_sec: 0, tv_usec: 200_000)
            setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
            var request: [UInt8] = []
            while request.count < 1 << 16, !ends(request) {
                let count = read(connection, &buffer, buffer.count)
                if count <= 0 { break }
                request += buffer[..<count]
                // The beginning of TLS.
                if request[0] < 0x41 { break }
            }
            let answer = next()
            _ = write(connection, answer, answer.count)
            close(connection)
        }
    }

    private func ends(_ request: [UInt8]) -> Bool { request.count >= 4 && request.suffix(4).elementsEqual([13, 10, 13, 10]) }
}

private let server = Server()
