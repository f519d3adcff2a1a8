public import ComposefsBytes
import ComposefsEROFS
public import ComposefsFuse
public import ComposefsHashing
public import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// Options for serving an image with FUSE.
public struct ServeOptions: Sendable {
    /// Whether other users may access the mount (`allow_other`).
    public var allowOther: Bool
    /// The number of threads that answer requests; nil for two per processor.
    public var threads: Int?
    /// Whether the kernel requests a file only when it is read and not cached, instead of at every open. This is much faster for many small
    /// files that are read repeatedly. But contents are cached twice, and a damaged file fails when it is read, not when it is opened.
    public var opensLazily: Bool
    /// The attributes of the mount, by default `nosuid` and `nodev`; see `FuseMountOptions`.
    public var attributes: MountAttributes
    /// Called with a message of one line for each missing or damaged object, once per object, on any thread.
    public var report: @Sendable (String) -> Void

    /// Default options, except for the parameters.
    public init(
        allowOther: Bool = false, threads: Int? = nil, opensLazily: Bool = false, attributes: MountAttributes = .withoutPrivileges,
        report: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.allowOther = allowOther
        self.opensLazily = opensLazily
        self.attributes = attributes
        self.threads = threads
        self.report = report
    }
}

/// An image that is mounted with FUSE and that this process serves while `run` runs.
///
/// A lease in the repository keeps the image's content, so that garbage collections can run in the meantime. If no lease can be written,
/// the repository's shared lock is held instead, and collections wait for it.
public final class ServedImage: Sendable {
    private let server: FuseServer
    private let mount: AttachedFuseMount
    private let keeper: Keeper

    fileprivate enum Keeper: Sendable {
        case lease(ImageLease)
        case lock(Repository)
    }

    fileprivate init(_ server: FuseServer, _ mount: AttachedFuseMount, _ keeper: Keeper) {
        self.server = server
        self.mount = mount
        self.keeper = keeper
    }

    /// The mount point, as the kernel names it.
    public var path: ByteString { mount.path }

    /// Answers the kernel's requests. Blocks the caller's thread until the image is unmounted by any process.
    public func run() {
        server.run()
        if case .lease(let lease) = keeper { lease.end() }
    }

    /// Unmounts the image, after which `run` returns.
    ///
    /// - Parameter lazily: whether to unmount even if the mount is in use (MNT_DETACH). `run` then returns when the last user has closed
    ///   it.
    /// - Throws: `FuseError`.
    public func unmount(lazily: Bool = false) throws(FuseError) { try mount.unmount(lazily: lazily) }
}

extension Store {
    /// Mounts an image's root file system with FUSE, which needs no privileges. This process serves it while ``ServedImage/run()`` runs.
    ///
    /// The image is verified against its image ID first. Each object is verified when a file is opened: with the kernel's digest if it has
    /// fs-verity, otherwise by hashing it once. Opening a damaged object fails with EIO, a missing one with ENOENT.
    ///
    /// - Parameters:
    ///   - image: the image's name, as for `mount`.
    ///   - target: an existing directory.
    ///   - bootable: whether to serve the boot image instead of the container image.
    ///   - digest: the image ID that the EROFS image must have.
    ///   - requiresSeal: whether the image must be sealed, as for `mount`.
    ///   - options: threads, caching, attributes and reports.
    /// - Throws: `ImageStoreError`, `RepositoryError` and `ErofsError` for the image; `FuseError` if the kernel does not support the mount
    ///   or the caller may not mount.
    public func serve(
        _ image: some ByteStringConvertible, at target: some ByteStringConvertible, bootable: Bool = false, digest: ObjectID? = nil,
        requiresSeal: Bool = false, _ options: ServeOptions = ServeOptions()
    ) throws -> ServedImage {
        let (image, target) = (image.byteString, target.byteString)
        let id = try openMountable(image, bootable: bootable, digest: digest, requiresSeal: requiresSeal).id
        // The image is kept in memory, so that exactly the verified bytes are served.
        let content = try ErofsImage(try repository.readObject(id, limit: ErofsImage.maximumSize), algorithm: repository.algorithm)
        // Until the lease exists, this handle's shared lock prevents garbage collections.
        let keeper = keep(id, at: target)
        let objects = RepositoryObjects(reader: try repository.objectReader())
        let source = MountOptions.source(ofImage: ByteString(id.hex))
        let mount = try FuseMount(
            at: target, FuseMountOptions(source: source, allowOther: options.allowOther, attributes: options.attributes))
        let server: FuseServer
        do throws(FuseError) {
            server = try FuseServer(
                content, objects: objects, device: try mount.connection(),
                FuseServerOptions(
                    requireVerity: repository.isSecure, threads: options.threads, opensLazily: options.opensLazily, report: options.report))
        } catch {
            mount.abandon()
            throw error
        }
        let served = ServedImage(server, try mount.attach(), keeper)
        noteUse(ofMountable: image, id)
        return served
    }

    private func keep(_ id: ObjectID, at target: ByteString) -> ServedImage.Keeper {
        do {
            let directory = try FileDescriptor.open(target, [.pathOnly, .directory]).kernelPath
            return .lease(try repository.lease(id, at: directory))
        } catch {
            // The repository is read-only or belongs to another user. Collections wait as long as this handle is open.
            return .lock(repository)
        }
    }
}

private struct RepositoryObjects: ObjectOpener {
    let reader: ObjectReader

    func openObject(_ id: ObjectID) throws(ObjectOpenError) -> FileDescriptor {
        do throws(RepositoryError) {
            return try reader.openObject(id)
        } catch {
            switch error {
            case .objectMissing: throw .system(SystemError("open", ByteString(id.objectPath), .noEntry))
            case .system(let error): throw .system(error)
            default: throw .refused("\(error)")
            }
        }
    }
}
