import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSnapshotFormat

/// The content of a disk in the repository.
struct StoredUpper: Sendable {
    var stream: ObjectID
    var root: Blake3Digest
    /// The objects that the repository did not have.
    var newObjects = 0
    var newBytes: UInt64 = 0
}

/// Stores the content of a disk: leaves are read, hashed and stored on several threads; holes are not read.
struct UpperStorage: ~Copyable {
    /// Consecutive leaves that one thread reads.
    private struct Unit: Sendable {
        var first: UInt64
        var count: UInt64
    }

    /// A leaf that is not all zeros.
    private struct Leaf: Sendable {
        var object: StoredObject
        var digest: Blake3Digest
    }

    private static let unitLength: UInt64 = 16
    /// The units between two waits for all threads.
    private static let windowLength = 64
    /// The leaves that one call reads: less than what makes the allocator ask the kernel for memory.
    private static let readLength: UInt64 = 2

    private let source: UpperSource
    private let repository: Repository
    private let layout: UpperLayout
    private var builder: StreamBuilder
    private var tree: UpperMerkleTree
    /// The leaves so far, with the zeros that are not in the stream yet.
    private var position: UInt64 = 0
    private var zeros: UInt64 = 0
    private var newObjects = 0
    private var newBytes: UInt64 = 0

    /// - Throws: `SnapshotError.changed`, `RepositoryError`, `SystemError`. Nothing refers to what was stored by then.
    static func store(_ source: UpperSource, in repository: Repository) throws -> StoredUpper {
        try checkSpace(source, repository)
        var storage = try UpperStorage(source, repository)
        try storage.readAll()
        try source.checkUnchanged()
        return try storage.finish()
    }

    private init(_ source: UpperSource, _ repository: Repository) throws {
        // First: Swift 6.2 ends with an error of its own if this throws when a part of the value is initialised.
        let builder = try repository.makeStreamBuilder(contentType: UpperLayout.contentType)
        self.source = source
        self.repository = repository
        layout = UpperLayout(size: source.size, repository.algorithm)
        self.builder = builder
        tree = UpperMerkleTree(size: source.size)
    }

    private consuming func finish() throws -> StoredUpper {
        let root = tree.finish()
        let (objects, bytes) = (newObjects, newBytes)
        let stream = try builder.finish()
        return StoredUpper(stream: stream.id, root: root, newObjects: objects, newBytes: bytes)
    }

    // MARK: Reading

    private mutating func readAll() throws {
        let leaves = UpperMerkleTree.leafCount(of: layout.size)
        var run = try Self.data(of: source, from: 0)
        while let first = run {
            let window = try Self.window(of: source, from: first)
            run = window.next
            let (source, repository) = (source, repository)
            let read = parallelMap(window.units, threads: Host.processorCount, batch: 1) { unit in
                Result { try Self.store(unit, source, repository) }
            }
            for (unit, result) in zip(window.units, read) { try append(try result.get(), at: unit.first) }
        }
        try skip(to: leaves)
        try flushZeros()
    }

    /// The next units, and the leaves with data that follow them.
    private static func window(of source: UpperSource, from first: Range<UInt64>) throws -> (units: [Unit], next: Range<UInt64>?) {
        var units: [Unit] = []
        var current: Range<UInt64>? = first
        while units.count < windowLength, let range = current {
            let count = min(unitLength, range.upperBound - range.lowerBound)
            units.append(Unit(first: range.lowerBound, count: count))
            let rest = (range.lowerBound + count)..<range.upperBound
            current = rest.isEmpty ? try data(of: source, from: range.upperBound) : rest
        }
        return (units, current)
    }

    /// The next leaves with data.
    private static func data(of source: UpperSource, from leaf: UInt64) throws -> Range<UInt64>? {
        let offset = leaf * UpperLayout.leafSize
        guard offset < source.size, let data = try source.file.nextData(from: offset), data < source.size else { return nil }
        let hole = min(source.size, try source.file.nextHole(from: max(data, offset)))
        let first = max(leaf, data / UpperLayout.leafSize)
        // A file that changes meanwhile may have a hole there by now.
        return first..<max(first + 1, UpperMerkleTree.leafCount(of: hole))
    }

    /// Reads, hashes and stores leaves. Nil stands for one that is all zeros.
    private static func store(_ unit: Unit, _ source: UpperSource, _ repository: Repository) throws -> [Leaf?] {
        var leaves: [Leaf?] = []
        var hasher = VerityHasher(repository.algorithm)
        var leafHasher = LeafHasher()
        try read(unit, source) { leaf in
            guard let leaf else { return leaves.append(nil) }
            leaves.append(Leaf(object: try repository.storeObject([leaf], hasher: &hasher), digest: leafHasher.digest(leaf)))
        }
        return leaves
    }

    /// Calls `body` with each leaf, or with nil for one that is all zeros.
    private static func read(_ unit: Unit, _ source: UpperSource, _ body: (UnsafeRawBufferPointer?) throws -> Void) throws {
        let leafSize = Int(UpperLayout.leafSize)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(readLength) * leafSize, alignment: 4096)
        defer { buffer.deallocate() }
        var offset = unit.first * UpperLayout.leafSize
        let end = min(source.size, (unit.first + unit.count) * UpperLayout.leafSize)
        while offset < end {
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(min(end - offset, UInt64(buffer.count)))])
            guard try source.file.preadFully(into: part, at: offset) == part.count else { throw SnapshotError.changed(source.path) }
            for start in stride(from: 0, to: part.count, by: leafSize) {
                let leaf = UnsafeRawBufferPointer(rebasing: part[start..<min(part.count, start + leafSize)])
                try body(isZero(leaf) ? nil : leaf)
            }
            offset += UInt64(part.count)
        }
    }

    // MARK: Space

    /// The most new leaves that are told from each other: 128 GiB.
    private static let mostCompared = 1 << 21

    /// Refuses a disk whose new leaves certainly do not fit. If all leaves with data do, nothing is read; otherwise leaves are hashed until those that
    /// are left fit, or to the end.
    ///
    /// - Throws: `SnapshotError.noSpace`, `.changed`; `RepositoryError`, `SystemError`.
    private static func checkSpace(_ source: UpperSource, _ repository: Repository) throws {
        let space = DiskSpace(path: repository.path, status: try repository.fileSystemStatus())
        guard let free = space.freeBytes else { return }
        var run = try data(of: source, from: 0)
        var left: UInt64 = 0
        while let leaves = run {
            left += UInt64(leaves.count) * UpperLayout.leafSize
            run = try data(of: source, from: leaves.upperBound)
        }
        // Beginnings of object IDs: equal ones count once, so there is never one too many.
        var new: Set<UInt64> = []
        var needed: UInt64 = 0
        run = try data(of: source, from: 0)
        while let first = run, needed.saturatingAdd(left) > free, new.count < mostCompared {
            let window = try window(of: source, from: first)
            run = window.next
            let found = parallelMap(window.units, threads: Host.processorCount, batch: 1) { unit in
                Result { try missing(unit, source, repository) }
            }
            for (unit, result) in zip(window.units, found) {
                left -= min(left, unit.count * UpperLayout.leafSize)
                for leaf in try result.get() where new.insert(leaf.id).inserted { needed += leaf.byteCount }
            }
        }
        guard needed <= free else { throw SnapshotError.noSpace(repository.path, needed: needed, free: free) }
    }

    private static func hasObject(_ id: ObjectID, _ repository: Repository) throws -> Bool {
        do throws(RepositoryError) {
            return try repository.objectSize(id) != nil
        } catch {
            // It is replaced. (Not as a pattern of `catch`, with which Swift 6.2 stops.)
            if case .objectDamaged = error { return false }
            throw error
        }
    }

    /// The leaves that the repository does not have.
    private static func missing(
        _ unit: Unit, _ source: UpperSource, _ repository: Repository
    ) throws -> [(id: UInt64, byteCount: UInt64)] {
        var found: [(id: UInt64, byteCount: UInt64)] = []
        var hasher = VerityHasher(repository.algorithm)
        try read(unit, source) { leaf in
            guard let leaf else { return }
            hasher.update(leaf)
            let id = hasher.finalize()
            guard try !hasObject(id, repository) else { return }
            found.append((id.bytes.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }, UInt64(leaf.count)))
        }
        return found
    }

    // MARK: Writing

    private mutating func append(_ leaves: [Leaf?], at first: UInt64) throws {
        try skip(to: first)
        for leaf in leaves {
            guard let leaf else {
                try skip(to: position + 1)
                continue
            }
            try flushZeros()
            try builder.external(leaf.object.id, size: leaf.object.size)
            tree.append(leaf.digest)
            position += 1
            count(leaf.object)
        }
    }

    private mutating func skip(to leaf: UInt64) throws {
        precondition(leaf >= position)
        tree.append(zeroLeaves: leaf - position)
        zeros += leaf - position
        position = leaf
    }

    /// Adds the zeros before this place to the stream.
    private mutating func flushZeros() throws {
        guard zeros > 0 else { return }
        let isAtEnd = position == UpperMerkleTree.leafCount(of: layout.size)
        let tail = isAtEnd ? layout.size % UpperLayout.leafSize : 0
        if tail > 0 { zeros -= 1 }
        try add(zeros: UpperLayout.runSize, zeros / UpperLayout.runLength)
        try add(zeros: UpperLayout.leafSize, zeros % UpperLayout.runLength)
        if tail > 0 { try add(zeros: tail, 1) }
        zeros = 0
    }

    private mutating func add(zeros size: UInt64, _ number: UInt64) throws {
        guard number > 0 else { return }
        var writer = try repository.makeObjectWriter()
        writer.append(zeros: size)
        // It is a hole, and not counted.
        let object = try writer.finish()
        for _ in 0..<number { try builder.external(object.id, size: size) }
    }

    private mutating func count(_ object: StoredObject) {
        guard object.isNew else { return }
        newObjects += 1
        newBytes += object.size
    }
}
