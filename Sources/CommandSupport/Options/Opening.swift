import ComposefsLinuxSystem
package import ComposefsOCI

extension GlobalOptions {
    /// The existing repository that the options name.
    ///
    /// - Parameter checksOwner: refuse at once a repository that another user could change, and not only when something is written.
    package func openStore(
        readOnly: Bool = false, upgradeOldFormat: Bool = false, signer: (any VeritySigner)? = nil, checksOwner: Bool = true,
        wait: LockWait = .forever
    ) throws -> Store {
        let path = try repositoryPath()
        do {
            let store = try Store.open(path, openOptions(readOnly: readOnly, upgradeOldFormat: upgradeOldFormat, signer, wait))
            if checksOwner, !readOnly { try store.repository.requireTrustedOwner() }
            if signer != nil { warnOfUncheckedSignatures() }
            return store
        } catch let error as RepositoryError {
            throw hint(error, path)
        }
    }

    /// Opens the repository for a command that only leaves hints or leases in it. One from before `meta.json` is opened for reading only.
    package func openStoreUnchanged() throws -> Store {
        do {
            return try openStore(checksOwner: false)
        } catch let error as RepositoryError {
            guard case .oldFormat = error else { throw error }
            return try openStore(readOnly: true)
        }
    }

    /// Opens the repository or makes it, which it reports.
    package func openOrCreateStore(signer: (any VeritySigner)? = nil) throws -> Store {
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
