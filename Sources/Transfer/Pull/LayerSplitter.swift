import ComposefsBytes
import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
package import ComposefsRepository
import ComposefsSplitStream
import ComposefsTar

/// The fourth stage of a pull: its input are the buffers of an uncompressed layer. The contents of files become objects; all other bytes
/// are written to the split stream, in the archive's order.
///
/// The worker pool stores objects while the parser continues. The split stream needs their identifiers in order, so `operations` holds
/// everything that follows an object that has not been stored yet.
struct LayerSplitter: TarHandler, ~Copyable {
    private enum Operation {
        case inline(Int)
        case object(PendingObjects, Int)
        case boundary
    }

    /// One job stores a whole file up to this size, in bytes. Larger files are stored chunk by chunk.
    static let largeFileSize: UInt64 = 1024 * 1024
    private static let batchSize = 256 * 1024
    /// The most inline bytes that wait in memory for objects to be stored. (The buffers limit the bytes of the objects.)
    private static let waitingLimit = 4 << 20

    /// The buffer that is being parsed.
    var buffer: LayerBuffer?
    /// The split stream.
    var stream: StreamBuilder
    private(set) var statistics = LayerStatistics()

    private let repository: Repository
    private let pool: WorkerPool
    private let profile: PullProfile
    private let limits: PullLimits
    private let storedObjects: StoredObjects?
    private var entries: UInt64 = 0
    private let progress = Semaphore(0)
    private var outstanding = 0

    private var batch = ObjectBatch()
    private var file: [Chunk] = []
    private var large: LargeObject?

    /// Sparse files, whose expanded content is stored at the end, and the sum of their expanded sizes.
    private var sparse: [(entry: TarEntry, content: SparseContent)] = []
    private var sparseBytes: UInt64 = 0
    /// The sparse file whose content is being read.
    private var pendingSparse: TarEntry?
    private var sparseSegments = 0
    private static let sparseSegmentLimit = 1 << 20

    private enum SparseContent {
        case inline(ByteString)
        case object(PendingObjects, Int)
    }

    private var operations: [Operation] = []
    private var firstOperation = 0
    private var waiting: [UInt8] = []
    private var firstWaiting = 0

    init(
        _ repository: Repository, pool: WorkerPool, profile: PullProfile, limits: PullLimits, storedObjects: StoredObjects? = nil
    ) throws {
        let stream = try repository.makeStreamBuilder(contentType: StreamContentType.layer)
        self.init(repository, pool, profile, limits, storedObjects, stream)
    }

    // Separate from the initializer that throws: in a throwing initializer of a noncopyable type, Swift 6.2 destroys properties with
    // default values twice.
    private init(
        _ repository: Repository, _ pool: WorkerPool, _ profile: PullProfile, _ limits: PullLimits, _ storedObjects: StoredObjects?,
        _ stream: consuming StreamBuilder
    ) {
        self.repository = repository
        self.pool = pool
        self.profile = profile
        self.limits = limits
        self.storedObjects = storedObjects
        self.stream = stream
    }

    // MARK: Called by the parser

    mutating func inline(_ bytes: UnsafeRawBufferPointer) throws {
        statistics.inlineBytes += UInt64(bytes.count)
        if firstOperation == operations.count {
            try stream.inline(bytes)
            return
        }
        waiting.append(contentsOf: bytes)
        if case .inline(let count) = operations.last {
            operations[operations.count - 1] = .inline(count + bytes.count)
        } else {
            operations.append(.inline(bytes.count))
        }
    }

    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
        Misbehaviour.act(at: .split)
        try check(entry)
        guard case .external(let size) = content else {
            if entry.sparse != nil, case .inline(let bytes) = content { sparse.append((entry, .inline(bytes))) }
            return
        }
        pendingSparse = entry.sparse != nil ? entry : nil
        if size > Self.largeFileSize {
            submitBatch()
            let object = LargeObject(repository, pool: pool, profile: profile, storedObjects) { [progress] in progress.signal() }
            large = object
            outstanding += 1
            addObject(object.pending, 0)
        }
    }

    private mutating func addObject(_ pending: PendingObjects, _ index: Int) {
        operations.append(.object(pending, index))
        if let entry = pendingSparse.take() { sparse.append((entry, .object(pending, index))) }
    }

    private mutating func check(_ entry: TarEntry) throws(LimitExceeded) {
        entries += 1
        guard entries <= limits.layerEntries else { throw LimitExceeded(.layerEntries, allowed: limits.layerEntries) }
        let path = UInt64(entry.path.count)
        guard path <= limits.pathBytes else {
            let location = LimitExceeded.entry(entry.path, at: entry.headerOffset)
            throw LimitExceeded(.pathBytes, allowed: limits.pathBytes, found: path, location: location)
        }
        if let sparse = entry.sparse { try check(sparse, entry) }
        guard !entry.extendedAttributes.isEmpty else { return }
        let attributes = entry.extendedAttributes.reduce(UInt64(0)) { $0 + UInt64($1.name.count) + UInt64($1.value.count) }
        guard attributes <= limits.xattrBytes else {
            let location = LimitExceeded.entry(entry.path, at: entry.headerOffset)
            throw LimitExceeded(.xattrBytes, allowed: limits.xattrBytes, found: attributes, location: location)
        }
    }

    /// Checks the limits for a sparse file. Holes count with their size.
    private mutating func check(_ sparse: TarSparse, _ entry: TarEntry) throws(LimitExceeded) {
        let location = LimitExceeded.entry(entry.path, at: entry.headerOffset)
        let (sum, overflow) = sparseBytes.addingReportingOverflow(sparse.realSize)
        guard !overflow, sum <= limits.layerBytes else { throw LimitExceeded(.layerBytes, allowed: limits.layerBytes, location: location) }
        sparseBytes = sum
        sparseSegments += sparse.segments?.count ?? 0
        let limit = max(limits.layerEntries / 1000, 4096)
        guard sparseSegments <= Self.sparseSegmentLimit, UInt64(self.sparse.count) < limit else {
            throw LimitExceeded(.layerEntries, allowed: limits.layerEntries, location: location)
        }
    }

    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) throws {
        guard let buffer, let base = buffer.memory.baseAddress, let start = bytes.baseAddress, start >= UnsafeRawPointer(base),
            start + bytes.count <= UnsafeRawPointer(base) + buffer.count
        else { preconditionFailure("the parser has passed external bytes that are not in the current buffer") }
        let chunk = Chunk(buffer: buffer, start: start - UnsafeRawPointer(base), count: bytes.count)
        if let object = large {
            object.append(chunk, isLast: isLast)
            if isLast { large = nil }
            return
        }
        file.append(chunk)
        guard isLast else { return }
        let first = batch.chunks.count
        batch.chunks.append(contentsOf: file)
        batch.byteCount += file.reduce(0) { $0 + $1.count }
        file.removeAll(keepingCapacity: true)
        addObject(batch.pending, batch.files.count)
        batch.files.append(ObjectBatch.File(chunks: first..<batch.chunks.count))
        if batch.byteCount >= Self.batchSize { submitBatch() }
    }

    mutating func boundary() throws {
        if firstOperation == operations.count {
            try stream.allowBreak()
        } else {
            operations.append(.boundary)
        }
    }

    // MARK: Called by the pipeline

    /// Called after a buffer has been parsed. Submits the finished files, so that they do not hold the buffer longer than necessary.
    mutating func endOfBuffer() throws {
        submitBatch()
        buffer = nil
        try writeCompleted()
        // All outstanding jobs complete without further input, except for an unfinished large file, which no inline bytes follow yet.
        while waiting.count - firstWaiting > Self.waitingLimit, large == nil, outstanding > 0 { try awaitObject() }
    }

    private mutating func awaitObject() throws {
        progress.wait()
        outstanding -= 1
        try writeCompleted()
    }

    /// Waits for all objects and completes the split stream.
    consuming func finish() throws -> (stream: StoredObject, statistics: LayerStatistics) {
        try endOfBuffer()
        while outstanding > 0 { try awaitObject() }
        try writeCompleted()
        try storeSparseFiles()
        let statistics = statistics
        return (try stream.finish(), statistics)
    }

    // MARK: Internals

    private mutating func storeSparseFiles() throws {
        for (entry, content) in sparse {
            let stored: SparseFile.Stored =
                switch content {
                case .inline(let bytes): .inline(bytes)
                case .object(let pending, let index): .object(pending.results[index].id)
                }
            guard let id = try SparseFile.store(entry, stored, in: repository) else { continue }
            stream.addNamedReference(SparseFile.referenceName(entry), id)
        }
    }

    private mutating func submitBatch() {
        guard !batch.files.isEmpty else { return }
        let job = batch
        batch = ObjectBatch()
        outstanding += 1
        pool.submit { [repository, profile, storedObjects, progress] in
            job.store(in: repository, profile, storedObjects)
            progress.signal()
        }
    }

    private mutating func writeCompleted() throws {
        while firstOperation < operations.count {
            switch operations[firstOperation] {
            case .inline(let count):
                try waiting.withUnsafeBytes {
                    try stream.inline(UnsafeRawBufferPointer(rebasing: $0[firstWaiting..<(firstWaiting + count)]))
                }
                firstWaiting += count
            case .object(let pending, let index):
                guard pending.isDone else {
                    compact()
                    return
                }
                if let failure = pending.failure { throw failure }
                precondition(index < pending.results.count, "a job has stored fewer objects than files")
                let stored = pending.results[index]
                try stream.external(stored.id, size: stored.size)
                statistics.add(stored)
            case .boundary: try stream.allowBreak()
            }
            firstOperation += 1
        }
        compact()
    }

    /// Removes written entries from the front of both lists.
    private mutating func compact() {
        if firstOperation == operations.count {
            operations.removeAll(keepingCapacity: true)
            waiting.removeAll(keepingCapacity: true)
            firstOperation = 0
            firstWaiting = 0
        } else if firstWaiting > 1 << 20 || firstOperation > 1 << 14 {
            operations.removeFirst(firstOperation)
            waiting.removeFirst(firstWaiting)
            firstOperation = 0
            firstWaiting = 0
        }
    }
}

/// Objects and bytes of stored layers.
public struct LayerStatistics: Sendable, Hashable, Codable {
    /// The number of objects that were not in the store.
    public var newObjects = 0
    /// The number of objects that were in the store, counted with every occurrence.
    public var presentObjects = 0
    /// The size of the new objects, in bytes.
    public var storedBytes: UInt64 = 0
    /// The size of the inline data in the split streams, before compression, in bytes.
    public var inlineBytes: UInt64 = 0

    /// Counts of zero.
    public init() {}

    /// The number of all objects, new and present.
    public var objects: Int { newObjects + presentObjects }

    package mutating func add(_ object: StoredObject) {
        if object.isNew {
            newObjects += 1
            storedBytes += object.size
        } else {
            presentObjects += 1
        }
    }

    /// Adds another layer's counts.
    public static func += (lhs: inout LayerStatistics, rhs: LayerStatistics) {
        lhs.newObjects += rhs.newObjects
        lhs.presentObjects += rhs.presentObjects
        lhs.storedBytes += rhs.storedBytes
        lhs.inlineBytes += rhs.inlineBytes
    }
}
