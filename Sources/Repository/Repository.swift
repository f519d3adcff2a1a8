// Repository: a composefs repository on disk (Repo-Format.md), which knows nothing of OCI.
//
// - Objects: content-addressed files, with fs-verity if the file system has it; imports from directories and other repositories.
// - Streams, Images: split streams and EROFS images, by name. References keep them.
// - Staging, Publication: objects become visible in one durable step; what a crash or a failed sync left is verified before it is used.
// - Collection, Check, Signing: garbage collection, fsck, and built-in signatures of fs-verity.

public import ComposefsBytes
public import ComposefsConcurrency
public import ComposefsHashing
package import ComposefsLinuxSystem
internal import Synchronization

/// How `Repository.open` opens a repository.
public struct OpenOptions: Sendable {
    /// Refuse a repository without fs-verity.
    public var requireVerity: Bool
    /// Write a `meta.json` to a repository that was made before that file existed, instead of refusing it.
    public var upgradeOldFormat: Bool
    /// Never write, whichever method is called.
    public var readOnly: Bool
    /// Refuse a repository with another algorithm.
    public var algorithm: VerityAlgorithm?
    /// Called once, before waiting for a lock that another process holds, such as a garbage collection.
    public var willWait: (@Sendable () -> Void)?
    /// How long to wait for that lock.
    public var wait: LockWait
    /// Ends the waiting: `RepositoryError.cancelled`.
    public var cancellation: Cancellation
    /// Write also to a repository, or a directory in one, that another user owns or can write to. Otherwise that is
    /// `RepositoryError.untrusted`. Reading never leaves the repository, whichever user owns it. See `OwnershipCheck`.
    public var trustsOwner: Bool
    /// Signs every object that this handle stores, and `meta.json`: see Signing.swift. Refused if the repository has no fs-verity.
    public var signer: (any VeritySigner)?

    public init(
        requireVerity: Bool = false, upgradeOldFormat: Bool = false, readOnly: Bool = false, algorithm: VerityAlgorithm? = nil,
        willWait: (@Sendable () -> Void)? = nil, signer: (any VeritySigner)? = nil, trustsOwner: Bool = false, wait: LockWait = .forever,
        cancellation: Cancellation = Cancellation()
    ) {
        self.requireVerity = requireVerity
        self.upgradeOldFormat = upgradeOldFormat
        self.readOnly = readOnly
        self.algorithm = algorithm
        self.willWait = willWait
        self.signer = signer
        self.trustsOwner = trustsOwner
        self.wait = wait
        self.cancellation = cancellation
    }
}

/// A composefs repository: content-addressed objects, streams and images that refer to them, and references that keep those.
///
/// The handle holds a shared lock on the repository's directory as long as it exists, so a garbage collection of another handle waits for
/// it. All methods may be called from several threads at once. Objects are durable only after `publish` or `sync` has returned.
public final class Repository: Sendable {
    /// The path that was given to `open` or `initialize`.
    public let path: ByteString
    public let metadata: RepositoryMetadata
    /// Whether objects have fs-verity, so that the kernel verifies their content. Otherwise digests are computed in user space.
    public let isSecure: Bool
    /// Whether the repository was made before `meta.json` existed, and was opened for reading only. `metadata` is then what its objects show.
    public let isOldFormat: Bool
    /// The repository's directory, which carries the lock. All paths are relative to it, and no symbolic link on them is followed.
    let root: RootedDirectory
    let options: OpenOptions
    let activity = Activity()
    let signing = Signing()

    public var algorithm: VerityAlgorithm { metadata.algorithm }
    /// Whether this handle never writes.
    package var isReadOnly: Bool { options.readOnly }
    public var erofsFormats: ErofsFormats { metadata.formats }

    init(
        path: ByteString, root: consuming RootedDirectory, metadata: RepositoryMetadata, isSecure: Bool, options: OpenOptions,
        isOldFormat: Bool = false
    ) {
        self.path = path
        self.root = root
        self.metadata = metadata
        self.isSecure = isSecure
        self.options = options
        self.isOldFormat = isOldFormat
    }

    deinit { retireMarker() }

    /// Makes everything written so far durable, on the whole file system. After a failure, nothing that this handle has stored since the
    /// last sync is relied on before it has been read from the device, by this or any other process: see Publication.swift.
    public func sync() throws(RepositoryError) {
        do throws(RepositoryError) {
            try syncFileSystem()
            try system { () throws(SystemError) in try activity.directories.release(in: root) }
        } catch {
            condemn()
            throw error
        }
    }

    /// Makes what was written so far durable, as `sync` does, while other threads go on storing. It takes the place of no `sync`.
    package func syncData() throws(RepositoryError) {
        do throws(RepositoryError) {
            try syncFileSystem()
        } catch {
            condemn()
            throw error
        }
    }

    /// Memory for what grows with the number of files of an image: what exceeds a limit is in files without names, of the repository's file system or,
    /// if the handle is read-only, of that of the output.
    package var memory: any LargeMemory {
        activity.memory.withLock { known in
            if let known { return known }
            let new = SpilledMemory { [weak self] in
                guard let self else { throw RepositoryError.readOnly(.openedReadOnly) }
                guard self.isReadOnly else { return try self.makeTemporary(mode: 0o600).withoutName() }
                guard let output = self.activity.output.withLock({ $0 }) else { throw RepositoryError.readOnly(.openedReadOnly) }
                return try FileDescriptor.open(output, [.readOnly, .directory]).openUnnamed()
            }
            known = new
            return new
        }
    }

    /// A caller writes to a directory anyway. `memory` may make files without names there.
    package func noteOutput(_ directory: ByteString) { activity.output.withLock { $0 = directory } }

    func syncFileSystem() throws(RepositoryError) {
        try system { () throws(SystemError) in try root.syncFileSystem() }
    }

    /// Free space and inodes of the repository's file system.
    package func fileSystemStatus() throws(RepositoryError) -> FileSystemStatus {
        try system { () throws(SystemError) in try root.fileSystemStatus() }
    }

    /// Throws if nothing may be written: the handle was opened read-only, a feature needs a later release, the file system is read-only,
    /// permissions are missing, or another user could change what is written.
    func requireWritable() throws(RepositoryError) {
        guard !options.readOnly else { throw .readOnly(.openedReadOnly) }
        let unknown = metadata.unknownReadOnlyCompatible
        guard unknown.isEmpty else { throw .readOnly(.unknownFeatures(unknown)) }
        let status = try system { () throws(SystemError) in try root.fileSystemStatus() }
        guard !status.isReadOnly else { throw .readOnly(.readOnlyFileSystem) }
        do { try root.access([.write, .execute]) } catch { throw .readOnly(.access(error)) }
        try requireTrustedOwner()
    }
}

/// What one handle is doing, for the marker that records for the next boot which objects a power cut may have damaged. See Staging.swift.
struct Activity: ~Copyable {
    /// Whether the marker exists, so that storing may continue without another check.
    let hasBegun = Atomic<Bool>(false)
    /// Calls that are storing something right now.
    let storing = Atomic<Int>(0)
    /// Whether anything was stored since the last sync.
    let isUnsynced = Atomic<Bool>(false)
    /// How many of the last objects that were stored from memory were new, up to a limit.
    let newInARow = Atomic<Int>(0)
    /// Whether existing objects must be read before they are relied on, because an interrupted pull could not be examined.
    let distrustsObjects = Atomic<Bool>(false)
    /// Whether this handle has looked for other handles that are storing.
    let hasLooked = Atomic<Bool>(false)
    /// Whether other handles were storing at that time and still have their markers, so that the use of their objects is recorded.
    let hasOthers = Atomic<Bool>(false)
    let others = Mutex<[Other]>([])
    let reused = Mutex(Reused())
    /// Whether the last sync failed and what was written before it has not been examined yet.
    let isCondemned = Atomic<Bool>(false)
    /// Whether any sync has failed.
    let wasCondemned = Atomic<Bool>(false)
    /// Whether the file system lacks O_TMPFILE.
    let needsNamedTemporaries = Atomic<Bool>(false)
    /// Whether owners and permissions of the repository's directories were checked successfully.
    let hasTrustedOwner = Atomic<Bool>(false)
    let ownership = OwnershipCheck()
    /// Objects whose content this handle has found to be what their names say.
    let intact = IntactObjects()
    /// The directories of objects that this handle has stored since the last sync.
    let directories = KeptDirectories(of: Layout.objects)
    /// Whether the file system refused FICLONE once.
    let cannotClone = Atomic<Bool>(false)
    /// Nil before it is asked for.
    let memory = Mutex<SpilledMemory?>(nil)
    /// A directory outside of the repository that may be written to.
    let output = Mutex<ByteString?>(nil)
    let marker = Mutex(Marker())

    /// The marker of another handle, and when it was made.
    struct Other: Sendable {
        var path: ByteString
        var time: Int64
    }

    /// Objects and staged streams that existed when this handle was about to store them.
    struct Reused: Sendable {
        var objects: Set<ObjectID> = []
        var streams: Set<ObjectID> = []
    }

    /// A file `.staging/<boot>/.active-<random>`, locked as long as its handle exists; the path is nil before the file is made.
    struct Marker: ~Copyable, Sendable {
        var path: ByteString?
        var file: FileDescriptor?
    }
}
