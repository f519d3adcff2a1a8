import ComposefsBoot
public import ComposefsBytes
public import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSplitStream
import ComposefsTransports
import Synchronization

/// How to copy.
public struct CopyOptions: Sendable {
    /// The tag; nil for the one that the image was named by.
    public var name: ByteString?
    /// How many threads bring objects; nil for one each processor, at least two.
    public var jobs: Int?
    /// Ends the copy, with `CancellationError`, before the next object or the next bytes; the store stays as it was.
    public var cancellation = Cancellation()
    /// Told what happens; must not block. Bytes are not counted.
    public var observer: CopyObserver?

    public init(name: ByteString? = nil, jobs: Int? = nil, observer: CopyObserver? = nil) {
        self.name = name
        self.jobs = jobs
        self.observer = observer
    }
}

/// What a copy tells while it runs.
public enum CopyEvent: Hashable, Sendable {
    /// All layers, by diff ID or an artifact's blob's digest.
    case began(layers: [ContentDigest])
    case layer(index: Int, LayerPhase)
    case merging
    case publishing
    case done

    public enum LayerPhase: Hashable, Sendable {
        case present
        case started
        /// So many of its objects are here.
        case objects(done: Int, total: Int)
        case stored
    }
}

/// Receives a copy's events, from several threads.
public typealias CopyObserver = @Sendable (CopyEvent) -> Void

/// What a copy brought.
public struct CopyResult: Sendable {
    public var manifestDigest: ContentDigest
    public var configDigest: ContentDigest
    /// The identifier of the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    public var name: ByteString
    public var newLayers = 0
    public var presentLayers = 0
    /// Of the new layers' objects, where the algorithms are the same.
    public var objects = ObjectImporter.Counts()
    /// Of the new layers, where they were made anew because the algorithms differ.
    public var statistics = LayerStatistics()
    /// Artifacts that belong to the image and came along.
    public var referrers: [ContentDigest] = []
}

/// Copies an image from one repository into another: its layers, verified object by object and as a whole; its EROFS images, made anew in the
/// formats that the target has; images for booting; and the artifacts that belong to it, with theirs. Everything becomes visible with the
/// tag in one durable step. An image that is here already gets the tag.
///
/// Objects are shared, linked or copied (`ObjectImporter`). Where the repositories have different algorithms, layers are re-assembled and
/// stored anew.
///
/// - Throws: `ImageStoreError`, `PullError.diffID`, `RepositoryError`; in `PullError.layer` where a layer is at fault.
public func copyImage(
    _ image: StoredImage, from source: ImageStore, named name: ByteString, into store: ImageStore, _ options: CopyOptions = CopyOptions()
) throws -> CopyResult {
    try ImageTag.check(options.name ?? name)
    let copy = ImageCopy(source: source, store: store, options: options)
    return try copy.run(image, options.name ?? name)
}

private struct ImageCopy: Sendable {
    let source: ImageStore
    let store: ImageStore
    let options: CopyOptions
    private var threads: Int { max(1, options.jobs ?? max(2, Host.processorCount)) }
    private var repository: Repository { store.repository }

    init(source: ImageStore, store: ImageStore, options: CopyOptions) {
        self.source = source
        self.store = store
        self.options = options
    }

    func run(_ image: StoredImage, _ name: ByteString) throws -> CopyResult {
        try repository.storeAsOne { try copy(image, name) }
    }

    private func copy(_ image: StoredImage, _ name: ByteString) throws -> CopyResult {
        var publication = Repository.Publication()
        var result = CopyResult(manifestDigest: image.manifestDigest, configDigest: image.configDigest, name: name)
        var staged: [ByteString] = []
        report(.began(layers: image.layerIdentifiers))
        try bring(image, tag: name, &publication, &result, &staged, isMain: true)
        var seen: Set<ContentDigest> = [image.manifestDigest]
        try bringReferrers(of: image.manifestDigest, &publication, &result, &staged, &seen)
        report(.publishing)
        try repository.publish(publication)
        try repository.clearStaged(staged)
        report(.done)
        return result
    }

    private func report(_ event: CopyEvent) { options.observer?(event) }

    /// Records may form chains of any length, and circles.
    private func bringReferrers(
        of first: ContentDigest, _ publication: inout Repository.Publication, _ result: inout CopyResult, _ staged: inout [ByteString],
        _ seen: inout Set<ContentDigest>
    ) throws {
        var pending = [first]
        while let subject = pending.popLast() {
            for artifact in try source.referrers(of: subject) {
                guard let image = try source.image(artifact) else { continue }
                if seen.insert(artifact).inserted {
                    try bring(image, tag: nil, &publication, &result, &staged, isMain: false)
                    result.referrers.append(artifact)
                    pending.append(artifact)
                }
                ImageStore.record(artifact, of: subject, in: &publication)
            }
        }
    }

    private func bring(
        _ image: StoredImage, tag: ByteString?, _ publication: inout Repository.Publication, _ result: inout CopyResult,
        _ staged: inout [ByteString], isMain: Bool
    ) throws {
        let identifiers = image.layerIdentifiers
        var streams: [ContentDigest: ObjectID] = [:]
        for (index, identifier) in identifiers.enumerated() where streams[identifier] == nil {
            try options.cancellation.check()
            let isArchive = image.isContainer
            @Sendable func tell(_ phase: CopyEvent.LayerPhase) { if isMain { report(.layer(index: index, phase)) } }
            if let stream = try isArchive ? store.presentLayer(identifier) : store.presentBlob(identifier) {
                streams[identifier] = stream
                if isMain { result.presentLayers += 1 }
                tell(.present)
                continue
            }
            guard let stream = image.layerStream(identifier) else { throw ImageStoreError.noSuchLayer(identifier) }
            tell(.started)
            do {
                streams[identifier] =
                    isArchive
                    ? try bringLayer(identifier, stream, &result) { tell(.objects(done: $0, total: $1)) }
                    : try bringBlob(identifier, stream, &result)
            } catch {
                throw PullError.layer(number: index + 1, of: identifiers.count, identifier, cause: error)
            }
            if isMain { result.newLayers += 1 }
            let name = StreamName.layer(identifier)
            if let stream = streams[identifier] { try repository.stage(name, stream) }
            staged.append(name)
            tell(.stored)
        }
        let layers = identifiers.compactMap { identifier in streams[identifier].map { (identifier: identifier, stream: $0) } }
        for layer in layers where try image.isContainer || !store.isLayerName(layer.identifier) {
            publication.stream(StreamName.layer(layer.identifier), layer.stream)
        }
        var (images, boot): ([ErofsVersion: ObjectID], [(key: String, id: ObjectID)]) = ([:], [])
        if image.isContainer {
            if isMain { report(.merging) }
            (images, boot) = try makeImages(of: image, layers, &publication)
            if isMain { result.imageID = images[repository.erofsFormats.default] }
        }
        _ = try store.store(
            manifest: image.manifest, digest: image.manifestDigest, config: image.configBytes, layers: layers, images: images, boot: boot,
            keptBlobs: try bringKeptBlobs(of: image, &result, &staged), tag: tag, &publication)
    }

    /// The blobs that layers came in, where the source keeps them.
    private func bringKeptBlobs(
        of image: StoredImage, _ result: inout CopyResult, _ staged: inout [ByteString]
    ) throws -> [(digest: ContentDigest, stream: ObjectID)] {
        var kept: [(digest: ContentDigest, stream: ObjectID)] = []
        for blob in image.keptBlobs {
            if let stream = try store.presentKeptBlob(blob.digest) {
                kept.append((blob.digest, stream))
                continue
            }
            let stream = try bringBlob(blob.digest, blob.stream, &result)
            try LayerMark.set(blob.digest, on: stream, in: repository)
            try repository.stage(StreamName.blob(blob.digest), stream)
            staged.append(StreamName.blob(blob.digest))
            kept.append((blob.digest, stream))
        }
        return kept
    }

    // MARK: Layers

    /// The source has taken the image: what its owner allowed is not asked again.
    private static let limits = {
        var limits = PullLimits()
        limits.layerBytes = 1 << 60
        limits.layerEntries = 1 << 40
        limits.pathBytes = 1 << 20
        limits.xattrBytes = 1 << 20
        return limits
    }()

    private var isSameAlgorithm: Bool { source.repository.algorithm == repository.algorithm }

    private func bringLayer(
        _ diffID: ContentDigest, _ stream: ObjectID, _ result: inout CopyResult, _ progress: @escaping @Sendable (Int, Int) -> Void
    ) throws -> ObjectID {
        guard isSameAlgorithm else {
            let pipeline = LayerPipeline(
                repository: repository, objectPool: WorkerPool(threads: threads), readerPool: WorkerPool(threads: 1),
                profile: PullProfile(), limits: Self.limits)
            defer { pipeline.shutdown() }
            let imported = try pipeline.run(archive(stream, Descriptor(mediaType: "", digest: diffID, size: .max)), nil, diffID: diffID)
            result.statistics += imported.statistics
            try LayerMark.set(diffID, on: imported.stream, in: repository)
            return imported.stream
        }
        result.objects += try bringObjects(of: stream, StreamContentType.layer, progress)
        // The source's word that the stream is this layer's is not enough: it may have been written by anybody.
        let actual = try store.layerDigest(of: stream, diffID.algorithm)
        guard actual == diffID else { throw PullError.diffID(expected: diffID, actual: actual) }
        try LayerMark.set(diffID, on: stream, in: repository)
        return stream
    }

    private func bringBlob(_ digest: ContentDigest, _ stream: ObjectID, _ result: inout CopyResult) throws -> ObjectID {
        guard isSameAlgorithm else {
            let size = try source.repository.openStream(stream, contentType: StreamContentType.blob).totalSize
            let descriptor = Descriptor(mediaType: "", digest: digest, size: size)
            let imported = try store.importBlob(archive(stream, descriptor), descriptor)
            result.statistics += imported.statistics
            return imported.stream
        }
        result.objects += try bringObjects(of: stream, StreamContentType.blob) { _, _ in }
        let actual = try store.blobDigest(of: stream, digest.algorithm)
        guard actual == digest else {
            throw ImageStoreError.damaged(stream: StreamName.layer(digest), "holds content with the digest \(actual)")
        }
        return stream
    }

    /// What a stream of the source holds, re-assembled.
    private func archive(_ stream: ObjectID, _ descriptor: Descriptor) -> BlobDownload {
        BlobDownload(descriptor, options.cancellation) { [source] in
            LocalOrigin { try LayerArchiveReader(source.repository, stream) }
        }
    }

    private func bringObjects(
        of stream: ObjectID, _ type: UInt64, _ progress: @escaping @Sendable (Int, Int) -> Void
    ) throws -> ObjectImporter.Counts {
        let importer = try ObjectImporter(from: source.repository, to: repository)
        let objects = try source.repository.openStream(stream, contentType: type).objectReferences
        let told = Mutex(MonotonicTime.now)
        var counts = try importer.run(objects, threads: threads, options.cancellation) { done, total in
            // Ten times a second is often enough.
            let isDue = told.withLock { last in
                guard done == total || MonotonicTime.now - last >= .milliseconds(100) else { return false }
                last = .now
                return true
            }
            if isDue { progress(done, total) }
        }
        counts += try importer.run([stream], threads: 1)
        return counts
    }

    // MARK: Images

    private func makeImages(
        of image: StoredImage, _ layers: [(identifier: ContentDigest, stream: ObjectID)], _ publication: inout Repository.Publication
    ) throws -> ([ErofsVersion: ObjectID], [(key: String, id: ObjectID)]) {
        let streams = layers.map { (diffID: $0.identifier, stream: $0.stream) }
        func store(_ tree: FileTree, _ version: ErofsVersion) throws -> ObjectID {
            let id = try repository.storeImage(try writeErofs(tree, version: version)).id
            publication.image(id)
            return id
        }
        var images: [ErofsVersion: ObjectID] = [:]
        let tree = try self.store.containerTree(of: streams)
        for version in repository.erofsFormats.all { images[version] = try store(tree, version) }
        // What the target made of the image before, stays.
        let known = try? self.store.image(image.manifestDigest)
        if images[.v2] == nil, let old = known?.imageID(.v2) { images[.v2] = old }
        if images[.v1] == nil, images[.v0] == nil, let old = known?.imageID(.v1) { images[.v1] = old }

        var boot = known?.bootImages ?? []
        for made in try self.store.makeBootImages(of: streams, like: image, &publication) {
            boot.removeAll { $0.key == made.key }
            boot.append(made)
        }
        return (images, boot)
    }
}

extension ImageStore {
    /// Images for booting, made anew of layers in this store's formats, in the xattr modes for which an image records some.
    func makeBootImages(
        of streams: [(diffID: ContentDigest, stream: ObjectID)], like image: StoredImage, _ publication: inout Repository.Publication
    ) throws -> [(key: String, id: ObjectID)] {
        var made: [(key: String, id: ObjectID)] = []
        for filtering in [XattrFiltering.allowlistOnly, .keepUserXattrs] {
            guard ErofsVersion.allCases.contains(where: { image.bootImageID($0, filtering) != nil }) else { continue }
            var tree = try containerTree(of: streams, filtering)
            try transformForBoot(&tree) { try repository.readObject($0, limit: BootLimits.policyFileBytes) }
            for version in repository.erofsFormats.all {
                let id = try repository.storeImage(try writeErofs(tree, version: version)).id
                publication.image(id)
                made.append((ReferenceKey.bootImage(version, filtering), id))
            }
        }
        return made
    }
}
