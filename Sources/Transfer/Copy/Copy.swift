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
public import ComposefsSignaturePolicy
import ComposefsSplitStream
import ComposefsTransports
import Synchronization

/// Options of a copy.
public struct CopyOptions: Sendable {
    /// The tag; nil for the name by which the image was found.
    public var name: ByteString?
    /// The number of threads that copy objects; nil for one per processor, and at least two.
    public var jobs: Int?
    /// The signature policy that the image must satisfy; nil asks none. The transport of images in repositories is `composefs`, and its scopes are paths
    /// of repositories and the directories above them. Signatures are those among the image's referrers.
    public var signaturePolicy: LoadedPolicy?
    /// Ends the copy with `CancellationError`, before the next object or the next bytes. Nothing is published then.
    public var cancellation = Cancellation()
    /// Receives the copy's events; see `CopyObserver`.
    public var observer: CopyObserver?

    /// Default options, except for the parameters.
    public init(name: ByteString? = nil, jobs: Int? = nil, observer: CopyObserver? = nil) {
        self.name = name
        self.jobs = jobs
        self.observer = observer
    }
}

/// A progress event of a copy.
public enum CopyEvent: Hashable, Sendable {
    /// The layers are known: their diff IDs, or the digests of an artifact's blobs.
    case began(layers: [ContentDigest])
    /// A phase of a layer; its index is counted from 0, with the lowest layer first.
    case layer(index: Int, LayerPhase)
    /// All layers are stored; their trees are being merged.
    case merging
    /// Everything is being made durable, and then visible.
    case publishing
    /// The tag refers to the image.
    case done

    /// The phase of a layer.
    public enum LayerPhase: Hashable, Sendable {
        /// The store has it.
        case present
        /// It is being copied.
        case started
        /// The number of its objects that the store has.
        case objects(done: Int, total: Int)
        /// It is in the store.
        case stored
    }
}

/// Receives a copy's events, on several threads, possibly several at the same time. It must not block.
public typealias CopyObserver = @Sendable (CopyEvent) -> Void

/// The result of a copy.
public struct CopyResult: Sendable {
    /// The digest of the manifest.
    public var manifestDigest: ContentDigest
    /// The digest of the config.
    public var configDigest: ContentDigest
    /// The image ID in the repository's default format; nil for an artifact.
    public var imageID: ObjectID?
    /// The tag that refers to the image.
    public var name: ByteString
    /// The number of distinct layers that were copied.
    public var newLayers = 0
    /// The number of distinct layers that the store had.
    public var presentLayers = 0
    /// The objects of the new layers, if both repositories have the same algorithm.
    public var objects = ObjectImporter.Counts()
    /// Objects and bytes of the new layers, if they were imported again because the algorithms differ.
    public var statistics = LayerStatistics()
    /// The referrers that were copied.
    public var referrers: [ContentDigest] = []
}

/// Copies an image from one repository into another: its layers, verified object by object and as a whole; its EROFS images, created again
/// in the formats of the target; boot images; and its referrers, with their own referrers. Everything becomes visible in one durable step,
/// with the tag. An image that the target has gets the tag.
///
/// Objects are reflinked, hard-linked or copied (`ObjectImporter`). If the repositories have different algorithms, layers are re-assembled
/// and imported.
///
/// - Parameters:
///   - image: the image in the source.
///   - source: the store to read.
///   - name: the tag, unless the options have one.
///   - store: the store to write.
///   - options: tag, threads, cancellation and observer.
/// - Throws: `ImageStoreError`, `RepositoryError`, `SignatureRefusal`, `CancellationError`; a layer's error is the cause of a `PullError.layer`.
public func copyImage(
    _ image: StoredImage, from source: ImageStore, named name: ByteString, into store: ImageStore, _ options: CopyOptions = CopyOptions()
) throws -> CopyResult {
    try ImageTag.check(options.name ?? name)
    let copy = ImageCopy(source: source, store: store, options: options)
    return try copy.run(image, options.name ?? name)
}

/// The result of a copy of an index from one repository into another.
public struct StoredIndexCopyResult: Sendable {
    /// The digest of the index.
    public var digest: ContentDigest
    /// The name of the index.
    public var name: ByteString
    /// The images, in the order of the index; those without a tag have their digest as name.
    public var images: [CopyResult] = []
    /// What the index lists and is not in the source, or what the policy refuses.
    public var leftOut: [PulledIndex.Missing] = []
    /// The referrers of the index that were copied.
    public var referrers: [ContentDigest] = []
}

/// Copies an index with the images that it lists and that the source has from one repository into another, as `copyImage` copies one. All of it
/// becomes visible in one durable step. Tags are those that `pullAllPlatforms` gives.
///
/// - Parameters:
///   - index: the index in the source.
///   - source: the store to read.
///   - name: the name of the index, unless the options have one.
///   - store: the store to write.
///   - options: name, threads, signature policy, cancellation and observer.
/// - Throws: as `copyImage`. What the policy refuses is left out if it is not an image for a platform.
public func copyStoredIndex(
    _ index: StoredIndex, from source: ImageStore, named name: ByteString, into store: ImageStore, _ options: CopyOptions = CopyOptions()
) throws -> StoredIndexCopyResult {
    let name = options.name ?? name
    try ImageTag.check(name)
    let copy = ImageCopy(source: source, store: store, options: options)
    return try copy.run(index, name)
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
        try requireAccepted(image, name)
        return try repository.storeAsOne { try copy(image, name) }
    }

    // MARK: Indexes

    /// An image that an index lists, and its tags.
    private struct Listed {
        var image: StoredImage
        var tags: [ByteString] = []
    }

    func run(_ index: StoredIndex, _ name: ByteString) throws -> StoredIndexCopyResult {
        var result = StoredIndexCopyResult(digest: index.digest, name: name)
        var listed: [Listed] = []
        var platforms: [(platform: Platform, position: Int)] = []
        for member in try source.manifests(of: index) {
            guard member.isStored, let image = try source.image(member.digest) else {
                result.leftOut.append(.init(digest: member.digest, reason: "it is not in the other repository"))
                continue
            }
            let stated = member.descriptor.platform.flatMap { $0.isUnknown || $0.os.isEmpty && $0.architecture.isEmpty ? nil : $0 }
            let platform = image.isContainer ? stated ?? image.config.flatMap { $0.platform.isUnknown ? nil : $0.platform } : nil
            var entry = Listed(image: image)
            if let platform {
                let full = name + "-" + platform.tagSuffix
                if !listed.contains(where: { $0.tags.contains(full) }) {
                    try ImageTag.check(full)
                    entry.tags = [full]
                    platforms.append((platform, listed.count))
                }
            }
            do {
                try requireAccepted(image, entry.tags.first ?? name)
            } catch let error as SignatureRefusal where entry.tags.isEmpty {
                result.leftOut.append(.init(digest: member.digest, reason: "\(error)"))
                continue
            }
            listed.append(entry)
        }
        let ranked = platforms.compactMap { entry in Platform.host.rank(of: entry.platform).map { ($0, entry.position) } }
        if let (_, first) = ranked.min(by: { ($0.0, $0.1) < ($1.0, $1.1) }) { listed[first].tags.append(name) }
        return try repository.storeAsOne { try copy(index, listed, result) }
    }

    private func copy(_ index: StoredIndex, _ listed: [Listed], _ result: StoredIndexCopyResult) throws -> StoredIndexCopyResult {
        var result = result
        var publication = Repository.Publication()
        var staged: [ByteString] = []
        var streams: [ContentDigest: ObjectID] = [:]
        var seen: Set<ContentDigest> = []
        for entry in listed {
            let image = entry.image
            let name = entry.tags.last ?? ByteString(image.manifestDigest.description)
            var own = CopyResult(manifestDigest: image.manifestDigest, configDigest: image.configDigest, name: name)
            report(.began(layers: image.layerIdentifiers))
            streams[image.manifestDigest] = try add(image, tag: entry.tags.first, &publication, &own, &staged, isMain: true)
            for tag in entry.tags.dropFirst() {
                publication.streamReference(ImageTag.referencePath(tag), to: StreamName.manifest(image.manifestDigest))
            }
            seen.insert(image.manifestDigest)
            try copyReferrers(of: image.manifestDigest, &publication, &own, &staged, &seen)
            result.images.append(own)
        }
        var others = CopyResult(manifestDigest: index.digest, configDigest: index.digest, name: result.name)
        try copyReferrers(of: index.digest, &publication, &others, &staged, &seen)
        result.referrers = others.referrers
        try add(index, name: result.name, &streams, &publication)
        report(.publishing)
        try repository.publish(publication)
        try repository.clearStaged(staged)
        report(.done)
        return result
    }

    /// Adds an index after those that it lists.
    private func add(
        _ index: StoredIndex, name: ByteString?, _ streams: inout [ContentDigest: ObjectID], _ publication: inout Repository.Publication
    ) throws {
        for member in index.members where member.isIndex && streams[member.digest] == nil {
            guard let inner = try source.index(member.digest) else { continue }
            try add(inner, name: nil, &streams, &publication)
        }
        let recorded = SourceHint.text(on: [index.stream], in: source.repository)
        streams[index.digest] = try store.store(index.index, index.digest, streams, name: name, source: recorded, &publication)
    }

    /// Asks the policy before anything is stored.
    private func requireAccepted(_ image: StoredImage, _ name: ByteString) throws {
        guard let policy = options.signaturePolicy else { return }
        let path = try FileDescriptor.open(source.repository.path, .pathOnly).kernelPath
        let demands = try policy.demands(of: .file(path, transport: "composefs"), named: name)
        guard !demands.areMet else { return }
        let search = SignatureSearch(
            demands: demands, manifest: image.manifest.bytes, digest: image.manifestDigest, options.cancellation)
        try search.run(source)
        if let refusal = search.demands.refusal(of: image.manifestDigest, isListed: false) { throw refusal }
    }

    private func copy(_ image: StoredImage, _ name: ByteString) throws -> CopyResult {
        var publication = Repository.Publication()
        var result = CopyResult(manifestDigest: image.manifestDigest, configDigest: image.configDigest, name: name)
        var staged: [ByteString] = []
        report(.began(layers: image.layerIdentifiers))
        try add(image, tag: name, &publication, &result, &staged, isMain: true)
        var seen: Set<ContentDigest> = [image.manifestDigest]
        try copyReferrers(of: image.manifestDigest, &publication, &result, &staged, &seen)
        report(.publishing)
        try repository.publish(publication)
        try repository.clearStaged(staged)
        report(.done)
        return result
    }

    private func report(_ event: CopyEvent) { options.observer?(event) }

    /// Copies the referrers of an image, and theirs. Records can form chains of any length, and circles.
    private func copyReferrers(
        of first: ContentDigest, _ publication: inout Repository.Publication, _ result: inout CopyResult, _ staged: inout [ByteString],
        _ seen: inout Set<ContentDigest>
    ) throws {
        var pending = [first]
        while let subject = pending.popLast() {
            for artifact in try source.referrers(of: subject) {
                guard let image = try source.image(artifact) else { continue }
                if seen.insert(artifact).inserted {
                    try add(image, tag: nil, &publication, &result, &staged, isMain: false)
                    result.referrers.append(artifact)
                    pending.append(artifact)
                }
                ImageStore.record(artifact, of: subject, in: &publication)
            }
        }
    }

    /// - Returns: the object of the manifest's stream.
    @discardableResult
    private func add(
        _ image: StoredImage, tag: ByteString?, _ publication: inout Repository.Publication, _ result: inout CopyResult,
        _ staged: inout [ByteString], isMain: Bool
    ) throws -> ObjectID {
        let identifiers = image.layerIdentifiers
        var streams: [ContentDigest: ObjectID] = [:]
        for (index, identifier) in identifiers.enumerated() where streams[identifier] == nil {
            try options.cancellation.check()
            let isArchive = image.isContainer
            @Sendable func reportLayer(_ phase: CopyEvent.LayerPhase) { if isMain { report(.layer(index: index, phase)) } }
            if let stream = try isArchive ? store.presentLayer(identifier) : store.presentBlob(identifier) {
                streams[identifier] = stream
                if isMain { result.presentLayers += 1 }
                reportLayer(.present)
                continue
            }
            guard let stream = image.layerStream(identifier) else { throw ImageStoreError.noSuchLayer(identifier) }
            reportLayer(.started)
            do {
                streams[identifier] =
                    isArchive
                    ? try copyLayer(identifier, stream, &result) { reportLayer(.objects(done: $0, total: $1)) }
                    : try copyBlob(identifier, stream, &result)
            } catch {
                throw PullError.layer(number: index + 1, of: identifiers.count, identifier, cause: error)
            }
            if isMain { result.newLayers += 1 }
            let name = StreamName.layer(identifier)
            if let stream = streams[identifier] { try repository.stage(name, stream) }
            staged.append(name)
            reportLayer(.stored)
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
        return try store.store(
            manifest: image.manifest, digest: image.manifestDigest, config: image.configBytes, layers: layers, images: images, boot: boot,
            keptBlobs: try copyKeptBlobs(of: image, &result, &staged), tag: tag, &publication
        ).manifestStream
    }

    /// Copies the original blobs of layers that the source keeps.
    private func copyKeptBlobs(
        of image: StoredImage, _ result: inout CopyResult, _ staged: inout [ByteString]
    ) throws -> [(digest: ContentDigest, stream: ObjectID)] {
        var kept: [(digest: ContentDigest, stream: ObjectID)] = []
        for blob in image.keptBlobs {
            if let stream = try store.presentKeptBlob(blob.digest) {
                kept.append((blob.digest, stream))
                continue
            }
            let stream = try copyBlob(blob.digest, blob.stream, &result)
            try LayerHint.set(blob.digest, on: stream, in: repository)
            try repository.stage(StreamName.blob(blob.digest), stream)
            staged.append(StreamName.blob(blob.digest))
            kept.append((blob.digest, stream))
        }
        return kept
    }

    // MARK: Layers

    /// Limits that do not apply in practice: the image was checked against limits when the source stored it.
    private static let limits = {
        var limits = PullLimits()
        limits.layerBytes = 1 << 60
        limits.layerEntries = 1 << 40
        limits.pathBytes = 1 << 20
        limits.xattrBytes = 1 << 20
        return limits
    }()

    private var isSameAlgorithm: Bool { source.repository.algorithm == repository.algorithm }

    private func copyLayer(
        _ diffID: ContentDigest, _ stream: ObjectID, _ result: inout CopyResult, _ progress: @escaping @Sendable (Int, Int) -> Void
    ) throws -> ObjectID {
        guard isSameAlgorithm else {
            let pipeline = LayerPipeline(
                repository: repository, objectPool: WorkerPool(threads: threads), readerPool: WorkerPool(threads: 1),
                profile: PullProfile(), limits: Self.limits)
            defer { pipeline.shutdown() }
            let imported = try pipeline.run(archive(stream, Descriptor(mediaType: "", digest: diffID, size: .max)), nil, diffID: diffID)
            result.statistics += imported.statistics
            try LayerHint.set(diffID, on: imported.stream, in: repository)
            return imported.stream
        }
        result.objects += try copyObjects(of: stream, StreamContentType.layer, progress)
        // The source is not trusted, so the stream's content is compared with the diff ID.
        let actual = try store.layerDigest(of: stream, diffID.algorithm)
        guard actual == diffID else { throw PullError.diffID(expected: diffID, actual: actual) }
        try LayerHint.set(diffID, on: stream, in: repository)
        return stream
    }

    private func copyBlob(_ digest: ContentDigest, _ stream: ObjectID, _ result: inout CopyResult) throws -> ObjectID {
        guard isSameAlgorithm else {
            let size = try source.repository.openStream(stream, contentType: StreamContentType.blob).totalSize
            let descriptor = Descriptor(mediaType: "", digest: digest, size: size)
            let imported = try store.importBlob(archive(stream, descriptor), descriptor)
            result.statistics += imported.statistics
            return imported.stream
        }
        result.objects += try copyObjects(of: stream, StreamContentType.blob) { _, _ in }
        let actual = try store.blobDigest(of: stream, digest.algorithm)
        guard actual == digest else {
            throw ImageStoreError.damaged(stream: StreamName.layer(digest), .digest(actual))
        }
        return stream
    }

    /// The content of one of the source's streams, re-assembled.
    private func archive(_ stream: ObjectID, _ descriptor: Descriptor) -> BlobDownload {
        BlobDownload(descriptor, options.cancellation) { [source] in
            LocalOrigin { try LayerArchiveReader(source.repository, stream) }
        }
    }

    private func copyObjects(
        of stream: ObjectID, _ type: UInt64, _ progress: @escaping @Sendable (Int, Int) -> Void
    ) throws -> ObjectImporter.Counts {
        let importer = try ObjectImporter(from: source.repository, to: repository)
        let objects = Array(try source.repository.openStream(stream, contentType: type).objectReferences)
        let lastReport = Mutex(MonotonicTime.now)
        var counts = try importer.run(objects, threads: threads, options.cancellation) { done, total in
            // Progress is reported at most ten times a second.
            let isDue = lastReport.withLock { last in
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
        let images = try store.storeImages(of: try store.containerTree(of: streams), &publication)
        // Images that the target created for this image before stay.
        let known = (try? store.image(image.manifestDigest)) ?? nil
        let made = try store.makeBootImages(of: streams, like: image, &publication)
        return (try known?.imageIDs(besides: images) ?? images, store.bootReferences(known?.bootImages ?? [], made))
    }
}

extension ImageStore {
    /// Images for booting, generated from the layers in this store's formats, in the xattr modes for which an image records some.
    func makeBootImages(
        of streams: [(diffID: ContentDigest, stream: ObjectID)], like image: StoredImage, _ publication: inout Repository.Publication
    ) throws -> [BootImage] {
        var made: [BootImage] = []
        for filtering in XattrFiltering.allCases
        where ErofsVersion.allCases.contains(where: { image.bootImageID($0, filtering) != nil }) {
            made += try makeBootImages(.all(filtering), &publication) { try containerTree(of: streams, $0) }.all
        }
        return made
    }
}
