public import ComposefsBytes
internal import ComposefsEROFS
public import ComposefsHashing
public import ComposefsLinuxSystem

/// Why an operation of the repository failed. Each description is one line that names the file or object.
public enum RepositoryError: Error, Sendable, CustomStringConvertible {
    case system(SystemError)
    /// No `meta.json` and nothing that looks like a repository.
    case notInitialized(ByteString)
    /// No `meta.json`, but objects: the repository was made before that file existed.
    case oldFormat(ByteString)
    /// `meta.json` cannot be used, or seems to be damaged.
    case metadata(MetadataFault)
    case unsupportedVersion(Int64)
    case incompatibleFeatures([String])
    case algorithmMismatch(found: VerityAlgorithm, expected: VerityAlgorithm)
    /// `initialize` found a repository with another algorithm or other image versions.
    case differentConfiguration(found: RepositoryMetadata, wanted: RepositoryMetadata)
    /// fs-verity was required, but the repository has none.
    case insecure(ByteString)
    case verityUnsupported(ByteString)
    /// The repository was made with fs-verity, but its meta.json has none any more: it was copied, or the file was replaced.
    case verityLost(ByteString)
    /// The repository's files have fs-verity, and the kernel has none.
    case verityUnreadable(ByteString)
    /// Another user could change what would be written: the file or directory, and the reason.
    case untrusted(ByteString, OwnershipFault)
    /// Another file, usually a symbolic link, has the name of a directory that the repository needs.
    case notDirectory(ByteString)
    /// Nothing can be written here.
    case readOnly(ReadOnlyReason)
    case noObjects(ByteString)
    /// A sync of this handle failed while another thread was storing: what that thread has stored may be lost.
    case syncFailed(ByteString)
    case objectMissing(ObjectID)
    /// An object's content does not have the digest that its name states, or cannot be read completely.
    case objectDamaged(ObjectID, ObjectFault)
    case objectTooLarge(ObjectID, size: UInt64, limit: Int)
    case streamMissing(ByteString)
    /// A stream cannot be read or written: its name or object ID, and the reason.
    case stream(ByteString, StreamFault)
    /// A new stream cannot be written.
    case newStream(StreamFault)
    case imageMissing(ByteString)
    /// An image cannot be used: its name or object ID, and the reason.
    case image(ByteString, ImageFault)
    /// The stream or image that a reference keeps cannot be read, so the objects that it needs are unknown.
    indirect case unreadableRoot(ByteString, RootFault)
    /// A lease or a mount uses the repository, and its image cannot be identified: the lease or mount point, and the reason. Nothing may be
    /// removed then.
    case unknownUse(ByteString, UseFault)
    /// Other handles were still open after the time limit; the processes that hold them, as far as they are visible.
    case busy(ByteString, holders: [ProcessIdentity])
    /// The caller cancelled the operation while it waited for other handles.
    case cancelled
    case invalidName(ByteString, NameFault)
    /// An entry of the repository is not the symbolic link that it should be.
    case invalidLink(ByteString, LinkFault)
    /// The kernel refuses a file because of its fs-verity signature or because it has none, or no signature can be made.
    case signature(ByteString, SignatureFault)
    /// The kernel opens no file with fs-verity that has no signature (fs.verity.require_signatures is 1), and this one was not signed.
    case signatureNeeded(ByteString)
    /// A file outside of the repository cannot be imported.
    case source(ByteString, SourceFault)

    public var description: String {
        switch self {
        case .system(let error):
            switch error.errno {
            case .notSupported where error.operation == "open":
                "\(error): files with fs-verity need a kernel with CONFIG_FS_VERITY, and this one has none"
            case .fileTooLarge where error.operation == "write":
                "\(error): raise the limit on the size of files (ulimit -f)"
            case .tooManySymbolicLinks: "\(error): below a repository no symbolic link is followed"
            default: "\(error)"
            }
        case .notInitialized(let path): "\(path): meta.json not found; this repository must be initialized first"
        case .oldFormat(let path):
            "\(path): meta.json not found; this appears to be an old-format repository"
        case .metadata(let fault): "meta.json: \(fault)"
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
        case .readOnly(let reason): "the repository is not writable: \(reason)"
        case .noObjects(let path): "\(path): no objects found in the repository, so its algorithm is unknown"
        case .syncFailed(let path):
            "\(path): a sync of the file system has failed, and what was stored before it may be lost"
        case .objectMissing(let id): "object \(id) is missing"
        case .objectDamaged(let id, let fault): "object \(id) is damaged: \(fault)"
        case .objectTooLarge(let id, let size, let limit): "object \(id) has \(size) bytes, at most \(limit) were expected"
        case .streamMissing(let name): "stream not found: \(name)"
        case .stream(let name, let fault): "stream \(name): \(fault)"
        case .newStream(let fault): "new stream: \(fault)"
        case .imageMissing(let name): "image not found: \(name)"
        case .image(let name, let fault): "image \(name): \(fault)"
        case .unreadableRoot(let path, let fault): "\(path): \(fault); nothing was removed, because what it keeps cannot be known"
        case .unknownUse(let path, let fault): "\(path): \(fault); nothing was removed, because what it needs cannot be known"
        case .busy(let path, let holders):
            "\(path): the repository is in use by "
                + (holders.isEmpty ? "a process that is not visible here" : holders.map(\.description).joined(separator: ", "))
        case .cancelled: "cancelled while waiting for other users of the repository"
        case .invalidName(let name, let fault): "'\(name)' is no valid name: \(fault)"
        case .invalidLink(let path, let fault): "\(path): \(fault)"
        case .signatureNeeded(let path):
            "\(path): it has no fs-verity signature, and the kernel's fs.verity.require_signatures is 1"
        case .signature(let path, let fault): "\(path): \(fault)"
        case .source(let path, let fault): "\(path): \(fault)"
        }
    }

    private static func configuration(_ metadata: RepositoryMetadata) -> String {
        let extra = metadata.formats.all.dropFirst().map { "+V\($0.rawValue)" }.joined()
        return "algorithm: \(RepositoryMetadata.name(of: metadata.algorithm)), erofs_version: V\(metadata.formats.default.rawValue)\(extra)"
    }
}

/// Runs a system call and wraps its error.
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
