import ComposefsTestSupport
@preconcurrency import Glibc
import Synchronization

/// Forwards connections to another port of this machine, but never the last few bytes that the server sends before it closes: they, a TLS
/// alert for example, are lost in a reset, as happens while the client is still writing.
final class CuttingRelay: Sendable {
    private let listener = LoopbackListener()
    private let count = Mutex(0)

    init(to target: UInt16) {
        listener.start { [self] client in
            count.withLock { $0 += 1 }
            Self.relay(client, to: target)
        }
    }

    var port: UInt16 { listener.port }
    var host: String { "127.0.0.1:\(port)" }
    var connections: Int { count.withLock { $0 } }
    func stop() { listener.stop() }

    private static func relay(_ client: Int32, to target: UInt16) {
        guard let server = Loopback.connect(target) else { return }
        defer { close(server) }
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
