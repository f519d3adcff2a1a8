internal import ComposefsCLinux

/// A capability (capabilities(7)); the raw value is the kernel's number.
public enum Capability: UInt32, Sendable, CaseIterable {
    case changeOwner = 0
    case dacOverride = 1
    case dacReadSearch = 2
    case fileOwner = 3
    case keepSetID = 4
    case netAdmin = 12
    case systemPtrace = 19
    case systemAdmin = 21
    case makeNode = 27
    case setFileCapability = 31

    /// The kernel's name: `CAP_SYS_ADMIN`.
    public var name: String {
        switch self {
        case .changeOwner: "CAP_CHOWN"
        case .keepSetID: "CAP_FSETID"
        case .setFileCapability: "CAP_SETFCAP"
        case .dacOverride: "CAP_DAC_OVERRIDE"
        case .dacReadSearch: "CAP_DAC_READ_SEARCH"
        case .fileOwner: "CAP_FOWNER"
        case .netAdmin: "CAP_NET_ADMIN"
        case .systemPtrace: "CAP_SYS_PTRACE"
        case .systemAdmin: "CAP_SYS_ADMIN"
        case .makeNode: "CAP_MKNOD"
        }
    }
}

extension Host {
    /// Whether the capability is effective in the calling thread.
    public static func hasCapability(_ capability: Capability) -> Bool { cl_has_capability(capability.rawValue) == 1 }

    /// Whether the calling thread has a permitted capability, of any kind.
    public static func hasCapabilities() throws(SystemError) -> Bool {
        var permitted: UInt64 = 0
        let result = cl_permitted_capabilities(&permitted)
        guard result >= 0 else { throw SystemError(operation: "capget", errno: Errno(result: result)) }
        return permitted != 0
    }

    /// Gives up all capabilities of the calling thread except these, for good (capset(2)). Threads and programs that it starts from now on
    /// have no more than these. One that the thread does not have is not gained.
    public static func limitCapabilities(to kept: some Sequence<Capability>) throws(SystemError) {
        let result = cl_limit_capabilities(kept.reduce(0) { $0 | 1 << UInt64($1.rawValue) })
        guard result >= 0 else { throw SystemError(operation: "capset", errno: Errno(result: result)) }
    }

    /// Sets no_new_privs of the calling thread (prctl(2)): set-user-ID bits and file capabilities of programs that it starts have no effect.
    public static func forbidNewPrivileges() throws(SystemError) {
        let result = cl_forbid_new_privileges()
        guard result >= 0 else { throw SystemError(operation: "set no_new_privs", errno: Errno(result: result)) }
    }
}
