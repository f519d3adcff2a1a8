import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsVarlink
import Synchronization

/// Why nothing can be sent or received any more.
enum ConnectionEnd: Error { case closed }

/// A client's connection. One thread reads its calls and answers them in order.
final class ServiceConnection: Sendable {
    let number: UInt64
    let socket: LocalConnection
    let server: VarlinkServer
    /// Cancels the call that runs when the client is gone.
    let cancellation = Cancellation()
    private let ended = Atomic<Bool>(false)

    init(_ number: UInt64, _ socket: LocalConnection, _ server: VarlinkServer) {
        self.number = number
        self.socket = socket
        self.server = server
    }

    /// Whether the client is gone, or the service ends.
    var hasEnded: Bool { ended.load(ordering: .relaxed) }

    /// Cancels the call that runs. Calls that have arrived are read all the same: one may want no reply.
    func end() {
        ended.store(true, ordering: .relaxed)
        cancellation.cancel()
    }

    func warn(_ reason: String) { server.options.warn("a connection was closed: \(reason)") }

    // MARK: Receiving

    func serve() {
        let session = Session(self)
        do {
            try receive(session)
        } catch let fault as VarlinkFault {
            warn(fault.description)
        } catch {
            // The client is gone, or too slow, which was told.
        }
        end()
    }

    private func receive(_ session: Session) throws {
        var reader = FrameReader(limit: server.options.largestMessage)
        // Descriptors of the message that has begun.
        var waiting: [SharedDescriptor] = []
        var deadline: MonotonicTime?
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            guard try waitForSocket(reads: true, until: deadline) else {
                return warn("a message has not ended after \(server.options.patience)")
            }
            guard let received = try? socket.receive(into: buffer) else { continue }
            if received.isTruncated { return warn("its descriptors cannot be opened: this process has too many") }
            if received.count == 0 { return }
            reader.append(UnsafeRawBufferPointer(rebasing: buffer[..<received.count]))
            var messages: [[UInt8]] = []
            while let message = try reader.next() { messages.append(message) }
            // The kernel ends a read after a message with descriptors, so new ones belong to the message with the last byte: one that has
            // ended, or the one that has begun.
            let hasBegun = reader.isInsideMessage
            let earlier = waiting
            let new = received.descriptors
            waiting = messages.isEmpty ? earlier + new : hasBegun ? new : []
            guard earlier.count + new.count <= server.options.mostDescriptors else {
                return warn("a call has more than \(server.options.mostDescriptors) descriptors")
            }
            for (index, message) in messages.enumerated() {
                var passed = index == 0 ? earlier : []
                if !hasBegun, index == messages.count - 1 { passed += new }
                try session.answer(try VarlinkCall(parsing: message), passed)
            }
            if !reader.isInsideMessage {
                deadline = nil
            } else if deadline == nil || !messages.isEmpty {
                deadline = .now + server.options.patience
            }
        }
    }

    /// Waits until the socket can be read or written; false after the deadline.
    ///
    /// - Throws: `ConnectionEnd` if the service ends, or the client is gone and nothing can be read.
    private func waitForSocket(reads: Bool, until deadline: MonotonicTime?) throws -> Bool {
        while true {
            var entries = [WaitEntry(server.stopping, reads: true), WaitEntry(socket.shared, reads: reads, writes: !reads)]
            let rest = deadline.map { max(0, Int(clamping: ($0 - .now).clampedNanoseconds / 1_000_000) + 1) }
            let isThere = try FileDescriptor.wait(&entries, milliseconds: rest)
            if entries[0].isReady || entries[0].hasEnded { throw ConnectionEnd.closed }
            if entries[1].isReady { return true }
            if entries[1].hasEnded { throw ConnectionEnd.closed }
            if !isThere, let deadline, MonotonicTime.now >= deadline { return false }
        }
    }

    // MARK: Sending

    /// Sends a message, which the client must take in the time that is allowed.
    ///
    /// - Throws: `ConnectionEnd`.
    func send(_ message: [UInt8], _ descriptors: [SharedDescriptor]) throws {
        let deadline = MonotonicTime.now + server.options.patience
        var sent = 0
        var descriptors = descriptors
        while sent < message.count {
            // Nil if the client has closed the connection.
            let accepted = message.withUnsafeBytes { try? socket.send(UnsafeRawBufferPointer(rebasing: $0[sent...]), descriptors) }
            guard let count = accepted else { throw ConnectionEnd.closed }
            if count > 0 {
                sent += count
                descriptors = []
                continue
            }
            guard try waitForSocket(reads: false, until: deadline) else {
                warn("the client has not read a reply for \(server.options.patience)")
                throw ConnectionEnd.closed
            }
        }
    }
}
