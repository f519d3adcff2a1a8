package import ArgumentParser
package import ComposefsBytes
package import ComposefsOCI
import Synchronization

/// Options of every command that uses a registry.
package struct RegistryArguments: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Log in with these credentials instead of those in files. Without a password, cfsoci asks for it.", valueName: "user[:password]"
        ))
    package var creds: String?

    @Option(help: ArgumentHelp("Credentials file. Environment: REGISTRY_AUTH_FILE.", valueName: "path"), completion: .file())
    package var authfile: ByteString?

    @Option(
        help: ArgumentHelp("Directory of *.crt, *.cert and *.key files for TLS, instead of certs.d/HOST.", valueName: "path"),
        completion: .directory)
    package var certDir: ByteString?

    @Option(
        help: ArgumentHelp(
            "Verify TLS certificates (default). false also allows plain HTTP, which is always allowed for loopback registries.",
            valueName: "true|false"))
    package var tlsVerify: Bool?

    @Option(
        help: ArgumentHelp(
            "Registries configuration file, instead of the usual ones. Environment: CONTAINERS_REGISTRIES_CONF.", valueName: "path"),
        completion: .file())
    package var registriesConf: ByteString?

    package init() {}

    /// Whether any of them is given.
    package var isUsed: Bool { creds != nil || authfile != nil || certDir != nil || tlsVerify != nil || registriesConf != nil }

    package func validate() throws {
        if let creds, creds.isEmpty || creds.hasPrefix(":") { throw ValidationError("--creds takes USER or USER:PASSWORD") }
    }

    /// The registry options. Asks for the password if `--creds` has none.
    package func options(_ global: GlobalOptions) throws -> RegistryOptions {
        var options = RegistryOptions()
        options.tlsVerify = tlsVerify
        options.authFile = authfile
        options.certificateDirectory = certDir
        options.registriesConfiguration = registriesConf
        if PasswordPrompt.isPossible { options.chooseRegistry = { Self.choose($0) } }
        let warn = global.warningTaker
        options.warn = warn
        options.observe = global.registryObserver
        options.userAgent = "cfsoci/" + Version.text
        if let creds {
            let parts = creds.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let user = String(parts[0])
            if parts.count == 2 {
                global.note("the password in --creds can be seen by every user of this machine; leave it out to be asked for it")
                options.credentials = .password(user: user, password: String(parts[1]))
            } else {
                options.credentials = .password(user: user, password: try PasswordPrompt.ask("Password of \(user)"))
            }
        }
        return options
    }

    /// Lets the user choose which registry a short name refers to.
    private static func choose(_ candidates: [RegistryReference]) -> RegistryReference? {
        for (number, candidate) in candidates.enumerated() { Output.note("  \(number + 1)  \(candidate)") }
        guard let answer = try? PasswordPrompt.ask("Which of these is meant (1-\(candidates.count))", isShown: true),
            let number = Int(answer), candidates.indices.contains(number - 1)
        else { return nil }
        return candidates[number - 1]
    }
}

extension GlobalOptions {
    /// Says with -v which endpoints and credentials are used, each once, and with -vv each request; nil without.
    var registryObserver: (@Sendable (RegistryEvent) -> Void)? {
        guard verbose else { return nil }
        let (tell, showsRequests) = (noteTaker, verbosity > 1)
        let told = Told()
        return { event in
            if case .request = event {
                if showsRequests { tell(event.description) }
            } else if told.lines.withLock({ $0.insert(event.description).inserted }) {
                tell(event.description)
            }
        }
    }

    /// A token is asked for again when it expires: the same answer is not worth a second line.
    private final class Told: Sendable {
        let lines = Mutex<Set<String>>([])
    }
}
