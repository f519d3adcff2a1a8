import ComposefsTestSupport
@preconcurrency import Glibc
import Synchronization

/// Forwards connections to another port of this machine, but never the last few bytes that the server sends before it closes: they, a TLS
/// alert for example, are lost in a reset, as happens while the client is still writing.
final class CuttingRelay: Sendable {
    let port: UInt16
    private let listener: Int32
    private let target: UInt16
    private let count = Mutex(0)

    init(to target: UInt16) {
        self.target = target
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        let fd = listener
        var address = Self.loopback(0)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(fd, $0, length) == 0 && listen(fd, 64) == 0 && getsockname(fd, $0, &length) == 0
            }
        }
        port = isBound ? UInt16(bigEndian: address.sin_port) : 0
        onThread { [self] in
            while true {
                let client = accept(listener, nil, nil)
                guard client >= 0 else { break }
                count.withLock { $0 += 1 }
                onThread { [self] in relay(client) }
            }
            close(listener)
        }
    }

    var host: String { "127.0.0.1:\(port)" }
    var connections: Int { count.withLock { $0 } }
    func stop() { shutdown(listener, Int32(SHUT_RDWR)) }

    private static func loopback(_ port: UInt16) -> sockaddr_in {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return address
    }

    private func relay(_ client: Int32) {
        defer { close(client) }
        let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(server) }
        var address = Self.loopback(target)
        let isConnected = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(server, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard isConnected else { return }
        var held: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            var ends = [pollfd(fd: client, events: Int16(POLLIN), revents: 0), pollfd(fd: server, events: Int16(POLLIN), revents: 0)]
            guard poll(&ends, 2, -1) > 0 else { return }
            if ends[0].revents != 0 {
                let count = read(client, &buffer, buffer.count)
                guard count > 0, send(server, buffer, count, Int32(MSG_NOSIGNAL)) == count else { return }
            }
            if ends[1].revents != 0 {
                let count = read(server, &buffer, buffer.count)
                guard count > 0 else {
                    var option = linger(l_onoff: 1, l_linger: 0)
                    setsockopt(client, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
                    return
                }
                held += buffer[..<count]
                // An alert has 24 bytes in TLS 1.3, and 7 unencrypted.
                if held.count <= 32 { continue }
                guard send(client, held, held.count, Int32(MSG_NOSIGNAL)) == held.count else { return }
                held = []
            }
        }
    }
}
