import ComposefsBytes
import ComposefsLinuxSystem
import Glibc
import Testing

/// Sockets of the local machine, and the descriptors that pass over them.
@Suite struct LocalSocketTests {
    private func receive(_ connection: LocalConnection) throws -> (bytes: [UInt8], descriptors: [SharedDescriptor]) {
        var entries = [WaitEntry(connection.shared, reads: true)]
        #expect(try FileDescriptor.wait(&entries, milliseconds: 5000))
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        let received = try #require(try buffer.withUnsafeMutableBytes { try connection.receive(into: $0) })
        #expect(!received.isTruncated)
        return (Array(buffer[..<received.count]), received.descriptors)
    }

    private func send(_ connection: LocalConnection, _ text: String, _ descriptors: [SharedDescriptor] = []) throws -> Int {
        try Array(text.utf8).withUnsafeBytes { try connection.send($0, descriptors) }
    }

    @Test func connections() throws {
        try withScratch { directory, path in
            let listener = try LocalListener.bind(to: path + "/socket", mode: 0o600)
            let status = try directory.status(at: "socket")
            #expect(status.kind == .socket && status.mode & 0o777 == 0o600)
            #expect(try listener.shared.descriptor.isListeningLocally())
            #expect(try listener.accept()?.shared == nil)
            let client = try LocalConnection.connect(to: path + "/socket")
            let server = try #require(try listener.accept())
            #expect(try !server.shared.descriptor.isListeningLocally())
            var nothing: [UInt8] = [0]
            #expect(try nothing.withUnsafeMutableBytes { try server.receive(into: $0) }?.count == nil)
            #expect(try send(client, "hello") == 5)
            #expect(try receive(server).bytes == Array("hello".utf8))
            #expect(failure { _ = try LocalListener.bind(to: path + "/socket", mode: 0o600) }?.errno == .addressInUse)
            #expect(
                failure { _ = try LocalListener.bind(to: ByteString(repeatElement(0x61, count: 108)), mode: 0o600) }?.errno == .nameTooLong)
        }
    }

    @Test func noListener() throws {
        try withScratch { _, path in
            #expect(failure { _ = try LocalConnection.connect(to: path + "/none") }?.errno == .noEntry)
            do { _ = try LocalListener.bind(to: path + "/stale", mode: 0o600) }
            #expect(failure { _ = try LocalConnection.connect(to: path + "/stale") }?.errno == .connectionRefused)
            let file = try FileDescriptor.open(path + "/file", [.writeOnly, .create])
            #expect(failure { _ = try file.isListeningLocally() }?.errno.rawValue == ENOTSOCK)
        }
    }

    /// A read ends after a message with descriptors, which come with its last byte and are closed on exec.
    @Test func descriptors() throws {
        try withScratch { _, path in
            let pair = try FileDescriptor.socketPair()
            let (client, server) = (LocalConnection(SharedDescriptor(pair.first)), LocalConnection(SharedDescriptor(pair.second)))
            let file = SharedDescriptor(try FileDescriptor.open(path + "/file", [.readWrite, .create]))
            try file.descriptor.writeAll(Array("content".utf8))
            #expect(try send(client, "one") == 3)
            #expect(try send(client, "two", [file, file]) == 3)
            #expect(try send(client, "three") == 5)
            let first = try receive(server)
            #expect(first.bytes == Array("onetwo".utf8))
            #expect(first.descriptors.count == 2)
            let passed = try #require(first.descriptors.first)
            #expect(passed.descriptor.raw != file.descriptor.raw)
            #expect(fcntl(passed.descriptor.raw, F_GETFD) & FD_CLOEXEC != 0)
            var content = [UInt8](repeating: 0, count: 16)
            #expect(try content.withUnsafeMutableBytes { try passed.descriptor.pread(into: $0, at: 0) } == 7)
            let second = try receive(server)
            #expect(second.bytes == Array("three".utf8) && second.descriptors.isEmpty)

            let most = Array(repeating: file, count: LocalConnection.mostDescriptors)
            #expect(try send(client, "x", most) == 1)
            #expect(try receive(server).descriptors.count == LocalConnection.mostDescriptors)
            #expect(failure { _ = try send(client, "x", most + [file]) }?.errno == .invalidArgument)
        }
    }

    @Test func ends() throws {
        let pair = try FileDescriptor.socketPair()
        let server = LocalConnection(SharedDescriptor(pair.second))
        var entries = [WaitEntry(server.shared)]
        #expect(try !FileDescriptor.wait(&entries, milliseconds: 0))
        do {
            let client = LocalConnection(SharedDescriptor(pair.first))
            #expect(try send(client, "last") == 4)
        }
        // The end is told without waiting for bytes, and what was sent before can be read.
        #expect(try FileDescriptor.wait(&entries, milliseconds: 5000))
        #expect(entries[0].hasEnded)
        #expect(try receive(server).bytes == Array("last".utf8))
        #expect(try receive(server).bytes == [])
        #expect(failure { _ = try send(server, "x") }?.errno == .brokenPipe)
    }

    /// A peer that reads nothing does not hold up the sender.
    @Test func fullQueue() throws {
        let pair = try FileDescriptor.socketPair()
        let (client, server) = (LocalConnection(SharedDescriptor(pair.first)), LocalConnection(SharedDescriptor(pair.second)))
        let chunk = String(repeating: "x", count: 1 << 16)
        var total = 0
        while total < 1 << 26 {
            let count = try send(client, chunk)
            if count == 0 { break }
            total += count
        }
        #expect(total > 0 && total < 1 << 26)
        var entries = [WaitEntry(client.shared, writes: true)]
        #expect(try !FileDescriptor.wait(&entries, milliseconds: 0))
        _ = try receive(server)
        server.shutDown()
        #expect(try FileDescriptor.wait(&entries, milliseconds: 5000))
    }
}
