import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCIModel

/// An open archive: a regular file, or a pipe or socket that can be read only once.
final class ArchiveInput {
    let path: ByteString
    let descriptor: FileDescriptor
    /// Whether the archive can be read at any offset. A pipe or a socket delivers each byte once.
    let isRegular: Bool
    private let cancellation: Cancellation

    /// How long one wait for a pipe takes before the cancellation is checked again, in milliseconds.
    private static let pollInterval: Int32 = 100

    /// - Parameters:
    ///   - path: of the archive; `-` is standard input.
    ///   - cancellation: ends reading and waiting, with `CancellationError`.
    /// - Throws: `SystemError` if the path cannot be opened, `OCIError` if it is neither a regular file, a pipe nor a socket.
    init(_ path: ByteString, _ cancellation: Cancellation) throws {
        let descriptor = try Self.open(path == ImageLocation.stream ? "/dev/stdin" : path)
        let kind = try descriptor.status().kind
        guard [.regular, .fifo, .socket].contains(kind) else {
            throw OCIError.damaged(source: path, .notReadableFile)
        }
        self.path = path
        self.cancellation = cancellation
        isRegular = kind == .regular
        self.descriptor = descriptor
    }

    private static func open(_ path: ByteString) throws(SystemError) -> FileDescriptor {
        do throws(SystemError) {
            // In blocking mode, opening a FIFO waits for its writer and cannot be cancelled.
            return try FileDescriptor.open(path, [.readOnly, .nonBlocking])
        } catch {
            // A socket (ENXIO) and a pipe of another user (EACCES) cannot be opened again through /dev/fd.
            guard let inherited = inheritedDescriptor(path), [.noDeviceOrAddress, .accessDenied].contains(error.errno) else { throw error }
            return try FileDescriptor.duplicate(of: inherited)
        }
    }

    /// The descriptor that a path such as `/dev/stdin` or `/dev/fd/3` refers to.
    private static func inheritedDescriptor(_ path: ByteString) -> Int32? {
        if path == "/dev/stdin" { return 0 }
        for prefix in ["/dev/fd/", "/proc/self/fd/"] as [ByteString] where path.hasPrefix(prefix) {
            let digits = path.bytes.dropFirst(prefix.count)
            guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            return Int32(String(decoding: digits, as: UTF8.self))
        }
        return nil
    }

    /// Reads the next bytes and returns their number; 0 at the end.
    ///
    /// - Throws: `SystemError`, `CancellationError`.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            try cancellation.check()
            guard try isRegular || descriptor.waitForInput(milliseconds: Self.pollInterval) else { continue }
            do throws(SystemError) {
                return try descriptor.read(into: buffer)
            } catch {
                guard error.errno == .tryAgain else { throw error }
            }
        }
    }

    /// Reads at least `count` bytes into the front of the buffer and returns their number; fewer only at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer, atLeast count: Int) throws -> Int {
        var filled = 0
        while filled < count {
            let read = try read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[filled...]))
            if read == 0 { break }
            filled += read
        }
        return filled
    }
}
