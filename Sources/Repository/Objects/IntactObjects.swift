package import ComposefsBytes
package import ComposefsHashing
package import ComposefsLinuxSystem
internal import Synchronization

/// Objects that one handle has read and found intact, with the identity and times of their files: a file that was written to, replaced or linked
/// again since is read again.
final class IntactObjects: Sendable {
    /// An object, and the identity and times of its file. The hash has 128 bits and a secret seed for each process, so that no two are equal.
    private struct Fingerprint: Hashable, Sendable {
        var words: (UInt64, UInt64)

        init(_ id: ObjectID, _ status: FileStatus) {
            func word(_ number: UInt8) -> UInt64 {
                var hasher = Hasher()
                hasher.combine(number)
                hasher.combine(id)
                hasher.combine(status.device)
                hasher.combine(status.inode)
                hasher.combine(status.size)
                hasher.combine(FileTime(changeOf: status))
                return UInt64(bitPattern: Int64(hasher.finalize()))
            }
            words = (word(0), word(1))
        }

        static func == (lhs: Fingerprint, rhs: Fingerprint) -> Bool { lhs.words == rhs.words }
        func hash(into hasher: inout Hasher) { hasher.combine(words.0) }
    }

    /// About 32 bytes each. A forgotten object is read once more.
    private static let limit = 1 << 18
    private let known = Mutex<Set<Fingerprint>>([])

    func contains(_ id: ObjectID, _ status: FileStatus) -> Bool {
        let wanted = Fingerprint(id, status)
        return known.withLock { $0.contains(wanted) }
    }

    func insert(_ id: ObjectID, _ status: FileStatus) {
        let new = Fingerprint(id, status)
        known.withLock { known in
            if known.count >= Self.limit { known.removeAll(keepingCapacity: true) }
            known.insert(new)
        }
    }
}

/// A time of the clock that the kernel uses for file times.
package struct FileTime: Hashable, Comparable, Sendable {
    var seconds: Int64
    var nanoseconds: UInt32

    package init(seconds: Int64, nanoseconds: UInt32) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    /// When the inode was last changed, its content included (`st_ctime`).
    package init(changeOf status: FileStatus) { (seconds, nanoseconds) = (status.ctimeSeconds, status.ctimeNanoseconds) }

    package static func < (lhs: FileTime, rhs: FileTime) -> Bool {
        (lhs.seconds, lhs.nanoseconds) < (rhs.seconds, rhs.nanoseconds)
    }
}

extension Repository {
    /// The objects that are missing or do not match their names, in the order of `ids`. With fs-verity the kernel's digest decides, and the content is
    /// not read. Otherwise each handle reads an object once. Uses several threads.
    ///
    /// - Parameter reads: read the content also if the kernel's digest is correct, because the disk may have lost it.
    /// - Throws: `RepositoryError.system` if the repository cannot be read at all.
    package func faulty(
        _ ids: some RandomAccessCollection<ObjectID> & Sendable, reads: Bool = false, threads: Int = Host.processorCount
    ) throws(RepositoryError) -> [ObjectID] {
        try filter(ids, threads) { (id) throws(RepositoryError) in try !self.isIntact(id, reads: reads) }
    }

    /// The objects with files that were changed after a time, are missing, or are not regular files.
    package func changed(_ ids: some RandomAccessCollection<ObjectID> & Sendable, since time: FileTime) throws(RepositoryError)
        -> [ObjectID]
    {
        try filter(ids, Host.processorCount) { (id) throws(RepositoryError) in
            guard let changed = try self.changeTime(of: id) else { return true }
            return time < changed
        }
    }

    private func filter(
        _ ids: some RandomAccessCollection<ObjectID> & Sendable, _ threads: Int,
        _ isWanted: @escaping @Sendable (ObjectID) throws(RepositoryError) -> Bool
    ) throws(RepositoryError) -> [ObjectID] {
        // In parts, because most results are empty.
        let size = max(1, min(256, ids.count / (max(1, threads) * 4)))
        let starts = Array(stride(from: 0, to: ids.count, by: size))
        let results = parallelMap(starts, threads: threads, batch: 1) { start -> Result<[ObjectID], RepositoryError> in
            do throws(RepositoryError) {
                var wanted: [ObjectID] = []
                for id in ids.dropFirst(start).prefix(size) where try isWanted(id) { wanted.append(id) }
                return .success(wanted)
            } catch {
                return .failure(error)
            }
        }
        var wanted: [ObjectID] = []
        for result in results { wanted += try result.get() }
        return wanted
    }

    /// Whether one object exists and matches its name; see `faulty`.
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
                // The kernel refuses to return the content, so nothing can use it.
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

    /// When the file of an object was last changed; nil if it is not a regular file.
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
    ///   - status: the status of the file.
    ///   - content: the expected content, if the caller has it in memory.
    func isIntact(
        _ id: ObjectID, _ status: FileStatus, _ content: [UnsafeRawBufferPointer]?
    ) throws(RepositoryError) -> Bool {
        if activity.intact.contains(id, status) { return true }
        do throws(RepositoryError) {
            let file = try openForReading(id, at: Layout.objectPath(id))
            // The status of the open file: another file may have the name by now.
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

    /// Reads a whole object and compares its digest.
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

    /// Whether a file cannot be read because the disk has lost a part of it, or because a block does not match the Merkle tree.
    static func isLost(_ error: SystemError) -> Bool {
        error.errno == .inputOutput || error.errno == .badMessage
    }

    // MARK: Setting aside

    /// Moves a file that does not match its name to `.damaged/`, where it stays for examination until a garbage collection. Files that were set aside
    /// before are kept.
    ///
    /// - Returns: its new path; nil if the file does not exist any more.
    @discardableResult
    func setAside(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        try makeDirectory(Layout.damaged, mode: 0o755)
        // The end of the path, as far as it fits into a file name.
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
                    // The file does not exist, or a collection has removed the directory.
                    guard try status(at: path) != nil else { return nil }
                    try makeDirectory(Layout.damaged, mode: 0o755)
                // A file system without the flag. The random name is not in use.
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
