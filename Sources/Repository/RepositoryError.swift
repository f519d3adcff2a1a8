public import ComposefsBytes
internal import ComposefsEROFS
public import ComposefsHashing
public import ComposefsLinuxSystem

/// Why the repository could not do what it was asked to. Every description is one line that names the file or object.
public enum RepositoryError: Error, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// No `meta.json` and nothing that looks like a repository.
    case notInitialized(ByteString)
    /// No `meta.json`, but objects: made before that file existed.
    case oldFormat(ByteString)
    /// `meta.json` cannot be understood.
    case metadata(String)
    case unsupportedVersion(Int64)
    case incompatibleFeatures([String])
    case algorithmMismatch(found: VerityAlgorithm, expected: VerityAlgorithm)
    /// `initialize` found a repository with another algorithm or other image versions.
    case differentConfiguration(found: RepositoryMetadata, wanted: RepositoryMetadata)
    /// The opener demanded fs-verity, the repository has none.
    case insecure(ByteString)
    case verityUnsupported(ByteString)
    /// The repository was made with fs-verity, and its meta.json has none any more: it was copied, or somebody exchanged the file.
    case verityLost(ByteString)
    /// The repository's files have fs-verity, and the kernel has none.
    case verityUnreadable(ByteString)
    /// Another user could change what would be written: the file or directory, and why.
    case untrusted(ByteString, OwnershipFault)
    /// In the place of a directory that the repository needs is something else, mostly a symbolic link.
    case notDirectory(ByteString)
    /// Nothing can be written here; why.
    case readOnly(String)
    case noObjects(ByteString)
    /// A sync of this handle has failed while another thread of it was storing: what that has stored may be lost.
    case syncFailed(ByteString)
    case objectMissing(ObjectID)
    /// An object's content is not what its name says, or cannot be read in full.
    case objectDamaged(ObjectID, String)
    case objectTooLarge(ObjectID, size: UInt64, limit: Int)
    case streamMissing(ByteString)
    /// A stream exists but cannot be used.
    case stream(ByteString, String)
    case imageMissing(ByteString)
    case image(ByteString, String)
    /// What a reference keeps cannot be read, so garbage cannot be told from what is needed.
    case unreadableRoot(ByteString, String)
    case invalidName(ByteString, String)
    /// A symbolic link in the repository that leads to no object or entry.
    case invalidLink(ByteString, String)
    /// The kernel refuses a file because of its fs-verity signature or for want of one; or none can be made. Which file, and why.
    case signature(ByteString, String)
    /// The kernel opens no file with fs-verity that has no signature (fs.verity.require_signatures is 1), and none was made for this one.
    case signatureNeeded(ByteString)
    /// A file outside of the repository cannot be imported.
    case source(ByteString, String)

    public var description: String {
        switch self {
        case .system(let error):
            switch error.errno {
            case .noSpace: "\(error): free some space or run gc, then repeat the command"
            case .notSupported where error.operation == "open":
                "\(error): files with fs-verity need a kernel with CONFIG_FS_VERITY, and this one has none"
            case .fileTooLarge where error.operation == "write":
                "\(error): raise the limit on the size of files (ulimit -f), then repeat the command"
            case .tooManySymbolicLinks: "\(error): below a repository no symbolic link is followed"
            case .quotaExceeded: "\(error): free some space or raise the quota, then repeat the command"
            default: "\(error)"
            }
        case .notInitialized(let path): "\(path): meta.json not found; this repository must be initialized first (init)"
        case .oldFormat(let path):
            "\(path): meta.json not found; this appears to be an old-format repository (upgrade makes it a current one)"
        case .metadata(let why): "meta.json: \(why)"
        case .unsupportedVersion(let version):
            "meta.json: unsupported repository format version \(version) (this release supports up to \(RepositoryMetadata.currentVersion))"
        case .incompatibleFeatures(let features):
            "meta.json: the repository requires unknown incompatible features: "
                + features.map { ByteString($0).description }.joined(separator: ", ")
        case .algorithmMismatch(let found, let expected):
            "repository algorithm \(RepositoryMetadata.name(of: found)) does not match expected \(RepositoryMetadata.name(of: expected))"
        case .differentConfiguration(let found, let wanted):
            "repository already initialized with different configuration (\(Self.configuration(found))); cannot re-initialize with "
                + "(\(Self.configuration(wanted)))"
        case .insecure(let path): "\(path): the repository is without fs-verity (meta.json has none), but verity is required"
        case .verityUnsupported(let path): "\(path): the file system has no fs-verity"
        case .verityLost(let path):
            "\(path): the repository was made with fs-verity, but its meta.json has none: a copy does not keep it. Pull the images into a new "
                + "repository, or make this one insecure"
        case .verityUnreadable(let path):
            "\(path): the repository has fs-verity, and this kernel cannot even open such files: use one with CONFIG_FS_VERITY"
        case .untrusted(let path, let fault): "\(path) \(fault), so nothing is written to the repository"
        case .notDirectory(let path): "\(path) is no directory, so nothing is written to the repository"
        case .readOnly(let why): "the repository is not writable: \(why)"
        case .noObjects(let path): "\(path): no objects found in the repository, so its algorithm cannot be told"
        case .syncFailed(let path):
            "\(path): a sync of the file system has failed, and what was stored before it may be lost; repeat the command"
        case .objectMissing(let id): "object \(id) is missing"
        case .objectDamaged(let id, let why): "object \(id) is damaged: \(why)"
        case .objectTooLarge(let id, let size, let limit): "object \(id) has \(size) bytes, at most \(limit) were expected"
        case .streamMissing(let name): "stream not found: \(name)"
        case .stream(let name, let why): "stream \(name): \(why)"
        case .imageMissing(let name): "image not found: \(name)"
        case .image(let name, let why): "image \(name): \(why)"
        case .unreadableRoot(let path, let why): "\(path): \(why); nothing was removed, because what it keeps cannot be known"
        case .invalidName(let name, let why): "'\(name)' is no valid name: \(why)"
        case .invalidLink(let path, let why): "\(path): \(why)"
        case .signatureNeeded(let path):
            "\(path): it has no fs-verity signature, and the kernel's fs.verity.require_signatures is 1"
        case .signature(let path, let why), .source(let path, let why): "\(path): \(why)"
        }
    }

    private static func configuration(_ metadata: RepositoryMetadata) -> String {
        let extra = metadata.formats.all.dropFirst().map { "+V\($0.rawValue)" }.joined()
        return "algorithm: \(RepositoryMetadata.name(of: metadata.algorithm)), erofs_version: V\(metadata.formats.default.rawValue)\(extra)"
    }
}

/// Runs a system call with its error as one of ours.
func system<Value: ~Copyable>(_ body: () throws(SystemError) -> Value) throws(RepositoryError) -> Value {
    do { return try body() } catch { throw RepositoryError(error) }
}

/// An array's bytes, for a body with a typed error.
func withBytes<Value>(
    _ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws(RepositoryError) -> Value
) throws(RepositoryError) -> Value {
    let result = bytes.withUnsafeBytes { buffer -> Result<Value, RepositoryError> in
        do throws(RepositoryError) { return .success(try body(buffer)) } catch { return .failure(error) }
    }
    return try result.get()
}
