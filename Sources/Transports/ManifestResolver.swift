public import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsOCIModel

/// The manifest that a reference means on one platform.
public struct ResolvedManifest: Hashable, Sendable {
    public var manifest: Manifest
    public var digest: ContentDigest
    /// Of the entry that named it; nil where the source named the manifest itself and promised nothing.
    public var descriptor: Descriptor?
    /// The index that the reference names, where it names one.
    public var index: ContentDigest?
}

/// Follows a reference through indexes to one manifest. Digest and size of every document are compared with what named it.
///
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

/// Follows a reference to the manifests of all platforms, in the order that indexes list them, each once. Attestations are left out, and what
/// needs more than its platform's system can do (`os.features`).
///
/// - Throws: as above.
package func resolveAllManifests(
    _ source: any ImageSource, limits: PullLimits, _ cancellation: Cancellation = Cancellation()
) throws -> (isIndex: Bool, manifests: [ResolvedManifest]) {
    try cancellation.check()
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return (false, [manifest])
    case .index(let index, let digest):
        var found: [ResolvedManifest] = []
        var reader = IndexReader(source: source, limits: limits, cancellation: cancellation)
        func visit(_ index: ImageIndex, depth: UInt64) throws {
            let runnable = index.manifests.filter {
                $0.isOfKnownKind && !$0.isMarkedAsAttestation && $0.platform?.isOrdinary != false
            }
            // Where nothing else is listed, those of an unknown platform may be images.
            let listed = runnable.filter { !$0.isAttestation }
            for entry in listed.isEmpty ? runnable : listed {
                switch try reader.read(entry, depth: depth) {
                case .manifest(let manifest)?:
                    found.append(ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry, index: digest))
                case .index(let inner)?: try visit(inner, depth: depth + 1)
                case nil: break
                }
            }
        }
        try visit(index, depth: 1)
        return (true, found)
    }
}

private enum Root {
    case manifest(ResolvedManifest)
    case index(ImageIndex, ContentDigest)
}

private func readRoot(_ source: any ImageSource, _ limits: PullLimits) throws -> Root {
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

package func checkSize(_ size: UInt64, _ document: String, _ limits: PullLimits) throws(LimitExceeded) {
    let allowed = min(limits.manifestBytes, UInt64(ImageLimits.largestManifest))
    guard size <= allowed else { throw LimitExceeded(.manifestBytes, allowed: allowed, found: size, place: document) }
}

private func check(_ bytes: [UInt8], _ expected: Descriptor, _ kind: String = "manifest") throws(OCIError) {
    guard UInt64(bytes.count) == expected.size else {
        throw .malformed(document: "\(kind) \(expected.digest)", "\(bytes.count) bytes, but its descriptor announces \(expected.size)")
    }
    let digest = ContentDigest.of(bytes, expected.digest.algorithm)
    guard digest == expected.digest else {
        throw .malformed(document: "\(kind) \(expected.digest)", "the bytes' digest is \(digest); they were damaged or exchanged")
    }
}

/// Reads what indexes list, each document once: an index that names another many times costs no more than one that names it once.
private struct IndexReader {
    let source: any ImageSource
    let limits: PullLimits
    let cancellation: Cancellation
    var visited: Set<ContentDigest> = []

    /// Nil where the document was read before.
    mutating func read(_ entry: Descriptor, depth: UInt64) throws -> ManifestDocument? {
        guard visited.insert(entry.digest).inserted else { return nil }
        guard visited.count <= ImageLimits.indexCount else {
            throw OCIError.unsupported(document: "index", "more than \(ImageLimits.indexCount) documents would have to be read")
        }
        let deepest = min(limits.indexDepth, UInt64(ImageLimits.deepestIndex))
        guard depth < deepest || !MediaType.isIndex(entry.mediaType) else {
            throw LimitExceeded(.indexDepth, allowed: deepest, place: "index \(entry.digest)")
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

    /// A config, verified.
    private func read(_ config: Descriptor) throws -> [UInt8] {
        guard config.size <= UInt64(ImageLimits.configBytes) else {
            throw OCIError.malformed(
                document: "config \(config.digest)", "\(config.size) bytes are announced; at most \(ImageLimits.configBytes) are read")
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

/// The manifest that fits a platform best.
///
/// Entries that say that they are for the very platform come first. Otherwise the configs of those that say nothing are looked at, indexes included,
/// depth first; the best of all is taken. Artifacts that are listed beside the image, and entries of kinds that are not known, are passed over: an
/// artifact is taken where the index lists no image at all, or none but this platform's artifacts.
private struct IndexSearch {
    var reader: IndexReader
    let platform: Platform
    /// What images there are for, by what the indexes and the configs say.
    var platforms: [String] = []
    private var best: (rank: Int, manifest: ResolvedManifest)?
    /// The first of them; whether its entry says that it is for the platform.
    private var artifact: (manifest: ResolvedManifest, isForPlatform: Bool)?
    private var hasSchema1 = false

    /// For an image whose config does not say what it is for.
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
        // Those that call themselves artifacts are not read before the others are known to be none.
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
                try look(at: entry, depth: depth)
                if best?.rank == 0 { return }
            }
        }
        // Most of them are attestations, which are told by their manifests.
        guard best == nil else { return }
        for entry in candidates.unknown {
            try look(at: entry, depth: depth, isUnknown: true)
            if best?.rank == 0 { return }
        }
    }

    /// An entry that does not say what it is for.
    private mutating func look(at entry: Descriptor, depth: UInt64, isUnknown: Bool = false) throws {
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

    /// Where manifest and entry say it, the config need not be fetched.
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
