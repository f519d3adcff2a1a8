internal import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsLinuxSystem
internal import ComposefsOCIModel

/// The settings of containers-registries.conf(5) and its drop-ins: aliases of short names, locations and mirrors of images.
struct RegistriesConfiguration: Sendable {
    private static let fileLimit = 1 << 20
    private static let dropInLimit = 1000

    private(set) var searchRegistries: [String]?
    private(set) var shortNameMode = ShortNameMode.permissive
    private(set) var credentialHelpers: [String]?
    private(set) var registries: [RegistryEntry] = []
    private(set) var aliases: [String: String] = [:]
    /// The file that names the registries to search, for messages.
    private var searchOrigin: ByteString?

    init() {}

    /// Reads the files of this machine and user.
    ///
    /// - Parameter given: the only file to read, instead of all others.
    init(_ given: ByteString?, _ environment: Environment) throws(RegistryError) {
        let paths = ConfigurationPaths(environment)
        if let named = given ?? environment["CONTAINERS_REGISTRIES_CONF"].map({ ByteString($0) }) {
            guard try add(named) else {
                throw RegistryError(.file(.registriesConfiguration, named, .missing))
            }
        } else {
            for path in paths.registries {
                if try add(path) { break }
            }
            for path in try Self.dropIns(paths.registryDropIns) { _ = try add(path) }
        }
        if given == nil, let last = environment["CONTAINERS_REGISTRIES_CONF_OVERRIDE"] { _ = try add(ByteString(last)) }
        // The user's recorded choices take precedence over all files. A damaged cache must not prevent a pull.
        if let path = paths.recordedAliases, let recorded = try? RecordedAliases(path: path).read() {
            for (name, target) in recorded where !target.isEmpty { aliases[name] = target }
        }
    }

    /// The drop-ins of all directories, sorted by name. Of files with the same name, only the one in the first directory counts.
    private static func dropIns(_ directories: [ByteString]) throws(RegistryError) -> [ByteString] {
        var found: [ByteString: ByteString] = [:]
        for path in directories {
            do throws(SystemError) {
                let directory = try FileDescriptor.open(path, [.readOnly, .directory])
                for entry in try directory.entries() where entry.name.bytes.suffix(5).elementsEqual(".conf".utf8) {
                    guard try directory.statusIfPresent(at: entry.name, follow: true)?.kind == .regular else { continue }
                    if found[entry.name] == nil { found[entry.name] = path + "/" + entry.name }
                }
            } catch {
                if [.noEntry, .notDirectory, .accessDenied].contains(error.errno) { continue }
                throw RegistryError(.file(.registriesConfiguration, path, .unreadable(error.errno)))
            }
        }
        guard found.count <= dropInLimit else {
            throw RegistryError(.tooManyDropIns(found.count, limit: dropInLimit))
        }
        return found.sorted { $0.key < $1.key }.map(\.value)
    }

    /// False if there is no such file.
    private mutating func add(_ path: ByteString) throws(RegistryError) -> Bool {
        guard let bytes = try readSmallFile(path, limit: Self.fileLimit, .registriesConfiguration) else { return false }
        merge(try RegistriesFile(path, bytes), path)
        return true
    }

    /// The file's settings replace earlier ones: each setting, each alias, and each `[[registry]]` with the same prefix as a whole.
    mutating func merge(_ file: RegistriesFile, _ path: ByteString) {
        if let search = file.searchRegistries {
            searchRegistries = search
            searchOrigin = path
        }
        if let mode = file.shortNameMode { shortNameMode = mode }
        if let helpers = file.credentialHelpers { credentialHelpers = helpers }
        for entry in file.registries {
            registries.removeAll { $0.prefix == entry.prefix }
            registries.append(entry)
        }
        for (name, target) in file.aliases { aliases[name] = target.isEmpty ? nil : target }
    }

    // MARK: Short names

    /// The references that a reference may stand for, in the order to try: one, unless it is a short name without an alias.
    func meanings(of reference: RegistryReference) throws(RegistryError) -> [RegistryReference] {
        guard let name = reference.shortName else { return [reference] }
        func inRepository(_ repository: String) throws(RegistryError) -> RegistryReference {
            do { return try reference.inRepository(repository) } catch { throw RegistryError(.invalidCandidate(error)) }
        }
        if let target = aliases[name] { return [try inRepository(target)] }
        guard let searchRegistries else { return [try inRepository("docker.io/" + name)] }
        guard !searchRegistries.isEmpty else {
            throw RegistryError(.noSearchRegistries(name: name, origin: searchOrigin))
        }
        var found: [RegistryReference] = []
        for registry in searchRegistries {
            let candidate = try inRepository("\(registry)/\(name)")
            if !found.contains(candidate) { found.append(candidate) }
        }
        return found
    }

    /// The references that the short-name mode allows to try.
    ///
    /// - Parameter choose: chooses one of several; nil if there is no user to ask.
    func candidates(
        for reference: RegistryReference, choose: (([RegistryReference]) -> RegistryReference?)?
    ) throws(RegistryError) -> [RegistryReference] {
        let found = try meanings(of: reference)
        guard found.count > 1, shortNameMode != .disabled else { return found }
        let name = reference.shortName ?? reference.canonical
        if let choose {
            guard let chosen = choose(found) else { throw RegistryError(.noCandidateChosen(name: name)) }
            return [chosen]
        }
        guard shortNameMode == .permissive else {
            throw RegistryError(.ambiguousShortName(name, candidates: found.map(\.canonical)))
        }
        return found
    }

    // MARK: Where images are

    /// The entry with the longest prefix that matches the reference.
    private func entry(for reference: RegistryReference) -> (entry: RegistryEntry, matched: Int)? {
        let text = reference.canonical
        var best: (entry: RegistryEntry, matched: Int)?
        for entry in registries {
            guard let matched = entry.match(text) else { continue }
            if entry.prefix.utf8.count > (best?.entry.prefix.utf8.count ?? -1) { best = (entry, matched) }
        }
        return best
    }

    /// The endpoints of a pull, in the order to try: mirrors, then the registry itself.
    ///
    /// - Throws: if the registry is blocked, or a rewritten reference is invalid.
    func endpoints(for reference: RegistryReference) throws(RegistryError) -> [RemoteRepository] {
        guard let (entry, matched) = entry(for: reference) else { return [RemoteRepository(reference)] }
        try refuse(reference, ifBlockedBy: entry)
        var endpoints: [RemoteRepository] = []
        for mirror in entry.mirrors {
            switch mirror.use {
            case .all: break
            case .digestOnly: if reference.digest == nil { continue }
            case .tagOnly: if reference.digest != nil { continue }
            }
            let target = try Self.rewrite(reference, matched, mirror.location, entry)
            // The mirror's registry may have an entry of its own, with settings or blocked.
            let own = self.entry(for: target)?.entry
            if own?.isBlocked == true { continue }
            var endpoint = RemoteRepository(target)
            endpoint.isInsecure = mirror.isInsecure || own?.isInsecure == true
            endpoint.proxy = mirror.proxy ?? own?.proxy
            endpoint.isMirror = true
            endpoints.append(endpoint)
        }
        let target = try entry.location.map { location throws(RegistryError) in try Self.rewrite(reference, matched, location, entry) }
        var primary = RemoteRepository(target ?? reference)
        primary.isInsecure = entry.isInsecure
        primary.proxy = entry.proxy
        endpoints.append(primary)
        // `RegistryOptions.credentials` are meant for the registry in the reference, not for its mirrors.
        for index in endpoints.indices { endpoints[index].takesGivenCredentials = endpoints[index].domain == reference.domain }
        return endpoints
    }

    /// The endpoint of a push: neither mirrors nor rewriting apply (containers-registries.conf(5)).
    func pushTarget(for reference: RegistryReference) throws(RegistryError) -> RemoteRepository {
        var target = RemoteRepository(reference)
        guard let entry = entry(for: reference)?.entry else { return target }
        try refuse(reference, ifBlockedBy: entry)
        target.isInsecure = entry.isInsecure
        target.proxy = entry.proxy
        return target
    }

    /// The registry without a repository, for a login.
    func loginTarget(_ host: String) throws(RegistryError) -> RemoteRepository {
        var target = RemoteRepository(domain: host, name: "")
        guard let entry = registries.first(where: { $0.match(host) == host.utf8.count }) else { return target }
        guard !entry.isBlocked else { throw RegistryError(.blockedHost(host, origin: entry.origin)) }
        target.isInsecure = entry.isInsecure
        target.proxy = entry.proxy
        return target
    }

    private func refuse(_ reference: RegistryReference, ifBlockedBy entry: RegistryEntry) throws(RegistryError) {
        guard entry.isBlocked else { return }
        throw RegistryError(.blocked(reference: "\(reference)", origin: entry.origin, prefix: entry.prefix))
    }

    private static func rewrite(
        _ reference: RegistryReference, _ matched: Int, _ location: String, _ entry: RegistryEntry
    ) throws(RegistryError) -> RegistryReference {
        let text = location + String(decoding: Array(reference.canonical.utf8).dropFirst(matched), as: UTF8.self)
        guard let target = try? RegistryReference(parsing: text), target.shortName == nil else {
            throw RegistryError(.invalidLocation(origin: entry.origin, rewritten: text, reference: "\(reference)"))
        }
        return target
    }
}
