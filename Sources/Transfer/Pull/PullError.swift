public import ComposefsBytes
public import ComposefsHashing
public import ComposefsOCIModel
public import ComposefsTransports

/// Why a pull was refused. The store is as it was before, but for objects that nothing refers to.
public enum PullError: Error, CustomStringConvertible {
    /// More bytes came than the descriptor announces.
    case blobTooLong(ContentDigest, announced: UInt64)
    /// Fewer bytes came than the descriptor announces.
    case blobTooShort(ContentDigest, announced: UInt64, received: UInt64)
    /// The bytes are not the ones that the descriptor names.
    case blobDigest(ContentDigest)
    /// A document that has to be held in memory is announced with more bytes than are read.
    case blobTooLarge(ContentDigest, announced: UInt64, limit: Int)
    /// The uncompressed archive is not the one that the config lists.
    case diffID(expected: ContentDigest, actual: ContentDigest)
    /// Manifest and config do not list the same number of layers.
    case layerCount(layers: Int, diffIDs: Int)
    /// A fault in the fs-verity digests and signatures that the image states of itself, or none of them although they are required.
    case seal(SealFault)
    /// The file system has not even room for the compressed layers: their bytes, an estimate of what they become, and what is free.
    case noSpace(ByteString, layers: Int, atLeast: UInt64, about: UInt64, free: UInt64)
    /// The file system has too few inodes for the image's own files.
    case noInodes(ByteString, atLeast: UInt64, free: UInt64)
    /// More artifacts refer to the image than are stored with one.
    case tooManyReferrers(ContentDigest, limit: Int)
    /// The policy is to ask nobody, and no image is here under this name, or only one for another platform.
    case notPresent(ByteString, wanted: Platform, found: Platform?)
    /// A layer, by its place counted from 1 and the digest of its blob, could not be taken.
    indirect case layer(number: Int, of: Int, ContentDigest, cause: any Error)

    public var description: String {
        switch self {
        case .blobTooLong(let digest, let announced):
            "blob \(digest): more than the \(announced) bytes that its descriptor announces"
        case .blobTooShort(let digest, let announced, let received):
            "blob \(digest): ends after \(received) of \(announced) bytes; fetch it again"
        case .blobDigest(let expected): "blob \(expected): the bytes have another digest; they were damaged or exchanged"
        case .blobTooLarge(let digest, let announced, let limit):
            "blob \(digest): \(announced) bytes are announced, over the limit of \(limit)"
        case .diffID(let expected, let actual):
            "the uncompressed archive's digest is \(actual), but the config's diff ID is \(expected)"
        case .layerCount(let layers, let diffIDs):
            "the manifest has \(layers) layers, but the config \(diffIDs) diff IDs"
        case .seal(let fault): "the image's composefs seal: \(fault)"
        case .noSpace(let repository, let layers, let least, let about, let free):
            "\(repository): the \(layers) missing layers take \(humanBytes(least)) at least, about \(humanBytes(about)) when they are "
                + "unpacked, and \(humanBytes(free)) are free"
        case .noInodes(let repository, let least, let free):
            "\(repository): the image takes \(least) inodes at least, and \(free) are free"
        case .tooManyReferrers(let digest, let limit):
            "more than \(limit) artifacts refer to \(digest) and to each other"
        case .notPresent(let name, let wanted, let found):
            "\(name) is not in the repository\(found.map { " for \(wanted), only for \($0)" } ?? ""), and the policy is never to pull"
        case .layer(let number, let count, let digest, let cause):
            "layer \(number) of \(count) (\(digest)): \(cause)"
        }
    }
}

extension PullError: PlaceError {
    public var concernsOneThing: Bool {
        if case .layer(_, _, _, let cause as any PlaceError) = self { cause.concernsOneThing } else { false }
    }
}
