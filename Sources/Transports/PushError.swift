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
        case .level(let level, let compression): "\(compression) has no compression level \(level)"
        }
    }
}

extension PushError: TransportError {
    public var concernsOneItem: Bool {
        if case .layer(_, _, _, let cause as any TransportError) = self { cause.concernsOneItem } else { false }
    }
}
