public import ComposefsBytes
internal import ComposefsCLinux

/// How to open a file. Every descriptor is opened with O_CLOEXEC.
public struct OpenFlags: OptionSet, Sendable {
    public var rawValue: Int32

    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static var readOnly: OpenFlags { OpenFlags(rawValue: cl_o_rdonly) }
    public static var writeOnly: OpenFlags { OpenFlags(rawValue: cl_o_wronly) }
    public static var readWrite: OpenFlags { OpenFlags(rawValue: cl_o_rdwr) }
    public static var create: OpenFlags { OpenFlags(rawValue: cl_o_creat) }
    public static var exclusive: OpenFlags { OpenFlags(rawValue: cl_o_excl) }
    public static var truncate: OpenFlags { OpenFlags(rawValue: cl_o_trunc) }
    public static var append: OpenFlags { OpenFlags(rawValue: cl_o_append) }
    public static var directory: OpenFlags { OpenFlags(rawValue: cl_o_directory) }
    public static var noFollow: OpenFlags { OpenFlags(rawValue: cl_o_nofollow) }
    /// Only a handle on the path (O_PATH): no permission to read is needed, nothing is opened.
    public static var pathOnly: OpenFlags { OpenFlags(rawValue: cl_o_path) }
    /// A file without a name in the directory that the path names (O_TMPFILE); with write access.
    public static var temporary: OpenFlags { OpenFlags(rawValue: cl_o_tmpfile) }
    public static var nonBlocking: OpenFlags { OpenFlags(rawValue: cl_o_nonblock) }
    /// Reads and writes go to the device, past the page cache (O_DIRECT); EINVAL where the file system cannot do that.
    public static var direct: OpenFlags { OpenFlags(rawValue: cl_o_direct) }

    /// Whether a file is made, so that the call takes a mode.
    var creates: Bool { rawValue & cl_o_creat != 0 || rawValue & cl_o_tmpfile == cl_o_tmpfile }

    var kind: SystemCallKind {
        rawValue & (cl_o_creat | cl_o_trunc) != 0 || rawValue & cl_o_tmpfile == cl_o_tmpfile ? .create : .open
    }
}

/// How openat2(2) resolves a path (linux/openat2.h).
public struct ResolveFlags: OptionSet, Sendable {
    public var rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let noCrossDevice = ResolveFlags(rawValue: 0x01)
    public static let noMagicLinks = ResolveFlags(rawValue: 0x02)
    public static let noSymlinks = ResolveFlags(rawValue: 0x04)
    /// No step may leave the directory: `..` above it and absolute links give EXDEV.
    public static let beneath = ResolveFlags(rawValue: 0x08)
    /// The directory is the root: `..` stops at it and absolute links begin there.
    public static let inRoot = ResolveFlags(rawValue: 0x10)
}

/// An open file, closed when the value goes out of scope.
///
/// Operations throw `SystemError` with the path; for open files that is the kernel's name, asked for only when something failed.
/// System calls interrupted by a signal are repeated. Paths are bytes; one with a NUL in it is EINVAL.
public struct FileDescriptor: ~Copyable, Sendable {
    /// The descriptor's number, or that of `currentDirectory`.
    public let raw: Int32

    /// Takes over an open descriptor.
    @inlinable
    public init(owning raw: Int32) { self.raw = raw }

    deinit {
        // Errors of close are of no use here: what must be durable has been synced before.
        if raw >= 0 { _ = cl_close(raw) }
    }

    /// Gives the descriptor up without closing it.
    public consuming func release() -> Int32 {
        let raw = raw
        discard self
        return raw
    }

    /// The current directory, for calls relative to it; nothing is open.
    public static var currentDirectory: FileDescriptor { FileDescriptor(owning: cl_at_fdcwd) }

    /// A second descriptor of the same open file (it shares offset and lock).
    public borrowing func duplicate() throws(SystemError) -> FileDescriptor { try FileDescriptor.duplicate(of: raw) }

    /// A duplicate of a descriptor that belongs to somebody else: 0, 1, 2, or one given by the caller.
    public static func duplicate(of raw: Int32) throws(SystemError) -> FileDescriptor {
        let result = Kernel.call(.open, raw) { cl_dup(raw) }
        guard let new = Int32(exactly: result), new >= 0 else { throw SystemError("duplicate", result, at: raw, nil) }
        return FileDescriptor(owning: new)
    }

    /// A pipe: what is written to `write` comes out of `read`.
    public static func pipe() throws(SystemError) -> Pipe {
        var ends: (Int32, Int32) = (-1, -1)
        let result = Kernel.call(.open, -1) {
            withUnsafeMutableBytes(of: &ends) { cl_pipe($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        }
        guard result >= 0 else { throw SystemError(operation: "create a pipe", errno: Errno(result: result)) }
        return Pipe(read: FileDescriptor(owning: ends.0), write: FileDescriptor(owning: ends.1))
    }

    /// The kernel's name of the open file (`… (deleted)` when it has none any more).
    public var kernelPath: ByteString { descriptorPath(raw) }

    /// The path by which other calls of this process can name the open file: `/proc/self/fd/N`.
    public var procPath: ByteString { ByteString("/proc/self/fd/\(raw)") }
}

/// The two ends of a pipe.
@frozen
public struct Pipe: ~Copyable, Sendable {
    public var read: FileDescriptor
    public var write: FileDescriptor

    /// Closes the end that is written to.
    public consuming func keepRead() -> FileDescriptor { read }
}

// MARK: - Opening

extension FileDescriptor {
    /// Opens `path`, relative to the current directory.
    public static func open(_ path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(cl_at_fdcwd, $0, flags, mode) }
        guard let raw = Int32(exactly: opened), raw >= 0 else {
            throw SystemError(operation: "open", path: path, errno: Errno(result: opened))
        }
        return FileDescriptor(owning: raw)
    }

    /// Opens `path`, relative to this directory.
    public borrowing func open(at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, flags, mode) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("open", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// The same for path bytes that live elsewhere.
    public borrowing func open(
        at path: UnsafeRawBufferPointer, _ flags: OpenFlags, mode: UInt32 = 0o666
    ) throws(SystemError) -> FileDescriptor {
        let opened = FileDescriptor.openResult(raw, path, flags, mode)
        guard let new = Int32(exactly: opened), new >= 0 else { throw SystemError("open", opened, at: raw, path) }
        return FileDescriptor(owning: new)
    }

    /// As `open(at:)`, but nil where there is no such entry: asking is not a failure.
    public borrowing func openIfPresent(
        at path: UnsafeRawBufferPointer, _ flags: OpenFlags = .readOnly
    ) throws(SystemError) -> FileDescriptor? {
        let opened = FileDescriptor.openResult(raw, path, flags, 0)
        if let new = Int32(exactly: opened), new >= 0 { return FileDescriptor(owning: new) }
        if Errno(result: opened) == .noEntry { return nil }
        throw SystemError("open", opened, at: raw, path)
    }

    /// As `open(at:)`, but nil where there is no such entry.
    public borrowing func openIfPresent(at path: ByteString, _ flags: OpenFlags = .readOnly) throws(SystemError) -> FileDescriptor? {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, flags, 0) }
        if let new = Int32(exactly: opened), new >= 0 { return FileDescriptor(owning: new) }
        if Errno(result: opened) == .noEntry { return nil }
        throw failure("open", opened, path)
    }

    /// Opens with restrictions on how the path is resolved (openat2, Linux 5.6).
    public borrowing func open(
        at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0, resolve: ResolveFlags
    ) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(flags.kind, raw, bytes) {
                cl_openat2(raw, bytes.baseAddress, bytes.count, flags.rawValue, mode, resolve.rawValue)
            }
        }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("open", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// A new file without a name (O_TMPFILE) in this directory, open for reading and writing. It vanishes when closed unless
    /// `link(temporary:at:)` gives it a name.
    public borrowing func openTemporary(mode: UInt32 = 0o666, _ extra: OpenFlags = []) throws(SystemError) -> FileDescriptor {
        let flags: OpenFlags = [.readWrite, .temporary, extra]
        let opened = withUnsafeBytes(of: UInt8(ascii: ".")) { FileDescriptor.openResult(raw, $0, flags, mode) }
        guard let new = Int32(exactly: opened), new >= 0 else {
            throw SystemError("create a temporary file in", opened, at: raw, nil)
        }
        return FileDescriptor(owning: new)
    }

    /// The same in a directory below this one.
    public borrowing func openTemporary(at path: UnsafeRawBufferPointer, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = FileDescriptor.openResult(raw, path, [.readWrite, .temporary], mode)
        guard let new = Int32(exactly: opened), new >= 0 else {
            throw SystemError("create a temporary file in", opened, at: raw, path)
        }
        return FileDescriptor(owning: new)
    }

    /// The same in a directory below this one.
    public borrowing func openTemporary(at path: ByteString, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, [.readWrite, .temporary], mode) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("create a temporary file in", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// The same open file (which may have no name) opened anew through /proc, with a position and mode of its own.
    public borrowing func reopen(_ flags: OpenFlags = .readOnly) throws(SystemError) -> FileDescriptor {
        let opened = withProcPath { FileDescriptor.openResult(cl_at_fdcwd, $0, flags, 0) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw SystemError("reopen", opened, at: raw, nil) }
        return FileDescriptor(owning: new)
    }

    static func openResult(_ directory: Int32, _ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32) -> Int {
        Kernel.call(flags.kind, directory, path) {
            cl_openat(directory, path.baseAddress, path.count, flags.rawValue, mode)
        }
    }

    @inline(never)
    borrowing func failure(_ operation: StaticString, _ result: Int, _ path: ByteString) -> SystemError {
        let raw = raw
        return path.bytes.withUnsafeBytes { SystemError(operation, result, at: raw, $0) }
    }

    /// `/proc/self/fd/N`, without the heap.
    private borrowing func withProcPath<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let raw = raw
        return withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { buffer in
            let length = cl_fd_proc_path(raw, buffer.baseAddress, buffer.count)
            return body(UnsafeRawBufferPointer(rebasing: buffer[..<max(0, min(length, buffer.count))]))
        }
    }
}
