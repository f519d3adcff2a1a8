public import ComposefsBytes
public import ComposefsHashing

/// Why a push was refused. The destination's tag is as it was before.
public enum PushError: Error, CustomStringConvertible {
    /// A layer could not be sent: its number, counted from 1, the number of layers, its identifier in the store, and the cause.
    case layer(number: Int, of: Int, ContentDigest, cause: any Error)
    /// The store is damaged: the layer's archive is not the one that its diff ID names. The damaged object, relative to the repository; nil if each
    /// of the layer's objects is what its name says.
    case diffID(expected: ContentDigest, actual: ContentDigest, object: ByteString?)
    /// The store is damaged: a blob does not have its digest.
    case blobDigest(expected: ContentDigest, actual: ContentDigest)
    /// The destination was named by a digest, and the manifest has another one.
    case manifestDigest(wanted: ContentDigest, actual: ContentDigest)
    /// The index cannot be sent as it is, because manifests that it lists are not stored: their platforms or digests.
    case indexIncomplete(ContentDigest, missing: [String])
    /// No manifest of the index is stored.
    case indexEmpty(ContentDigest)
    /// The index names a manifest that would be sent with another digest: its platform, if the index states it.
    case listedManifest(platform: String?, stored: ContentDigest, sent: ContentDigest)
    /// The compression format has no such level.
    case level(Int, compression: String)

    public var description: String {
        switch self {
        case .layer(let number, let count, let digest, let cause): "layer \(number) of \(count) (\(digest)): \(cause)"
        case .diffID(let expected, let actual, let object):
            "the store is damaged: " + (object.map { "\($0) has other content than its name says; " } ?? "")
                + "the layer's archive has the digest \(actual), but its diff ID is \(expected)"
        case .blobDigest(let expected, let actual):
            "the store is damaged: the blob \(expected) has the digest \(actual)"
        case .manifestDigest(let wanted, let actual):
            "the manifest to push has the digest \(actual), not \(wanted); push to a tag instead"
        case .indexIncomplete(let index, let missing):
            "the index \(index) lists \(missing.count == 1 ? "a manifest that is" : "\(missing.count) manifests that are") not stored: "
                + missing.prefix(8).joined(separator: ", ") + (missing.count > 8 ? ", …" : "")
        case .indexEmpty(let index): "no manifest of the index \(index) is stored"
        case .listedManifest(let platform, let stored, let sent):
            "the index names the manifest \(stored)\(platform.map { " for \($0)" } ?? ""), which would be sent as \(sent): the original blobs of its "
                + "layers are neither stored nor at the destination"
        case .level(let level, let compression): "\(compression) has no compression level \(level)"
        }
    }
}

extension PushError: TransportError {
    public var concernsOneItem: Bool {
        if case .layer(_, _, _, let cause as any TransportError) = self { cause.concernsOneItem } else { false }
    }
}
