import ComposefsBytes
import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTransports
import Synchronization

/// A layer that a pull has to store: an archive with a diff ID, or an artifact's blob, which is stored unchanged.
struct LayerTask: Sendable {
    /// The index in the manifest, counted from 0.
    var index: Int
    var descriptor: Descriptor
    /// Nil for a blob that is stored unchanged.
    var diffID: ContentDigest?
    /// Whether this is the original blob of a stored layer, to be kept beside it.
    var isKeptBlob = false
    /// The digest that identifies the layer in the store.
    var identifier: ContentDigest { diffID ?? descriptor.digest }
    var streamName: ByteString { isKeptBlob ? StreamName.blob(descriptor.digest) : StreamName.layer(identifier) }
}

/// The layers of an image, all of which are in the store.
struct PulledLayers: Sendable {
    var streams: [ContentDigest: ObjectID] = [:]
    var new = 0
    var present = 0
    var statistics = LayerStatistics()
}

/// Stores the missing layers of an image, several at the same time.
struct LayerPull: Sendable {
    let source: any ImageSource
    let repository: Repository
    let options: PullOptions
    let reporter: PullReporter
    let profile: PullProfile
    /// Called on any thread when a layer is in the store, with its stream and the bytes of objects that were new.
    var wasStored: (@Sendable (ContentDigest, ObjectID, _ newBytes: UInt64) -> Void)?
    /// Remembers new objects.
    var storedObjects: StoredObjects?
    private var store: ImageStore { ImageStore(repository) }

    init(source: any ImageSource, repository: Repository, options: PullOptions, reporter: PullReporter, profile: PullProfile) {
        self.source = source
        self.repository = repository
        self.options = options
        self.reporter = reporter
        self.profile = profile
    }

    /// Stores all missing layers of `tasks`.
    ///
    /// - Parameter count: the number of the image's layers, for messages.
    /// - Throws: the first `PullError.layer`.
    func run(_ tasks: [LayerTask], count: Int) throws -> PulledLayers {
        var found = PulledLayers()
        var missing: [ContentDigest: LayerTask] = [:]
        for task in tasks {
            if let first = missing[task.identifier] {
                reporter.layer(task.index, .skipped(.repeated(of: first.index)))
            } else if found.streams[task.identifier] != nil {
                reporter.layer(task.index, .skipped(.present))
            } else if let stream = try presentLayer(task) {
                found.streams[task.identifier] = stream
                found.present += 1
                // Reported before the disk's thread is told of the layer: the events of a layer come in order.
                reporter.layer(task.index, .skipped(.present))
                wasStored?(task.identifier, stream, 0)
            } else {
                missing[task.identifier] = task
                reporter.layer(task.index, .queued)
            }
        }
        guard !missing.isEmpty else { return found }
        // The largest first, so that no large layer runs alone at the end.
        let order = missing.values.sorted { ($0.descriptor.size, $1.index) > ($1.descriptor.size, $0.index) }
        try checkLimits(order, count)
        let jobs = max(1, min(options.jobs ?? max(2, Host.processorCount), order.count))
        let layerPool = WorkerPool(threads: jobs)
        let pipeline = LayerPipeline(
            repository: repository, objectPool: WorkerPool(threads: Host.processorCount), readerPool: WorkerPool(threads: jobs),
            profile: profile, limits: options.limits, storedObjects: storedObjects)
        defer {
            // No thread continues after the pull has ended, even with an error.
            layerPool.shutdown()
            pipeline.shutdown()
        }
        let queue = LayerQueue(
            order, isRemote: source.isRemote, repository: repository, reporter: reporter, count: count, options.cancellation)
        let layers = Mutex(found)
        let finished = Semaphore(0)
        for _ in 0..<jobs {
            layerPool.submit {
                while let (task, lease) = queue.next() {
                    do {
                        let layer = try fetch(task, lease, pipeline)
                        layers.withLock { $0.add(layer, task.identifier) }
                        wasStored?(task.identifier, layer.stream, layer.newBytes)
                    } catch {
                        queue.fail(task, explained(error, task))
                    }
                }
                finished.signal()
            }
        }
        for _ in 0..<jobs { finished.wait() }
        if let failure = queue.failure { throw failure }
        return layers.withLock { $0 }
    }

    /// Stores the original blobs of layers, if the options say so. Blobs that were not kept during an import, because the store already had
    /// the layer or another pull stored it, are fetched now.
    func keepBlobs(_ layers: [LayerTask], count: Int) throws -> [(digest: ContentDigest, stream: ObjectID)] {
        guard options.keepsBlobs else { return [] }
        var kept: [ContentDigest: ObjectID] = [:]
        var missing: [LayerTask] = []
        for task in layers where task.descriptor.digest != task.diffID && kept[task.descriptor.digest] == nil {
            let digest = task.descriptor.digest
            if let stream = try store.presentKeptBlob(digest, options.policy == .always ? .content : .objects) {
                kept[digest] = stream
            } else if !missing.contains(where: { $0.identifier == digest }) {
                missing.append(LayerTask(index: task.index, descriptor: task.descriptor, isKeptBlob: true))
            }
        }
        if !missing.isEmpty { kept.merge(try run(missing, count: count).streams) { first, _ in first } }
        return kept.map { (digest: $0.key, stream: $0.value) }
    }

    /// Checks sizes against limits and free space before the first byte is read.
    private func checkLimits(_ missing: [LayerTask], _ count: Int) throws {
        var (packed, kept): (UInt64, UInt64) = (0, 0)
        for task in missing {
            let size = task.descriptor.size
            if task.diffID != nil, size > options.limits.layerBytes {
                let cause = LimitExceeded(.layerBytes, allowed: options.limits.layerBytes, found: size)
                throw PullError.layer(number: task.index + 1, of: count, task.descriptor.digest, cause: cause)
            }
            let partial = source.isRemote ? repository.partialBlobLength(ByteString(task.descriptor.digest.description)) : 0
            let rest = size - min(size, partial)
            if task.diffID == nil { kept = kept.saturatingAdd(rest) } else { packed = packed.saturatingAdd(rest) }
            // The partial blob is removed after the import, and the kept blob is written again.
            if keepsBlob(of: task) { kept = kept.saturatingAdd(size) }
        }
        guard options.checksSpace else { return }
        let space = SpaceCheck(
            compressedBytes: packed, blobBytes: kept, layers: missing.count, try repository.fileSystemStatus(),
            isPrivileged: Host.effectiveUserID == 0)
        try space.check(repository.path)
    }

    /// Whether the original blob is kept beside the layer. An uncompressed blob is not: it can be re-assembled from the split stream.
    private func keepsBlob(of task: LayerTask) -> Bool {
        guard options.keepsBlobs, let diffID = task.diffID else { return false }
        return task.descriptor.digest != diffID
    }

    /// The layer's stream, if the store has one whose content has been verified.
    private func presentLayer(_ task: LayerTask) throws -> ObjectID? {
        let check: ReuseCheck = options.policy == .always ? .content : .objects
        if task.isKeptBlob { return try store.presentKeptBlob(task.identifier, check) }
        return if let diffID = task.diffID { try store.presentLayer(diffID, check) } else { try store.presentBlob(task.identifier) }
    }

    /// Names what is damaged of a layer that had to be fetched only because of that.
    private func explained(_ error: any Error, _ task: LayerTask) -> any Error {
        if error is CancellationError { return error }
        guard let stream = (try? store.usableStream(task.streamName)) ?? nil, let object = (try? store.damagedObject(of: stream)) ?? nil
        else { return error }
        return PullError.damagedLayer(object, cause: error)
    }

    /// Stores one layer, unless another pull has stored it in the meantime.
    private func fetch(_ task: LayerTask, _ lease: BlobLease?, _ pipeline: LayerPipeline) throws -> FetchedLayer {
        if let lease, let stream = try presentLayer(task) {
            lease.remove()
            reporter.layer(task.index, .skipped(.present))
            return .present(stream)
        }
        lease?.keep(limit: options.keptBytesLimit)
        let download = source.download(task.descriptor, partial: lease, options.cancellation) { report($0, task) }
        let imported = try download.verified(by: BlobDownload.Verdict.ofImport) { try importLayer(task, $0, pipeline) }
        // The layer is staged now, so another pull that gets the lease finds it.
        lease?.remove()
        return .new(imported)
    }

    private func report(_ event: BlobEvent, _ task: LayerTask) {
        switch event {
        case .retrying(let reason, let delay): reporter.layer(task.index, .retrying(reason: reason, delay: delay))
        case .resumed(let offset): reporter.layer(task.index, .resumed(from: offset))
        }
    }

    private func importLayer(_ task: LayerTask, _ blob: any BlobReader, _ pipeline: LayerPipeline) throws -> LayerPipeline.Imported {
        reporter.layer(task.index, .started)
        let imported: LayerPipeline.Imported
        if let diffID = task.diffID {
            let received = Mutex(UInt64(0))
            let keeper = keepsBlob(of: task) ? try BlobKeeper(repository) : nil
            imported = try pipeline.run(blob, task.descriptor, diffID: diffID, keeper: keeper) { count in
                let total = received.withLock { total in
                    total += count
                    return total
                }
                reporter.layer(task.index, .bytes, done: total)
            }
            reporter.layer(task.index, .verified)
            try keeper?.finish(task.descriptor.digest)
            try LayerHint.set(diffID, on: imported.stream, in: repository)
        } else {
            imported = try store.importBlob(blob, task.descriptor, profile: profile) { [reporter] in
                reporter.layer(task.index, .bytes, done: $0)
            }
            reporter.layer(task.index, .verified)
            if task.isKeptBlob { try LayerHint.set(task.identifier, on: imported.stream, in: repository) }
        }
        try repository.stage(task.streamName, imported.stream)
        reporter.layer(task.index, .stored)
        return imported
    }
}

private enum FetchedLayer {
    case new(LayerPipeline.Imported)
    /// Another pull has stored the layer.
    case present(ObjectID)

    var stream: ObjectID {
        switch self {
        case .new(let imported): imported.stream
        case .present(let stream): stream
        }
    }

    var newBytes: UInt64 {
        switch self {
        case .new(let imported): imported.statistics.storedBytes
        case .present: 0
        }
    }
}

extension PulledLayers {
    fileprivate mutating func add(_ layer: FetchedLayer, _ identifier: ContentDigest) {
        switch layer {
        case .new(let imported):
            streams[identifier] = imported.stream
            new += 1
            statistics += imported.statistics
        case .present(let stream):
            streams[identifier] = stream
            present += 1
        }
    }
}
