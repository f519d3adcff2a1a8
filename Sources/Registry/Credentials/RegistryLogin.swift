public import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsLinuxSystem
internal import ComposefsOCIModel

/// What somebody logs in to: a registry, or a namespace or repository of one with credentials of its own.
public struct LoginTarget: Sendable, Hashable, CustomStringConvertible {
    /// The key of auth files: `quay.io`, `quay.io/team`.
    let key: String
    let repository: RemoteRepository

    public var description: String { key }
    var isWholeHost: Bool { repository.name.isEmpty }

    /// Reads `HOST[:PORT][/NAMESPACE…]`; a scheme before it is dropped, and Docker Hub's other names are understood.
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
        // A namespace has the form of a repository's name.
        guard RegistryReference.isHost(host), name.isEmpty || (try? RegistryReference(parsing: "registry.example/" + name))?.name == name
        else {
            throw RegistryError(.invalidLoginTarget(text))
        }
        key = name.isEmpty ? host : "\(host)/\(name)"
        repository = RemoteRepository(domain: host, name: name)
    }
}

extension RegistryClient {
    /// Asks the registry whether it takes the credentials in the options, or those that are found for it.
    ///
    /// - Returns: false where the registry asked for none, so that nothing is known about them.
    /// - Throws: `RegistryError.Kind.unauthorized` where it does not take them.
    public func checkCredentials(for target: LoginTarget) throws(RegistryError) -> Bool {
        var registry = try places.configuration().loginTarget(target.repository.domain)
        registry.loginName = target.repository.name
        let repository = registry
        return try retrying(repository) { () throws(Failure) in
            let response = try open(repository, "/v2/", headers: [], for: .login("\(target)"))
            response.drain()
            return hasAuthorization(for: repository)
        }
    }

    /// The registry that is meant where none is named: the first of those that short names are searched in, or Docker Hub.
    public func defaultLoginTarget() throws(RegistryError) -> LoginTarget {
        try LoginTarget(parsing: try places.configuration().searchRegistries?.first ?? "docker.io")
    }
}

/// Where logins are kept: an auth file in the format of containers-auth.json(5), or the credential helper that it names for a registry.
public struct LoginStore: Sendable {
    /// The auth file.
    public let path: ByteString
    private let options: RegistryOptions
    private let environment: Environment

    /// - Parameter options: `authFile`, and where it is nil `REGISTRY_AUTH_FILE`, name the file; else it is
    ///   `${XDG_RUNTIME_DIR}/containers/auth.json`, or `/run/containers/UID/auth.json`.
    public init(_ options: RegistryOptions = RegistryOptions()) { self.init(options, .ofProcess) }

    init(_ options: RegistryOptions, _ environment: Environment) {
        path = options.authFile ?? environment["REGISTRY_AUTH_FILE"].map { ByteString($0) } ?? CredentialStore.primaryPath(environment)
        self.options = options
        self.environment = environment
    }

    /// The user whose password would be used for the registry, wherever it is kept; nil where there is none.
    ///
    /// - Throws: where an auth file or a helper cannot be used.
    public func user(for target: LoginTarget) throws(RegistryError) -> String? {
        var options = options
        // A file that logging in would make is no mistake here.
        if options.authFile != nil || environment["REGISTRY_AUTH_FILE"] != nil, try AuthFile(reading: path) == nil { return nil }
        options.credentials = nil
        let places = PlaceFinder(options, environment)
        guard case .password(let user, _) = try CredentialStore(options, environment, places).find(for: target.repository)?.credentials
        else {
            return nil
        }
        return user
    }

    /// Keeps user and password, durably; everything else in the file stays.
    ///
    /// - Returns: where they are now, for people.
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

    /// Forgets what this file, and the helper that it names, have for the registry.
    ///
    /// - Returns: whether there was something.
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

    /// Forgets everything in this file, and what its helpers have for the registries that it names.
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

    /// Reads, changes and where `body` says so writes the file, while no other login does.
    private func changing<Value>(
        makesDirectory: Bool = false, _ body: (inout AuthFile) throws(RegistryError) -> (writes: Bool, value: Value)
    ) throws(RegistryError) -> Value {
        // The directory is the lock: the file itself is replaced. Where there is none, or none that can be locked, nobody else writes.
        let parent = splitPath(path).directory
        // What prevents that is told of when the file is written.
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
