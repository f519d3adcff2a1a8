public import ComposefsBytes

/// An error in the options of a mount. Names such as `basedir` are those of `mount -o`; see `HelperOptions`.
public enum MountOptionFault: Sendable, Hashable, CustomStringConvertible {
    case unknown(ByteString)
    case valueMissing(ByteString)
    /// Neither directories of objects nor a repository are given.
    case noObjects
    /// The list of directories is empty.
    case emptyObjectList
    /// Both directories of objects and a repository are given.
    case objectsAndRepository
    /// A boot image can only be found by its name in a repository.
    case bootableWithoutRepository
    /// The check of a repository's fs-verity digests cannot be turned off.
    case noVerityInRepository
    /// The value is not an fs-verity digest.
    case digest(ByteString)
    /// Only one of upper directory and work directory is given.
    case upperOrWorkMissing
    /// A writable mount has no upper directory.
    case writableWithoutUpper
    /// The work directory is on another file system than the upper directory.
    case otherFileSystem(work: ByteString, upper: ByteString)
    /// The work directory is the upper directory.
    case workIsUpper(ByteString)

    public var description: String {
        switch self {
        case .unknown(let name): "unknown mount option \"\(name)\""
        case .valueMissing(let name): "the mount option \(name) needs a value"
        case .noObjects: "no object directory"
        case .emptyObjectList: "basedir= names no directory"
        case .objectsAndRepository: "basedir= and repo= exclude each other"
        case .bootableWithoutRepository: "bootable needs repo=DIR"
        case .noVerityInRepository:
            "noverity cannot be used with repo=: if a repository has fs-verity, the kernel always checks its files"
        case .digest(let text):
            "digest=\(text) is not an fs-verity digest, which has 64 (sha256) or 128 (sha512) lower-case hexadecimal digits"
        case .upperOrWorkMissing: "an upper directory and a work directory must be used together"
        case .writableWithoutUpper: "a writable mount needs an upper directory and a work directory, because the image is read-only"
        case .otherFileSystem(let work, let upper):
            "\(work): the work directory must be on the file system of the upper directory, \(upper)"
        case .workIsUpper(let work): "\(work): the work directory must not be the upper directory"
        }
    }
}
