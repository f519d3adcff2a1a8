internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem

extension Repository {
    /// How many temporary names are tried for a link that replaces another.
    private static let linkAttempts = 16

    /// Makes the symbolic link `name` that leads to `target` (both relative to the root). An equal link stays; another one is replaced in
    /// one step. Returns whether anything changed. Durable only when its directory is synced.
    @discardableResult
    func writeLink(_ name: ByteString, to target: ByteString) throws(RepositoryError) -> Bool {
        let (directories, text) = Layout.relativeLink(name, to: target)
        do throws(SystemError) {
            do throws(SystemError) {
                try root.symlink(target: text, at: name)
                return true
            } catch {
                switch error.errno {
                case .noEntry:
                    for directory in directories { try root.makeDirectoryIfMissing(at: directory, mode: 0o755) }
                    try root.symlink(target: text, at: name)
                    return true
                case .exists: break
                default: throw error
                }
            }
            // The existing entry may be no link: the rename replaces it, or fails with the error that it is a directory.
            if let status = try root.statusIfPresent(at: name), status.kind == .symbolicLink,
                try root.readLinkIfPresent(at: name) == text
            {
                return false
            }
        } catch {
            throw .system(error)
        }
        // No link can take a directory's place.
        if try status(at: name)?.kind == .directory { try setAside(name) }
        try system { () throws(SystemError) in try placeLink(text, at: name) }
        return true
    }

    /// Replaces the entry of this name by a new link, in one step.
    func placeLink(_ text: ByteString, at name: ByteString) throws(SystemError) {
        for _ in 0..<Self.linkAttempts {
            let temporary = Layout.symlinkPrefix + ByteString(Host.randomName(12))
            do throws(SystemError) {
                try root.symlink(target: text, at: temporary)
            } catch {
                guard error.errno == .exists else { throw error }
                continue
            }
            do throws(SystemError) {
                return try root.rename(at: temporary, to: name)
            } catch {
                try? root.unlink(at: temporary)
                throw error
            }
        }
        throw SystemError("create symlink", name, .exists)
    }

    /// A link's target; nil if there is no entry of that name.
    func readLink(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        do throws(SystemError) {
            return try root.readLinkIfPresent(at: path)
        } catch {
            guard error.errno == .invalidArgument else { throw .system(error) }
            throw .invalidLink(path, .notSymbolicLink)
        }
    }

    /// The object that a link leads to; nil if there is no entry of that name.
    func linkedObject(_ path: ByteString) throws(RepositoryError) -> ObjectID? {
        guard let target = try readLink(path) else { return nil }
        guard let id = Layout.objectID(ofTarget: target, algorithm) else {
            throw .invalidLink(path, .notObject(target: target, algorithm))
        }
        return id
    }

    /// Makes the entries of a directory durable. A directory that does not exist has none. A failure has the same consequences as one of
    /// `sync`: what was written is not relied on.
    func syncDirectory(_ path: ByteString) throws(RepositoryError) {
        do throws(RepositoryError) {
            try syncEntries(of: path)
        } catch {
            condemn()
            throw error
        }
    }

    func syncEntries(of path: ByteString) throws(RepositoryError) {
        try system { () throws(SystemError) in
            if let directory = try root.openIfPresent(at: path, [.readOnly, .directory]) { try directory.sync() }
        }
    }

    /// All parent directories of a path, outermost first: `a/b/c` gives `a`, `a/b`.
    static func parents(of path: ByteString) -> [ByteString] {
        path.bytes.indices.filter { path.bytes[$0] == UInt8(ascii: "/") }.map { ByteString(Array(path.bytes[..<$0])) }
    }
}
