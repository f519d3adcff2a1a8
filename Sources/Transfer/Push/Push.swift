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

/// Pushes a stored image to a destination: first the blobs, then the manifest by its digest, its referrers, and finally the tag. A push
/// that fails leaves unreferenced blobs at the destination, and the tag unchanged.
///
/// Layers are re-assembled byte for byte and compared with their diff IDs. If the original blobs of all layers can be used (because the
/// destination has them or the store keeps them), the manifest is sent unchanged. Otherwise it refers to the new blobs, and nothing else in
/// it changes. The manifest of an artifact never changes, because its blobs are stored unchanged.
///
/// Blocks the caller's thread; the work runs on other threads. The number of layers that are sent at the same time limits the memory.
///
/// - Parameters:
///   - image: the image.
///   - store: the store of the image.
///   - destination: the registry, layout or archive.
///   - options: compression, referrers, cancellation and observer.
/// - Throws: `PushError`, `ImageStoreError`, `RepositoryError`, `CancellationError`, and errors of the destination.
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

/// Sends images to a destination.
final class ImagePush: Sendable {
    let store: ImageStore
    let destination: any ImageDestination
    let options: PushOptions
    /// Compresses blocks of all layers.
    let pool: WorkerPool
    /// Other repositories of the same registry that may have a blob.
    let mounts: [ContentDigest: [RegistryReference]]
    /// Whether the manifest must stay as it is, because an index names it by its digest.
    let isExact: Bool
    let bytesSent = Mutex<UInt64>(0)

    init(
        store: ImageStore, destination: any ImageDestination, options: PushOptions, pool: WorkerPool,
        mounts: [ContentDigest: [RegistryReference]], isExact: Bool = false
    ) {
        self.isExact = isExact
        self.store = store
        self.destination = destination
        self.options = options
        self.pool = pool
        self.mounts = mounts
    }

    func run(_ image: StoredImage) throws -> PushResult {
        let reporter = PushReporter(options.observer)
        let packed = try sendContent(of: image, reporter)
        let (manifest, digest) = (packed.manifest, packed.digest)
        if let wanted = destination.registryReference?.digest, wanted != digest {
            throw PushError.manifestDigest(wanted: wanted, actual: digest)
        }
        reporter.image(.manifest)
        var referrers = Referrers()
        // If there are referrers, the manifest is first sent by its digest. The tag is set after everything has been sent.
        if try options.referrers != .none && !store.referrers(of: image.manifestDigest).isEmpty {
            try put(manifest, digest, isNamed: false)
            reporter.image(.referrers)
            try sendReferrers(of: image.manifestDigest, as: packed.descriptor, &referrers)
        }
        try put(manifest, digest, isNamed: true)
        try destination.finish()
        reporter.image(.done)
        return PushResult(
            manifestDigest: digest, sourceDigest: image.manifestDigest, configDigest: image.configDigest, layers: packed.layers,
            bytesSent: bytesSent.withLock { $0 }, referrers: referrers.sent, referrersLeftOut: referrers.leftOut,
            referrersRefused: referrers.refused, isConverted: packed.isConverted)
    }

    /// An image whose blobs the destination has, and the manifest that names them.
    struct PackedImage {
        var manifest: Manifest
        var digest: ContentDigest
        var layers: [(descriptor: Descriptor, outcome: PushedLayer)]
        var isConverted: Bool

        var descriptor: Descriptor { Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count)) }
    }

    /// Sends the layers and the config of an image.
    func sendContent(of image: StoredImage, _ reporter: PushReporter) throws -> PackedImage {
        let layers = try sendLayers(of: image, reporter)
        try send(config: image)
        let packed = try image.manifest.replacing(layers: layers.map(\.descriptor))
        let manifest = destination.takesDockerFormat || isExact ? packed : try packed.convertedToOCI(isImage: image.isContainer)
        return PackedImage(
            manifest: manifest, digest: manifest.digest(inPlaceOf: image.manifest, image.manifestDigest),
            layers: zip(manifest.layers, layers).map { ($0, $1.outcome) }, isConverted: manifest.mediaType != packed.mediaType)
    }

    // MARK: Layers

    /// A distinct layer of an image.
    private struct Task: Sendable {
        var index: Int
        var identifier: ContentDigest
        var descriptor: Descriptor
        var stream: ObjectID
        var isArchive: Bool
        /// The stream of the original blob, if the store keeps it.
        var keptBlob: ObjectID?
    }

    private typealias SentLayer = (descriptor: Descriptor, outcome: PushedLayer)

    private func sendLayers(of image: StoredImage, _ reporter: PushReporter) throws -> [SentLayer] {
        let count = image.manifest.layers.count
        let identifiers = image.layerIdentifiers
        guard identifiers.count == count else {
            throw ImageStoreError.damaged(
                stream: StreamName.config(image.configDigest), .diffIDCount(config: identifiers.count, manifest: count))
        }
        // A repeated layer is sent once, but its second descriptor can name another blob.
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
        // The largest first, so that no large layer is sent alone at the end.
        let order = zip(tasks, sizes).sorted { ($0.1, $1.0.index) > ($1.1, $0.0.index) }.map(\.0)
        let jobs = max(1, min(options.jobs ?? max(2, Host.processorCount), order.count))
        let senders = WorkerPool(threads: jobs)
        defer { senders.shutdown() }
        let state = Mutex<(sent: [Int: SentLayer], failure: (any Error)?)>(([:], nil))
        let finished = Semaphore(0)
        for task in order {
            senders.submit { [self] in
                defer { finished.signal() }
                guard state.withLock({ $0.failure == nil }) else { return }
                do {
                    let sent = try send(task, reporter)
                    state.withLock { $0.sent[task.index] = sent }
                    reporter.layer(task.index, .finished(sent.outcome))
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
                    .flatMap { state.sent[$0.index] }
            }
        }
    }

    private func send(_ task: Task, _ reporter: PushReporter) throws -> SentLayer {
        reporter.layer(task.index, .started)
        let original = task.descriptor
        guard task.isArchive else {
            let outcome = try send(original) { [store] emit in try store.readLayer(task.stream, emit) }
            return (original, outcome)
        }
        let layerType = LayerMediaType(original.mediaType)
        let packed = layerType?.compression ?? .gzip
        let format = options.compression ?? packed
        let kept = task.keptBlob.map { stream -> OutgoingBlob.Producer in { [store] emit in try store.readLayer(stream, emit) } }
        if format == packed, let outcome = try send(original, kept) {
            var descriptor = original
            if !isExact, layerType?.isDistributable == false, destination.registryReference != nil {
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
            if let outcome = try send(descriptor(expected), nil) { return (descriptor(expected), outcome) }
        } else if let known = PackingHint.find(for: packing), let outcome = try send(descriptor(known), nil),
            // The hint is not trusted: it saves the transfer, but the layer is compressed to prove that this blob is the layer.
            try packing.measure() == known
        {
            return (descriptor(known), outcome)
        }
        let sent = try put(expected) { try packing.produce($0) }
        if format != .none { PackingHint.set(sent, for: packing) }
        return (descriptor(sent), .sent)
    }

    // MARK: Blobs

    /// Makes the destination have a blob whose digest is known: it is present, mounted, or sent if `produce` is given. Nil if it is none of
    /// these.
    private func send(_ blob: Descriptor, _ produce: OutgoingBlob.Producer?) throws -> PushedLayer? {
        try options.cancellation.check()
        if try destination.hasBlob(blob) { return .present }
        for source in mounts[blob.digest] ?? [] where try destination.mountBlob(blob, from: source) { return .mounted }
        guard let produce else { return nil }
        _ = try put(SentBlob(digest: blob.digest, size: blob.size), produce)
        return .sent
    }

    private func send(_ blob: Descriptor, _ produce: @escaping OutgoingBlob.Producer) throws -> PushedLayer {
        try send(blob, .some(produce)) ?? .sent
    }

    private func send(config image: StoredImage) throws {
        let bytes = image.configBytes
        _ = try send(image.manifest.config) { emit in try bytes.withUnsafeBytes { try emit($0) } }
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

    func put(_ manifest: Manifest, _ digest: ContentDigest, isNamed: Bool) throws {
        try options.cancellation.check()
        try destination.putManifest(manifest, digest: digest, isNamed: isNamed)
    }

    // MARK: Referrers

    struct Referrers {
        var sent: [ContentDigest] = []
        var leftOut: [ContentDigest] = []
        var refused: [ReferrerProblem] = []
        /// The digests in the store, because records of referrers can be circular.
        var seen: Set<ContentDigest> = []
        /// The index whose own referrers are sent after those of its images, for which they may be recorded, too.
        var index: ContentDigest?
    }

    /// Sends the referrers of an image or index, and theirs. Records can form chains of any length, and circles.
    ///
    /// - Parameter sent: the subject as it was sent.
    func sendReferrers(of subject: ContentDigest, as sent: Descriptor, _ referrers: inout Referrers) throws {
        // The subjects in the store, and as they were sent.
        var pending = [(stored: subject, sent: sent)]
        while let subject = pending.popLast() {
            let descriptor = subject.sent
            for artifact in try store.referrers(of: subject.stored) where !referrers.seen.contains(artifact) {
                guard let image = try store.image(artifact) else { continue }
                if let index = referrers.index, index != subject.stored, image.manifest.subject?.digest == index { continue }
                referrers.seen.insert(artifact)
                // If only the store's record connects the artifact with the subject, a registry would not list it.
                let isAsItWas = image.manifest.subject?.digest == descriptor.digest
                guard isAsItWas || options.referrers == .rewritten else {
                    referrers.leftOut.append(artifact)
                    continue
                }
                let pushed: Manifest
                do {
                    let layers = try sendLayers(of: image, PushReporter(nil))
                    try send(config: image)
                    let rewritten = try image.manifest.replacing(layers: layers.map(\.descriptor), subject: isAsItWas ? nil : descriptor)
                    pushed = isAsItWas ? rewritten : try rewritten.withoutSignatureOfSubject()
                    try put(pushed, pushed.digest(inPlaceOf: image.manifest, artifact), isNamed: false)
                } catch let error as any TransportError where error.concernsOneItem {
                    // Some registries do not support artifacts. The image is complete without them.
                    referrers.refused.append(ReferrerProblem(subject: descriptor.digest, digest: artifact, reason: "\(error)"))
                    continue
                }
                let pushedDigest = pushed.digest(inPlaceOf: image.manifest, artifact)
                referrers.sent.append(pushedDigest)
                let own = Descriptor(mediaType: pushed.mediaType, digest: pushedDigest, size: UInt64(pushed.bytes.count))
                pending.append((artifact, own))
            }
        }
    }
}

extension Manifest {
    /// The digest of the manifest that is sent instead of a stored one.
    fileprivate func digest(inPlaceOf stored: Manifest, _ storedDigest: ContentDigest) -> ContentDigest {
        bytes == stored.bytes ? storedDigest : .of(bytes, storedDigest.algorithm)
    }
}

extension ImageStore {
    /// Other repositories of the destination's registry from which stored images came, according to their tags, by blob.
    func mountSources(for destination: RegistryReference) throws -> [ContentDigest: [RegistryReference]] {
        var sources: [ContentDigest: [RegistryReference]] = [:]
        for tag in try tags() {
            guard let text = tag.name.utf8Text, let reference = try? RegistryReference(parsing: text), reference.canonical == text,
                reference.domain == destination.domain, reference.name != destination.name, let image = try? image(tag.manifestDigest)
            else { continue }
            for blob in image.manifest.layers + [image.manifest.config] {
                // Two repositories are enough: if the registry mounts from neither, it probably mounts from none.
                let known = sources[blob.digest] ?? []
                if known.count < 2, !known.contains(where: { $0.name == reference.name }) {
                    sources[blob.digest, default: []].append(reference)
                }
            }
        }
        return sources
    }
}

/// Creates a push's events and passes them to the observer.
final class PushReporter: Sendable {
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
