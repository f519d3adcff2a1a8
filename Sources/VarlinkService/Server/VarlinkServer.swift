import ComposefsConcurrency
public import ComposefsLinuxSystem
import Synchronization

/// Serves varlink clients until it is stopped.
public final class VarlinkServer: Sendable {
    private struct State {
        var connections: [UInt64: ServiceConnection] = [:]
        var next: UInt64 = 1
        var nextHandle: UInt64 = 0
        var transfers = 0
        var isStopping = false
        var warnedOfConnections = false
    }

    let options: ServiceOptions
    private let state = Guarded(State())
    /// Cancels what runs when the service ends.
    let shutdown = Cancellation()
    /// Its other end is closed when the service is to end: every wait includes it.
    let stopping: SharedDescriptor
    private let stopper: Mutex<SharedDescriptor?>
    /// A byte in this pipe makes `run` look at its connections again.
    private let woken: SharedDescriptor
    private let waker: SharedDescriptor

    /// - Throws: `SystemError` if no descriptors are left.
    public init(_ options: ServiceOptions) throws(SystemError) {
        let stop = try LocalPipe()
        let wake = try LocalPipe()
        try wake.write.descriptor.setNonBlocking()
        try wake.read.descriptor.setNonBlocking()
        self.options = options
        stopping = stop.read
        stopper = Mutex(stop.write)
        woken = wake.read
        waker = wake.write
    }

    /// Ends the service: running calls are cancelled, and `run` returns once their connections are closed. May be called from any thread, and
    /// before `run`.
    public func stop() {
        let isFirst = state.change { state in
            defer { state.isStopping = true }
            return !state.isStopping
        }
        guard isFirst else { return }
        shutdown.cancel()
        for connection in state.read({ Array($0.connections.values) }) { connection.end() }
        stopper.withLock { $0 = nil }
    }

    /// Serves all connections to a socket, on threads of its own, until `stop`. Blocks the caller's thread.
    ///
    /// - Throws: `SystemError` if the socket can take no connection any more.
    public func run(_ listener: LocalListener) throws(SystemError) {
        defer { finish() }
        while true {
            let open = state.read { $0.connections.values.filter { !$0.hasEnded } }
            var entries = [WaitEntry(stopping, reads: true), WaitEntry(woken, reads: true), WaitEntry(listener.shared, reads: true)]
            // Without events to wait for: only the end of a connection whose thread is busy with a call.
            entries += open.map { WaitEntry($0.socket.shared) }
            _ = try FileDescriptor.wait(&entries, milliseconds: nil)
            if entries[0].isReady || entries[0].hasEnded { return }
            if entries[1].isReady { drainWaker() }
            for (entry, connection) in zip(entries.dropFirst(3), open) where entry.hasEnded { connection.end() }
            if entries[2].isReady { try accept(listener) }
        }
    }

    /// Serves one connection, on the caller's thread, until it ends or `stop` is called.
    public func run(_ socket: LocalConnection) {
        guard let connection = add(socket) else { return }
        // Notices that the client is gone while the call runs.
        let watch = startThread("watch") { [self] in
            var entries = [WaitEntry(stopping, reads: true), WaitEntry(socket.shared)]
            while (try? FileDescriptor.wait(&entries, milliseconds: nil)) == true {
                if entries[1].hasEnded { return connection.end() }
                if entries[0].hasEnded { return }
            }
        }
        if watch { connection.serve() }
        remove(connection)
        finish()
    }

    private func drainWaker() {
        withUnsafeTemporaryAllocation(byteCount: 64, alignment: 1) { buffer in
            while ((try? woken.descriptor.read(into: buffer)) ?? 0) == buffer.count {}
        }
    }

    private func accept(_ listener: LocalListener) throws(SystemError) {
        do throws(SystemError) {
            // Not more at once than others wait for.
            for _ in 0..<16 {
                guard let socket = try listener.accept() else { return }
                guard let connection = add(socket) else { continue }
                let isStarted = startThread("connection") { [self] in
                    connection.serve()
                    remove(connection)
                    try? waker.descriptor.writeAll([0])
                }
                if !isStarted {
                    options.warn("a connection was closed: no thread can be started")
                    remove(connection)
                }
            }
        } catch {
            // Connections end, and descriptors become free.
            guard [.tooManyOpenFiles, .fileTableFull, .outOfMemory].contains(error.errno) else { throw error }
            options.warn("no connection can be accepted: \(error)")
            _ = shutdown.sleep(.milliseconds(100))
        }
    }

    /// Nil, and the connection ends, if there are too many.
    private func add(_ socket: LocalConnection) -> ServiceConnection? {
        let (connection, warns) = state.change { state -> (ServiceConnection?, Bool) in
            guard !state.isStopping else { return (nil, false) }
            guard state.connections.count < options.mostConnections else {
                // Once for each flood.
                defer { state.warnedOfConnections = true }
                return (nil, !state.warnedOfConnections)
            }
            state.warnedOfConnections = false
            let connection = ServiceConnection(state.next, socket, self)
            state.connections[state.next] = connection
            state.next += 1
            return (connection, false)
        }
        if warns { options.warn("there are \(options.mostConnections) connections, and others are closed") }
        if connection == nil { socket.shutDown() }
        return connection
    }

    private func remove(_ connection: ServiceConnection) {
        connection.socket.shutDown()
        state.change { $0.connections[connection.number] = nil }
    }

    /// Waits until all connections have ended, but not longer than allowed: a call that cannot be cancelled only reads, and the store is
    /// whole at any time.
    private func finish() {
        stop()
        let deadline = MonotonicTime.now + options.endPatience
        _ = state.wait(until: deadline) { $0.connections.isEmpty && $0.transfers == 0 ? true : nil }
    }

    // MARK: What connections share

    /// A number that no handle has had: one of another connection is never valid by chance.
    func newHandle() -> UInt64 {
        state.change { state in
            state.nextHandle += 1
            return state.nextHandle
        }
    }

    /// Counts a layer that is being sent; false if there are too many. `endTransfer` must follow.
    func beginTransfer() -> Bool {
        state.change { state in
            guard state.transfers < options.mostTransfers, !state.isStopping else { return false }
            state.transfers += 1
            return true
        }
    }

    func endTransfer() { state.change { $0.transfers -= 1 } }
}

/// A pipe whose ends can be waited for.
struct LocalPipe: Sendable {
    let read: SharedDescriptor
    let write: SharedDescriptor

    init() throws(SystemError) {
        let pipe = try FileDescriptor.pipe()
        read = SharedDescriptor(pipe.read)
        write = SharedDescriptor(pipe.write)
    }
}
