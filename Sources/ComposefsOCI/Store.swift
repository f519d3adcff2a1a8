public import ComposefsBytes
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsRepository
public import Logging

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

    /// Receives what pulls, pushes and repairs through this handle do, if it is not nil: warnings, waits, registries, mirrors, the origins of
    /// credentials and requests; see `RegistryOptions.logging(to:)`. Other handles of the same repository have their own.
    public var logger: Logger?

    /// A store for the images of an open repository.
    public init(_ repository: Repository, logger: Logger? = nil) {
        self.repository = repository
        self.logger = logger
    }

    /// Opens an existing repository. Waits for a running garbage collection.
    ///
    /// - Parameters:
    ///   - path: the repository's directory: a `String`, or anything else that has bytes.
    ///   - options: how to open it.
    ///   - logger: the store's logger.
    /// - Throws: `RepositoryError`, which is `.notInitialized` if the directory is not a repository.
    public static func open(
        _ path: some ByteStringConvertible, _ options: OpenOptions = OpenOptions(), logger: Logger? = nil
    ) throws -> Store {
        let path = path.byteString
        return Store(try Repository.open(path, options.logging(to: logger, path)), logger: logger)
    }

    /// Opens a repository, or creates it and its parent directories. By default a new repository has fs-verity if the file system supports
    /// it.
    ///
    /// - Parameters:
    ///   - path: the repository's directory.
    ///   - configuration: the configuration of a new repository. An existing one is not changed.
    ///   - options: how to open it.
    ///   - logger: the store's logger.
    /// - Returns: the store, and whether the repository was created.
    /// - Throws: `RepositoryError`, `SystemError`.
    public static func openOrCreate(
        _ path: some ByteStringConvertible, _ configuration: RepositoryConfiguration = RepositoryConfiguration(verity: .automatic),
        _ options: OpenOptions = OpenOptions(), logger: Logger? = nil
    ) throws -> (store: Store, created: Bool) {
        let path = path.byteString
        do {
            return (try open(path, options, logger: logger), false)
        } catch let error as RepositoryError {
            switch error {
            case .notInitialized: break
            case .system(let error) where error.errno == .noEntry: break
            default: throw error
            }
        }
        let made = try initialize(path, configuration, options.logging(to: logger, path))
        return (Store(made.store.repository, logger: logger), made.created)
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
