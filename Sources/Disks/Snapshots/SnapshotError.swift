public import ComposefsBytes
public import ComposefsHashing
public import ComposefsSnapshotFormat

/// What is wrong with a snapshot in the store.
public enum SnapshotFault: Error, Sendable, Hashable, CustomStringConvertible {
    /// The descriptor's stream is not one object.
    case stream
    /// The descriptor cannot be read.
    case descriptor(SnapshotFormatError)
    /// The descriptor is not in the canonical form.
    case notCanonical
    /// The descriptor has another identity than its name.
    case identity(found: ContentDigest)
    /// The stream has no reference to the disk's content.
    case noUpper
    /// The stream of the disk's content has inline bytes, or an object at an offset that none can have.
    case layout(offset: UInt64)
    /// The disk's content has another size than the descriptor says. Both are in bytes.
    case size(found: UInt64, expected: UInt64)
    /// The disk's content has another digest than the descriptor says.
    case integrity(found: String, expected: String)
    /// The reference leads to another snapshot than the parent of the descriptor.
    case parent(ContentDigest)
    /// The stream could not be read.
    case unreadable(String)

    public var description: String {
        switch self {
        case .stream: "its stream is not that of a snapshot"
        case .descriptor(let error): "its descriptor cannot be read: \(error)"
        case .notCanonical: "its descriptor is not in the canonical form"
        case .identity(let found): "its descriptor has the identity \(found)"
        case .noUpper: "it has no reference to the content of its disk"
        case .layout(let offset): "the content of its disk has an invalid part at offset \(offset)"
        case .size(let found, let expected): "the content of its disk has \(found) bytes, its descriptor says \(expected)"
        case .integrity(let found, let expected): "the content of its disk has the digest \(found), its descriptor says \(expected)"
        case .parent(let parent): "its reference to the parent does not lead to \(parent)"
        case .unreadable(let why): why
        }
    }
}

/// What making, reading or removing a snapshot refuses.
public enum SnapshotError: Error, Sendable, Hashable, CustomStringConvertible {
    /// There is no snapshot with this name or identity.
    case notFound(ByteString)
    /// The name is taken.
    case exists(ByteString)
    /// The name cannot be that of a snapshot.
    case invalidName(ByteString)
    /// The file is not a regular one.
    case notRegularFile(ByteString)
    /// The file is empty.
    case empty(ByteString)
    /// The file is larger than a disk may be. Both are in bytes.
    case tooLarge(ByteString, size: UInt64, limit: UInt64)
    /// Another program has the file open for writing.
    case inUse(ByteString)
    /// The file changed while it was read.
    case changed(ByteString)
    /// The file has no ext4 file system, and the file system was not given.
    case unknownFilesystem(ByteString, looksLikeQcow2: Bool)
    /// The file is not qcow2.
    case notQcow2(ByteString)
    /// The qcow2 file cannot be stored: it is not complete without another file, for example.
    case qcow2(ByteString, reason: String)
    /// Neither an image nor a parent was given.
    case noImage
    /// The parent has another image than the one that was given.
    case otherImage(parent: ContentDigest, given: ContentDigest)
    /// The descriptor cannot be made of the given values.
    case descriptor(SnapshotFormatError)
    /// The document in a directory is not a descriptor.
    case document(ByteString, SnapshotFormatError)
    /// The file has another size than the descriptor beside it says. Both are in bytes.
    case fileSize(ByteString, found: UInt64, expected: UInt64)
    /// The file has another digest than the descriptor beside it says.
    case fileIntegrity(ByteString, found: String, expected: String)
    /// A descriptor requires an extension that this program does not know.
    case requires(ByteString, extensions: String)
    /// The content that the repository does not have certainly does not fit: the repository, and sizes in bytes. Nothing was stored.
    case noSpace(ByteString, needed: UInt64, free: UInt64)
    /// The store has a snapshot with this identity and other content: its descriptor records no digest of the content.
    case sameIdentity(ContentDigest)
    /// The snapshot in the store is damaged.
    case damaged(ByteString, SnapshotFault)

    public var description: String {
        switch self {
        case .notFound(let name): "no snapshot \"\(name)\""
        case .exists(let name): "there is a snapshot \"\(name)\" already"
        case .invalidName(let name):
            "\"\(name)\" cannot name a snapshot: a name has 1 to 255 bytes of UTF-8, no \"/\", \"\\\", \":\" or control character, "
                + "and does not begin with \".\" or \"~\""
        case .notRegularFile(let path): "\(path): is not a regular file"
        case .empty(let path): "\(path): is empty"
        case .tooLarge(let path, let size, let limit): "\(path): has \(size) bytes, more than the \(limit) that a disk may have"
        case .inUse(let path): "\(path): another program has it open for writing"
        case .changed(let path): "\(path): changed while it was read; nothing was stored under the name"
        case .unknownFilesystem(let path, let looksLikeQcow2):
            "\(path): has no ext4 file system" + (looksLikeQcow2 ? "; it begins like a qcow2 file" : "")
        case .notQcow2(let path): "\(path): is not a qcow2 file"
        case .qcow2(let path, let reason): "\(path): \(reason)"
        case .noImage: "a snapshot belongs to an image: there is neither an image nor a parent"
        case .otherImage(let parent, let given): "the parent belongs to the image \(parent), not to \(given)"
        case .descriptor(let error): "\(error)"
        case .document(let path, let error): "\(path): \(error)"
        case .fileSize(let path, let found, let expected): "\(path): has \(found) bytes, snapshot.json says \(expected)"
        case .fileIntegrity(let path, let found, let expected): "\(path): has the digest \(found), snapshot.json says \(expected)"
        case .requires(let path, let extensions): "\(path): requires extensions that are not supported: \(extensions)"
        case .noSpace(let path, let needed, let free):
            "\(path): the snapshot needs at least \(humanBytes(needed)) more; \(humanBytes(free)) are free"
        case .sameIdentity(let identity): "the store has a snapshot \(identity) with other content"
        case .damaged(let name, let fault): "snapshot \(name): \(fault)"
        }
    }
}
