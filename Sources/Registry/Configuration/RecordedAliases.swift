internal import ComposefsBytes
internal import ComposefsLinuxSystem

/// The answers that users gave when they were asked what a short name means, as the container tools keep them: short-name-aliases.conf, in the
/// format of containers-registries.conf(5) with nothing in it but `[aliases]`.
struct RecordedAliases {
    private static let limit = 1 << 20

    let path: ByteString

    /// The aliases, empty ones too; none where there is no file.
    func read() throws(RegistryError) -> [String: String] {
        guard let bytes = try readSmallFile(path, limit: Self.limit, .recordedAliases) else { return [:] }
        return try RegistriesFile(path, bytes).aliases
    }

    /// Adds an alias, or changes it. Other entries stay.
    ///
    /// - Parameter target: `HOST[:PORT]/NAME`
    func record(_ name: String, as target: String) throws(RegistryError) {
        do throws(SystemError) {
            try makePrivateDirectories(splitPath(path).directory)
        } catch {
            throw RegistryError(.file(.recordedAliases, path, .unwritable(error)))
        }
        // Two that are asked at the same time both are remembered.
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
        // Names and targets were checked: there is nothing in them that TOML would want escaped.
        var text = "[aliases]\n"
        for (name, target) in aliases.sorted(by: { $0.key < $1.key }) { text += "  \"\(name)\" = \"\(target)\"\n" }
        return Array(text.utf8)
    }
}
