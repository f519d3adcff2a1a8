package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

// What an operation that was cut short leaves. How the next one deals with it is in Recovery.swift, why in Publication.swift.
//
// `.staging/<boot id>/` holds two kinds of entries, valid only in the boot they were made in.
//
// - `.active-<random>`: a file that a handle makes before it stores its first object or writes its first link, and holds locked. It is removed
//   when a sync that is known to have succeeded covers all that the handle wrote. One that nobody holds says: what was written from its time
//   on may not be on the disk. (File systems keep the order of names, so where such an object has its name, the marker has its own.)
// - `<stream name>`: a link to a stream object that an unfinished pull completed, for the next pull to go on with.
extension Repository {
    static let activePrefix: ByteString = ".active-"
    /// The directory where the kernel does not tell its boot: always taken for another boot's.
    private static let unknownBoot: ByteString = "unknown"

    /// `.staging/<boot id>`.
    func stagingDirectory() -> ByteString {
        Layout.staging + "/" + (Host.bootID().map { ByteString($0) } ?? Self.unknownBoot)
    }

    // MARK: Begin and end of storing

    /// Prepares for storing objects: checks that the repository may be written, looks into what others left or are at, and leaves word of
    /// this operation. Storing does it by itself; doing it before saves the surprise. Once a handle, cheap afterwards.
    package func beginPull() throws(RepositoryError) { try begin(ownCalls: 0) }

    /// - Parameter ownCalls: how many of the calls that are counted as storing are the caller.
    private func begin(ownCalls: Int) throws(RepositoryError) {
        if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
        try activity.marker.withLock { (marker) throws(RepositoryError) in
            if activity.hasBegun.load(ordering: .sequentiallyConsistent) { return }
            try requireWritable()
            if activity.isCondemned.load(ordering: .sequentiallyConsistent) {
                // What other threads have stored and not published yet is lost, maybe: they must not publish it.
                guard activity.storing.load(ordering: .sequentiallyConsistent) <= ownCalls else { throw .syncFailed(path) }
            }
            // Markers that appeared since this handle looked around are its sync's matter; a sync that has failed covers nothing any more.
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
        // Counted first: whoever takes the marker away looks at the count after saying so, see `retireMarker`.
        activity.storing.add(1, ordering: .sequentiallyConsistent)
        do throws(RepositoryError) {
            try begin(ownCalls: 1)
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
        return try system { () throws(SystemError) in
            // Another handle that ends may remove the empty directory in between, and one that begins may take a marker that is not locked
            // yet for one that was left.
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
                    // Whoever has the lock takes the file away; nothing was stored under it.
                } catch {
                    guard error.errno == .noEntry else { throw error }
                }
            }
            throw SystemError("create", directory + "/" + Self.activePrefix, .noEntry)
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

    /// After a sync that failed: what this handle has written since its last good one may be lost, whatever a later sync says. Its marker stays,
    /// without its lock, for whoever comes next. This handle's own next operation begins with looking into it, too.
    func condemn() {
        activity.marker.withLock { marker in
            marker = Activity.Marker()
            activity.isCondemned.store(true, ordering: .sequentiallyConsistent)
            activity.wasCondemned.store(true, ordering: .sequentiallyConsistent)
            activity.hasBegun.store(false, ordering: .sequentiallyConsistent)
        }
    }

    private func removeEmptyStaging() {
        // Fails where something is left in them, which is as it should be.
        try? root.removeDirectory(at: stagingDirectory())
        try? root.removeDirectory(at: Layout.staging)
    }

    // MARK: Staged streams

    /// The stream that an unfinished pull of this boot completed under this name; nil where there is none.
    package func stagedStream(_ name: ByteString) throws(RepositoryError) -> ObjectID? {
        try Layout.checkEntryName(name)
        guard Host.bootID() != nil, try system({ () throws(SystemError) in try root.statusIfPresent(at: stagingDirectory()) }) != nil
        else { return nil }
        // What is staged may be of a pull that ended without a good sync.
        if !options.readOnly { try beginPull() }
        // Something else in its place is no stream that could be taken.
        guard let target = try? readLink(stagingDirectory() + "/" + name) else { return nil }
        guard let id = Layout.objectID(ofTarget: target, algorithm), (try? objectSize(id)) != nil else { return nil }
        return try mayReuse(stream: id) ? id : nil
    }

    /// Notes a completed stream, verified in full, for the next pull should this one not come to its end.
    package func stage(_ name: ByteString, _ id: ObjectID) throws(RepositoryError) {
        try Layout.checkEntryName(name)
        guard name.bytes.first != UInt8(ascii: ".") else { throw .invalidName(name, .leadingDot) }
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
}
