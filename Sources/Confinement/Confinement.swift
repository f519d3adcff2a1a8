// Confinement: a process gives up, for good, what it does not need before it parses bytes of others.
//
// - `Confinement` describes what is kept: paths, capabilities, the network, programs, mounts. It is a value and does nothing by itself.
// - `apply` gives up the rest: no_new_privs and capabilities (capabilities(7)), Landlock (landlock(7)) for paths, and a seccomp filter
//   (seccomp(2)) for system calls. Nothing in this package calls it unless the program asks: the restrictions hold for the whole process.
// - `AppliedConfinement` says what is in force, explains refusals, and gives up the network once it is not needed any more.
// - `FilterProgram` is the seccomp filter as data.

public import ComposefsBytes
public import ComposefsLinuxSystem

/// What a process still needs. Everything else is given up by `apply`.
public struct Confinement: Sendable, Hashable {
    /// Files that are read, and directories below which everything may be read. The system's own files (`SystemFiles`) need not be named.
    public var readable: [ByteString]
    /// Directories below which everything may be read, made, changed and removed; files that may be read and written.
    public var writable: [ByteString]
    /// Directories whose files get a second name (a hard link) in a writable directory. The kernel demands that the files may be written for
    /// this; nothing may be made or removed there.
    public var linkable: [ByteString]
    /// Directories below which empty directories may be removed, and nothing else is allowed: a program that made a directory can undo it.
    public var removable: [ByteString] = []
    /// Whether paths are limited at all (Landlock). A process with limited paths cannot mount, and cannot see which mounts and files processes
    /// outside of its confinement have.
    public var limitsPaths: Bool
    /// Whether sockets may be opened, until `AppliedConfinement.endNetwork`. libcurl is loaded when a registry is first used: its files must be
    /// below a readable path, as those of the system are.
    public var usesNetwork: Bool
    /// Whether programs may be started; they are confined as this process is.
    public var runsPrograms: Bool
    /// Whether file systems may be mounted and unmounted. Excludes `limitsPaths`.
    public var mounts: Bool
    /// Whether FIFOs, sockets and device nodes may be made. The kernel demands CAP_MKNOD for device nodes, except for the whiteouts of overlayfs.
    public var makesNodes = false
    /// The capabilities that are kept, of those that the process has; nil keeps all.
    public var capabilities: Set<Capability>?

    /// By default: the system's own files can be read, nothing can be written, and there are no capabilities, sockets or programs.
    public init(
        readable: [ByteString] = [], writable: [ByteString] = [], linkable: [ByteString] = [], limitsPaths: Bool = true,
        usesNetwork: Bool = false, runsPrograms: Bool = false, mounts: Bool = false, capabilities: Set<Capability>? = []
    ) {
        self.readable = readable
        self.writable = writable
        self.linkable = linkable
        self.limitsPaths = limitsPaths
        self.usesNetwork = usesNetwork
        self.runsPrograms = runsPrograms
        self.mounts = mounts
        self.capabilities = capabilities
    }
}

/// A failure to confine the process. That the kernel lacks a mechanism is no failure: see `AppliedConfinement`.
public enum ConfinementError: Error, Hashable, Sendable, CustomStringConvertible {
    /// Capabilities and paths are limited by thread, so there must be no other thread yet.
    case threadsRunning(Int)
    case system(SystemError)

    public var description: String {
        switch self {
        case .threadsRunning(let count): "the process cannot be confined: it has \(count) threads already"
        case .system(let error): "the process cannot be confined: \(error)"
        }
    }
}
