public import ComposefsBytes
public import ComposefsHashing
package import ComposefsLinuxSystem
internal import Synchronization

/// How `Repository.open` opens.
public struct OpenOptions: Sendable {
    /// Refuse a repository without fs-verity.
    public var requireVerity: Bool
    /// Give a repository from before `meta.json` one (writes it), instead of refusing.
    public var upgradeOldFormat: Bool
    /// Never write, whatever is called.
    public var readOnly: Bool
    /// Refuse a repository of another algorithm.
    public var algorithm: VerityAlgorithm?
    /// Called once, before waiting for a lock that another process holds (gc).
    public var willWait: (@Sendable () -> Void)?
    /// Write also to a repository, or a directory in one, that another user owns or can write to. Without it that is
    /// `RepositoryError.untrusted`; reading never leaves the repository, whoever owns it. See `OwnershipCheck`.
    public var trustsOwner: Bool
    /// Signs every object that this handle stores, and `meta.json`: see Signing.swift. Refused where the repository has no fs-verity.
    public var signer: (any VeritySigner)?

    public init(
        requireVerity: Bool = false, upgradeOldFormat: Bool = false, readOnly: Bool = false, algorithm: VerityAlgorithm? = nil,
        willWait: (@Sendable () -> Void)? = nil, signer: (any VeritySigner)? = nil, trustsOwner: Bool = false
    ) {
        self.requireVerity = requireVerity
        self.upgradeOldFormat = upgradeOldFormat
        self.readOnly = readOnly
        self.algorithm = algorithm
        self.willWait = willWait
        self.signer = signer
        self.trustsOwner = trustsOwner
    }
}

/// A composefs repository: content-addressed objects, streams and images that name them, references that keep those.
///
/// The handle holds a shared lock on the repository's directory for its life, so garbage collection elsewhere waits for it. All methods
/// may be called from many threads at once. Objects are durable only once `publish` or `sync` has returned.
public final class Repository: Sendable {
    /// As it was given to `open` or `initialize`.
    public let path: ByteString
    public let metadata: RepositoryMetadata
    /// Whether objects carry fs-verity, so that the kernel vouches for their content. Otherwise digests are computed in user space.
    public let isSecure: Bool
    /// The repository's directory; carries the lock. Everything below is reached through it, and never through a symbolic link.
    let root: RootedDirectory
    let options: OpenOptions
    let activity = Activity()
    let signing = Signing()

    public var algorithm: VerityAlgorithm { metadata.algorithm }
    public var erofsFormats: ErofsFormats { metadata.formats }

    init(path: ByteString, root: consuming RootedDirectory, metadata: RepositoryMetadata, isSecure: Bool, options: OpenOptions) {
        self.path = path
        self.root = root
        self.metadata = metadata
        self.isSecure = isSecure
        self.options = options
    }

    deinit { retireMarker() }

    /// Makes everything written so far durable, on the whole file system. When it fails, nothing that this handle has stored since the last
    /// sync is believed again before it has been read from the device, here and in every other process: see Publication.swift.
    public func sync() throws(RepositoryError) {
        do throws(RepositoryError) {
            try syncFileSystem()
        } catch {
            condemn()
            throw error
        }
    }

    func syncFileSystem() throws(RepositoryError) {
        try system { () throws(SystemError) in try root.syncFileSystem() }
    }

    /// Free space and inodes of the repository's file system.
    package func fileSystemStatus() throws(RepositoryError) -> FileSystemStatus {
        try system { () throws(SystemError) in try root.fileSystemStatus() }
    }

    /// Throws if nothing may be written: opened read-only, features only a newer release can keep up, read-only file system, permissions,
    /// another user that could change what is written.
    func requireWritable() throws(RepositoryError) {
        guard !options.readOnly else { throw .readOnly("it was opened for reading only") }
        let unknown = metadata.unknownReadOnlyCompatible
        guard unknown.isEmpty else {
            throw .readOnly(
                "meta.json lists features this release cannot write: " + unknown.map { ByteString($0).description }.joined(separator: ", "))
        }
        let status = try system { () throws(SystemError) in try root.fileSystemStatus() }
        guard !status.isReadOnly else { throw .readOnly("read-only file system") }
        do { try root.access([.write, .execute]) } catch { throw .readOnly("\(error)") }
        try requireTrustedOwner()
    }
}

/// What one handle is doing, for the marker that tells the next boot what a power cut may have damaged. See Staging.swift.
struct Activity: ~Copyable {
    /// Whether the marker exists, so storing may go on without a look.
    let hasBegun = Atomic<Bool>(false)
    /// Calls that are storing something right now.
    let storing = Atomic<Int>(0)
    /// Whether something was stored since the last sync.
    let isUnsynced = Atomic<Bool>(false)
    /// Whether objects that exist must be read before they are believed: an interrupted pull could not be looked into.
    let distrustsObjects = Atomic<Bool>(false)
    /// Whether this handle has looked who else is at work.
    let hasLooked = Atomic<Bool>(false)
    /// Whether others were storing then whose marker is still there, so that what of theirs is made use of is noted.
    let hasOthers = Atomic<Bool>(false)
    let others = Mutex<[Other]>([])
    let reused = Mutex(Reused())
    /// Whether the last sync failed and what was written before it has not been looked at yet.
    let isCondemned = Atomic<Bool>(false)
    /// Whether any sync has failed.
    let wasCondemned = Atomic<Bool>(false)
    /// Whether the file system lacks O_TMPFILE.
    let needsNamedTemporaries = Atomic<Bool>(false)
    /// Whether owners and permissions of the repository's directories were found good.
    let hasTrustedOwner = Atomic<Bool>(false)
    let ownership = OwnershipCheck()
    /// Objects whose content this handle has found to be what their names say.
    let intact = IntactObjects()
    /// Whether FICLONE was refused once.
    let cannotClone = Atomic<Bool>(false)
    let marker = Mutex(Marker())

    /// The marker of another handle, and when it was made.
    struct Other: Sendable {
        var path: ByteString
        var time: Int64
    }

    /// Objects and staged streams that were there when this handle wanted to store them.
    struct Reused: Sendable {
        var objects: Set<ObjectID> = []
        var streams: Set<ObjectID> = []
    }

    /// A file `.staging/<boot>/.active-<random>`, locked while its handle lives; none yet where the path is nil.
    struct Marker: ~Copyable, Sendable {
        var path: ByteString?
        var file: FileDescriptor?
    }
}
