import ComposefsConcurrency
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
public import ComposefsTransports
import Synchronization

/// Pushes a stored index to a destination: for each stored manifest that it lists, and for those of the indexes in it, the blobs and then the
/// manifest by its digest, with its referrers; the referrers of the index; and finally the index under the tag. A push that fails leaves the tag
/// unchanged; repeated, it sends what is missing.
///
/// The index keeps its bytes, and so its digest, unless `PushOptions.index` permits a new one. Then every manifest must keep its digest: if a layer
/// has to be compressed again with another result, the push is refused before that manifest is sent.
///
/// Blocks the caller's thread; the work runs on other threads.
///
/// - Parameters:
///   - index: the index.
///   - store: the store of the index.
///   - destination: the registry, layout or archive.
///   - options: how the index is pushed, compression, referrers, cancellation and observer.
/// - Throws: `PushError`, `ImageStoreError`, `RepositoryError`, `CancellationError`, and errors of the destination.
public func pushIndex(
    _ index: StoredIndex, of store: ImageStore, to destination: @autoclosure () throws -> any ImageDestination,
    _ options: PushOptions = PushOptions()
) throws -> IndexPushResult {
    if let format = options.compression { _ = try options.level(of: format) }
    let missing = try missingManifests(of: index, in: store, options)
    let destination = try destination()
    if options.index != .rewritten, let wanted = destination.registryReference?.digest, wanted != index.digest {
        throw PushError.manifestDigest(wanted: wanted, actual: index.digest)
    }
    let pool = WorkerPool(threads: Host.processorCount)
    defer { pool.shutdown() }
    let mounts = try destination.registryReference.map { try store.mountSources(for: $0) } ?? [:]
    let push = ImagePush(
        store: store, destination: destination, options: options, pool: pool, mounts: mounts, isExact: options.index != .rewritten)
    var result = IndexPushResult(digest: index.digest, sourceDigest: index.digest, missing: missing.map(\.digest))
    try push.run(index, &result)
    return result
}

/// What an index lists and the store does not have.
///
/// - Throws: if the index cannot be pushed for that reason: `PushError.indexIncomplete`, `.indexEmpty`; `ImageStoreError` and `RepositoryError` if a
///   manifest or config is damaged.
@discardableResult
public func missingManifests(
    of index: StoredIndex, in store: ImageStore, _ options: PushOptions = PushOptions()
) throws -> [StoredIndex.Member] {
    let listed = try store.manifests(of: index)
    let missing = listed.filter { !$0.isStored }
    if options.index == .unchanged, !missing.isEmpty { throw PushError.indexIncomplete(index.digest, missing: missing.map(\.name)) }
    guard missing.count < listed.count else { throw PushError.indexEmpty(index.digest) }
    for member in listed where member.isStored {
        guard try store.image(member.digest) != nil else {
            throw ImageStoreError.damaged(stream: member.stream, .missing(tag: nil))
        }
    }
    return missing
}

extension ImagePush {
    fileprivate func run(_ index: StoredIndex, _ result: inout IndexPushResult) throws {
        let reporter = PushReporter(options.observer)
        var referrers = Referrers(index: index.digest)
        var sent: [ContentDigest: Descriptor] = [:]
        let pushed = try sendManifests(of: index, &sent, &result, &referrers, reporter)
        let descriptor = Descriptor(
            mediaType: pushed.mediaType,
            digest: pushed.bytes == index.index.bytes ? index.digest : .of(pushed.bytes, index.digest.algorithm),
            size: UInt64(pushed.bytes.count))
        if let wanted = destination.registryReference?.digest, wanted != descriptor.digest {
            throw PushError.manifestDigest(wanted: wanted, actual: descriptor.digest)
        }
        reporter.image(.manifest)
        // As for one image: the tag is set after everything has been sent.
        if try options.referrers != .none && !store.referrers(of: index.digest).isEmpty {
            try put(pushed, descriptor.digest, isNamed: false)
            reporter.image(.referrers)
            try sendReferrers(of: index.digest, as: descriptor, &referrers)
        }
        try put(pushed, descriptor.digest, isNamed: true)
        try destination.finish()
        reporter.image(.done)
        result.digest = descriptor.digest
        result.bytesSent = bytesSent.withLock { $0 }
        (result.referrers, result.referrersLeftOut, result.referrersRefused) = (referrers.sent, referrers.leftOut, referrers.refused)
    }

    /// Sends what an index lists and the store has.
    ///
    /// - Parameter sent: the descriptors of what was sent, by the digests in the store.
    /// - Returns: the index to send.
    private func sendManifests(
        of index: StoredIndex, _ sent: inout [ContentDigest: Descriptor], _ result: inout IndexPushResult, _ referrers: inout Referrers,
        _ reporter: PushReporter
    ) throws -> ImageIndex {
        for member in index.members where member.isStored && sent[member.digest] == nil {
            if member.isIndex {
                guard let inner = try store.index(member.digest) else { continue }
                // Without any of its manifests it is left out.
                let isEmpty = try store.manifests(of: inner).allSatisfy { !$0.isStored }
                if isEmpty { continue }
                let pushed = try sendManifests(of: inner, &sent, &result, &referrers, reporter)
                let digest = pushed.bytes == inner.index.bytes ? member.digest : ContentDigest.of(pushed.bytes, member.digest.algorithm)
                try put(pushed, digest, isNamed: false)
                sent[member.digest] = Descriptor(mediaType: pushed.mediaType, digest: digest, size: UInt64(pushed.bytes.count))
            } else {
                sent[member.digest] = try send(member, &result, &referrers, reporter)
            }
        }
        guard options.index == .rewritten else {
            noteFormat(index.index.mediaType, &result)
            return index.index
        }
        let isOCI = !destination.takesDockerFormat && index.index.mediaType == MediaType.dockerManifestList
        return try index.index.replacing(sent, isOCI: isOCI)
    }

    private func send(
        _ member: StoredIndex.Member, _ result: inout IndexPushResult, _ referrers: inout Referrers, _ reporter: PushReporter
    ) throws -> Descriptor {
        guard let image = try store.image(member.digest) else {
            throw ImageStoreError.damaged(stream: member.stream, .missing(tag: nil))
        }
        let packed = try sendContent(of: image, reporter)
        if isExact, packed.digest != member.digest {
            throw PushError.listedManifest(platform: member.platform, stored: member.digest, sent: packed.digest)
        }
        if isExact { noteFormat(packed.manifest.mediaType, &result) }
        try put(packed.manifest, packed.digest, isNamed: false)
        if options.referrers != .none { try sendReferrers(of: member.digest, as: packed.descriptor, &referrers) }
        result.manifests.append(
            .init(digest: packed.digest, sourceDigest: member.digest, platform: member.descriptor.platform, layers: packed.layers))
        return packed.descriptor
    }

    private func put(_ index: ImageIndex, _ digest: ContentDigest, isNamed: Bool) throws {
        try options.cancellation.check()
        try destination.putIndex(index, digest: digest, isNamed: isNamed)
    }

    private func noteFormat(_ type: String, _ result: inout IndexPushResult) {
        let isDocker = type == MediaType.dockerManifest || type == MediaType.dockerManifestList
        if !destination.takesDockerFormat, isDocker { result.hasDockerFormat = true }
    }
}

extension StoredIndex.Member {
    /// The platform; nil if the index does not state it.
    fileprivate var platform: String? { descriptor.platform.flatMap { $0.isUnknown ? nil : $0.description } }
    /// For messages.
    fileprivate var name: String { platform.map { "\($0) (\(digest))" } ?? digest.description }
}
