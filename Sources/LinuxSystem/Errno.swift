public import Bytes
internal import CLinux

/// A Linux error number (asm-generic/errno.h).
public struct Errno: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32

    @inlinable
    public init(rawValue: Int32) { self.rawValue = rawValue }

    public static let notPermitted = Errno(rawValue: 1)
    public static let noEntry = Errno(rawValue: 2)
    public static let interrupted = Errno(rawValue: 4)
    public static let inputOutput = Errno(rawValue: 5)
    public static let badDescriptor = Errno(rawValue: 9)
    public static let tryAgain = Errno(rawValue: 11)
    public static let accessDenied = Errno(rawValue: 13)
    public static let notBlockDevice = Errno(rawValue: 15)
    public static let busy = Errno(rawValue: 16)
    public static let exists = Errno(rawValue: 17)
    public static let crossDevice = Errno(rawValue: 18)
    public static let noDevice = Errno(rawValue: 19)
    public static let notDirectory = Errno(rawValue: 20)
    public static let isDirectory = Errno(rawValue: 21)
    public static let invalidArgument = Errno(rawValue: 22)
    public static let tooManyOpenFiles = Errno(rawValue: 24)
    /// ENOTTY: the file knows no such ioctl.
    public static let notTerminal = Errno(rawValue: 25)
    public static let textBusy = Errno(rawValue: 26)
    public static let fileTooLarge = Errno(rawValue: 27)
    public static let noSpace = Errno(rawValue: 28)
    public static let readOnlyFileSystem = Errno(rawValue: 30)
    public static let outOfRange = Errno(rawValue: 34)
    public static let nameTooLong = Errno(rawValue: 36)
    public static let noSystemCall = Errno(rawValue: 38)
    public static let notEmpty = Errno(rawValue: 39)
    public static let tooManySymbolicLinks = Errno(rawValue: 40)
    public static let noData = Errno(rawValue: 61)
    public static let overflow = Errno(rawValue: 75)
    /// EOPNOTSUPP, the same number as ENOTSUP.
    public static let notSupported = Errno(rawValue: 95)

    /// The C library's words for it: "No such file or directory".
    public var description: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 128) { buffer in
            guard let start = buffer.baseAddress else { return "error \(rawValue)" }
            cl_error_text(rawValue, start, buffer.count)
            return String(cString: start)
        }
    }
}

/// A system call that failed: which, on what, and why.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
    /// The call in a word: `open`, `link`, `enable fs-verity`.
    public var operation: String
    /// What it was about; relative names are relative to the directory the call was given. Empty where a descriptor was all there was.
    public var path: ByteString
    public var errno: Errno

    public init(_ operation: String, _ path: ByteString, _ errno: Errno) {
        self.operation = operation
        self.path = path
        self.errno = errno
    }

    public var description: String { path.isEmpty ? "\(operation): \(errno)" : "\(operation) \(path): \(errno)" }
}
