internal import ComposefsConcurrency
@preconcurrency internal import Glibc
internal import Synchronization

/// TCP sockets on 127.0.0.1.
package enum Loopback {
    /// A listening socket on a free port; nil if the kernel refuses one.
    ///
    /// - Parameter sendBuffer: the size of the send buffers of its connections in bytes, which the kernel doubles; nil for the default.
    package static func listen(sendBuffer: Int32? = nil) -> (descriptor: Int32, port: UInt16)? {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        if var sendBuffer { setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sendBuffer, socklen_t(MemoryLayout<Int32>.size)) }
        guard withAddress(0, { bind(fd, $0, $1) == 0 }), Glibc.listen(fd, 64) == 0, let port = port(of: fd) else {
            close(fd)
            return nil
        }
        return (fd, port)
    }

    /// A socket that is connected to a port; nil if nothing listens there.
    package static func connect(_ port: UInt16) -> Int32? {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard withAddress(port, { Glibc.connect(fd, $0, $1) == 0 }) else {
            close(fd)
            return nil
        }
        return fd
    }

    /// Whether a server listens on a port within ten seconds.
    package static func waitUntilListening(_ port: UInt16) -> Bool {
        for _ in 0..<400 {
            if let fd = connect(port) {
                close(fd)
                return true
            }
            usleep(25_000)
        }
        return false
    }

    /// A port that nothing listens on at this moment; 0 if there is none.
    package static func freePort() -> UInt16 {
        guard let (fd, port) = listen() else { return 0 }
        close(fd)
        return port
    }

    private static func withAddress<Value>(_ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value) -> Value {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    private static func port(of fd: Int32) -> UInt16? {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isKnown = withUnsafeMutablePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(fd, $0, &length) == 0 }
        }
        return isKnown ? UInt16(bigEndian: address.sin_port) : nil
    }
}

/// Accepts connections on a free port of 127.0.0.1, and serves each on a thread of its own.
package final class LoopbackListener: Sendable {
    /// 0 if the kernel refused to listen. A client then gets an error.
    package let port: UInt16
    private let descriptor: Int32
    private let connections = Mutex<Set<Int32>>([])

    /// - Parameter sendBuffer: as for `Loopback.listen`.
    package init(sendBuffer: Int32? = nil) {
        (descriptor, port) = Loopback.listen(sendBuffer: sendBuffer) ?? (-1, 0)
    }

    /// Starts to accept connections.
    ///
    /// - Parameter serve: called with each connection, which is closed when it returns.
    package func start(_ serve: @escaping @Sendable (Int32) -> Void) {
        onThread { [self] in
            while true {
                let fd = accept(descriptor, nil, nil)
                guard fd >= 0 else { break }
                _ = connections.withLock { $0.insert(fd) }
                onThread { [self] in
                    serve(fd)
                    // Removed first: the number belongs to another file as soon as it is closed.
                    _ = connections.withLock { $0.remove(fd) }
                    close(fd)
                }
            }
            close(descriptor)
        }
    }

    /// Calls `body` with each open connection. None is closed meanwhile.
    package func forEachConnection(_ body: (Int32) -> Void) { connections.withLock { $0.forEach(body) } }

    /// Ends the threads. Every test must call it.
    package func stop() {
        shutdown(descriptor, Int32(SHUT_RDWR))
        forEachConnection { shutdown($0, Int32(SHUT_RDWR)) }
    }
}
