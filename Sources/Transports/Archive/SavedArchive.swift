public import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import ComposefsOCIModel
import Synchronization

/// Writes several images into one archive: a tar archive of an OCI layout that docker and podman load, too.
///
/// The archive is written from beginning to end, so it may go into a pipe. A blob whose digest and size are known is passed on at once; any
/// other is first written to an unnamed file, because its size comes before its content. Each blob is there once, however many images have
/// it. The files that list the images come last: without them, an archive that was cut off is none.
///
/// Entries have neither times nor owners. If one image after the other is pushed, and one layer after the other, the same images give the
/// same bytes.
///
/// Use: `destination(named:)` for each image, a push to it, and `finish()` at the end.
public final class SavedArchive: Sendable {
    /// Which tools find the images. The raw value is the name of the transport.
    public enum Format: String, Sendable, Hashable, CaseIterable {
        /// Those that load what docker has saved since version 25: a layout with an additional manifest.json, which older versions,
        /// podman and skopeo read. Only images, no artifacts.
        case docker = "docker-archive"
        /// Those that read OCI layouts.
        case oci = "oci-archive"
    }

    /// The destination of the archive.
    public enum Target: Sendable {
        /// A file, which appears or is replaced when the archive is complete.
        case file(ByteString)
        /// A stream: called with consecutive bytes. The memory is valid only during the call. Layers that are compressed are first written
        /// to unnamed files in the directory `scratch`.
        case stream(scratch: ByteString, @Sendable (UnsafeRawBufferPointer) throws -> Void)
    }

    /// The format of the archive.
    public let format: Format
    let displayName: String
    private let output: Output
    /// The directory of unnamed files.
    private let scratch: SharedDirectory
    private let state = Mutex(State())

    /// The archive's file, which has no name yet, or a stream.
    private enum Output: Sendable {
        case file(SharedFile, in: SharedDirectory, name: ByteString)
        case stream(@Sendable (UnsafeRawBufferPointer) throws -> Void)
    }

    /// A file under construction. It is published or abandoned once.
    private final class SharedFile: Sendable {
        let descriptor: FileDescriptor
        private let pending: Mutex<PendingFile>

        init(_ file: consuming PendingFile) throws(SystemError) {
            let descriptor = try file.file.duplicate()
            self.descriptor = descriptor
            pending = Mutex(file)
        }

        func publish(in directory: borrowing FileDescriptor, as name: ByteString) throws {
            try pending.withLock { try $0.publish(in: directory, as: name) }
        }

        func abandon(in directory: borrowing FileDescriptor) { pending.withLock { $0.abandon(in: directory) } }
    }

    fileprivate struct State {
        var sizes: [ContentDigest: UInt64] = [:]
        var directories: Set<ByteString> = []
        var index = LayoutIndexDocument()
        var listed: [ListedImage] = []
        /// Set when an entry was not completed. Nothing can follow it.
        var failure: (any Error)?
        var isFinished = false
    }

    /// An entry of manifest.json.
    fileprivate struct ListedImage {
        var digest: ContentDigest
        var config: ContentDigest
        var layers: [ContentDigest]
        var tags: [String]
    }

    /// Opens the target.
    ///
    /// - Parameters:
    ///   - target: the file or stream.
    ///   - format: which tools find the images.
    /// - Throws: `OCIError` if the target exists and is not a regular file; `SystemError`.
    public init(_ target: Target, format: Format) throws {
        self.format = format
        switch target {
        case .stream(let scratch, let write):
            output = .stream(write)
            displayName = format.rawValue + ":-"
            self.scratch = SharedDirectory(descriptor: try FileDescriptor.open(scratch, [.readOnly, .directory]))
        case .file(let path):
            let (parent, name) = FileDescriptor.split(path)
            let directory = SharedDirectory(descriptor: try FileDescriptor.open(parent, [.readOnly, .directory]))
            if let status = try directory.descriptor.statusIfPresent(at: name, follow: true), status.kind != .regular {
                throw OCIError.unsupported(document: path.description, .destinationNotRegular)
            }
            PendingFile.removeAbandoned(in: directory.descriptor, Self.naming(name))
            let file = try SharedFile(try PendingFile(in: directory.descriptor, Self.naming(name)))
            output = .file(file, in: directory, name: name)
            displayName = "\(format.rawValue):\(path)"
            scratch = directory
        }
    }

    deinit {
        guard case .file(let file, let directory, _) = output, !state.withLock({ $0.isFinished }) else { return }
        file.abandon(in: directory.descriptor)
    }

    /// The prefix is cut so that the whole name has at most 255 bytes (NAME_MAX).
    private static func naming(_ fileName: ByteString) -> PendingFile.Naming {
        PendingFile.Naming(prefix: ByteString(fileName.bytes.prefix(200)) + ".tmp-", suffix: ".tar")
    }

    /// The destination for one image.
    ///
    /// - Parameter names: what the image is called in the archive. Names that are no references of a registry are not in manifest.json.
    /// - Throws: `OCIError.invalidReference` if a name is not valid in a layout.
    public func destination(named names: [String]) throws -> any ImageDestination {
        for name in names {
            if let fault = LayoutIndex.fault(inName: name) { throw OCIError.invalidReference(ByteString(name), .invalidName(fault)) }
        }
        return SavedImage(archive: self, names: names)
    }

    /// Writes the files that list the images, and publishes the archive.
    ///
    /// - Throws: `SystemError`, the error of an earlier entry, and what the stream throws.
    public func finish() throws {
        try state.withLock { state in
            try Self.entry(&state) { state in
                try write("oci-layout", LayoutIndex.marker, &state)
                try write("index.json", state.index.bytes, &state)
                if format == .docker { try write("manifest.json", Self.manifestList(state.listed), &state) }
                try write([UInt8](repeating: 0, count: 2 * TarHeaderWriter.blockSize))
            }
            if case .file(let file, let directory, let name) = output {
                try file.publish(in: directory.descriptor, as: name)
                state.isFinished = true
                try directory.descriptor.sync()
            }
            state.isFinished = true
        }
    }

    private static func manifestList(_ images: [ListedImage]) -> [UInt8] {
        func path(_ digest: ContentDigest) -> JSONValue { .string("blobs/\(digest.algorithm.rawValue)/\(digest.hex)") }
        let entries = images.map { image -> JSONValue in
            ["Config": path(image.config), "RepoTags": .array(image.tags.map { .string($0) }), "Layers": .array(image.layers.map(path))]
        }
        return JSONValue.array(entries).compactBytes
    }

    // MARK: Entries

    /// Runs `body`, which writes whole entries. After a failure nothing more is written.
    private static func entry(_ state: inout State, _ body: (inout State) throws -> Void) throws {
        if let failure = state.failure { throw failure }
        do {
            try body(&state)
        } catch {
            state.failure = error
            throw error
        }
    }

    private func write(_ bytes: UnsafeRawBufferPointer) throws {
        switch output {
        case .file(let file, _, _): try file.descriptor.writeAll(bytes)
        case .stream(let write): try write(bytes)
        }
    }

    private func write(_ bytes: [UInt8]) throws { try bytes.withUnsafeBytes { try write($0) } }

    private func write(_ name: ByteString, _ bytes: [UInt8], _ state: inout State) throws {
        try write(TarHeaderWriter.file(name, size: UInt64(bytes.count)))
        try write(bytes + TarHeaderWriter.padding(UInt64(bytes.count)))
    }

    /// Writes a blob whose digest and size are known, and verifies it.
    private func write(_ blob: SentBlob, _ produce: OutgoingBlob.Producer, _ state: inout State) throws {
        let directory = ByteString("blobs/\(blob.digest.algorithm.rawValue)/")
        for parent in ["blobs/", directory] where state.directories.insert(parent).inserted { try write(TarHeaderWriter.directory(parent)) }
        try write(TarHeaderWriter.file(directory + ByteString(blob.digest.hex), size: blob.size))
        var check = BlobCheck(blob)
        try produce { bytes in
            check.update(bytes)
            // More bytes than announced would be read as the next entry.
            if check.size > blob.size { _ = try check.finish() }
            try write(bytes)
        }
        _ = try check.finish()
        try write(TarHeaderWriter.padding(blob.size))
        state.sizes[blob.digest] = blob.size
    }

    // MARK: What an image's destination does

    fileprivate func hasBlob(_ blob: Descriptor) -> Bool { state.withLock { $0.sizes[blob.digest] == blob.size } }

    fileprivate func put(_ blob: OutgoingBlob) throws -> SentBlob {
        if let expected = blob.expected {
            try state.withLock { state in
                guard state.sizes[expected.digest] != expected.size else { return }
                try Self.entry(&state) { try write(expected, blob.produce, &$0) }
            }
            return expected
        }
        // A file of its own, whose space is free again afterwards.
        let spools = try BlobSpools(in: scratch)
        let (sent, location) = try spools.write(blob)
        try state.withLock { state in
            guard state.sizes[sent.digest] != sent.size else { return }
            try Self.entry(&state) { try write(sent, { try spools.read(location, $0) }, &$0) }
        }
        return sent
    }

    fileprivate func put(_ manifest: Manifest, _ digest: ContentDigest, names: [String]?) throws {
        let blob = Descriptor(mediaType: manifest.mediaType, digest: digest, size: UInt64(manifest.bytes.count))
        _ = try put(OutgoingBlob(manifest.bytes, digest: digest))
        guard let names else {
            // Readers find referrers through index.json only.
            if manifest.subject != nil { state.withLock { $0.index.add(manifest, blob, name: nil, isReferrer: true) } }
            return
        }
        state.withLock { state in
            if names.isEmpty { state.index.add(manifest, blob, name: nil, isReferrer: false) }
            for name in names { state.index.add(manifest, blob, name: name, fullName: Self.reference(name), isReferrer: false) }
            state.list(manifest, digest, names.compactMap(Self.reference))
        }
    }

    fileprivate func put(_ index: ImageIndex, _ digest: ContentDigest, names: [String]?) throws {
        // manifest.json lists no indexes.
        guard format == .oci else { throw OCIError.unsupported(document: displayName, .indexInsteadOfManifest) }
        let blob = Descriptor(mediaType: index.mediaType, digest: digest, size: UInt64(index.bytes.count))
        _ = try put(OutgoingBlob(index.bytes, digest: digest))
        state.withLock { state in
            guard let names else {
                if index.subject != nil { state.index.add(index, blob, name: nil, isReferrer: true) }
                return
            }
            if names.isEmpty { state.index.add(index, blob, name: nil, isReferrer: false) }
            for name in names { state.index.add(index, blob, name: name, fullName: Self.reference(name), isReferrer: false) }
        }
    }

    /// The canonical reference that docker and podman give the image; nil if they cannot.
    private static func reference(_ name: String) -> String? {
        guard let reference = try? RegistryReference(parsing: name), reference.digest == nil else { return nil }
        return reference.canonical
    }
}

extension SavedArchive.State {
    fileprivate mutating func list(_ manifest: Manifest, _ digest: ContentDigest, _ tags: [String]) {
        // A name that another image has moves to this one, as in index.json.
        for index in listed.indices { listed[index].tags.removeAll { tags.contains($0) } }
        if let known = listed.firstIndex(where: { $0.digest == digest }) {
            listed[known].tags += tags
        } else {
            listed.append(.init(digest: digest, config: manifest.config.digest, layers: manifest.layers.map(\.digest), tags: tags))
        }
    }
}

/// The destination of one image of a saved archive.
private struct SavedImage: ImageDestination {
    let archive: SavedArchive
    let names: [String]

    var displayName: String { archive.displayName + (names.first.map { ":" + $0 } ?? "") }
    var registryReference: RegistryReference? { nil }
    var takesDockerFormat: Bool { false }

    func hasBlob(_ blob: Descriptor) -> Bool { archive.hasBlob(blob) }
    func mountBlob(_ blob: Descriptor, from source: RegistryReference) -> Bool { false }
    func putBlob(_ blob: OutgoingBlob) throws -> SentBlob { try archive.put(blob) }
    func putManifest(_ manifest: Manifest, digest: ContentDigest, isNamed: Bool) throws {
        try archive.put(manifest, digest, names: isNamed ? names : nil)
    }
    func putIndex(_ index: ImageIndex, digest: ContentDigest, isNamed: Bool) throws {
        try archive.put(index, digest, names: isNamed ? names : nil)
    }
    /// The archive is finished after all of its images.
    func finish() {}
}
