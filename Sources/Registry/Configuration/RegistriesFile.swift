internal import ComposefsBytes
internal import ComposefsHTTPClient
internal import ComposefsOCIModel
internal import ComposefsTOML

/// How short names without an alias are completed (containers-registries.conf(5)).
enum ShortNameMode: String, Sendable {
    /// If there are several registries to search, the user has to choose one.
    case enforcing
    /// The same, but all registries are tried if there is no user to ask.
    case permissive
    /// All registries are tried in order.
    case disabled
}

/// Which pulls a mirror serves.
enum MirrorUse: String, Sendable {
    case all
    case digestOnly = "digest-only"
    case tagOnly = "tag-only"
}

/// `[[registry.mirror]]`
struct MirrorEntry: Sendable {
    /// `HOST[:PORT][/NAMESPACE…]`
    var location: String
    var isInsecure = false
    var proxy: ProxyAddress?
    var use = MirrorUse.all
}

/// `[[registry]]`
struct RegistryEntry: Sendable {
    /// `HOST[:PORT]`, optionally followed by a namespace, a repository, a tag or a digest; or `*.DOMAIN`.
    var prefix: String
    /// Nil if the reference is not rewritten.
    var location: String?
    var isInsecure = false
    var isBlocked = false
    var proxy: ProxyAddress?
    var mirrors: [MirrorEntry] = []
    var file: ByteString
    /// The entry's first line, counted from 1.
    var line: Int

    /// `FILE:LINE`
    var origin: String { "\(file):\(line)" }

    /// The number of bytes of the reference's canonical text that the prefix matches; nil if it does not match.
    func match(_ reference: String) -> Int? {
        let text = Array(reference.utf8)
        let wanted = Array(prefix.utf8)
        var end = wanted.count
        if prefix.hasPrefix("*.") {
            // At least one subdomain, then the rest of the host name in full.
            let suffix = wanted.dropFirst()
            let host = text.prefix { $0 != UInt8(ascii: "/") && $0 != UInt8(ascii: ":") && $0 != UInt8(ascii: "@") }
            guard host.count > suffix.count, host.suffix(suffix.count).elementsEqual(suffix) else { return nil }
            end = host.count
        } else if !text.starts(with: wanted) {
            return nil
        }
        guard end < text.count else { return end }
        return [UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: "@")].contains(text[end]) ? end : nil
    }
}

/// The content of one file in the format of containers-registries.conf(5). Version 1 of the format is read as the equivalent version 2.
///
/// Entries that match no reference, for example networks among the insecure registries, are ignored, as by other container tools: one odd
/// entry must not prevent all pulls. The location of an entry is checked when the entry matches.
struct RegistriesFile: Sendable {
    /// Registries for short names, in order; nil if the file does not set them.
    var searchRegistries: [String]?
    var shortNameMode: ShortNameMode?
    var credentialHelpers: [String]?
    var registries: [RegistryEntry] = []
    /// Short names and their `HOST[:PORT]/NAME`. An empty target removes the alias of an earlier file.
    var aliases: [String: String] = [:]

    private let path: ByteString

    init(_ path: ByteString, _ bytes: [UInt8]) throws(RegistryError) {
        self.path = path
        let root: TOMLValue
        do { root = try TOML.parse(bytes) } catch {
            throw RegistryError(.registriesConfiguration(path, line: error.line, .syntax(error.reason)))
        }
        searchRegistries = try searchList(root, "unqualified-search-registries")
        if let mode = try text(root, "short-name-mode"), !mode.isEmpty {
            guard let known = ShortNameMode(rawValue: mode) else {
                throw problem(root["short-name-mode"], .value(key: "short-name-mode", expected: "enforcing, permissive or disabled"))
            }
            shortNameMode = known
        }
        credentialHelpers = try strings(root, "credential-helpers")
        try readVersion1(root)
        for entry in try tables(root, "registry") { try add(try registry(entry)) }
        if let table = root["aliases"] {
            guard let members = table.table else { throw problem(table, .value(key: "aliases", expected: "a table")) }
            for (name, value) in members.sorted(by: { $0.key < $1.key }) { aliases[name] = try alias(name, value) }
        }
    }

    // MARK: Tables

    /// The first of several tables with the same prefix counts.
    private mutating func add(_ entry: RegistryEntry) throws(RegistryError) {
        guard let other = registries.first(where: { $0.prefix == entry.prefix }) else { return registries.append(entry) }
        // The contradiction decides whether the registry may be trusted, or used at all.
        guard other.location != entry.location || (other.isInsecure, other.isBlocked) == (entry.isInsecure, entry.isBlocked) else {
            throw RegistryError(.registriesConfiguration(path, line: entry.line, .contradiction(prefix: entry.prefix)))
        }
    }

    private func registry(_ table: TOMLValue) throws(RegistryError) -> RegistryEntry {
        var location = try self.location(table)
        var prefix = try cleanLocation(try text(table, "prefix") ?? "", table["prefix"] ?? table)
        if prefix.isEmpty { prefix = location ?? "" }
        guard !prefix.isEmpty else { throw problem(table, .registryWithoutLocation) }
        if prefix.hasPrefix("*.") {
            guard !prefix.utf8.contains(where: { [UInt8(ascii: "/"), UInt8(ascii: ":"), UInt8(ascii: "@")].contains($0) }) else {
                throw problem(table["prefix"] ?? table, .invalidWildcard(prefix: prefix))
            }
            // A wildcard cannot be rewritten to itself.
            if location == prefix { location = nil }
        } else if location == nil {
            throw problem(table, .prefixWithoutLocation)
        }
        var entry = RegistryEntry(
            prefix: prefix.lowercasingHost, location: location, isInsecure: try flag(table, "insecure"),
            isBlocked: try flag(table, "blocked"), proxy: try proxy(table), file: path, line: table.line)
        let digestOnly = try flag(table, "mirror-by-digest-only")
        for mirror in try tables(table, "mirror") {
            guard let location = try self.location(mirror) else { throw problem(mirror, .mirrorWithoutLocation) }
            var read = MirrorEntry(location: location, isInsecure: try flag(mirror, "insecure"), proxy: try proxy(mirror))
            if digestOnly { read.use = .digestOnly }
            if let use = try text(mirror, "pull-from-mirror"), !use.isEmpty {
                let value = mirror["pull-from-mirror"]
                guard !digestOnly else {
                    throw problem(value, .exclusive("pull-from-mirror", "the registry's mirror-by-digest-only"))
                }
                guard let known = MirrorUse(rawValue: use) else {
                    throw problem(value, .value(key: "pull-from-mirror", expected: "all, digest-only or tag-only"))
                }
                read.use = known
            }
            entry.mirrors.append(read)
        }
        return entry
    }

    private func location(_ table: TOMLValue) throws(RegistryError) -> String? {
        guard let location = try text(table, "location") else { return nil }
        let name = try cleanLocation(location, table["location"] ?? table).lowercasingHost
        return name.isEmpty ? nil : name
    }

    private func proxy(_ table: TOMLValue) throws(RegistryError) -> ProxyAddress? {
        guard let text = try text(table, "proxy"), !text.isEmpty else { return nil }
        // The message does not quote the value, which may hold a password.
        guard let address = try proxyAddress(text) else {
            throw problem(table["proxy"], .invalidProxy)
        }
        return address
    }

    private func alias(_ name: String, _ value: TOMLValue) throws(RegistryError) -> String {
        guard let reference = try? RegistryReference(parsing: name), reference.shortName == name else {
            throw problem(value, .invalidAlias(name))
        }
        guard let target = value.string else { throw problem(value, .value(key: name, expected: "a string")) }
        if target.isEmpty { return target }
        guard let parsed = try? RegistryReference(parsing: target), parsed.shortName == nil,
            !target.contains("@"), parsed.tag == "latest", !target.hasSuffix(":latest")
        else { throw problem(value, .invalidAliasTarget(name)) }
        return target
    }

    /// The deprecated `[registries.search]`, `[registries.insecure]` and `[registries.block]`, each with a list `registries`.
    private mutating func readVersion1(_ root: TOMLValue) throws(RegistryError) {
        guard let old = root["registries"] else { return }
        guard old.table != nil else { throw problem(old, .value(key: "registries", expected: "a table, as in [registries.search]")) }
        let search = try old["search"].flatMap { section throws(RegistryError) in try searchList(section, "registries") }
        func names(_ name: String) throws(RegistryError) -> [String]? {
            guard let section = old[name], let texts = try strings(section, "registries") else { return nil }
            var names: [String] = []
            for text in texts {
                let name = try cleanLocation(text, section["registries"]).lowercasingHost
                guard !name.isEmpty else { throw problem(section["registries"], .emptyRegistry) }
                names.append(name)
            }
            return names
        }
        let (insecure, blocked) = (try names("insecure"), try names("block"))
        guard root["registry"] == nil, searchRegistries == nil else {
            // Empty lists contradict nothing.
            guard [search, insecure, blocked].allSatisfy({ $0?.isEmpty ?? true }) else {
                throw problem(old, .exclusive("[registries.…] of version 1 of the format", "version 2"))
            }
            return
        }
        guard search != nil || insecure != nil || blocked != nil else { return }
        searchRegistries = search ?? []
        for name in Set((insecure ?? []) + (blocked ?? [])).sorted() {
            registries.append(
                RegistryEntry(
                    prefix: name, location: name.hasPrefix("*.") ? nil : name, isInsecure: insecure?.contains(name) ?? false,
                    isBlocked: blocked?.contains(name) ?? false, file: path, line: old.line))
        }
    }

    // MARK: Values

    /// A location or prefix without slashes at its end. One that cannot be part of a reference will not match any.
    private func cleanLocation(_ text: String, _ value: TOMLValue?) throws(RegistryError) -> String {
        var name = text[...]
        while name.hasSuffix("/") { name.removeLast() }
        for scheme in ["http://", "https://"] where text.lowercased().hasPrefix(scheme) {
            throw problem(value, .registryWithScheme(text))
        }
        return String(name)
    }

    /// Registries for short names: each is `HOST[:PORT]`, optionally followed by a namespace if the text cannot be taken for a host alone.
    private func searchList(_ table: TOMLValue, _ key: String) throws(RegistryError) -> [String]? {
        guard let texts = try strings(table, key) else { return nil }
        var names: [String] = []
        for text in texts {
            let name = try cleanLocation(text, table[key])
            let isNamespace = name.contains("/") && (try? RegistryReference(parsing: name + "/name")).map { $0.shortName == nil } ?? false
            guard RegistryReference.isHost(name) || isNamespace else {
                throw problem(table[key], .invalidRegistry(text))
            }
            names.append(name)
        }
        return names
    }

    private func text(_ table: TOMLValue, _ key: String) throws(RegistryError) -> String? {
        guard let value = table[key] else { return nil }
        guard let text = value.string else { throw problem(value, .value(key: key, expected: "a string")) }
        return text
    }

    private func flag(_ table: TOMLValue, _ key: String) throws(RegistryError) -> Bool {
        guard let value = table[key] else { return false }
        guard let flag = value.boolean else { throw problem(value, .value(key: key, expected: "true or false")) }
        return flag
    }

    private func strings(_ table: TOMLValue, _ key: String) throws(RegistryError) -> [String]? {
        guard let value = table[key] else { return nil }
        guard let elements = value.array else { throw problem(value, .value(key: key, expected: "a list of strings")) }
        var texts: [String] = []
        for element in elements {
            guard let text = element.string else { throw problem(element, .value(key: key, expected: "a list of strings")) }
            texts.append(text)
        }
        return texts
    }

    private func tables(_ table: TOMLValue, _ key: String) throws(RegistryError) -> [TOMLValue] {
        guard let value = table[key] else { return [] }
        guard let elements = value.array, elements.allSatisfy({ $0.table != nil }) else {
            throw problem(value, .value(key: key, expected: "a list of tables, as in [[\(key)]]"))
        }
        return elements
    }

    private func problem(_ value: TOMLValue?, _ fault: RegistryError.RegistriesFault) -> RegistryError {
        RegistryError(.registriesConfiguration(path, line: value?.line, fault))
    }
}

/// - Throws: if the bytes are not a valid file in the format of containers-registries.conf(5).
package func checkRegistriesFile(_ bytes: [UInt8]) throws(RegistryError) { _ = try RegistriesFile("registries.conf", bytes) }

extension String {
    /// The part before the first slash in lower case, as in references.
    fileprivate var lowercasingHost: String {
        let host = prefix { $0 != "/" }
        return host.lowercased() + self[host.endIndex...]
    }
}
