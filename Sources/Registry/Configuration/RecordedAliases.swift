internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// Short names and the repositories that users chose for them, in the file that container tools share: short-name-aliases.conf, in the
/// format of containers-registries.conf(5), with a table `[aliases]` only.
struct RecordedAliases {
    private static let limit = 1 << 20

    let path: ByteString

    /// The aliases, including empty ones; none if there is no file.
    func read() throws(RegistryError) -> [String: String] {
        guard let bytes = try readSmallFile(path, limit: Self.limit, .recordedAliases) else { return [:] }
        return try RegistriesFile(path, bytes).aliases
    }

    /// Adds or changes an alias. Other entries stay.
    ///
    /// - Parameter target: `HOST[:PORT]/NAME`
    func record(_ name: String, as target: String) throws(RegistryError) {
        do throws(SystemError) {
            try makePrivateDirectories(splitPath(path).directory)
        } catch {
            throw RegistryError(.file(.recordedAliases, path, .unwritable(error)))
        }
        // The lock keeps the entries of two processes that record a choice at the same time.
        try whileLocked(path + ".lock", [.readWrite, .create]) { () throws(RegistryError) in try change(name, target) }
    }

    private func change(_ name: String, _ target: String) throws(RegistryError) {
        var aliases = try read()
        guard aliases[name] != target else { return }
        aliases[name] = target
        do throws(SystemError) {
            try replaceFile(path, with: Self.text(aliases), keepsMode: true)
        } catch {
            throw RegistryError(.file(.recordedAliases, path, .unwritable(error)))
        }
    }

    private static func text(_ aliases: [String: String]) -> [UInt8] {
        // Names and targets have been checked: they contain nothing that TOML has to escape.
        var text = "[aliases]\n"
        for (name, target) in aliases.sorted(by: { $0.key < $1.key }) { text += "  \"\(name)\" = \"\(target)\"\n" }
        return Array(text.utf8)
    }
}
