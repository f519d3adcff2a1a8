internal import ComposefsCLinux

/// Rights on files and directories that Landlock can deny: LANDLOCK_ACCESS_FS_* (linux/landlock.h).
public struct LandlockAccess: OptionSet, Sendable, Hashable {
    public var rawValue: UInt64

    public init(rawValue: UInt64) { self.rawValue = rawValue }

    public static let execute = LandlockAccess(rawValue: 1 << 0)
    public static let writeFile = LandlockAccess(rawValue: 1 << 1)
    public static let readFile = LandlockAccess(rawValue: 1 << 2)
    public static let readDirectory = LandlockAccess(rawValue: 1 << 3)
    public static let removeDirectory = LandlockAccess(rawValue: 1 << 4)
    public static let removeFile = LandlockAccess(rawValue: 1 << 5)
    public static let makeCharacterDevice = LandlockAccess(rawValue: 1 << 6)
    public static let makeDirectory = LandlockAccess(rawValue: 1 << 7)
    public static let makeRegular = LandlockAccess(rawValue: 1 << 8)
    public static let makeSocket = LandlockAccess(rawValue: 1 << 9)
    public static let makeFIFO = LandlockAccess(rawValue: 1 << 10)
    public static let makeBlockDevice = LandlockAccess(rawValue: 1 << 11)
    public static let makeSymbolicLink = LandlockAccess(rawValue: 1 << 12)
    /// Links and renames between directories. A kernel that does not know this right (ABI 1) always denies them.
    public static let refer = LandlockAccess(rawValue: 1 << 13)
    public static let truncate = LandlockAccess(rawValue: 1 << 14)
    /// ioctl(2) of devices.
    public static let deviceControl = LandlockAccess(rawValue: 1 << 15)

    /// All rights of a version of the ABI.
    public static func known(toABI version: Int) -> LandlockAccess {
        let count: UInt64 =
            switch version {
            case ..<2: 13
            case 2: 14
            case 3, 4: 15
            default: 16
            }
        return LandlockAccess(rawValue: (1 << count) - 1)
    }

    /// Those of files that are no directories: the kernel refuses a rule for a file that has others.
    public static let ofFiles: LandlockAccess = [.execute, .writeFile, .readFile, .truncate, .deviceControl]
}

/// A set of rules (landlock(7)). What it handles and no rule allows is denied once it restricts a thread.
public struct LandlockRuleset: ~Copyable {
    private let descriptor: FileDescriptor

    /// The version of the Landlock ABI, 1 or more. ENOSYS if the kernel lacks Landlock, EOPNOTSUPP if it is disabled.
    public static func version() throws(SystemError) -> Int {
        let result = cl_landlock_version()
        guard result >= 0 else { throw SystemError(operation: "landlock_create_ruleset", errno: Errno(result: result)) }
        return result
    }

    /// Makes a ruleset (landlock_create_ruleset(2)).
    ///
    /// - Parameters:
    ///   - handled: the rights that need a rule.
    ///   - deniesTCP: whether bind(2) and connect(2) of TCP sockets are denied; needs ABI 4.
    ///   - isScoped: whether abstract sockets and signals of processes outside are denied; needs ABI 6.
    public init(handling handled: LandlockAccess, deniesTCP: Bool = false, isScoped: Bool = false) throws(SystemError) {
        let result = cl_landlock_create(handled.rawValue, deniesTCP ? 3 : 0, isScoped ? 3 : 0)
        guard let raw = Int32(exactly: result), raw >= 0 else {
            throw SystemError(operation: "landlock_create_ruleset", errno: Errno(result: result))
        }
        descriptor = FileDescriptor(owning: raw)
    }

    /// Allows `access` to the open file, or to the open directory and everything below it (landlock_add_rule(2)).
    public borrowing func allow(_ access: LandlockAccess, beneath file: borrowing FileDescriptor) throws(SystemError) {
        let result = cl_landlock_allow(descriptor.raw, access.rawValue, file.raw)
        guard result >= 0 else { throw SystemError("landlock_add_rule", result, at: file.raw, nil) }
    }

    /// Restricts the calling thread, and the threads and programs that it starts from now on (landlock_restrict_self(2)). Other threads of the
    /// process stay as they are. The thread must have no_new_privs or CAP_SYS_ADMIN.
    public borrowing func restrictThread() throws(SystemError) {
        let result = cl_landlock_restrict(descriptor.raw)
        guard result >= 0 else { throw SystemError(operation: "landlock_restrict_self", errno: Errno(result: result)) }
    }
}
