public import ComposefsBytes
internal import ComposefsLinuxSystem

/// The files of this machine and its user that a `RegistryClient` uses, for a program that confines itself before it connects.
public struct RegistryFiles: Sendable, Hashable {
    /// Files and directories that are read. Some of them may not exist.
    public var readable: [ByteString]
    /// Directories in which files are made and replaced.
    public var writable: [ByteString] = []
    /// Whether a configuration names a credential helper, so that programs may be started.
    public var runsHelpers: Bool
}

extension RegistryOptions {
    /// What a client with these options uses.
    ///
    /// - Parameter recordsShortName: whether the choice for a short name may be recorded (`recordsChoices`). Its directory is made then.
    public func files(recordsShortName: Bool = false) -> RegistryFiles { files(.ofProcess, recordsShortName: recordsShortName) }

    func files(_ environment: Environment, recordsShortName: Bool) -> RegistryFiles {
        let paths = ConfigurationPaths(environment)
        let credentials = CredentialStore(self, environment)
        var directories: [ByteString] = []
        var files: [ByteString] = []
        if let named = registriesConfiguration ?? environment["CONTAINERS_REGISTRIES_CONF"].map({ ByteString($0) }) {
            files.append(named)
        } else {
            files += paths.registries
            directories += paths.registryDropIns
        }
        files += environment["CONTAINERS_REGISTRIES_CONF_OVERRIDE"].map { [ByteString($0)] } ?? []
        files += credentials.files + (certificateAuthorities.map { [ByteString($0)] } ?? [])
        directories += certificateDirectory.map { [$0] } ?? paths.certificates
        var found = RegistryFiles(readable: files + directories, runsHelpers: runsHelpers(environment, credentials.files))
        // What links in these directories lead to is elsewhere.
        for directory in directories { found.readable += Self.links(in: directory, depth: 2) }
        if let aliases = paths.recordedAliases {
            found.readable.append(aliases)
            if recordsShortName, recordsChoices {
                let directory = splitPath(aliases).directory
                // If it cannot be made, the record fails with a warning.
                try? makePrivateDirectories(directory)
                found.writable.append(directory)
            }
        }
        return found
    }

    /// A configuration that cannot be read names none; the client reports it.
    private func runsHelpers(_ environment: Environment, _ authFiles: [ByteString]) -> Bool {
        guard usesStoredCredentials else { return false }
        let configuration = try? RegistriesConfiguration(registriesConfiguration, environment)
        if configuration?.credentialHelpers?.contains(where: { $0 != CredentialStore.authFiles }) == true { return true }
        return authFiles.contains { path in ((try? AuthFile(reading: path)) ?? nil)?.namesHelpers == true }
    }

    private static func links(in path: ByteString, depth: Int) -> [ByteString] {
        guard let directory = try? FileDescriptor.open(path, [.readOnly, .directory]), let entries = try? directory.entries() else {
            return []
        }
        return entries.flatMap { entry -> [ByteString] in
            let below = path + "/" + entry.name
            switch entry.kind {
            case .symbolicLink: return [below]
            case .directory: return depth > 1 ? links(in: below, depth: depth - 1) : []
            default: return []
            }
        }
    }
}

extension LoginStore {
    /// What a login or logout with these options uses.
    ///
    /// - Parameter makesDirectory: whether the directory of the auth file is made if it does not exist, so that the file can be made there.
    public func files(makesDirectory: Bool) -> RegistryFiles {
        var files = options.files(environment, recordsShortName: false)
        let directory = splitPath(path).directory
        if makesDirectory { try? makePrivateDirectories(directory) }
        files.writable.append(directory)
        // The target of a link is replaced in its own directory.
        if let file = try? FileDescriptor.open(path, .pathOnly) { files.writable.append(splitPath(file.kernelPath).directory) }
        return files
    }
}
