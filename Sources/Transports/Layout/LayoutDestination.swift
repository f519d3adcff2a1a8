import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// An OCI image layout in a directory (image-spec image-layout.md). The directory is created if it does not exist. Other images of the
/// layout stay.
///
/// A blob gets its name when it is complete and verified. `index.json` is replaced last, in one step, after everything is durable. So the
/// layout is valid at every moment, for readers and after a crash.
///
/// The path of the directory is resolved once. Names below it are opened relative to their directory, and symbolic links are not followed,
/// so links of other users have no effect.
public final class LayoutDestination: ImageDestination {
    /// The name of the image in the layout; nil for an image without one.
    private let name: String?
    private let path: ByteString
    private let directory: SharedDirectory
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    private static let naming = PendingFile.Naming(prefix: ".tmp-")

    /// Opens or creates the layout that `oci:DIR[:NAME]` names.
    ///
    /// - Throws: `OCIError` if the directory is not empty and not a layout, or if the name is not valid in a layout; `SystemError`.
    public init(directory location: ImageLocation) throws {
        let (path, name) = try location.located()
        self.name = try LayoutIndex.writtenName(name, in: location)
        self.path = path
        displayName = "oci:\(path)" + (self.name.map { ":" + $0 } ?? "")
        let isMade = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o755)
        let directory = try FileDescriptor.openDirectoryToWrite(path)
        if isMade, try directory.status().uid != Host.effectiveUserID {
            throw OCIError.damaged(source: path, .replacedDirectory)
        }
        self.directory = SharedDirectory(descriptor: directory)
        try prepare()
    }

    /// Makes the directory a layout, and removes temporary files of exports that were killed. The directory is locked, because another
    /// export may have created it at the same time.
    private func prepare() throws {
        let lock = try lockDirectory()
        defer { try? lock.unlock() }
        PendingFile.removeAbandoned(in: lock, Self.naming)
        if let marker = try read("oci-layout", limit: 4096) {
            try LayoutSource.checkMarker(marker, source: path)
            for algorithm in DigestAlgorithm.allCases {
                if let blobs = try openBlobs(algorithm) { PendingFile.removeAbandoned(in: blobs, Self.naming) }
            }
        } else {
            // Temporary files of other exports do not count.
            guard try lock.entries().allSatisfy({ Self.naming.matches($0.name) }) else {
                throw OCIError.unsupported(document: path.description, .destinationNotLayout)
            }
            // A layout that has its marker has a durable name, whether this export or one that was killed made the directory.
            try lock.syncName()
            // Written first, and durably, so that an interrupted export leaves a layout that the next one can use: a directory with blobs
            // and without the marker is refused.
            try write("oci-layout", LayoutIndex.marker)
            try lock.sync()
        }
        if try read("index.json", limit: LayoutIndexDocument.limit) == nil { try write("index.json", LayoutIndexDocument().bytes) }
    }

    /// Locks the directory. The lock ends when the returned descriptor is closed.
    private func lockDirectory() throws -> FileDescriptor {
        let lock = try directory.descriptor.open(at: ".", [.readOnly, .directory])
        try lock.lock(.exclusive)
        return lock
    }

    // MARK: Files

    /// Reads a regular file in the directory itself; nil if it does not exist.
    private func read(_ name: ByteString, limit: Int) throws -> [UInt8]? {
        guard let file = try open(name, in: directory.descriptor, name) else { return nil }
        let size = try file.status().size
        guard size <= UInt64(limit) else {
            throw OCIError.damaged(source: path, .fileTooLarge(name, size: size, limit: limit))
        }
        return try file.readAll(limit: limit)
    }

    /// Opens a regular file, or a directory if `flags` say so; nil if it does not exist.
    ///
    /// - Parameter location: the path relative to the layout's directory, for messages.
    private func open(
        _ name: ByteString, in directory: borrowing FileDescriptor, _ location: ByteString, _ flags: OpenFlags = []
    ) throws -> FileDescriptor? {
        let file: FileDescriptor?
        do throws(SystemError) {
            file = try directory.openIfPresent(at: name, [.readOnly, .noFollow, .nonBlocking, flags])
        } catch {
            switch error.errno {
            case .tooManySymbolicLinks, .notDirectory:
                let isLink = try directory.statusIfPresent(at: name)?.kind == .symbolicLink
                throw OCIError.damaged(source: path, isLink ? .symbolicLink(location) : .notDirectory(location))
            default: throw error
            }
        }
        guard let file else { return nil }
        guard try file.status().kind == (flags.contains(.directory) ? .directory : .regular) else {
            throw OCIError.damaged(source: path, flags.contains(.directory) ? .notDirectory(location) : .notRegularFile(location))
        }
        return file
    }

    private func write(_ name: ByteString, _ bytes: [UInt8]) throws {
        try write(in: directory.descriptor) { file in
            try file.writeAll(bytes)
            return (name, ())
        }
    }

    /// Writes a file, which gets the name that `body` returns when it is complete. If `body` throws, the file is removed.
    private func write<Value>(
        in parent: borrowing FileDescriptor, _ body: (borrowing FileDescriptor) throws -> (name: ByteString, Value)
    ) throws -> Value {
        var pending = try PendingFile(in: parent, Self.naming)
        do {
            let (name, value) = try body(pending.file)
            try pending.publish(in: parent, as: name)
            return value
        } catch {
            pending.abandon(in: parent)
            throw error
        }
    }

    // MARK: Blobs

    /// The directory of an algorithm's blobs; nil if it does not exist.
    private func openBlobs(_ algorithm: DigestAlgorithm) throws -> FileDescriptor? {
        guard let blobs = try open("blobs", in: directory.descriptor, "blobs", .directory) else { return nil }
        let name = ByteString(algorithm.rawValue)
        return try open(name, in: blobs, "blobs/" + name, .directory)
    }

    private func makeBlobs(_ algorithm: DigestAlgorithm) throws -> FileDescriptor {
        try directory.descriptor.makeDirectoryIfMissing(at: "blobs", mode: 0o755)
        let name = ByteString(algorithm.rawValue)
        if let blobs = try open("blobs", in: directory.descriptor, "blobs", .directory) {
            try blobs.makeDirectoryIfMissing(at: name, mode: 0o755)
        }
        guard let directory = try openBlobs(algorithm) else {
            throw OCIError.damaged(source: path, .removedDirectory("blobs/" + name))
        }
        return directory
    }

    /// Whether the layout has the blob undamaged. A damaged blob is written again.
    ///
    /// The file is synced and then read from the device, not from the page cache. The program that wrote it may not have synced it, or a
    /// write error may have been reported to another process, and then the page cache differs from the device.
    public func hasBlob(_ blob: Descriptor) throws -> Bool {
        let name = ByteString(blob.digest.hex)
        guard let blobs = try openBlobs(blob.digest.algorithm), let status = try blobs.statusIfPresent(at: name), status.kind == .regular,
            status.size == blob.size
        else { return false }
        var hasher = DigestHasher(blob.digest.algorithm)
        do throws(SystemError) {
            let file = try blobs.openOnDevice(at: name)
            try file.syncData()
            try file.readFromDevice { hasher.update($0) }
        } catch {
            // The file cannot be read or written, or another kind of file has its name.
            switch error.errno {
            case .inputOutput, .noEntry, .invalidArgument, .tooManySymbolicLinks: return false
            default: throw error
            }
        }
        return hasher.finalize() == blob.digest
    }

    public func mountBlob(_ blob: Descriptor, from source: RegistryReference) -> Bool { false }
    public var takesDockerFormat: Bool { false }

    public func putBlob(_ blob: OutgoingBlob) throws -> SentBlob {
        var check = BlobCheck(blob.expected)
        return try write(in: try makeBlobs(blob.expected?.digest.algorithm ?? .sha256)) { file in
            try blob.produce { bytes in
                check.update(bytes)
                try file.writeAll(bytes)
            }
            let sent = try check.finish()
            return (ByteString(sent.digest.hex), sent)
        }
    }

    // MARK: Manifests

    public func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        let blob = Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count))
        if try !hasBlob(blob) { _ = try putBlob(OutgoingBlob(manifest.bytes, digest: digest)) }
        // Readers find referrers through index.json only.
        guard isNamed || manifest.subject != nil else { return }
        try changeIndex { $0.add(manifest, blob, name: isNamed ? name : nil, isReferrer: !isNamed) }
    }

    public func putIndex(_ index: ImageIndex, digest: ContentDigest, isNamed: Bool) throws {
        let blob = Descriptor(mediaType: index.mediaType, digest: digest, size: UInt64(index.bytes.count))
        if try !hasBlob(blob) { _ = try putBlob(OutgoingBlob(index.bytes, digest: digest)) }
        guard isNamed || index.subject != nil else { return }
        try changeIndex { $0.add(index, blob, name: isNamed ? name : nil, isReferrer: !isNamed) }
    }

    private func changeIndex(_ change: (inout LayoutIndexDocument) -> Void) throws {
        // Two exports into one layout must not overwrite each other's entries.
        let lock = try lockDirectory()
        var index = LayoutIndexDocument()
        if let bytes = try read("index.json", limit: LayoutIndexDocument.limit) {
            index = try LayoutIndexDocument(parsing: bytes, name: "\(path)/index.json")
        }
        change(&index)
        try syncDirectories()
        try write("index.json", index.bytes)
        try lock.sync()
    }

    /// Syncs the names of blobs. Their data has been synced before.
    private func syncDirectories() throws {
        for algorithm in DigestAlgorithm.allCases { if let blobs = try openBlobs(algorithm) { try blobs.sync() } }
        if let blobs = try open("blobs", in: directory.descriptor, "blobs", .directory) { try blobs.sync() }
        try directory.descriptor.sync()
    }

    public func finish() {}
}
