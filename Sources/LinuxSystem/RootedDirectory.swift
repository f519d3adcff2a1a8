public import ComposefsBytes
internal import ComposefsCLinux

/// A directory that paths cannot leave: entries are reached through directories only, never through a symbolic link, `..` or an absolute
/// path.
///
/// Otherwise, a user who can write below the directory could plant a link that makes a privileged process write or remove files elsewhere.
/// Files are opened with openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS (Linux 5.6). On older kernels the path is walked component by
/// component (PathResolution.swift), with the same result. Calls without such flags (unlinkat, renameat2, linkat, mkdirat, symlinkat) get the
/// entry's directory, opened in that way, and only the last component.
///
/// Errors: ELOOP or ENOTDIR if a symbolic link is in the way, EXDEV if the path would leave the directory.
public struct RootedDirectory: ~Copyable, Sendable {
    /// The directory itself.
    public let descriptor: FileDescriptor

    /// - Parameter descriptor: A directory that is open for reading, or with O_PATH.
    public init(_ descriptor: consuming FileDescriptor) { self.descriptor = descriptor }

    /// A second handle on the same directory, which shares the lock.
    public borrowing func duplicate() throws(SystemError) -> RootedDirectory { RootedDirectory(try descriptor.duplicate()) }
}

// MARK: - Resolution

extension RootedDirectory {
    private static let slash = UInt8(ascii: "/")
    /// Opens a path below the directory. Returns a descriptor or -errno.
    ///
    /// - Parameter crossesMounts: whether the path may lead into another mount; if not, the answer is EXDEV.
    static func openResult(
        _ root: Int32, _ path: UnsafeRawBufferPointer, _ flags: OpenFlags, _ mode: UInt32, crossesMounts: Bool = true
    ) -> Int {
        let resolve: ResolveFlags = crossesMounts ? [.beneath, .noSymlinks] : [.beneath, .noSymlinks, .noCrossDevice]
        return Kernel.call(flags.kind, root, path) { PathResolution.open(root, path, flags, mode, resolve) }
    }

    /// Whether a path is absolute or contains `..`.
    private static func leaves(_ path: UnsafeRawBufferPointer) -> Bool {
        if path.first == slash { return true }
        return path.split(separator: slash).contains { $0.count == 2 && $0.allSatisfy { $0 == UInt8(ascii: ".") } }
    }

    /// Calls `body` with the directory of the path's last component, and that component. Returns -errno if the directory cannot be reached.
    private static func inParent(
        _ root: Int32, _ path: UnsafeRawBufferPointer, _ body: (Int32, UnsafeRawBufferPointer) -> Int
    ) -> Int {
        guard let end = path.lastIndex(of: slash) else {
            return leaves(path) ? -Int(Errno.crossDevice.rawValue) : body(root, path)
        }
        let name = UnsafeRawBufferPointer(rebasing: path[(end + 1)...])
        guard end > 0, !leaves(name) else { return -Int(Errno.crossDevice.rawValue) }
        let parent = UnsafeRawBufferPointer(rebasing: path[..<end])
        let opened = openResult(root, parent, [.pathOnly, .directory], 0)
        guard let directory = Int32(exactly: opened), directory >= 0 else { return opened }
        defer { _ = cl_close(directory) }
        return body(directory, name)
    }

    /// Runs `body` through `inParent`; the observer of `Kernel` sees the whole path.
    private borrowing func change(
        _ kind: SystemCallKind, _ path: ByteString, _ body: (Int32, UnsafeRawBufferPointer) -> Int
    ) -> Int {
        let root = descriptor.raw
        return path.bytes.withUnsafeBytes { path in
            Self.inParent(root, path) { directory, name in
                Kernel.call(kind, root, path) { body(directory, name) }
            }
        }
    }
}

// MARK: - Opening

extension RootedDirectory {
    public borrowing func open(at path: ByteString, _ flags: OpenFlags, mode: UInt32 = 0o600) throws(SystemError) -> FileDescriptor {
        let opened = path.bytes.withUnsafeBytes { Self.openResult(descriptor.raw, $0, flags, mode) }
        guard let new = Int32(exactly: opened), new >= 0 else { throw descriptor.failure("open", opened, path) }
        return FileDescriptor(owning: new)
    }

    /// Like `open(at:)`, but returns nil if there is no such entry.
    public borrowing func openIfPresent(at path: ByteString, _ flags: OpenFlags = .readOnly) throws(SystemError) -> FileDescriptor? {
        let opened = path.bytes.withUnsafeBytes { Self.openResult(descriptor.raw, $0, flags, 0) }
        if let new = Int32(exactly: opened), new >= 0 { return FileDescriptor(owning: new) }
        if Errno(result: opened) == .noEntry { return nil }
        throw descriptor.failure("open", opened, path)
    }

    /// See `FileDescriptor.openOnDevice(at:)`.
    public borrowing func openOnDevice(at path: ByteString) throws(SystemError) -> FileDescriptor {
        let (directory, name) = FileDescriptor.split(path)
        return try open(at: directory, [.pathOnly, .directory]).openOnDevice(at: name)
    }

    /// Opens a directory below this one as a `RootedDirectory`.
    public borrowing func directory(at path: ByteString) throws(SystemError) -> RootedDirectory {
        RootedDirectory(try open(at: path, [.readOnly, .directory]))
    }
}

// MARK: - Status and links

extension RootedDirectory {
    /// fstatat(2) of an entry, without following symbolic links.
    public borrowing func status(at path: ByteString) throws(SystemError) -> FileStatus {
        let (result, status) = statusResult(path)
        guard let status else { throw descriptor.failure("stat", result, path) }
        return status
    }

    /// Like `status(at:)`, but returns nil if there is no such entry.
    public borrowing func statusIfPresent(at path: ByteString) throws(SystemError) -> FileStatus? {
        let (result, status) = statusResult(path)
        if let status { return status }
        if Errno(result: result) == .noEntry { return nil }
        throw descriptor.failure("stat", result, path)
    }

    private borrowing func statusResult(_ path: ByteString) -> (Int, FileStatus?) {
        var status = cl_stat()
        let root = descriptor.raw
        let result = path.bytes.withUnsafeBytes { path in
            Self.inParent(root, path) { cl_fstatat($0, $1.baseAddress, $1.count, 0, &status) }
        }
        return (result, result >= 0 ? FileStatus(status) : nil)
    }

    /// The target of a symbolic link. EINVAL if the entry is not a symbolic link.
    public borrowing func readLink(at path: ByteString) throws(SystemError) -> ByteString {
        let (result, target) = readLinkResult(path)
        guard let target else { throw descriptor.failure("read symlink", result, path) }
        return target
    }

    /// Like `readLink(at:)`, but returns nil if there is no such entry.
    public borrowing func readLinkIfPresent(at path: ByteString) throws(SystemError) -> ByteString? {
        let (result, target) = readLinkResult(path)
        if let target { return target }
        if Errno(result: result) == .noEntry { return nil }
        throw descriptor.failure("read symlink", result, path)
    }

    private borrowing func readLinkResult(_ path: ByteString) -> (Int, ByteString?) {
        let root = descriptor.raw
        var target: ByteString?
        let result = path.bytes.withUnsafeBytes { path in
            Self.inParent(root, path) { directory, name in
                // A target has at most 4095 bytes (PATH_MAX).
                withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
                    let result = cl_readlinkat(directory, name.baseAddress, name.count, buffer.baseAddress, buffer.count)
                    if result >= 0, result <= buffer.count {
                        target = ByteString(UnsafeRawBufferPointer(rebasing: buffer[..<result]))
                    }
                    return result
                }
            }
        }
        return (result, target)
    }

    /// The entries of a directory below this one, or of this one (`.`); nil if it does not exist.
    public borrowing func entries(of path: ByteString) throws(SystemError) -> [DirectoryEntry]? {
        guard let directory = try openIfPresent(at: path, [.readOnly, .directory, .noFollow]) else { return nil }
        do throws(SystemError) {
            return try directory.entries()
        } catch {
            // The kernel's answer for a directory that was removed after it was opened.
            guard error.errno == .noEntry else { throw error }
            return nil
        }
    }
}

// MARK: - Changing

extension RootedDirectory {
    public borrowing func makeDirectory(at path: ByteString, mode: UInt32 = 0o755) throws(SystemError) {
        let result = makeDirectoryResult(path, mode)
        guard result >= 0 else { throw descriptor.failure("create directory", result, path) }
    }

    /// Like `makeDirectory`, but accepts an existing entry. Returns whether a directory was created.
    @discardableResult
    public borrowing func makeDirectoryIfMissing(at path: ByteString, mode: UInt32 = 0o755) throws(SystemError) -> Bool {
        let result = makeDirectoryResult(path, mode)
        if result >= 0 { return true }
        if Errno(result: result) == .exists { return false }
        throw descriptor.failure("create directory", result, path)
    }

    private borrowing func makeDirectoryResult(_ path: ByteString, _ mode: UInt32) -> Int {
        change(.makeDirectory, path) { cl_mkdirat($0, $1.baseAddress, $1.count, mode) }
    }

    public borrowing func symlink(target: ByteString, at path: ByteString) throws(SystemError) {
        let root = descriptor.raw
        let result = path.bytes.withUnsafeBytes { path in
            target.bytes.withUnsafeBytes { target in
                Self.inParent(root, path) { directory, name in
                    Kernel.call(.symlink, root, path, otherPath: target) {
                        cl_symlinkat(target.baseAddress, target.count, directory, name.baseAddress, name.count)
                    }
                }
            }
        }
        guard result >= 0 else { throw descriptor.failure("create symlink", result, path) }
    }

    /// Removes an entry that is not a directory.
    public borrowing func unlink(at path: ByteString) throws(SystemError) {
        let result = change(.unlink, path) { cl_unlinkat($0, $1.baseAddress, $1.count, 0) }
        guard result >= 0 else { throw descriptor.failure("remove", result, path) }
    }

    /// Removes an empty directory.
    public borrowing func removeDirectory(at path: ByteString) throws(SystemError) {
        let result = change(.removeDirectory, path) { cl_unlinkat($0, $1.baseAddress, $1.count, 1) }
        guard result >= 0 else { throw descriptor.failure("remove directory", result, path) }
    }

    /// Renames an entry, replacing the target unless `flags` forbid it.
    public borrowing func rename(at path: ByteString, to newPath: ByteString, flags: RenameFlags = []) throws(SystemError) {
        let result = pair(.rename, path, newPath) { from, old, to, new in
            cl_renameat2(from, old.baseAddress, old.count, to, new.baseAddress, new.count, flags.rawValue)
        }
        guard result >= 0 else { throw descriptor.failure("rename to", result, newPath) }
    }

    /// Sets access and modification time of an entry, without following a symbolic link.
    public borrowing func setTime(at path: ByteString, seconds: Int64, nanoseconds: UInt32) throws(SystemError) {
        let result = change(.setTime, path) { cl_utimensat($0, $1.baseAddress, $1.count, seconds, nanoseconds) }
        guard result >= 0 else { throw descriptor.failure("set the time of", result, path) }
    }

    /// Creates a hard link to an entry; a symbolic link is linked itself, not its target. EEXIST if the name is taken.
    public borrowing func link(at path: ByteString, to newPath: ByteString) throws(SystemError) {
        let result = pair(.link, path, newPath) { from, old, to, new in
            cl_linkat(from, old.baseAddress, old.count, to, new.baseAddress, new.count)
        }
        guard result >= 0 else { throw descriptor.failure("link", result, newPath) }
    }

    private borrowing func pair(
        _ kind: SystemCallKind, _ path: ByteString, _ newPath: ByteString,
        _ body: (Int32, UnsafeRawBufferPointer, Int32, UnsafeRawBufferPointer) -> Int
    ) -> Int {
        let root = descriptor.raw
        return path.bytes.withUnsafeBytes { old in
            newPath.bytes.withUnsafeBytes { new in
                Self.inParent(root, old) { from, oldName in
                    Self.inParent(root, new) { to, newName in
                        Kernel.call(kind, root, new, other: root, otherPath: old) { body(from, oldName, to, newName) }
                    }
                }
            }
        }
    }

    /// Gives an open file a name. EEXIST if the name is taken.
    public borrowing func link(_ file: borrowing FileDescriptor, at path: ByteString) throws(SystemError) {
        let root = descriptor.raw
        let file = file.raw
        let result = path.bytes.withUnsafeBytes { path in
            Self.inParent(root, path) { directory, name in
                Kernel.call(.link, root, path, other: file) { FileDescriptor.linkOpenFile(file, directory, name) }
            }
        }
        guard result >= 0 else { throw descriptor.failure("link", result, path) }
    }
}

// MARK: - Trees

extension RootedDirectory {
    /// Removes a directory with everything below it. Symbolic links are not followed. Nothing happens if there is none.
    ///
    /// A mount point is never entered: what is mounted there belongs to another file system, or has another place.
    ///
    /// - Throws: EBUSY if the directory or one below it is a mount point; what was removed before stays removed.
    public borrowing func removeTree(at path: ByteString) throws(SystemError) {
        let (parent, name) = FileDescriptor.split(path)
        guard let directory = try openIfPresent(at: parent, [.pathOnly, .directory]) else { return }
        try RootedDirectory(directory).removeTree(named: name)
    }

    private borrowing func removeTree(named name: ByteString) throws(SystemError) {
        // A list instead of recursion: the directory decides how deep it is. Directories are removed in reverse order, the deepest first.
        var pending = [name]
        var directories: [ByteString] = []
        while let next = pending.popLast() {
            guard let entries = try entriesOfMount(next) else { continue }
            directories.append(next)
            for entry in entries {
                let path = next + "/" + entry.name
                if try kind(of: entry, at: path) == .directory { pending.append(path) } else { try unlink(at: path) }
            }
        }
        for directory in directories.reversed() { try removeDirectory(at: directory) }
    }

    /// The first directory that is a mount point: this one, or one below it. Nil if there is none, or no such directory.
    public borrowing func mountPoint(atOrBelow path: ByteString) throws(SystemError) -> ByteString? {
        let (parent, name) = FileDescriptor.split(path)
        guard let directory = try openIfPresent(at: parent, [.pathOnly, .directory]) else { return nil }
        let top = RootedDirectory(directory)
        var pending = [name]
        while let next = pending.popLast() {
            do throws(SystemError) {
                for entry in try top.entriesOfMount(next) ?? [] {
                    let path = next + "/" + entry.name
                    if try top.kind(of: entry, at: path) == .directory { pending.append(path) }
                }
            } catch {
                guard error.errno == .busy else { throw error }
                return parent == "." ? next : parent + "/" + next
            }
        }
        return nil
    }

    /// The entries of a directory in ascending order of their names; nil if it does not exist. EBUSY if another file system is mounted on it.
    private borrowing func entriesOfMount(_ path: ByteString) throws(SystemError) -> [DirectoryEntry]? {
        let opened = path.bytes.withUnsafeBytes {
            Self.openResult(descriptor.raw, $0, [.readOnly, .directory, .noFollow], 0, crossesMounts: false)
        }
        guard let new = Int32(exactly: opened), new >= 0 else {
            switch Errno(result: opened) {
            case .noEntry: return nil
            case .crossDevice: throw descriptor.failure("remove mount point", -Int(Errno.busy.rawValue), path)
            default: throw descriptor.failure("open", opened, path)
            }
        }
        let directory = FileDescriptor(owning: new)
        do throws(SystemError) {
            return try directory.entries().sorted { $0.name < $1.name }
        } catch {
            // The kernel's answer for a directory that was removed after it was opened.
            guard error.errno == .noEntry else { throw error }
            return nil
        }
    }

    /// The kind of a directory's entry, also if the file system does not state it with the name.
    private borrowing func kind(of entry: DirectoryEntry, at path: ByteString) throws(SystemError) -> FileKind? {
        entry.kind == .unknown ? try statusIfPresent(at: path)?.kind : entry.kind
    }
}

// MARK: - The directory itself

extension RootedDirectory {
    public borrowing func status() throws(SystemError) -> FileStatus { try descriptor.status() }

    public borrowing func fileSystemStatus() throws(SystemError) -> FileSystemStatus { try descriptor.fileSystemStatus() }

    /// Throws unless the process's effective user may access the directory in this mode (EACCES, EROFS).
    public borrowing func access(_ mode: AccessMode) throws(SystemError) { try descriptor.access(at: ".", mode) }

    /// Makes the directory's entries durable.
    public borrowing func sync() throws(SystemError) { try descriptor.sync() }

    /// Makes everything on the directory's file system durable.
    public borrowing func syncFileSystem() throws(SystemError) { try descriptor.syncFileSystem() }

    /// See `FileDescriptor.lock`.
    @discardableResult
    public borrowing func lock(_ kind: LockKind, wait: Bool = true) throws(SystemError) -> Bool {
        try descriptor.lock(kind, wait: wait)
    }
}
