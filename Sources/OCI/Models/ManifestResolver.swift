public import Hashing

/// The manifest that a reference means on one platform.
public struct ResolvedManifest: Hashable, Sendable {
    public var manifest: Manifest
    public var digest: ContentDigest
    /// Of the entry that named it; nil where the source named the manifest itself and promised nothing.
    public var descriptor: Descriptor?
}

/// Follows a reference through indexes to one manifest. Digest and size of every document are compared with what named it.
///
/// - Throws: `OCIError`, `LimitExceeded`, or what the source throws.
public func resolveManifest(
    _ source: any ImageSource, platform: Platform, limits: PullLimits = PullLimits()
) throws -> ResolvedManifest {
    let root = try source.rootManifest()
    try checkSize(UInt64(root.bytes.count), "manifest", limits)
    if let expected = root.expected { try check(root.bytes, expected) }
    let type = root.mediaType ?? root.expected?.mediaType
    switch try ManifestDocument(parsing: root.bytes, mediaType: type) {
    case .manifest(let manifest):
        let digest = root.expected?.digest ?? ContentDigest.of(root.bytes)
        return ResolvedManifest(manifest: manifest, digest: digest, descriptor: root.expected)
    case .index(let index):
        var search = IndexSearch(source: source, platform: platform, limits: limits)
        if let found = try search.visit(index, depth: 1) { return found }
        throw OCIError.noMatchingPlatform(wanted: platform, available: search.platforms)
    }
}

private func checkSize(_ size: UInt64, _ document: String, _ limits: PullLimits) throws(LimitExceeded) {
    let allowed = min(limits.manifestBytes, UInt64(ImageLimits.largestManifest))
    guard size <= allowed else { throw LimitExceeded(.manifestBytes, allowed: allowed, found: size, place: document) }
}

private func check(_ bytes: [UInt8], _ expected: Descriptor) throws(OCIError) {
    guard UInt64(bytes.count) == expected.size else {
        throw .malformed(document: "manifest \(expected.digest)", "\(bytes.count) bytes, but its descriptor announces \(expected.size)")
    }
    let digest = ContentDigest.of(bytes, expected.digest.algorithm)
    guard digest == expected.digest else {
        throw .malformed(document: "manifest \(expected.digest)", "the bytes' digest is \(digest); they were damaged or exchanged")
    }
}

/// Depth first, each index once: an index that names another many times costs no more than one that names it once.
private struct IndexSearch {
    let source: any ImageSource
    let platform: Platform
    let limits: PullLimits
    var visited: Set<ContentDigest> = []
    var platforms: [String] = []

    mutating func visit(_ index: ImageIndex, depth: Int) throws -> ResolvedManifest? {
        for name in index.platforms where !platforms.contains(name) { platforms.append(name) }
        for entry in index.candidates(for: platform) where visited.insert(entry.digest).inserted {
            guard visited.count <= ImageLimits.indexCount else {
                throw OCIError.unsupported(document: "index", "more than \(ImageLimits.indexCount) documents would have to be read")
            }
            let deepest = min(limits.indexDepth, UInt64(ImageLimits.deepestIndex))
            guard depth < deepest || !MediaType.isIndex(entry.mediaType) else {
                throw LimitExceeded(.indexDepth, allowed: deepest, place: "index \(entry.digest)")
            }
            try checkSize(entry.size, "manifest \(entry.digest)", limits)
            let bytes = try entry.data ?? source.manifest(entry)
            try check(bytes, entry)
            switch try ManifestDocument(parsing: bytes, mediaType: entry.mediaType) {
            case .manifest(let manifest): return ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry)
            case .index(let inner):
                if let found = try visit(inner, depth: depth + 1) { return found }
            }
        }
        return nil
    }
}
