public import ComposefsBytes
internal import ComposefsCLinux

/// The type of a file. Raw values are the format bits of `st_mode` shifted right by twelve, as in `d_type`.
public enum FileKind: UInt8, Sendable, Hashable {
    case unknown = 0
    case fifo = 1
    case characterDevice = 2
    case directory = 4
    case blockDevice = 6
    case regular = 8
    case symbolicLink = 10
    case socket = 12
}

/// The result of stat(2), in fixed widths.
public struct FileStatus: Sendable, Hashable {
    /// The kernel's number of the file's file system.
    public var device: UInt64
    public var inode: UInt64
    public var links: UInt64
    /// File type and permission bits, as in `st_mode`.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// The device that a device node refers to.
    public var deviceMajor: UInt32
    public var deviceMinor: UInt32
    /// Size in bytes.
    public var size: UInt64
    /// The allocated space in units of 512 bytes.
    public var blocks: UInt64
    public var mtimeSeconds: Int64
    public var mtimeNanoseconds: UInt32
    public var ctimeSeconds: Int64
    public var ctimeNanoseconds: UInt32

    public var kind: FileKind { FileKind(rawValue: UInt8(truncatingIfNeeded: (mode >> 12) & 0xf)) ?? .unknown }
    /// The lower twelve bits of the mode.
    public var permissions: UInt32 { mode & 0o7777 }

    init(_ from: cl_stat) {
        device = from.device
        inode = from.inode
        links = from.links
        mode = from.mode
        uid = from.uid
        gid = from.gid
        deviceMajor = from.rdevMajor
        deviceMinor = from.rdevMinor
        size = from.size
        blocks = from.blocks
        mtimeSeconds = from.mtimeSeconds
        mtimeNanoseconds = from.mtimeNanoseconds
        ctimeSeconds = from.ctimeSeconds
        ctimeNanoseconds = from.ctimeNanoseconds
    }
}

/// The result of statfs(2).
public struct FileSystemStatus: Sendable, Hashable {
    /// The magic number of the file system's type (linux/magic.h).
    public var type: UInt64
    /// The number of bytes that an unprivileged user can still write.
    public var availableBytes: UInt64
    /// The number of free bytes, including those reserved for privileged users.
    public var freeBytes: UInt64
    public var totalBytes: UInt64
    /// The free and the total number of inodes; both are 0 if the file system does not count inodes.
    public var freeInodes: UInt64
    public var totalInodes: UInt64
    public var isReadOnly: Bool

    /// Whether the file system counts its blocks. One that does not reports 0 free bytes but may accept any amount.
    public var reportsSize: Bool { totalBytes > 0 }

    /// The number of bytes that can still be written; nil if the file system does not count its blocks.
    ///
    /// - Parameter isPrivileged: whether those reserved for privileged users count.
    public func freeBytes(isPrivileged: Bool) -> UInt64? { !reportsSize ? nil : isPrivileged ? freeBytes : availableBytes }

    /// Whether data takes its whole size, apart from holes: the file system neither shares nor compresses blocks. False if it is not known.
    public var storesWholeBlocks: Bool { type == Self.typeExt4 || type == Self.typeTemporary }

    /// Also that of ext2 and ext3.
    public static let typeExt4: UInt64 = 0xef53
    public static let typeTemporary: UInt64 = 0x0102_1994
    public static let typeOverlay: UInt64 = 0x794c_7630
    public static let typeErofs: UInt64 = 0xe0f5_e1e2
}

/// The mode of access(2).
public struct AccessMode: OptionSet, Sendable {
    public var rawValue: Int32

    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let execute = AccessMode(rawValue: 1)
    public static let write = AccessMode(rawValue: 2)
    public static let read = AccessMode(rawValue: 4)
}

/// The device number of a device node.
public struct DeviceNumber: Sendable, Hashable {
    public var major: UInt32
    public var minor: UInt32

    public init(major: UInt32, minor: UInt32) {
        self.major = major
        self.minor = minor
    }
}

extension FileDescriptor {
    /// fstat(2).
    public borrowing func status() throws(SystemError) -> FileStatus {
        var status = cl_stat()
        let result = cl_fstat(raw, &status)
        guard result >= 0 else { throw SystemError("stat", result, at: raw, nil) }
        return FileStatus(status)
    }

    /// fstatat(2).
    public borrowing func status(at path: ByteString, follow: Bool = false) throws(SystemError) -> FileStatus {
        var status = cl_stat()
        let result = path.bytes.withUnsafeBytes { cl_fstatat(raw, $0.baseAddress, $0.count, follow ? 1 : 0, &status) }
        guard result >= 0 else { throw failure("stat", result, path) }
        return FileStatus(status)
    }

    /// Like `status(at:)`, but returns nil if there is no such entry.
    public borrowing func statusIfPresent(at path: ByteString, follow: Bool = false) throws(SystemError) -> FileStatus? {
        var status = cl_stat()
        let result = path.bytes.withUnsafeBytes { cl_fstatat(raw, $0.baseAddress, $0.count, follow ? 1 : 0, &status) }
        if result >= 0 { return FileStatus(status) }
        if Errno(result: result) == .noEntry { return nil }
        throw failure("stat", result, path)
    }

    /// The same for a path in borrowed memory.
    public borrowing func statusIfPresent(at path: UnsafeRawBufferPointer, follow: Bool = false) throws(SystemError) -> FileStatus? {
        var status = cl_stat()
        let result = cl_fstatat(raw, path.baseAddress, path.count, follow ? 1 : 0, &status)
        if result >= 0 { return FileStatus(status) }
        if Errno(result: result) == .noEntry { return nil }
        throw SystemError("stat", result, at: raw, path)
    }

    public borrowing func fileSystemStatus() throws(SystemError) -> FileSystemStatus {
        var status = cl_statfs()
        let result = cl_fstatfs(raw, &status)
        guard result >= 0 else { throw SystemError("statfs", result, at: raw, nil) }
        return FileSystemStatus(
            type: status.type, availableBytes: status.blocksAvailable &* status.blockSize, freeBytes: status.blocksFree &* status.blockSize,
            totalBytes: status.blocks &* status.blockSize,
            freeInodes: status.filesFree, totalInodes: status.files, isReadOnly: status.flags & 1 != 0)
    }

    /// Throws unless the process's effective user may access `path` in this mode (EACCES, EROFS).
    public borrowing func access(at path: ByteString, _ mode: AccessMode) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { cl_faccessat(raw, $0.baseAddress, $0.count, mode.rawValue, 1) }
        guard result >= 0 else { throw failure("access", result, path) }
    }

    /// Sets the permission bits of the open file.
    public borrowing func changeMode(_ mode: UInt32) throws(SystemError) {
        let result = Kernel.call(.changeMode, raw) { cl_fchmod(raw, mode) }
        guard result >= 0 else { throw SystemError("chmod", result, at: raw, nil) }
    }

    /// Sets the permission bits of an entry. Follows a symbolic link, because links have no mode on Linux.
    public borrowing func changeMode(at path: ByteString, _ mode: UInt32) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.changeMode, raw, bytes) { cl_fchmodat(raw, bytes.baseAddress, bytes.count, mode) }
        }
        guard result >= 0 else { throw failure("chmod", result, path) }
    }

    /// Sets owner and group of the open file.
    public borrowing func changeOwner(uid: UInt32, gid: UInt32) throws(SystemError) {
        let result = Kernel.call(.changeOwner, raw) { cl_fchown(raw, uid, gid) }
        guard result >= 0 else { throw SystemError("chown", result, at: raw, nil) }
    }

    /// Sets owner and group of an entry, without following a symbolic link.
    public borrowing func changeOwner(at path: ByteString, uid: UInt32, gid: UInt32) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.changeOwner, raw, bytes) { cl_fchownat(raw, bytes.baseAddress, bytes.count, uid, gid) }
        }
        guard result >= 0 else { throw failure("chown", result, path) }
    }

    /// Sets access and modification time of the open file.
    public borrowing func setTime(seconds: Int64, nanoseconds: UInt32) throws(SystemError) {
        let result = Kernel.call(.setTime, raw) { cl_futimens(raw, seconds, nanoseconds) }
        guard result >= 0 else { throw SystemError("set the time of", result, at: raw, nil) }
    }

    /// Sets access and modification time of an entry, without following a symbolic link.
    public borrowing func setTime(at path: ByteString, seconds: Int64, nanoseconds: UInt32) throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { bytes in
            Kernel.call(.setTime, raw, bytes) { cl_utimensat(raw, bytes.baseAddress, bytes.count, seconds, nanoseconds) }
        }
        guard result >= 0 else { throw failure("set the time of", result, path) }
    }
}

// MARK: - Extended attributes

extension FileDescriptor {
    /// An extended attribute with its value.
    public struct ExtendedAttribute: Sendable, Hashable {
        public var name: ByteString
        public var value: ByteString

        public init(name: ByteString, value: ByteString) {
            self.name = name
            self.value = value
        }
    }

    /// All extended attributes, sorted by name: of the open file, or with a path, of an entry of this directory, without following symbolic
    /// links. Empty if the file system does not support them. Attributes that are removed meanwhile are left out.
    public borrowing func extendedAttributes(at path: ByteString = "") throws(SystemError) -> [ExtendedAttribute] {
        let list: [UInt8]
        do {
            let raw = raw
            list = try attributeBytes(path) { buffer, entry in
                cl_listxattr(raw, entry.baseAddress, entry.count, buffer.baseAddress, buffer.count)
            }
        } catch  where error.errno == .notSupported {
            return []
        }
        var all: [ExtendedAttribute] = []
        for name in list.split(separator: 0) {
            let name = ByteString(name)
            guard let value = try extendedAttribute(name, at: path) else { continue }
            all.append(ExtendedAttribute(name: name, value: value))
        }
        return all.sorted { $0.name < $1.name }
    }

    /// The value of an extended attribute; nil if it is not set or the file system does not support attributes.
    public borrowing func extendedAttribute(_ name: ByteString, at path: ByteString = "") throws(SystemError) -> ByteString? {
        do {
            let raw = raw
            return ByteString(
                try attributeBytes(path) { buffer, entry in
                    name.bytes.withUnsafeBytes { key in
                        cl_getxattr(raw, entry.baseAddress, entry.count, key.baseAddress, key.count, buffer.baseAddress, buffer.count)
                    }
                })
        } catch  where error.errno == .noData || error.errno == .notSupported {
            return nil
        }
    }

    /// Sets an extended attribute of the open file or of an entry, without following symbolic links.
    public borrowing func setExtendedAttribute(_ name: ByteString, _ value: ByteString, at path: ByteString = "") throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { entry in
            name.bytes.withUnsafeBytes { key in
                value.bytes.withUnsafeBytes { value in
                    Kernel.call(.setAttribute, raw, entry, otherPath: key, count: value.count) {
                        cl_setxattr(raw, entry.baseAddress, entry.count, key.baseAddress, key.count, value.baseAddress, value.count)
                    }
                }
            }
        }
        guard result >= 0 else { throw failure("set an extended attribute of", result, path) }
    }

    /// Removes an extended attribute of the open file or of an entry, without following symbolic links.
    public borrowing func removeExtendedAttribute(_ name: ByteString, at path: ByteString = "") throws(SystemError) {
        let result = path.bytes.withUnsafeBytes { entry in
            name.bytes.withUnsafeBytes { key in
                Kernel.call(.setAttribute, raw, entry, otherPath: key) {
                    cl_removexattr(raw, entry.baseAddress, entry.count, key.baseAddress, key.count)
                }
            }
        }
        guard result >= 0 else { throw failure("remove an extended attribute of", result, path) }
    }

    /// Calls `body` with a buffer of 1 KiB and, if that is too small, with one of 64 KiB, the kernel's limit (XATTR_SIZE_MAX).
    private borrowing func attributeBytes(
        _ path: ByteString, _ body: (UnsafeMutableRawBufferPointer, UnsafeRawBufferPointer) -> Int
    ) throws(SystemError) -> [UInt8] {
        var result = -Int(Errno.outOfRange.rawValue)
        for size in [1024, 65536] {
            let bytes = path.bytes.withUnsafeBytes { entry in
                withUnsafeTemporaryAllocation(byteCount: size, alignment: 8) { buffer -> [UInt8] in
                    result = body(buffer, entry)
                    return result > 0 && result <= buffer.count ? Array(buffer[..<result]) : []
                }
            }
            if result >= 0 { return bytes }
            if Errno(result: result) != .outOfRange { break }
        }
        throw failure("read extended attributes of", result, path)
    }
}

// MARK: - fs-verity

extension FileDescriptor {
    /// Enables fs-verity on the open file, with 4096-byte blocks and no salt. The file becomes immutable. This descriptor must be open for
    /// reading only, and no descriptor may be open for writing (ETXTBSY).
    ///
    /// - Parameters:
    ///   - algorithm: The kernel's number: 1 for SHA-256, 2 for SHA-512.
    ///   - signature: A PKCS#7 signature in DER, which the kernel checks against its `.fs-verity` keyring.
    /// - Throws: EEXIST if fs-verity is enabled already; an error with `isUnsupported` if the kernel or the file system lacks fs-verity.
    public borrowing func enableVerity(algorithm: UInt8, signature: UnsafeRawBufferPointer? = nil) throws(SystemError) {
        let result = Kernel.call(.enableVerity, raw) {
            cl_enable_verity(raw, UInt32(algorithm), signature?.baseAddress, signature?.count ?? 0)
        }
        guard result >= 0 else { throw SystemError("enable fs-verity on", result, at: raw, nil) }
    }

    /// The kernel's fs-verity digest of the open file; nil if fs-verity is not enabled on it. Throws an error with `isUnsupported` if the
    /// kernel or the file system lacks fs-verity.
    public borrowing func measureVerity() throws(SystemError) -> (algorithm: UInt8, digest: [UInt8])? {
        var digest = [UInt8](repeating: 0, count: 64)
        var measured: (algorithm: UInt8, count: Int)?
        var failure: SystemError?
        digest.withUnsafeMutableBytes { buffer in
            do throws(SystemError) {
                measured = try measureVerity(into: buffer)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        guard let measured else { return nil }
        digest.removeLast(64 - measured.count)
        return (measured.algorithm, digest)
    }

    /// Measures into a buffer of at least 64 bytes, without an allocation.
    public borrowing func measureVerity(
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> (algorithm: UInt8, count: Int)? {
        var algorithm: UInt16 = 0
        guard buffer.count >= 64, let start = buffer.baseAddress else {
            throw SystemError(operation: "measure", path: kernelPath, errno: .overflow)
        }
        let result = cl_measure_verity(raw, &algorithm, start.assumingMemoryBound(to: UInt8.self))
        if result >= 0, result <= 64, let number = UInt8(exactly: algorithm) { return (number, result) }
        if result < 0, Errno(result: result) == .noData { return nil }
        throw SystemError("measure fs-verity of", result < 0 ? result : -Int(Errno.overflow.rawValue), at: raw, nil)
    }

    /// The PKCS#7 signature with which fs-verity was enabled; nil if there is none, or if the kernel (before 5.12) cannot report it.
    public borrowing func veritySignature() throws(SystemError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: 16 << 10)
        let result = bytes.withUnsafeMutableBytes { cl_verity_signature(raw, $0.baseAddress, $0.count) }
        if result > 0, result <= bytes.count { return Array(bytes[..<result]) }
        switch Errno(result: min(result, 0)) {
        case .noData, .notTerminal, .notSupported, .noSystemCall: return nil
        case _ where result >= 0: return nil
        default: throw SystemError("read the fs-verity signature of", result, at: raw, nil)
        }
    }
}
