package import ComposefsConfinement
import ComposefsLinuxSystem
package import ComposefsOCI

extension GlobalOptions {
    /// The existing repository that the options name. Then confines the process.
    ///
    /// - Parameters:
    ///   - rights: what the command keeps; nil does not confine the process.
    ///   - checksOwner: refuse at once a repository that another user could change, and not only when something is written.
    ///   - adjust: adds to the confinement what the arguments name.
    package func openStore(
        _ rights: CommandRights?, readOnly: Bool = false, upgradeOldFormat: Bool = false, signer: (any VeritySigner)? = nil,
        checksOwner: Bool = true,
        wait: LockWait = .forever, _ adjust: (inout Confinement) throws -> Void = { _ in }
    ) throws -> Store {
        let path = try repositoryPath()
        let store: Store
        do {
            store = try Store.open(path, openOptions(readOnly: readOnly, upgradeOldFormat: upgradeOldFormat, signer, wait))
            if checksOwner, !readOnly { try store.repository.requireTrustedOwner() }
            if signer != nil { warnOfUncheckedSignatures() }
        } catch let error as RepositoryError {
            throw hint(error, path)
        }
        if let rights { try confine(rights, repository: path, adjust) }
        return store
    }

    /// Opens the repository for a command that only leaves hints or leases in it. One from before `meta.json` is opened for reading only. Then
    /// confines the process, as `openStore` does.
    package func openStoreUnchanged(
        _ rights: CommandRights?, _ adjust: (inout Confinement) throws -> Void = { _ in }
    ) throws -> Store {
        try unchanged { isReadOnly in
            try isReadOnly ? openStore(rights, readOnly: true, adjust) : openStore(rights, checksOwner: false, adjust)
        }
    }

    /// Opens the repository or makes it, which it reports. Then confines the process, as `openStore` does.
    package func openOrCreateStore(
        _ rights: CommandRights, signer: (any VeritySigner)? = nil, _ adjust: (inout Confinement) throws -> Void = { _ in }
    ) throws -> OpenedStore {
        let path = try repositoryPath()
        try requireOwnDirectory(path, hint: "`cfsoci init --force \(Output.printable(path))` makes a repository there all the same")
        let missing = Self.missingDirectories(of: path)
        let (store, created) = try Store.openOrCreate(
            path, RepositoryConfiguration(verity: needsVerity ? .required : .automatic), openOptions(readOnly: false, signer))
        let opened = OpenedStore(store: store, isNew: created, made: created ? missing : [])
        do {
            // Checked before anything is downloaded.
            try store.repository.requireTrustedOwner()
            if signer != nil { warnOfUncheckedSignatures() }
            if created {
                note(
                    "made a repository at \(path), \(store.repository.isSecure ? "with fs-verity" : "without fs-verity: the file system has none")"
                )
            }
            try confine(rights, repository: path) { confinement in
                try adjust(&confinement)
                // What was made is removed again if the command fails.
                if let first = opened.made.first { confinement.removable.append(FileDescriptor.split(first).directory) }
            }
        } catch {
            opened.undo(keepsContent: false)
            throw error
        }
        return opened
    }

    /// Refuses a directory with files that are not those of a repository.
    ///
    /// - Parameter hint: what to do if it is meant.
    package func requireOwnDirectory(_ path: ByteString, hint: String) throws {
        guard let name = try Repository.foreignEntry(of: path) else { return }
        throw CommandError(
            "\(Output.printable(path)): the directory is not empty and no repository: it has \"\(Output.printable(name))\"; \(hint)",
            code: .notEmpty)
    }

    /// The directories on the way to a path that do not exist, the outermost first.
    private static func missingDirectories(of path: ByteString) -> [ByteString] {
        var missing: [ByteString] = []
        var path = path
        while !path.isEmpty, (try? FileDescriptor.currentDirectory.statusIfPresent(at: path, follow: true)) == .some(nil) {
            missing.append(path)
            let parent = FileDescriptor.split(path).directory
            guard parent != path, parent.count < path.count else { break }
            path = parent
        }
        return missing.reversed()
    }

    package func openOptions(
        readOnly: Bool, upgradeOldFormat: Bool = false, _ signer: (any VeritySigner)? = nil, _ wait: LockWait = .forever
    ) -> OpenOptions {
        let note = noteTaker
        return OpenOptions(
            requireVerity: needsVerity, upgradeOldFormat: upgradeOldFormat, readOnly: readOnly,
            willWait: { note("waiting for another process that uses the repository") }, signer: signer, trustsOwner: trustsOwner,
            wait: wait)
    }

    private func noRepository(_ path: ByteString) -> CommandError {
        CommandError("\(path): no repository there; `cfsoci init \(path)` makes one, and so does `cfsoci pull`", code: .noSuchRepository)
    }

    private func hint(_ error: RepositoryError, _ path: ByteString) -> any Error {
        switch error {
        case .notInitialized: return noRepository(path)
        case .system(let system) where system.errno == .noEntry:
            return noRepository(path)
        default: return error
        }
    }
}

/// A repository that a command has opened or made.
package struct OpenedStore {
    package var store: Store
    package var isNew: Bool
    /// The directories that were made for it, the outermost first.
    var made: [ByteString]

    /// Removes the repository if this command has made it and no image was stored. Failures are ignored: the command's own error is reported.
    ///
    /// - Parameter keepsContent: whether what was stored is of use to the next attempt; then only an empty repository is removed.
    package func undo(keepsContent: Bool) {
        guard isNew, (try? store.repository.removeUnused(keepsContent: keepsContent)) == true else { return }
        for directory in made.reversed() { try? FileDescriptor.currentDirectory.removeDirectory(at: directory) }
    }
}

extension Store {
    /// Opens a repository for a command that only leaves hints or leases in it. One from before `meta.json` is opened for reading only.
    package static func openUnchanged(_ path: ByteString, _ options: OpenOptions) throws -> Store {
        try unchanged { isReadOnly in
            var options = options
            if isReadOnly { options.readOnly = true }
            return try open(path, options)
        }
    }
}

/// Opens a repository, and one from before `meta.json` again for reading only.
private func unchanged(_ open: (_ isReadOnly: Bool) throws -> Store) throws -> Store {
    do {
        return try open(false)
    } catch let error as RepositoryError {
        guard case .oldFormat = error else { throw error }
        return try open(true)
    }
}
