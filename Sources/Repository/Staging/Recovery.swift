internal import ComposefsBytes
internal import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream
internal import Synchronization

// Looking into what others left or are at, before anything is stored. The rules are in Publication.swift.
extension Repository {
    /// A marker's clock may have been set back later by as much as this; older objects are believed.
    static let clockMargin: Int64 = 3600

    /// What `recoverInterruptedPull` found.
    package enum Recovery: Hashable, Sendable {
        case nothing
        /// So many damaged objects were removed.
        case recovered(removed: Int)
        /// Another process uses the repository, so what is damaged cannot be removed. Storing then reads every object from the device before it
        /// believes it.
        case busy
    }

    /// A marker whose handle is gone, locked: nobody else looks into it meanwhile.
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

    /// Deals with operations that ended without a sync that is known to have succeeded: killed, failed, or cut off with the machine's power.
    ///
    /// What they stored has names and right sizes, and without fs-verity a wrong content of the right size would be taken for the object
    /// for ever after. Their markers tell since when: all objects from that time on are read from the device, and those that are not what
    /// their names say are removed. Nothing refers to them: streams and images get their names only after a good sync. Links of that time
    /// are made anew. Then, after another sync, the markers go, and whole directories of other boots.
    ///
    /// Removing needs the repository for itself, but never waits for it. The handle must not have stored anything yet: it gives up its shared lock
    /// for a moment, and a garbage collection may come in between. `beginPull` calls this.
    package func recoverInterruptedPull() throws(RepositoryError) -> Recovery { try recoverInterruptedPull(only: nil) }

    /// - Parameter known: the markers of this boot to look at; nil for all.
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
            // What is still dirty is written now. Whether that, or anything before, has failed is not believed but looked at. It takes its time,
            // and others may work meanwhile.
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
        // Somebody may have replaced one before the lock was there.
        let damaged = try notIntact(suspects).filter(\.isPresent).map(\.id)
        if let since {
            try system { () throws(SystemError) in for id in damaged { try root.unlink(at: Layout.objectPath(id)) } }
            if isAlone { try renewLinks(since: since) }
            if !damaged.isEmpty { try dropStaged() }
            // Before the markers go: a power cut must not bring the damaged objects back without them.
            try syncFileSystem()
        }
        for directory in stale { try Self.removeTree(directory, in: root) }
        for path in abandoned { try? root.unlink(at: path) }
        try? root.removeDirectory(at: Layout.staging)
        return .recovered(removed: damaged.count)
    }

    /// After an exclusive lock, or the attempt to get one: either loses the shared lock for a moment.
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

    /// Nil where its handle lives, or it is gone.
    private func abandonedMarker(_ path: ByteString) throws(RepositoryError) -> AbandonedMarker? {
        try system { () throws(SystemError) in
            let opened: FileDescriptor?
            do throws(SystemError) {
                opened = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking])
            } catch {
                // A link or a socket: nobody's marker.
                guard [.tooManySymbolicLinks, .noDeviceOrAddress].contains(error.errno) else { throw error }
                return nil
            }
            guard let file = opened, try file.lock(.exclusive, wait: false) else { return nil }
            let status = try file.status()
            // Its handle may have removed it between our opening and locking it.
            guard let named = try root.statusIfPresent(at: path), named.inode == status.inode, named.device == status.device else {
                return nil
            }
            return AbandonedMarker(path: path, time: status.mtimeSeconds, file: file)
        }
    }

    /// At a handle's first operation: who else is storing.
    func lookAtOthers() throws(RepositoryError) {
        var others: [Activity.Other] = []
        for path in try markers(in: stagingDirectory()) {
            guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
            others.append(Activity.Other(path: path, time: status.mtimeSeconds))
        }
        activity.others.withLock { $0 = others }
        activity.hasOthers.store(!others.isEmpty, ordering: .sequentiallyConsistent)
    }

    /// Markers that appeared after this handle looked around, and whose handles are gone: what those wrote the next good sync of this handle
    /// covers.
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

    /// Every object of a time on whose content on the device is not what its name says.
    private func damagedObjects(since: Int64) throws(RepositoryError) -> [ObjectID] {
        let limit = since.subtractingReportingOverflow(Self.clockMargin).partialValue
        var ids: [ObjectID] = []
        try forEachObject { (id, _, status) in
            if let id, max(status.mtimeSeconds, status.ctimeSeconds) >= limit { ids.append(id) }
        }
        return try notIntact(ids).filter { $0.isPresent }.map(\.id)
    }

    /// Those of some objects that the device does not have as their names say; missing ones too.
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

    /// Whether the device has an object's content as its name says; nil where there is no such object.
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
            // The disk has lost the block, or the kernel finds that it is not what the Merkle tree says; or it is no regular file.
            case .inputOutput, .badMessage, .invalidArgument, .tooManySymbolicLinks: return false
            // The kernel wants a signature that the object has not, or not a right one: it gives the content to no one, so nothing can
            // take it for good. Whoever stores it again, signed, replaces it.
            case .notPermitted, .noKey, .keyRejected, .noPackage:
                guard isSecure else { throw RepositoryError(error) }
                return true
            default: throw RepositoryError(error)
            }
        }
    }

    /// What a directory's failed sync has lost stays in the cache as if it were there: writing the links anew is what brings them to the disk.
    ///
    /// - Parameter since: as a marker tells it.
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
        }
    }

    /// What is staged was made of objects of which some are lost: it is fetched again.
    private func dropStaged() throws(RepositoryError) {
        let directory = stagingDirectory()
        for entry in try entries(of: directory) ?? [] where !entry.name.hasPrefix(Self.activePrefix) && entry.kind != .directory {
            try system { () throws(SystemError) in try root.unlink(at: directory + "/" + entry.name) }
        }
    }

    // MARK: What others have stored

    /// Notes that an object which somebody else may have stored is made use of. See `proveReused`.
    func noteReuse(of id: ObjectID) {
        guard activity.hasOthers.load(ordering: .relaxed) else { return }
        activity.reused.withLock { _ = $0.objects.insert(id) }
    }

    /// Whether a staged stream may be made use of, with all that it leads to.
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

    /// After a good sync, before anything is published: what others have stored that were at work before this handle, and that this handle has
    /// made use of, is on the disk. It is where their markers are gone; else it is read from the device.
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
                throw .objectDamaged(lost.id, "another program stored it, and the disk has lost it")
            }
        }
        activity.others.withLock { $0 = left }
        activity.hasOthers.store(!left.isEmpty, ordering: .sequentiallyConsistent)
        activity.reused.withLock { $0 = Activity.Reused() }
    }

    /// Where a sync of this handle has failed before: that everything a publication leads to is still there. What its recovery has removed was
    /// stored by somebody who may not know of it.
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

    /// Every file below `objects/XX`: its identifier (nil where the name is none), path, and status.
    func forEachObject(
        _ body: (ObjectID?, ByteString, FileStatus) throws(RepositoryError) -> Void
    ) throws(RepositoryError) {
        for index in 0...255 {
            let directory = Layout.objects + "/" + ByteString(Hex.encode(CollectionOfOne(UInt8(truncatingIfNeeded: index))))
            // What is no directory holds no objects; fsck tells of it.
            guard try status(at: directory)?.kind == .directory else { continue }
            for entry in try entries(of: directory) ?? [] {
                let path = directory + "/" + entry.name
                guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
                try body(Layout.objectID(first: UInt8(truncatingIfNeeded: index), rest: entry.name, algorithm), path, status)
            }
        }
    }
}
