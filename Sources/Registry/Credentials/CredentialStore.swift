internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// Credentials from the options, auth files and credential helpers, in the order of the container tools.
struct CredentialStore: Sendable {
    private let options: RegistryOptions
    private let environment: Environment
    private let finder: EndpointFinder?

    /// - Parameter finder: for the credential helpers in the registries configuration.
    init(_ options: RegistryOptions, _ environment: Environment, _ finder: EndpointFinder? = nil) {
        self.options = options
        self.environment = environment
        self.finder = finder
    }

    /// Nil if there are none: the request is then anonymous.
    func find(for repository: RemoteRepository) throws(RegistryError) -> FoundCredentials? {
        if let given = options.credentials, repository.takesGivenCredentials {
            return FoundCredentials(credentials: given, origin: .options)
        }
        guard options.usesStoredCredentials else { return nil }
        for helper in try finder?.configuration().credentialHelpers ?? [Self.authFiles] {
            if helper == Self.authFiles {
                if let found = try findInFiles(for: repository) { return found }
                continue
            }
            for server in repository.serverNames {
                guard let credentials = try CredentialHelper(name: helper, environment: environment).get(server: server) else { continue }
                return FoundCredentials(
                    credentials: credentials, origin: .helper(CredentialHelper.program(helper), configuration: nil))
            }
        }
        return nil
    }

    /// The value of `credential-helpers` in registries.conf that stands for the auth files.
    static let authFiles = "containers-auth.json"

    /// The auth files that are read.
    var files: [ByteString] {
        if let named = options.authFile ?? environment["REGISTRY_AUTH_FILE"].map({ ByteString($0) }) { return [named] }
        return usualPaths
    }

    private func findInFiles(for repository: RemoteRepository) throws(RegistryError) -> FoundCredentials? {
        if let named = options.authFile ?? environment["REGISTRY_AUTH_FILE"].map({ ByteString($0) }) {
            guard let found = try AuthFile(reading: named) else {
                throw RegistryError(.file(.authFile, named, .missing))
            }
            return try found.find(for: repository, environment)
        }
        for path in usualPaths {
            guard let file = try AuthFile(reading: path) else { continue }
            if let found = try file.find(for: repository, environment) { return found }
        }
        return nil
    }

    /// The file that a login writes by default.
    static func primaryPath(_ environment: Environment) -> ByteString {
        ByteString(
            environment["XDG_RUNTIME_DIR"].map { $0 + "/containers/auth.json" }
                ?? "\(environment.systemRoot)/run/containers/\(environment.userID)/auth.json")
    }

    private var usualPaths: [ByteString] {
        var paths: [String] = []
        if let config = environment["XDG_CONFIG_HOME"] ?? environment["HOME"].map({ $0 + "/.config" }) {
            paths.append(config + "/containers/auth.json")
        }
        if let docker = environment["DOCKER_CONFIG"] ?? environment["HOME"].map({ $0 + "/.docker" }) {
            paths.append(docker + "/config.json")
        }
        return [Self.primaryPath(environment)] + paths.map { ByteString($0) }
    }
}

/// The content of a file of at most `limit` bytes; nil if there is no such file.
func readSmallFile(
    _ path: ByteString, limit: Int, _ role: RegistryError.FileRole = .authFile
) throws(RegistryError) -> [UInt8]? {
    do throws(SystemError) {
        return try FileDescriptor.open(path, .readOnly).readAll(limit: limit)
    } catch {
        if error.isMissing { return nil }
        throw RegistryError(.file(role, path, .unreadable(error.errno)))
    }
}
