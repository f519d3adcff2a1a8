public import ComposefsBytes
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsRepository

/// A repository of OCI images: what the `cfsoci` command works on, as a value.
///
/// A store is a handle: copies of it share the repository's lock, and many threads and tasks may use it at once. Methods that wait on the
/// network or do much work are `async` and run on threads of their own, so that no cooperative thread is blocked; each has a
/// `…Synchronously` form that runs on the caller's. What only reads a few small files is synchronous: see ``images``.
public struct Store: Sendable {
    /// Objects, streams, images and references, without a notion of OCI.
    public let repository: Repository
    /// Manifests, configs, layers, tags and referrers.
    public var images: ImageStore { ImageStore(repository) }

    /// The store that an open repository is.
    public init(_ repository: Repository) { self.repository = repository }

    /// Opens an existing repository, waiting for a garbage collection that runs.
    ///
    /// - Throws: `RepositoryError`; `.notInitialized` where the directory is no repository.
    public static func open(_ path: ByteString, _ options: OpenOptions = OpenOptions()) throws -> Store {
        Store(try Repository.open(path, options))
    }

    /// Opens a repository, or makes one (parents too) with fs-verity where the file system has it.
    ///
    /// - Parameters:
    ///   - path: the repository's directory.
    ///   - configuration: of a repository that has to be made; an existing one stays as it is.
    ///   - options: how to open, in either case.
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

    /// Makes a repository and the directories that lead to it, as `mkdir -p` does. Where it fails, what it made goes again.
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
