import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsTransports
import ComposefsVarlink

/// The archive of a layer that a client sends as chunks: bytes in a pipe, and files below directories that it has passed.
///
/// The archive is not trusted: its digest is compared with the diff ID when it is stored.
final class DirectoryStreamArchive: BlobReader {
    /// Why an archive cannot be read.
    enum Fault: Error, CustomStringConvertible {
        case noDirectory(UInt32, count: Int)
        case notRegular(ByteString)
        case size(ByteString, stated: UInt64, actual: UInt64)

        var description: String {
            switch self {
            case .noDirectory(let index, let count): "the layer's stream names the directory \(index), and \(count) were passed"
            case .notRegular(let path): "the layer's stream names \(path), which is no regular file"
            case .size(let path, let stated, let actual):
                "the layer's stream gives \(path) \(stated) bytes, and the file has \(actual)"
            }
        }
    }

    private let pipe: SharedDescriptor
    private let directories: [SharedDescriptor]
    private let connection: ServiceConnection
    private let cancellation: Cancellation
    private var stream = DirectoryStreamReader()
    private var file: (content: SharedDescriptor, path: ByteString, size: UInt64, offset: UInt64)?
    private var hasEnded = false

    init(
        _ pipe: SharedDescriptor, directories: [SharedDescriptor], _ connection: ServiceConnection, _ cancellation: Cancellation
    ) {
        self.pipe = pipe
        self.directories = directories
        self.connection = connection
        self.cancellation = cancellation
    }

    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            try cancellation.check()
            if let count = try readFile(into: buffer) { return count }
            let count = stream.takeBytes(into: buffer)
            if count > 0 { return count }
            if stream.pending == 0, let chunk = try stream.next() {
                if case .file(let directory, let path, let size) = chunk { try open(directory, path, size) }
                continue
            }
            if hasEnded {
                try stream.finish()
                return 0
            }
            try readPipe()
        }
    }

    /// Reads the pipe to its end, so that the client can write all of it, without opening files.
    func drain() throws {
        while !hasEnded { try readPipe(isKept: false) }
    }

    /// The next bytes of the file that the last chunk named; nil if it is read, or there is none.
    private func readFile(into buffer: UnsafeMutableRawBufferPointer) throws -> Int? {
        guard let current = file else { return nil }
        guard current.offset < current.size else {
            file = nil
            return nil
        }
        let rest = current.size - current.offset
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(min(UInt64(buffer.count), rest))])
        let count = try current.content.descriptor.pread(into: room, at: current.offset)
        guard count > 0 else { throw Fault.size(current.path, stated: current.size, actual: current.offset) }
        file?.offset += UInt64(count)
        return count
    }

    private func open(_ index: UInt32, _ path: ByteString, _ size: UInt64) throws {
        guard let directory = directories.indices.contains(Int(index)) ? directories[Int(index)] : nil else {
            throw Fault.noDirectory(index, count: directories.count)
        }
        // A FIFO is opened without waiting, and refused.
        let content = SharedDescriptor(
            try directory.descriptor.open(
                at: path, [.readOnly, .nonBlocking], resolve: [.beneath, .noSymlinks, .noMagicLinks]))
        let status = try content.descriptor.status()
        guard status.kind == .regular else { throw Fault.notRegular(path) }
        guard status.size == size else { throw Fault.size(path, stated: size, actual: status.size) }
        file = (content, path, size, 0)
    }

    /// Reads what is in the pipe, or its end. Waits for it as long as the client is there.
    private func readPipe(isKept: Bool = true) throws {
        while true {
            var entries = [
                WaitEntry(connection.server.stopping, reads: true), WaitEntry(connection.socket.shared), WaitEntry(pipe, reads: true),
            ]
            _ = try FileDescriptor.wait(&entries, milliseconds: nil)
            if entries[0].hasEnded || cancellation.isCancelled { throw CancellationError() }
            if entries[2].isReady || entries[2].hasEnded { break }
            if entries[1].hasEnded { throw CancellationError() }
        }
        try withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { buffer in
            let count = try pipe.descriptor.read(into: buffer)
            if count == 0 { hasEnded = true }
            if isKept { stream.append(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
        }
    }
}
