public import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsLinuxSystem
internal import ComposefsOCIModel

/// The target of a login: a registry, or a namespace or repository with credentials of its own.
public struct LoginTarget: Sendable, Hashable, CustomStringConvertible {
    /// The key in auth files: `quay.io`, `quay.io/team`.
    let key: String
    let repository: RemoteRepository

    public var description: String { key }
    var isWholeHost: Bool { repository.name.isEmpty }

    /// Parses `HOST[:PORT][/NAMESPACE…]`. A scheme is dropped, and Docker Hub's other names are known.
    ///
    /// - Throws: `RegistryError.Kind.invalidRequest`.
    public init(parsing text: String) throws(RegistryError) {
        var rest = text[...]
        for scheme in ["https://", "http://", "docker://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
        while rest.hasSuffix("/") { rest.removeLast() }
        let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        var host = (parts.first ?? "").lowercased()
        var name = parts.count > 1 ? parts[1] : ""
        if host == "index.docker.io" || host == "registry-1.docker.io" { host = "docker.io" }
        if name == "v1" || name == "v2" { name = "" }
        // A namespace has the syntax of a repository's name.
        guard RegistryReference.isHost(host), name.isEmpty || (try? RegistryReference(parsing: "registry.example/" + name))?.name == name
        else {
            throw RegistryError(.invalidLoginTarget(text))
        }
        key = name.isEmpty ? host : "\(host)/\(name)"
        repository = RemoteRepository(domain: host, name: name)
    }
}

extension RegistryClient {
    /// Asks the registry whether it accepts the credentials in the options, or the stored ones.
    ///
    /// - Returns: false if the registry asks for no credentials, so that they were not checked.
    /// - Throws: `RegistryError.Kind.unauthorized` if it rejects them.
    public func checkCredentials(for target: LoginTarget) throws(RegistryError) -> Bool {
        var registry = try finder.configuration().loginTarget(target.repository.domain)
        registry.loginName = target.repository.name
        let repository = registry
        return try retrying(repository) { () throws(Failure) in
            let response = try open(repository, "/v2/", headers: [], for: .login("\(target)"))
            response.drain()
            return hasAuthorization(for: repository)
        }
    }

    /// The registry of a login that names none: the first registry for short names, or Docker Hub.
    public func defaultLoginTarget() throws(RegistryError) -> LoginTarget {
        try LoginTarget(parsing: try finder.configuration().searchRegistries?.first ?? "docker.io")
    }
}

/// The store of logins: an auth file in the format of containers-auth.json(5), or the credential helper that it names for a registry.
public struct LoginStore: Sendable {
    /// The auth file.
    public let path: ByteString
    let options: RegistryOptions
    let environment: Environment

    /// - Parameter options: `authFile` names the file. If it is nil, the file is `REGISTRY_AUTH_FILE`, or else
    ///   `${XDG_RUNTIME_DIR}/containers/auth.json` or `/run/containers/UID/auth.json`.
    public init(_ options: RegistryOptions = RegistryOptions()) { self.init(options, .ofProcess) }

    init(_ options: RegistryOptions, _ environment: Environment) {
        path = options.authFile ?? environment["REGISTRY_AUTH_FILE"].map { ByteString($0) } ?? CredentialStore.primaryPath(environment)
        self.options = options
        self.environment = environment
    }

    /// The user whose stored password would be used for the registry; nil if there is none.
    ///
    /// - Throws: if an auth file or a helper cannot be used.
    public func user(for target: LoginTarget) throws(RegistryError) -> String? {
        var options = options
        // A missing file is no error here: a login would create it.
        if options.authFile != nil || environment["REGISTRY_AUTH_FILE"] != nil, try AuthFile(reading: path) == nil { return nil }
        options.credentials = nil
        let finder = EndpointFinder(options, environment)
        guard case .password(let user, _) = try CredentialStore(options, environment, finder).find(for: target.repository)?.credentials
        else {
            return nil
        }
        return user
    }

    /// Stores user and password durably. Other entries of the file stay.
    ///
    /// - Returns: the file or helper that has them now, for messages.
    public func save(user: String, password: String, for target: LoginTarget) throws(RegistryError) -> String {
        guard !user.isEmpty, !user.utf8.contains(UInt8(ascii: ":")), !AuthFile.holdsControls(user.unicodeScalars),
            !password.utf8.contains(0)
        else {
            throw RegistryError(.invalidLogin)
        }
        return try changing(makesDirectory: true) { file throws(RegistryError) in
            if let helper = file.helper(for: target) {
                try CredentialHelper(name: helper, environment: environment)
                    .store(server: target.isWholeHost ? target.repository.serverNames[0] : target.key, user: user, password: password)
                return (false, CredentialHelper.program(helper))
            }
            file.set(user: user, password: password, for: target)
            return (true, "\(path)")
        }
    }

    /// Removes the credentials for the registry from this file and from the helper that it names.
    ///
    /// - Returns: whether there were any.
    public func remove(_ target: LoginTarget) throws(RegistryError) -> Bool {
        let (inFile, helper) = try changing { file throws(RegistryError) in
            let found = file.remove(target)
            return (found, (found, file.helper(for: target)))
        }
        guard let helper else { return inFile }
        var found = inFile
        for server in target.isWholeHost ? target.repository.serverNames : [target.key] {
            if try CredentialHelper(name: helper, environment: environment).erase(server: server) { found = true }
        }
        return found
    }

    /// Removes all credentials from this file, and from its helpers those for the registries that it names.
    ///
    /// - Returns: how many entries there were.
    public func removeAll() throws(RegistryError) -> Int {
        var (count, helpers) = try changing { file throws(RegistryError) in
            let count = file.removeAll()
            return (count > 0, (count, file.helperServers))
        }
        for (server, helper) in helpers {
            if try CredentialHelper(name: helper, environment: environment).erase(server: server) { count += 1 }
        }
        return count
    }

    /// Reads the file, changes it, and writes it if `body` says so, while no other login does.
    private func changing<Value>(
        makesDirectory: Bool = false, _ body: (inout AuthFile) throws(RegistryError) -> (writes: Bool, value: Value)
    ) throws(RegistryError) -> Value {
        // The lock is on the directory, since the file is replaced. Without the directory there is no other login.
        let parent = splitPath(path).directory
        // Writing the file reports the error.
        if makesDirectory { try? makePrivateDirectories(parent) }
        return try whileLocked(parent, [.readOnly, .directory]) { () throws(RegistryError) in try change(body) }
    }

    private func change<Value>(
        _ body: (inout AuthFile) throws(RegistryError) -> (writes: Bool, value: Value)
    ) throws(RegistryError) -> Value {
        let existing = try AuthFile(reading: path)
        var file = if let existing { existing } else { try AuthFile(path) }
        let (writes, value) = try body(&file)
        if writes { try file.write() }
        return value
    }
}
