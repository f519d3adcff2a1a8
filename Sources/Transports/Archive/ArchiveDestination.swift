package import ComposefsBytes
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
    private let output: Output
    private let spools: BlobSpools
    private let state = Mutex(State())
    public let displayName: String
    public var registryReference: RegistryReference? { nil }

    private typealias Writer = (UnsafeRawBufferPointer) throws -> Void

    private enum Output: Sendable {
        case file(ByteString, in: SharedDirectory)
        case stream(@Sendable (UnsafeRawBufferPointer) throws -> Void)
    }

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
        let directory = SharedDirectory(descriptor: try FileDescriptor.open(parent, [.readOnly, .directory]))
        if let status = try directory.descriptor.statusIfPresent(at: fileName, follow: true), status.kind != .regular {
            throw OCIError.unsupported(document: path.description, .destinationNotRegular)
        }
        PendingFile.removeAbandoned(in: directory.descriptor, Self.naming(fileName))
        spools = try BlobSpools(in: directory)
        output = .file(fileName, in: directory)
    }

    /// The destination that `oci-archive:-[:NAME]` names. `finish` writes the archive; before it nothing is written.
    ///
    /// - Parameters:
    ///   - location: for the name of the image.
    ///   - scratch: the directory of the unnamed files.
    ///   - write: called with consecutive bytes. The memory is valid only during the call.
    /// - Throws: `OCIError` if NAME is not a valid name; `SystemError`.
    package init(
        stream location: ImageLocation, scratch: ByteString, _ write: @escaping @Sendable (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        name = try LayoutIndex.writtenName(try location.located().name, in: location)
        displayName = "oci-archive:-" + (name.map { ":" + $0 } ?? "")
        spools = try BlobSpools(in: SharedDirectory(descriptor: try FileDescriptor.open(scratch, [.readOnly, .directory])))
        output = .stream(write)
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

    public func putIndex(_ index: ImageIndex, digest: ContentDigest, isNamed: Bool) throws {
        let blob = Descriptor(mediaType: index.mediaType, digest: digest, size: UInt64(index.bytes.count))
        if !hasBlob(blob) { _ = try putBlob(OutgoingBlob(index.bytes, digest: digest)) }
        guard isNamed || index.subject != nil else { return }
        let name = isNamed ? name : nil
        state.withLock { $0.index.add(index, blob, name: name, isReferrer: !isNamed) }
    }

    // MARK: The archive

    public func finish() throws {
        switch output {
        case .stream(let write): try self.write(write)
        case .file(let fileName, let directory):
            var archive = try PendingFile(in: directory.descriptor, Self.naming(fileName))
            do {
                let file = try archive.file.duplicate()
                try write { try file.writeAll($0) }
                try archive.publish(in: directory.descriptor, as: fileName)
            } catch {
                archive.abandon(in: directory.descriptor)
                throw error
            }
            try directory.descriptor.sync()
        }
    }

    private func write(_ archive: Writer) throws {
        let (blobs, index) = state.withLock { ($0.blobs, $0.index) }
        try add("oci-layout", LayoutIndex.marker, archive)
        try add("index.json", index.bytes, archive)
        try write(TarHeaderWriter.directory("blobs/"), archive)
        for algorithm in DigestAlgorithm.allCases {
            let sorted = blobs.filter { $0.key.algorithm == algorithm }.sorted { $0.key.hex < $1.key.hex }
            guard !sorted.isEmpty else { continue }
            let parent = ByteString("blobs/\(algorithm.rawValue)/")
            try write(TarHeaderWriter.directory(parent), archive)
            for (digest, location) in sorted { try add(parent + ByteString(digest.hex), digest, location, archive) }
        }
        try write([UInt8](repeating: 0, count: 2 * TarHeaderWriter.blockSize), archive)
    }

    private func write(_ bytes: [UInt8], _ archive: Writer) throws { try bytes.withUnsafeBytes { try archive($0) } }

    private func add(_ name: ByteString, _ bytes: [UInt8], _ archive: Writer) throws {
        try write(TarHeaderWriter.file(name, size: UInt64(bytes.count)), archive)
        try write(bytes + TarHeaderWriter.padding(UInt64(bytes.count)), archive)
    }

    private func add(_ name: ByteString, _ digest: ContentDigest, _ location: BlobSpools.Location, _ archive: Writer) throws {
        try write(TarHeaderWriter.file(name, size: location.size), archive)
        var check = BlobCheck(SentBlob(digest: digest, size: location.size))
        try spools.read(location) { bytes in
            check.update(bytes)
            try archive(bytes)
        }
        _ = try check.finish()
        try write(TarHeaderWriter.padding(location.size), archive)
    }
}
