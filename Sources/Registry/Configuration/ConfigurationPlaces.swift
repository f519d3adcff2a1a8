internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// Where the container tools keep their configuration, highest precedence first.
struct ConfigurationPlaces: Sendable {
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

    /// Directories of directories named for hosts.
    var certificates: [ByteString] {
        var places = directories(user: "certs.d") { "certs\($0).d" }
        places.insert(environment.systemRoot + "/etc/docker/certs.d", at: (places.lastIndex { $0.hasPrefix(etc) } ?? 0) + 1)
        return places.map { ByteString($0) }
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

    /// Short names that container tools recorded when they asked their user.
    var recordedAliases: ByteString? {
        if environment.userID == 0 { return ByteString(environment.systemRoot + "/var/cache/containers/short-name-aliases.conf") }
        let cache = environment["XDG_CACHE_HOME"] ?? environment["HOME"].map { $0 + "/.cache" }
        return cache.map { ByteString($0 + "/containers/short-name-aliases.conf") }
    }
}
