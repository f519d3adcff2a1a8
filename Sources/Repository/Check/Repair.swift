package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// The parts of a repair that know no OCI. Each is atomic, and harmless where it is done twice or by two at once. Nothing of it needs the
// repository for itself but removing temporaries: what is set aside is not what its name says, and nobody can make use of it.
extension Repository {
    /// Takes an object that is damaged out of the way; see `setAside`.
    ///
    /// - Returns: where it is now; nil where the object is intact or missing.
    package func setAsideDamaged(_ id: ObjectID) throws(RepositoryError) -> ByteString? {
        let path = Layout.objectPath(id)
        guard try status(at: path) != nil, try !isIntact(id, reads: true) else { return nil }
        try requireWritable()
        guard let newPath = try setAside(path) else { return nil }
        // Another process may have stored an intact one just before: it gets its name back, unless there is a new one already.
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

    /// Takes an entry of `streams/` or `images/` that is no link, or leads to something that its name does not mean, out of the way.
    ///
    /// - Parameter path: relative to the repository.
    package func setAsideEntry(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        try requireWritable()
        return try setAside(path)
    }

    /// Writes the link of an image whose object is intact. Durable with the next `publish` or `sync`.
    package func linkImage(_ id: ObjectID) throws(RepositoryError) -> Bool {
        try beginStoring()
        defer { endStoring() }
        return try writeLink(Layout.images + "/" + ByteString(id.hex), to: Layout.objectPath(id))
    }

    /// Writes the link of a reference anew, to an entry of `streams/` or `images/`. Durable.
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

    /// Removes a link, durably: one that leads to nothing. Of anything else it is an error.
    ///
    /// - Parameter path: relative to the repository, below `streams/` or `images/`.
    package func removeLink(_ path: ByteString) throws(RepositoryError) {
        try requireWritable()
        guard try status(at: path)?.kind == .symbolicLink else { throw .invalidLink(path, .notRemovable) }
        try system { () throws(SystemError) in try root.unlink(at: path) }
        if let directory = Self.parents(of: path).last { try syncDirectory(directory) }
    }

    /// The objects that are here, ascending, whatever their content.
    package func objectIDs() throws(RepositoryError) -> [ObjectID] {
        var ids: [ObjectID] = []
        try forEachObject { (id, _, status) in
            if let id, status.kind == .regular { ids.append(id) }
        }
        return ids.sorted()
    }

    /// The first bytes of an object, for telling what it is.
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

    /// What interrupted operations left and a collection of garbage would remove.
    package func temporaries() throws(RepositoryError) -> [ByteString] {
        let own = activity.marker.withLock { $0.path }
        return try Inventory(self).temporaries.filter { $0 != own }
    }

    /// Removes what interrupted operations left. Needs the repository for itself and does not wait for that.
    ///
    /// - Returns: what was removed; nil if another process uses the repository and may need it.
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
            // As after a collection of garbage: the next object makes a new marker.
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
        // What the markers tell of must be durable before they go.
        if !all.isEmpty { try syncFileSystem() }
        for path in all where !path.hasPrefix(Layout.staging) { try system { () throws(SystemError) in try root.unlink(at: path) } }
        try Self.removeTree(Layout.staging, in: root)
        return all.filter { $0 != own }
    }
}
