internal import ComposefsConcurrency
internal import ComposefsLinuxSystem
@preconcurrency internal import Glibc
internal import Synchronization
internal import Testing

/// An HTTP/1.1 server on loopback whose responses, valid or not, are scripted by a test. It does not support TLS and closes the connection
/// of a client that tries it.
package final class ScriptedServer: Sendable {
    package struct Request: Sendable {
        package var method = ""
        /// Without the query.
        package var path = ""
        package var query = ""
        /// Names in lower case.
        package var headers: [String: String] = [:]
        package var body: [UInt8] = []
        /// The number of earlier requests for the same path.
        package var number = 0
        /// Whether `breaking` ended the body early.
        package var isBroken = false
    }

    package enum Action: Sendable {
        case send([UInt8])
        case pause(Duration)
        /// Closes the connection normally, after the data that was sent.
        case close
        /// Ends the connection with RST.
        case reset
    }

    package typealias Handler = @Sendable (Request) -> [Action]
    /// The number of bytes of a request's body to read before the handler is called; nil for all.
    package typealias Breaking = @Sendable (Request) -> Int?

    private let listener = LoopbackListener()
    private let handler: Handler
    private let breaking: Breaking
    private let log = Mutex<[Request]>([])

    package init(breaking: @escaping Breaking = { _ in nil }, _ handler: @escaping Handler) {
        self.breaking = breaking
        self.handler = handler
        listener.start { [self] fd in
            var on: Int32 = 1
            setsockopt(fd, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
            serve(fd)
        }
    }

    package var port: UInt16 { listener.port }
    /// `127.0.0.1:PORT`.
    package var host: String { "127.0.0.1:\(port)" }
    package var requests: [Request] { log.withLock { $0 } }
    package func requests(to path: String) -> [Request] { requests.filter { $0.path == path } }

    /// Ends the threads. Every test must call it.
    package func stop() { listener.stop() }

    private func serve(_ fd: Int32) {
        var held: [UInt8] = []
        while let request = readRequest(fd, &held) {
            defer { if request.isBroken { held = [] } }
            let numbered = log.withLock { log in
                var request = request
                request.number = log.count { $0.path == request.path }
                log.append(request)
                return request
            }
            for action in handler(numbered) {
                switch action {
                case .send(let bytes):
                    guard write(fd, bytes) else { return }
                case .pause(let duration):
                    usleep(UInt32(duration.components.seconds * 1_000_000 + duration.components.attoseconds / 1_000_000_000_000))
                case .close: return
                case .reset:
                    var option = linger(l_onoff: 1, l_linger: 0)
                    setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
                    return
                }
            }
        }
    }

    private func write(_ fd: Int32, _ bytes: [UInt8]) -> Bool {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes {
                send(fd, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            sent += count
        }
        return true
    }

    private func fillMore(_ fd: Int32, _ held: inout [UInt8]) -> Bool {
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        let count = read(fd, &chunk, chunk.count)
        guard count > 0 else { return false }
        held += chunk[..<count]
        return true
    }

    private func readRequest(_ fd: Int32, _ held: inout [UInt8]) -> Request? {
        func fill() -> Bool { fillMore(fd, &held) }
        var end: Int?
        while end == nil {
            if held.first == 0x16 { return nil }  // a TLS handshake
            end = held.indices.first { $0 + 4 <= held.count && Array(held[$0..<$0 + 4]) == [13, 10, 13, 10] }
            if end == nil, !fill() { return nil }
        }
        let lines = String(decoding: held[..<(end ?? 0)], as: UTF8.self).split(separator: "\r\n", omittingEmptySubsequences: false)
        held.removeFirst((end ?? 0) + 4)
        var request = Request()
        let words = lines[0].split(separator: " ")
        guard words.count == 3 else { return nil }
        request.method = String(words[0])
        let target = words[1].split(separator: "?", maxSplits: 1)
        request.path = String(target[0])
        request.query = target.count > 1 ? String(target[1]) : ""
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            var value = line[line.index(after: colon)...]
            while value.first == " " { value.removeFirst() }
            request.headers[line[..<colon].lowercased()] = String(value)
        }
        request.number = log.withLock { log in log.count { $0.path == request.path } }
        let limit = breaking(request) ?? .max
        if request.headers["transfer-encoding"]?.lowercased() == "chunked" {
            guard readChunks(fd, &request, limit, &held) else { return nil }
            return request
        }
        let length = request.headers["content-length"].flatMap { Int($0) } ?? 0
        while held.count < min(length, limit) { guard fill() else { return nil } }
        request.isBroken = length > limit
        request.body = Array(held[..<min(length, limit)])
        held.removeFirst(min(length, limit))
        return request
    }

    /// RFC 9112, section 7.1, without extensions and trailers.
    private func readChunks(_ fd: Int32, _ request: inout Request, _ limit: Int, _ held: inout [UInt8]) -> Bool {
        func fill() -> Bool { fillMore(fd, &held) }
        while true {
            var end: Int?
            while end == nil {
                end = held.indices.dropLast().first { held[$0] == 13 && held[$0 + 1] == 10 }
                if end == nil, !fill() { return false }
            }
            guard let size = Int(String(decoding: held[..<(end ?? 0)], as: UTF8.self), radix: 16) else { return false }
            held.removeFirst((end ?? 0) + 2)
            while held.count < size + 2 { guard fill() else { return false } }
            request.body += held[..<size]
            held.removeFirst(size + 2)
            if request.body.count >= limit {
                request.body = Array(request.body.prefix(limit))
                request.isBroken = true
                return true
            }
            if size == 0 { return true }
        }
    }
}

/// Runs `body` on a new thread, outside of the pool that the tests block.
package func onThread(_ body: @escaping @Sendable () -> Void) {
    #expect(startThread("test", body))
}

extension ScriptedServer.Action {
    /// A response with the correct Content-Length, unless `headers` contain one.
    package static func reply(_ status: Int, _ headers: [String: String] = [:], _ body: [UInt8] = []) -> Self {
        var text = "HTTP/1.1 \(status) Scripted\r\n"
        if headers["Content-Length"] == nil, headers["Transfer-Encoding"] == nil { text += "Content-Length: \(body.count)\r\n" }
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        return .send(Array((text + "\r\n").utf8) + body)
    }

    /// A chunked response in one chunk; `isEnded` false leaves the last chunk out.
    package static func chunked(_ headers: [String: String] = [:], _ body: [UInt8], isEnded: Bool = true) -> Self {
        var text = "HTTP/1.1 200 Scripted\r\nTransfer-Encoding: chunked\r\n"
        for (name, value) in headers { text += "\(name): \(value)\r\n" }
        let chunk = Array("\r\n\(String(body.count, radix: 16))\r\n".utf8) + body + Array("\r\n".utf8)
        return .send(Array(text.utf8) + chunk + (isEnded ? Array("0\r\n\r\n".utf8) : []))
    }
}
