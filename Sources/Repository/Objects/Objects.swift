internal import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// An object that the repository holds.
public struct StoredObject: Hashable, Sendable {
    public let id: ObjectID
    /// Size in bytes.
    public let size: UInt64
    /// False if the repository had the object already.
    public let isNew: Bool

    public init(id: ObjectID, size: UInt64, isNew: Bool) {
        self.id = id
        self.size = size
        self.isNew = isNew
    }
}

extension Repository {
    // MARK: Storing from memory

    /// Stores content that is in memory. Durable after the next `publish` or `sync`.
    public func storeObject(_ content: UnsafeRawBufferPointer) throws(RepositoryError) -> StoredObject {
        var hasher = VerityHasher(algorithm)
        return try storeObject([content], hasher: &hasher)
    }

    /// As above, with a hasher that the caller reuses for all its objects. The content is the concatenation of the parts. The hasher must
    /// have the repository's algorithm and no unfinished content.
    public func storeObject(_ chunks: [UnsafeRawBufferPointer], hasher: inout VerityHasher) throws(RepositoryError) -> StoredObject {
        var size: UInt64 = 0
        for chunk in chunks {
            hasher.update(chunk)
            size += UInt64(chunk.count)
        }
        return try storeObject(hasher.finalize(), size: size, chunks: chunks)
    }

    /// As above, with an identifier that the caller has computed: it must be that of the parts, which have `size` bytes in all.
    package func storeObject(_ id: ObjectID, size: UInt64, chunks: [UnsafeRawBufferPointer]) throws(RepositoryError) -> StoredObject {
        try beginStoring()
        defer { endStoring() }
        let path = Layout.objectPath(id)
        // With fs-verity the look costs little beside the rest.
        let expectsNew = !isSecure && activity.newInARow.load(ordering: .relaxed) >= Self.newInARowLimit
        let found = expectsNew ? .absent : try inspect(id, size: size, at: path, chunks)
        var stored = StoredObject(id: id, size: size, isNew: false)
        if found != .good {
            var temporary = try makeTemporary(mode: 0o644)
            try system { () throws(SystemError) in try temporary.file.writeAll(chunks) }
            stored = try commit(&temporary, id, size: size, at: path, found: found)
        }
        if !stored.isNew {
            activity.newInARow.store(0, ordering: .relaxed)
        } else if !expectsNew {
            activity.newInARow.add(1, ordering: .relaxed)
        }
        return stored
    }

    /// After so many new objects in a row, the next one is written without looking for it first: its name tells whether it was there.
    private static var newInARowLimit: Int { 64 }

    // MARK: Common to all ways of storing

    /// What an object's name refers to.
    enum Presence {
        case absent, good
        /// A crash or a fault left something else. A good object replaces it.
        case torn
        /// The object, but without the signature that it should have. A signed one replaces it.
        case unsigned
    }

    /// With verity the kernel's digest decides. Without, the content does, which is read once by each handle: a file of the right size under an
    /// object's name may be damaged, and nothing that is stored now may lead to it.
    ///
    /// - Parameter content: the object's content if the caller has it in memory; comparing costs less than hashing.
    func inspect(
        _ id: ObjectID, size: UInt64, at path: ByteString, _ content: [UnsafeRawBufferPointer]? = nil
    ) throws(RepositoryError) -> Presence {
        let presence = try look(id, size: size, at: path, content)
        if presence == .good { noteReuse(of: id) }
        return presence
    }

    private func look(
        _ id: ObjectID, size: UInt64, at path: ByteString, _ content: [UnsafeRawBufferPointer]?
    ) throws(RepositoryError) -> Presence {
        if activity.distrustsObjects.load(ordering: .relaxed) {
            switch try isIntactOnDevice(id) {
            case nil: return .absent
            case false?: return .torn
            case true?: break
            }
        }
        if isSecure {
            do throws(RepositoryError) {
                let file = try openForReading(id, at: path)
                guard try fault(of: file, id) == nil else { return .torn }
                guard wantsSignature(id) else { return .good }
                return try isSigned(file) ? .good : .unsigned
            } catch {
                switch error {
                case .objectMissing: return .absent
                case .objectDamaged: return .torn
                case .signature where wantsSignature(id): return .torn
                default: throw error
                }
            }
        }
        let found = try system { () throws(SystemError) -> FileStatus? in
            guard let directory = try keptDirectory(of: id) else { return nil }
            return try root.statusIfPresent(at: path, in: directory)
        }
        guard let status = found else { return .absent }
        guard status.kind == .regular, status.size == size, !isForeign(status) else { return .torn }
        return try isIntact(id, status, content) ? .good : .torn
    }

    /// From now on this handle reads every object before it relies on it, because one was damaged.
    package func distrustObjects() { activity.distrustsObjects.store(true, ordering: .sequentiallyConsistent) }

    /// Makes a temporary for a new object.
    func makeTemporary(mode: UInt32) throws(RepositoryError) -> Temporary {
        do throws(SystemError) {
            return try makeNewTemporary(mode)
        } catch {
            guard error.errno == .noEntry else { throw .system(error) }
        }
        try makeDirectory(Layout.objects, mode: 0o755)
        return try system { () throws(SystemError) in try makeNewTemporary(mode) }
    }

    private func makeNewTemporary(_ mode: UInt32) throws(SystemError) -> Temporary {
        let needsName = activity.needsNamedTemporaries.load(ordering: .relaxed)
        let temporary = try Temporary.make(
            in: root, directory: Layout.objects, named: Layout.objectPrefix, mode: mode, hidden: needsName)
        // The next call need not ask the file system again.
        if temporary.isNamed, !needsName { activity.needsNamedTemporaries.store(true, ordering: .relaxed) }
        return temporary
    }

    /// The size in bytes of objects that are written to the device one by one. Smaller ones cost less together, when the file system is synced.
    private static var earlyWriteback: UInt64 { 1 << 16 }

    /// Gives a complete temporary the name of its object.
    func commit(
        _ temporary: inout Temporary, _ id: ObjectID, size: UInt64, at path: ByteString, found: Presence
    ) throws(RepositoryError) -> StoredObject {
        var (found, isSigned) = (found, false)
        // The device begins with them, so that the sync has less to wait for. fs-verity writes all of them anyway.
        if !isSecure, size >= Self.earlyWriteback { temporary.file.startWriteback(at: 0, count: size) }
        if isSecure {
            isSigned = try enableVerity(on: &temporary, id, at: path)
            if isSigned { signing.signed.add(1, ordering: .relaxed) }
            // The kernel has hashed what it will return to readers: this finds bytes that memory or the disk changed on the way.
            let measured = try system { () throws(SystemError) in try measuredVerity(temporary.file) }
            guard measured == id else { throw .objectDamaged(id, .readBackDiffers) }
        }
        // Another process may store or remove the same object meanwhile, but not forever.
        for _ in 0..<8 {
            if found != .absent {
                if found == .unsigned {
                    guard isSigned else { return StoredObject(id: id, size: size, isNew: false) }
                    try prepareReplacement(temporary)
                }
                // No file can take a directory's place.
                if found == .torn, try status(at: path)?.kind == .directory { try setAside(path) }
                try system { () throws(SystemError) in try temporary.replace(in: root, at: path) }
                activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
                return StoredObject(id: id, size: size, isNew: true)
            }
            do throws(SystemError) {
                if try link(temporary, id, at: path) {
                    activity.isUnsynced.store(true, ordering: .sequentiallyConsistent)
                    return StoredObject(id: id, size: size, isNew: true)
                }
            } catch {
                guard error.errno == .noEntry else { throw .system(error) }
                try makeDirectory(of: id)
                continue
            }
            switch try inspect(id, size: size, at: path) {
            case .good: return StoredObject(id: id, size: size, isNew: false)
            case let other: found = other
            }
        }
        throw .objectDamaged(id, .unstable)
    }

    /// Gives a temporary the name of its object. Returns false if the name exists; ENOENT if the object's directory does not.
    private func link(_ temporary: borrowing Temporary, _ id: ObjectID, at path: ByteString) throws(SystemError) -> Bool {
        // A file with a hidden name gets its second one from there.
        if temporary.isNamed { return try temporary.link(in: root, at: path) }
        do throws(SystemError) {
            try linkObject(temporary.file, id, at: path)
            return true
        } catch {
            guard error.errno == .exists else { throw error }
            return false
        }
    }

    /// Gives an open file the name of its object. EEXIST if the name exists; ENOENT if the object's directory does not.
    func linkObject(_ file: borrowing FileDescriptor, _ id: ObjectID, at path: ByteString) throws(SystemError) {
        guard let directory = try keptDirectory(of: id) else { throw SystemError("link", path, .noEntry) }
        try root.link(file, at: path, in: directory)
    }

    /// The directory that an object's file is in; nil if it does not exist. `sync` proves that it was not moved while it was kept.
    private func keptDirectory(of id: ObjectID) throws(SystemError) -> KeptDirectories.Directory? {
        try activity.directories.directory(Layout.firstByte(id), in: root)
    }

    /// Makes the directory of an object's file, if there is none or the one that was kept has been removed.
    func makeDirectory(of id: ObjectID) throws(RepositoryError) {
        activity.directories.forget(Layout.firstByte(id))
        try makeDirectory(Layout.objectDirectory(id), mode: 0o755)
    }

    func makeDirectory(_ path: ByteString, mode: UInt32) throws(RepositoryError) {
        do throws(SystemError) {
            try root.makeDirectory(at: path, mode: mode)
        } catch {
            guard error.errno == .exists else { throw .system(error) }
        }
    }

    // MARK: Reading

    /// Opens an object for reading. With `verify`, its digest is compared with its name: the kernel's digest, or one that is computed from
    /// all of the content if the repository has no fs-verity.
    public func openObject(_ id: ObjectID, verify: Bool = true) throws(RepositoryError) -> FileDescriptor {
        let file = try openForReading(id, at: Layout.objectPath(id))
        if verify, let fault = try fault(of: file, id) { throw .objectDamaged(id, fault) }
        return file
    }

    /// An object's content, verified. An object of more than `limit` bytes is refused before memory is allocated.
    public func readObject(_ id: ObjectID, limit: Int) throws(RepositoryError) -> [UInt8] {
        let file = try openForReading(id, at: Layout.objectPath(id))
        let status = try system { () throws(SystemError) in try file.status() }
        guard status.size <= UInt64(clamping: limit) else { throw .objectTooLarge(id, size: status.size, limit: limit) }
        let bytes = try system { () throws(SystemError) in try file.readAll(limit: limit) }
        let actual = bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, id.algorithm) }
        guard actual == id else { throw .objectDamaged(id, .digest(actual)) }
        return bytes
    }

    /// Size in bytes; nil if there is no such object.
    public func objectSize(_ id: ObjectID) throws(RepositoryError) -> UInt64? {
        let path = Layout.objectPath(id)
        guard let status = try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) else { return nil }
        guard status.kind == .regular else { throw .objectDamaged(id, .notRegularFile) }
        return status.size
    }

    func openForReading(_ id: ObjectID, at path: ByteString) throws(RepositoryError) -> FileDescriptor {
        try Self.openForReading(id, at: path, in: root)
    }

    static func openForReading(
        _ id: ObjectID, at path: ByteString, in root: borrowing RootedDirectory
    ) throws(RepositoryError) -> FileDescriptor {
        var status: FileStatus?
        return try openForReading(id, at: path, in: root, status: &status)
    }

    /// - Parameter status: the file's, set when it is returned.
    static func openForReading(
        _ id: ObjectID, at path: ByteString, in root: borrowing RootedDirectory, status: inout FileStatus?
    ) throws(RepositoryError) -> FileDescriptor {
        do throws(SystemError) {
            // Not blocking: a FIFO in the object's place must not block the caller.
            let file = try root.open(at: path, [.readOnly, .noFollow, .nonBlocking])
            let found = try file.status()
            status = found
            if found.kind == .regular { return file }
        } catch {
            switch error.errno {
            case .noEntry: throw .objectMissing(id)
            case .tooManySymbolicLinks:
                // Either the object is a symbolic link, or a directory on the way to it, which is no fault of the object.
                guard try system({ () throws(SystemError) in try root.statusIfPresent(at: path) }) != nil else { throw .objectMissing(id) }
                throw .objectDamaged(id, .symbolicLink)
            default: throw RepositoryError(error)
            }
        }
        throw .objectDamaged(id, .notRegularFile)
    }

    /// Why an open file is not the object; nil if it is.
    func fault(of file: borrowing FileDescriptor, _ id: ObjectID) throws(RepositoryError) -> ObjectFault? {
        if isSecure {
            guard let measured = try system({ () throws(SystemError) in try measuredVerity(file) }) else { return .noVerity }
            return measured == id ? nil : .digest(measured)
        }
        let actual = try system { () throws(SystemError) in try hash(file, id.algorithm) }
        return actual == id ? nil : .digest(actual)
    }
}

/// The digest of an open file, computed from all of its content.
func hash(_ file: borrowing FileDescriptor, _ algorithm: VerityAlgorithm) throws(SystemError) -> ObjectID {
    var hasher = VerityHasher(algorithm)
    try withTemporaryBuffer { (buffer) throws(SystemError) in
        var parts = FileParts(into: buffer)
        while let part = try parts.next(of: file) { hasher.update(part) }
    }
    return hasher.finalize()
}

// MARK: - Listing

// Every walk over all objects: collections, accounts and recovery need the status of each file, the check only its name.
extension Repository {
    /// The names of the directories `objects/XX`, as numbers in ascending order. Files of another type with such a name hold no objects; fsck reports
    /// them.
    static func objectDirectories(in root: borrowing RootedDirectory) throws(RepositoryError) -> [UInt8] {
        var found: [UInt8] = []
        for entry in try entries(of: Layout.objects, in: root) ?? [] {
            guard entry.name.count == 2, let index = Hex.decode(entry.name.bytes)?.first else { continue }
            let path = Layout.objects + "/" + entry.name
            // The check of the name's case: the path of an object has lower-case digits.
            guard path == objectDirectory(index) else { continue }
            var kind: FileKind? = entry.kind
            if kind == .unknown { kind = try system { () throws(SystemError) in try root.statusIfPresent(at: path)?.kind } }
            if kind == .directory { found.append(index) }
        }
        return found
    }

    /// The path of one of the 256 directories.
    static func objectDirectory(_ index: UInt8) -> ByteString { Layout.objects + "/" + ByteString(Hex.encode(CollectionOfOne(index))) }

    /// Calls `body` with every file below `objects/XX`: its identifier (nil if the name is not that of an object), path, and status.
    func forEachObject(
        _ body: (ObjectID?, ByteString, FileStatus) throws(RepositoryError) -> Void
    ) throws(RepositoryError) {
        let directories = try Self.objectDirectories(in: root)
        // A part of the directories at a time: what is known of all objects need not be in memory at once.
        for start in stride(from: 0, to: directories.count, by: Self.directoriesAtOnce) {
            let part = Array(directories[start..<min(start + Self.directoriesAtOnce, directories.count)])
            let found = parallelMap(part, threads: Host.processorCount, batch: 1) { index -> Result<[ObjectEntry], RepositoryError> in
                do throws(RepositoryError) { return .success(try self.objectEntries(index)) } catch { return .failure(error) }
            }
            for result in found { for entry in try result.get() { try body(entry.id, entry.path, entry.status) } }
        }
    }

    private static var directoriesAtOnce: Int { 32 }

    private struct ObjectEntry: Sendable {
        var id: ObjectID?
        var path: ByteString
        var status: FileStatus
    }

    private func objectEntries(_ index: UInt8) throws(RepositoryError) -> [ObjectEntry] {
        let path = Self.objectDirectory(index)
        return try system { () throws(SystemError) in
            // Another process may have removed it meanwhile.
            guard let opened = try root.openIfPresent(at: path, [.readOnly, .directory, .noFollow]) else { return [] }
            let directory = RootedDirectory(opened)
            var found: [ObjectEntry] = []
            for entry in try directory.entries(of: ".") ?? [] {
                guard let status = try directory.statusIfPresent(at: entry.name) else { continue }
                let id = Layout.objectID(first: index, rest: entry.name, algorithm)
                found.append(ObjectEntry(id: id, path: path + "/" + entry.name, status: status))
            }
            return found.sorted { $0.path < $1.path }
        }
    }
}
