package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// What an operation that was cut short leaves, and how the next one deals with it.
//
// `.staging/<boot id>/` holds two kinds of entries. Both are valid only in the boot they were made in: what a killed process wrote is in the
// page cache and complete, what a power cut interrupted may not be.
//
// - `.active-<random>`: a file that a handle makes before it stores its first object, and holds locked. It goes when all that the handle
//   stored has been synced. One that is found after a reboot says: objects from its time on may be damaged. (File systems keep the order of
//   names, so where such an object has its name, the marker has its own.)
// - `<stream name>`: a link to a stream object that an unfinished pull completed, for the next pull to go on with.
extension Repository {
    /// A marker's clock may have been set back later by as much as this; older objects are believed.
    private static let clockMargin: Int64 = 3600

    private static let activePrefix: ByteString = ".active-"
    /// The directory where the kernel does not tell its boot: always taken for another boot's.
    private static let unknownBoot: ByteString = "unknown"

    /// `.staging/<boot id>`.
    func stagingDirectory() -> ByteString {
        Layout.staging + "/" + (Host.bootID().map { ByteString($0) } ?? Self.unknownBoot)
    }

    // MARK: Begin and end of storing

    /// Prepares for storing objects: checks that the repository may be written, looks into what an interrupted operation left, and leaves
    /// word of this one. Storing does it by itself; doing it before saves the surprise. Once a handle, cheap afterwards.
    package func beginPull() throws(RepositoryError) {
        if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
        try activity.marker.withLock { (marker) throws(RepositoryError) in
            if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
            try requireWritable()
            switch try recoverInterruptedPull() {
            case .nothing, .recovered: break
            case .busy: activity.distrustsObjects.store(true, ordering: .sequentiallyConsistent)
            }
            marker = try makeMarker()
            try signMetadata()
            activity.hasBegun.store(true, ordering: .sequentiallyConsistent)
        }
    }

    /// Before anything is stored. Pairs with `endStoring`.
    func beginStoring() throws(RepositoryError) {
        // Counted first: whoever takes the marker away looks at the count after saying so, see `retireMarker`.
        activity.storing.add(1, ordering: .sequentiallyConsistent)
        do throws(RepositoryError) {
            try beginPull()
        } catch {
            endStoring()
            throw error
        }
    }

    func endStoring() { activity.storing.subtract(1, ordering: .sequentiallyConsistent) }

    /// Runs `body`, which stores one thing after the other that belong together: this handle collects no garbage in between.
    package func storeAsOne<Result>(_ body: () throws -> Result) throws -> Result {
        try beginStoring()
        defer {
            endStoring()
            retireMarker()
        }
        return try body()
    }

    private func makeMarker() throws(RepositoryError) -> Activity.Marker {
        let directory = stagingDirectory()
        let path = directory + "/" + Self.activePrefix + ByteString(Host.randomName(12))
        return try system { () throws(SystemError) in
            // Another handle that ends may remove the empty directory in between.
            for _ in 0..<8 {
                try root.makeDirectoryIfMissing(at: Layout.staging, mode: 0o755)
                do throws(SystemError) {
                    try root.makeDirectoryIfMissing(at: directory, mode: 0o755)
                    let file = try root.open(at: path, [.readWrite, .create, .exclusive], mode: 0o600)
                    try file.lock(.exclusive, wait: false)
                    return Activity.Marker(path: path, file: file)
                } catch {
                    guard error.errno == .noEntry else { throw error }
                }
            }
            throw SystemError("create", path, .noEntry)
        }
    }

    /// Takes this handle's marker away where all that it stored is synced and nothing is being stored.
    func retireMarker() {
        activity.marker.withLock { marker in
            guard let path = marker.path else { return }
            // From here on a new call makes its own marker, after waiting for this lock. One that began before is counted.
            activity.hasBegun.store(false, ordering: .sequentiallyConsistent)
            if activity.storing.load(ordering: .sequentiallyConsistent) != 0 || activity.isUnsynced.load(ordering: .sequentiallyConsistent)
            {
                activity.hasBegun.store(true, ordering: .sequentiallyConsistent)
                return
            }
            try? root.unlink(at: path)
            removeEmptyStaging()
            marker = Activity.Marker()
        }
    }

    private func removeEmptyStaging() {
        // Fails where something is left in them, which is as it should be.
        try? root.removeDirectory(at: stagingDirectory())
        try? root.removeDirectory(at: Layout.staging)
    }

    /// Markers of this boot whose processes are gone. What those stored is durable after the next sync.
    func abandonedMarkers() throws(RepositoryError) -> [ByteString] {
        let directory = stagingDirectory()
        var found: [ByteString] = []
        for entry in try entries(of: directory) ?? [] where entry.name.hasPrefix(Self.activePrefix) {
            let path = directory + "/" + entry.name
            try system { () throws(SystemError) in
                guard let file = try root.openIfPresent(at: path, [.readOnly, .noFollow, .nonBlocking]) else { return }
                if try file.lock(.exclusive, wait: false) { found.append(path) }
            }
        }
        return found
    }

    func removeMarkers(_ paths: [ByteString]) {
        for path in paths { try? root.unlink(at: path) }
    }

    // MARK: Staged streams

    /// The stream that an unfinished pull of this boot completed under this name; nil where there is none.
    package func stagedStream(_ name: ByteString) throws(RepositoryError) -> ObjectID? {
        try Layout.checkEntryName(name)
        guard Host.bootID() != nil, let target = try readLink(stagingDirectory() + "/" + name) else { return nil }
        guard let id = Layout.objectID(ofTarget: target, algorithm), try objectSize(id) != nil else { return nil }
        return id
    }

    /// Notes a completed stream, verified in full, for the next pull should this one not come to its end.
    package func stage(_ name: ByteString, _ id: ObjectID) throws(RepositoryError) {
        try Layout.checkEntryName(name)
        guard name.bytes.first != UInt8(ascii: ".") else { throw .invalidName(name, "a staged stream's must not begin with a dot") }
        try beginPull()
        try writeLink(stagingDirectory() + "/" + name, to: Layout.objectPath(id))
    }

    /// Forgets staged streams: they are published now. Names that are not staged are no error.
    package func clearStaged(_ names: [ByteString]) throws(RepositoryError) {
        let directory = stagingDirectory()
        for name in names {
            try Layout.checkEntryName(name)
            try system { () throws(SystemError) in
                do throws(SystemError) {
                    try root.unlink(at: directory + "/" + name)
                } catch {
                    guard error.errno == .noEntry else { throw error }
                }
            }
        }
    }

    // MARK: After a power cut

    /// What `recoverInterruptedPull` found.
    package enum Recovery: Hashable, Sendable {
        case nothing
        /// So many damaged objects were removed.
        case recovered(removed: Int)
        /// Another process uses the repository, so objects cannot be judged. Storing then reads every object before it believes it.
        case busy
    }

    /// Deals with an operation that a power cut interrupted.
    ///
    /// Objects are not synced one by one, so those stored shortly before the machine stopped may have their names but not their content, and
    /// without fs-verity a wrong content of the right size would be taken for the object for ever after. Such an operation left a marker
    /// of another boot: all objects from its time on are read, and those that are not what their names say are removed. Nothing refers
    /// to them: streams and images get their names only after a sync. Then the marker and the staged streams beside it go.
    ///
    /// It needs the repository for itself, but never waits for it. The handle must not have stored anything yet: it gives up its shared lock
    /// for a moment, and a garbage collection may come in between. `beginPull` calls this.
    package func recoverInterruptedPull() throws(RepositoryError) -> Recovery {
        let current = stagingDirectory()
        let directories = (try entries(of: Layout.staging) ?? []).map { Layout.staging + "/" + $0.name }
        let stale = directories.filter { $0 != current || Host.bootID() == nil }
        guard !stale.isEmpty else { return .nothing }
        try requireWritable()
        guard try system({ () throws(SystemError) in try root.lock(.exclusive, wait: false) }) else {
            try backToShared()
            return .busy
        }
        let removed: Int
        do throws(RepositoryError) {
            removed = try removeDamage(since: stale)
        } catch {
            try backToShared()
            throw error
        }
        try backToShared()
        return .recovered(removed: removed)
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

    private func removeDamage(since stale: [ByteString]) throws(RepositoryError) -> Int {
        var earliest: Int64?
        for directory in stale {
            for entry in try entries(of: directory) ?? [] where entry.name.hasPrefix(Self.activePrefix) {
                let status = try system { () throws(SystemError) in try root.status(at: directory + "/" + entry.name) }
                earliest = min(earliest ?? status.mtimeSeconds, status.mtimeSeconds)
            }
        }
        var removed = 0
        if let earliest {
            let limit = earliest.subtractingReportingOverflow(Self.clockMargin).partialValue
            try forEachObject { (id, path, status) throws(RepositoryError) in
                guard let id, max(status.mtimeSeconds, status.ctimeSeconds) >= limit else { return }
                guard try isDamaged(id) else { return }
                try system { () throws(SystemError) in try root.unlink(at: path) }
                removed += 1
            }
            // Before the markers go: a second power cut must not bring the damaged objects back without them.
            try sync()
        }
        for directory in stale { try Self.removeTree(directory, in: root) }
        try? root.removeDirectory(at: Layout.staging)
        return removed
    }

    private func isDamaged(_ id: ObjectID) throws(RepositoryError) -> Bool {
        do throws(RepositoryError) {
            _ = try openObject(id)
            return false
        } catch {
            switch error {
            case .objectDamaged: return true
            case .objectMissing: return false
            // The disk lost the block, or the kernel found that it is not what the Merkle tree says.
            case .system(let error) where error.errno == .inputOutput: return true
            default: throw error
            }
        }
    }

    /// Every file below `objects/XX`: its identifier (nil where the name is none), path, and status.
    func forEachObject(
        _ body: (ObjectID?, ByteString, FileStatus) throws(RepositoryError) -> Void
    ) throws(RepositoryError) {
        for index in 0...255 {
            let directory = Layout.objects + "/" + ByteString(Hex.encode(CollectionOfOne(UInt8(truncatingIfNeeded: index))))
            for entry in try entries(of: directory) ?? [] {
                let path = directory + "/" + entry.name
                guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { continue }
                try body(Layout.objectID(first: UInt8(truncatingIfNeeded: index), rest: entry.name, algorithm), path, status)
            }
        }
    }
}
