import ComposefsBytes
import ComposefsConfinement
package import ComposefsLinuxSystem

/// What a command keeps while it parses bytes of others: one row of the table in README.md. What its arguments name comes in addition; see
/// `SandboxPaths`.
package struct CommandRights: Sendable, Hashable {
    package enum Repository: String, Sendable { case none = "-", reads, writes }

    package var repository: Repository
    /// Other files that are read or written, in words.
    package var reads: String?
    package var writes: String?
    /// Sockets, in words; nil for none at all.
    package var network: String?
    /// Programs that are started, in words; nil for none at all.
    package var programs: String?
    package var limitsPaths = true
    package var mounts = false
    /// Nil keeps all.
    package var capabilities: Set<Capability>?

    package init(
        _ repository: Repository, reads: String? = nil, writes: String? = nil, network: String? = nil, programs: String? = nil,
        limitsPaths: Bool = true, mounts: Bool = false, capabilities: Set<Capability>?
    ) {
        self.repository = repository
        self.reads = reads
        self.writes = writes
        self.network = network
        self.programs = programs
        self.limitsPaths = limitsPaths
        self.mounts = mounts
        self.capabilities = capabilities
    }

    /// CAP_DAC_READ_SEARCH: root reads repositories and directories of other users.
    package static func reading(reads: String? = nil) -> CommandRights {
        CommandRights(.reads, reads: reads, capabilities: [.dacReadSearch])
    }

    /// The others: root writes to repositories of other users if the options say so.
    package static func writing(
        reads: String? = nil, writes: String? = nil, network: String? = nil, programs: String? = nil
    ) -> CommandRights {
        CommandRights(
            .writes, reads: reads, writes: writes, network: network, programs: programs,
            capabilities: [.dacOverride, .dacReadSearch, .fileOwner])
    }

    /// Landlock would hide the mounts of other processes, and CAP_SYS_PTRACE is what the kernel asks for to see those of other users.
    package static func watching(_ repository: Repository) -> CommandRights {
        var rights = repository == .writes ? writing() : reading()
        rights.limitsPaths = false
        rights.capabilities?.insert(.systemPtrace)
        return rights
    }

    /// The cells of the table after the command's name.
    package var cells: [String] {
        let kept = capabilities.map { $0.sorted { $0.rawValue < $1.rawValue }.map { String($0.name.dropFirst(4)) }.joined(separator: " ") }
        func list(_ isOpen: Bool, _ others: String?) -> String {
            guard limitsPaths else { return "any" }
            let parts = [isOpen ? "repository" : nil, others].compactMap(\.self)
            return parts.isEmpty ? "-" : parts.joined(separator: ", ")
        }
        return [
            kept ?? "all", limitsPaths ? "yes" : "no", list(repository != .none, reads), list(repository == .writes, writes),
            network ?? "no", programs ?? "no",
        ]
    }

    /// The confinement without what arguments add.
    func confinement(_ path: ByteString?) -> Confinement {
        var confinement = Confinement(
            limitsPaths: limitsPaths, runsPrograms: false, mounts: mounts, capabilities: capabilities)
        confinement.makesNodes = capabilities?.contains(.makeNode) == true
        switch (repository, path) {
        case (.reads, let path?): confinement.readable = [path]
        case (.writes, let path?): confinement.writable = [path]
        default: break
        }
        return confinement
    }
}
