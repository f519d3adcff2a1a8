package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// The parts of a repair that do not depend on OCI. Each is atomic and idempotent, and two processes may do it at the same time. Only removing
// temporary files needs the exclusive lock: a file that is set aside has content that does not match its name, so no process can use it.
extension Repository {
    /// Sets a damaged object aside; see `setAside`.
    ///
    /// - Returns: its new path; nil if the object is intact or missing.
    package func setAsideDamaged(_ id: ObjectID) throws(RepositoryError) -> ByteString? {
        let path = Layout.objectPath(id)
        guard try status(at: path) != nil, try !isIntact(id, reads: true) else { return nil }
        try requireWritable()
        guard let newPath = try setAside(path) else { return nil }
        // Another process may just have stored an intact object: it gets its name back, unless the name exists again.
        let isGood = try isGood(at: newPath, id)
        if isGood {
            try system { () throws(SystemError) in
                do throws(SystemError) {
                    try root.link(at: newPath, to: path)
                } catch {
                    guard error.errno == .exists else { throw error }
                }
                try root.unlink(at: newPath)
            }
            return nil
        }
        return newPath
    }

    private func isGood(at path: ByteString, _ id: ObjectID) throws(RepositoryError) -> Bool {
        guard try status(at: path)?.kind == .regular else { return false }
        do throws(SystemError) {
            let file = try root.open(at: path, [.readOnly, .noFollow, .nonBlocking])
            if isSecure, try measuredVerity(file) != id { return false }
            return try hash(file, id.algorithm) == id
        } catch {
            guard Self.isLost(error) else { throw RepositoryError(error) }
            return false
        }
    }

    /// Sets an entry of `streams/` or `images/` aside that is not a symbolic link, or leads to another object than its name requires.
    ///
    /// - Parameter path: relative to the repository.
    package func setAsideEntry(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        try requireWritable()
        return try setAside(path)
    }

    /// Creates the link of an image with an intact object. It is durable after the next `publish` or `sync`.
    package func linkImage(_ id: ObjectID) throws(RepositoryError) -> Bool {
        try beginStoring()
        defer { endStoring() }
        return try writeLink(Layout.images + "/" + ByteString(id.hex), to: Layout.objectPath(id))
    }

    /// Replaces the link of a reference by one to an entry of `streams/` or `images/`, durably.
    ///
    /// - Parameter path: relative to the repository.
    package func relink(_ path: ByteString, to entry: ByteString) throws(RepositoryError) {
        let category = path.hasPrefix(Layout.streamReferences) ? Layout.streams : Layout.images
        try requireWritable()
        try beginStoring()
        defer { endStoring() }
        try writeLink(path, to: category + "/" + entry)
        // The link, and the directories that were missing.
        for directory in Self.parents(of: path).reversed() { try syncDirectory(directory) }
    }

    /// Removes a dangling link, durably. Any other file is an error.
    ///
    /// - Parameter path: relative to the repository, below `streams/` or `images/`.
    package func removeLink(_ path: ByteString) throws(RepositoryError) {
        try requireWritable()
        guard try status(at: path)?.kind == .symbolicLink else { throw .invalidLink(path, .notRemovable) }
        try system { () throws(SystemError) in try root.unlink(at: path) }
        if let directory = Self.parents(of: path).last { try syncDirectory(directory) }
    }

    /// All objects in ascending order, intact or not.
    package func objectIDs() throws(RepositoryError) -> [ObjectID] {
        var ids: [ObjectID] = []
        try forEachObject { (id, _, status) in
            if let id, status.kind == .regular { ids.append(id) }
        }
        return ids.sorted()
    }

    /// The first bytes of an object, which show its format.
    package func beginning(of id: ObjectID, _ count: Int) throws(RepositoryError) -> [UInt8] {
        let file = try openForReading(id, at: Layout.objectPath(id))
        return try system { () throws(SystemError) in
            try withTemporaryBuffer { (buffer) throws(SystemError) in
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(count, buffer.count)])
                let got = try file.preadFully(into: part, at: 0)
                return Array(part[..<got])
            }
        }
    }

    /// Temporary files of interrupted operations, which a garbage collection would remove.
    package func temporaries() throws(RepositoryError) -> [ByteString] {
        let own = activity.marker.withLock { $0.path }
        return try Inventory(self).temporaries.filter { $0 != own }
    }

    /// Removes the temporary files of interrupted operations. It needs the exclusive lock, for which it does not wait.
    ///
    /// - Returns: the removed files; nil if another process uses the repository and may need them.
    package func removeTemporaries() throws(RepositoryError) -> [ByteString]? {
        try requireWritable()
        return try activity.marker.withLock { (marker) throws(RepositoryError) -> [ByteString]? in
            guard activity.storing.load(ordering: .sequentiallyConsistent) == 0 else { return nil }
            let isAlone = try system { () throws(SystemError) in try root.lock(.exclusive, wait: false) }
            let outcome: Result<[ByteString]?, RepositoryError>
            do throws(RepositoryError) {
                outcome = .success(isAlone ? try removeTemporariesAlone(without: marker.path) : nil)
            } catch {
                outcome = .failure(error)
            }
            try backToShared()
            guard isAlone else { return nil }
            // As after a garbage collection: the next object creates a new marker.
            marker = Activity.Marker()
            activity.hasBegun.store(false, ordering: .sequentiallyConsistent)
            return try outcome.get()
        }
    }

    private func removeTemporariesAlone(without own: ByteString?) throws(RepositoryError) -> [ByteString] {
        let all = try Inventory(self).temporaries
        if let since = try earliestMarker(in: (try entries(of: Layout.staging) ?? []).map { Layout.staging + "/" + $0.name }) {
            try renewLinks(since: since)
        }
        // What the markers record must be durable before they are removed.
        if !all.isEmpty { try syncFileSystem() }
        for path in all where !path.hasPrefix(Layout.staging) { try system { () throws(SystemError) in try root.unlink(at: path) } }
        try Self.removeTree(Layout.staging, in: root)
        return all.filter { $0 != own }
    }
}
