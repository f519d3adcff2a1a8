package import ComposefsBytes
package import ComposefsHashing
internal import ComposefsLinuxSystem
internal import Synchronization

/// Objects whose content one handle has read and found to be what their names say, with what told their files apart then: a file that was
/// written to, replaced or linked again since is read again.
final class IntactObjects: Sendable {
    private struct Identity: Hashable, Sendable {
        var device: UInt64
        var inode: UInt64
        var size: UInt64
        var changed: FileTime

        init(_ status: FileStatus) {
            (device, inode, size) = (status.device, status.inode, status.size)
            changed = FileTime(changeOf: status)
        }
    }

    /// About 200 bytes each. What is forgotten is read once more.
    private static let limit = 1 << 18
    private let known = Mutex<[ObjectID: Identity]>([:])

    func contains(_ id: ObjectID, _ status: FileStatus) -> Bool { known.withLock { $0[id] == Identity(status) } }

    func insert(_ id: ObjectID, _ status: FileStatus) {
        known.withLock { known in
            if known.count >= Self.limit { known.removeAll(keepingCapacity: true) }
            known[id] = Identity(status)
        }
    }
}

/// A point on the clock that the kernel stamps files with.
package struct FileTime: Hashable, Comparable, Sendable {
    var seconds: Int64
    var nanoseconds: UInt32

    /// When the inode was last changed, its content included (`st_ctime`).
    init(changeOf status: FileStatus) { (seconds, nanoseconds) = (status.ctimeSeconds, status.ctimeNanoseconds) }

    package static func < (lhs: FileTime, rhs: FileTime) -> Bool {
        (lhs.seconds, lhs.nanoseconds) < (rhs.seconds, rhs.nanoseconds)
    }
}

extension Repository {
    /// Those of some objects that are missing or are not what their names say, in the order of `ids`. With fs-verity the kernel's digest decides,
    /// without the content, which each handle reads once. Reads on several threads.
    ///
    /// - Parameter reads: read the content where the kernel vouches for it, too: the disk may have lost it.
    /// - Throws: `RepositoryError.system` where the repository cannot be read at all.
    package func faulty(
        _ ids: [ObjectID], reads: Bool = false, threads: Int = Host.processorCount
    ) throws(RepositoryError) -> [ObjectID] {
        try filter(ids, threads) { (id) throws(RepositoryError) in try !self.isIntact(id, reads: reads) }
    }

    /// Those of some objects whose files were changed after a time, or are missing or no regular files.
    package func changed(_ ids: [ObjectID], since time: FileTime) throws(RepositoryError) -> [ObjectID] {
        try filter(ids, Host.processorCount) { (id) throws(RepositoryError) in
            guard let changed = try self.changeTime(of: id) else { return true }
            return time < changed
        }
    }

    private func filter(
        _ ids: [ObjectID], _ threads: Int, _ isWanted: @escaping @Sendable (ObjectID) throws(RepositoryError) -> Bool
    ) throws(RepositoryError) -> [ObjectID] {
        let results = parallelMap(ids, threads: threads) { id -> Result<Bool, RepositoryError> in
            do throws(RepositoryError) { return .success(try isWanted(id)) } catch { return .failure(error) }
        }
        var wanted: [ObjectID] = []
        for (id, result) in zip(ids, results) where try result.get() { wanted.append(id) }
        return wanted
    }

    /// Whether one object is here and is what its name says; see `faulty`.
    package func isIntact(_ id: ObjectID, reads: Bool = false) throws(RepositoryError) -> Bool {
        let path = Layout.objectPath(id)
        guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }), status.kind == .regular,
            isSecure || !isForeign(status)
        else { return false }
        if isSecure {
            do throws(RepositoryError) {
                guard try fault(of: openForReading(id, at: path), id) == nil else { return false }
            } catch {
                switch error {
                case .objectMissing, .objectDamaged: return false
                // The kernel gives the content to no one: nothing can take it for good.
                case .signature: break
                default: throw error
                }
            }
            if reads, try !hasContent(id) { return false }
        } else if try !isIntact(id, status, nil) {
            return false
        }
        noteReuse(of: id)
        return true
    }

    /// When the file of an object was last changed; nil where it is no regular file.
    package func changeTime(of id: ObjectID) throws(RepositoryError) -> FileTime? {
        let status = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objectPath(id)) }
        guard let status, status.kind == .regular else { return nil }
        return FileTime(changeOf: status)
    }

    /// When the link of a stream was made; nil if there is none.
    package func changeTime(ofStream name: ByteString) throws(RepositoryError) -> FileTime? {
        try Layout.checkEntryName(name)
        guard let status = try status(at: Layout.streams + "/" + name), status.kind == .symbolicLink else { return nil }
        return FileTime(changeOf: status)
    }

    /// Whether an object's file has the right content, in a repository without fs-verity.
    ///
    /// - Parameters:
    ///   - status: the file's.
    ///   - content: what it must hold, where the caller has that.
    func isIntact(
        _ id: ObjectID, _ status: FileStatus, _ content: [UnsafeRawBufferPointer]?
    ) throws(RepositoryError) -> Bool {
        if activity.intact.contains(id, status) { return true }
        do throws(RepositoryError) {
            let file = try openForReading(id, at: Layout.objectPath(id))
            // Of the file that is read: another one may have taken the name.
            let opened = try system { () throws(SystemError) in try file.status() }
            let isGood = try system { () throws(SystemError) in
                if let content { return try holds(file, content) }
                return try hash(file, id.algorithm) == id
            }
            if isGood { activity.intact.insert(id, opened) }
            return isGood
        } catch {
            switch error {
            case .objectMissing, .objectDamaged: return false
            case .system(let error) where Self.isLost(error): return false
            default: throw error
            }
        }
    }

    /// Reads all of an object and compares its digest.
    private func hasContent(_ id: ObjectID) throws(RepositoryError) -> Bool {
        do throws(RepositoryError) {
            let file = try openForReading(id, at: Layout.objectPath(id))
            return try system { () throws(SystemError) in try hash(file, id.algorithm) } == id
        } catch {
            switch error {
            case .objectMissing, .objectDamaged: return false
            case .system(let error) where Self.isLost(error): return false
            case .signature: return true
            default: throw error
            }
        }
    }

    /// Whether a file cannot be read because the disk has lost a part of it, or because it is not what its Merkle tree says.
    static func isLost(_ error: SystemError) -> Bool {
        error.errno == .inputOutput || error.errno == .badMessage
    }

    // MARK: Setting aside

    /// Takes what has a name that is not its own out of the way, to `.damaged/`, where it stays for people to look at until garbage is
    /// collected. A name is there once: what was set aside before stays.
    ///
    /// - Returns: where it is now; nil where nothing has the name any more.
    @discardableResult
    func setAside(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        try makeDirectory(Layout.damaged, mode: 0o755)
        // As much of the path as a file name holds besides.
        let text = path.bytes.map { $0 == UInt8(ascii: "/") ? UInt8(ascii: "-") : $0 }.prefix(220)
        for _ in 0..<16 {
            let name = Layout.damaged + "/" + ByteString(Array(text)) + "." + ByteString(Host.randomName(12))
            do throws(SystemError) {
                try root.rename(at: path, to: name, flags: .noReplace)
                activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
                return name
            } catch {
                switch error.errno {
                case .exists: continue
                case .noEntry:
                    // The name itself, or the directory, which a collection may have removed.
                    guard try status(at: path) != nil else { return nil }
                    try makeDirectory(Layout.damaged, mode: 0o755)
                // A file system without the flag: nobody else has made up this name.
                case .invalidArgument, .noSystemCall:
                    do throws(SystemError) { try root.rename(at: path, to: name) } catch { throw .system(error) }
                    return name
                default: throw .system(error)
                }
            }
        }
        throw .system(SystemError("rename to", Layout.damaged, .exists))
    }
}

/// Whether a file holds these chunks, one after the other, and nothing else.
private func holds(_ file: borrowing FileDescriptor, _ chunks: [UnsafeRawBufferPointer]) throws(SystemError) -> Bool {
    try withTemporaryBuffer { (buffer) throws(SystemError) in
        var offset: UInt64 = 0
        for chunk in chunks {
            var rest = chunk[...]
            while !rest.isEmpty {
                let wanted = min(buffer.count, rest.count)
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
                guard try file.preadFully(into: part, at: offset) == wanted,
                    compareBytes(UnsafeRawBufferPointer(part), UnsafeRawBufferPointer(rebasing: rest.prefix(wanted))) == 0
                else { return false }
                offset += UInt64(wanted)
                rest = rest.dropFirst(wanted)
            }
        }
        return try file.preadFully(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<1]), at: offset) == 0
    }
}
