internal import ComposefsBytes
internal import ComposefsCompression
public import ComposefsHashing

/// The finished file: `head`, then what was spilled, then `bodyRest`.
public struct SplitStreamParts: Sendable {
    /// Header, info, digest tables and packed names.
    public var head: [UInt8]
    /// The end of the packed body; all of it where nothing was spilled.
    public var bodyRest: [UInt8]
    /// Bytes of the packed body that were given to `spill`.
    public var spilled: UInt64
    /// Bytes of the whole unpacked content.
    public var totalSize: UInt64
}

/// Writes a split stream: inline bytes and references to objects in the order of the content, names in any order.
///
/// The same calls give the same bytes, as far as the release of libzstd is the same; how inline bytes are split into calls does not matter.
/// Memory is bounded by the digests, a packed mebibyte, and the longest inline run between two places where it may be cut
/// (`allowBreak`).
public struct SplitStreamWriter: ~Copyable {
    /// Packed bytes that wait before they are spilled.
    private static let spillSize = 1 << 20
    /// Unpacked bytes that wait before they are packed, once a chunk is complete.
    private static let batchSize = 64 << 10
    /// An inline chunk of this size is cut at the next allowed place.
    private static let longestChunk = 8 << 20

    private let algorithm: VerityAlgorithm
    private let contentType: UInt64
    private let spill: ((UnsafeRawBufferPointer) throws -> Void)?

    private var names: [(name: String, index: Int)] = []
    private var streamDigests: [ObjectID] = []
    private var streamIndex: [ObjectID: Int] = [:]
    private var objectDigests: [ObjectID] = []
    private var objectIndex: [ObjectID: Int] = [:]
    /// A fault of a call that cannot throw.
    private var fault: SplitStreamError?

    private var compressor = ZstdCompressor()
    /// Instructions and inline bytes that are not packed yet.
    private var raw: [UInt8] = []
    /// Where in `raw` the length of the open inline chunk belongs.
    private var chunkStart: Int?
    private var packed: [UInt8] = []
    private var spilled: UInt64 = 0

    /// Bytes of content so far: inline and of objects.
    public private(set) var totalSize: UInt64 = 0
    /// Bytes of inline content so far.
    public private(set) var inlineSize: UInt64 = 0

    /// - Parameter spill: takes packed bytes of the body, in order, whenever more than a mebibyte of them waits. Without it all are kept.
    public init(algorithm: VerityAlgorithm, contentType: UInt64, spill: ((UnsafeRawBufferPointer) throws -> Void)? = nil) {
        self.algorithm = algorithm
        self.contentType = contentType
        self.spill = spill
    }

    /// The distinct external objects so far, in the order of their first use.
    public var objectReferences: [ObjectID] { objectDigests }

    /// Gives `id` a name; a name given before goes to the new object.
    ///
    /// A name with a NUL byte or a digest of another algorithm makes `finish` throw.
    public mutating func addNamedReference(_ name: String, _ id: ObjectID) {
        guard id.algorithm == algorithm else { return fail("reference \(name) has a \(id.algorithm.name) digest") }
        guard !name.utf8.contains(0) else { return fail("a reference's name holds a NUL byte") }
        let index = Self.index(of: id, &streamDigests, &streamIndex)
        // There are a handful of names: no need for a dictionary, which would also take canonically equivalent names for one.
        if let place = names.firstIndex(where: { $0.name.utf8.elementsEqual(name.utf8) }) {
            names[place].index = index
        } else {
            names.append((name, index))
        }
    }

    /// Adds content that is kept in the stream itself.
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
    /// - Parameter size: the object's size in bytes.
    public mutating func external(_ id: ObjectID, size: UInt64) throws {
        guard id.algorithm == algorithm else { throw SplitStreamError(.unwritable("an object has a \(id.algorithm.name) digest")) }
        try count(size)
        closeChunk()
        let index = Self.index(of: id, &objectDigests, &objectIndex)
        append(Int64(index))
        if raw.count >= Self.batchSize { try pack() }
    }

    /// Says that readers do not mind if an inline chunk ends here, because what they read as a unit does not lie across.
    ///
    /// Chunks are cut only where they are longer than 8 MiB, so that streams of any real layer equal those of other writers.
    public mutating func allowBreak() throws {
        guard let start = chunkStart, raw.count - start >= Self.longestChunk else { return }
        closeChunk()
        try pack()
    }

    /// Ends the stream. The writer must not be used any more.
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
        return SplitStreamParts(head: head(packedNames), bodyRest: packed, spilled: spilled, totalSize: totalSize)
    }

    private func head(_ packedNames: [UInt8]) -> [UInt8] {
        let info = SplitStreamLayout.headerSize
        let streams = info + SplitStreamLayout.infoSize
        let objects = streams + streamDigests.count * algorithm.digestSize
        let names = objects + objectDigests.count * algorithm.digestSize
        let body = names + packedNames.count
        var writer = ByteWriter(capacity: body)
        func range(_ start: Int, _ end: UInt64) {
            writer.u64(UInt64(start))
            writer.u64(end)
        }
        SplitStreamLayout.magic.withUTF8Buffer { writer.append($0) }
        writer.u8(SplitStreamLayout.version)
        writer.u16(0)
        writer.u8(algorithm.rawValue)
        writer.u8(SplitStreamLayout.logBlockSize)
        range(info, UInt64(streams))
        range(streams, UInt64(objects))
        range(objects, UInt64(names))
        range(body, UInt64(body) + spilled + UInt64(packed.count))
        range(names, UInt64(body))
        writer.u64(contentType)
        writer.u64(totalSize)
        for digest in streamDigests { digest.withUnsafeBytes { writer.append($0) } }
        for digest in objectDigests { digest.withUnsafeBytes { writer.append($0) } }
        writer.append(packedNames)
        return writer.bytes
    }

    private static func index(of id: ObjectID, _ list: inout [ObjectID], _ places: inout [ObjectID: Int]) -> Int {
        if let place = places[id] { return place }
        places[id] = list.count
        list.append(id)
        return list.count - 1
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

    /// Writes the length of the open chunk before its bytes: negative, for it is an inline chunk.
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
