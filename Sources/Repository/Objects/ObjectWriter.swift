internal import ComposefsBytes
package import ComposefsHashing
public import ComposefsLinuxSystem
internal import Synchronization

/// Stores an object whose content comes in parts. A writer that is dropped before `finish` leaves nothing behind.
public struct ObjectWriter: ~Copyable {
    private let repository: Repository
    private var temporary: Temporary
    private var hasher: VerityHasher
    /// Bytes so far.
    public private(set) var size: UInt64 = 0
    /// The number of zeros at the end that were not written: the file has a hole there.
    private var hole: UInt64 = 0
    private static let holeUnit = 64 << 10

    init(_ repository: Repository) throws(RepositoryError) {
        try repository.beginStoring()
        defer { repository.endStoring() }
        let temporary = try repository.makeTemporary(mode: 0o644)
        self.repository = repository
        self.temporary = temporary
        hasher = VerityHasher(repository.algorithm)
    }

    public mutating func append(_ content: UnsafeRawBufferPointer) throws(RepositoryError) {
        hasher.update(content)
        var start = 0
        while start < content.count {
            // Long runs of zeros, as in disk images and decompression bombs, cost neither space nor disk time.
            var end = min(start + Self.holeUnit, content.count)
            if isZero(UnsafeRawBufferPointer(rebasing: content[start..<end])) {
                hole += UInt64(end - start)
            } else {
                while end < content.count {
                    let next = min(end + Self.holeUnit, content.count)
                    if isZero(UnsafeRawBufferPointer(rebasing: content[end..<next])) { break }
                    end = next
                }
                try write(UnsafeRawBufferPointer(rebasing: content[start..<end]))
            }
            start = end
        }
        size += UInt64(content.count)
    }

    /// Appends a number of zeros, which cost no space.
    public mutating func append(zeros count: UInt64) {
        hasher.update(zeros: count)
        hole += count
        size += count
    }

    private mutating func write(_ content: UnsafeRawBufferPointer) throws(RepositoryError) {
        let skipped = Int64(clamping: hole)
        try system { () throws(SystemError) in
            if skipped > 0 { _ = try temporary.file.seek(to: skipped, from: .current) }
            try temporary.file.writeAll(content)
        }
        hole = 0
    }

    public mutating func append(_ content: [UInt8]) throws(RepositoryError) {
        try content.span.withUnsafeBytes { (bytes) throws(RepositoryError) in try append(bytes) }
    }

    /// Appends a file's content from its beginning to `end`.
    mutating func append(contentsOf file: borrowing FileDescriptor, end: UInt64) throws(RepositoryError) {
        try withTemporaryBuffer { (buffer) throws(RepositoryError) in
            var parts = FileParts(into: buffer, to: end)
            while let part = try system({ () throws(SystemError) in try parts.next(of: file) }) { try append(part) }
        }
    }

    /// From now on, collects the hashes of blocks, which `finish` returns; call it before content is appended.
    ///
    /// - Parameter limit: in bytes. If they are more, none are returned.
    package mutating func collectBlockHashes(limit: Int) { hasher.collectBlockHashes(limit: limit) }

    /// Names the object. Durable after the repository's next `publish` or `sync`.
    public consuming func finish() throws(RepositoryError) -> StoredObject { try finishWithBlockHashes().object }

    /// As `finish`. Also returns the hashes of the blocks, if they were collected.
    package consuming func finishWithBlockHashes() throws(RepositoryError) -> (object: StoredObject, blockHashes: [UInt8]?) {
        let id = hasher.finalize()
        let blockHashes = hasher.takeBlockHashes()
        return (try named(id), blockHashes)
    }

    private consuming func named(_ id: ObjectID) throws(RepositoryError) -> StoredObject {
        let end = size
        if hole > 0 { try system { () throws(SystemError) in try temporary.file.truncate(to: end) } }
        try repository.beginStoring()
        defer { repository.endStoring() }
        let path = Layout.objectPath(id)
        let found = try repository.inspect(id, size: size, at: path)
        if found == .good { return StoredObject(id: id, size: size, isNew: false) }
        return try repository.commit(&temporary, id, size: size, at: path, found: found)
    }
}

extension Repository {
    /// A writer for content that does not fit in memory or whose size is unknown.
    public func makeObjectWriter() throws(RepositoryError) -> ObjectWriter { try ObjectWriter(self) }
}

/// A new object whose content is written to a file in any order. A file that is dropped before `finish` leaves nothing behind.
public final class ObjectFile {
    private let repository: Repository
    private var temporary: Temporary

    init(_ repository: Repository) throws(RepositoryError) {
        try repository.beginStoring()
        defer { repository.endStoring() }
        let temporary = try repository.makeTemporary(mode: 0o644)
        self.repository = repository
        self.temporary = temporary
    }

    /// Lends the file, which is open for reading and writing. Copies of the descriptor must be closed before `finish`: the kernel enables fs-verity
    /// only on a file that is not open for writing.
    public func withFile<Result>(_ body: (borrowing FileDescriptor) throws -> Result) rethrows -> Result { try body(temporary.file) }

    /// Names the object. Durable after the repository's next `publish` or `sync`.
    ///
    /// - Parameter known: the object's ID, if the caller has hashed the content; otherwise it is read, with fs-verity by the kernel alone.
    package func finish(_ known: ObjectID? = nil) throws(RepositoryError) -> StoredObject {
        let id = try identifier(known)
        let size = try system { () throws(SystemError) in try temporary.file.status().size }
        try repository.beginStoring()
        defer { repository.endStoring() }
        let path = Layout.objectPath(id)
        let found = try repository.inspect(id, size: size, at: path)
        if found == .good { return StoredObject(id: id, size: size, isNew: false) }
        return try repository.commit(&temporary, id, size: size, at: path, found: found)
    }

    private func identifier(_ known: ObjectID?) throws(RepositoryError) -> ObjectID {
        if let known { return known }
        if let measured = try repository.measure(&temporary) { return measured }
        return try system { () throws(SystemError) in try hash(temporary.file, repository.algorithm) }
    }
}

extension Repository {
    /// Enables fs-verity on a complete temporary and returns the kernel's digest. Nil if the repository has none, or if a signature is needed, which
    /// the file must get at the same time.
    fileprivate func measure(_ temporary: inout Temporary) throws(RepositoryError) -> ObjectID? {
        guard isSecure, !signsObjects, !signing.hasOffers.load(ordering: .relaxed) else { return nil }
        do throws(SystemError) {
            guard try temporary.enableVerity(algorithm, in: root) else { throw SystemError("enable verity", path, .notSupported) }
        } catch {
            throw RepositoryError(enablingVerity: error, on: path)
        }
        return try system { () throws(SystemError) in try measuredVerity(temporary.file) }
    }

    /// A new object whose content the caller writes in any order.
    public func makeObjectFile() throws(RepositoryError) -> ObjectFile { try ObjectFile(self) }
}
