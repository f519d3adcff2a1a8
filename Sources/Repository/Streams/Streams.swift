public import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
public import ComposefsSplitStream

extension Repository {
    /// The object that `streams/<name>` leads to; nil if there is no such stream.
    public func stream(_ name: ByteString) throws(RepositoryError) -> ObjectID? {
        try Layout.checkEntryName(name)
        return try linkedObject(Layout.streams + "/" + name)
    }

    /// The names of all streams, in ascending byte order.
    public func streamNames() throws(RepositoryError) -> [ByteString] {
        (try entries(of: Layout.streams) ?? []).map(\.name).filter { $0 != "refs" }
    }

    /// Opens a stream object for reading, and verifies its digest first.
    ///
    /// - Parameter contentType: refuse a stream with any other content type.
    public func openStream(_ id: ObjectID, contentType: UInt64? = nil) throws(RepositoryError) -> SplitStreamReader<OpenFile> {
        try openStream(id, contentType: contentType, verify: true)
    }

    func openStream(
        _ id: ObjectID, contentType: UInt64? = nil, verify: Bool
    ) throws(RepositoryError) -> SplitStreamReader<OpenFile> {
        let object = try openObject(id, verify: verify)
        let file: OpenFile
        do { file = try OpenFile(object) } catch { throw .system(error) }
        do {
            return try SplitStreamReader(file, algorithm: algorithm, contentType: contentType, in: memory)
        } catch {
            throw .stream(ByteString(id.hex), .format(error))
        }
    }

    /// Stores a stream that was written without spilling. `streams/` is not changed, see `publish`.
    public func storeStream(_ writer: consuming SplitStreamWriter) throws(RepositoryError) -> StoredObject {
        let parts: SplitStreamParts
        do { parts = try writer.finish() } catch { throw Self.streamError(error) }
        guard parts.spilled == 0 else { throw .newStream(.spilled) }
        var hasher = VerityHasher(algorithm)
        return try withChunks(parts) { (chunks) throws(RepositoryError) in try storeObject(chunks, hasher: &hasher) }
    }

    private func withChunks<Value>(
        _ parts: SplitStreamParts, _ body: ([UnsafeRawBufferPointer]) throws(RepositoryError) -> Value
    ) throws(RepositoryError) -> Value {
        try withBytes(parts.head) { (head) throws(RepositoryError) in
            try withBytes(parts.bodyRest) { (rest) throws(RepositoryError) in try body([head, rest]) }
        }
    }

    static func streamError(_ error: any Error) -> RepositoryError {
        switch error {
        case let error as RepositoryError: error
        case let error as SystemError: .system(error)
        case let error as SplitStreamError: .newStream(.format(error))
        default: .newStream(.encoder(error))
        }
    }

    /// A new stream of any size.
    public func makeStreamBuilder(contentType: UInt64) throws(RepositoryError) -> StreamBuilder {
        StreamBuilder(self, contentType: contentType)
    }
}

/// Writes a stream whose packed body may not fit in memory. The part of it that exceeds one mebibyte waits in a temporary file, because the
/// part of the stream before the body is known last.
public struct StreamBuilder: ~Copyable {
    private let repository: Repository
    private let spill: SpillFile
    private var writer: SplitStreamWriter

    init(_ repository: Repository, contentType: UInt64) {
        self.repository = repository
        let spill = SpillFile(repository)
        self.spill = spill
        writer = SplitStreamWriter(algorithm: repository.algorithm, contentType: contentType, in: repository.memory) {
            try spill.append($0)
        }
    }

    /// The number of content bytes so far, inline and in objects.
    public var totalSize: UInt64 { writer.totalSize }

    /// Gives an object a name in the stream.
    public mutating func addNamedReference(_ name: String, _ id: ObjectID) { writer.addNamedReference(name, id) }

    /// Adds content that is stored in the stream itself.
    public mutating func inline(_ bytes: UnsafeRawBufferPointer) throws(RepositoryError) {
        do { try writer.inline(bytes) } catch { throw Repository.streamError(error) }
    }

    /// Adds content that is an object; its size is in bytes.
    public mutating func external(_ id: ObjectID, size: UInt64) throws(RepositoryError) {
        do { try writer.external(id, size: size) } catch { throw Repository.streamError(error) }
    }

    /// Allows an inline chunk to end here, see `SplitStreamWriter.allowBreak`.
    public mutating func allowBreak() throws(RepositoryError) {
        do { try writer.allowBreak() } catch { throw Repository.streamError(error) }
    }

    /// Stores the stream's object. `streams/` is not changed, see `Repository.publish` and `Repository.stage`.
    public consuming func finish() throws(RepositoryError) -> StoredObject {
        let parts: SplitStreamParts
        do { parts = try writer.finish() } catch { throw Repository.streamError(error) }
        var object = try repository.makeObjectWriter()
        try parts.forEachPartOfHead { (part) throws(RepositoryError) in try object.append(part) }
        try spill.copy(to: &object)
        try object.append(parts.bodyRest)
        return try object.finish()
    }
}

/// The part of a stream's body that did not fit in memory.
private final class SpillFile {
    private let repository: Repository
    private var file: Temporary?
    private var size: UInt64 = 0

    init(_ repository: Repository) { self.repository = repository }

    func append(_ bytes: UnsafeRawBufferPointer) throws(RepositoryError) {
        if file == nil { file = try repository.makeTemporary(mode: 0o600) }
        try system { () throws(SystemError) in try file?.file.writeAll(bytes) }
        size += UInt64(bytes.count)
    }

    func copy(to object: inout ObjectWriter) throws(RepositoryError) {
        switch file {
        case .none: return
        case .some(let spilled): try object.append(contentsOf: spilled.file, end: size)
        }
    }
}
