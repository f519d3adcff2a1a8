public import ComposefsBytes
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsRepository

/// A repository of OCI images, on which all operations of the `cfsoci` command are available.
///
/// A store is a handle. Its copies share the repository's lock, and several threads and tasks may use it at the same time. Pulls, pushes
/// and copies have a blocking and an async form of the same name. An async method runs its work on other threads, so it does not block
/// Swift's cooperative thread pool. Operations that only read a few small files are synchronous; see ``images``.
public struct Store: Sendable {
    /// Objects, streams, images and references, independent of OCI.
    public let repository: Repository
    /// Manifests, configs, layers, tags and referrers.
    public var images: ImageStore { ImageStore(repository) }

    /// A store for the images of an open repository.
    public init(_ repository: Repository) { self.repository = repository }

    /// Opens an existing repository. Waits for a running garbage collection.
    ///
    /// - Parameters:
    ///   - path: the repository's directory.
    ///   - options: how to open it.
    /// - Throws: `RepositoryError`, which is `.notInitialized` if the directory is not a repository.
    public static func open(_ path: ByteString, _ options: OpenOptions = OpenOptions()) throws -> Store {
        Store(try Repository.open(path, options))
    }

    /// Opens a repository, or creates it and its parent directories. By default a new repository has fs-verity if the file system supports
    /// it.
    ///
    /// - Parameters:
    ///   - path: the repository's directory.
    ///   - configuration: the configuration of a new repository. An existing one is not changed.
    ///   - options: how to open it.
    /// - Returns: the store, and whether the repository was created.
    /// - Throws: `RepositoryError`, `SystemError`.
    public static func openOrCreate(
        _ path: ByteString, _ configuration: RepositoryConfiguration = RepositoryConfiguration(verity: .automatic),
        _ options: OpenOptions = OpenOptions()
    ) throws -> (store: Store, created: Bool) {
        do {
            return (try open(path, options), false)
        } catch let error as RepositoryError {
            switch error {
            case .notInitialized: break
            case .system(let error) where error.errno == .noEntry: break
            default: throw error
            }
        }
        return try initialize(path, configuration, options)
    }

    /// Creates a repository and its parent directories, as `mkdir -p` does. After a failure, the directories that it has created are
    /// removed.
    package static func initialize(
        _ path: ByteString, _ configuration: RepositoryConfiguration, _ options: OpenOptions = OpenOptions()
    ) throws -> (store: Store, created: Bool) {
        var made: [ByteString] = []
        do {
            try makeParents(of: path, &made)
            let result = try Repository.initialize(path, configuration, options)
            return (Store(result.repository), result.created)
        } catch {
            for directory in made.reversed() { try? FileDescriptor.currentDirectory.removeDirectory(at: directory) }
            throw error
        }
    }

    private static func makeParents(of path: ByteString, _ made: inout [ByteString]) throws(SystemError) {
        let slash = UInt8(ascii: "/")
        let parts = path.bytes.split(separator: slash).dropLast()
        var at: [UInt8] = path.bytes.first == slash ? [] : [UInt8(ascii: ".")]
        for part in parts {
            at += [slash] + part
            let directory = ByteString(at)
            if try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: directory, mode: 0o755) { made.append(directory) }
        }
    }
}
