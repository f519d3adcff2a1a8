import ComposefsLinuxSystem
package import ComposefsOCI

extension GlobalOptions {
    /// The existing repository that the options name.
    ///
    /// - Parameter checksOwner: refuses at once what another user could change, instead of when something is written.
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

    /// Opens the repository or makes it, and says so.
    package func openOrCreateStore(signer: (any VeritySigner)? = nil) throws -> Store {
        let path = try repositoryPath()
        let (store, created) = try Store.openOrCreate(
            path, RepositoryConfiguration(verity: needsVerity ? .required : .automatic), openOptions(readOnly: false, signer))
        // Before anything is downloaded.
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

    private func hint(_ error: RepositoryError, _ path: ByteString) -> any Error {
        switch error {
        case .notInitialized: return CommandError("\(path): no repository there; `cfsoci init \(path)` makes one, `cfsoci pull` too")
        case .system(let system) where system.errno == .noEntry:
            return CommandError("\(path): no repository there; `cfsoci init \(path)` makes one, `cfsoci pull` too")
        default: return error
        }
    }
}
