public import Bytes
internal import CLinux

/// How a file is opened (open(2)). Descriptors are always close-on-exec.
public struct OpenFlags: OptionSet, Sendable {
    public let rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readOnly = OpenFlags([])
    public static let writeOnly = OpenFlags(rawValue: 1)
    public static let readWrite = OpenFlags(rawValue: 2)
    public static let create = OpenFlags(rawValue: 4)
    public static let exclusive = OpenFlags(rawValue: 8)
    public static let truncate = OpenFlags(rawValue: 16)
    public static let append = OpenFlags(rawValue: 32)
    public static let directory = OpenFlags(rawValue: 64)
    public static let noFollow = OpenFlags(rawValue: 128)
    /// Only a handle on the name (O_PATH).
    public static let path = OpenFlags(rawValue: 256)
    /// A nameless file in the directory that is opened (O_TMPFILE).
    public static let temporary = OpenFlags(rawValue: 512)
    public static let nonBlocking = OpenFlags(rawValue: 1024)

    var system: Int32 {
        var flags = cl_o_cloexec
        if contains(.readWrite) {
            flags |= cl_o_rdwr
        } else if contains(.writeOnly) {
            flags |= cl_o_wronly
        } else {
            flags |= cl_o_rdonly
        }
        if contains(.create) { flags |= cl_o_creat }
        if contains(.exclusive) { flags |= cl_o_excl }
        if contains(.truncate) { flags |= cl_o_trunc }
        if contains(.append) { flags |= cl_o_append }
        if contains(.directory) { flags |= cl_o_directory }
        if contains(.noFollow) { flags |= cl_o_nofollow }
        if contains(.path) { flags |= cl_o_path }
        if contains(.temporary) { flags |= cl_o_tmpfile }
        if contains(.nonBlocking) { flags |= cl_o_nonblock }
        return flags
    }

    /// Whether opening with these may change the file system.
    var isChange: Bool { !isDisjoint(with: [.create, .truncate, .temporary]) }
}

/// How `openBeneath` treats what would leave the directory (openat2(2)).
public struct ResolveFlags: OptionSet, Sendable {
    public let rawValue: UInt64

    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Do not cross mount points.
    public static let noCrossing = ResolveFlags(rawValue: 0x01)
    public static let noMagicLinks = ResolveFlags(rawValue: 0x02)
    public static let noSymlinks = ResolveFlags(rawValue: 0x04)
    /// Fail where the path leads out.
    public static let beneath = ResolveFlags(rawValue: 0x08)
    /// Treat the directory as the root.
    public static let inRoot = ResolveFlags(rawValue: 0x10)
}

/// An open file, closed when the value goes.
///
/// Operations with `at:` take paths relative to this directory. All throw `SystemError`; EINTR is retried.
public struct FileDescriptor: ~Copyable, Sendable {
    /// The descriptor's number; valid while this value lives.
    public let raw: Int32

    /// Takes over a descriptor that nobody else closes.
    @inlinable
    public init(owning raw: Int32) { self.raw = raw }

    deinit { _ = cl_close(raw) }

    /// Gives the descriptor away; the caller closes it.
    public consuming func release() -> Int32 {
        let number = raw
        discard self
        return number
    }

    public borrowing func duplicate() throws(SystemError) -> FileDescriptor {
        let result = cl_dup(raw)
        guard result >= 0 else { throw SystemError("duplicate", result, at: raw, nil) }
        return FileDescriptor(owning: Int32(truncatingIfNeeded: result))
    }

    /// Opens a path relative to the working directory. `mode` is for new files and subject to the umask.
    public static func open(_ path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        try open(cl_at_fdcwd, path, flags, mode)
    }

    public borrowing func open(at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        try Self.open(raw, path, flags, mode)
    }

    /// A nameless file in this directory, for reading and writing.
    public borrowing func openTemporary(mode: UInt32 = 0o666) throws(SystemError) -> FileDescriptor {
        try Self.open(raw, ".", [.readWrite, .temporary], mode)
    }

    /// Opens with the kernel confining how the path is resolved.
    public borrowing func openBeneath(
        _ path: ByteString, _ flags: OpenFlags, resolve: ResolveFlags, mode: UInt32 = 0o666
    ) throws(SystemError) -> FileDescriptor {
        // openat2 refuses a mode where nothing is created.
        let mode = flags.isDisjoint(with: [.create, .temporary]) ? 0 : mode
        let directory = raw
        let result = path.bytes.withUnsafeBytes { bytes in
            flags.isChange
                ? Kernel.call(.create, directory, bytes) {
                    cl_openat2(directory, bytes.baseAddress, bytes.count, flags.system, mode, resolve.rawValue)
                }
                : cl_openat2(directory, bytes.baseAddress, bytes.count, flags.system, mode, resolve.rawValue)
        }
        guard result >= 0 else { throw failure("open", result, path) }
        return FileDescriptor(owning: Int32(truncatingIfNeeded: result))
    }

    /// The same file opened anew, with other flags.
    public borrowing func reopen(_ flags: OpenFlags) throws(SystemError) -> FileDescriptor {
        try Self.open(cl_at_fdcwd, ByteString("/proc/self/fd/\(raw)"), flags, 0)
    }

    private static func open(
        _ directory: Int32, _ path: ByteString, _ flags: OpenFlags, _ mode: UInt32
    ) throws(SystemError) -> FileDescriptor {
        let result = path.bytes.withUnsafeBytes { bytes in
            flags.isChange
                ? Kernel.call(.create, directory, bytes) { cl_openat(directory, bytes.baseAddress, bytes.count, flags.system, mode) }
                : cl_openat(directory, bytes.baseAddress, bytes.count, flags.system, mode)
        }
        guard result >= 0 else { throw path.bytes.withUnsafeBytes { SystemError("open", result, at: directory, $0) } }
        return FileDescriptor(owning: Int32(truncatingIfNeeded: result))
    }

    /// Makes a directory at a path relative to the working directory.
    public static func makeDirectory(_ path: ByteString, mode: UInt32 = 0o777) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.makeDirectory, cl_at_fdcwd, bytes) { cl_mkdirat(cl_at_fdcwd, bytes.baseAddress, bytes.count, mode) }
        }
        guard result >= 0 else { throw path.bytes.withUnsafeBytes { SystemError("create directory", result, at: cl_at_fdcwd, $0) } }
    }

    /// The kernel's name of this file; for messages.
    public var kernelPath: ByteString { descriptorPath(raw) }

    /// The error of a call relative to this directory.
    func failure(_ operation: StaticString, _ result: Int, _ path: ByteString) -> SystemError {
        path.bytes.withUnsafeBytes { SystemError(operation, result, at: raw, $0) }
    }
}
