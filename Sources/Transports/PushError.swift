public import ComposefsHashing

/// Why a push was refused. The destination's tag is as it was before.
public enum PushError: Error, CustomStringConvertible {
    /// A layer could not be sent: its number counted from 1, of how many, and the cause.
    case layer(number: Int, of: Int, ContentDigest, cause: any Error)
    /// The store is damaged: the layer's archive is not the one that its diff ID names.
    case diffID(expected: ContentDigest, actual: ContentDigest)
    /// The store is damaged: a blob is not the one that its digest names.
    case blobDigest(expected: ContentDigest, actual: ContentDigest)
    /// The destination was named by a digest, and the manifest has another.
    case manifestDigest(wanted: ContentDigest, actual: ContentDigest)
    /// A level that the compression does not have.
    case level(Int, compression: String)

    public var description: String {
        switch self {
        case .layer(let number, let count, let digest, let cause): "layer \(number) of \(count) (\(digest)): \(cause)"
        case .diffID(let expected, let actual):
            "the store is damaged: the layer re-assembles to an archive with the digest \(actual), its diff ID is \(expected)"
        case .blobDigest(let expected, let actual):
            "the store is damaged: the blob \(expected) has the digest \(actual)"
        case .manifestDigest(let wanted, let actual):
            "the manifest to be pushed has the digest \(actual), not \(wanted); push to a tag"
        case .level(let level, let compression): "\(compression) has no compression level \(level)"
        }
    }
}

extension PushError: PlaceError {
    public var concernsOneThing: Bool {
        if case .layer(_, _, _, let cause as any PlaceError) = self { cause.concernsOneThing } else { false }
    }
}
