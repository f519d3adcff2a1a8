internal import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsJSON
internal import ComposefsLinuxSystem

/// One auth.json or docker config.json.
struct AuthFile {
    private static let limit = 4 << 20

    let path: ByteString
    /// The whole document, including unknown members.
    private var root: JSONValue

    private var auths: [(key: String, value: JSONValue)] { Self.members(root, "auths") }
    private var helpers: [(key: String, value: String)] {
        Self.members(root, "credHelpers").compactMap { entry in entry.value.string.map { (key: entry.key, value: $0) } }
    }
    private var store: String? { root["credsStore"]?.string.flatMap { $0.isEmpty ? nil : $0 } }

    /// Whether a credential helper is named, for some registries or for all.
    var namesHelpers: Bool { store != nil || !helpers.isEmpty }

    private static func members(_ root: JSONValue, _ name: String) -> [(key: String, value: JSONValue)] {
        root[name]?.object.map { $0.map { (key: $0.key, value: $0.value) } } ?? []
    }

    /// Nil if there is no such file.
    init?(reading path: ByteString) throws(RegistryError) {
        guard let bytes = try readSmallFile(path, limit: Self.limit) else { return nil }
        try self.init(path, bytes)
    }

    /// An empty file has no entries.
    init(_ path: ByteString, _ bytes: [UInt8] = []) throws(RegistryError) {
        self.path = path
        guard !bytes.isEmpty else {
            root = .object(JSONObject())
            return
        }
        do { root = try JSONValue.parse(bytes) } catch { throw RegistryError(.invalidAuthFile(path, .syntax(error))) }
        guard root.object != nil else { throw RegistryError(.invalidAuthFile(path, .notObject(root.kind.description))) }
    }

    /// The credentials of a helper for the repository or its registry, else of the most specific entry, else of the default helper.
    func find(for repository: RemoteRepository, _ environment: Environment) throws(RegistryError) -> FoundCredentials? {
        for key in repository.credentialKeys + repository.serverNames {
            guard let helper = helpers.first(where: { $0.key == key })?.value else { continue }
            let names = repository.serverNames.contains(key) ? repository.serverNames : [key]
            if let found = try ask(helper, names, environment) { return found }
        }
        for key in repository.credentialKeys {
            if let entry = auths.first(where: { $0.key == key }), let found = try credentials(in: entry) { return found }
        }
        // Old files name a server by its URL.
        for entry in auths where Self.normalized(entry.key) == repository.domain {
            if let found = try credentials(in: entry) { return found }
        }
        guard let store else { return nil }
        return try ask(store, repository.serverNames, environment)
    }

    private func ask(_ helper: String, _ names: [String], _ environment: Environment) throws(RegistryError) -> FoundCredentials? {
        for name in names {
            if let credentials = try CredentialHelper(name: helper, environment: environment).get(server: name) {
                return FoundCredentials(
                    credentials: credentials, origin: .helper(CredentialHelper.program(helper), configuration: path))
            }
        }
        return nil
    }

    /// Nil if the entry is a placeholder, which docker writes beside a credential helper.
    private func credentials(in entry: (key: String, value: JSONValue)) throws(RegistryError) -> FoundCredentials? {
        func text(_ name: String) -> String? { entry.value[name]?.string.flatMap { $0.isEmpty ? nil : $0 } }
        let found: RegistryCredentials
        if let token = text("identitytoken") {
            found = .identityToken(token)
        } else if let token = text("registrytoken") {
            found = .registryToken(token)
        } else if let auth = text("auth") {
            guard let bytes = Base64.decode(auth.utf8, lenient: true), let pair = String(validating: bytes, as: UTF8.self),
                let colon = pair.unicodeScalars.firstIndex(of: ":"), !Self.holdsControls(pair.unicodeScalars[..<colon])
            else { throw RegistryError(.invalidAuthFile(path, .invalidEntry(entry.key))) }
            let password = pair.unicodeScalars[pair.unicodeScalars.index(after: colon)...].prefix { $0 != "\0" }
            found = .password(user: String(pair.unicodeScalars[..<colon]), password: String(password))
        } else if let user = text("username"), let password = text("password") {
            found = .password(user: user, password: password)
        } else {
            return nil
        }
        return FoundCredentials(credentials: found, origin: .authFile(path))
    }

    // MARK: Changes

    /// The name of the helper that stores the registry's credentials instead of the file.
    func helper(for registry: LoginTarget) -> String? {
        helpers.first { $0.key == registry.key || registry.isWholeHost && registry.repository.serverNames.contains($0.key) }?.value ?? store
    }

    /// Registries with a helper of their own.
    var helperServers: [(server: String, helper: String)] { helpers.map { (server: $0.key, helper: $0.value) } }

    mutating func set(user: String, password: String, for registry: LoginTarget) {
        var auths = root["auths"]?.object ?? JSONObject()
        auths[registry.key] = ["auth": .string(Base64.encode(Array("\(user):\(password)".utf8)))]
        root["auths"] = .object(auths)
    }

    /// Returns whether there was an entry.
    mutating func remove(_ registry: LoginTarget) -> Bool {
        let names = auths.map(\.key).filter {
            $0 == registry.key || registry.isWholeHost && Self.normalized($0) == registry.repository.domain
        }
        guard var members = root["auths"]?.object, !names.isEmpty else { return false }
        for name in names { members[name] = nil }
        root["auths"] = .object(members)
        return true
    }

    /// Returns how many entries there were.
    mutating func removeAll() -> Int {
        let count = auths.count
        if root["auths"] != nil { root["auths"] = .object(JSONObject()) }
        return count
    }

    /// The whole document, as it is written.
    var documentBytes: [UInt8] { root.prettyBytes + [0x0a] }

    /// Replaces the file, readable by its owner only. A symbolic link stays, and its target is replaced.
    func write() throws(RegistryError) {
        do throws(SystemError) { try replaceFile(path, with: documentBytes) } catch {
            throw RegistryError(.file(.authFile, path, .unwritable(error)))
        }
    }

    // MARK: Text

    /// Control characters in a user. A password may contain them: some registries use JSON keys of several lines (`_json_key`).
    static func holdsControls(_ scalars: some Sequence<Unicode.Scalar>) -> Bool {
        scalars.contains { $0.value < 0x20 || $0.value == 0x7f }
    }

    /// The domain in a key such as `https://index.docker.io/v1/`.
    private static func normalized(_ key: String) -> String {
        var rest = key[...]
        for scheme in ["https://", "http://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
        let isURL = rest.startIndex != key.startIndex
        // A key with a path and without a scheme is a namespace, which has been compared already.
        guard isURL || !rest.contains("/") || rest.hasSuffix("/v1/") || rest.hasSuffix("/v2/") else { return "" }
        let host = rest.prefix { $0 != "/" }.lowercased()
        return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host
    }
}

/// What an auth file says of a registry, and what it says after a login and a logout there. Credential helpers are not found. For fuzzers.
///
/// - Parameters:
///   - bytes: the file.
///   - registry: as for `LoginTarget`.
///   - user: without a colon and control characters.
/// - Returns: the credentials after the login and the logout; and whether an equal document results from reading what would be written.
package func checkAuthFile(
    _ bytes: [UInt8], registry: String, user: String, password: String
) throws(RegistryError) -> (loggedIn: RegistryCredentials?, loggedOut: RegistryCredentials?, isStable: Bool) {
    let target = try LoginTarget(parsing: registry)
    let environment = Environment(["PATH": "/nonexistent"])
    var file = try AuthFile("auth.json", bytes)
    do throws(RegistryError) { _ = try file.find(for: target.repository, environment) } catch { _ = "\(error)" }
    _ = file.helperServers.count
    file.set(user: user, password: password, for: target)
    guard file.helper(for: target) == nil else { return (.password(user: user, password: password), nil, true) }
    let written = try AuthFile("auth.json", file.documentBytes)
    let loggedIn = try written.find(for: target.repository, environment)?.credentials
    let isStable = written.documentBytes == file.documentBytes
    _ = file.remove(target)
    let loggedOut = try file.find(for: target.repository, environment)?.credentials
    _ = file.removeAll()
    return (loggedIn, loggedOut, isStable)
}

/// The credentials in the output of a credential helper; nil if it is not in the form of the protocol or without a secret. For fuzzers.
package func checkHelperOutput(_ bytes: [UInt8]) -> RegistryCredentials? { CredentialHelper.credentials(in: bytes) ?? nil }
