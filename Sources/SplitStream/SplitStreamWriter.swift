package import ComposefsBytes
internal import ComposefsCompression
public import ComposefsHashing

/// The finished file: `head`, followed by the bytes passed to `spill`, followed by `bodyRest`.
public struct SplitStreamParts: Sendable {
    /// Header and info.
    private let header: [UInt8]
    private let references: [ObjectIDList]
    private let packedNames: [UInt8]
    /// The end of the compressed body; the whole body if nothing was spilled.
    public let bodyRest: [UInt8]
    /// The number of bytes of the compressed body that were passed to `spill`.
    public let spilled: UInt64
    /// The size of the whole content before compression, in bytes.
    public let totalSize: UInt64

    fileprivate init(
        header: [UInt8], references: [ObjectIDList], packedNames: [UInt8], bodyRest: [UInt8], spilled: UInt64, totalSize: UInt64
    ) {
        self.header = header
        self.references = references
        self.packedNames = packedNames
        self.bodyRest = bodyRest
        self.spilled = spilled
        self.totalSize = totalSize
    }

    /// Header, info, digest tables and compressed names.
    public var head: [UInt8] {
        var head: [UInt8] = []
        forEachPartOfHead { head.append(contentsOf: $0) }
        return head
    }

    /// Passes `head` to `body`, in parts: the tables may be large.
    package func forEachPartOfHead<Failure: Error>(_ body: ([UInt8]) throws(Failure) -> Void) throws(Failure) {
        try body(header)
        for list in references {
            var writer = ByteWriter()
            for id in list {
                id.withUnsafeBytes { writer.append($0) }
                guard writer.count >= 1 << 16 else { continue }
                try body(writer.bytes)
                writer = ByteWriter()
            }
            try body(writer.bytes)
        }
        try body(packedNames)
    }
}

/// Writes a split stream: inline bytes and references to objects in the order of the content, and names in any order.
///
/// The same content gives the same bytes with the same release of libzstd, however the inline bytes are divided into calls. Memory use is
/// bounded by the digests, one mebibyte of compressed data, and the longest run of inline bytes between two calls of `allowBreak`.
public struct SplitStreamWriter: ~Copyable {
    /// The number of compressed bytes that are buffered before they are spilled.
    private static let spillSize = 1 << 20
    /// The number of bytes that are buffered before they are compressed, once a chunk is complete.
    private static let batchSize = 64 << 10
    /// An inline chunk of this size is ended at the next call of `allowBreak`.
    private static let longestChunk = 8 << 20

    private let algorithm: VerityAlgorithm
    private let contentType: UInt64
    private let spill: ((UnsafeRawBufferPointer) throws -> Void)?

    private var names: [(name: String, index: Int)] = []
    private var streams: ObjectIDTable
    private var objects: ObjectIDTable
    /// An error of a call that cannot throw; `finish` throws it.
    private var fault: SplitStreamError?

    private var compressor = ZstdCompressor()
    /// Instructions and inline bytes that are not compressed yet.
    private var raw: [UInt8] = []
    /// The offset in `raw` of the length of the open inline chunk.
    private var chunkStart: Int?
    private var packed: [UInt8] = []
    private var spilled: UInt64 = 0

    /// The size of the content so far, inline and external, in bytes.
    public private(set) var totalSize: UInt64 = 0
    /// The size of the inline content so far, in bytes.
    public private(set) var inlineSize: UInt64 = 0

    /// - Parameter spill: Receives compressed bytes of the body, in order, whenever more than a mebibyte is buffered. If it is nil, all
    ///   bytes are kept in memory.
    public init(algorithm: VerityAlgorithm, contentType: UInt64, spill: ((UnsafeRawBufferPointer) throws -> Void)? = nil) {
        self.init(algorithm: algorithm, contentType: contentType, in: HeapMemory.shared, spill: spill)
    }

    /// The same.
    ///
    /// - Parameter memory: where the digests are.
    package init(
        algorithm: VerityAlgorithm, contentType: UInt64, in memory: any LargeMemory, spill: ((UnsafeRawBufferPointer) throws -> Void)?
    ) {
        self.algorithm = algorithm
        streams = ObjectIDTable(algorithm, in: memory)
        objects = ObjectIDTable(algorithm, in: memory)
        self.contentType = contentType
        self.spill = spill
    }

    /// The distinct external objects so far, in the order of their first use.
    public var objectReferences: ObjectIDList { objects.ids }

    /// Gives the object a name. If the name is already in use, it moves to this object.
    ///
    /// If the name contains a NUL byte or `id` has another algorithm, `finish` throws.
    public mutating func addNamedReference(_ name: String, _ id: ObjectID) {
        guard id.algorithm == algorithm else { return fail("reference \(name) has a \(id.algorithm.name) digest") }
        guard !name.utf8.contains(0) else { return fail("a reference's name holds a NUL byte") }
        let index = streams.insert(id)
        // There are only a few names. A dictionary would also treat canonically equivalent names as equal.
        if let known = names.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
            names[known].index = index
        } else {
            names.append((name, index))
        }
    }

    /// Adds content that is stored in the stream itself.
    public mutating func inline(_ bytes: UnsafeRawBufferPointer) throws {
        guard !bytes.isEmpty else { return }
        try count(UInt64(bytes.count))
        inlineSize &+= UInt64(bytes.count)
        if chunkStart == nil {
            chunkStart = raw.count
            raw.append(contentsOf: repeatElement(0, count: 8))
        }
        raw.append(contentsOf: bytes)
    }

    /// Adds content that is an object of the repository.
    ///
    /// - Parameter size: The object's size in bytes.
    public mutating func external(_ id: ObjectID, size: UInt64) throws {
        guard id.algorithm == algorithm else { throw SplitStreamError(.unwritable("an object has a \(id.algorithm.name) digest")) }
        try count(size)
        closeChunk()
        let index = objects.insert(id)
        append(Int64(index))
        if raw.count >= Self.batchSize { try pack() }
    }

    /// Allows an inline chunk to end here, between two units that readers process as a whole.
    ///
    /// Only chunks of more than 8 MiB are ended, so that the streams of real layers are equal to those of other writers.
    public mutating func allowBreak() throws {
        guard let start = chunkStart, raw.count - start >= Self.longestChunk else { return }
        closeChunk()
        try pack()
    }

    /// Ends the stream. The writer must not be used after this.
    public mutating func finish() throws -> SplitStreamParts {
        if let fault { throw fault }
        closeChunk()
        try pack()
        compressor.finish(into: &packed)

        var packedNames: [UInt8] = []
        for (name, index) in names.sorted(by: { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }) {
            let item = Array("\(index):".utf8) + Array(name.utf8) + [0]
            item.withUnsafeBytes { compressor.compress($0, into: &packedNames) }
        }
        compressor.finish(into: &packedNames)
        return SplitStreamParts(
            header: header(packedNames), references: [streams.ids, objects.ids], packedNames: packedNames, bodyRest: packed,
            spilled: spilled, totalSize: totalSize)
    }

    private func header(_ packedNames: [UInt8]) -> [UInt8] {
        let info = SplitStreamLayout.headerSize
        let streamsStart = info + SplitStreamLayout.infoSize
        let objectsStart = streamsStart + streams.count * algorithm.digestSize
        let names = objectsStart + objects.count * algorithm.digestSize
        let body = names + packedNames.count
        var writer = ByteWriter(capacity: streamsStart)
        func range(_ start: Int, _ end: UInt64) {
            writer.u64(UInt64(start))
            writer.u64(end)
        }
        SplitStreamLayout.magic.withUTF8Buffer { writer.append($0) }
        writer.u8(SplitStreamLayout.version)
        writer.u16(0)
        writer.u8(algorithm.rawValue)
        writer.u8(SplitStreamLayout.logBlockSize)
        range(info, UInt64(streamsStart))
        range(streamsStart, UInt64(objectsStart))
        range(objectsStart, UInt64(names))
        range(body, UInt64(body) + spilled + UInt64(packed.count))
        range(names, UInt64(body))
        writer.u64(contentType)
        writer.u64(totalSize)
        return writer.bytes
    }

    private mutating func fail(_ what: String) {
        if fault == nil { fault = SplitStreamError(.unwritable(what)) }
    }

    private mutating func count(_ size: UInt64) throws(SplitStreamError) {
        let (sum, overflow) = totalSize.addingReportingOverflow(size)
        guard !overflow else { throw SplitStreamError(.unwritable("the content is longer than 2^64 bytes")) }
        totalSize = sum
    }

    private mutating func append(_ instruction: Int64) {
        withUnsafeBytes(of: instruction.littleEndian) { raw.append(contentsOf: $0) }
    }

    /// Writes the length of the open inline chunk before its bytes. A negative number marks an inline chunk.
    private mutating func closeChunk() {
        guard let start = chunkStart else { return }
        chunkStart = nil
        let length = -Int64(raw.count - start - 8)
        raw.withUnsafeMutableBytes { $0.storeBytes(of: length.littleEndian, toByteOffset: start, as: Int64.self) }
    }

    private mutating func pack() throws {
        raw.withUnsafeBytes { compressor.compress($0, into: &packed) }
        raw.removeAll(keepingCapacity: raw.capacity <= 4 * Self.batchSize)
        guard let spill, packed.count >= Self.spillSize else { return }
        try packed.withUnsafeBytes { try spill($0) }
        spilled &+= UInt64(packed.count)
        packed.removeAll(keepingCapacity: true)
    }
}
