import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel
public import ComposefsSignaturePolicy
public import ComposefsTransports
import Synchronization

/// Options of a copy between registries, layouts and archives.
public struct IndexCopyOptions: Sendable {
    /// The number of blobs that are copied at the same time; nil for one per processor, and at least two.
    public var jobs: Int?
    /// Whether the artifacts that refer to the index or to one of its manifests are copied, and those that refer to these.
    public var copiesReferrers: Bool
    /// Sizes of manifests and depth of indexes. Other limits do not apply: blobs are copied as they are.
    public var limits = PullLimits()
    /// The signature policy that each manifest must satisfy, attestations included; nil asks none.
    public var signaturePolicy: LoadedPolicy?
    /// Ends the copy with `CancellationError`, before the next bytes are sent. The destination's tag stays unchanged. A `RegistryClient` has
    /// its own cancellation: pass it the same value, so that transfers end immediately.
    public var cancellation = Cancellation()
    /// Receives the copy's events. Layers are all blobs, by their digests.
    public var observer: PushObserver?

    /// Default options, except for the parameters.
    public init(jobs: Int? = nil, copiesReferrers: Bool = false, observer: PushObserver? = nil) {
        self.jobs = jobs
        self.copiesReferrers = copiesReferrers
        self.observer = observer
    }
}

/// The result of a copy between registries, layouts and archives.
public struct IndexCopyResult: Sendable {
    /// The digest of the index, or of the manifest if the reference does not name an index. It is the same at the destination.
    public var digest: ContentDigest
    /// Whether the reference names an index.
    public var isIndex: Bool
    /// The digests of the manifests, in the order of the indexes.
    public var manifests: [ContentDigest] = []
    /// The digests of the indexes below the first one.
    public var nestedIndexes: [ContentDigest] = []
    /// How the destination got each distinct blob, including those of referrers.
    public var blobs: [ContentDigest: PushedLayer] = [:]
    /// Foreign layers that the source does not have. Images may leave them out.
    public var blobsLeftOut: [ContentDigest] = []
    /// The size of all blobs that were sent, in bytes.
    public var bytesSent: UInt64 = 0
    /// The digests of the copied referrers.
    public var referrers: [ContentDigest] = []
    /// Referrers that are neither manifests nor readable as such.
    public var referrersLeftOut: [ContentDigest] = []
    /// Referrers that the source does not provide or the destination refused.
    public var referrersUnavailable: [ReferrerProblem] = []
    /// Whether documents in Docker's format were written to a layout or an archive of one. Their digests stay the same, but other readers of
    /// layouts may not find them.
    public var hasDockerFormat = false
}

/// Copies an image for all platforms byte for byte: the index that a reference names, every index and manifest below it, attestations and
/// manifests of unknown platforms included, and their configs and layers. The digest of the index stays the same. No store is involved.
///
/// All documents are read and verified before the destination is opened. Each distinct blob is copied once: one that the destination has is
/// not sent, and one in another repository of the same registry is mounted. Size and digest of every blob are verified on the way. The tag is
/// set at the end, so a copy that fails leaves unreferenced blobs at the destination, and the tag unchanged.
///
/// If the reference names a manifest, that image is copied.
///
/// Blocks the caller's thread; the work runs on other threads.
///
/// - Parameters:
///   - source: a registry, a layout or an archive of one. Other sources have no indexes.
///   - destination: opened after all documents have been read.
///   - options: number of blobs at the same time, referrers, limits, cancellation and observer.
/// - Throws: `OCIError`, `LimitExceeded`, `SignatureRefusal`, `PullError` if the source's content is refused, `PushError`, `CancellationError`, and errors of the
///   source and the destination.
public func copyIndex(
    from source: any ImageSource, to destination: @autoclosure () throws -> any ImageDestination,
    _ options: IndexCopyOptions = IndexCopyOptions()
) throws -> IndexCopyResult {
    let reporter = PushReporter(options.observer)
    try options.signaturePolicy?.requireAcceptable(source)
    let documents = try readImageDocuments(source, limits: options.limits, options.cancellation)
    if let policy = options.signaturePolicy {
        for document in documents {
            guard case .manifest(let manifest) = document.document else { continue }
            try policy.requireAccepted(
                manifest, document.digest, isListed: documents.count > 1, of: source, options.limits, options.cancellation)
        }
    }
    let copy = IndexCopy(source: source, destination: try destination(), options: options)
    return try copy.run(documents, reporter)
}

private final class IndexCopy: Sendable {
    let source: any ImageSource
    let destination: any ImageDestination
    let options: IndexCopyOptions

    init(source: any ImageSource, destination: any ImageDestination, options: IndexCopyOptions) {
        self.source = source
        self.destination = destination
        self.options = options
    }

    func run(_ documents: [ImageDocument], _ reporter: PushReporter) throws -> IndexCopyResult {
        guard let root = documents.last else { preconditionFailure("an image has a document") }
        if let wanted = destination.registryReference?.digest, wanted != root.digest {
            throw PushError.manifestDigest(wanted: wanted, actual: root.digest)
        }
        var result = IndexCopyResult(digest: root.digest, isIndex: root.isIndex)
        for document in documents {
            if !document.isIndex {
                result.manifests.append(document.digest)
            } else if document.digest != root.digest {
                result.nestedIndexes.append(document.digest)
            }
            if !destination.takesDockerFormat, MediaType.isOfDocker(document.mediaType) { result.hasDockerFormat = true }
        }
        try send(documents.flatMap(\.blobs), &result, reporter)
        reporter.image(.manifest)
        for document in documents.dropLast() { try put(document, isNamed: false) }
        if options.copiesReferrers {
            reporter.image(.referrers)
            try copyReferrers(of: documents, &result)
        }
        try put(root, isNamed: true)
        try destination.finish()
        reporter.image(.done)
        return result
    }

    private func put(_ document: ImageDocument, isNamed: Bool) throws {
        try options.cancellation.check()
        switch document.document {
        case .manifest(let manifest): try destination.putManifest(manifest, digest: document.digest, isNamed: isNamed)
        case .index(let index): try destination.putIndex(index, digest: document.digest, isNamed: isNamed)
        }
    }

    // MARK: Blobs

    /// How the destination got a blob.
    private enum Outcome {
        case pushed(PushedLayer)
        /// The source does not have it, and need not.
        case leftOut
    }

    /// Copies the blobs that have not been copied yet, the largest first, so that no large one is copied alone at the end.
    private func send(_ blobs: [Descriptor], _ result: inout IndexCopyResult, _ reporter: PushReporter) throws {
        var distinct: [Descriptor] = []
        var seen = Set(result.blobs.keys).union(result.blobsLeftOut)
        for blob in blobs where seen.insert(blob.digest).inserted { distinct.append(blob) }
        reporter.began(distinct.enumerated().map { ($0, $1.digest) }, sizes: distinct.map(\.size), layers: distinct.map(\.digest))
        let order = distinct.indices.sorted { (distinct[$0].size, $1) > (distinct[$1].size, $0) }
        let pool = WorkerPool(threads: max(1, min(options.jobs ?? max(2, Host.processorCount), order.count)))
        defer { pool.shutdown() }
        let state = Mutex<(outcomes: [Int: Outcome], failure: (any Error)?)>(([:], nil))
        let finished = Semaphore(0)
        for index in order {
            let blob = distinct[index]
            pool.submit { [self] in
                defer { finished.signal() }
                guard state.withLock({ $0.failure == nil }) else { return }
                do {
                    reporter.layer(index, .started)
                    let outcome = try send(blob) { reporter.layer(index, .bytes, done: $0) }
                    state.withLock { $0.outcomes[index] = outcome }
                    if case .pushed(let outcome) = outcome { reporter.layer(index, .finished(outcome)) }
                } catch {
                    state.withLock { $0.failure = $0.failure ?? error }
                }
            }
        }
        for _ in order { finished.wait() }
        let outcomes = try state.withLock { state in
            if let failure = state.failure { throw failure }
            return state.outcomes
        }
        for (index, blob) in distinct.enumerated() {
            switch outcomes[index] {
            case .pushed(let outcome)?:
                result.blobs[blob.digest] = outcome
                if outcome == .sent { result.bytesSent += blob.size }
            case .leftOut?: result.blobsLeftOut.append(blob.digest)
            case nil: preconditionFailure("a blob without an outcome has a failure")
            }
        }
    }

    /// Makes the destination have a blob.
    private func send(_ blob: Descriptor, _ progress: @escaping @Sendable (UInt64) -> Void) throws -> Outcome {
        try options.cancellation.check()
        if try destination.hasBlob(blob) { return .pushed(.present) }
        if let from = source.registryReference, let to = destination.registryReference, from.domain == to.domain, from.name != to.name,
            try destination.mountBlob(blob, from: from)
        {
            return .pushed(.mounted)
        }
        let expected = SentBlob(digest: blob.digest, size: blob.size)
        while true {
            do {
                _ = try destination.putBlob(
                    OutgoingBlob(expected: expected) { [self] emit in
                        if let data = blob.data { return try data.withUnsafeBytes { try emit($0) } }
                        try produce(blob, progress, emit)
                    })
                return .pushed(.sent)
            } catch is SourceChanged {
                continue
            } catch is NotAtSource {
                return .leftOut
            }
        }
    }

    /// The source sent wrong content, and the next download is from another origin of it.
    private struct SourceChanged: Error {}
    /// The source does not have a foreign blob.
    private struct NotAtSource: Error {}

    /// Emits a blob of the source from beginning to end, and verifies it before the destination does: a fault of the source is not one of the
    /// destination.
    private func produce(
        _ blob: Descriptor, _ progress: @Sendable (UInt64) -> Void, _ emit: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var isFirst = true
        try source.download(blob, options.cancellation).verified(by: { $0 is PullError ? .refused : .unrelated }) { reader in
            guard isFirst else { throw SourceChanged() }
            isFirst = false
            var content = VerifiedBlob(blob: reader, descriptor: blob, profile: PullProfile())
            while true {
                do {
                    try content.fill()
                } catch let error as any TransportError where blob.isForeign && content.received == 0 && error.concernsOneItem {
                    throw NotAtSource()
                }
                if content.isAtEnd { break }
                try options.cancellation.check()
                try emit(content.takeAll())
                progress(content.received)
            }
            try content.finish()
        }
    }

    // MARK: Referrers

    /// Copies the artifacts that refer to the documents, the artifacts that refer to those, and so on. The lists may be circular.
    ///
    /// Listed referrers that the source does not provide, or that the destination refuses, are left out and reported: the image is complete
    /// without them.
    private func copyReferrers(of documents: [ImageDocument], _ result: inout IndexCopyResult) throws {
        var seen = Set(documents.map(\.digest))
        // A layout lists the artifacts of all subjects: each is read once, however many subjects there are.
        var others: [ContentDigest: ContentDigest] = [:]
        for document in documents {
            var pending = [document.digest]
            var count = 0
            while let subject = pending.popLast() {
                let listed = try orProblem(subject, nil, &result) { _ in try source.referrers(of: subject, artifactType: nil) } ?? []
                for descriptor in listed where !seen.contains(descriptor.digest) {
                    if let known = others[descriptor.digest], known != subject { continue }
                    try options.cancellation.check()
                    let outcome = try orProblem(subject, descriptor.digest, &result) { try copyReferrer(descriptor, of: subject, &$0) }
                    if case .other(let named)? = outcome {
                        others[descriptor.digest] = named
                        continue
                    }
                    seen.insert(descriptor.digest)
                    count += 1
                    guard count <= ImagePull.referrerLimit else {
                        throw PullError.tooManyReferrers(document.digest, limit: ImagePull.referrerLimit)
                    }
                    switch outcome {
                    case .copied?:
                        result.referrers.append(descriptor.digest)
                        pending.append(descriptor.digest)
                    case .unknown?: result.referrersLeftOut.append(descriptor.digest)
                    case .other?, nil: break
                    }
                }
            }
        }
    }

    private enum Referrer {
        case copied
        /// It is no manifest.
        case unknown
        /// It refers to another subject, or to none; then this is its own digest.
        case other(ContentDigest)
    }

    private func copyReferrer(_ descriptor: Descriptor, of subject: ContentDigest, _ result: inout IndexCopyResult) throws -> Referrer {
        let digest = descriptor.digest
        try checkSize(descriptor.size, "referrer \(digest)", options.limits)
        let bytes = try descriptor.data ?? source.manifest(descriptor)
        guard UInt64(bytes.count) == descriptor.size, ContentDigest.of(bytes, digest.algorithm) == digest else {
            throw PullError.blobDigest(digest)
        }
        guard case .manifest(let manifest)? = try? ManifestDocument(parsing: bytes, mediaType: descriptor.mediaType) else {
            return .unknown
        }
        guard manifest.subject?.digest == subject else { return .other(manifest.subject?.digest ?? digest) }
        let document = ImageDocument(.manifest(manifest), digest)
        try send(document.blobs, &result, PushReporter(nil))
        try put(document, isNamed: false)
        return .copied
    }

    /// Returns what `body` returns. If the source or the destination cannot do it, adds a problem to the result and returns nil.
    private func orProblem<Value>(
        _ subject: ContentDigest, _ digest: ContentDigest?, _ result: inout IndexCopyResult, _ body: (inout IndexCopyResult) throws -> Value
    ) throws -> Value? {
        do { return try body(&result) } catch let error as any TransportError where error.concernsOneItem {
            // Cancellation is not a problem of the referrer.
            try options.cancellation.check()
            result.referrersUnavailable.append(ReferrerProblem(subject: subject, digest: digest, reason: "\(error)"))
            return nil
        }
    }
}

extension ImageDocument {
    fileprivate var isIndex: Bool { if case .index = document { true } else { false } }

    /// The config and the layers of a manifest.
    fileprivate var blobs: [Descriptor] {
        switch document {
        case .manifest(let manifest): [manifest.config] + manifest.layers
        case .index: []
        }
    }
}

extension MediaType {
    fileprivate static func isOfDocker(_ type: String) -> Bool { type == dockerManifest || type == dockerManifestList }
}
