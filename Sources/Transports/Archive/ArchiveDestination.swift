import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
public import ComposefsOCIModel
import Synchronization

/// A tar archive of an OCI image layout (image-spec image-layout.md).
///
/// Blobs are stored in unnamed files in the archive's directory until the last one has arrived. `finish` then writes the archive and gives
/// it its name in one step. An existing archive of that name is replaced.
///
/// Until then no file has a name, and no path is looked up twice, so other users who can write to the directory cannot exchange a file.
/// Each blob is verified again while it is copied into the archive.
///
/// Entries have a fixed order and neither times nor owners: the same image always results in the same archive.
public final class ArchiveDestination: ImageDestination {
    /// The name of the image in the archive; nil for an image without one.
    private let name: String?
    private let directory: SharedDirectory
    private let fileName: ByteString
    private let spools: BlobSpools
    private let state = Mutex(State())
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    private struct State {
        var blobs: [ContentDigest: BlobSpools.Location] = [:]
        var index = LayoutIndexDocument()
    }

    /// Opens the destination that `oci-archive:FILE[:NAME]` names.
    ///
    /// - Throws: `OCIError` if FILE is not a regular file or NAME is not a valid name; `SystemError`.
    public init(_ location: ImageLocation) throws {
        let (path, name) = try location.located()
        self.name = try LayoutIndex.writtenName(name, in: location)
        displayName = "oci-archive:\(path)" + (self.name.map { ":" + $0 } ?? "")
        let (parent, fileName) = FileDescriptor.split(path)
        self.fileName = fileName
        directory = SharedDirectory(descriptor: try FileDescriptor.open(parent, [.readOnly, .directory]))
        if let status = try directory.descriptor.statusIfPresent(at: fileName, follow: true), status.kind != .regular {
            throw OCIError.unsupported(document: path.description, .destinationNotRegular)
        }
        PendingFile.removeAbandoned(in: directory.descriptor, Self.naming(fileName))
        spools = try BlobSpools(in: directory)
    }

    /// The prefix is cut so that the whole name has at most 255 bytes (NAME_MAX).
    private static func naming(_ fileName: ByteString) -> PendingFile.Naming {
        PendingFile.Naming(prefix: ByteString(fileName.bytes.prefix(200)) + ".tmp-", suffix: ".tar")
    }

    // MARK: Blobs and manifests

    public func hasBlob(_ blob: Descriptor) -> Bool { state.withLock { $0.blobs[blob.digest]?.size == blob.size } }
    public func mountBlob(_ blob: Descriptor, from source: RegistryReference) -> Bool { false }
    public var takesDockerFormat: Bool { false }

    public func putBlob(_ blob: OutgoingBlob) throws -> SentBlob {
        let (sent, location) = try spools.write(blob)
        state.withLock { $0.blobs[sent.digest] = location }
        return sent
    }

    public func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        let blob = Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count))
        if !hasBlob(blob) { _ = try putBlob(OutgoingBlob(manifest.bytes, digest: digest)) }
        // Readers find referrers through index.json only.
        guard isNamed || manifest.subject != nil else { return }
        let name = isNamed ? name : nil
        state.withLock { $0.index.add(manifest, blob, name: name, isReferrer: !isNamed) }
    }

    // MARK: The archive

    public func finish() throws {
        var archive = try PendingFile(in: directory.descriptor, Self.naming(fileName))
        do {
            try write(archive.file)
            try archive.publish(in: directory.descriptor, as: fileName)
        } catch {
            archive.abandon(in: directory.descriptor)
            throw error
        }
        try directory.descriptor.sync()
    }

    private func write(_ archive: borrowing FileDescriptor) throws {
        let (blobs, index) = state.withLock { ($0.blobs, $0.index) }
        try add("oci-layout", LayoutIndex.marker, archive)
        try add("index.json", index.bytes, archive)
        try archive.writeAll(TarHeaderWriter.directory("blobs/"))
        for algorithm in DigestAlgorithm.allCases {
            let sorted = blobs.filter { $0.key.algorithm == algorithm }.sorted { $0.key.hex < $1.key.hex }
            guard !sorted.isEmpty else { continue }
            let parent = ByteString("blobs/\(algorithm.rawValue)/")
            try archive.writeAll(TarHeaderWriter.directory(parent))
            for (digest, location) in sorted { try add(parent + ByteString(digest.hex), digest, location, archive) }
        }
        try archive.writeAll([UInt8](repeating: 0, count: 2 * TarHeaderWriter.blockSize))
    }

    private func add(_ name: ByteString, _ bytes: [UInt8], _ archive: borrowing FileDescriptor) throws {
        try archive.writeAll(TarHeaderWriter.file(name, size: UInt64(bytes.count)))
        try archive.writeAll(bytes + TarHeaderWriter.padding(UInt64(bytes.count)))
    }

    private func add(
        _ name: ByteString, _ digest: ContentDigest, _ location: BlobSpools.Location, _ archive: borrowing FileDescriptor
    ) throws {
        try archive.writeAll(TarHeaderWriter.file(name, size: location.size))
        var check = BlobCheck(SentBlob(digest: digest, size: location.size))
        try spools.read(location) { bytes in
            check.update(bytes)
            try archive.writeAll(bytes)
        }
        _ = try check.finish()
        try archive.writeAll(TarHeaderWriter.padding(location.size))
    }
}
