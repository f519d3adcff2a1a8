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
    ) throws -> Store {
        let path = try repositoryPath()
        let (store, created) = try Store.openOrCreate(
            path, RepositoryConfiguration(verity: needsVerity ? .required : .automatic), openOptions(readOnly: false, signer))
        // Checked before anything is downloaded.
        try store.repository.requireTrustedOwner()
        if signer != nil { warnOfUncheckedSignatures() }
        if created {
            note(
                "made a repository at \(path), \(store.repository.isSecure ? "with fs-verity" : "without fs-verity: the file system has none")"
            )
        }
        try confine(rights, repository: path, adjust)
        return store
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
        CommandError("\(path): no repository there; `cfsoci init \(path)` makes one, and so does `cfsoci pull`")
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
