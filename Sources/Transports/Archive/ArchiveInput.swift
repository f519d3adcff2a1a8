import ComposefsBytes
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCIModel

/// An archive as it comes: a file, or a pipe that can be read once.
final class ArchiveInput {
    let path: ByteString
    let descriptor: FileDescriptor
    /// Whether any byte can be read at any time. A pipe or a socket gives each byte once.
    let isRegular: Bool
    private let cancellation: Cancellation

    /// How long a pipe is waited for between two looks at whether the caller still wants it, in milliseconds.
    private static let patience: Int32 = 100

    init(_ path: ByteString, _ cancellation: Cancellation) throws {
        let descriptor = try Self.open(path)
        let kind = try descriptor.status().kind
        guard [.regular, .fifo, .socket].contains(kind) else {
            throw OCIError.damaged(source: path, "is no regular file and no pipe")
        }
        self.path = path
        self.cancellation = cancellation
        isRegular = kind == .regular
        self.descriptor = descriptor
    }

    private static func open(_ path: ByteString) throws(SystemError) -> FileDescriptor {
        do throws(SystemError) {
            // Without non-blocking mode, opening a fifo waits for its writer and cannot be interrupted.
            return try FileDescriptor.open(path, [.readOnly, .nonBlocking])
        } catch {
            // A socket cannot be opened anew (ENXIO), nor can a pipe that another user made.
            guard let inherited = inheritedDescriptor(path), [.noDeviceOrAddress, .accessDenied].contains(error.errno) else { throw error }
            return try FileDescriptor.duplicate(of: inherited)
        }
    }

    /// The descriptor that a path like `/dev/stdin` or `/dev/fd/3` stands for.
    private static func inheritedDescriptor(_ path: ByteString) -> Int32? {
        if path == "/dev/stdin" { return 0 }
        for prefix in ["/dev/fd/", "/proc/self/fd/"] as [ByteString] where path.hasPrefix(prefix) {
            let digits = path.bytes.dropFirst(prefix.count)
            guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return nil }
            return Int32(String(decoding: digits, as: UTF8.self))
        }
        return nil
    }

    /// Reads the next bytes; 0 at the end.
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        while true {
            try cancellation.check()
            guard try isRegular || descriptor.waitForInput(milliseconds: Self.patience) else { continue }
            do throws(SystemError) {
                return try descriptor.read(into: buffer)
            } catch {
                guard error.errno == .tryAgain else { throw error }
            }
        }
    }

    /// Fills the front of the buffer with at least `count` bytes; fewer only at the end.
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
