package import ArgumentParser
import ComposefsBytes
package import ComposefsCommandSupport
import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsVarlink
import ComposefsVarlinkService

package struct VarlinkCommand: ParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "varlink", abstract: "Serve other programs on a varlink socket.",
        discussion: """
            Serves the interfaces org.composefs.Repository and org.composefs.Oci on the socket of --address, or on the one that systemd passes \
            (LISTEN_FDS). Clients name the repositories, and may do what this process may do: only root, or the user of the process, can \
            connect to the socket unless the address says otherwise. Ends on SIGTERM, SIGINT and SIGHUP, and removes the socket.

            Example: cfsoci varlink --address unix:/run/cfsoci.varlink
            """)

    @Option(
        help: ArgumentHelp(
            "The socket to make: unix:PATH, or unix:PATH;mode=0660 with other permissions than 0600.", valueName: "address"),
        completion: .file())
    var address: ByteString?

    @OptionGroup var signatures: SignaturePolicyArguments
    @OptionGroup package var global: GlobalOptions

    package init() {}

    package func validate() throws {
        guard global.repo == nil, !global.user, !global.system else {
            throw ValidationError("--repo, --user and --system have no meaning for varlink: each client names its repository")
        }
        if let address { _ = try Self.parse(address) }
    }

    private static func parse(_ address: ByteString) throws -> VarlinkAddress {
        do throws(VarlinkAddress.Fault) {
            return try VarlinkAddress(parsing: address)
        } catch {
            throw ValidationError("--address \(address): \(error)")
        }
    }

    /// Which repositories clients name is not known. Mounts need what `mount` needs.
    static let serving = CommandRights(
        .none, network: "registries, its socket", programs: "credential helpers, if one is configured; mounts", limitsPaths: false,
        mounts: true, capabilities: nil)

    package func run() throws {
        Host.raiseDescriptorLimit()
        // Before there are threads, so that none of them receives a signal.
        Host.blockEndSignals()
        // It is read for each image; one that is not valid ends the command at once.
        _ = try signatures.policy()
        let activated = try ActivationSocket()
        guard activated == nil || address == nil else {
            throw CommandError("a socket was passed to this process, so --address has no meaning")
        }
        let place = try address.map { try ListeningPath(try Self.parse($0)) }
        defer { place?.remove() }
        guard activated != nil || place != nil else {
            throw ValidationError("name a socket with --address, or start the command by a socket unit of systemd")
        }
        try global.confine(Self.serving, repository: nil) { $0.addRegistry(RegistryOptions()) }
        let server = try VarlinkServer(options)
        let isStarted = startThread("signals") {
            _ = Host.waitForEndSignal()
            server.stop()
        }
        guard isStarted else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
        if let activated, !activated.isListening {
            server.run(LocalConnection(activated.shared))
        } else if let activated {
            try server.run(try LocalListener(activated.shared))
        } else if let place {
            try server.run(place.listener)
        }
    }

    private var options: ServiceOptions {
        var options = ServiceOptions(version: Version.text)
        options.userRepository = try? GlobalOptions.userPath()
        options.systemRepository = GlobalOptions.systemPath
        options.requiresVerity = global.needsVerity
        options.trustsOwner = global.trustsOwner
        options.signaturePolicy = signatures.signaturePolicy
        options.warn = global.warningTaker
        return options
    }
}
