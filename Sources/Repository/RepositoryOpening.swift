public import ComposefsBytes
public import ComposefsEROFS
public import ComposefsHashing
internal import ComposefsLinuxSystem

/// How `Repository.initialize` makes a repository.
public struct RepositoryConfiguration: Sendable, Hashable {
    public enum Verity: Sendable, Hashable {
        /// Fail if the file system has no fs-verity.
        case required
        /// Use no fs-verity.
        case insecure
        /// Use fs-verity if the file system has it.
        case automatic
    }

    public var algorithm: VerityAlgorithm
    public var erofsFormats: ErofsFormats
    public var verity: Verity

    public init(
        algorithm: VerityAlgorithm = .sha512, erofsFormats: ErofsFormats = ErofsFormats(default: .v1), verity: Verity = .required
    ) {
        self.algorithm = algorithm
        self.erofsFormats = erofsFormats
        self.verity = verity
    }
}

extension Repository {
    /// Opens an existing repository and takes its shared lock; waits for a garbage collection that holds it, see `OpenOptions.wait`.
    ///
    /// A repository without `meta.json` is opened for reading only, or upgraded: see `isOldFormat` and `OpenOptions.upgradeOldFormat`.
    public static func open(_ path: ByteString, _ options: OpenOptions = OpenOptions()) throws(RepositoryError) -> Repository {
        let root = try openRoot(path, options)
        guard let metadata = try readMetadata(root, of: path) else {
            let hasObjects = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objects) != nil }
            guard hasObjects else { throw .notInitialized(path) }
            guard options.upgradeOldFormat != options.readOnly else { throw .oldFormat(path) }
            if options.readOnly { return try openWithoutMetadata(path, root, options) }
            return try upgrade(path, root, options)
        }
        return try make(path, root, metadata, options)
    }

    /// Makes a repository (the directory 0700, its parent must exist) or opens one that has the same algorithm and image versions.
    ///
    /// An existing repository's format never changes; whether it has fs-verity is not compared. After a failure, a directory that was made
    /// here is removed.
    public static func initialize(
        _ path: ByteString, _ configuration: RepositoryConfiguration, _ options: OpenOptions = OpenOptions()
    ) throws(RepositoryError) -> (repository: Repository, created: Bool) {
        guard options.signer == nil || configuration.verity != .insecure else { throw .signature(path, .nothingToSign) }
        let made = try system { () throws(SystemError) in
            try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o700)
        }
        do throws(RepositoryError) {
            return try initializeDirectory(path, configuration, options)
        } catch {
            // Removes an empty directory only: if it has entries now, another process made them.
            if made { try? FileDescriptor.currentDirectory.removeDirectory(at: path) }
            throw error
        }
    }

    private static func initializeDirectory(
        _ path: ByteString, _ configuration: RepositoryConfiguration, _ options: OpenOptions
    ) throws(RepositoryError) -> (repository: Repository, created: Bool) {
        let wanted = RepositoryMetadata(algorithm: configuration.algorithm, formats: configuration.erofsFormats)
        let root = try openRoot(path, options)
        if let found = try readMetadata(root, of: path) {
            guard found.algorithm == wanted.algorithm, found.formats.all == wanted.formats.all else {
                throw .differentConfiguration(found: found, wanted: wanted)
            }
            // A program that was killed may have written it without syncing the name.
            try system { () throws(SystemError) in try root.sync() }
            // The caller asked for it explicitly: a copy that lost its fs-verity continues without.
            if configuration.verity == .insecure { try forgetVerity(root, path, options) }
            return (try make(path, root, found, options), false)
        }
        let hasObjects = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objects) != nil }
        guard !hasObjects || options.upgradeOldFormat else { throw .oldFormat(path) }
        if hasObjects { return (try upgrade(path, root, options), false) }
        try requireTrustedOwner(root, path, options)
        // A power cut must not remove the entry of the new directory after the caller was told that the repository exists. Nor those of its
        // parents, which the caller, or a program that was killed, may have made just before: one sync covers all of them. It comes before
        // `meta.json`, so a repository that has this file has a durable name.
        try system { () throws(SystemError) in try root.syncFileSystem() }
        try writeMetadata(wanted, root, path, configuration.verity, options.signer)
        guard let written = try readMetadata(root, of: path) else { throw .notInitialized(path) }
        guard written == wanted else { throw .differentConfiguration(found: written, wanted: wanted) }
        return (try make(path, root, written, options), true)
    }

    /// Removes `streams/`, `images/` and `meta.json`, so that the repository can be initialized again; objects stay.
    ///
    /// - Parameter trustsOwner: see `OpenOptions`.
    public static func resetMetadata(_ path: ByteString, trustsOwner: Bool = false) throws(RepositoryError) {
        let root = try openRoot(path, OpenOptions())
        try requireTrustedOwner(root, path, OpenOptions(trustsOwner: trustsOwner))
        guard try system({ () throws(SystemError) in try root.lock(.exclusive, wait: false) }) else {
            throw .readOnly(.usedByAnotherProcess)
        }
        // Staging stays: objects do, and its markers record which of them may be damaged.
        for name in [Layout.streams, Layout.images] { try removeTree(name, in: root) }
        try system { () throws(SystemError) in
            if try root.statusIfPresent(at: Layout.metadata) != nil { try root.unlink(at: Layout.metadata) }
            // The removed entries must not come back beside the new metadata.
            try root.sync()
        }
    }

    // MARK: Steps

    static func openRoot(_ path: ByteString, _ options: OpenOptions) throws(RepositoryError) -> RootedDirectory {
        let root = RootedDirectory(try system { () throws(SystemError) in try FileDescriptor.open(path, [.readOnly, .directory]) })
        try lock(root, path, .shared, options.wait, options.cancellation, options.willWait)
        return root
    }

    private static func make(
        _ path: ByteString, _ root: consuming RootedDirectory, _ metadata: RepositoryMetadata, _ options: OpenOptions
    ) throws(RepositoryError) -> Repository {
        guard metadata.version <= RepositoryMetadata.currentVersion else { throw .unsupportedVersion(metadata.version) }
        if let expected = options.algorithm, expected != metadata.algorithm {
            throw .algorithmMismatch(found: metadata.algorithm, expected: expected)
        }
        try metadata.checkReadable()
        let isSecure = try hasVerity(root, Layout.metadata)
        if !isSecure {
            guard try !wasSecure(root) else { throw .verityLost(path) }
            guard !options.requireVerity else { throw .insecure(path) }
            guard options.signer == nil else { throw .signature(path, .nothingToSign) }
        }
        return Repository(path: path, root: root, metadata: metadata, isSecure: isSecure, options: options)
    }

    /// Whether a file has fs-verity of any algorithm.
    static func hasVerity(_ root: borrowing RootedDirectory, _ path: ByteString) throws(RepositoryError) -> Bool {
        let file = try system { () throws(SystemError) in try root.open(at: path, [.readOnly, .noFollow]) }
        return try system { () throws(SystemError) in try measuredVerity(file) != nil }
    }

    // MARK: The record of fs-verity

    /// An extended attribute of `meta.json` in a repository with fs-verity. The format itself does not distinguish a repository without
    /// fs-verity from one that lost it: `cp -a` copies everything but fs-verity, and this attribute, too.
    private static let verityAttribute: ByteString = "user.cfsoci.verity"

    private static func wasSecure(_ root: borrowing RootedDirectory) throws(RepositoryError) -> Bool {
        try system { () throws(SystemError) in
            try root.open(at: Layout.metadata, [.readOnly, .noFollow]).extendedAttribute(verityAttribute) != nil
        }
    }

    private static func forgetVerity(
        _ root: borrowing RootedDirectory, _ path: ByteString, _ options: OpenOptions
    ) throws(RepositoryError) {
        guard try !hasVerity(root, Layout.metadata), try wasSecure(root) else { return }
        try requireTrustedOwner(root, path, options)
        try system { () throws(SystemError) in
            let file = try root.open(at: Layout.metadata, [.readOnly, .noFollow])
            try file.removeExtendedAttribute(verityAttribute)
            do throws(SystemError) {
                try file.sync()
            } catch {
                try? file.setExtendedAttribute(verityAttribute, "1")
                throw error
            }
        }
    }

    /// The file's bytes; nil if there is no file.
    static func metadataBytes(_ root: borrowing RootedDirectory) throws(RepositoryError) -> [UInt8]? {
        // Not blocking: a FIFO of this name must not block the caller.
        let opened: FileDescriptor?
        do throws(SystemError) {
            opened = try root.openIfPresent(at: Layout.metadata, [.readOnly, .noFollow, .nonBlocking])
        } catch {
            guard error.errno == .tooManySymbolicLinks else { throw RepositoryError(error) }
            throw .metadata(.symbolicLink)
        }
        guard let file = opened else { return nil }
        let status = try system { () throws(SystemError) in try file.status() }
        guard status.kind == .regular else { throw .metadata(.notRegularFile) }
        guard status.size <= RepositoryMetadata.sizeLimit else {
            throw .metadata(.tooLarge(size: status.size, limit: RepositoryMetadata.sizeLimit))
        }
        return try system { () throws(SystemError) in try file.readAll(limit: RepositoryMetadata.sizeLimit) }
    }

    private static func readMetadata(
        _ root: borrowing RootedDirectory, of path: ByteString
    ) throws(RepositoryError) -> RepositoryMetadata? {
        do throws(RepositoryError) {
            guard let bytes = try metadataBytes(root) else { return nil }
            return try RepositoryMetadata(parsing: bytes)
        } catch {
            // The error of ext4 for a file with fs-verity on a kernel that was built without it.
            guard case .system(let error) = error, error.errno == .notSupported else { throw error }
            throw .verityUnreadable(path)
        }
    }

    /// Writes `meta.json` in one step; an existing file stays unchanged.
    private static func writeMetadata(
        _ metadata: RepositoryMetadata, _ root: borrowing RootedDirectory, _ path: ByteString, _ verity: RepositoryConfiguration.Verity,
        _ signer: (any VeritySigner)?
    ) throws(RepositoryError) {
        let temporary = try prepareMetadata(metadata.serialized(), metadata.algorithm, root, path, verity, signer)
        let isNew = try system { () throws(SystemError) in try temporary.link(in: root, at: Layout.metadata) }
        // Makes the name durable before the caller relies on the repository.
        do throws(SystemError) {
            try root.sync()
        } catch {
            // A later sync would succeed without covering this name. After the removal, the next attempt writes the file again.
            if isNew { try? root.unlink(at: Layout.metadata) }
            throw .system(error)
        }
    }

    /// A complete `meta.json` without a name.
    private static func prepareMetadata(
        _ text: [UInt8], _ algorithm: VerityAlgorithm, _ root: borrowing RootedDirectory, _ path: ByteString,
        _ verity: RepositoryConfiguration.Verity, _ signer: (any VeritySigner)?
    ) throws(RepositoryError) -> Temporary {
        // If it needs a hidden name, that has the form that garbage collection removes.
        var temporary = try system { () throws(SystemError) in
            try Temporary.make(in: root, directory: ".", named: Layout.symlinkPrefix, mode: 0o644)
        }
        try system { () throws(SystemError) in try temporary.file.writeAll(text) }
        // The file must be complete before it gets its name: half of it would make the repository unusable.
        try system { () throws(SystemError) in try temporary.file.sync() }
        if verity != .insecure {
            let signature = try signer.map { (signer) throws(RepositoryError) in
                try makeSignature(
                    of: text.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) }, signer, path + "/" + Layout.metadata)
            }
            let enabled: Bool
            do throws(SystemError) {
                enabled = try temporary.enableVerity(algorithm, signature: signature, in: root)
            } catch {
                throw RepositoryError(enablingVerity: error, on: path + "/" + Layout.metadata)
            }
            guard enabled || (verity == .automatic && signer == nil) else { throw .verityUnsupported(path) }
            // Without extended attributes a copy cannot be recognised, which is no reason to refuse the repository.
            if enabled { try? temporary.file.setExtendedAttribute(verityAttribute, "1") }
        }
        return temporary
    }

    /// Replaces the text of `meta.json`, in one step.
    static func replaceMetadata(
        _ text: [UInt8], _ algorithm: VerityAlgorithm, _ root: borrowing RootedDirectory, _ path: ByteString, isSecure: Bool,
        _ signer: (any VeritySigner)?
    ) throws(RepositoryError) {
        let temporary = try prepareMetadata(text, algorithm, root, path, isSecure ? .required : .insecure, signer)
        try system { () throws(SystemError) in
            try temporary.replace(in: root, at: Layout.metadata)
            try root.sync()
        }
    }

    /// Makes `meta.json` for a repository from before that file: the first object shows algorithm and fs-verity. Its images are V2, yet the
    /// default formats of the library (V1) are written, as composefs-rs does: missing images can be made from the streams.
    private static func upgrade(
        _ path: ByteString, _ root: consuming RootedDirectory, _ options: OpenOptions
    ) throws(RepositoryError) -> Repository {
        try requireTrustedOwner(root, path, options)
        guard let (object, algorithm) = try firstObject(root) else { throw .noObjects(path) }
        let isSecure = try hasVerity(root, object)
        let metadata = RepositoryMetadata(algorithm: algorithm, formats: ErofsFormats(default: .v1))
        try writeMetadata(metadata, root, path, isSecure ? .required : .insecure, options.signer)
        guard let written = try readMetadata(root, of: path) else { throw .notInitialized(path) }
        return try make(path, root, written, options)
    }

    /// Opens a repository without `meta.json` for reading: the first object shows algorithm and fs-verity. Nothing is
    /// written.
    private static func openWithoutMetadata(
        _ path: ByteString, _ root: consuming RootedDirectory, _ options: OpenOptions
    ) throws(RepositoryError) -> Repository {
        guard let (object, algorithm) = try firstObject(root) else { throw .noObjects(path) }
        if let expected = options.algorithm, expected != algorithm { throw .algorithmMismatch(found: algorithm, expected: expected) }
        let isSecure = try hasVerity(root, object)
        guard isSecure || !options.requireVerity else { throw .insecure(path) }
        // Programs from before meta.json wrote format 2. Images of another format show that the file is lost, and with it what it said.
        guard try imageFormats(root, algorithm, isThorough: false).isSubset(of: [.v2]) else { throw .oldFormat(path) }
        let metadata = RepositoryMetadata(algorithm: algorithm, formats: ErofsFormats(default: .v2))
        return Repository(path: path, root: root, metadata: metadata, isSecure: isSecure, options: options, isOldFormat: true)
    }

    static func firstObject(_ root: borrowing RootedDirectory) throws(RepositoryError) -> (ByteString, VerityAlgorithm)? {
        for index in try objectDirectories(in: root) {
            let directory = objectDirectory(index)
            for entry in try entries(of: directory, in: root) ?? [] {
                let name = directory + "/" + entry.name
                if let id = ObjectID(objectPath: name.bytes.dropFirst(Layout.objects.count + 1)) { return (name, id.algorithm) }
            }
        }
        return nil
    }

    /// The entries of a directory in ascending order of their names; nil if the directory does not exist.
    static func entries(of path: ByteString, in root: borrowing RootedDirectory) throws(RepositoryError) -> [DirectoryEntry]? {
        do throws(SystemError) {
            return try root.entries(of: path)?.sorted { $0.name < $1.name }
        } catch {
            throw notDirectory(error, path, root)
        }
    }

    /// The kernel says ENOTDIR of a link as well, and the user has to look for the link.
    private static func notDirectory(_ error: SystemError, _ path: ByteString, _ root: borrowing RootedDirectory) -> RepositoryError {
        let isLink = error.errno == .notDirectory && (try? root.statusIfPresent(at: path))?.kind == .symbolicLink
        return RepositoryError(isLink ? SystemError(operation: error.operation, path: error.path, errno: .tooManySymbolicLinks) : error)
    }

    func entries(of path: ByteString) throws(RepositoryError) -> [DirectoryEntry]? { try Self.entries(of: path, in: root) }

    /// Removes a directory with everything below it.
    static func removeTree(_ path: ByteString, in root: borrowing RootedDirectory) throws(RepositoryError) {
        do throws(SystemError) {
            try root.removeTree(at: path)
        } catch {
            throw notDirectory(error, path, root)
        }
    }
}
