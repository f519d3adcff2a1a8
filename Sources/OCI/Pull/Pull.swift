import Bytes
import Compression
import EROFS
import FileTree
import Hashing
import LinuxSystem
public import Repository
import SplitStream
import Synchronization

/// Brings an image from a source into a repository: every layer as a split stream over verified objects, the EROFS image of the merged
/// tree, config and manifest, and one tag that keeps them all alive.
///
/// Nothing that a reader of the store can see changes before everything is verified and durable; then the tag appears. A pull that is
/// killed leaves the layers it had finished for the next one.
///
/// Synchronous, on threads of its own.
///
/// - Throws: `OCIError` where a document or reference is refused, `PullError` where content is, `ImageStoreError.invalidTag`,
///   `RepositoryError`, and what the source throws. A layer's failure comes as `PullError.layer`, with the cause inside.
public func pullImage(
    from source: any ImageSource, into repository: Repository, _ options: PullOptions = PullOptions()
) throws -> PullResult {
    try ImagePull(source: source, repository: repository, options: options, reporter: PullReporter(options.observer)).run()
}

private struct ImagePull {
    let source: any ImageSource
    let repository: Repository
    let options: PullOptions
    let reporter: PullReporter
    let profile = PullProfile()
    var store: ImageStore { ImageStore(repository) }

    func run() throws -> PullResult {
        let name = options.name ?? ByteString(source.canonicalName)
        try ImageTag.check(name)
        reporter.image(.resolving(reference: source.canonicalName))
        let resolved = try resolveManifest(source, platform: options.platform)
        let manifest = resolved.manifest
        reporter.resolved(PullEvent.Resolution(manifest: resolved.digest, layers: manifest.layers))
        try repository.beginPull()
        let configBytes = try read(manifest.config)
        return manifest.isImage
            ? try pullContainer(resolved, configBytes, name) : try pullArtifact(resolved, configBytes, name)
    }

    // MARK: Images with a root file system

    private func pullContainer(_ resolved: ResolvedManifest, _ configBytes: [UInt8], _ name: ByteString) throws -> PullResult {
        let manifest = resolved.manifest
        let config = try ImageConfig(parsing: configBytes)
        guard config.diffIDs.count == manifest.layers.count else {
            throw PullError.layerCount(layers: manifest.layers.count, diffIDs: config.diffIDs.count)
        }
        let layers = try importLayers(
            zip(manifest.layers, config.diffIDs).enumerated().map { LayerTask(index: $0, descriptor: $1.0, diffID: $1.1) },
            count: manifest.layers.count)
        let streams = config.diffIDs.compactMap { diffID in layers.streams[diffID].map { (diffID: diffID, stream: $0) } }

        reporter.image(.merging)
        let tree = try profile.measure(.merge) { try store.containerTree(of: streams.map { ($0.diffID, $0.stream) }) }
        reporter.image(.writingImage)
        let images = try profile.measure(.image) { try storeImages(of: tree) }

        reporter.image(.publishing)
        var publication = Repository.Publication()
        for (diffID, stream) in streams { publication.stream(StreamName.layer(diffID), stream) }
        for id in images.values { publication.image(id) }
        let published = try profile.measure(.sync) {
            try store.publish(
                manifest: manifest, digest: resolved.digest, config: configBytes, layers: streams.map { ($0.diffID, $0.stream) },
                images: images, tag: name, publication)
        }
        try repository.clearStaged(config.diffIDs.map(StreamName.layer))
        reporter.image(.done)
        return result(resolved, name, published, layers, images: images, config: config)
    }

    private func storeImages(of tree: FileTree) throws -> [ErofsVersion: ObjectID] {
        var images: [ErofsVersion: ObjectID] = [:]
        for version in repository.erofsFormats.all {
            images[version] = try repository.storeImage(try writeErofs(tree, version: version)).id
        }
        return images
    }

    // MARK: Artifacts

    private func pullArtifact(_ resolved: ResolvedManifest, _ configBytes: [UInt8], _ name: ByteString) throws -> PullResult {
        let manifest = resolved.manifest
        let layers = try importLayers(
            manifest.layers.enumerated().map { LayerTask(index: $0, descriptor: $1, diffID: nil) }, count: manifest.layers.count)
        reporter.image(.publishing)
        var publication = Repository.Publication()
        let streams = manifest.layers.compactMap { layer in layers.streams[layer.digest].map { (layer.digest, $0) } }
        for (digest, stream) in streams where try !store.isLayerName(digest) { publication.stream(StreamName.layer(digest), stream) }
        let published = try profile.measure(.sync) {
            try store.publish(
                manifest: manifest, digest: resolved.digest, config: configBytes, layers: streams, images: [:], tag: name, publication)
        }
        try repository.clearStaged(manifest.layers.map { StreamName.layer($0.digest) })
        reporter.image(.done)
        return result(resolved, name, published, layers, images: [:], config: nil)
    }

    // MARK: Layers

    /// A layer to be in the store: an archive with a diff ID, or an artifact's blob that is stored as it is.
    struct LayerTask: Sendable {
        var index: Int
        var descriptor: Descriptor
        var diffID: ContentDigest?
        /// What names the layer in the store.
        var identifier: ContentDigest { diffID ?? descriptor.digest }
    }

    struct Layers: Sendable {
        var streams: [ContentDigest: ObjectID] = [:]
        var new = 0
        var present = 0
        var statistics = LayerStatistics()
    }

    private struct Progress {
        var layers = Layers()
        var failure: (any Error)?
    }

    private func importLayers(_ tasks: [LayerTask], count: Int) throws -> Layers {
        var found = Layers()
        var missing: [ContentDigest: LayerTask] = [:]
        for task in tasks {
            if let first = missing[task.identifier] {
                reporter.layer(task.index, .skipped(.repeated(of: first.index)))
            } else if found.streams[task.identifier] != nil {
                reporter.layer(task.index, .skipped(.present))
            } else if let stream = try presentLayer(task) {
                found.streams[task.identifier] = stream
                found.present += 1
                reporter.layer(task.index, .skipped(.present))
            } else {
                missing[task.identifier] = task
                reporter.layer(task.index, .queued)
            }
        }
        guard !missing.isEmpty else { return found }
        // The largest first, so that none is left to run alone at the end.
        let order = missing.values.sorted { ($0.descriptor.size, $1.index) > ($1.descriptor.size, $0.index) }
        let jobs = max(1, min(options.jobs ?? max(2, Host.processorCount), order.count))
        let layerPool = WorkerPool(threads: jobs)
        let importer = LayerImport(
            repository: repository, objectPool: WorkerPool(threads: Host.processorCount), feederPool: WorkerPool(threads: jobs),
            profile: profile)
        defer {
            // No thread of ours works on after the pull has ended, however it ended.
            layerPool.shutdown()
            importer.shutdown()
        }
        let progress = Mutex(Progress(layers: found))
        let finished = Semaphore(0)
        for task in order {
            layerPool.submit {
                defer { finished.signal() }
                // After a failure no new layer is begun; those that run come to their end, for the next pull.
                guard progress.withLock({ $0.failure == nil }) else { return }
                do {
                    let imported = try importLayer(task, importer)
                    progress.withLock { progress in
                        progress.layers.streams[task.identifier] = imported.stream
                        progress.layers.new += 1
                        progress.layers.statistics += imported.statistics
                    }
                    reporter.layer(task.index, .stored)
                } catch {
                    let failure = PullError.layer(number: task.index + 1, of: count, task.descriptor.digest, cause: error)
                    progress.withLock { $0.failure = $0.failure ?? failure }
                }
            }
        }
        for _ in order { finished.wait() }
        return try progress.withLock { progress in
            if let failure = progress.failure { throw failure }
            return progress.layers
        }
    }

    private func importLayer(_ task: LayerTask, _ importer: LayerImport) throws -> LayerImport.Imported {
        reporter.layer(task.index, .started)
        let blob = try source.openBlob(task.descriptor)
        let name = StreamName.layer(task.identifier)
        let imported: LayerImport.Imported
        if let diffID = task.diffID {
            let received = Mutex(UInt64(0))
            imported = try importer.run(blob, task.descriptor, diffID: diffID) { count in
                let total = received.withLock { total in
                    total += count
                    return total
                }
                reporter.layer(task.index, .bytes, done: total)
            }
            reporter.layer(task.index, .verified)
            try LayerMark.set(diffID, on: imported.stream, in: repository)
        } else {
            imported = try importBlob(blob, task)
            reporter.layer(task.index, .verified)
        }
        try repository.stage(name, imported.stream)
        return imported
    }

    /// An artifact's blob: one object, and a stream that names it.
    private func importBlob(_ blob: any BlobReader, _ task: LayerTask) throws -> LayerImport.Imported {
        var source = VerifiedBlob(blob: blob, descriptor: task.descriptor, profile: profile)
        var writer = try repository.makeObjectWriter()
        while true {
            try source.fill()
            if source.isAtEnd { break }
            try writer.append(source.takeAll())
            reporter.layer(task.index, .bytes, done: source.received)
        }
        try source.finish()
        let object = try writer.finish()
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try stream.external(object.id, size: object.size)
        var statistics = LayerStatistics()
        statistics.add(object)
        return LayerImport.Imported(stream: try stream.finish().id, statistics: statistics)
    }

    /// The layer's stream, where the store has one whose content is known to be the layer's.
    private func presentLayer(_ task: LayerTask) throws -> ObjectID? {
        if let diffID = task.diffID { try store.presentLayer(diffID) } else { try store.presentBlob(task.identifier) }
    }

    // MARK: Below

    private func read(_ descriptor: Descriptor) throws -> [UInt8] {
        let blob: any BlobReader =
            if let data = descriptor.data { DataBlobReader(data) } else { try source.openBlob(descriptor) }
        return try VerifiedBlob(blob: blob, descriptor: descriptor, profile: profile).readAll(limit: ImageLimits.configBytes)
    }

    private func result(
        _ resolved: ResolvedManifest, _ name: ByteString, _ published: (manifestStream: ObjectID, configStream: ObjectID),
        _ layers: Layers, images: [ErofsVersion: ObjectID], config: ImageConfig?
    ) -> PullResult {
        PullResult(
            manifestDigest: resolved.digest, manifestStream: published.manifestStream,
            configDigest: resolved.manifest.config.digest, configStream: published.configStream, imageIDs: images,
            imageID: images[repository.erofsFormats.default], name: name, newLayers: layers.new, presentLayers: layers.present,
            statistics: layers.statistics, config: config, profile: profile.seconds)
    }
}
