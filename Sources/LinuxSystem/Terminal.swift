internal import ComposefsBytes
internal import ComposefsCLinux
internal import Glibc

/// The standard streams of a process.
package enum StandardStream: Int32, Sendable {
    case input = 0
    case output = 1
    case error = 2

    package var isTerminal: Bool { isatty(rawValue) == 1 }

    /// read(2): reads available bytes, at most the buffer's size. Returns 0 at the end.
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

    /// Writes all bytes and waits while the stream accepts none. See `FileDescriptor.writeAll(_:to:)`.
    package func writeAll(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        guard let errno = FileDescriptor.writeAll(bytes, to: rawValue) else { return }
        throw SystemError(operation: "write", path: name, errno: errno)
    }

    /// One write(2), for signal handlers. Errors are ignored, because they cannot be reported.
    package func write(_ text: StaticString) { _ = Glibc.write(rawValue, text.utf8Start, text.utf8CodeUnitCount) }
}

extension FileDescriptor {
    /// Writes all bytes to a descriptor that this program does not own, and waits while it accepts none (EAGAIN).
    ///
    /// - Returns: Nil, or the error that stopped the write.
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

    /// Whether a descriptor with this number is open for writing.
    package static func isWritable(_ number: Int32) -> Bool {
        let flags = fcntl(number, F_GETFL)
        return flags >= 0 && flags & O_ACCMODE != O_RDONLY
    }

    /// Marks an inherited descriptor close-on-exec, so that child processes do not get it.
    package static func closeOnExec(_ number: Int32) { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
}

/// The size of a terminal and its foreground process group.
package enum Terminal {
    /// The size in characters; nil if the stream is not a terminal or the terminal does not report a size.
    package static func size(of stream: StandardStream) -> (columns: Int, rows: Int)? {
        var size = winsize()
        guard ioctl(stream.rawValue, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return nil }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Whether this process is in the terminal's foreground process group, or the stream is not a terminal.
    package static func isForeground(on stream: StandardStream) -> Bool {
        let owner = tcgetpgrp(stream.rawValue)
        return owner < 0 || owner == getpgrp()
    }
}
