import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsRepository
import ComposefsSplitStream
import ComposefsVarlink

/// Writes a layer's archive to a pipe as chunks: what the split stream holds itself, and the paths of objects. Holds the repository until the
/// client has closed the descriptor that it keeps, or the service ends.
final class LayerSender: Sendable {
    private let store: Store
    private let stream: ObjectID
    private let objects: SharedDescriptor
    private let pipe: Guarded<SharedDescriptor?>
    private let keeper: SharedDescriptor
    private let readsAll: Bool
    private let server: VarlinkServer

    /// - Parameters:
    ///   - pipe: its writes must not wait.
    ///   - keeper: ends when the client is done.
    ///   - readsAll: whether the client reads files of any mode.
    init(
        _ store: Store, _ stream: ObjectID, _ objects: SharedDescriptor, _ pipe: SharedDescriptor, _ keeper: SharedDescriptor,
        readsAll: Bool, _ server: VarlinkServer
    ) {
        self.store = store
        self.stream = stream
        self.objects = objects
        self.pipe = Guarded(pipe)
        self.keeper = keeper
        self.readsAll = readsAll
        self.server = server
    }

    /// On a thread of its own.
    func run() {
        // A client that closes the pipe is an error of write(2), whatever the process does with the signal.
        Signal.block([.brokenPipe])
        if let output = pipe.change({ $0.take() }) {
            do {
                try send(to: output)
            } catch let end as ConnectionEnd {
                // The client has closed the pipe, or does not read.
                _ = end
                return
            } catch {
                // The client finds a stream that ends inside a chunk, and an archive with another digest.
                server.options.warn("a layer was sent only in part: \(error)")
                return
            }
        }
        var entries = [WaitEntry(server.stopping, reads: true), WaitEntry(keeper)]
        _ = try? FileDescriptor.wait(&entries, milliseconds: nil)
    }

    private func send(to output: SharedDescriptor) throws {
        var reader = try store.repository.openStream(stream)
        while let chunk = try reader.next() {
            switch chunk {
            case .inline(let bytes):
                // The chunks of the stream are far smaller than the limit.
                try write(DirectoryStreamChunk.head(ofBytes: bytes.count), to: output)
                try write(bytes, to: output)
            case .external(let id): try send(id, to: output)
            }
        }
    }

    private func send(_ id: ObjectID, to output: SharedDescriptor) throws {
        let object = try store.repository.openObject(id, verify: store.repository.isSecure)
        let status = try object.status()
        guard try !isReadable(status, id), status.size <= UInt64(DirectoryStreamChunk.largestCount) else {
            return try write(DirectoryStreamChunk.file(directory: 0, path: ByteString(id.objectPath), size: status.size), to: output)
        }
        // A chunk of a file's content has the type 1.
        var head = DirectoryStreamChunk.head(ofBytes: Int(status.size))
        head[0] = 1
        try write(head, to: output)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
        defer { buffer.deallocate() }
        var parts = FileParts(into: buffer, to: status.size)
        while let part = try parts.next(of: object) { try write(part, to: output) }
        guard parts.offset == status.size else { throw SystemError("read", ByteString(id.objectPath), .inputOutput) }
    }

    /// Whether the client can open the object below the directory that it gets.
    private func isReadable(_ object: FileStatus, _ id: ObjectID) throws -> Bool {
        if readsAll { return true }
        let path = id.objectPath
        let directory = try objects.descriptor.status(at: ByteString(String(path.prefix { $0 != "/" })))
        let all = try objects.descriptor.status()
        return object.mode & 0o004 != 0 && directory.mode & 0o001 != 0 && all.mode & 0o001 != 0
    }

    private func write(_ bytes: [UInt8], to output: SharedDescriptor) throws {
        try bytes.withUnsafeBytes { try write($0, to: output) }
    }

    /// - Throws: `ConnectionEnd` if the client has closed the pipe, or has not read for the time that is allowed, or the service ends.
    private func write(_ bytes: UnsafeRawBufferPointer, to output: SharedDescriptor) throws {
        var rest = bytes
        while !rest.isEmpty {
            do throws(SystemError) {
                let count = try output.descriptor.write(rest)
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                continue
            } catch {
                guard error.errno == .tryAgain else { throw ConnectionEnd.closed }
            }
            var entries = [WaitEntry(server.stopping, reads: true), WaitEntry(output, writes: true)]
            let isThere = try FileDescriptor.wait(&entries, milliseconds: server.options.patience.milliseconds(atLeast: 1))
            guard isThere, entries[1].isReady, !entries[0].hasEnded else { throw ConnectionEnd.closed }
        }
    }
}
