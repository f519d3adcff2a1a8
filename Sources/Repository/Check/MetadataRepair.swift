public import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem

extension Repository {
    /// A damaged `meta.json` and its replacement.
    public struct MetadataRepair: Sendable {
        /// The fault of the damaged file.
        public var fault: MetadataFault
        /// The properties of the repository, derived from its objects and images.
        public var metadata: RepositoryMetadata
        /// The new path of the damaged file; nil if there was none, or in a dry run.
        public var setAside: ByteString?
    }

    /// Writes `meta.json` again if it is missing, cannot be read, or has a form that no program writes. The algorithm follows from the objects' names,
    /// the formats from the EROFS images in the repository, and fs-verity from the objects.
    ///
    /// The damaged file is set aside. A valid file is left unchanged.
    ///
    /// - Parameter isDryRun: only report what would be done.
    /// - Throws: `RepositoryError.noObjects` if the algorithm cannot be derived; `.unsupportedVersion`, `.incompatibleFeatures` if a newer release
    ///   created the repository.
    public static func repairMetadata(
        _ path: ByteString, _ options: OpenOptions = OpenOptions(), isDryRun: Bool = false
    ) throws(RepositoryError) -> MetadataRepair? {
        let root = try openRoot(path, options)
        guard let fault = try metadataFault(root) else { return nil }
        let hasObjects = try system { () throws(SystemError) in try root.statusIfPresent(at: Layout.objects) != nil }
        guard hasObjects else { throw .notInitialized(path) }
        guard let (object, algorithm) = try firstObject(root) else { throw .noObjects(path) }
        let isSecure = try hasVerity(root, object)
        let metadata = RepositoryMetadata(algorithm: algorithm, formats: formats(of: try imageFormats(root, algorithm)))
        guard !isDryRun else { return MetadataRepair(fault: fault, metadata: metadata, setAside: nil) }
        // A handle with the properties that are about to be written: it moves the damaged file.
        let handle = Repository(path: path, root: root, metadata: metadata, isSecure: isSecure, options: options)
        try handle.requireTrustedOwner()
        // The damaged file gets a second name before it is replaced, so that no interruption leaves the repository without a file.
        let copy = try handle.copyAside(Layout.metadata)
        try replaceMetadata(metadata.serialized(), algorithm, handle.root, path, isSecure: isSecure, options.signer)
        return MetadataRepair(fault: fault, metadata: metadata, setAside: copy)
    }

    /// The fault of the file; nil if it has none.
    private static func metadataFault(_ root: borrowing RootedDirectory) throws(RepositoryError) -> MetadataFault? {
        let bytes: [UInt8]?
        do throws(RepositoryError) {
            bytes = try metadataBytes(root)
        } catch {
            switch error {
            case .metadata(let fault): return fault
            case .system(let error) where isLost(error) || error.errno == .tooManySymbolicLinks: return .unreadable(error)
            default: throw error
            }
        }
        guard let bytes else { return .missing }
        do throws(RepositoryError) {
            let metadata = try RepositoryMetadata(parsing: bytes)
            // A repository of a newer release is not damaged.
            try metadata.checkReadable()
            if let (_, algorithm) = try firstObject(root), algorithm != metadata.algorithm {
                return .algorithmMismatch(recorded: metadata.algorithm, found: algorithm)
            }
        } catch {
            guard case .metadata(let fault) = error else { throw error }
            return fault
        }
        guard let fault = RepositoryMetadata.faults(in: bytes).first else { return nil }
        // A feature of a newer release is not damage, and must not be lost.
        if let metadata = try? RepositoryMetadata(parsing: bytes), !metadata.unknownReadOnlyCompatible.isEmpty,
            metadata.readOnlyCompatible.contains(RepositoryMetadata.v1Feature) || metadata.formats.default != .v1
        {
            throw .readOnly(.unknownFeatures(metadata.unknownReadOnlyCompatible))
        }
        return fault
    }

    /// The formats of the repository's EROFS images.
    ///
    /// - Parameter isThorough: count only images that match their names. Otherwise only the first block of each is read.
    static func imageFormats(
        _ root: borrowing RootedDirectory, _ algorithm: VerityAlgorithm, isThorough: Bool = true
    ) throws(RepositoryError) -> Set<ErofsVersion> {
        var found: Set<ErofsVersion> = []
        for entry in try entries(of: Layout.images, in: root) ?? [] {
            guard let id = ObjectID(hex: entry.name.bytes), id.algorithm == algorithm,
                let file = try? root.open(at: Layout.objectPath(id), [.readOnly, .noFollow, .nonBlocking])
            else { continue }
            if isThorough {
                guard let bytes = try? file.readAll(limit: imageLimit),
                    bytes.withUnsafeBytes({ VerityHasher.objectID(of: $0, algorithm) }) == id,
                    let image = try? ErofsImage(bytes, algorithm: algorithm)
                else { continue }
                found.insert(image.version)
            } else if let version = firstBlock(file).flatMap({ ErofsVersion(firstBlock: $0) }) {
                found.insert(version)
            }
        }
        return found
    }

    private static func firstBlock(_ file: borrowing FileDescriptor) -> [UInt8]? {
        var block = [UInt8](repeating: 0, count: 4096)
        let count = block.withUnsafeMutableBytes { (buffer) -> Int? in try? file.read(into: buffer) }
        return count == block.count ? block : nil
    }

    /// A single format is the default. Of several, 1 is the default if it is among them, and the others are extra formats. Without any, the
    /// library's default.
    static func formats(of found: Set<ErofsVersion>) -> ErofsFormats {
        let order: [ErofsVersion] = [.v1, .v0, .v2]
        let all = order.filter(found.contains)
        guard let first = all.first else { return ErofsFormats(default: .v1) }
        return ErofsFormats(default: first, extra: Array(all.dropFirst()).sorted { $0.rawValue < $1.rawValue })
    }

    /// Gives a file that is about to be replaced a second name in `.damaged/`; a directory is moved there.
    private func copyAside(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        guard let status = try status(at: path) else { return nil }
        if status.kind == .directory { return try setAside(path) }
        try makeDirectory(Layout.damaged, mode: 0o755)
        let target = Layout.damaged + "/" + path + "." + ByteString(Host.randomName(12))
        try system { () throws(SystemError) in try root.link(at: path, to: target) }
        return target
    }
}
