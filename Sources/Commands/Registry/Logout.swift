import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

struct Logout: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logout", abstract: "Remove the credentials for a registry.",
        discussion: "Removes only those in the file that login writes, or in the credential helper that the file names.")

    @Argument(help: "HOST[:PORT][/NAMESPACE]; the default is that of login.")
    var registry: String?

    @Flag(help: "Remove the credentials for all registries.")
    var all = false

    @Option(help: ArgumentHelp("Credentials file. Environment: REGISTRY_AUTH_FILE.", valueName: "path"), completion: .file())
    var authfile: ByteString?

    @Option(help: .hidden)
    var registriesConf: ByteString?

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        if all, registry != nil { throw ValidationError("--all and a registry exclude each other") }
    }

    func run() throws {
        var options = RegistryOptions()
        options.authFile = authfile
        options.registriesConfiguration = registriesConf
        let store = LoginStore(options)
        if all {
            let count = try store.removeAll()
            return try Output.print("Logged out of \(count) \(count == 1 ? "registry" : "registries")")
        }
        let target = try registry.map { try LoginTarget(parsing: $0) } ?? RegistryClient(options).defaultLoginTarget()
        guard try store.remove(target) else {
            let elsewhere = try store.user(for: target).map { "; \($0) is in another file" } ?? ""
            throw CommandError("not logged in to \(target) in \(store.path)\(elsewhere)")
        }
        try Output.print("Logged out of \(target)")
    }
}
