public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel

/// The manifest that a reference resolves to for one platform.
public struct ResolvedManifest: Hashable, Sendable {
    /// The manifest, verified.
    public var manifest: Manifest
    /// The digest of the manifest.
    public var digest: ContentDigest
    /// The index entry of the manifest; nil if the reference names the manifest itself and the source has no descriptor of it.
    public var descriptor: Descriptor?
    /// The index that the reference names; nil if it names the manifest itself.
    public var index: ContentDigest?
}

/// Resolves a reference, through indexes, to the manifest for one platform. Digest and size of every document are compared with the
/// descriptor that names it.
///
/// - Parameters:
///   - source: the image's source.
///   - platform: the wanted platform.
///   - limits: sizes of manifests and depth of indexes.
///   - cancellation: ends the resolution, with `CancellationError`.
/// - Throws: `OCIError`, `LimitExceeded`, `CancellationError`, or what the source throws.
public func resolveManifest(
    _ source: any ImageSource, platform: Platform, limits: PullLimits = PullLimits(), _ cancellation: Cancellation = Cancellation()
) throws -> ResolvedManifest {
    try cancellation.check()
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return manifest
    case .index(let index, let digest):
        let reader = IndexReader(source: source, limits: limits, cancellation: cancellation)
        var search = IndexSearch(reader: reader, platform: platform)
        var found = try search.run(index)
        found.index = digest
        return found
    }
}

/// What a reference names, with all that an index lists.
package struct AllManifests: Sendable {
    /// The index that the reference names, and the indexes that it lists, each after those that it lists; empty if it names a manifest.
    package var indexes: [(index: ImageIndex, digest: ContentDigest)] = []
    /// The manifests for all platforms, each once, in the order of the indexes. Attestations and manifests that require `os.features` are left out.
    package var manifests: [ResolvedManifest] = []
    /// The other manifests, in the order of the indexes.
    package var others: [ResolvedManifest] = []
    /// What the indexes list and what was not read, and why.
    package var unread: [(digest: ContentDigest, reason: String)] = []
}

/// Resolves a reference to all manifests of the index that it names, or to the manifest that it names.
///
/// - Throws: as `resolveManifest`. Manifests that are not for a platform, and that the source does not provide, are left out.
package func resolveAllManifests(
    _ source: any ImageSource, limits: PullLimits, _ cancellation: Cancellation = Cancellation()
) throws -> AllManifests {
    try cancellation.check()
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return AllManifests(manifests: [manifest])
    case .index(let index, let digest):
        var found = AllManifests()
        var others: [(entry: Descriptor, depth: UInt64)] = []
        var reader = IndexReader(source: source, limits: limits, cancellation: cancellation)
        func visit(_ index: ImageIndex, _ own: ContentDigest, depth: UInt64) throws {
            let runnable = index.manifests.filter {
                $0.isOfKnownKind && !$0.isAnnotatedAsAttestation && $0.platform?.isOrdinary != false
            }
            // If nothing else is listed, manifests of an unknown platform can be images.
            let listed = runnable.filter { !$0.isAttestation }
            let chosen = listed.isEmpty ? runnable : listed
            for entry in chosen {
                switch try reader.read(entry, depth: depth) {
                case .manifest(let manifest)?:
                    found.manifests.append(ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry, index: digest))
                case .index(let inner)?: try visit(inner, entry.digest, depth: depth + 1)
                case nil: break
                }
            }
            let read = Set(chosen.map(\.digest))
            others += index.manifests.filter { !read.contains($0.digest) }.map { ($0, depth) }
            found.indexes.append((index, own))
        }
        try visit(index, digest, depth: 1)
        for (entry, depth) in others where !reader.visited.contains(entry.digest) {
            do {
                guard entry.isOfKnownKind else {
                    throw OCIError.unsupported(document: "entry \(entry.digest)", .mediaType(entry.mediaType))
                }
                guard case .manifest(let manifest)? = try reader.read(entry, depth: depth) else {
                    throw OCIError.unsupported(document: "entry \(entry.digest)", .mediaType(entry.mediaType))
                }
                found.others.append(ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry, index: digest))
            } catch OCIError.unsupported(let document, let fault) {
                // What is damaged is refused, and what is of no known kind is left out.
                found.unread.append((entry.digest, "\(OCIError.unsupported(document: document, fault))"))
            } catch let error as any TransportError where error.concernsOneItem {
                try cancellation.check()
                found.unread.append((entry.digest, "\(error)"))
            }
        }
        return found
    }
}

enum RootDocument {
    case manifest(ResolvedManifest)
    case index(ImageIndex, ContentDigest)
}

func readRoot(_ source: any ImageSource, _ limits: PullLimits) throws -> RootDocument {
    let root = try source.rootManifest()
    try checkSize(UInt64(root.bytes.count), "manifest", limits)
    if let expected = root.expected { try check(root.bytes, expected) }
    let type = root.mediaType ?? root.expected.flatMap { $0.mediaType.isEmpty ? nil : $0.mediaType }
    let digest = root.expected?.digest ?? ContentDigest.of(root.bytes)
    switch try ManifestDocument(parsing: root.bytes, mediaType: type) {
    case .manifest(let manifest):
        return .manifest(ResolvedManifest(manifest: manifest, digest: digest, descriptor: root.expected))
    case .index(let index): return .index(index, digest)
    }
}

/// Compares the announced size of a manifest or index with the limits.
///
/// - Parameter document: the name of the document in the error.
package func checkSize(_ size: UInt64, _ document: String, _ limits: PullLimits) throws(LimitExceeded) {
    let allowed = min(limits.manifestBytes, UInt64(ImageLimits.largestManifest))
    guard size <= allowed else { throw LimitExceeded(.manifestBytes, allowed: allowed, found: size, location: document) }
}

private func check(_ bytes: [UInt8], _ expected: Descriptor, _ kind: String = "manifest") throws(OCIError) {
    guard UInt64(bytes.count) == expected.size else {
        throw .malformed(document: "\(kind) \(expected.digest)", .announcedSize(found: bytes.count, announced: expected.size))
    }
    let digest = ContentDigest.of(bytes, expected.digest.algorithm)
    guard digest == expected.digest else {
        throw .malformed(document: "\(kind) \(expected.digest)", .digest(digest))
    }
}

/// Reads the documents that indexes list. Each document is read once, so an index that lists another one many times causes no extra reads.
struct IndexReader {
    let source: any ImageSource
    let limits: PullLimits
    let cancellation: Cancellation
    var visited: Set<ContentDigest> = []

    /// Reads and verifies the document of an entry; nil if it was read before.
    mutating func read(_ entry: Descriptor, depth: UInt64) throws -> ManifestDocument? {
        guard visited.insert(entry.digest).inserted else { return nil }
        guard visited.count <= ImageLimits.indexCount else {
            throw OCIError.unsupported(document: "index", .tooManyDocuments(limit: ImageLimits.indexCount))
        }
        let deepest = min(limits.indexDepth, UInt64(ImageLimits.deepestIndex))
        guard depth < deepest || !MediaType.isIndex(entry.mediaType) else {
            throw LimitExceeded(.indexDepth, allowed: deepest, location: "index \(entry.digest)")
        }
        try checkSize(entry.size, "manifest \(entry.digest)", limits)
        try cancellation.check()
        let bytes = try entry.data ?? source.manifest(entry)
        try check(bytes, entry)
        return try ManifestDocument(parsing: bytes, mediaType: entry.mediaType)
    }

    /// The config of an image; nil for an artifact.
    func config(of manifest: Manifest) throws -> ImageConfig? {
        guard manifest.mayBeImage else { return nil }
        return try manifest.imageConfig(from: try manifest.config.data ?? read(manifest.config))
    }

    /// Reads and verifies a config.
    private func read(_ config: Descriptor) throws -> [UInt8] {
        guard config.size <= UInt64(ImageLimits.configBytes) else {
            throw OCIError.malformed(
                document: "config \(config.digest)",
                .announcedTooLarge(config.size, limit: ImageLimits.configBytes))
        }
        return try source.download(config, cancellation).verified { blob in
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 64 << 10)
            while UInt64(bytes.count) <= config.size, case let count = try buffer.withUnsafeMutableBytes({ try blob.read(into: $0) }),
                count > 0
            {
                bytes += buffer[..<count]
            }
            try check(bytes, config, "config")
            return bytes
        }
    }
}

/// Searches an index for the manifest that matches a platform best.
///
/// An entry that states exactly the wanted platform is selected first. Otherwise, entries without a platform are examined through their
/// configs, depth first and including nested indexes, and the best match is selected. Artifacts and entries of unknown kinds that are
/// listed beside the image are ignored. An artifact is selected if the index lists no images, or if only artifacts match the platform.
private struct IndexSearch {
    var reader: IndexReader
    let platform: Platform
    /// The platforms of the images, as stated by indexes and configs.
    var platforms: [String] = []
    private var best: (rank: Int, manifest: ResolvedManifest)?
    /// The first artifact, and whether its entry states the platform.
    private var artifact: (manifest: ResolvedManifest, isForPlatform: Bool)?
    private var hasSchema1 = false

    /// The rank of an image whose config states no platform.
    private static let unknownRank = Int.max

    init(reader: IndexReader, platform: Platform) {
        self.reader = reader
        self.platform = platform
    }

    mutating func run(_ index: ImageIndex) throws -> ResolvedManifest {
        try visit(index, depth: 1)
        if let best { return best.manifest }
        if let artifact, artifact.isForPlatform || platforms.isEmpty { return artifact.manifest }
        if hasSchema1 { throw ManifestDocument.schema1 }
        throw OCIError.noMatchingPlatform(wanted: platform, available: platforms)
    }

    private mutating func visit(_ index: ImageIndex, depth: UInt64) throws {
        for name in index.platforms { add(name) }
        if index.manifests.contains(where: { MediaType.isDockerSchema1($0.mediaType) }) { hasSchema1 = true }
        let candidates = index.candidates(for: platform)
        // Entries with an artifact type are read only after all others have been found not to match.
        for isArtifact in [false, true] {
            for (rank, entry) in candidates.fitting where (entry.artifactType != nil) == isArtifact {
                if isArtifact, best != nil { return }
                switch try reader.read(entry, depth: depth) {
                case .manifest(let manifest)?:
                    let resolved = ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry)
                    if try isImage(manifest) {
                        offer(resolved, rank)
                        if rank == 0 { return }
                    } else if artifact?.isForPlatform != true {
                        artifact = (resolved, true)
                    }
                case .index(let inner)?: try visit(inner, depth: depth + 1)
                case nil: break
                }
                if best?.rank == 0 { return }
            }
            for entry in candidates.unsaid where (entry.artifactType != nil) == isArtifact {
                try examine(entry, depth: depth)
                if best?.rank == 0 { return }
            }
        }
        // Most of these are attestations, which only their manifests show.
        guard best == nil else { return }
        for entry in candidates.unknown {
            try examine(entry, depth: depth, isUnknown: true)
            if best?.rank == 0 { return }
        }
    }

    /// Examines an entry that does not state its platform.
    private mutating func examine(_ entry: Descriptor, depth: UInt64, isUnknown: Bool = false) throws {
        switch try reader.read(entry, depth: depth) {
        case .manifest(let manifest)?:
            let resolved = ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry)
            guard let config = try reader.config(of: manifest) else {
                if !isUnknown, artifact == nil { artifact = (resolved, false) }
                return
            }
            guard config.platform.isComplete else {
                if !isUnknown { offer(resolved, Self.unknownRank) }
                return
            }
            add(config.platform.description)
            if let rank = platform.rank(of: config.platform) { offer(resolved, rank) }
        case .index(let inner)?: try visit(inner, depth: depth + 1)
        case nil: break
        }
    }

    /// Whether the manifest is an image. The config is fetched only if the media types do not show it.
    private func isImage(_ manifest: Manifest) throws -> Bool {
        guard manifest.mayBeImage else { return false }
        return try manifest.isImageByItsTypes || reader.config(of: manifest) != nil
    }

    private mutating func offer(_ manifest: ResolvedManifest, _ rank: Int) {
        if rank < best?.rank ?? .max || best == nil { best = (rank, manifest) }
    }

    private mutating func add(_ name: String) {
        if !platforms.contains(name), platforms.count < 100 { platforms.append(name) }
    }
}
