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

/// What is wrong with a stream of an image.
public enum StreamContentFault: Sendable, Hashable, CustomStringConvertible {
    /// The stream does not exist; a tag that names it, if that is how it was found.
    case missing(tag: ByteString?)
    /// A document's or a blob's stream holds something other than one object.
    case notOneObject
    /// The content of the object has another digest than the stream's name.
    case digest(ContentDigest)
    /// The stream lacks a named reference.
    case missingReference(String)
    /// A config's stream refers to no stream of the layer.
    case missingLayer(ContentDigest)
    /// A layer's stream refers to no content of this sparse file.
    case missingSparseContent(path: ByteString, ObjectID)
    /// The parts of a layer's stream have another size in bytes than the header records.
    case size(found: UInt64, recorded: UInt64)
    /// The content of a file in line is larger than any writer puts there; the limit in bytes.
    case inlineContentTooLarge(limit: UInt64)
    /// The manifest has fewer layers than the index that was asked for requires.
    case noLayer(index: Int, count: Int)
    /// The config lists another number of diff IDs than the manifest has layers.
    case diffIDCount(config: Int, manifest: Int)
    /// The config's stream refers to another EROFS image of a format than the one that the layers give.
    case otherImage(ErofsVersion, recorded: ObjectID, actual: ObjectID)

    public var description: String {
        switch self {
        case .missing(nil): "is missing"
        case .missing(let tag?): "is missing, but the tag \"\(tag)\" names it"
        case .notOneObject: "does not hold exactly one object"
        case .digest(let actual): "holds content with the digest \(actual)"
        case .missingReference(let key): "has no reference \(key)"
        case .missingLayer(let diffID): "has no reference to layer \(diffID)"
        case .missingSparseContent(let path, let id):
            "has no reference to the content of the sparse file \"\(path)\", which is object \(id)"
        case .size(let found, let recorded): "re-assembles to \(found) bytes, but its header says \(recorded)"
        case .inlineContentTooLarge(let limit): "has a file of more than \(limit) bytes in line"
        case .noLayer(let index, let count): "has \(count) layers, no number \(index)"
        case .otherImage(let version, let recorded, let actual):
            "refers to the EROFS image \(recorded) of format \(version), but the layers give \(actual)"
        case .diffIDCount(let config, let manifest): "lists \(config) diff IDs, the manifest \(manifest) layers"
        }
    }
}

/// What an image store refuses.
public enum ImageStoreError: Error, Sendable, CustomStringConvertible {
    /// The name cannot be a tag.
    case invalidTag(ByteString, TagFault)
    /// Nothing in the repository is called so.
    case noSuchImage(ByteString)
    /// No index has this name or digest.
    case noSuchIndex(ByteString)
    /// An index has this name or digest, and no image: the name, and the digest of the index.
    case onlyIndex(ByteString, ContentDigest)
    /// No image has this reference. Thrown by `get`, `inspect` and `remove`.
    case imageNotFound(ByteString)
    /// More than one manifest is meant.
    case ambiguous(ByteString, candidates: [ContentDigest])
    /// A name stands for something else than the digest or identifier that was demanded with it.
    case otherImage(ByteString, found: String, wanted: String)
    /// A stream of the image is not what it should be: its name or object ID, and the fault.
    case damaged(stream: ByteString, StreamContentFault)
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
    /// A seal is required, and the image has none, or not the right one.
    case seal(SealFault)
    /// The artifact is not recorded for the subject.
    case noSuchReferrer(subject: ContentDigest, artifact: ContentDigest)

    public var description: String {
        switch self {
        case .invalidTag(let name, let fault): "\"\(name.withoutSecrets)\" cannot be a tag: \(fault)"
        case .noSuchImage(let name), .imageNotFound(let name): "no image \"\(name.withoutSecrets)\" in the repository"
        case .noSuchIndex(let name): "no index \"\(name.withoutSecrets)\" in the repository"
        case .onlyIndex(let name, let digest): "\"\(name.withoutSecrets)\" is the index \(digest), not an image"
        case .ambiguous(let text, let candidates):
            "\"\(text.withoutSecrets)\" may mean \(candidates.map(\.description).sorted().joined(separator: " or ")); give more digits or the full name"
        case .otherImage(let name, let found, let wanted): "\(name.withoutSecrets) is \(found), not \(wanted)"
        case .damaged(let stream, let fault): "\(stream): \(fault)"
        case .noErofsImage(let config, let version, bootable: false): "\(config): has no EROFS image of format \(version)"
        case .noErofsImage(let config, let version, bootable: true): "\(config): records no EROFS image of format \(version) for booting"
        case .isArtifact(let digest): "\(digest) is an artifact: it has no root file system"
        case .noSuchLayer(let digest): "no layer \(digest) in the repository"
        case .imageInUse(let name, let uses):
            "\"\(name.withoutSecrets)\" is the last name of an image that is in use: \(uses.map(\.description).joined(separator: ", "))"
        case .useUnknown(let name, let error): "cannot tell whether the image \"\(name.withoutSecrets)\" is in use: \(error)"
        case .seal(let fault): "the image's composefs seal: \(fault)"
        case .noSuchReferrer(let subject, let artifact): "\(artifact) is not recorded as a referrer of \(subject)"
        }
    }
}
