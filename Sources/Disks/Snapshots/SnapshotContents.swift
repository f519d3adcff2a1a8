public import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
public import ComposefsSnapshotFormat
import ComposefsSplitStream

/// What a complete check of a snapshot has found.
public struct VerifiedSnapshot: Sendable, Hashable {
    public var snapshot: StoredSnapshot
    /// The digest of the content: of the algorithm that the descriptor records, or of its Merkle tree if it records none.
    public var integrity: SnapshotDescriptor.Integrity
    /// Whether the descriptor records the digest.
    public var isRecorded: Bool
    /// Whether the store has the parent; nil if there is none.
    public var hasParent: Bool?
    public var hasImage: Bool
}

extension SnapshotStore {
    /// Writes the content of a snapshot's disk to a new file, whose holes are those of the source at least, and verifies every object on the way.
    /// The file has its name only when it is complete and durable; an existing file is never replaced.
    ///
    /// - Throws: `SnapshotError.damaged`, `RepositoryError` if the store is damaged; `DiskError.exists`, `.invalidPath`, `.noSpace`; `SystemError`.
    public func restore(_ snapshot: StoredSnapshot, to path: ByteString) throws {
        try naming(snapshot) { try DiskOutput.makeNewFile(path) { try copy(snapshot, to: $0, path) } }
    }

    private func copy(_ snapshot: StoredSnapshot, to file: borrowing FileDescriptor, _ path: ByteString) throws {
        let content = content(of: snapshot)
        try content.checkSpace(DiskSpace(path: path, status: try file.fileSystemStatus()))
        try content.copy(to: file)
    }

    /// Writes a snapshot as microsandbox has it: a directory with `snapshot.json` and the disk's file.
    ///
    /// - Throws: as `restore`; `DiskError.notEmptyDirectory`.
    public func export(_ snapshot: StoredSnapshot, to path: ByteString) throws {
        try naming(snapshot) {
            try DiskOutput.makeDirectory(path) { directory in
                let upper = try directory.makeFile(ByteString(snapshot.descriptor.file))
                try copy(snapshot, to: upper.file, path)
                let document = try directory.makeFile(ByteString(SnapshotDescriptor.fileName))
                try document.file.writeAll(snapshot.descriptor.canonicalBytes)
            }
        }
    }

    /// Stores a snapshot from a directory with `snapshot.json` and the disk's file, and keeps its identity. A digest that the descriptor records is
    /// compared with the file. If the name has this snapshot already, it is checked all the same, and stays.
    ///
    /// - Throws: `SnapshotError`, `RepositoryError`, `SystemError`.
    public func importSnapshot(_ path: ByteString, as name: ByteString, replaces: Bool = false) throws -> SnapshotReport {
        try SnapshotNames.check(name)
        let directory = try FileDescriptor.open(path, [.readOnly, .directory])
        let documentPath = path + "/" + ByteString(SnapshotDescriptor.fileName)
        let descriptor = try readDescriptor(in: directory, documentPath)
        try checkFree(name, for: descriptor.identity, replaces: replaces)
        guard descriptor.requires.isEmpty else {
            throw SnapshotError.requires(documentPath, extensions: descriptor.requires.joined(separator: ", "))
        }
        let filePath = path + "/" + ByteString(descriptor.file)
        let source = try UpperSource(ByteString(descriptor.file), in: directory, path: filePath)
        guard source.size == descriptor.size else {
            throw SnapshotError.fileSize(filePath, found: source.size, expected: descriptor.size)
        }
        var needsRecovery = false
        switch descriptor.format {
        case .raw: needsRecovery = try source.content().needsRecovery
        case .qcow2: try source.checkQcow2()
        }
        let upper = try UpperStorage.store(source, in: repository)
        if let recorded = descriptor.integrity {
            let found: SnapshotDescriptor.Integrity
            if case .merkle = recorded {
                found = .merkle(upper.root)
            } else {
                found = try UpperContent(repository, upper.stream, size: descriptor.size).integrity(like: recorded)
            }
            guard found == recorded else {
                throw SnapshotError.fileIntegrity(filePath, found: found.value, expected: recorded.value)
            }
        }
        var parent: StoredSnapshot?
        if let identity = descriptor.parent, try repository.stream(SnapshotNames.stream(identity)) != nil {
            parent = try open(ByteString(identity.description))
        }
        let snapshot = try publish(descriptor, upper, as: name, parent: parent, image: nil)
        return SnapshotReport(
            snapshot: snapshot, name: name, newObjects: upper.newObjects, newBytes: upper.newBytes, needsRecovery: needsRecovery)
    }

    private func readDescriptor(in directory: borrowing FileDescriptor, _ path: ByteString) throws -> SnapshotDescriptor {
        let name = ByteString(SnapshotDescriptor.fileName)
        guard try directory.statusIfPresent(at: name)?.kind ?? .regular == .regular else { throw SnapshotError.notRegularFile(path) }
        let file = try directory.open(at: name, [.readOnly, .nonBlocking, .noFollow])
        guard try file.status().size <= UInt64(SnapshotDescriptor.byteLimit) else {
            throw SnapshotError.document(path, .tooLarge(limit: SnapshotDescriptor.byteLimit))
        }
        let bytes = try file.readAll(limit: SnapshotDescriptor.byteLimit)
        do { return try SnapshotDescriptor(parsing: bytes) } catch { throw SnapshotError.document(path, error) }
    }

    /// Reads all of a snapshot, and compares the content with the digest that the descriptor records.
    ///
    /// - Throws: `SnapshotError.damaged`, `RepositoryError` if the store is damaged.
    public func verify(_ snapshot: StoredSnapshot) throws -> VerifiedSnapshot {
        try naming(snapshot) {
            let content = content(of: snapshot)
            let root = try content.root()
            var found = SnapshotDescriptor.Integrity.merkle(root)
            if let recorded = snapshot.descriptor.integrity {
                if case .merkle = recorded {} else { found = try content.integrity(like: recorded) }
                guard found == recorded else { throw SnapshotFault.integrity(found: found.value, expected: recorded.value) }
            }
            guard try repository.stream(SnapshotNames.upperStream(root)) == snapshot.upper else {
                throw SnapshotFault.unreadable("streams/\(SnapshotNames.upperStream(root)) does not lead to the content of its disk")
            }
            return VerifiedSnapshot(
                snapshot: snapshot, integrity: found, isRecorded: snapshot.descriptor.integrity != nil,
                hasParent: snapshot.descriptor.parent == nil ? nil : snapshot.parentStream != nil,
                hasImage: try images.image(snapshot.descriptor.imageManifest) != nil)
        }
    }

    /// Whether the journal of the file system has changes that are not applied yet; false if it is not known.
    public func needsRecovery(_ snapshot: StoredSnapshot) throws -> Bool {
        guard snapshot.descriptor.format == .raw else { return false }
        return try naming(snapshot) { UpperSource.content(try content(of: snapshot).prefix()).needsRecovery }
    }

    /// Checks the stream of the content without reading the content.
    func checkContent(of snapshot: StoredSnapshot) throws {
        try naming(snapshot) {
            try content(of: snapshot).checkLayout()
            guard case .merkle(let root)? = snapshot.descriptor.integrity else { return }
            let name = SnapshotNames.upperStream(root)
            guard try repository.stream(name) == snapshot.upper else {
                throw SnapshotFault.unreadable("streams/\(name) does not lead to the content of its disk")
            }
        }
    }

    func content(of snapshot: StoredSnapshot) -> UpperContent {
        UpperContent(repository, snapshot.upper, size: snapshot.descriptor.size)
    }

    /// Adds the snapshot to faults.
    private func naming<Result>(_ snapshot: StoredSnapshot, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch let fault as SnapshotFault {
            throw SnapshotError.damaged(ByteString(snapshot.identity.description), fault)
        } catch let error as SplitStreamError {
            throw SnapshotError.damaged(ByteString(snapshot.identity.description), .unreadable("\(error)"))
        }
    }
}
