import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel

/// An OCI image layout in a directory (image-spec image-layout.md), made where it is missing. What other images the layout has, stays.
///
/// Blobs get their names when they are complete and verified; `index.json` is replaced last, in one step, after everything is durable. A
/// layout that is read meanwhile, or whose export was killed, is a whole one at every moment.
///
/// The directory is found once. Below it every name is opened from the directory that holds it and no symbolic link is followed: one that
/// another user put there leads nowhere.
public final class LayoutDestination: ImageDestination {
    /// The name of the image in the layout; nil for an image without one.
    private let name: String?
    private let path: ByteString
    private let directory: SharedDirectory
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    private static let naming = PendingFile.Naming(prefix: ".tmp-")

    /// `oci:DIR[:NAME]`
    ///
    /// - Throws: `OCIError` where the directory holds something else than a layout, or the name can be no layout's; `SystemError`.
    public init(directory location: ImageLocation) throws {
        let (path, name) = try location.located()
        self.name = try LayoutIndex.writtenName(name, in: location)
        self.path = path
        displayName = "oci:\(path)" + (self.name.map { ":" + $0 } ?? "")
        let isMade = try FileDescriptor.currentDirectory.makeDirectoryIfMissing(at: path, mode: 0o755)
        let directory = try FileDescriptor.openDirectoryToWrite(path)
        if isMade, try directory.status().uid != Host.effectiveUserID {
            throw OCIError.damaged(source: path, "another user has put a directory in the place of the one that was made")
        }
        self.directory = SharedDirectory(descriptor: directory)
        try prepare()
    }

    /// Makes the directory a layout and removes what exports have left in it that were killed. One export at a time: another one may have
    /// made the directory just now.
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
            // Other exports' files that have passing names are not there for long.
            guard try lock.entries().allSatisfy({ Self.naming.matches($0.name) }) else {
                throw OCIError.unsupported(
                    document: path.description, "is a directory with something else than an OCI layout in it; name a new or empty one")
            }
            // First of all, so that what is left of an export that fails is a layout that the next one goes on with.
            try write("oci-layout", LayoutIndex.marker)
        }
        if try read("index.json", limit: LayoutIndexDocument.limit) == nil { try write("index.json", LayoutIndexDocument().bytes) }
    }

    /// The directory, locked as long as the descriptor is open.
    private func lockDirectory() throws -> FileDescriptor {
        let lock = try directory.descriptor.open(at: ".", [.readOnly, .directory])
        try lock.lock(.exclusive)
        return lock
    }

    // MARK: Files

    /// A regular file of the directory itself; nil if there is none.
    private func read(_ name: ByteString, limit: Int) throws -> [UInt8]? {
        guard let file = try open(name, in: directory.descriptor, name) else { return nil }
        let size = try file.status().size
        guard size <= UInt64(limit) else {
            throw OCIError.damaged(source: path, "\(name) has \(size) bytes; at most \(limit) are read")
        }
        return try file.readAll(limit: limit)
    }

    /// - Parameter place: the name from the layout's directory on, for messages.
    private func open(
        _ name: ByteString, in directory: borrowing FileDescriptor, _ place: ByteString, _ flags: OpenFlags = []
    ) throws -> FileDescriptor? {
        let file: FileDescriptor?
        do throws(SystemError) {
            file = try directory.openIfPresent(at: name, [.readOnly, .noFollow, .nonBlocking, flags])
        } catch {
            switch error.errno {
            case .tooManySymbolicLinks, .notDirectory:
                let isLink = try directory.statusIfPresent(at: name)?.kind == .symbolicLink
                throw OCIError.damaged(
                    source: path, "\(place) is \(isLink ? "a symbolic link, and none is followed here" : "no directory")")
            default: throw error
            }
        }
        guard let file else { return nil }
        guard try file.status().kind == (flags.contains(.directory) ? .directory : .regular) else {
            throw OCIError.damaged(source: path, "\(place) is no regular file")
        }
        return file
    }

    private func write(_ name: ByteString, _ bytes: [UInt8]) throws {
        try write(in: directory.descriptor) { file in
            try file.writeAll(bytes)
            return (name, ())
        }
    }

    /// A file that gets its name, which `body` returns, when it is complete; nothing is left of one that is not.
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

    /// The directory of an algorithm's blobs; nil if it is missing.
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
            throw OCIError.damaged(source: path, "another program removes blobs/\(name) while the image is written")
        }
        return directory
    }

    /// A blob counts as there when its bytes are right: a damaged one is written anew.
    ///
    /// It is read from the device, after what is still to be written has been: whoever wrote it may have synced nothing, or may have been told
    /// that it is lost, and the page cache does not know.
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
            // It cannot be read, or not be written; or something else has taken its place.
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
        // A referrer is found by looking through index.json.
        guard isNamed || manifest.subject != nil else { return }
        try addToIndex(manifest, blob, name: isNamed ? name : nil, isReferrer: !isNamed)
    }

    private func addToIndex(_ manifest: Manifest, _ blob: Descriptor, name: String?, isReferrer: Bool) throws {
        // Two that write different images into one layout must not lose one.
        let lock = try lockDirectory()
        var index = LayoutIndexDocument()
        if let bytes = try read("index.json", limit: LayoutIndexDocument.limit) {
            index = try LayoutIndexDocument(parsing: bytes, name: "\(path)/index.json")
        }
        index.add(manifest, blob, name: name, isReferrer: isReferrer)
        try syncDirectories()
        try write("index.json", index.bytes)
        try lock.sync()
    }

    /// The blobs' own data is synced by then; their names are not.
    private func syncDirectories() throws {
        for algorithm in DigestAlgorithm.allCases { if let blobs = try openBlobs(algorithm) { try blobs.sync() } }
        if let blobs = try open("blobs", in: directory.descriptor, "blobs", .directory) { try blobs.sync() }
        try directory.descriptor.sync()
    }

    public func finish() {}
}
