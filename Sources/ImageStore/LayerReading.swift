public import ComposefsBytes
public import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
public import ComposefsTar

/// The content of an entry in a stored layer.
public enum StoredContent: Sendable, Hashable {
    /// Not a regular file.
    case none
    /// At most 64 bytes, kept in the stream itself. For sparse files this is the whole content, not what the archive holds; so in `object`.
    case inline(ByteString)
    /// An object with this many bytes.
    case external(ObjectID, size: UInt64)
}

/// Sizes and counts of a layer.
public struct LayerInfo: Sendable, Hashable {
    /// The digest of the uncompressed archive.
    public var diffID: ContentDigest
    /// The split stream's object.
    public var stream: ObjectID
    /// Bytes of the uncompressed archive.
    public var size: UInt64
    /// The number of entries in the archive, directories and links included.
    public var entryCount: Int
    /// The number of distinct objects that hold file contents.
    public var externalObjects: Int
    /// Bytes of the archive that are in objects, counted for every entry.
    public var externalSize: UInt64
    /// The other bytes of the archive: headers, padding, short files.
    public var inlineSize: UInt64
}

extension ImageStore {
    /// The stream of a layer by its diff ID, or of an artifact's blob by its digest.
    ///
    /// - Throws: `ImageStoreError.noSuchLayer`.
    public func layerStream(_ diffID: ContentDigest) throws -> ObjectID {
        guard let id = try repository.stream(StreamName.layer(diffID)) else { throw ImageStoreError.noSuchLayer(diffID) }
        return id
    }

    /// The original uncompressed archive, byte for byte, in chunks of at most 256 KiB, which are valid only during the call.
    ///
    /// - Parameter stream: the split stream's object, see `layerStream`. Streams of blobs can be read too.
    /// - Throws: what `body` throws, and `RepositoryError` or `ImageStoreError.damaged` if the store is damaged. Chunks before the damage
    ///   have been passed to `body` then.
    public func readLayer(_ stream: ObjectID, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        var reader = try repository.openStream(stream)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
        defer { buffer.deallocate() }
        var total: UInt64 = 0
        while let chunk = try reader.next() {
            switch chunk {
            case .inline(let bytes):
                total += UInt64(bytes.count)
                try body(bytes)
            case .external(let id):
                let object = try repository.openObject(id, verify: repository.isSecure)
                while true {
                    let count = try object.read(into: buffer)
                    if count == 0 { break }
                    total += UInt64(count)
                    try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                }
            }
        }
        guard total == reader.totalSize else {
            throw ImageStoreError.damaged(
                stream: ByteString(stream.hex), .size(found: total, recorded: reader.totalSize))
        }
    }

    /// The digest of the archive to which a layer's stream re-assembles. Reads every object, so damage of any of them is found.
    public func layerDigest(of stream: ObjectID, _ algorithm: DigestAlgorithm) throws -> ContentDigest {
        var hasher = DigestHasher(algorithm)
        try readLayer(stream) { hasher.update($0) }
        return hasher.finalize()
    }

    /// The digest of an artifact's blob. Reads all of it.
    public func blobDigest(of stream: ObjectID, _ algorithm: DigestAlgorithm) throws -> ContentDigest {
        try layerDigest(of: stream, algorithm)
    }

    /// Every entry of a layer, in the archive's order, without reading the files' content.
    public func forEachEntry(of stream: ObjectID, _ body: (TarEntry, StoredContent) throws -> Void) throws {
        var reader = try repository.openStream(stream, contentType: StreamContentType.layer)
        let name = ByteString(stream.hex)
        try withoutActuallyEscaping(body) { body in
            var parser = TarParser()
            var handler = EntryReader(stream: name, repository: repository, references: reader.namedReferences, body: body)
            while let chunk = try reader.next() {
                switch chunk {
                case .inline(let bytes): try parser.feed(bytes, to: &handler)
                case .external(let id):
                    let size = try parser.skipExternal()
                    try handler.external(id, size: size)
                }
            }
            try parser.finish()
        }
    }

    /// Sizes and counts of a layer. Reads its stream, not its objects.
    ///
    /// - Throws: `ImageStoreError.noSuchLayer`.
    public func layerInfo(_ diffID: ContentDigest) throws -> LayerInfo {
        let stream = try layerStream(diffID)
        let reader = try repository.openStream(stream, contentType: StreamContentType.layer)
        var info = LayerInfo(
            diffID: diffID, stream: stream, size: reader.totalSize, entryCount: 0, externalObjects: reader.objectReferences.count,
            externalSize: 0, inlineSize: 0)
        try forEachEntry(of: stream) { entry, _ in
            info.entryCount += 1
            if entry.kind == .regular, entry.size > TarContent.inlineLimit { info.externalSize += entry.size }
        }
        info.inlineSize = info.size - min(info.size, info.externalSize)
        return info
    }
}

/// Combines an archive's entries with the objects that the stream has in place of their content.
private struct EntryReader: TarHandler {
    let stream: ByteString
    let body: (TarEntry, StoredContent) throws -> Void
    private let repository: Repository
    /// The digest of the stream's object.
    private let references: Set<ObjectID>
    private var pending: TarEntry?

    init(
        stream: ByteString, repository: Repository, references: [NamedReference],
        body: @escaping (TarEntry, StoredContent) throws -> Void
    ) {
        self.stream = stream
        self.repository = repository
        self.references = Set(references.map(\.id))
        self.body = body
    }

    mutating func inline(_ bytes: UnsafeRawBufferPointer) {}

    mutating func entry(_ entry: TarEntry, _ content: TarContent) throws {
        switch content {
        case .none: try body(entry, .none)
        case .inline(let bytes) where entry.sparse != nil: try sparse(entry, .inline(bytes))
        case .inline(let bytes): try body(entry, .inline(bytes))
        case .external: pending = entry
        }
    }

    mutating func external(_ bytes: UnsafeRawBufferPointer, isLast: Bool) throws {
        throw ImageStoreError.damaged(stream: stream, .inlineContentTooLarge(limit: TarContent.inlineLimit))
    }

    mutating func external(_ id: ObjectID, size: UInt64) throws {
        guard let entry = pending else { return }
        pending = nil
        if entry.sparse != nil { return try sparse(entry, .object(id)) }
        try body(entry, .external(id, size: size))
    }

    /// The object of a sparse file's content follows from the archive. The stream's named reference keeps it, but is not relied on.
    private func sparse(_ entry: TarEntry, _ stored: SparseFile.Stored) throws {
        let content = try SparseFile.content(entry, stored, in: repository)
        if case .external(let id, _) = content, !references.contains(id) {
            throw ImageStoreError.damaged(
                stream: stream, .missingSparseContent(path: entry.path, id))
        }
        try body(entry, content)
    }
}
