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
        if contains(.readWrite) { flags |= cl_o_rdwr } else if contains(.writeOnly) { flags |= cl_o_wronly } else { flags |= cl_o_rdonly }
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

    /// Fail where the path leads out (RESOLVE_BENEATH).
    public static let beneath = ResolveFlags(rawValue: 0x08)
    /// Treat the directory as the root (RESOLVE_IN_ROOT).
    public static let inRoot = ResolveFlags(rawValue: 0x10)
    public static let noSymlinks = ResolveFlags(rawValue: 0x04)
    public static let noMagicLinks = ResolveFlags(rawValue: 0x02)
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
        let raw = raw
        discard self
        return raw
    }

    public borrowing func duplicate() throws(SystemError) -> FileDescriptor {
        FileDescriptor(owning: Int32(truncatingIfNeeded: try check(cl_dup(raw), "duplicate a descriptor")))
    }

    // MARK: Opening

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

    /// Opens with the kernel confining the path's resolution.
    public borrowing func openBeneath(
        _ path: ByteString, _ flags: OpenFlags, resolve: ResolveFlags, mode: UInt32 = 0o666
    ) throws(SystemError) -> FileDescriptor {
        // openat2 refuses a mode where nothing is created.
        let mode = flags.isDisjoint(with: [.create, .temporary]) ? 0 : mode
        let result = path.withPath { cl_openat2(raw, $0, $1, flags.system, mode, resolve.rawValue) }
        return FileDescriptor(owning: Int32(truncatingIfNeeded: try check(result, "open", path)))
    }

    /// The same file opened anew, with other flags.
    public borrowing func reopen(_ flags: OpenFlags) throws(SystemError) -> FileDescriptor {
        try Self.open(cl_at_fdcwd, procPath, flags, 0)
    }

    private static func open(_ directory: Int32, _ path: ByteString, _ flags: OpenFlags, _ mode: UInt32) throws(SystemError)
        -> FileDescriptor
    {
        let result =
            flags.isChange
            ? Kernel.change(.create, path) { path.withPath { cl_openat(directory, $0, $1, flags.system, mode) } }
            : path.withPath { cl_openat(directory, $0, $1, flags.system, mode) }
        return FileDescriptor(owning: Int32(truncatingIfNeeded: try check(result, "open", path)))
    }

    /// `/proc/self/fd/N`.
    public var procPath: ByteString { ByteString("/proc/self/fd/\(raw)") }

    /// The name that the kernel knows for this descriptor; for messages.
    public var currentPath: ByteString {
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = cl_fd_path(raw, buffer.baseAddress, buffer.count)
            return count > 0 ? ByteString(UnsafeRawBufferPointer(rebasing: buffer[..<min(count, buffer.count)])) : ByteString()
        }
    }

    // MARK: Reading and writing

    /// Reads at the current position; 0 at the end. May return fewer bytes than there is room for.
    public borrowing func read(into buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
        let result = cl_read(raw, buffer.baseAddress, buffer.count)
        return result < 0 ? try check(result, "read", currentPath) : result
    }

    /// Reads at an offset until the buffer is full or the file ends.
    public borrowing func pread(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(SystemError) -> Int {
        var done = 0
        while done < buffer.count {
            guard let at = Int64(exactly: offset + UInt64(done)) else { return done }
            let result = cl_pread(raw, buffer.baseAddress?.advanced(by: done), buffer.count - done, at)
            if result < 0 { _ = try check(result, "read", currentPath) }
            if result == 0 { break }
            done += result
        }
        return done
    }

    /// All that is left from the current position on, which must be at most `limit` bytes.
    public borrowing func readAll(limit: Int) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        try withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 16) { (buffer) throws(SystemError) in
            while true {
                let count = try read(into: buffer)
                if count == 0 { return }
                guard bytes.count + count <= limit else { throw SystemError("read", currentPath, .fileTooLarge) }
                bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            }
        }
        return bytes
    }

    /// Writes everything at the current position.
    public borrowing func writeAll(_ bytes: UnsafeRawBufferPointer) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            let result = Kernel.change(.write, ByteString()) { cl_write(raw, bytes.baseAddress?.advanced(by: done), bytes.count - done) }
            if result < 0 { _ = try check(result, "write", currentPath) }
            done += result
        }
    }

    /// Writes all the pieces, one after the other, with as few calls as can be.
    public borrowing func writeAll(_ pieces: [UnsafeRawBufferPointer]) throws(SystemError) {
        if pieces.count == 1 { return try writeAll(pieces[0]) }
        var (first, offset) = (0, 0)
        while first < pieces.count {
            if offset == pieces[first].count {
                (first, offset) = (first + 1, 0)
                continue
            }
            let batch = pieces[first..<min(first + 64, pieces.count)]
            let result = Kernel.change(.write, ByteString()) {
                withUnsafeTemporaryAllocation(of: cl_iovec.self, capacity: batch.count) { vectors in
                    for (index, piece) in batch.enumerated() {
                        let skip = index == 0 ? offset : 0
                        vectors[index] = cl_iovec(base: piece.baseAddress?.advanced(by: skip), length: piece.count - skip)
                    }
                    return cl_writev(raw, vectors.baseAddress, batch.count)
                }
            }
            if result < 0 { _ = try check(result, "write", currentPath) }
            var left = result
            while left > 0, first < pieces.count {
                let part = min(left, pieces[first].count - offset)
                left -= part
                offset += part
                if offset == pieces[first].count { (first, offset) = (first + 1, 0) }
            }
        }
    }

    /// Writes everything at an offset.
    public borrowing func pwrite(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(SystemError) {
        var done = 0
        while done < bytes.count {
            guard let at = Int64(exactly: offset + UInt64(done)) else { throw SystemError("write", currentPath, .fileTooLarge) }
            let result = Kernel.change(.write, ByteString()) {
                cl_pwrite(raw, bytes.baseAddress?.advanced(by: done), bytes.count - done, at)
            }
            if result < 0 { _ = try check(result, "write", currentPath) }
            done += result
        }
    }

    /// Moves the position to `offset` bytes from the beginning.
    public borrowing func seek(to offset: UInt64) throws(SystemError) {
        guard let at = Int64(exactly: offset) else { throw SystemError("seek", currentPath, .invalidArgument) }
        _ = try check(cl_lseek(raw, at, 0), "seek")
    }

    public borrowing func truncate(to size: UInt64) throws(SystemError) {
        guard let size = Int64(exactly: size) else { throw SystemError("truncate", currentPath, .fileTooLarge) }
        _ = try check(Kernel.change(.truncate, ByteString()) { cl_ftruncate(raw, size) }, "truncate", currentPath)
    }

    /// Makes this file share the other's content, where the file system can (FICLONE).
    public borrowing func cloneContent(of other: borrowing FileDescriptor) throws(SystemError) {
        let (to, from) = (raw, other.raw)
        _ = try check(Kernel.change(.clone, ByteString()) { cl_ficlone(to, from) }, "clone", currentPath)
    }

    // MARK: Durability and locks

    /// fsync(2): the file's content and size; for a directory, its entries.
    public borrowing func sync() throws(SystemError) {
        _ = try check(Kernel.change(.sync, currentPathWhenHooked) { cl_fsync(raw) }, "fsync", currentPath)
    }

    /// syncfs(2): everything written to this file's file system.
    public borrowing func syncFileSystem() throws(SystemError) {
        _ = try check(Kernel.change(.syncFileSystem, ByteString()) { cl_syncfs(raw) }, "syncfs", currentPath)
    }

    private var currentPathWhenHooked: ByteString { Kernel.isWatched ? currentPath : ByteString() }

    public enum Lock: Sendable { case shared, exclusive }

    /// flock(2). False where `wait` is false and somebody else holds a lock in the way.
    public borrowing func lock(_ lock: Lock, wait: Bool) throws(SystemError) -> Bool {
        while true {
            let result = cl_flock(raw, lock == .shared ? 1 : 2, wait ? 1 : 0)
            if result == -Int(Errno.interrupted.rawValue) { continue }
            if result == -Int(Errno.tryAgain.rawValue), !wait { return false }
            _ = try check(result, "lock", currentPath)
            return true
        }
    }

    public borrowing func unlock() throws(SystemError) { _ = try check(cl_flock(raw, 8, 1), "unlock", currentPath) }
}
