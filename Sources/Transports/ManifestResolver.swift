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
/// - Throws: `OCIError`, `LimitExceeded`, or what the source throws.
public func resolveManifest(
    _ source: any ImageSource, platform: Platform, limits: PullLimits = PullLimits()
) throws -> ResolvedManifest {
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return manifest
    case .index(let index, let digest):
        var search = IndexSearch(reader: IndexReader(source: source, limits: limits), platform: platform)
        if var found = try search.visit(index, depth: 1) {
            found.index = digest
            return found
        }
        throw OCIError.noMatchingPlatform(wanted: platform, available: search.platforms)
    }
}

/// Follows a reference to the manifests of all platforms, in the order that indexes list them, each once. Attestations are left out.
///
/// - Throws: as above.
package func resolveAllManifests(_ source: any ImageSource, limits: PullLimits) throws -> (isIndex: Bool, manifests: [ResolvedManifest]) {
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return (false, [manifest])
    case .index(let index, let digest):
        var found: [ResolvedManifest] = []
        var reader = IndexReader(source: source, limits: limits)
        func visit(_ index: ImageIndex, depth: UInt64) throws {
            for entry in index.manifests where !entry.isAttestation {
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

private func check(_ bytes: [UInt8], _ expected: Descriptor) throws(OCIError) {
    guard UInt64(bytes.count) == expected.size else {
        throw .malformed(document: "manifest \(expected.digest)", "\(bytes.count) bytes, but its descriptor announces \(expected.size)")
    }
    let digest = ContentDigest.of(bytes, expected.digest.algorithm)
    guard digest == expected.digest else {
        throw .malformed(document: "manifest \(expected.digest)", "the bytes' digest is \(digest); they were damaged or exchanged")
    }
}

/// Reads what indexes list, each document once: an index that names another many times costs no more than one that names it once.
private struct IndexReader {
    let source: any ImageSource
    let limits: PullLimits
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
        let bytes = try entry.data ?? source.manifest(entry)
        try check(bytes, entry)
        return try ManifestDocument(parsing: bytes, mediaType: entry.mediaType)
    }
}

/// The first manifest for a platform, depth first.
private struct IndexSearch {
    var reader: IndexReader
    let platform: Platform
    var platforms: [String] = []

    mutating func visit(_ index: ImageIndex, depth: UInt64) throws -> ResolvedManifest? {
        for name in index.platforms where !platforms.contains(name) { platforms.append(name) }
        for entry in index.candidates(for: platform) {
            switch try reader.read(entry, depth: depth) {
            case .manifest(let manifest)?: return ResolvedManifest(manifest: manifest, digest: entry.digest, descriptor: entry)
            case .index(let inner)?: if let found = try visit(inner, depth: depth + 1) { return found }
            case nil: break
            }
        }
        return nil
    }
}
