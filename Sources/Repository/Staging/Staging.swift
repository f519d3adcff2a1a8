package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// What an interrupted operation leaves. Recovery.swift implements how the next one continues, Publication.swift explains why.
//
// `.staging/<boot id>/` holds two kinds of entries, valid only in the boot they were made in.
//
// - `.active-<random>`: the marker, a file that a handle makes before it stores its first object or writes its first link, and holds
//   locked. It is removed when a successful sync covers everything that the handle wrote. A marker that is not locked means that what was
//   written since its time may not be on the disk. (File systems keep the order of names: if such an object has its name, the marker has
//   its own.)
// - `<stream name>`: a link to a stream object that an unfinished pull completed, from which the next pull continues.
extension Repository {
    static let activePrefix: ByteString = ".active-"
    /// The directory to use if the kernel does not provide its boot ID. It is always treated as that of another boot.
    private static let unknownBoot: ByteString = "unknown"

    /// `.staging/<boot id>`.
    func stagingDirectory() -> ByteString {
        Layout.staging + "/" + (Host.bootID().map { ByteString($0) } ?? Self.unknownBoot)
    }

    // MARK: Begin and end of storing

    /// Prepares for storing objects: checks that the repository is writable, examines other handles' operations, and makes the marker of
    /// this one. Storing does this implicitly; calling it before reports problems early. Done once for each handle, and cheap afterwards.
    package func beginPull() throws(RepositoryError) { try begin(ownCalls: 0) }

    /// - Parameter ownCalls: how many of the calls that are counted as storing belong to the caller.
    private func begin(ownCalls: Int) throws(RepositoryError) {
        if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
        try activity.marker.withLock { (marker) throws(RepositoryError) in
            if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
            try requireWritable()
            if activity.isCondemned.load(ordering: .sequentiallyConsistent) {
                // What other threads have stored and not yet published may be lost: they must not publish it.
                guard activity.storing.load(ordering: .sequentiallyConsistent) <= ownCalls else { throw .syncFailed(path) }
            }
            // Markers that appeared after this handle looked for others are covered by its own sync; after a failed sync nothing is
            // covered.
            let isNew =
                !activity.hasLooked.load(ordering: .sequentiallyConsistent) || activity.isCondemned.load(ordering: .sequentiallyConsistent)
            let known = isNew ? nil : Set(activity.others.withLock { $0.map(\.path) })
            switch try recoverInterruptedPull(only: known) {
            case .nothing, .recovered: break
            case .busy: activity.distrustsObjects.store(true, ordering: .sequentiallyConsistent)
            }
            if isNew {
                try lookAtOthers()
                activity.hasLooked.store(true, ordering: .sequentiallyConsistent)
                activity.isCondemned.store(false, ordering: .sequentiallyConsistent)
            }
            marker = try makeMarker()
            try signMetadata()
            activity.hasBegun.store(true, ordering: .sequentiallyConsistent)
        }
    }

    /// Before anything is stored. Pairs with `endStoring`.
    func beginStoring() throws(RepositoryError) {
        // Counted first: `retireMarker` reads the count after it has announced the removal of the marker.
        activity.storing.add(1, ordering: .sequentiallyConsistent)
        do throws(RepositoryError) {
            try begin(ownCalls: 1)
        } catch {
            endStoring()
            throw error
        }
    }

    func endStoring() { activity.storing.subtract(1, ordering: .sequentiallyConsistent) }

    /// Runs `body`, which stores several related things: this handle collects no garbage meanwhile.
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
        return try system { () throws(SystemError) in
            // Another handle that ends may remove the empty directory in between, and one that starts may take a marker that is not locked
            // yet for an abandoned one.
            for _ in 0..<16 {
                let path = directory + "/" + Self.activePrefix + ByteString(Host.randomName(12))
                try root.makeDirectoryIfMissing(at: Layout.staging, mode: 0o755)
                do throws(SystemError) {
                    try root.makeDirectoryIfMissing(at: directory, mode: 0o755)
                    let file = try root.open(at: path, [.readWrite, .create, .exclusive], mode: 0o600)
                    do throws(SystemError) {
                        if try file.lock(.exclusive, wait: false), let named = try root.statusIfPresent(at: path),
                            named.inode == (try file.status()).inode
                        {
                            return Activity.Marker(path: path, file: file)
                        }
                    } catch {
                        try? root.unlink(at: path)
                        throw error
                    }
                    // The process that holds the lock removes the file; nothing was stored under it.
                } catch {
                    guard error.errno == .noEntry else { throw error }
                }
            }
            throw SystemError("create", directory + "/" + Self.activePrefix, .noEntry)
        }
    }

    /// Removes this handle's marker if everything that it stored is synced and nothing is being stored.
    func retireMarker() {
        activity.marker.withLock { marker in
            guard let path = marker.path else { return }
            // From here on a new call makes its own marker, after waiting for this lock. A call that started before is counted.
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

    /// Called after a failed sync: what this handle has written since its last successful one may be lost, whatever a later sync reports.
    /// Its marker stays, without its lock, for the next handle. This handle's own next operation also starts by examining it.
    func condemn() {
        activity.marker.withLock { marker in
            marker = Activity.Marker()
            activity.isCondemned.store(true, ordering: .sequentiallyConsistent)
            activity.wasCondemned.store(true, ordering: .sequentiallyConsistent)
            activity.hasBegun.store(false, ordering: .sequentiallyConsistent)
        }
    }

    private func removeEmptyStaging() {
        // Fails if entries are left in them, as intended.
        try? root.removeDirectory(at: stagingDirectory())
        try? root.removeDirectory(at: Layout.staging)
    }

    // MARK: Staged streams

    /// The stream that an unfinished pull of this boot completed under this name; nil if there is none.
    package func stagedStream(_ name: ByteString) throws(RepositoryError) -> ObjectID? {
        try Layout.checkEntryName(name)
        guard Host.bootID() != nil, try system({ () throws(SystemError) in try root.statusIfPresent(at: stagingDirectory()) }) != nil
        else { return nil }
        // The staged stream may belong to a pull that ended without a successful sync.
        if !options.readOnly { try beginPull() }
        // Another entry of this name is not a stream that could be used.
        guard let target = try? readLink(stagingDirectory() + "/" + name) else { return nil }
        guard let id = Layout.objectID(ofTarget: target, algorithm), (try? objectSize(id)) != nil else { return nil }
        return try mayReuse(stream: id) ? id : nil
    }

    /// Records a completed and verified stream, for the next pull in case this one is interrupted.
    package func stage(_ name: ByteString, _ id: ObjectID) throws(RepositoryError) {
        try Layout.checkEntryName(name)
        guard name.bytes.first != UInt8(ascii: ".") else { throw .invalidName(name, .leadingDot) }
        try beginPull()
        try writeLink(stagingDirectory() + "/" + name, to: Layout.objectPath(id))
    }

    /// Removes the records of staged streams, because they are published now. Names that are not staged are no error.
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
}
