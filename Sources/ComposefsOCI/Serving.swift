public import ComposefsBytes
import ComposefsEROFS
public import ComposefsFuse
public import ComposefsHashing
public import ComposefsLinuxSystem
import ComposefsMounting
import ComposefsRepository

/// How an image is served with FUSE.
public struct ServeOptions: Sendable {
    /// Lets users other than the one who mounts look inside.
    public var allowOther: Bool
    /// Threads that answer; nil for two a processor.
    public var threads: Int?
    /// The kernel asks for a file when it is read and not in its cache, instead of whenever it is opened. Many times faster for many small
    /// files that are read again and again; contents are cached a second time, and a damaged file fails when it is read, not when opened.
    public var opensLazily: Bool
    /// Of the mount: by default `nosuid` and `nodev`; see `FuseMountOptions`.
    public var attributes: MountAttributes
    /// Told in one line about every object that is missing or damaged, once each, from any thread.
    public var report: @Sendable (String) -> Void

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

/// An image that is mounted with FUSE and served by this process, for as long as `run` runs.
///
/// A lease in the repository keeps what the image needs, and lets garbage be collected. Where no lease can be written, it holds the repository's
/// shared lock instead, for which collections wait.
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

    /// The directory, as the kernel names it.
    public var path: ByteString { mount.path }

    /// Answers the kernel, blocking the caller; returns once it is unmounted, by whomever.
    public func run() {
        server.run()
        if case .lease(let lease) = keeper { lease.end() }
    }

    /// Unmounts it, which lets `run` return; with `lazily` even where it is in use, and `run` then returns with the last user.
    public func unmount(lazily: Bool = false) throws(FuseError) { try mount.unmount(lazily: lazily) }
}

extension Store {
    /// Mounts an image's root file system with FUSE, which takes no privileges: this process serves it while ``ServedImage/run()`` runs.
    ///
    /// The image is verified against its identifier first. Each object is verified when a file is opened: by the kernel's digest where it has
    /// fs-verity, else by hashing it once; one that is damaged gives EIO, one that is missing ENOENT.
    ///
    /// - Parameters:
    ///   - image: as `mount` takes it.
    ///   - digest: the identifier that the EROFS image must have.
    ///   - target: an existing directory.
    /// - Throws: `ImageStoreError`, `RepositoryError` and `ErofsError` for the image, `FuseError` where the kernel or the caller's rights do
    ///   not suffice.
    public func serve(
        _ image: ByteString, at target: ByteString, bootable: Bool = false, digest: ObjectID? = nil,
        _ options: ServeOptions = ServeOptions()
    ) throws -> ServedImage {
        let id = try openMountable(image, bootable: bootable, digest: digest).id
        // Kept in memory: what was verified is what is served, whatever happens to the file.
        let content = try ErofsImage(try repository.readObject(id, limit: ErofsImage.maximumSize), algorithm: repository.algorithm)
        // This handle's shared lock keeps collections away until the lease is there.
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
        return ServedImage(server, try mount.attach(), keeper)
    }

    private func keep(_ id: ObjectID, at target: ByteString) -> ServedImage.Keeper {
        do {
            let directory = try FileDescriptor.open(target, [.pathOnly, .directory]).kernelPath
            return .lease(try repository.lease(id, at: directory))
        } catch {
            // Read-only, or another user's: as long as this handle is open, others do not collect.
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
