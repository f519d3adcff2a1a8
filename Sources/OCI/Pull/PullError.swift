public import Hashing

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
    /// What an image says of its own fs-verity digests and signatures cannot be read or is not so; or it has none, and that was demanded.
    case seal(String)
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
        case .seal(let why): "the image's composefs seal: \(why)"
        case .layer(let number, let count, let digest, let cause):
            "layer \(number) of \(count) (\(digest)): \(cause)"
        }
    }
}
