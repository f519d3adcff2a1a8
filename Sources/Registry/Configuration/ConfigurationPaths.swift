internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// The paths of the container tools' configuration, highest precedence first.
struct ConfigurationPaths: Sendable {
    private let environment: Environment

    init(_ environment: Environment) { self.environment = environment }

    /// `$XDG_CONFIG_HOME/containers`; nil for a user without a home.
    private var user: String? {
        (environment["XDG_CONFIG_HOME"] ?? environment["HOME"].map { $0 + "/.config" }).map { $0 + "/containers" }
    }

    private var etc: String { environment.systemRoot + "/etc/containers" }
    private var usr: String { environment.systemRoot + "/usr/share/containers" }

    /// The main registries.conf: the first of these that exists.
    var registries: [ByteString] {
        [user, etc, usr].compactMap { $0.map { ByteString($0 + "/registries.conf") } }
    }

    /// Directories of drop-ins.
    var registryDropIns: [ByteString] {
        directories(user: "registries.conf.d") { "registries\($0).conf.d" }.map { ByteString($0) }
    }

    /// Directories that contain a directory for each host.
    var certificates: [ByteString] {
        var paths = directories(user: "certs.d") { "certs\($0).d" }
        paths.insert(environment.systemRoot + "/etc/docker/certs.d", at: (paths.lastIndex { $0.hasPrefix(etc) } ?? 0) + 1)
        return paths.map { ByteString($0) }
    }

    private func directories(user name: String, _ system: (String) -> String) -> [String] {
        var found: [String] = []
        if let user { found.append("\(user)/\(name)") }
        for parent in [etc, usr] {
            if environment.userID == 0 {
                found.append("\(parent)/\(system(".rootful"))")
            } else {
                found += ["\(parent)/\(system(".rootless"))/\(environment.userID)", "\(parent)/\(system(".rootless"))"]
            }
            found.append("\(parent)/\(system(""))")
        }
        return found
    }

    /// The signature policy: the first of these that exists.
    var signaturePolicies: [ByteString] {
        [environment["HOME"].map { $0 + "/.config/containers" }, etc, usr].compactMap { $0.map { ByteString($0 + "/policy.json") } }
    }

    /// The aliases that container tools record when a user chooses a registry.
    var recordedAliases: ByteString? {
        if environment.userID == 0 { return ByteString(environment.systemRoot + "/var/cache/containers/short-name-aliases.conf") }
        let cache = environment["XDG_CACHE_HOME"] ?? environment["HOME"].map { $0 + "/.cache" }
        return cache.map { ByteString($0 + "/containers/short-name-aliases.conf") }
    }
}
