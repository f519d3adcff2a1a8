public import ComposefsBytes
internal import ComposefsCLinux

/// Flags of open(2). Every descriptor is opened with O_CLOEXEC.
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
    /// Only a handle on the path (O_PATH): needs no permission to read the file, and does not open it.
    public static var pathOnly: OpenFlags { OpenFlags(rawValue: cl_o_path) }
    /// A file without a name in the directory at the path (O_TMPFILE); needs write access.
    public static var temporary: OpenFlags { OpenFlags(rawValue: cl_o_tmpfile) }
    public static var nonBlocking: OpenFlags { OpenFlags(rawValue: cl_o_nonblock) }
    /// Reads and writes bypass the page cache (O_DIRECT). EINVAL if the file system does not support it.
    public static var direct: OpenFlags { OpenFlags(rawValue: cl_o_direct) }

    /// Whether the call may create a file, and so takes a mode.
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
    /// No component may leave the directory: `..` above it and absolute links give EXDEV.
    public static let beneath = ResolveFlags(rawValue: 0x08)
    /// The directory acts as the root: `..` stops at it and absolute links start from it.
    public static let inRoot = ResolveFlags(rawValue: 0x10)
}

/// An open file, which is closed when the value goes out of scope.
///
/// Operations throw `SystemError` with the path. For open files that is the kernel's name, which is looked up only after a failure.
/// System calls that a signal interrupts are repeated. Paths are bytes; a path that contains a NUL gives EINVAL.
public struct FileDescriptor: ~Copyable, Sendable {
    /// The descriptor's number, or AT_FDCWD for `currentDirectory`.
    public let raw: Int32

    /// Takes ownership of an open descriptor.
    @inlinable
    public init(owning raw: Int32) { self.raw = raw }

    deinit {
        // An error of close changes nothing: data that must be durable has been synced before.
        if raw >= 0 { _ = cl_close(raw) }
    }

    /// Returns the descriptor's number without closing it. The caller owns it from then on.
    public consuming func release() -> Int32 {
        let raw = raw
        discard self
        return raw
    }

    /// The current directory, for calls relative to it. It needs no open descriptor.
    public static var currentDirectory: FileDescriptor { FileDescriptor(owning: cl_at_fdcwd) }

    /// A second descriptor for the same open file; both share offset and lock.
    public borrowing func duplicate() throws(SystemError) -> FileDescriptor { try FileDescriptor.duplicate(of: raw) }

    /// A duplicate of a descriptor that this program does not own: 0, 1, 2, or one that the user passed.
    public static func duplicate(of raw: Int32) throws(SystemError) -> FileDescriptor {
        let result = Kernel.call(.open, raw) { cl_dup(raw) }
        guard let new = Int32(exactly: result), new >= 0 else { throw SystemError("duplicate", result, at: raw, nil) }
        return FileDescriptor(owning: new)
    }

    /// Creates a pipe: bytes written to `write` can be read from `read`.
    public static func pipe() throws(SystemError) -> Pipe {
        var ends: (Int32, Int32) = (-1, -1)
        let result = Kernel.call(.open, -1) {
            withUnsafeMutableBytes(of: &ends) { cl_pipe($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        }
        guard result >= 0 else { throw SystemError(operation: "create a pipe", errno: Errno(result: result)) }
        return Pipe(read: FileDescriptor(owning: ends.0), write: FileDescriptor(owning: ends.1))
    }

    /// The kernel's name of the open file. It ends with ` (deleted)` when the file has no name any more.
    public var kernelPath: ByteString { descriptorPath(raw) }

    /// The path by which other calls of this process can refer to the open file: `/proc/self/fd/N`.
    public var procPath: ByteString { ByteString("/proc/self/fd/\(raw)") }
}

/// The two ends of a pipe.
@frozen
public struct Pipe: ~Copyable, Sendable {
    public var read: FileDescriptor
    public var write: FileDescriptor

    /// Closes the write end and returns the read end.
    public consuming func keepRead() -> FileDescriptor { read }
}

// MARK: - Opening

extension FileDescriptor {
    /// Opens `path` relative to the current directory.
    public static func open(_ path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(cl_at_fdcwd, $0, flags, mode) }
        guard let raw = Int32(exactly: opened), raw >= 0 else {
            throw SystemError(operation: "open", path: path, errno: Errno(result: opened))
        }
        return FileDescriptor(owning: raw)
    }

    /// Opens `path` relative to this directory.
    public borrowing func open(at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, flags, mode) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("open", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// Opens a path in borrowed memory, relative to this directory.
    public borrowing func open(
        at path: UnsafeRawBufferPointer, _ flags: OpenFlags, mode: UInt32 = 0o666
    ) throws(SystemError) -> FileDescriptor {
        let opened = FileDescriptor.openResult(raw, path, flags, mode)
        guard let new = Int32(exactly: opened), new >= 0 else { throw SystemError("open", opened, at: raw, path) }
        return FileDescriptor(owning: new)
    }

    /// Like `open(at:)`, but returns nil if there is no such entry.
    public borrowing func openIfPresent(
        at path: UnsafeRawBufferPointer, _ flags: OpenFlags = .readOnly
    ) throws(SystemError) -> FileDescriptor? {
        let opened = FileDescriptor.openResult(raw, path, flags, 0)
        if let new = Int32(exactly: opened), new >= 0 { return FileDescriptor(owning: new) }
        if Errno(result: opened) == .noEntry { return nil }
        throw SystemError("open", opened, at: raw, path)
    }

    /// Like `open(at:)`, but returns nil if there is no such entry.
    public borrowing func openIfPresent(at path: ByteString, _ flags: OpenFlags = .readOnly) throws(SystemError) -> FileDescriptor? {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, flags, 0) }
        if let new = Int32(exactly: opened), new >= 0 { return FileDescriptor(owning: new) }
        if Errno(result: opened) == .noEntry { return nil }
        throw failure("open", opened, path)
    }

    /// Opens with restrictions on path resolution: openat2(2), or the same by hand if that call is missing.
    public borrowing func open(
        at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0, resolve: ResolveFlags
    ) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(flags.kind, raw, bytes) {
                PathResolution.open(raw, bytes, flags, mode, resolve)
            }
        }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("open", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// Creates a file without a name (O_TMPFILE) in this directory, open for reading and writing. It disappears when closed, unless
    /// `link(temporary:at:)` gives it a name.
    public borrowing func openTemporary(mode: UInt32 = 0o666, _ extra: OpenFlags = []) throws(SystemError) -> FileDescriptor {
        let flags: OpenFlags = [.readWrite, .temporary, extra]
        let opened = withUnsafeBytes(of: UInt8(ascii: ".")) { FileDescriptor.openResult(raw, $0, flags, mode) }
        guard let new = Int32(exactly: opened), new >= 0 else {
            throw SystemError("create a temporary file in", opened, at: raw, nil)
        }
        return FileDescriptor(owning: new)
    }

    /// Creates a file without a name in a directory below this one.
    public borrowing func openTemporary(at path: UnsafeRawBufferPointer, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = FileDescriptor.openResult(raw, path, [.readWrite, .temporary], mode)
        guard let new = Int32(exactly: opened), new >= 0 else {
            throw SystemError("create a temporary file in", opened, at: raw, path)
        }
        return FileDescriptor(owning: new)
    }

    /// Creates a file without a name in a directory below this one.
    public borrowing func openTemporary(at path: ByteString, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { FileDescriptor.openResult(raw, $0, [.readWrite, .temporary], mode) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw failure("create a temporary file in", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// Opens the same file, which may have no name, again through /proc. The new descriptor has its own position and access mode.
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

    /// Passes `/proc/self/fd/N` to `body` without a heap allocation.
    private borrowing func withProcPath<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let raw = raw
        return withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { buffer in
            let length = cl_fd_proc_path(raw, buffer.baseAddress, buffer.count)
            return body(UnsafeRawBufferPointer(rebasing: buffer[..<max(0, min(length, buffer.count))]))
        }
    }
}
