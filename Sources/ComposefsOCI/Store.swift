public import Bytes
import EROFS
import Hashing
import LinuxSystem
import Mounting
public import OCI
public import Registry
public import Repository

/// A repository of OCI images: what the `cfsoci` command works on, as a value.
///
/// Methods that wait on the network or do much work come in two forms: `async` ones run on a thread of their own, so that no cooperative
/// thread is blocked; `…Synchronously` ones run on the caller's.
public struct Store: Sendable {
    public let repository: Repository
    public var images: ImageStore { ImageStore(repository) }

    public init(_ repository: Repository) { self.repository = repository }

    /// Opens an existing repository.
    public static func open(_ path: ByteString, _ options: OpenOptions = OpenOptions()) throws -> Store {
        Store(try Repository.open(path, options))
    }

    /// Opens a repository, or makes one (parents too) with fs-verity where the file system has it.
    public static func openOrCreate(
        _ path: ByteString, _ configuration: RepositoryConfiguration = RepositoryConfiguration(verity: .automatic),
        _ options: OpenOptions = OpenOptions()
    ) throws -> (store: Store, created: Bool) {
        do {
            return (try open(path, options), false)
        } catch let error as RepositoryError {
            switch error {
            case .notInitialized: break
            case .system(let error) where error.errno == .noEntry: try makeParents(of: path)
            default: throw error
            }
        }
        let made = try Repository.initialize(path, configuration, options)
        return (Store(made.repository), made.created)
    }

    /// Makes the directories that lead to a path, as `mkdir -p` does.
    public static func makeParents(of path: ByteString) throws {
        let slash = UInt8(ascii: "/")
        let parts = path.bytes.split(separator: slash).dropLast()
        var at: [UInt8] = path.bytes.first == slash ? [] : [UInt8(ascii: ".")]
        for part in parts {
            at += [slash] + part
            do throws(SystemError) {
                try FileDescriptor.makeDirectory(ByteString(at), mode: 0o755)
            } catch {
                guard error.errno == .exists else { throw error }
            }
        }
    }

    // MARK: Pulling

    /// Pulls what `reference` names: a registry reference, `docker://…`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
    /// `docker-archive:FILE[:TAG]` or `dir:DIR`. See `pullImage`.
    public func pull(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) async throws -> PullResult {
        try await onOwnThread { try pullSynchronously(reference, options, registry: registry) }
    }

    public func pullSynchronously(
        _ reference: String, _ options: PullOptions = PullOptions(), registry: RegistryOptions = RegistryOptions()
    ) throws -> PullResult {
        let parsed = try parseReference(reference)
        if case .registry(let registryReference) = parsed {
            let client = try RegistryClient(registry)
            return try pullImage(from: RegistryImageSource(registryReference, client: client), into: repository, options)
        }
        guard let source = try parsed.openLocalSource(scratch: repository.path) else {
            throw OCIError.invalidReference(ByteString(reference), "names nothing that can be pulled")
        }
        return try pullImage(from: source, into: repository, options)
    }

    // MARK: Mounting

    /// Mounts an image's root file system. The EROFS image is verified against its identifier first; in a secure repository the kernel
    /// verifies every file when it is opened.
    ///
    /// - Parameter image: a tag, a digest or the first digits of one (`ImageStore.resolve`), or an EROFS image's identifier.
    public func mount(_ image: ByteString, at target: ByteString, bootable: Bool = false, _ options: MountOptions? = nil) throws {
        let name = try mountable(image, bootable: bootable)
        let opened = try repository.openImage(name)
        let objects = try FileDescriptor.open(repository.path + "/objects", [.readOnly, .directory])
        var options = options ?? MountOptions()
        options.source = MountOptions.source(ofImage: ByteString(opened.id.hex))
        try mountImage(opened.file, objects: objects, requireVerity: repository.isSecure, at: target, options: options)
    }

    /// The name in `images/` of what IMAGE means.
    private func mountable(_ image: ByteString, bootable: Bool) throws -> ByteString {
        if ObjectID(hex: image.bytes) != nil { return image }
        do {
            let found = try images.open(image)
            guard found.image.isContainer else { throw ImageStoreError.isArtifact(found.image.manifestDigest) }
            let version = repository.erofsFormats.default
            let id = bootable ? found.image.bootImageID(version) : found.image.imageID(version)
            guard let id else {
                throw ImageStoreError.damaged(
                    stream: ByteString(found.image.configDigest.description),
                    "has no \(bootable ? "boot " : "")EROFS image of format \(version); pull it again")
            }
            return ByteString(id.hex)
        } catch let error as ImageStoreError {
            // Images that were made from a directory have only a name below images/refs.
            guard case .noSuchImage = error, (try? repository.image(image)) != nil else { throw error }
            return image
        }
    }
}
