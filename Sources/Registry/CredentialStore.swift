internal import Bytes
internal import Glibc
internal import JSON
internal import LinuxSystem

/// Credentials from the options, auth files and credential helpers, in the order of the container tools.
struct CredentialStore: Sendable {
    private static let fileLimit = 4 << 20

    private let options: RegistryOptions
    private let environment: Environment

    private let places: PlaceFinder?

    /// - Parameter places: what the registries configuration says about credential helpers.
    init(_ options: RegistryOptions, _ environment: Environment, _ places: PlaceFinder? = nil) {
        self.options = options
        self.environment = environment
        self.places = places
    }

    /// Nil where nobody knows any: the request is made anonymously.
    func find(for repository: RemoteRepository) throws(RegistryError) -> FoundCredentials? {
        if let given = options.credentials, repository.takesGivenCredentials {
            return FoundCredentials(credentials: given, origin: "the given credentials")
        }
        if let named = options.authFile ?? environment["REGISTRY_AUTH_FILE"].map({ ByteString($0) }) {
            guard let found = try AuthFile(reading: named, limit: Self.fileLimit) else {
                throw RegistryError(.credentials, "auth file \(named) does not exist; --authfile or REGISTRY_AUTH_FILE names it")
            }
            return try found.find(for: repository, environment)
        }
        for path in usualPaths {
            guard let file = try AuthFile(reading: path, limit: Self.fileLimit) else { continue }
            if let found = try file.find(for: repository, environment) { return found }
        }
        return nil
    }

    private var usualPaths: [ByteString] {
        var paths: [String] = []
        paths.append(
            (environment["XDG_RUNTIME_DIR"] ?? "/run/containers/\(geteuid())")
                + (environment["XDG_RUNTIME_DIR"] == nil ? "/auth.json" : "/containers/auth.json"))
        if let config = environment["XDG_CONFIG_HOME"] ?? environment["HOME"].map({ $0 + "/.config" }) {
            paths.append(config + "/containers/auth.json")
        }
        if let docker = environment["DOCKER_CONFIG"] ?? environment["HOME"].map({ $0 + "/.docker" }) {
            paths.append(docker + "/config.json")
        }
        return paths.map { ByteString($0) }
    }
}

/// One auth.json or docker config.json.
struct AuthFile {
    private let path: ByteString
    private let auths: [(key: String, value: JSONValue)]
    private let helpers: [String: String]
    private let store: String?

    /// Nil where there is no such file.
    init?(reading path: ByteString, limit: Int) throws(RegistryError) {
        guard let bytes = try readSmallFile(path, limit: limit) else { return nil }
        try self.init(path, bytes)
    }

    init(_ path: ByteString, _ bytes: [UInt8]) throws(RegistryError) {
        self.path = path
        let root: JSONValue
        do { root = try JSONValue.parse(bytes) } catch { throw RegistryError(.credentials, "auth file \(path): \(error)") }
        func members(_ name: String) -> [(key: String, value: JSONValue)] {
            root[name]?.object.map { $0.map { (key: $0.key, value: $0.value) } } ?? []
        }
        auths = members("auths")
        helpers = Dictionary(members("credHelpers").compactMap { entry in entry.value.string.map { (entry.key, $0) } }) { first, _ in first
        }
        store = root["credsStore"]?.string
    }

    /// A helper named for the repository or its registry, then the most specific entry, then the store for everything.
    func find(for repository: RemoteRepository, _ environment: Environment) throws(RegistryError) -> FoundCredentials? {
        for key in repository.credentialKeys + repository.serverNames {
            guard let helper = helpers[key] else { continue }
            let names = repository.serverNames.contains(key) ? repository.serverNames : [key]
            if let found = try ask(helper, names, environment) { return found }
        }
        for key in repository.credentialKeys {
            if let entry = auths.first(where: { $0.key == key }), let found = try credentials(in: entry) { return found }
        }
        // Old files name a server by an URL.
        for entry in auths where Self.normalized(entry.key) == repository.domain {
            if let found = try credentials(in: entry) { return found }
        }
        guard let store, !store.isEmpty else { return nil }
        return try ask(store, repository.serverNames, environment)
    }

    private func ask(_ helper: String, _ names: [String], _ environment: Environment) throws(RegistryError) -> FoundCredentials? {
        for name in names {
            if let credentials = try CredentialHelper(name: helper, environment: environment).get(server: name) {
                return FoundCredentials(
                    credentials: credentials, origin: "the credentials of docker-credential-\(helper), named by \(path),")
            }
        }
        return nil
    }

    /// Nil where the entry is a mere placeholder, as docker leaves them beside a credential store.
    private func credentials(in entry: (key: String, value: JSONValue)) throws(RegistryError) -> FoundCredentials? {
        func text(_ name: String) -> String? { entry.value[name]?.string.flatMap { $0.isEmpty ? nil : $0 } }
        let found: RegistryCredentials
        if let token = text("identitytoken") {
            found = .identityToken(token)
        } else if let token = text("registrytoken") {
            found = .registryToken(token)
        } else if let auth = text("auth") {
            guard let bytes = Base64.decode(auth.utf8, lenient: true), let pair = String(validating: bytes, as: UTF8.self),
                let colon = pair.unicodeScalars.firstIndex(of: ":"), !Self.holdsControls(pair.unicodeScalars.prefix { $0 != "\0" })
            else { throw RegistryError(.credentials, "auth file \(path): the entry \(printable(entry.key)) is no base64 of user:password") }
            let password = pair.unicodeScalars[pair.unicodeScalars.index(after: colon)...].prefix { $0 != "\0" }
            found = .password(user: String(pair.unicodeScalars[..<colon]), password: String(password))
        } else if let user = text("username"), let password = text("password") {
            found = .password(user: user, password: password)
        } else {
            return nil
        }
        return FoundCredentials(credentials: found, origin: "the credentials in \(path)")
    }

    private static func holdsControls(_ scalars: some Sequence<Unicode.Scalar>) -> Bool {
        scalars.contains { $0.value < 0x20 || $0.value == 0x7f }
    }

    /// The domain that a key such as `https://index.docker.io/v1/` means.
    private static func normalized(_ key: String) -> String {
        var rest = key[...]
        for scheme in ["https://", "http://"] where rest.hasPrefix(scheme) { rest = rest.dropFirst(scheme.count) }
        let isURL = rest.startIndex != key.startIndex
        // A path without a scheme is a namespace, and was compared as such.
        guard isURL || !rest.contains("/") || rest.hasSuffix("/v1/") || rest.hasSuffix("/v2/") else { return "" }
        let host = rest.prefix { $0 != "/" }.lowercased()
        return host == "index.docker.io" || host == "registry-1.docker.io" ? "docker.io" : host
    }
}

/// A whole file of at most `limit` bytes; nil where there is none.
func readSmallFile(
    _ path: ByteString, limit: Int, _ what: String = "auth file", _ kind: RegistryError.Kind = .credentials
) throws(RegistryError) -> [UInt8]? {
    do throws(SystemError) {
        return try FileDescriptor.open(path, .readOnly).readAll(limit: limit)
    } catch {
        if error.errno == .noEntry || error.errno == .notDirectory { return nil }
        throw RegistryError(kind, "\(what) \(path): \(error.errno)")
    }
}
