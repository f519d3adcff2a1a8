internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream
internal import Synchronization

// Examines operations of other handles, finished or running, before anything is stored. Publication.swift explains why.
extension Repository {
    /// How far the clock may have been set back after a marker was made; older objects are relied on.
    static let clockMargin: Int64 = 3600

    /// What `recoverInterruptedPull` found.
    package enum Recovery: Hashable, Sendable {
        case nothing
        /// How many damaged objects were removed.
        case recovered(removed: Int)
        /// Another process uses the repository, so damaged objects cannot be removed. Each object is then read from the device before it is
        /// relied on.
        case busy
    }

    /// A marker whose handle has ended, locked so that no other process examines it.
    private final class AbandonedMarker: Sendable {
        let path: ByteString
        let time: Int64
        private let file: FileDescriptor

        init(path: ByteString, time: Int64, file: consuming FileDescriptor) {
            self.path = path
            self.time = time
            self.file = file
        }
    }

    /// Recovers from operations that ended without a successful sync: killed, failed, or stopped by a power cut.
    ///
    /// Their objects have names and the right sizes, and without fs-verity damaged content would be relied on from then on. Their markers
    /// record when they began: all objects from that time on are read from the device, and those whose content does not match their names
    /// are removed. Nothing refers to them, because streams and images get their names only after a successful sync. Links of that time are
    /// made again. After another sync the markers are removed, and the directories of other boots.
    ///
    /// Removing needs the repository's exclusive lock, but never waits for it. The handle must not have stored anything yet: it gives up
    /// its shared lock for a moment, and a garbage collection may run in between. `beginPull` calls this.
    package func recoverInterruptedPull() throws(RepositoryError) -> Recovery { try recoverInterruptedPull(only: nil) }

    /// - Parameter known: the markers of this boot to examine; nil for all.
    func recoverInterruptedPull(only known: Set<ByteString>?) throws(RepositoryError) -> Recovery {
        let current = stagingDirectory()
        let isKnownBoot = Host.bootID() != nil
        let directories = (try entries(of: Layout.staging) ?? []).map { Layout.staging + "/" + $0.name }
        let stale = directories.filter { $0 != current || !isKnownBoot }
        var abandoned: [AbandonedMarker] = []
        if isKnownBoot {
            for path in try markers(in: current) where known?.contains(path) ?? true {
                if let marker = try abandonedMarker(path) { abandoned.append(marker) }
            }
        }
        guard !stale.isEmpty || !abandoned.isEmpty else { return .nothing }
        try requireWritable()
        defer { withExtendedLifetime(abandoned) {} }
        let since = ([try earliestMarker(in: stale)] + abandoned.map(\.time)).compactMap(\.self).min()
        var damaged: [ObjectID] = []
        if let since {
            // Writes what is still dirty. A failure of this or an earlier sync is not relied on: the objects are read. That takes time, and
            // other handles may work meanwhile.
            try syncFileSystem()
            damaged = try damagedObjects(since: since)
        }
        let isAlone = try system { () throws(SystemError) in try root.lock(.exclusive, wait: false) }
        let outcome: Result<Recovery, RepositoryError>
        do throws(RepositoryError) {
            outcome = .success(try recover(damaged, since: since, stale, abandoned.map(\.path), isAlone: isAlone))
        } catch {
            outcome = .failure(error)
        }
        try backToShared()
        return try outcome.get()
    }

    private func recover(
        _ suspects: [ObjectID], since: Int64?, _ stale: [ByteString], _ abandoned: [ByteString], isAlone: Bool
    ) throws(RepositoryError) -> Recovery {
        guard isAlone || suspects.isEmpty && since != nil else { return .busy }
        // Another process may have replaced an object before the lock was taken.
        let damaged = try notIntact(suspects).filter(\.isPresent).map(\.id)
        if let since {
            try system { () throws(SystemError) in for id in damaged { try root.unlink(at: Layout.objectPath(id)) } }
            if isAlone { try renewLinks(since: since) }
            if !damaged.isEmpty { try dropStaged() }
            // Before the markers are removed: a power cut must not bring the damaged objects back without them.
            try syncFileSystem()
        }
        for directory in stale { try Self.removeTree(directory, in: root) }
        for path in abandoned { try? root.unlink(at: path) }
        try? root.removeDirectory(at: Layout.staging)
        return .recovered(removed: damaged.count)
    }

    /// Takes the shared lock again after an exclusive lock, or the attempt to get one: either loses it for a moment.
    func backToShared() throws(RepositoryError) {
        try system { () throws(SystemError) in
            if try !root.lock(.shared, wait: false) {
                options.willWait?()
                try root.lock(.shared, wait: true)
            }
        }
    }

    // MARK: Markers

    private func markers(in directory: ByteString) throws(RepositoryError) -> [ByteString] {
        (try entries(of: directory) ?? []).filter { $0.name.hasPrefix(Self.activePrefix) }.map { directory + "/" + $0.name }
    }

    func earliestMarker(in directories: [ByteString]) throws(RepositoryError) -> Int64? {
        var earliest: Int64?
        for directory in directories {
            for path in try markers(in: directory) {
                guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
                earliest = min(earliest ?? .max, status.mtimeSeconds)
            }
        }
        return earliest
    }

    /// Nil if its handle still exists, or the marker was removed.
    private func abandonedMarker(_ path: ByteString) throws(RepositoryError) -> AbandonedMarker? {
        try system { () throws(SystemError) in
            let opened: FileDescriptor?
            do throws(SystemError) {
                opened = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking])
            } catch {
                // A link or a socket is no marker of ours.
                guard [.tooManySymbolicLinks, .noDeviceOrAddress].contains(error.errno) else { throw error }
                return nil
            }
            guard let file = opened, try file.lock(.exclusive, wait: false) else { return nil }
            let status = try file.status()
            // The handle may have removed it between our opening and locking it.
            guard let named = try root.statusIfPresent(at: path), named.inode == status.inode, named.device == status.device else {
                return nil
            }
            return AbandonedMarker(path: path, time: status.mtimeSeconds, file: file)
        }
    }

    /// Looks for other handles that are storing, before the first operation of this handle.
    func lookAtOthers() throws(RepositoryError) {
        var others: [Activity.Other] = []
        for path in try markers(in: stagingDirectory()) {
            guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
            others.append(Activity.Other(path: path, time: status.mtimeSeconds))
        }
        activity.others.withLock { $0 = others }
        activity.hasOthers.store(!others.isEmpty, ordering: .sequentiallyConsistent)
    }

    /// Removes markers that appeared after this handle looked for others, and whose handles have ended: the next successful sync of this
    /// handle covers what they wrote.
    func abandonedMarkers() throws(RepositoryError) -> [ByteString] {
        let known = Set(activity.others.withLock { $0.map(\.path) })
        var found: [ByteString] = []
        for path in try markers(in: stagingDirectory()) where !known.contains(path) {
            if let marker = try abandonedMarker(path) { found.append(marker.path) }
        }
        return found
    }

    func removeMarkers(_ paths: [ByteString]) {
        for path in paths { try? root.unlink(at: path) }
    }

    // MARK: Objects and links of that time

    /// Every object since a time whose content on the device does not match its name.
    private func damagedObjects(since: Int64) throws(RepositoryError) -> [ObjectID] {
        let limit = since.subtractingReportingOverflow(Self.clockMargin).partialValue
        var ids: [ObjectID] = []
        try forEachObject { (id, _, status) in
            if let id, max(status.mtimeSeconds, status.ctimeSeconds) >= limit { ids.append(id) }
        }
        return try notIntact(ids).filter { $0.isPresent }.map(\.id)
    }

    /// The objects whose content on the device does not match their names, and those that are missing.
    private func notIntact(_ ids: [ObjectID]) throws(RepositoryError) -> [(id: ObjectID, isPresent: Bool)] {
        let found = parallelMap(ids, threads: Host.processorCount) { id -> Result<Bool?, RepositoryError> in
            do throws(RepositoryError) { return .success(try self.isIntactOnDevice(id)) } catch { return .failure(error) }
        }
        var faulty: [(id: ObjectID, isPresent: Bool)] = []
        for (id, result) in zip(ids, found) {
            switch try result.get() {
            case true?: break
            case false?: faulty.append((id, true))
            case nil: faulty.append((id, false))
            }
        }
        return faulty
    }

    /// Whether an object's content on the device matches its name; nil if there is no such object.
    func isIntactOnDevice(_ id: ObjectID) throws(RepositoryError) -> Bool? {
        do throws(SystemError) {
            let file = try root.openOnDevice(at: Layout.objectPath(id))
            if isSecure, try measuredVerity(file) != id { return false }
            var hasher = VerityHasher(id.algorithm)
            try file.readFromDevice { hasher.update($0) }
            return hasher.finalize() == id
        } catch {
            switch error.errno {
            case .noEntry: return nil
            // The disk has lost the block, or the kernel finds that the content does not match the Merkle tree; or it is no regular file.
            case .inputOutput, .badMessage, .invalidArgument, .tooManySymbolicLinks: return false
            // The object lacks the signature that the kernel requires, or has a wrong one. The kernel does not return the content to any
            // process, so it cannot be relied on by mistake. Storing it again with a signature replaces it.
            case .notPermitted, .noKey, .keyRejected, .noPackage:
                guard isSecure else { throw RepositoryError(error) }
                return true
            default: throw RepositoryError(error)
            }
        }
    }

    /// What a failed sync of a directory has lost stays in the cache. Only writing the links again brings them to the disk.
    ///
    /// - Parameter since: the time of a marker.
    func renewLinks(since: Int64) throws(RepositoryError) {
        let limit = since.subtractingReportingOverflow(Self.clockMargin).partialValue
        var links: [ByteString] = []
        for category in [Layout.streams, Layout.images] {
            try walkReferences(category) { (path, kind) in if kind == .symbolicLink { links.append(path) } }
        }
        for path in links {
            guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }), status.kind == .symbolicLink,
                max(status.mtimeSeconds, status.ctimeSeconds) >= limit, let text = try readLink(path)
            else { continue }
            try system { () throws(SystemError) in try placeLink(text, at: path) }
            // The new link tells, as the old one did, when the name was used last.
            try? root.setTime(at: path, seconds: status.mtimeSeconds, nanoseconds: status.mtimeNanoseconds)
        }
    }

    /// Removes staged streams: some of their objects are lost, so they are fetched again.
    private func dropStaged() throws(RepositoryError) {
        let directory = stagingDirectory()
        for entry in try entries(of: directory) ?? [] where !entry.name.hasPrefix(Self.activePrefix) && entry.kind != .directory {
            try system { () throws(SystemError) in try root.unlink(at: directory + "/" + entry.name) }
        }
    }

    // MARK: Objects of other handles

    /// Records that an object which another handle may have stored is used. See `proveReused`.
    func noteReuse(of id: ObjectID) {
        guard activity.hasOthers.load(ordering: .relaxed) else { return }
        activity.reused.withLock { _ = $0.objects.insert(id) }
    }

    /// Whether a staged stream may be used, with all objects that it refers to.
    func mayReuse(stream id: ObjectID) throws(RepositoryError) -> Bool {
        if activity.distrustsObjects.load(ordering: .relaxed) {
            guard try isIntactOnDevice(id) == true else { return false }
            return try notIntact(Array(objects(ofStream: id))).isEmpty
        }
        if activity.hasOthers.load(ordering: .relaxed) { activity.reused.withLock { _ = $0.streams.insert(id) } }
        return true
    }

    private func objects(ofStream id: ObjectID) throws(RepositoryError) -> Set<ObjectID> {
        let stream = try openStream(id)
        return Set(stream.objectReferences).union(stream.namedReferences.map(\.id))
    }

    /// After a successful sync, before publication: proves that the objects of earlier handles which this handle uses are on the disk. They
    /// are if the markers of those handles were removed; otherwise they are read from the device.
    func proveReused() throws(RepositoryError) {
        guard activity.hasOthers.load(ordering: .sequentiallyConsistent) else { return }
        let known = activity.others.withLock { $0 }
        let left = try system { () throws(SystemError) in
            var left: [Activity.Other] = []
            for other in known where try root.statusIfPresent(at: other.path) != nil { left.append(other) }
            return left
        }
        if let since = left.map(\.time).min() {
            let limit = since.subtractingReportingOverflow(Self.clockMargin).partialValue
            let (reused, streams) = activity.reused.withLock { ($0.objects, $0.streams) }
            var ids = reused.union(streams)
            for stream in streams { ids.formUnion(try objects(ofStream: stream)) }
            var recent: [ObjectID] = []
            for id in ids.sorted() {
                let status = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objectPath(id)) }
                if let status, max(status.mtimeSeconds, status.ctimeSeconds) < limit { continue }
                recent.append(id)
            }
            if let lost = try notIntact(recent).first {
                distrustObjects()
                throw .objectDamaged(lost.id, .lost)
            }
        }
        activity.others.withLock { $0 = left }
        activity.hasOthers.store(!left.isEmpty, ordering: .sequentiallyConsistent)
        activity.reused.withLock { $0 = Activity.Reused() }
    }

    /// After a failed sync of this handle: whether everything that a publication refers to still exists. Recovery may have removed objects
    /// that another thread of this handle has stored.
    func checkComplete(_ publication: Publication) throws(RepositoryError) {
        guard activity.wasCondemned.load(ordering: .sequentiallyConsistent) else { return }
        var ids = Set(publication.images)
        for id in publication.images where try objectSize(id) != nil { ids.formUnion(try imageObjects(id)) }
        for (_, id) in publication.streams {
            ids.insert(id)
            if try objectSize(id) != nil { ids.formUnion(try objects(ofStream: id)) }
        }
        for id in ids.sorted() where try objectSize(id) == nil { throw .objectMissing(id) }
    }
}
