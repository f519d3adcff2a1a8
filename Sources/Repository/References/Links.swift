internal import ComposefsBytes
internal import ComposefsLinuxSystem

extension Repository {
    /// How often a replacing link's temporary name is made up anew.
    private static let linkAttempts = 16

    /// Makes the symbolic link `name` that leads to `target` (both relative to the root). One that says the same already stays; another is
    /// replaced in one step. Returns whether anything changed. Durable only when its directory is synced.
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
            // What is there may be something else than a link: renaming replaces it, or says that it is a directory.
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

    /// Puts a new link in the place of what has the name, in one step.
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

    /// A link's target; nil where there is nothing of that name.
    func readLink(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        do throws(SystemError) {
            return try root.readLinkIfPresent(at: path)
        } catch {
            guard error.errno == .invalidArgument else { throw .system(error) }
            throw .invalidLink(path, "is no symbolic link")
        }
    }

    /// Makes the entries of a directory durable. A directory that does not exist has none. A failure is the end of what was written, as that
    /// of `sync` is.
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

    /// Every directory of a path's, outermost first: `a/b/c` gives `a`, `a/b`.
    static func parents(of path: ByteString) -> [ByteString] {
        path.bytes.indices.filter { path.bytes[$0] == UInt8(ascii: "/") }.map { ByteString(Array(path.bytes[..<$0])) }
    }
}
