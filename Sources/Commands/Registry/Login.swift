import ArgumentParser
import ComposefsBytes
import ComposefsCommandSupport
import ComposefsJSON
import ComposefsOCI

struct Login: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "login", abstract: "Log in to a registry.",
        discussion: """
            Checks user and password with the registry and stores them for pull and push, and for all container tools that read the same \
            file: --authfile, REGISTRY_AUTH_FILE, or $XDG_RUNTIME_DIR/containers/auth.json. Asks for a user or password that is not given.
            """)

    @Argument(help: "HOST[:PORT][/NAMESPACE]; by default the first registry that is searched for short names, or docker.io.")
    var registry: String?

    @Option(name: [.customShort("u"), .customLong("username")], help: "The user.")
    var user: String?

    @Option(name: .shortAndLong, help: "The password. Every user of this machine can see it; use --password-stdin or enter it when asked.")
    var password: String?

    @Flag(help: "Read the password from standard input.")
    var passwordStdin = false

    @Flag(help: "Print the name of the user that is logged in, and change nothing.")
    var getLogin = false

    @OptionGroup(title: "Registry options") var options: RegistryArguments

    @OptionGroup var global: GlobalOptions

    func validate() throws {
        guard [options.creds != nil, password != nil, passwordStdin].count(where: { $0 }) <= 1 else {
            throw ValidationError("--creds, --password and --password-stdin exclude each other")
        }
        if user != nil, options.creds != nil { throw ValidationError("--creds and --username exclude each other") }
        if user == nil, password != nil || passwordStdin { throw ValidationError("a password needs --username") }
    }

    func run() throws {
        var registryOptions = try options.options(global)
        let store = LoginStore(registryOptions)
        try global.confine(Self.loggingIn, repository: nil) { $0.add(store.files(makesDirectory: !getLogin)) }
        let target = try registry.map { try LoginTarget(parsing: $0) } ?? RegistryClient(registryOptions).defaultLoginTarget()
        if getLogin {
            guard let user = try store.user(for: target) else { throw CommandError("not logged in to \(target)") }
            return try Output.print(Output.printable(ByteString(user)))
        }
        let known = try store.user(for: target)
        if user == nil, options.creds == nil, let known {
            // Asks for nothing if the stored credentials are still valid.
            do {
                if try RegistryClient(registryOptions).checkCredentials(for: target) { return try report(target, known) }
            } catch let error as RegistryError where error.kind == .unauthorized {
                guard PasswordPrompt.isPossible else { throw error }
                global.note("the stored credentials for \(target) are not accepted any more")
            }
        }
        let (user, password) = try credentials(registryOptions, target, known: known)
        registryOptions.credentials = .password(user: user, password: password)
        if try !RegistryClient(registryOptions).checkCredentials(for: target) {
            global.note("\(target) requires no credentials: they were not checked")
        }
        let location = try store.save(user: user, password: password, for: target)
        global.note("stored in \(location)")
        try report(target, user)
    }

    private func report(_ target: LoginTarget, _ user: String) throws {
        try Output.print("Logged in to \(target) as \(Output.printable(ByteString(user)))")
    }

    private func credentials(
        _ options: RegistryOptions, _ target: LoginTarget, known: String?
    ) throws -> (user: String, password: String) {
        if case .password(let user, let password) = options.credentials { return (user, password) }
        var user = try user ?? PasswordPrompt.ask("User for \(target)" + (known.map { " (\($0))" } ?? ""), isShown: true)
        if user.isEmpty, let known { user = known }
        if let password {
            global.note("the password in the arguments can be seen by every user of this machine; use --password-stdin")
            return (user, password)
        }
        return (user, passwordStdin ? try Self.readPassword() : try PasswordPrompt.ask("Password of \(user)"))
    }

    /// All of standard input without the final line end.
    private static func readPassword() throws -> String {
        var bytes: [UInt8] = []
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 16)
        defer { buffer.deallocate() }
        let input = StandardInput()
        while bytes.count <= 64 << 10 {
            let count = try input.read(into: buffer)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        if bytes.last == 0x0a { bytes.removeLast() }
        if bytes.last == 0x0d { bytes.removeLast() }
        guard let text = String(validating: bytes, as: UTF8.self), !bytes.isEmpty, bytes.count <= 64 << 10 else {
            throw CommandError("standard input contains no password")
        }
        return text
    }
}
