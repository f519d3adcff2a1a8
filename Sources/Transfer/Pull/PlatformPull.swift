import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
public import ComposefsRepository
import ComposefsSignaturePolicy
public import ComposefsTransports

/// Pulls the images of an index for all platforms, and the index.
///
/// Each image gets its own tag, which consists of the name and the platform (`docker.io/library/alpine:latest-linux-arm64`), so that it is
/// listed, mounted and removed like other images. The image for `options.platform` gets the plain name too, and so does the index, which keeps
/// all of them, and attestations and other manifests that it lists and that get no tag. It becomes visible last. Of these others, what the
/// source does not provide, the policy refuses or the store does not support is left out. If the reference does not name an index, the image gets the plain name only.
///
/// The source is always read, whatever `options.policy` says.
///
/// - Parameters:
///   - source: the source of the index.
///   - repository: the repository that stores the images.
///   - options: as for `pullImage`; `name` replaces the name before the platform.
/// - Returns: first the image for `options.platform`, if there is one; then the others in the order of the index.
/// - Throws: as `pullImage`. Images that were pulled before the failure stay.
public func pullAllPlatforms(
    from source: any ImageSource, into repository: Repository, _ options: PullOptions = PullOptions()
) throws -> [PullResult] {
    let reporter = PullReporter(options.observer)
    reporter.image(.resolving(reference: source.canonicalName))
    let whole = ImagePull(source: source, repository: repository, options: options, reporter: reporter)
    try whole.requireAcceptableSource()
    let all = try resolveAllManifests(source, limits: options.limits, options.cancellation)
    let manifests = all.manifests
    let name = options.name ?? ByteString(source.canonicalName)
    func pull(_ manifest: ResolvedManifest, _ name: ByteString, other: ByteString? = nil, isLast: Bool = true) throws -> PullResult {
        try options.cancellation.check()
        return try ImagePull(source: source, repository: repository, options: options, reporter: reporter, isLast: isLast).take(
            manifest, name, other: other)
    }
    guard let root = all.indexes.last else {
        for manifest in manifests { try whole.requireAccepted(manifest) }
        return try manifests.map { try pull($0, name) }
    }

    var images: [(manifest: ResolvedManifest, platform: Platform)] = []
    var artifacts: [(manifest: ResolvedManifest, platform: Platform)] = []
    for manifest in manifests {
        let stated = manifest.descriptor?.platform.flatMap { $0.isUnknown || $0.os.isEmpty && $0.architecture.isEmpty ? nil : $0 }
        if let stated, manifest.manifest.isImageByItsTypes {
            images.append((manifest, stated))
            continue
        }
        // If the index does not state the platform, the config does.
        if let config = try whole.config(of: manifest.manifest) {
            if let platform = stated ?? (config.platform.isUnknown ? nil : config.platform) { images.append((manifest, platform)) }
        } else if let stated {
            artifacts.append((manifest, stated))
        }
    }
    var named: [(manifest: ResolvedManifest, platform: Platform, name: ByteString)] = []
    // Artifacts with a platform are pulled only if there are no images.
    for (manifest, platform) in images.isEmpty ? artifacts : images {
        let full = name + "-" + platform.tagSuffix
        guard !named.contains(where: { $0.name == full }) else { continue }
        try ImageTag.check(full)
        named.append((manifest, platform, full))
    }
    let ranked = named.indices.compactMap { index in options.platform.rank(of: named[index].platform).map { (rank: $0, index: index) } }
    let first = ranked.min { ($0.rank, $0.index) < ($1.rank, $1.index) }?.index
    guard !named.isEmpty else { throw OCIError.noMatchingPlatform(wanted: options.platform, available: []) }
    // All of them, before the first is stored.
    for image in named { try whole.requireAccepted(image.manifest) }
    if let first { named.insert(named.remove(at: first), at: 0) }
    var index = PulledIndex(digest: root.digest, name: name, leftOut: all.unread.map { .init(digest: $0.digest, reason: $0.reason) })
    let tagged = Set(named.map(\.manifest.digest))
    // The network is not needed after the last of the images for a platform, so the others come first.
    try whole.takeOthers(manifests.filter { !tagged.contains($0.digest) } + all.others, of: root.digest, &index)
    var results = try named.enumerated().map { position, entry in
        let isLast = position == named.count - 1
        return position == 0 && first != nil
            ? try pull(entry.manifest, name, other: entry.name, isLast: isLast) : try pull(entry.manifest, entry.name, isLast: isLast)
    }
    index.manifests += results.map(\.manifestDigest)
    try whole.publish(all.indexes, as: name)
    for position in results.indices { results[position].index = index }
    return results
}

extension ImagePull {
    /// Pulls manifests that get no tag, and the referrers of the index.
    fileprivate func takeOthers(_ manifests: [ResolvedManifest], of root: ContentDigest, _ index: inout PulledIndex) throws {
        for manifest in manifests {
            try options.cancellation.check()
            do {
                try requireAccepted(manifest)
                let reporter = manifest.manifest.isImageByItsTypes ? reporter : PullReporter(nil)
                _ = try ImagePull(source: source, repository: repository, options: options, reporter: reporter).takeListed(manifest)
                index.manifests.append(manifest.digest)
            } catch let error as SignatureRefusal {
                index.leftOut.append(.init(digest: manifest.digest, reason: "\(error)"))
            } catch let error as any TransportError where error.concernsOneItem || Self.isOfUnsupportedKind(error) {
                try options.cancellation.check()
                index.leftOut.append(.init(digest: manifest.digest, reason: "\(error)"))
            }
        }
        if options.storesReferrers { try pullReferrers(ofIndex: root) }
    }

    /// Whether the manifest is sound, but not for this store: its layers are not archives, for example.
    private static func isOfUnsupportedKind(_ error: any Error) -> Bool {
        switch error {
        case OCIError.unsupported: true
        case PullError.layer(_, _, _, let cause): isOfUnsupportedKind(cause)
        default: false
        }
    }

    /// Publishes the streams of indexes, each after those that it lists, and the name of the last.
    fileprivate func publish(_ indexes: [(index: ImageIndex, digest: ContentDigest)], as name: ByteString) throws {
        try repository.storeAsOne {
            var publication = Repository.Publication()
            var streams: [ContentDigest: ObjectID] = [:]
            for (position, entry) in indexes.enumerated() where streams[entry.digest] == nil {
                streams[entry.digest] = try store.store(
                    entry.index, entry.digest, streams, name: position == indexes.count - 1 ? name : nil, source: recordedReference,
                    &publication)
            }
            try repository.publish(publication)
        }
    }
}

extension Platform {
    /// The platform as a suffix of a tag: `linux-arm64`, `linux-arm-v6`, `windows-amd64-10.0.20348.2527`.
    var tagSuffix: ByteString {
        let platform = normalized
        let parts = [platform.os, platform.architecture, platform.variant, platform.osVersion].compactMap { $0 }.filter { !$0.isEmpty }
        return ByteString(
            parts.joined(separator: "-").utf8.map { ByteClass.isAlphanumeric($0) || $0 == 0x2e || $0 == 0x2d ? $0 : UInt8(ascii: "_") })
    }
}
