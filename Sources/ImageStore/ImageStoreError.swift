public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing
import ComposefsOCIModel
public import ComposefsRepository

/// Why a name cannot be a tag.
public enum TagFault: Sendable, Hashable, CustomStringConvertible {
    case empty
    /// A name that begins with `@` is a digest.
    case leadingAt
    /// `.` or `..`.
    case dots
    case controlCharacter
    /// Longer than a file name when it is encoded; the limit in bytes.
    case tooLong(limit: Int)

    public var description: String {
        switch self {
        case .empty: "it is empty"
        case .leadingAt: "a leading '@' is reserved for digests"
        case .dots: "it is no file name"
        case .controlCharacter: "it holds a control character"
        case .tooLong: "it is longer than a file name may be"
        }
    }
}

/// What an image store refuses.
public enum ImageStoreError: Error, Sendable, CustomStringConvertible {
    /// The name cannot be a tag.
    case invalidTag(ByteString, TagFault)
    /// Nothing in the repository is called so.
    case noSuchImage(ByteString)
    /// No image has this reference. Thrown by `get`, `inspect` and `remove`.
    case imageNotFound(ByteString)
    /// More than one manifest is meant.
    case ambiguous(ByteString, candidates: [ContentDigest])
    /// A name stands for something else than the digest or identifier that was demanded with it.
    case otherImage(ByteString, found: String, wanted: String)
    /// A stream of the image is not what it should be: its name, and what is wrong.
    case damaged(stream: ByteString, String)
    /// The config refers to no EROFS image of the repository's format, or to none for booting: the config, the format.
    case noErofsImage(config: ContentDigest, ErofsVersion, bootable: Bool)
    /// A root file system was asked of an image that has none.
    case isArtifact(ContentDigest)
    /// No layer, or artifact's blob, with this diff ID or digest.
    case noSuchLayer(ContentDigest)
    /// The last name of an image that is in use shall be removed: the name, and what uses the image.
    case imageInUse(ByteString, [ImageUse])
    /// The last name of an image may not be removed, because what is in use cannot be told: the name, and why not.
    case useUnknown(ByteString, cause: any Error)
    /// The artifact is not recorded for the subject.
    case noSuchReferrer(subject: ContentDigest, artifact: ContentDigest)

    public var description: String {
        switch self {
        case .invalidTag(let name, let fault): "\"\(name.withoutSecrets)\" cannot be a tag: \(fault)"
        case .noSuchImage(let name), .imageNotFound(let name): "no image \"\(name.withoutSecrets)\" in the repository"
        case .ambiguous(let text, let candidates):
            "\"\(text.withoutSecrets)\" may mean \(candidates.map(\.description).sorted().joined(separator: " or ")); give more digits or the full name"
        case .otherImage(let name, let found, let wanted): "\(name.withoutSecrets) is \(found), not \(wanted)"
        case .damaged(let stream, let what): "\(stream): \(what)"
        case .noErofsImage(let config, let version, bootable: false): "\(config): has no EROFS image of format \(version)"
        case .noErofsImage(let config, let version, bootable: true): "\(config): records no EROFS image of format \(version) for booting"
        case .isArtifact(let digest): "\(digest) is an artifact: it has no root file system"
        case .noSuchLayer(let digest): "no layer \(digest) in the repository"
        case .imageInUse(let name, let uses):
            "\"\(name.withoutSecrets)\" is the last name of an image that is in use: \(uses.map(\.description).joined(separator: ", "))"
        case .useUnknown(let name, let error): "cannot tell whether the image \"\(name.withoutSecrets)\" is in use: \(error)"
        case .noSuchReferrer(let subject, let artifact): "\(artifact) is not recorded as a referrer of \(subject)"
        }
    }
}
