// Extraction: the files of stored images outside of the repository.
//
// - `ImageTree` is the tree of an image with all metadata that its layers give, or a part of it.
// - `readFile`, `file` and `files` read one file, or tell what is at a path (`ImageEntry`).
// - `writeTar` writes it as one archive (`TarWriter`), to a pipe, too.
// - `unpack` writes it into a directory (`TreeUnpacking`), with owners, modes, attributes, links, devices and times.
// - `VerifiedObject` reads the contents: every byte that leaves the store is compared with the object's name.

public import ComposefsBytes
public import ComposefsHashing

/// What the reading and writing of an image's files refuses.
public enum ExtractionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The path is not in the image.
    case noSuchPath(ByteString)
    /// A file was asked for, and the path is a directory of the image.
    case isDirectory(ByteString)
    /// A directory was asked for, and the path is something else.
    case isNotDirectory(ByteString)
    /// A regular file was asked for, and the path is a device, a socket or a FIFO.
    case isNotFile(ByteString)
    /// A file is larger than the caller accepts. Both are in bytes.
    case tooLarge(ByteString, size: UInt64, limit: UInt64)
    /// The destination is a directory with entries.
    case notEmptyDirectory(ByteString)
    /// The destination exists, and is not a directory.
    case notDirectory(ByteString)
    /// The destination exists, and is not a regular file that could be replaced.
    case notRegularFile(ByteString)
    /// The last name of the destination is none that a file can have.
    case invalidPath(ByteString)
    /// Another user can write to the destination.
    case foreignDirectory(ByteString)
    /// Only root can give a file its owner.
    case ownersNeedRoot
    /// A file of the image and what could not be done with it.
    case entry(ByteString, cause: String)
    /// An object has another size than its image says. Both are in bytes.
    case objectSize(ObjectID, found: UInt64, expected: UInt64)
    /// An archive cannot hold an attribute of this name.
    case attributeName(path: ByteString, ByteString)

    public var description: String {
        switch self {
        case .noSuchPath(let path): "\(path): not in the image"
        case .isDirectory(let path): "\(path) is a directory"
        case .isNotDirectory(let path): "\(path) is no directory"
        case .isNotFile(let path): "\(path) is no regular file"
        case .tooLarge(let path, let size, let limit): "\(path) has \(size) bytes; at most \(limit) were to be read"
        case .notEmptyDirectory(let path): "\(path): exists and is not an empty directory"
        case .notDirectory(let path): "\(path): exists and is not a directory"
        case .notRegularFile(let path): "\(path): exists and is not a regular file"
        case .invalidPath(let path): "\"\(path)\" does not name a file"
        case .foreignDirectory(let path): "\(path): the directory belongs to another user"
        case .ownersNeedRoot: "only root can give files their owners"
        case .entry(let path, let cause): "\(path): \(cause)"
        case .objectSize(let id, let found, let expected): "object \(id.hex) has \(found) bytes, its image says \(expected)"
        case .attributeName(let path, let name):
            "\(path): a tar archive cannot hold the extended attribute \"\(name)\", because of its name"
        }
    }
}
