import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream
public import ComposefsTransports
import Synchronization

/// Sends a stored image to a destination: blobs first, then the manifest by its digest, referrers, and in the end the name. A push that fails
/// leaves blobs that nothing refers to, and the name as it was.
///
/// Layers are re-assembled byte for byte and compared with their diff IDs on the way. Where all of them go as the blobs that they came in
/// (because the destination has those, or the store keeps them), the manifest goes as it is; else it names the new blobs, and nothing else
/// in it changes. An artifact's blobs are its own, so its manifest never changes.
///
/// Synchronous, on threads of its own. Memory is bounded by the number of layers that are sent at once.
///
/// - Throws: `PushError`, `ImageStoreError`, `RepositoryError`, and what the destination throws.
public func pushImage(
    _ image: StoredImage, of store: ImageStore, to destination: any ImageDestination, _ options: PushOptions = PushOptions()
) throws -> PushResult {
    if let format = options.compression { _ = try options.level(of: format) }
    let pool = WorkerPool(threads: Host.processorCount)
    defer { pool.shutdown() }
    let mounts = try destination.registryReference.map { try store.mountSources(for: $0) } ?? [:]
    let push = ImagePush(store: store, destination: destination, options: options, pool: pool, mounts: mounts)
    return try push.run(image)
}

private final class ImagePush: Sendable {
    let store: ImageStore
    let destination: any ImageDestination
    let options: PushOptions
    /// Packs blocks of all layers.
    let pool: WorkerPool
    /// Where in the same registry a blob may be had.
    let mounts: [ContentDigest: [RegistryReference]]
    private let bytesSent = Mutex<UInt64>(0)

    init(
        store: ImageStore, destination: any ImageDestination, options: PushOptions, pool: WorkerPool,
        mounts: [ContentDigest: [RegistryReference]]
    ) {
        self.store = store
        self.destination = destination
        self.options = options
        self.pool = pool
        self.mounts = mounts
    }

    /// The deepest chain of referrers of referrers that is followed.
    private static let referrerDepth = 8

    func run(_ image: StoredImage) throws -> PushResult {
        let reporter = PushReporter(options.observer)
        let layers = try placeLayers(of: image, reporter)
        try place(config: image)
        let packed = try image.manifest.replacing(layers: layers.map(\.descriptor))
        let manifest = destination.takesDockerFormat ? packed : try packed.convertedToOCI(isImage: image.isContainer)
        let digest = manifest.bytes == image.manifest.bytes ? image.manifestDigest : .of(manifest.bytes, image.manifestDigest.algorithm)
        if let wanted = destination.registryReference?.digest, wanted != digest {
            throw PushError.manifestDigest(wanted: wanted, actual: digest)
        }
        reporter.image(.manifest)
        var referrers = Referrers()
        // By its digest first, where something is still to come: the name appears when all is there.
        if try options.referrers != .none && !store.referrers(of: image.manifestDigest).isEmpty {
            try put(manifest, digest, isNamed: false)
            reporter.image(.referrers)
            try placeReferrers(of: image.manifestDigest, as: manifest, digest, &referrers, depth: 0)
        }
        try put(manifest, digest, isNamed: true)
        try destination.finish()
        reporter.image(.done)
        return PushResult(
            manifestDigest: digest, sourceDigest: image.manifestDigest, configDigest: image.configDigest,
            layers: zip(manifest.layers, layers).map { ($0, $1.outcome) }, bytesSent: bytesSent.withLock { $0 },
            referrers: referrers.sent, referrersLeftOut: referrers.leftOut,
            referrersRefused: referrers.refused, isConverted: manifest.mediaType != packed.mediaType)
    }

    // MARK: Layers

    /// One of the different layers of an image.
    private struct Task: Sendable {
        var index: Int
        var identifier: ContentDigest
        var descriptor: Descriptor
        var stream: ObjectID
        var isArchive: Bool
        /// The stream of the original blob, where the store keeps that.
        var keptBlob: ObjectID?
    }

    private typealias Placed = (descriptor: Descriptor, outcome: PushedLayer)

    private func placeLayers(of image: StoredImage, _ reporter: PushReporter) throws -> [Placed] {
        let count = image.manifest.layers.count
        let identifiers = image.layerIdentifiers
        guard identifiers.count == count else {
            throw ImageStoreError.damaged(
                stream: StreamName.config(image.configDigest), "lists \(identifiers.count) diff IDs, the manifest \(count) layers")
        }
        // A layer that comes twice is sent once; its second descriptor may be of other bytes, though.
        var tasks: [Task] = []
        for (index, identifier) in identifiers.enumerated() {
            let descriptor = image.manifest.layers[index]
            guard !tasks.contains(where: { $0.identifier == identifier && $0.descriptor.namesSameBlob(as: descriptor) }) else { continue }
            guard let stream = image.layerStream(identifier) else { throw ImageStoreError.noSuchLayer(identifier) }
            tasks.append(
                Task(
                    index: index, identifier: identifier, descriptor: descriptor, stream: stream, isArchive: image.isContainer,
                    keptBlob: image.keptBlobs.first { $0.digest == descriptor.digest }?.stream))
        }
        let sizes = try tasks.map { try store.repository.openStream($0.stream).totalSize }
        reporter.began(tasks.map { ($0.index, $0.identifier) }, sizes: sizes, layers: identifiers)
        // The largest first, so that none is left to be sent alone at the end.
        let order = zip(tasks, sizes).sorted { ($0.1, $1.0.index) > ($1.1, $0.0.index) }.map(\.0)
        let jobs = max(1, min(options.jobs ?? max(2, Host.processorCount), order.count))
        let senders = WorkerPool(threads: jobs)
        defer { senders.shutdown() }
        let state = Mutex<(placed: [Int: Placed], failure: (any Error)?)>(([:], nil))
        let finished = Semaphore(0)
        for task in order {
            senders.submit { [self] in
                defer { finished.signal() }
                guard state.withLock({ $0.failure == nil }) else { return }
                do {
                    let placed = try place(task, reporter)
                    state.withLock { $0.placed[task.index] = placed }
                    reporter.layer(task.index, .finished(placed.outcome))
                } catch {
                    let failure = PushError.layer(number: task.index + 1, of: count, task.identifier, cause: error)
                    state.withLock { $0.failure = $0.failure ?? failure }
                }
            }
        }
        for _ in order { finished.wait() }
        return try state.withLock { state in
            if let failure = state.failure { throw failure }
            return identifiers.indices.compactMap { index in
                tasks.first { $0.identifier == identifiers[index] && $0.descriptor.namesSameBlob(as: image.manifest.layers[index]) }
                    .flatMap { state.placed[$0.index] }
            }
        }
    }

    private func place(_ task: Task, _ reporter: PushReporter) throws -> Placed {
        reporter.layer(task.index, .started)
        let original = task.descriptor
        guard task.isArchive else {
            let outcome = try place(original) { [store] emit in try store.readLayer(task.stream, emit) }
            return (original, outcome)
        }
        let layerType = LayerMediaType(original.mediaType)
        let packed = layerType?.compression ?? .gzip
        let format = options.compression ?? packed
        let kept = task.keptBlob.map { stream -> OutgoingBlob.Producer in { [store] emit in try store.readLayer(stream, emit) } }
        if format == packed, let outcome = try place(original, kept) {
            var descriptor = original
            if layerType?.isDistributable == false, destination.registryReference != nil {
                descriptor.mediaType = LayerMediaType.repacked(original.mediaType, as: packed)
            }
            return (descriptor, outcome)
        }
        let packing = LayerPacking(
            store: store, stream: task.stream, diffID: task.identifier, format: format, level: try options.level(of: format), pool: pool,
            onBytes: { reporter.layer(task.index, .bytes, done: $0) })
        let type = LayerMediaType.repacked(original.mediaType, as: format)
        func descriptor(_ blob: SentBlob) -> Descriptor {
            var descriptor = original
            descriptor.mediaType = type
            descriptor.digest = blob.digest
            descriptor.size = blob.size
            return descriptor
        }
        var expected: SentBlob?
        if format == .none {
            expected = SentBlob(digest: task.identifier, size: try store.repository.openStream(task.stream).totalSize)
        }
        if let expected {
            if let outcome = try place(descriptor(expected), nil) { return (descriptor(expected), outcome) }
        } else if let known = PackingMark.find(for: packing), let outcome = try place(descriptor(known), nil),
            // Anybody may have written the mark. It saves the sending, not the proof that this blob is the layer.
            try packing.measure() == known
        {
            return (descriptor(known), outcome)
        }
        let sent = try put(expected) { try packing.produce($0) }
        if format != .none { PackingMark.set(sent, for: packing) }
        return (descriptor(sent), .sent)
    }

    // MARK: Blobs

    /// A blob that is known to the last byte: looked for, mounted or, where there is something to send, sent. Nil where it is not there.
    private func place(_ blob: Descriptor, _ produce: OutgoingBlob.Producer?) throws -> PushedLayer? {
        try options.cancellation.check()
        if try destination.hasBlob(blob) { return .present }
        for source in mounts[blob.digest] ?? [] where try destination.mountBlob(blob, from: source) { return .mounted }
        guard let produce else { return nil }
        _ = try put(SentBlob(digest: blob.digest, size: blob.size), produce)
        return .sent
    }

    private func place(_ blob: Descriptor, _ produce: @escaping OutgoingBlob.Producer) throws -> PushedLayer {
        try place(blob, .some(produce)) ?? .sent
    }

    private func place(config image: StoredImage) throws {
        let bytes = image.configBytes
        _ = try place(image.manifest.config) { emit in try bytes.withUnsafeBytes { try emit($0) } }
    }

    private func put(_ expected: SentBlob?, _ produce: @escaping OutgoingBlob.Producer) throws -> SentBlob {
        let cancellation = options.cancellation
        let blob = OutgoingBlob(expected: expected) { emit in
            try produce { bytes in
                try cancellation.check()
                try emit(bytes)
            }
        }
        let sent = try destination.putBlob(blob)
        bytesSent.withLock { $0 += sent.size }
        return sent
    }

    private func put(_ manifest: Manifest, _ digest: ContentDigest, isNamed: Bool) throws {
        try options.cancellation.check()
        try destination.putManifest(manifest, digest: digest, isNamed: isNamed)
    }

    // MARK: Referrers

    private struct Referrers {
        var sent: [ContentDigest] = []
        var leftOut: [ContentDigest] = []
        var refused: [ReferrerProblem] = []
        /// By their digests in the store: records may lead in circles.
        var seen: Set<ContentDigest> = []
    }

    private func placeReferrers(
        of subject: ContentDigest, as manifest: Manifest, _ digest: ContentDigest, _ referrers: inout Referrers, depth: Int
    ) throws {
        guard depth < Self.referrerDepth else { return }
        let descriptor = Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count))
        for artifact in try store.referrers(of: subject) where referrers.seen.insert(artifact).inserted {
            guard let image = try store.image(artifact) else { continue }
            // One that only our store knows to belong to the subject would belong to nothing in a registry.
            let isAsItWas = image.manifest.subject?.digest == digest
            guard isAsItWas || options.referrers == .rewritten else {
                referrers.leftOut.append(artifact)
                continue
            }
            let pushed: Manifest
            do {
                let layers = try placeLayers(of: image, PushReporter(nil))
                try place(config: image)
                pushed = try image.manifest.replacing(layers: layers.map(\.descriptor), subject: isAsItWas ? nil : descriptor)
                try put(pushed, pushed.digest(inPlaceOf: image.manifest, artifact), isNamed: false)
            } catch let error as any PlaceError where error.concernsOneThing {
                // There are registries that know no artifacts. The image is whole without them.
                referrers.refused.append(ReferrerProblem(subject: digest, digest: artifact, reason: "\(error)"))
                continue
            }
            let pushedDigest = pushed.digest(inPlaceOf: image.manifest, artifact)
            referrers.sent.append(pushedDigest)
            try placeReferrers(of: artifact, as: pushed, pushedDigest, &referrers, depth: depth + 1)
        }
    }
}

extension Manifest {
    /// The digest of what a stored manifest became on its way out.
    fileprivate func digest(inPlaceOf stored: Manifest, _ storedDigest: ContentDigest) -> ContentDigest {
        bytes == stored.bytes ? storedDigest : .of(bytes, storedDigest.algorithm)
    }
}

extension ImageStore {
    /// Other repositories of a destination's registry that blobs of images here came from, going by the tags.
    fileprivate func mountSources(for destination: RegistryReference) throws -> [ContentDigest: [RegistryReference]] {
        var sources: [ContentDigest: [RegistryReference]] = [:]
        for tag in try tags() {
            guard let text = tag.name.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text,
                reference.domain == destination.domain, reference.name != destination.name, let image = try? image(tag.manifestDigest)
            else { continue }
            for blob in image.manifest.layers + [image.manifest.config] {
                // A registry that does not mount from two does not mount from a hundred.
                let known = sources[blob.digest] ?? []
                if known.count < 2, !known.contains(where: { $0.name == reference.name }) {
                    sources[blob.digest, default: []].append(reference)
                }
            }
        }
        return sources
    }
}

/// Makes a push's events.
private final class PushReporter: Sendable {
    private struct Layer {
        var identifier: ContentDigest
        var size: UInt64
        var done: UInt64 = 0
    }

    private let observer: PushObserver?
    private let layers = Mutex<[Int: Layer]>([:])

    init(_ observer: PushObserver?) { self.observer = observer }

    func began(_ tasks: [(index: Int, identifier: ContentDigest)], sizes: [UInt64], layers identifiers: [ContentDigest]) {
        layers.withLock { layers in
            for (task, size) in zip(tasks, sizes) { layers[task.index] = Layer(identifier: task.identifier, size: size) }
        }
        image(.began(layers: identifiers))
        for task in tasks { layer(task.index, .queued) }
    }

    func image(_ phase: PushEvent.Phase) {
        guard let observer else { return }
        let (done, total) = layers.withLock { layers in
            layers.values.reduce((UInt64(0), UInt64(0))) { ($0.0 &+ $1.done, $0.1 &+ $1.size) }
        }
        observer(PushEvent(component: .image, phase: phase, bytesDone: done, bytesTotal: total))
    }

    func layer(_ index: Int, _ phase: PushEvent.Phase, done: UInt64? = nil) {
        guard let observer else { return }
        let layer = layers.withLock { layers -> Layer? in
            guard var layer = layers[index] else { return nil }
            if let done { layer.done = done }
            if case .finished = phase { layer.done = layer.size }
            layers[index] = layer
            return layer
        }
        guard let layer else { return }
        observer(
            PushEvent(
                component: .layer(index: index, digest: layer.identifier), phase: phase, bytesDone: layer.done, bytesTotal: layer.size))
    }
}
