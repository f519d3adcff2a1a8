internal import ComposefsBytes
internal import ComposefsCLinux
internal import Glibc

/// The descriptors that a process starts with.
package enum StandardStream: Int32, Sendable {
    case input = 0
    case output = 1
    case error = 2

    package var isTerminal: Bool { isatty(rawValue) == 1 }

    /// read(2): what is there, at most the buffer's size; 0 at the end.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        let result = cl_read(rawValue, buffer.baseAddress, buffer.count)
        guard result >= 0 else { throw SystemError(operation: "read", path: name, errno: Errno(result: result)) }
        return result
    }

    private var name: ByteString {
        switch self {
        case .input: "standard input"
        case .output: "standard output"
        case .error: "standard error"
        }
    }

    /// Writes everything, waiting while the stream takes nothing. See `FileDescriptor.writeAll(_:to:)`.
    package func writeAll(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard let errno = FileDescriptor.writeAll(bytes, to: rawValue) else { return }
        throw SystemError(operation: "write", path: name, errno: errno)
    }

    /// One write(2), for signal handlers; an error has nowhere to be told.
    package func write(_ text: StaticString) { _ = Glibc.write(rawValue, text.utf8Start, text.utf8CodeUnitCount) }
}

extension FileDescriptor {
    /// Writes everything to a descriptor that belongs to someone else, waiting while it takes nothing (EAGAIN).
    ///
    /// - Returns: nil, or why the rest was not written.
    package static func writeAll(_ bytes: UnsafeRawBufferPointer, to number: Int32) -> Errno? {
        var rest = bytes
        while !rest.isEmpty {
            let written = cl_write(number, rest.baseAddress, rest.count)
            if written > 0 {
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
                continue
            }
            guard written < 0 else { return .noSpace }
            guard Errno(result: written) == .tryAgain else { return Errno(result: written) }
            var wanted = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
            poll(&wanted, 1, 1000)
        }
        return nil
    }

    /// Whether a descriptor of this number is open for writing.
    package static func isWritable(_ number: Int32) -> Bool {
        let flags = fcntl(number, F_GETFL)
        return flags >= 0 && flags & O_ACCMODE != O_RDONLY
    }

    /// Keeps a descriptor that this process was given from the programs that it starts.
    package static func closeOnExec(_ number: Int32) { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
}

/// A terminal: its size, and which processes it belongs to.
package enum Terminal {
    /// In characters; nil if the stream is no terminal, or one that does not tell.
    package static func size(of stream: StandardStream) -> (columns: Int, rows: Int)? {
        var size = winsize()
        guard ioctl(stream.rawValue, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return nil }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Whether this process is among those that the terminal belongs to, or the stream is no terminal.
    package static func isForeground(on stream: StandardStream) -> Bool {
        let owner = tcgetpgrp(stream.rawValue)
        return owner < 0 || owner == getpgrp()
    }
}
