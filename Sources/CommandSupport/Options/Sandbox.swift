package import ComposefsBytes
package import ComposefsConfinement
package import ComposefsLinuxSystem
import ComposefsOCI
package import Synchronization

/// The confinement of this process.
package enum Sandbox {
    /// What is in force; nil if nothing is.
    package static let applied = Mutex<AppliedConfinement?>(nil)

    /// Whether the environment allows it.
    package static var isWanted: Bool { !GlobalOptions.isSet("CFSOCI_NO_SANDBOX") }

    /// Confines this process. Must be called before there are other threads.
    ///
    /// - Parameters:
    ///   - path: the repository, which exists.
    ///   - adjust: adds what the arguments name.
    package static func apply(
        _ rights: CommandRights, repository path: ByteString?, _ adjust: (inout Confinement) throws -> Void = { _ in }
    ) throws -> AppliedConfinement {
        var confinement = rights.confinement(path)
        try adjust(&confinement)
        // The confined process may be unable to read the files of libraries.
        if confinement.usesNetwork { LinkedLibraries.loadForNetwork() }
        let new = try confinement.apply()
        applied.withLock { $0 = new }
        return new
    }

    /// Whether there is a network to give up.
    package static var usesNetwork: Bool { applied.withLock { $0?.confinement.usesNetwork ?? false } }

    /// Gives up the network and programs, once nothing is transferred any more.
    package static func endNetwork() throws { try applied.withLock { $0 }?.endNetwork() }

    /// Whether the confinement is why an operation failed.
    package static func refuses(_ error: SystemError) -> Bool { applied.withLock { $0 }?.refuses(error) ?? false }
}

extension GlobalOptions {
    /// Confines this process unless the user switched that off, and says so with --verbose.
    package func confine(
        _ rights: CommandRights, repository path: ByteString?, tells: Bool = true, _ adjust: (inout Confinement) throws -> Void = { _ in }
    ) throws {
        guard usesSandbox else {
            if verbose, tells { note("sandbox: switched off") }
            return
        }
        let applied = try Sandbox.apply(rights, repository: path, adjust)
        if verbose, tells { note("sandbox: \(applied)") }
    }

    package var usesSandbox: Bool { !noSandbox && Sandbox.isWanted }
}
