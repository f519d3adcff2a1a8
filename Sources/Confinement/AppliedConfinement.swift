internal import ComposefsBytes
public import ComposefsLinuxSystem
internal import Synchronization

extension Confinement {
    /// Whether a mechanism of the kernel is in force.
    public enum Mechanism: Hashable, Sendable {
        /// In force; the text tells its version, if it has one.
        case active(String)
        /// The confinement does without it.
        case notUsed
        /// The kernel does not offer it: why not.
        case unavailable(String)

        public var isActive: Bool { if case .active = self { true } else { false } }

        /// `(ABI 7)` after the mechanism's name, `not used`, or why it is not there.
        func text(_ name: String) -> String {
            switch self {
            case .active(let version): version.isEmpty ? name : "\(name) (\(version))"
            case .notUsed: "no \(name)"
            case .unavailable(let reason): "no \(name): \(reason)"
            }
        }
    }
}

/// What is in force in this process.
public final class AppliedConfinement: Sendable, CustomStringConvertible {
    /// What may be reached, as the kernel names it.
    struct Roots {
        var readable: [ByteString] = []
        var writable: [ByteString] = []
    }

    public let confinement: Confinement
    /// Landlock, which limits paths.
    public let landlock: Confinement.Mechanism
    /// The seccomp filter, which limits system calls.
    public let filter: Confinement.Mechanism
    /// Whether capabilities are left.
    private let hasCapabilities: Bool
    private let roots: Roots
    /// Those that were open before.
    private let descriptors: Set<Int32>
    private let hasNetwork: Mutex<Bool>

    init(
        confinement: Confinement, landlock: Confinement.Mechanism, filter: Confinement.Mechanism, hasCapabilities: Bool, roots: Roots,
        descriptors: Set<Int32>
    ) {
        self.confinement = confinement
        self.landlock = landlock
        self.filter = filter
        self.hasCapabilities = hasCapabilities
        self.roots = roots
        self.descriptors = descriptors
        hasNetwork = Mutex(confinement.usesNetwork)
    }

    /// `no_new_privs, no capabilities, Landlock (ABI 7): writes below /srv/repo, seccomp: no network, no programs`.
    public var description: String {
        var parts = ["no_new_privs"]
        if !hasCapabilities {
            parts.append("no capabilities")
        } else if let kept = confinement.capabilities {
            parts.append("only " + kept.sorted { $0.rawValue < $1.rawValue }.map(\.name).joined(separator: " "))
        } else {
            parts.append("all capabilities")
        }
        let written = confinement.writable.map(\.description).joined(separator: " ")
        parts.append(
            landlock.text("Landlock")
                + (landlock.isActive ? confinement.writable.isEmpty ? ": writes nothing" : ": writes below \(written)" : ""))
        var allowed = [confinement.usesNetwork ? "network" : "no network", confinement.runsPrograms ? "programs" : "no programs"]
        if confinement.mounts { allowed.append("mounts") }
        parts.append(filter.text("seccomp") + (filter.isActive ? ": " + allowed.joined(separator: ", ") : ""))
        return parts.joined(separator: "; ")
    }

    /// Gives up the network: from now on no thread of this process can open, bind or connect a socket, or start a program, and connections that
    /// were opened since the confinement was applied are shut down. Without a filter only the latter.
    ///
    /// Does nothing if the confinement has no network, or gave it up before.
    ///
    /// - Throws: `ConfinementError.system`.
    public func endNetwork() throws(ConfinementError) {
        guard
            hasNetwork.withLock({ has in
                defer { has = false }
                return has
            })
        else { return }
        if filter.isActive, let architecture = SystemCallFilter.architecture {
            let program = FilterProgram.withoutNetwork(
                architecture: architecture, hasX32Calls: SystemCallFilter.hasX32Calls, number: SystemCallFilter.number(of:))
            do throws(SystemError) {
                try SystemCallFilter.install(program, inAllThreads: true)
            } catch {
                throw .system(error)
            }
        }
        Host.shutDownConnections(except: descriptors)
    }

    /// Whether the confinement is why an operation on a path failed, as far as its paths tell.
    public func refuses(_ error: SystemError) -> Bool {
        guard landlock.isActive, [.accessDenied, .notPermitted, .crossDevice].contains(error.errno), !error.path.isEmpty else {
            return false
        }
        let path = Self.resolved(error.path)
        func isBelow(_ roots: [ByteString]) -> Bool {
            roots.contains { $0 == "/" || path == $0 || path.hasPrefix($0 + "/") }
        }
        if isBelow(roots.writable) { return false }
        // Whether an open was for writing is not known.
        return !isBelow(roots.readable) || !["open", "read", "list", "stat"].contains(error.operation)
    }

    /// The kernel's name of what is at the path, or of the directory in which nothing is. A handle on a path needs no right.
    private static func resolved(_ path: ByteString) -> ByteString {
        if let file = try? FileDescriptor.open(path, .pathOnly) { return file.kernelPath }
        let (parent, name) = FileDescriptor.split(path)
        guard parent != path, let directory = try? FileDescriptor.open(parent, [.pathOnly, .directory]) else { return path }
        return directory.kernelPath + "/" + name
    }
}
