public import ComposefsBytes
internal import ComposefsCLinux
internal import Glibc

/// An error number of the kernel (errno(3)).
public struct Errno: RawRepresentable, Hashable, Sendable, Error, CustomStringConvertible {
    public var rawValue: Int32

    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let notPermitted = Errno(rawValue: EPERM)
    public static let noEntry = Errno(rawValue: ENOENT)
    public static let interrupted = Errno(rawValue: EINTR)
    public static let inputOutput = Errno(rawValue: EIO)
    public static let noDevice = Errno(rawValue: ENODEV)
    public static let noDeviceOrAddress = Errno(rawValue: ENXIO)
    public static let badDescriptor = Errno(rawValue: EBADF)
    public static let tryAgain = Errno(rawValue: EAGAIN)
    public static let outOfMemory = Errno(rawValue: ENOMEM)
    public static let accessDenied = Errno(rawValue: EACCES)
    public static let notBlockDevice = Errno(rawValue: ENOTBLK)
    public static let busy = Errno(rawValue: EBUSY)
    public static let exists = Errno(rawValue: EEXIST)
    public static let crossDevice = Errno(rawValue: EXDEV)
    public static let notDirectory = Errno(rawValue: ENOTDIR)
    public static let isDirectory = Errno(rawValue: EISDIR)
    public static let invalidArgument = Errno(rawValue: EINVAL)
    public static let tooManyOpenFiles = Errno(rawValue: EMFILE)
    public static let fileTableFull = Errno(rawValue: ENFILE)
    public static let notTerminal = Errno(rawValue: ENOTTY)
    public static let textBusy = Errno(rawValue: ETXTBSY)
    public static let fileTooLarge = Errno(rawValue: EFBIG)
    public static let noSpace = Errno(rawValue: ENOSPC)
    public static let illegalSeek = Errno(rawValue: ESPIPE)
    public static let readOnlyFileSystem = Errno(rawValue: EROFS)
    public static let brokenPipe = Errno(rawValue: EPIPE)
    public static let outOfRange = Errno(rawValue: ERANGE)
    public static let nameTooLong = Errno(rawValue: ENAMETOOLONG)
    public static let noSystemCall = Errno(rawValue: ENOSYS)
    public static let notEmpty = Errno(rawValue: ENOTEMPTY)
    public static let tooManySymbolicLinks = Errno(rawValue: ELOOP)
    public static let noData = Errno(rawValue: ENODATA)
    public static let overflow = Errno(rawValue: EOVERFLOW)
    public static let protocolError = Errno(rawValue: EPROTO)
    public static let notConnected = Errno(rawValue: ENOTCONN)
    public static let badMessage = Errno(rawValue: EBADMSG)
    public static let notSupported = Errno(rawValue: EOPNOTSUPP)
    public static let quotaExceeded = Errno(rawValue: EDQUOT)
    public static let noKey = Errno(rawValue: ENOKEY)
    /// EBADFD.
    package static let badDescriptorState = Errno(rawValue: EBADFD)
    public static let keyRejected = Errno(rawValue: EKEYREJECTED)
    public static let noPackage = Errno(rawValue: ENOPKG)
    public static let stale = Errno(rawValue: ESTALE)
    public static let messageTooLong = Errno(rawValue: EMSGSIZE)
    public static let addressInUse = Errno(rawValue: EADDRINUSE)
    public static let connectionRefused = Errno(rawValue: ECONNREFUSED)
    public static let connectionAborted = Errno(rawValue: ECONNABORTED)
    public static let connectionReset = Errno(rawValue: ECONNRESET)
    public static let wrongSocketType = Errno(rawValue: EPROTOTYPE)

    /// The C library's message: `No such file or directory`.
    public var description: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            guard let start = buffer.baseAddress else { return "errno \(rawValue)" }
            cl_error_text(rawValue, start, buffer.count)
            return String(cString: start)
        }
    }
}

/// A failed system call: the operation, its path and the kernel's error number.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The operation in words, usually the name of the system call.
    public var operation: String
    /// The path that the operation was for. For a descriptor, the kernel's name of the open file. May be empty.
    public var path: ByteString
    public var errno: Errno

    public init(operation: String, path: ByteString = ByteString(), errno: Errno) {
        self.operation = operation
        self.path = path
        self.errno = errno
    }

    public init(_ operation: String, _ path: ByteString, _ errno: Errno) {
        self.init(operation: operation, path: path, errno: errno)
    }

    /// Whether the path leads to nothing (ENOENT, ENOTDIR).
    public var isMissing: Bool { errno == .noEntry || errno == .notDirectory }

    /// Whether the kernel or the file system lacks this operation (EOPNOTSUPP, ENOSYS, ENOTTY), for any arguments.
    public var isUnsupported: Bool {
        errno == .notSupported || errno == .noSystemCall || errno == .notTerminal
    }

    public var description: String {
        path.isEmpty ? "\(operation): \(errno)" : "\(operation) \(path): \(errno)"
    }
}

extension SystemError {
    /// The error of a call relative to a directory descriptor. The directory's name is looked up only here, so that success costs nothing.
    @inline(never)
    init(_ operation: StaticString, _ result: Int, at directory: Int32, _ path: UnsafeRawBufferPointer?) {
        var full = ByteString()
        if let path, directory == cl_at_fdcwd || path.first == UInt8(ascii: "/") {
            full = ByteString(path)
        } else {
            full = descriptorPath(directory)
            if path == nil { full = Self.named(full) }
            if let path, !path.isEmpty, !(path.count == 1 && path.first == UInt8(ascii: ".")) {
                full.bytes.append(UInt8(ascii: "/"))
                full.bytes.append(contentsOf: path)
            }
        }
        self.init(operation: operation.description, path: full, errno: Errno(result: result))
    }

    /// The directory of a file that never had a name, which the kernel calls `#INODE (deleted)`.
    private static func named(_ path: ByteString) -> ByteString {
        let suffix: ByteString = " (deleted)"
        guard path.hasSuffix(suffix), let slash = path.bytes.lastIndex(of: UInt8(ascii: "/")) else { return path }
        let name = path.bytes[(slash + 1)...].dropLast(suffix.count)
        let digits = name.dropFirst()
        guard name.first == UInt8(ascii: "#"), !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }) else { return path }
        return ByteString(Array(path.bytes[..<max(slash, 1)]))
    }
}

extension Errno {
    /// From the result of a CLinux function: -errno.
    init(result: Int) { self.init(rawValue: Int32(truncatingIfNeeded: 0 &- result)) }
}

/// The kernel's name of an open file, or `descriptor N` if /proc does not provide it.
func descriptorPath(_ descriptor: Int32) -> ByteString {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
        let length = cl_fd_path(descriptor, buffer.baseAddress, buffer.count)
        guard length > 0, length <= buffer.count else { return ByteString("descriptor \(descriptor)") }
        return ByteString(UnsafeRawBufferPointer(rebasing: buffer[..<length]))
    }
}
