public import ComposefsBytes
public import ComposefsHashing
public import ComposefsImageStore
public import ComposefsOCIModel
public import ComposefsTransports

/// Why a pull failed. The store is unchanged, except for unreferenced objects.
public enum PullError: Error, CustomStringConvertible {
    /// The blob is longer than its descriptor announces; in bytes.
    case blobTooLong(ContentDigest, announced: UInt64)
    /// The blob is shorter than its descriptor announces; in bytes.
    case blobTooShort(ContentDigest, announced: UInt64, received: UInt64)
    /// The blob does not have the digest of its descriptor.
    case blobDigest(ContentDigest)
    /// The descriptor of a document announces more bytes than are read into memory.
    case blobTooLarge(ContentDigest, announced: UInt64, limit: Int)
    /// The uncompressed archive does not have the diff ID that the config lists.
    case diffID(expected: ContentDigest, actual: ContentDigest)
    /// Manifest and config list different numbers of layers.
    case layerCount(layers: Int, diffIDs: Int)
    /// A fault of the fs-verity digests and signatures that the image states, or a required signature is missing.
    case seal(SealFault)
    /// The free space is smaller than the compressed layers: the repository, the number of layers, their compressed size, an estimate of
    /// their uncompressed size, and the free space, in bytes.
    case noSpace(ByteString, layers: Int, atLeast: UInt64, about: UInt64, free: UInt64)
    /// The file system has fewer free inodes than the image needs.
    case noInodes(ByteString, atLeast: UInt64, free: UInt64)
    /// More artifacts refer to the image than are stored with an image.
    case tooManyReferrers(ContentDigest, limit: Int)
    /// The policy is never to pull, and the store has no image of this name, or only one for another platform.
    case notPresent(ByteString, wanted: Platform, found: Platform?)
    /// The repository has the layer, but an object of it is damaged or missing, and the layer could not be fetched again: the object's path relative to
    /// the repository, and why not.
    indirect case damagedLayer(ByteString, cause: any Error)
    /// A layer could not be stored: its number, counted from 1, the number of layers, the digest of its blob, and the cause.
    indirect case layer(number: Int, of: Int, ContentDigest, cause: any Error)

    public var description: String {
        switch self {
        case .blobTooLong(let digest, let announced):
            "blob \(digest): is longer than the \(announced) bytes that its descriptor announces"
        case .blobTooShort(let digest, let announced, let received):
            "blob \(digest): ends after \(received) of \(announced) bytes; fetch it again"
        case .blobDigest(let expected): "blob \(expected): the content has another digest: it is damaged or was exchanged"
        case .blobTooLarge(let digest, let announced, let limit):
            "blob \(digest): its descriptor announces \(announced) bytes; the limit is \(limit)"
        case .diffID(let expected, let actual):
            "the uncompressed archive's digest is \(actual), but the config's diff ID is \(expected)"
        case .layerCount(let layers, let diffIDs):
            "the manifest has \(layers) layers, but the config has \(diffIDs) diff IDs"
        case .seal(let fault): "the image's composefs seal: \(fault)"
        case .noSpace(let repository, let layers, let least, let about, let free):
            "\(repository): the \(layers) missing layers need at least \(humanBytes(least)), and about \(humanBytes(about)) unpacked; "
                + "\(humanBytes(free)) are free"
        case .noInodes(let repository, let least, let free):
            "\(repository): the image needs at least \(least) inodes; \(free) are free"
        case .tooManyReferrers(let digest, let limit):
            "more than \(limit) artifacts refer to \(digest) and to each other"
        case .notPresent(let name, let wanted, let found):
            "\(name) is not in the repository\(found.map { " for \(wanted), only for \($0)" } ?? ""), and the policy is never to pull"
        case .damagedLayer(let object, let cause):
            "\(object) is missing or damaged, and the layer cannot be fetched again: \(cause)"
        case .layer(let number, let count, let digest, let cause):
            "layer \(number) of \(count) (\(digest)): \(cause)"
        }
    }
}

extension PullError: TransportError {
    public var concernsOneItem: Bool {
        switch self {
        case .layer(_, _, _, let cause as any TransportError), .damagedLayer(_, let cause as any TransportError): cause.concernsOneItem
        default: false
        }
    }
}
