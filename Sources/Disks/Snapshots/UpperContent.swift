import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSnapshotFormat
import ComposefsSplitStream
import Synchronization

/// The content of a disk in the store, for reading. Every object is verified before its bytes are believed.
struct UpperContent: Sendable {
    let repository: Repository
    let stream: ObjectID
    let layout: UpperLayout

    private static let windowLength = 1024
    private static let batchLength = 16

    init(_ repository: Repository, _ stream: ObjectID, size: UInt64) {
        self.repository = repository
        self.stream = stream
        layout = UpperLayout(size: size, repository.algorithm)
    }

    /// Calls `body` with parts that follow each other and cover the disk, many at a time.
    ///
    /// - Throws: `SnapshotFault`, `RepositoryError`.
    private func forEachWindow(_ body: ([UpperLayout.Part]) throws -> Void) throws {
        var reader = try repository.openStream(stream, contentType: UpperLayout.contentType)
        guard reader.totalSize == layout.size else { throw SnapshotFault.size(found: reader.totalSize, expected: layout.size) }
        var parts: [UpperLayout.Part] = []
        var offset: UInt64 = 0
        while true {
            let chunk: ObjectID?
            do {
                switch try reader.next() {
                case .external(let object)?: chunk = object
                case .inline?: throw SnapshotFault.layout(offset: offset)
                case nil: chunk = nil
                }
            } catch let error as SplitStreamError {
                throw SnapshotFault.unreadable("\(error)")
            }
            guard let chunk else {
                guard offset == layout.size else { throw SnapshotFault.size(found: offset, expected: layout.size) }
                return try body(parts)
            }
            guard let part = layout.part(chunk, at: offset) else { throw SnapshotFault.layout(offset: offset) }
            offset += part.count
            if part.object == nil, let last = parts.last, last.object == nil {
                parts[parts.count - 1].count += part.count
            } else {
                parts.append(part)
            }
            if parts.count >= Self.windowLength {
                try body(parts)
                parts.removeAll(keepingCapacity: true)
            }
        }
    }

    /// Calls `work` with parts that follow each other, on several threads, and `collect` with what it returns, in the order of the parts.
    ///
    /// - Throws: `SnapshotFault`, `RepositoryError`; the first error of `work` or `collect`.
    private func forEachBatch<Value: Sendable>(
        _ work: @escaping @Sendable (ArraySlice<UpperLayout.Part>) throws -> Value,
        collect: (ArraySlice<UpperLayout.Part>, Value) throws -> Void
    ) throws {
        try forEachWindow { parts in
            let batches = stride(from: 0, to: parts.count, by: Self.batchLength).map {
                parts[$0..<min(parts.count, $0 + Self.batchLength)]
            }
            let results = parallelMap(batches, threads: Host.processorCount, batch: 1) { batch in Result { try work(batch) } }
            for (batch, result) in zip(batches, results) { try collect(batch, try result.get()) }
        }
    }

    /// Reads the stream alone.
    ///
    /// - Throws: `SnapshotFault`, `RepositoryError`.
    func checkLayout() throws { try forEachWindow { _ in } }

    // MARK: Copying

    /// Refuses a copy that certainly does not fit. If all leaves with data do, no object is read; otherwise blocks with data are counted.
    ///
    /// - Throws: `DiskError.noSpace`; as `copy`.
    func checkSpace(_ space: DiskSpace) throws {
        guard let free = space.freeBytes else { return }
        var leaves: UInt64 = 0
        try forEachWindow { parts in for part in parts where part.object != nil { leaves += part.count } }
        guard leaves > free else { return }
        var needed: UInt64 = 0
        try forEachBatch { [repository] batch in
            var count: UInt64 = 0
            try Self.withLeaves(batch, repository) { _, _, read in
                Self.forEachRun(of: try read()) { count += UInt64($0.count) }
            }
            return count
        } collect: { _, count in
            needed += count
            guard needed <= free else { throw DiskError.noSpace(space.path, needed: needed, free: free) }
        }
    }

    private final class Target: Sendable {
        let file: FileDescriptor
        let canClone = Atomic<Bool>(true)

        init(_ file: consuming FileDescriptor) { self.file = file }
    }

    /// Writes the content to an empty file. Zeros become holes, and whole objects are shared with the file if the file system can.
    ///
    /// - Throws: `SnapshotFault`, `RepositoryError.objectMissing`, `.objectDamaged`, `SystemError`.
    func copy(to file: borrowing FileDescriptor) throws {
        let target = Target(try file.duplicate())
        try file.truncate(to: layout.size)
        try forEachBatch { [repository] batch in
            try Self.copy(batch, to: target, repository)
        } collect: { _, _ in
        }
    }

    private static func copy(_ parts: ArraySlice<UpperLayout.Part>, to target: Target, _ repository: Repository) throws {
        try withLeaves(parts, repository) { part, file, read in
            if part.count == UpperLayout.leafSize, target.canClone.load(ordering: .relaxed) {
                // Without fs-verity the bytes must be read in any case, before they are shared.
                if !repository.isSecure { _ = try read() }
                do throws(SystemError) {
                    return try target.file.cloneRange(from: file, at: 0, to: part.offset, count: part.count)
                } catch {
                    // Whatever the reason is: writing either works or reports it.
                    target.canClone.store(false, ordering: .relaxed)
                }
            }
            let leaf = try read()
            try forEachRun(of: leaf) { (run) throws(SystemError) in
                let bytes = UnsafeRawBufferPointer(rebasing: leaf[run])
                try target.file.pwriteAll(bytes, at: part.offset + UInt64(run.lowerBound))
            }
        }
        if let first = parts.first, let last = parts.last {
            target.file.startWriteback(at: first.offset, count: last.offset + last.count - first.offset)
        }
    }

    /// Calls `body` with ranges of blocks that are not all zeros.
    private static func forEachRun<Failure>(
        of leaf: UnsafeRawBufferPointer, _ body: (Range<Int>) throws(Failure) -> Void
    ) throws(Failure) {
        let blockSize = 4096
        var start = 0
        while start < leaf.count {
            var end = start
            while end < leaf.count {
                let next = min(leaf.count, end + blockSize)
                if isZero(UnsafeRawBufferPointer(rebasing: leaf[end..<next])) { break }
                end = next
            }
            if end > start { try body(start..<end) }
            // The block at `end` is a hole.
            start = end + blockSize
        }
    }

    /// Opens each object, and calls `body` with a function that reads and verifies it.
    private static func withLeaves(
        _ parts: ArraySlice<UpperLayout.Part>, _ repository: Repository,
        _ body: (UpperLayout.Part, borrowing FileDescriptor, () throws -> UnsafeRawBufferPointer) throws -> Void
    ) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(UpperLayout.leafSize), alignment: 4096)
        defer { buffer.deallocate() }
        for part in parts {
            guard let object = part.object else { continue }
            let file = try repository.openObject(object, verify: repository.isSecure)
            let size = try file.status().size
            guard size == part.count else { throw DiskError.objectSize(object, found: size, expected: part.count) }
            try body(part, file) {
                let leaf = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(part.count)])
                let count = try file.preadFully(into: leaf, at: 0)
                guard count == leaf.count else { throw DiskError.objectSize(object, found: UInt64(count), expected: part.count) }
                if !repository.isSecure {
                    let actual = VerityHasher.objectID(of: UnsafeRawBufferPointer(leaf), repository.algorithm)
                    guard actual == object else { throw RepositoryError.objectDamaged(object, .digest(actual)) }
                }
                return UnsafeRawBufferPointer(leaf)
            }
        }
    }

    // MARK: Digests

    /// Reads all of the content.
    ///
    /// - Returns: the root of the Merkle tree.
    /// - Throws: as `copy`.
    func root() throws -> Blake3Digest {
        var tree = UpperMerkleTree(size: layout.size)
        try forEachBatch { [repository] batch in
            var digests: [Blake3Digest] = []
            var hasher = LeafHasher()
            try Self.withLeaves(batch, repository) { _, _, read in digests.append(hasher.digest(try read())) }
            return digests
        } collect: { batch, digests in
            var found = digests[...]
            for part in batch {
                if part.object == nil {
                    tree.append(zeroLeaves: UpperMerkleTree.leafCount(of: part.count))
                } else if let digest = found.popFirst() {
                    tree.append(digest)
                }
            }
        }
        return tree.finish()
    }

    /// SHA-256 of some bytes and all of the content, whose zeros are hashed, too.
    func sha256(after prefix: [UInt8]) throws -> ContentDigest {
        var hasher = DigestHasher(.sha256)
        prefix.withUnsafeBytes { hasher.update($0) }
        let zeros = [UInt8](repeating: 0, count: 1 << 16)
        let repository = repository
        try forEachWindow { parts in
            for part in parts {
                var left = part.object == nil ? part.count : 0
                while left > 0 {
                    let count = min(left, UInt64(zeros.count))
                    zeros.withUnsafeBytes { hasher.update(UnsafeRawBufferPointer(rebasing: $0[..<Int(count)])) }
                    left -= count
                }
                try Self.withLeaves([part], repository) { _, _, read in hasher.update(try read()) }
            }
        }
        return hasher.finalize()
    }

    /// The digest of the content by the algorithm of a descriptor's integrity.
    func integrity(like recorded: SnapshotDescriptor.Integrity) throws -> SnapshotDescriptor.Integrity {
        switch recorded {
        case .merkle: return .merkle(try root())
        case .sha256: return .sha256(try sha256(after: []))
        case .sparseSHA256:
            let size = (0..<8).map { UInt8(truncatingIfNeeded: layout.size >> (8 * UInt64($0))) }
            return .sparseSHA256(try sha256(after: Array("msb-sparse-sha256-v1".utf8) + [0] + size))
        }
    }

    /// The first bytes, verified.
    func prefix() throws -> [UInt8] {
        var reader = try repository.openStream(stream, contentType: UpperLayout.contentType)
        guard case .external(let object)? = try reader.next(), let part = layout.part(object, at: 0) else {
            throw SnapshotFault.layout(offset: 0)
        }
        guard part.object != nil else { return [] }
        return try repository.readObject(object, limit: Int(UpperLayout.leafSize))
    }
}
