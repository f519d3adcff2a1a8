public import ComposefsBytes
internal import ComposefsEROFS
internal import ComposefsHashing
internal import ComposefsLinuxSystem

extension Repository {
    /// A `meta.json` that was damaged, and what takes its place.
    public struct MetadataRepair: Sendable {
        /// What was wrong.
        public var fault: MetadataFault
        /// What the repository is, by its objects and images.
        public var metadata: RepositoryMetadata
        /// Where the damaged file is now; nil where there was none, and where nothing was written.
        public var setAside: ByteString?
    }

    /// Makes `meta.json` anew where it is missing, cannot be read, or is not what any writer writes: the algorithm from the objects' names,
    /// formats from what is readable of the file, else from the EROFS images that are here; fs-verity where the objects have it.
    ///
    /// The damaged file is set aside. Does nothing for a file that can be believed.
    ///
    /// - Parameter isDryRun: only say what would be done.
    /// - Throws: `RepositoryError.noObjects` where nothing tells what the repository was, `.unsupportedVersion`, `.incompatibleFeatures` where it
    ///   is of a newer release.
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
        // The handle serves for moving the damaged file away: what it believes of the repository is what is written then.
        let handle = Repository(path: path, root: root, metadata: metadata, isSecure: isSecure, options: options)
        try handle.requireTrustedOwner()
        // The new file is there before the damaged one goes, so that no interruption leaves none.
        let copy = try handle.copyAside(Layout.metadata)
        try replaceMetadata(metadata.serialized(), algorithm, handle.root, path, isSecure: isSecure, options.signer)
        return MetadataRepair(fault: fault, metadata: metadata, setAside: copy)
    }

    /// What is wrong with the file; nil where nothing is.
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
            // A newer release's repository is no damaged one.
            try metadata.checkReadable()
            if let (_, algorithm) = try firstObject(root), algorithm != metadata.algorithm {
                return .algorithmMismatch(recorded: metadata.algorithm, found: algorithm)
            }
        } catch {
            guard case .metadata(let fault) = error else { throw error }
            return fault
        }
        guard let fault = RepositoryMetadata.faults(in: bytes).first else { return nil }
        // A feature of a newer release is no damage, and must not be lost.
        if let metadata = try? RepositoryMetadata(parsing: bytes), !metadata.unknownReadOnlyCompatible.isEmpty,
            metadata.readOnlyCompatible.contains(RepositoryMetadata.v1Feature) || metadata.formats.default != .v1
        {
            throw .readOnly(.unknownFeatures(metadata.unknownReadOnlyCompatible))
        }
        return fault
    }

    /// The formats of the EROFS images here.
    ///
    /// - Parameter isThorough: only count images whose content is what their names say. Otherwise only their first blocks are read.
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

    /// One format is the default, and 1 where it is one of several; the others are made besides. The library's default where there is none.
    static func formats(of found: Set<ErofsVersion>) -> ErofsFormats {
        let order: [ErofsVersion] = [.v1, .v0, .v2]
        let all = order.filter(found.contains)
        guard let first = all.first else { return ErofsFormats(default: .v1) }
        return ErofsFormats(default: first, extra: Array(all.dropFirst()).sorted { $0.rawValue < $1.rawValue })
    }

    /// A second name in `.damaged/` for what is about to be replaced; what is no file or link is moved there.
    private func copyAside(_ path: ByteString) throws(RepositoryError) -> ByteString? {
        guard let status = try status(at: path) else { return nil }
        if status.kind == .directory { return try setAside(path) }
        try makeDirectory(Layout.damaged, mode: 0o755)
        let target = Layout.damaged + "/" + path + "." + ByteString(Host.randomName(12))
        try system { () throws(SystemError) in try root.link(at: path, to: target) }
        return target
    }
}
