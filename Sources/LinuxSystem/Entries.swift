public import ComposefsBytes
internal import ComposefsCLinux

/// An entry of a directory.
public struct DirectoryEntry: Sendable, Hashable {
    public var name: ByteString
    /// `.unknown` if the file system does not report it.
    public var kind: FileKind

    public init(name: ByteString, kind: FileKind) {
        self.name = name
        self.kind = kind
    }
}

/// Flags of renameat2(2).
public struct RenameFlags: OptionSet, Sendable {
    public var rawValue: UInt32

    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Fail with EEXIST instead of replacing the target.
    public static let noReplace = RenameFlags(rawValue: 1)
    public static let exchange = RenameFlags(rawValue: 2)
}

// MARK: - Names

extension FileDescriptor {
    public borrowing func makeDirectory(at path: ByteString, mode: UInt32 = 0o777) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { makeDirectoryResult($0, mode) }
        guard result >= 0 else { throw failure("create directory", result, path) }
    }

    /// Creates a directory, relative to the current directory.
    public static func makeDirectory(_ path: ByteString, mode: UInt32 = 0o777) throws(SystemError) {
        try FileDescriptor.currentDirectory.makeDirectory(at: path, mode: mode)
    }

    /// Like `makeDirectory`, but accepts an existing entry. Returns whether a directory was created.
    @discardableResult
    public borrowing func makeDirectoryIfMissing(at path: ByteString, mode: UInt32 = 0o777) throws(SystemError) -> Bool {
        let result = path.bytes.withUnsafeBytes { makeDirectoryResult($0, mode) }
        if result >= 0 { return true }
        if Errno(result: result) == .exists { return false }
        throw failure("create directory", result, path)
    }

    private borrowing func makeDirectoryResult(_ path: UnsafeRawBufferPointer, _ mode: UInt32) -> Int {
        Kernel.call(.makeDirectory, raw, path) { cl_mkdirat(raw, path.baseAddress, path.count, mode) }
    }

    /// Creates a FIFO, socket or device node. `mode` has type and permission bits.
    public borrowing func makeNode(
        at path: ByteString, mode: UInt32, device: DeviceNumber = DeviceNumber(major: 0, minor: 0)
    ) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.makeNode, raw, bytes) {
                cl_mknodat(raw, bytes.baseAddress, bytes.count, mode, device.major, device.minor)
            }
        }
        guard result >= 0 else { throw failure("create node", result, path) }
    }

    public borrowing func symlink(target: ByteString, at path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            target.bytes.withUnsafeBytes { target in
                Kernel.call(.symlink, raw, bytes, otherPath: target) {
                    cl_symlinkat(target.baseAddress, target.count, raw, bytes.baseAddress, bytes.count)
                }
            }
        }
        guard result >= 0 else { throw failure("create symlink", result, path) }
    }

    /// The target of a symbolic link. EINVAL if the entry is not a symbolic link.
    public borrowing func readLink(at path: ByteString) throws(SystemError) -> ByteString {
        let (result, target) = readLinkResult(path)
        guard let target else { throw failure("read symlink", result, path) }
        return target
    }

    /// The target of a symbolic link; nil if there is no such entry. EINVAL if the entry is not a symbolic link.
    public borrowing func readLinkIfPresent(at path: ByteString) throws(SystemError) -> ByteString? {
        let (result, target) = readLinkResult(path)
        if let target { return target }
        if Errno(result: result) == .noEntry { return nil }
        throw failure("read symlink", result, path)
    }

    private borrowing func readLinkResult(_ path: ByteString) -> (Int, ByteString?) {
        let raw = raw
        return path.bytes.withUnsafeBytes { bytes in
            // A target has at most 4095 bytes (PATH_MAX).
            withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
                let result = cl_readlinkat(raw, bytes.baseAddress, bytes.count, buffer.baseAddress, buffer.count)
                guard result >= 0, result <= buffer.count else { return (result, nil) }
                return (result, ByteString(UnsafeRawBufferPointer(rebasing: buffer[..<result])))
            }
        }
    }

    /// Removes an entry that is not a directory.
    public borrowing func unlink(at path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.unlink, raw, bytes) { cl_unlinkat(raw, bytes.baseAddress, bytes.count, 0) }
        }
        guard result >= 0 else { throw failure("remove", result, path) }
    }

    /// Removes an empty directory.
    public borrowing func removeDirectory(at path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.removeDirectory, raw, bytes) { cl_unlinkat(raw, bytes.baseAddress, bytes.count, 1) }
        }
        guard result >= 0 else { throw failure("remove directory", result, path) }
    }

    /// Renames an entry of this directory, replacing the target unless `flags` forbid it.
    public borrowing func rename(
        at path: ByteString, to directory: borrowing FileDescriptor, at newPath: ByteString, flags: RenameFlags = []
    ) throws(SystemError) {
        let from = raw
        let to = directory.raw
        let result = path.bytes.withUnsafeBytes { old in
            newPath.bytes.withUnsafeBytes { new in
                Kernel.call(.rename, to, new, other: from, otherPath: old) {
                    cl_renameat2(from, old.baseAddress, old.count, to, new.baseAddress, new.count, flags.rawValue)
                }
            }
        }
        guard result >= 0 else { throw directory.failure("rename to", result, newPath) }
    }

    /// Renames within this directory.
    public borrowing func rename(at path: ByteString, to newPath: ByteString, flags: RenameFlags = []) throws(SystemError) {
        try rename(at: path, to: self, at: newPath, flags: flags)
    }

    /// Creates a hard link to an entry of this directory in another directory. A symbolic link is linked itself, not its target.
    public borrowing func link(
        at path: ByteString, to directory: borrowing FileDescriptor, at newPath: ByteString
    ) throws(SystemError) {
        let from = raw
        let to = directory.raw
        let result = path.bytes.withUnsafeBytes { old in
            newPath.bytes.withUnsafeBytes { new in
                Kernel.call(.link, to, new, other: from, otherPath: old) {
                    cl_linkat(from, old.baseAddress, old.count, to, new.baseAddress, new.count)
                }
            }
        }
        guard result >= 0 else { throw directory.failure("link", result, newPath) }
    }

    /// Creates a hard link to an entry of this directory in this directory. EEXIST if the name is taken.
    public borrowing func link(at path: ByteString, to newPath: ByteString) throws(SystemError) {
        let raw = raw
        let result = path.bytes.withUnsafeBytes { old in
            newPath.bytes.withUnsafeBytes { new in
                Kernel.call(.link, raw, new, other: raw, otherPath: old) {
                    cl_linkat(raw, old.baseAddress, old.count, raw, new.baseAddress, new.count)
                }
            }
        }
        guard result >= 0 else { throw failure("link", result, newPath) }
    }

    /// Gives an open file a name in this directory. EEXIST if the name is taken.
    public borrowing func link(_ file: borrowing FileDescriptor, at path: ByteString) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { linkResult(file.raw, $0) }
        guard result >= 0 else { throw failure("link", result, path) }
    }

    /// Gives an open file, usually one from `openTemporary`, a name in this directory. Returns false if the name is taken.
    public borrowing func link(temporary file: borrowing FileDescriptor, at path: UnsafeRawBufferPointer) throws(SystemError) -> Bool {
        let result = linkResult(file.raw, path)
        if result >= 0 { return true }
        if Errno(result: result) == .exists { return false }
        throw SystemError("link", result, at: raw, path)
    }

    /// Gives an open file, usually one from `openTemporary`, a name in this directory. Returns false if the name is taken.
    public borrowing func link(temporary file: borrowing FileDescriptor, at path: ByteString) throws(SystemError) -> Bool {
        let result = path.bytes.withUnsafeBytes { linkResult(file.raw, $0) }
        if result >= 0 { return true }
        if Errno(result: result) == .exists { return false }
        throw failure("link", result, path)
    }

    private borrowing func linkResult(_ file: Int32, _ path: UnsafeRawBufferPointer) -> Int {
        let directory = raw
        return Kernel.call(.link, directory, path, other: file) { Self.linkOpenFile(file, directory, path) }
    }

    /// Links an open file, which may have no name. Returns 0 or -errno.
    static func linkOpenFile(_ file: Int32, _ directory: Int32, _ path: UnsafeRawBufferPointer) -> Int {
        // Kernels return ENOENT without CAP_DAC_READ_SEARCH. Only then is /proc used, which costs another path walk.
        let result = cl_link_fd_empty_path(file, directory, path.baseAddress, path.count)
        switch Errno(result: result) {
        case .noEntry, .notPermitted, .invalidArgument: return cl_link_fd_proc(file, directory, path.baseAddress, path.count)
        default: return result
        }
    }
}

// MARK: - Listing

extension FileDescriptor {
    /// All entries of this directory except `.` and `..`, in the file system's order. The descriptor's position is not used.
    public borrowing func entries() throws(SystemError) -> [DirectoryEntry] {
        var all: [DirectoryEntry] = []
        try forEachEntry { name, kind in all.append(DirectoryEntry(name: ByteString(name), kind: kind)) }
        return all
    }

    /// Calls `body` for each entry except `.` and `..`, without an allocation. The name is valid only during the call.
    public borrowing func forEachEntry(_ body: (UnsafeRawBufferPointer, FileKind) -> Void) throws(SystemError) {
        // Opens a new descriptor, because several threads may list the same directory.
        let listing = try open(at: ".", [.readOnly, .directory])
        let result = withUnsafeTemporaryAllocation(byteCount: 32768, alignment: 8) { buffer -> Int in
            while true {
                let length = cl_getdents64(listing.raw, buffer.baseAddress, buffer.count)
                guard length > 0 else { return length }
                forEachRecord(UnsafeRawBufferPointer(rebasing: buffer[..<min(length, buffer.count)]), body)
            }
        }
        guard result >= 0 else { throw SystemError("list", result, at: raw, nil) }
    }
}

/// struct linux_dirent64 (getdents64(2)): u64 inode, s64 offset, u16 record length, u8 type, NUL-terminated name.
private func forEachRecord(_ records: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer, FileKind) -> Void) {
    var offset = 0
    while offset + 19 < records.count {
        let length = Int(records.loadUnaligned(fromByteOffset: offset + 16, as: UInt16.self))
        guard length > 19, offset + length <= records.count else { return }
        let kind = FileKind(rawValue: records[offset + 18]) ?? .unknown
        let padded = UnsafeRawBufferPointer(rebasing: records[(offset + 19)..<(offset + length)])
        offset += length
        let name = UnsafeRawBufferPointer(rebasing: padded[..<(padded.firstIndex(of: 0) ?? padded.count)])
        let isDot = name.first == UInt8(ascii: ".") && (name.count == 1 || (name.count == 2 && name[1] == UInt8(ascii: ".")))
        if !isDot { body(name, kind) }
    }
}
