public import ComposefsBytes
internal import ComposefsCLinux

/// A descriptor that several values may hold: one that a message passes, or one that waits with others for events. It is closed when the last
/// of them is gone.
public final class SharedDescriptor: Sendable {
    public let descriptor: FileDescriptor

    /// Takes ownership of an open descriptor.
    public init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }
}

/// What one call of `LocalConnection.receive` has received.
public struct ReceivedBytes: Sendable {
    /// The number of bytes; 0 if the peer sends nothing more.
    public var count: Int
    /// The descriptors that came with the last of these bytes (SCM_RIGHTS): the kernel ends a read after a message with descriptors.
    public var descriptors: [SharedDescriptor]
    /// Whether the kernel has dropped descriptors: this process may not open more.
    public var isTruncated: Bool
}

/// A connected stream socket of the local machine (unix(7)). No call waits; see `FileDescriptor.wait`. Copies share the socket.
public struct LocalConnection: Sendable {
    /// For `FileDescriptor.wait`.
    public let shared: SharedDescriptor
    /// The largest number of descriptors that a message can have (SCM_MAX_FD).
    public static let mostDescriptors = 253

    /// Takes ownership of a connected socket.
    public init(owning descriptor: consuming FileDescriptor) { shared = SharedDescriptor(descriptor) }

    public init(_ shared: SharedDescriptor) { self.shared = shared }

    private var raw: Int32 { shared.descriptor.raw }

    /// Connects to the socket at a path (connect(2)). ECONNREFUSED means that no process listens there; EAGAIN, that its queue is full.
    public static func connect(to path: ByteString) throws(SystemError) -> LocalConnection {
        let socket = try makeSocket()
        let result = path.bytes.withUnsafeBytes { cl_connect_local(socket.raw, $0.baseAddress, $0.count) }
        guard result >= 0 else { throw SystemError("connect to", path, Errno(result: result)) }
        return LocalConnection(owning: socket)
    }

    /// Receives what is there, at most the buffer's size (recvmsg(2)). Descriptors are closed on exec. Nil if nothing is there.
    public func receive(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> ReceivedBytes? {
        let raw = raw
        return try withUnsafeTemporaryAllocation(of: Int32.self, capacity: Self.mostDescriptors) {
            passed -> Result<ReceivedBytes?, SystemError> in
            var number = 0
            var truncated: Int32 = 0
            let count = Kernel.call(.open, raw) {
                cl_receive_with_descriptors(raw, buffer.baseAddress, buffer.count, passed.baseAddress, &number, &truncated)
            }
            if count < 0, Errno(result: count) == .tryAgain { return .success(nil) }
            guard count >= 0 else { return .failure(SystemError(operation: "receive a message", errno: Errno(result: count))) }
            let descriptors = passed[..<min(number, passed.count)].map { SharedDescriptor(FileDescriptor(owning: $0)) }
            return .success(ReceivedBytes(count: count, descriptors: descriptors, isTruncated: truncated != 0))
        }.get()
    }

    /// Sends as many bytes as the kernel accepts, and descriptors with the first of them (sendmsg(2)). Returns 0 if it accepts none now; then the
    /// descriptors are not sent either. EPIPE if the peer has closed the connection; the signal is not raised.
    ///
    /// - Parameter descriptors: at most `mostDescriptors`, else EINVAL.
    public func send(_ bytes: UnsafeRawBufferPointer, _ descriptors: [SharedDescriptor] = []) throws(SystemError) -> Int {
        let raw = raw
        let numbers = descriptors.map { $0.descriptor.raw }
        let result = numbers.withUnsafeBufferPointer {
            cl_send_with_descriptors(raw, bytes.baseAddress, bytes.count, $0.baseAddress, $0.count)
        }
        withExtendedLifetime(descriptors) {}
        if result < 0, Errno(result: result) == .tryAgain { return 0 }
        guard result >= 0 else { throw SystemError(operation: "send a message", errno: Errno(result: result)) }
        return result
    }

    /// Ends the connection for the peer (shutdown(2)), even if the descriptor stays open.
    public func shutDown() { _ = cl_shut_down(raw) }
}

/// A listening stream socket of the local machine. Copies share the socket.
public struct LocalListener: Sendable {
    /// For `FileDescriptor.wait`.
    public let shared: SharedDescriptor

    /// - Parameter shared: a listening socket, which other processes may share too.
    public init(_ shared: SharedDescriptor) throws(SystemError) {
        try shared.descriptor.setNonBlocking()
        self.shared = shared
    }

    /// Creates a socket at a path and listens there (bind(2), listen(2)).
    ///
    /// - Parameters:
    ///   - path: at most 107 bytes; nothing may exist there (EADDRINUSE).
    ///   - mode: the permission bits, which the socket has from the start, without those of the process's umask.
    public static func bind(to path: ByteString, mode: UInt32, backlog: Int32 = 128) throws(SystemError) -> LocalListener {
        let socket = try makeSocket()
        // Linux gives the file the mode of the socket that is bound.
        try socket.changeMode(mode)
        let raw = socket.raw
        var result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.makeNode, cl_at_fdcwd, bytes) { cl_bind_local(raw, bytes.baseAddress, bytes.count) }
        }
        guard result >= 0 else { throw SystemError("create a socket at", path, Errno(result: result)) }
        result = cl_listen(raw, backlog)
        guard result >= 0 else { throw SystemError("listen at", path, Errno(result: result)) }
        return try LocalListener(SharedDescriptor(socket))
    }

    /// Takes a waiting connection (accept4(2)); nil if there is none.
    public func accept() throws(SystemError) -> LocalConnection? {
        let raw = shared.descriptor.raw
        let result = Kernel.call(.open, raw) { cl_accept(raw) }
        guard let new = Int32(exactly: result), new >= 0 else {
            // ECONNABORTED: the client has left its place in the queue.
            if [.tryAgain, .connectionAborted].contains(Errno(result: result)) { return nil }
            throw SystemError("accept a connection at", result, at: raw, nil)
        }
        return LocalConnection(owning: FileDescriptor(owning: new))
    }
}

private func makeSocket() throws(SystemError) -> FileDescriptor {
    let result = Kernel.call(.open, -1) { cl_local_socket() }
    guard let raw = Int32(exactly: result), raw >= 0 else { throw SystemError(operation: "create a socket", errno: Errno(result: result)) }
    return FileDescriptor(owning: raw)
}

// MARK: - Waiting

/// What to wait for at a descriptor.
public struct WaitEntry: Sendable {
    public var descriptor: SharedDescriptor
    /// Whether bytes, a connection or the end are awaited.
    public var reads: Bool
    /// Whether room for bytes is awaited.
    public var writes: Bool
    /// Set by `FileDescriptor.wait`: whether what is awaited is there.
    public var isReady = false
    /// Set by `FileDescriptor.wait`: whether the peer has closed its end completely, or the descriptor has failed. Always awaited.
    public var hasEnded = false

    public init(_ descriptor: SharedDescriptor, reads: Bool = false, writes: Bool = false) {
        self.descriptor = descriptor
        self.reads = reads
        self.writes = writes
    }
}

extension FileDescriptor {
    /// Waits until an event is there at one of the descriptors, or until the time is over (poll(2)).
    ///
    /// - Parameter milliseconds: nil waits for ever.
    /// - Returns: whether there is an event.
    public static func wait(_ entries: inout [WaitEntry], milliseconds: Int?) throws(SystemError) -> Bool {
        var polled = entries.map { entry in
            cl_poll_entry(
                descriptor: entry.descriptor.descriptor.raw, events: (entry.reads ? cl_poll_in : 0) | (entry.writes ? cl_poll_out : 0),
                returned: 0)
        }
        let limit = milliseconds.map { Int32(clamping: max(0, $0)) } ?? -1
        let result = polled.withUnsafeMutableBufferPointer { cl_poll($0.baseAddress, $0.count, limit) }
        guard result >= 0 else { throw SystemError(operation: "wait for events", errno: Errno(result: result)) }
        for index in entries.indices {
            entries[index].isReady = polled[index].returned & (cl_poll_in | cl_poll_out) != 0
            entries[index].hasEnded = polled[index].returned & cl_poll_ended != 0
        }
        return result > 0
    }

    /// Makes reads and writes of this open file return EAGAIN instead of waiting.
    public borrowing func setNonBlocking() throws(SystemError) {
        let result = cl_set_nonblocking(raw)
        guard result >= 0 else { throw SystemError("make non-blocking", result, at: raw, nil) }
    }

    /// Whether this is a listening stream socket of the local machine; false for a connected one. EPROTOTYPE for any other socket, ENOTSOCK for
    /// any other file.
    public borrowing func isListeningLocally() throws(SystemError) -> Bool {
        let result = cl_local_socket_listens(raw)
        guard result >= 0 else { throw SystemError("use the socket", result, at: raw, nil) }
        return result == 1
    }
}
