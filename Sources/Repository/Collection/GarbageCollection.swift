public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
internal import ComposefsLinuxSystem
internal import ComposefsSplitStream
internal import Synchronization

/// The result of a garbage collection, or what it would remove.
public struct GarbageReport: Hashable, Sendable {
    public var objectsRemoved = 0
    /// The size of the removed objects in bytes.
    public var bytesRemoved: UInt64 = 0
    public var streamsRemoved = 0
    public var imagesRemoved = 0
    /// Temporary files of interrupted operations.
    public var temporariesRemoved = 0
    /// Dangling references. They are kept.
    public var danglingReferences: [ByteString] = []
    /// Images without references that are kept because they are in use, in ascending order.
    public var imagesInUse: [ImageInUse] = []
    /// Images that no reference keeps, and that stay because one of `unidentifiedMounts` may need them, ascending.
    public var imagesKeptForMounts: [ObjectID] = []
    /// Mounts whose image cannot be told; empty if nothing is kept because of them.
    public var unidentifiedMounts: [UnidentifiedMount] = []
    /// The names in `streams/` of `streamsRemoved`, ascending.
    public var streamNamesRemoved: [ByteString] = []

    public init() {}
}

/// An image that is in use, with its uses.
public struct ImageInUse: Hashable, Sendable {
    public var id: ObjectID
    public var uses: [ImageUse]

    public init(id: ObjectID, uses: [ImageUse]) {
        self.id = id
        self.uses = uses
    }
}

extension Repository {
    /// Removes every object, stream and image that is neither referenced nor in use, and temporary files of interrupted operations.
    ///
    /// Like references, images that are mounted, booted or deployed, or that a boot entry names, are roots, together with the streams of the manifests
    /// and configs that refer to them: see `imageUses`. A dangling reference is reported and keeps nothing. A root that cannot be read is an error, and
    /// nothing is removed, because the objects that it keeps are unknown.
    ///
    /// Waits until no other handle is open, in this process or another. No image can be mounted between the determination of the uses and
    /// the removal: a process that mounts holds the repository's shared lock from before it looks up the image until the kernel's mount table
    /// shows the mount or a lease is written (`lease`). The exclusive lock is taken either after that, or before the process looks up the image.
    ///
    /// - Parameters:
    ///   - dryRun: only report what would be removed. No exclusive lock is taken, so objects that other handles are storing count as garbage.
    ///   - extraRoots: names in `streams/` or `images/` that are kept too; unknown names keep nothing.
    ///   - wait: how long to wait for other handles.
    ///   - cancellation: ends the waiting. A collection that has begun is completed.
    ///   - willWait: called once before waiting for other handles.
    /// - Throws: `RepositoryError.busy` if other handles are still open after the time limit; `.cancelled`; `.unknownUse` if the image of a mount
    ///   or lease cannot be identified; `.system` if /proc does not show which images are in use.
    public func collectGarbage(
        dryRun: Bool = false, extraRoots: [ByteString] = [], wait: LockWait = .forever, cancellation: Cancellation = Cancellation(),
        willWait: (@Sendable () -> Void)? = nil
    ) throws(RepositoryError) -> GarbageReport {
        if dryRun { return try planCollection(extraRoots: extraRoots, without: []) }
        try requireWritable()
        return try activity.marker.withLock { (marker) throws(RepositoryError) in
            guard activity.storing.load(ordering: .sequentiallyConsistent) == 0 else {
                throw .readOnly(.storing)
            }
            try lockAlone(wait, cancellation, willWait)
            let own = marker.path
            let outcome: Result<GarbageReport, RepositoryError>
            do throws(RepositoryError) {
                let plan = try planCollection(extraRoots, own)
                try execute(plan)
                outcome = .success(plan.report)
            } catch {
                outcome = .failure(error)
            }
            // In any case: other handles must not wait until this one closes.
            try backToShared()
            // The next object stored creates a new marker. The old one was removed with the staging directory, or remains without its lock if the
            // collection failed.
            marker = Activity.Marker()
            activity.hasBegun.store(false, ordering: .sequentiallyConsistent)
            let report = try outcome.get()
            activity.isUnsynced.store(false, ordering: .sequentiallyConsistent)
            return report
        }
    }

    /// What a collection would remove without these references (whole paths, `streams/refs/…`).
    package func planCollection(extraRoots: [ByteString] = [], without: Set<ByteString>) throws(RepositoryError) -> GarbageReport {
        let own = activity.marker.withLock { $0.path }
        return try planCollection(extraRoots, own, without: without).report
    }

    /// What would go, and which objects.
    func planGarbage() throws(RepositoryError) -> (report: GarbageReport, objects: [ObjectID]) {
        let own = activity.marker.withLock { $0.path }
        let plan = try planCollection([], own)
        return (plan.report, plan.objects)
    }

    // MARK: Plan

    private struct Collection {
        var report = GarbageReport()
        var links: [ByteString] = []
        var objects: [ObjectID] = []
        var temporaries: [ByteString] = []
        /// The names of leases that no process holds.
        var leases: Set<ByteString> = []
    }

    private func planCollection(
        _ extraRoots: [ByteString], _ ownMarker: ByteString?, without: Set<ByteString> = []
    ) throws(RepositoryError) -> Collection {
        var inventory = try Inventory(self)
        // The objects that its links keep are unknown.
        if let (path, kind) = inventory.notDirectories.first {
            throw .unreadableRoot(path, .notDirectory(kind))
        }
        // Under the exclusive lock, no image is mounted meanwhile; see `collectGarbage`.
        let uses = try imageUses()
        if let unknown = uses.unknown.first { throw .unknownUse(unknown.path, unknown.fault) }
        if !without.isEmpty { inventory.streamReferences.removeAll { without.contains($0.path) } }
        var plan = Collection()
        let live = try liveObjects(inventory, extraRoots, uses, &plan.report)
        for link in inventory.streams where !isKept(link, live, inventory) {
            plan.links.append(Layout.streams + "/" + link.name)
            plan.report.streamsRemoved += 1
            plan.report.streamNamesRemoved.append(link.name)
        }
        plan.report.streamNamesRemoved.sort()
        for link in inventory.images where !isKept(link, live, inventory) {
            plan.links.append(Layout.images + "/" + link.name)
            plan.report.imagesRemoved += 1
        }
        for (id, size) in inventory.objects where !live.contains(id) {
            plan.objects.append(id)
            plan.report.bytesRemoved += size
        }
        plan.objects.sort()
        plan.report.objectsRemoved = plan.objects.count
        plan.temporaries = inventory.temporaries.filter { $0 != ownMarker } + inventory.setAside
        plan.leases = uses.staleLeases
        plan.report.temporariesRemoved = plan.temporaries.count + plan.leases.count
        return plan
    }

    private func isKept(_ link: Inventory.Link, _ live: Set<ObjectID>, _ inventory: Inventory) -> Bool {
        guard let id = link.id else { return true }
        return live.contains(id) && inventory.objects[id] != nil
    }

    private func liveObjects(
        _ inventory: Inventory, _ extraRoots: [ByteString], _ uses: ImageUses, _ report: inout GarbageReport
    ) throws(RepositoryError) -> Set<ObjectID> {
        var live: Set<ObjectID> = []
        let images = Dictionary(inventory.images.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        let streams = Dictionary(inventory.streams.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        let streamObjects = Set(inventory.streams.compactMap(\.id))

        var imageRoots = Set(extraRoots)
        for (path, target) in inventory.imageReferences {
            let name = Layout.baseName(target)
            // If the image's object is missing, its files are unknown, and nothing can use them.
            if let link = images[name], link.id.map({ inventory.objects[$0] != nil }) ?? true {
                imageRoots.insert(name)
            } else {
                report.danglingReferences.append(path)
            }
        }
        for name in imageRoots.sorted() {
            guard let link = images[name] else { continue }
            let id = try rootObject(link, Layout.images)
            // An additional root that is missing, as above.
            guard inventory.objects[id] != nil else { continue }
            guard live.insert(id).inserted else { continue }
            live.formUnion(try named(Layout.images + "/" + name) { () throws(RepositoryError) in try imageObjects(id) })
        }

        var streamRoots = Set(extraRoots)
        for (path, target) in inventory.streamReferences {
            let name = Layout.baseName(target)
            if streams[name] == nil { report.danglingReferences.append(path) } else { streamRoots.insert(name) }
        }
        var pending: [(name: ByteString, id: ObjectID)] = []
        for name in streamRoots.sorted() {
            guard let link = streams[name] else { continue }
            pending.append((Layout.streams + "/" + name, try rootObject(link, Layout.streams)))
        }
        var walked: Set<ObjectID> = []
        try walk(pending, streamObjects, inventory.streamsByName, &walked, &live)
        try keepUsed(uses, inventory, streamObjects, &walked, &live, &report)
        return live
    }

    /// Marks streams and everything to which they refer. A list instead of recursion: references may form chains of any length, and cycles.
    ///
    /// - Parameter byName: see `Inventory.streamsByName`. A named reference with the name of one keeps that stream, too, whatever object it is now.
    func walk(
        _ roots: [(name: ByteString, id: ObjectID)], _ streamObjects: Set<ObjectID>, _ byName: [ByteString: ObjectID],
        _ walked: inout Set<ObjectID>, _ live: inout Set<ObjectID>
    ) throws(RepositoryError) {
        var pending = roots
        while let next = pending.popLast() {
            live.insert(next.id)
            guard walked.insert(next.id).inserted else { continue }
            let reader = try named(next.name) { () throws(RepositoryError) in try StreamReferences(openStream(next.id)) }
            live.formUnion(reader.objects)
            for reference in reader.named {
                live.insert(reference.id)
                // Another program may have stored the stream again without knowing this reference.
                let name = ByteString(reference.name)
                if let linked = byName[name], linked != reference.id { pending.append((Layout.streams + "/" + name, linked)) }
                // A stream without a name of its own still holds objects that the referring stream needs.
                var isWalked = streamObjects.contains(reference.id)
                if !isWalked { isWalked = try isStream(reference.id) }
                if isWalked { pending.append((next.name + ", " + ByteString(reference.name), reference.id)) }
            }
        }
    }

    private func rootObject(_ link: Inventory.Link, _ category: ByteString) throws(RepositoryError) -> ObjectID {
        guard let id = link.id else { throw .invalidLink(category + "/" + link.name, .notObject(target: link.target, nil)) }
        return id
    }

    func named<Value>(
        _ name: ByteString, _ body: () throws(RepositoryError) -> Value
    ) throws(RepositoryError) -> Value {
        do throws(RepositoryError) {
            return try body()
        } catch {
            throw .unreadableRoot(name, .unreadable(error))
        }
    }

    struct StreamReferences {
        var objects: ObjectIDList
        var named: [NamedReference]

        init(_ reader: consuming SplitStreamReader<OpenFile>) {
            objects = reader.objectReferences
            named = reader.namedReferences
        }
    }

    /// Whether an object begins like a split stream; false if it is missing.
    func isStream(_ id: ObjectID) throws(RepositoryError) -> Bool {
        guard try objectSize(id) != nil else { return false }
        let file = try openObject(id, verify: false)
        var head = [UInt8](repeating: 0, count: 32)
        let count = (try? head.withUnsafeMutableBytes { try file.preadFully(into: $0, at: 0) }) ?? 0
        let magic = Array("SplitStream".utf8)
        return count == 32 && (Array(head[..<11]) == magic || Array(head[18..<29]) == magic)
    }

    // MARK: Execution

    private func execute(_ plan: Collection) throws(RepositoryError) {
        // Names first, and durably: a power cut in between must not leave a name without its object. That includes names that others removed:
        // a collection or an `untag` that was killed has not synced them, so the whole file system is synced.
        for path in plan.links { try system { () throws(SystemError) in try root.unlink(at: path) } }
        if !plan.links.isEmpty || !plan.objects.isEmpty { try syncFileSystem() }
        for id in plan.objects { try system { () throws(SystemError) in try root.unlink(at: Layout.objectPath(id)) } }
        // Objects that a power cut or a failed sync may have damaged are removed now. The remaining objects were durable before anything referred to
        // them, but links may not have been. All of this must be durable before the markers that record it are removed.
        if let since = try earliestMarker(in: (try entries(of: Layout.staging) ?? []).map { Layout.staging + "/" + $0.name }) {
            try renewLinks(since: since)
        }
        if plan.temporaries.contains(where: { $0.hasPrefix(Layout.staging) }) { try syncFileSystem() }
        try Self.removeTree(Layout.damaged, in: root)
        for path in plan.temporaries where !path.hasPrefix(Layout.staging) && !path.hasPrefix(Layout.damaged) {
            try system { () throws(SystemError) in try root.unlink(at: path) }
        }
        try Self.removeTree(Layout.staging, in: root)
        if !plan.leases.isEmpty { try removeLeases(plan.leases) }
    }
}
