import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsTestSupport
@preconcurrency import Glibc
import Synchronization
import Testing

/// A registry on loopback that serves the first image of a layout as `team/app:latest` and others as its referrers, counts what it sends,
/// and can be a bad link: slow, or one that breaks all connections each time so many bytes have gone over it.
final class LayoutServer: Sendable {
    struct Link: Sendable {
        /// The number of blob bytes after which all connections are reset, repeatedly.
        var breaksEvery: UInt64?
        /// Whether connections are aborted at that moment, including data in transit.
        var tearsDown = false
        /// The rate of each connection in bytes per second.
        var rate: Int?
    }

    private struct State {
        var link = Link()
        var sent: [String: UInt64] = [:]
        var requests: [(blob: String, offset: UInt64)] = []
        var total: UInt64 = 0
        var breaks = 0
        /// The connections over which a blob is sent.
        var underWay: Set<Int32> = []
    }

    private let layout: String
    private let manifest: String
    /// The other manifests of the layout.
    private let referrers: [JSONValue]
    private let listener: LoopbackListener
    private let state: Mutex<State>

    init(layout: String, _ link: Link = Link()) throws {
        self.layout = layout
        let index = try JSONValue.parse(readFile(layout + "/index.json"))
        let entries = index["manifests"]?.array ?? []
        guard let digest = entries.first?["digest"]?.string else { throw RunFailure(description: "no manifest") }
        manifest = digest
        referrers = Array(entries.dropFirst())
        state = Mutex(State(link: link))
        // With a small buffer a reset discards little data.
        listener = LoopbackListener(sendBuffer: link.tearsDown ? 16 << 10 : 64 << 10)
        guard listener.port != 0 else { throw RunFailure(description: "cannot listen on 127.0.0.1") }
        listener.start { [self] fd in serve(fd) }
    }

    var port: UInt16 { listener.port }
    var reference: String { "127.0.0.1:\(port)/team/app:latest" }
    /// The number of bytes that were sent of each blob, by the hex digits of its digest.
    var sent: [String: UInt64] { state.withLock { $0.sent } }
    /// Requests for blobs, with the first requested byte.
    var requests: [(blob: String, offset: UInt64)] { state.withLock { $0.requests } }
    var breaks: Int { state.withLock { $0.breaks } }
    var link: Link {
        get { state.withLock { $0.link } }
        set { state.withLock { $0.link = newValue } }
    }

    func forget() {
        state.withLock {
            $0.sent = [:]
            $0.requests = []
        }
    }

    /// Every test must call it.
    func stop() { listener.stop() }

    private func serve(_ fd: Int32) {
        while let (path, offset) = readRequest(fd) {
            let name = path.split(separator: "/").last.map(String.init) ?? ""
            let isAnswered: Bool
            if path == "/v2/team/app/manifests/latest" || path == "/v2/team/app/manifests/" + manifest {
                isAnswered = sendManifest(fd, manifest)
            } else if path.hasPrefix("/v2/team/app/manifests/"), referrers.contains(where: { $0["digest"]?.string == name }) {
                isAnswered = sendManifest(fd, name)
            } else if path == "/v2/team/app/referrers/" + manifest, !referrers.isEmpty {
                isAnswered = sendReferrers(fd)
            } else if path.hasPrefix("/v2/team/app/blobs/sha256:") {
                isAnswered = sendBlob(fd, String(name.dropFirst(7)), from: offset)
            } else {
                isAnswered = send(fd, Array("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".utf8))
            }
            guard isAnswered else { return }
        }
    }

    private func sendReferrers(_ fd: Int32) -> Bool {
        let type = "application/vnd.oci.image.index.v1+json"
        let index: JSONValue = ["schemaVersion": 2, "mediaType": .string(type), "manifests": .array(referrers)]
        let bytes = Array(index.description.utf8)
        return send(fd, Array("HTTP/1.1 200 OK\r\nContent-Type: \(type)\r\nContent-Length: \(bytes.count)\r\n\r\n".utf8) + bytes)
    }

    private func sendManifest(_ fd: Int32, _ digest: String) -> Bool {
        guard let bytes = try? readFile(layout + "/blobs/sha256/" + digest.dropFirst(7)) else { return false }
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nDocker-Content-Digest: \(digest)\r\n"
            + "Content-Length: \(bytes.count)\r\n\r\n"
        return send(fd, Array(head.utf8) + bytes)
    }

    private func sendBlob(_ fd: Int32, _ hex: String, from offset: UInt64) -> Bool {
        let file = open(layout + "/blobs/sha256/" + hex, O_RDONLY)
        guard file >= 0 else { return false }
        defer { close(file) }
        let size = UInt64(max(0, lseek(file, 0, SEEK_END)))
        state.withLock { $0.requests.append((hex, offset)) }
        let head =
            offset > 0
            ? "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes \(offset)-\(size - 1)/\(size)\r\n" : "HTTP/1.1 200 OK\r\n"
        guard send(fd, Array((head + "Content-Length: \(size - offset)\r\n\r\n").utf8)) else { return false }
        state.withLock { _ = $0.underWay.insert(fd) }
        defer { state.withLock { _ = $0.underWay.remove(fd) } }
        var position = offset
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while position < size {
            let (rate, isBroken) = state.withLock { state -> (Int?, Bool) in
                (state.link.rate, isDue(&state))
            }
            if isBroken { return false }
            let count = pread(file, &chunk, rate == nil ? chunk.count : 16 << 10, off_t(position))
            guard count > 0, send(fd, Array(chunk[..<count]), of: hex) else { return false }
            position += UInt64(count)
            if let rate { usleep(UInt32(count * 1_000_000 / rate)) }
        }
        return true
    }

    /// Breaks the link when due: resets every connection and discards data in transit.
    private func isDue(_ state: inout State) -> Bool {
        guard let step = state.link.breaksEvery, state.total / step > UInt64(state.breaks) else { return false }
        state.breaks += 1
        if state.link.tearsDown {
            for fd in state.underWay { Self.tear(fd) }
            return true
        }
        listener.forEachConnection { fd in
            var option = linger(l_onoff: 1, l_linger: 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
            shutdown(fd, Int32(SHUT_RDWR))
        }
        return true
    }

    /// Resets a connection at once. What the kernel has accepted counts as sent, although some of it is lost: how much of it is on the wire at the
    /// moment of the reset cannot be told.
    private static func tear(_ fd: Int32) {
        // tcp(7): connecting to AF_UNSPEC resets the connection, and leaves the descriptor to its thread.
        var unspecified = sockaddr()
        unspecified.sa_family = sa_family_t(AF_UNSPEC)
        connect(fd, &unspecified, socklen_t(MemoryLayout<sockaddr>.size))
    }

    /// Counts the bytes of blobs that the kernel accepts.
    private func send(_ fd: Int32, _ bytes: [UInt8], of blob: String? = nil) -> Bool {
        var sent = 0
        while sent < bytes.count {
            // A connection that a thread waits for cannot be closed safely, so none waits.
            let count = bytes.withUnsafeBytes {
                Glibc.send(fd, $0.baseAddress?.advanced(by: sent), bytes.count - sent, Int32(MSG_NOSIGNAL | MSG_DONTWAIT))
            }
            if count < 0, errno == EAGAIN {
                var ready = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
                poll(&ready, 1, -1)
                continue
            }
            guard count > 0 else { return false }
            sent += count
            if let blob {
                state.withLock {
                    $0.sent[blob, default: 0] += UInt64(count)
                    $0.total += UInt64(count)
                }
            }
        }
        return true
    }

    /// The path, and the first byte of the requested range.
    private func readRequest(_ fd: Int32) -> (path: String, offset: UInt64)? {
        var held: [UInt8] = []
        var byte: UInt8 = 0
        while !held.suffix(4).elementsEqual([13, 10, 13, 10]) {
            guard read(fd, &byte, 1) == 1, held.count < 1 << 16, held.first ?? byte != 0x16 else { return nil }
            held.append(byte)
        }
        let lines = String(decoding: held, as: UTF8.self).split(separator: "\r\n")
        let words = lines[0].split(separator: " ")
        guard words.count == 3 else { return nil }
        let range = lines.first { $0.lowercased().hasPrefix("range: bytes=") }
        return (String(words[1]), range.flatMap { UInt64($0.dropFirst(13).prefix { $0 != "-" }) } ?? 0)
    }
}

/// Writes a layout of layers that are one file of random bytes each, uncompressed, without holding them in memory. Returns the layers'
/// sizes by the hex digits of their digests.
func writeRandomLayout(_ folder: String, layers: Int, fileSize: Int) throws -> [String: UInt64] {
    precondition(fileSize % 512 == 0)
    _ = try launch("mkdir", ["-p", folder + "/blobs/sha256"])
    let random = open("/dev/urandom", O_RDONLY)
    guard random >= 0 else { throw RunFailure(description: "/dev/urandom: \(String(cString: strerror(errno)))") }
    defer { close(random) }
    var sizes: [String: UInt64] = [:]
    var digests: [ContentDigest] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 20)
    for layer in 0..<layers {
        // A header for that size, without the content.
        let header = Array(tarArchive([TarMember(name: "file\(layer)", content: [UInt8](repeating: 0, count: fileSize))]).prefix(512))
        let path = folder + "/blobs/sha256/layer"
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
        guard file >= 0 else { throw RunFailure(description: "\(path): \(String(cString: strerror(errno)))") }
        defer { close(file) }
        var hasher = DigestHasher(.sha256)
        func put(_ bytes: UnsafeRawBufferPointer) throws {
            hasher.update(bytes)
            guard write(file, bytes.baseAddress, bytes.count) == bytes.count else { throw RunFailure(description: "\(path): short write") }
        }
        try header.withUnsafeBytes { try put($0) }
        var left = fileSize
        while left > 0 {
            // Fewer bytes if a signal is pending (random(4)).
            let count = read(random, &buffer, min(left, buffer.count))
            guard count > 0 || errno == EINTR else { throw RunFailure(description: "/dev/urandom: \(String(cString: strerror(errno)))") }
            if count <= 0 { continue }
            try buffer.withUnsafeBytes { try put(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            left -= count
        }
        try [UInt8](repeating: 0, count: 1024).withUnsafeBytes { try put($0) }
        let digest = hasher.finalize()
        guard rename(path, folder + "/blobs/sha256/" + digest.hex) == 0 else { throw RunFailure(description: "rename") }
        sizes[digest.hex] = UInt64(fileSize + 1536)
        digests.append(digest)
    }
    let config = Array(
        (#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["#
            + digests.map { "\"\($0)\"" }.joined(separator: ",") + "]}}").utf8)
    let configDigest = ContentDigest.of(config)
    try writeFile(folder + "/blobs/sha256/" + configDigest.hex, config)
    sizes[configDigest.hex] = UInt64(config.count)
    let descriptors = digests.map {
        #"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\#($0)","size":\#(fileSize + 1536)}"#
    }
    let manifest = Array(
        (#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"#
            + #""application/vnd.oci.image.config.v1+json","digest":"\#(configDigest)","size":\#(config.count)},"layers":["#
            + descriptors.joined(separator: ",") + "]}").utf8)
    let manifestDigest = ContentDigest.of(manifest)
    try writeFile(folder + "/blobs/sha256/" + manifestDigest.hex, manifest)
    try writeFile(folder + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
    try writeFile(
        folder + "/index.json",
        Array(
            (#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"#
                + #""\#(manifestDigest)","size":\#(manifest.count)}]}"#).utf8))
    return sizes
}
