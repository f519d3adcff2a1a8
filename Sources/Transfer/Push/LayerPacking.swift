import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTransports
import Synchronization

/// A stored layer's archive on its way out: re-assembled byte for byte, compared with its diff ID, and packed.
struct LayerPacking: Sendable {
    let store: ImageStore
    let stream: ObjectID
    let diffID: ContentDigest
    let format: CompressionFormat
    let level: Int32
    /// Packs blocks; shared by all layers of a push.
    let pool: WorkerPool
    /// Told how many bytes of the archive have been read.
    let onBytes: @Sendable (UInt64) -> Void

    /// Of the archive; large enough that the dictionaries cost nothing, small enough that a few of them cost no memory.
    private static let blockSize = 512 << 10

    /// Every call makes the same bytes. Memory: about one block and a half for each thread of the pool.
    func produce(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        switch format {
        case .none: try read(emit)
        case .gzip: try gzip(emit)
        case .zstd: try zstd(emit)
        }
    }

    /// What `produce` makes, without anybody taking it.
    func measure() throws -> SentBlob {
        var check = BlobCheck(nil)
        try produce { check.update($0) }
        return try check.finish()
    }

    /// The archive. The last bytes have been given out when it shows that it is the wrong one: nobody must have believed them yet.
    private func read(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        var hasher = DigestHasher(diffID.algorithm)
        var done: UInt64 = 0
        try store.readLayer(stream) { bytes in
            hasher.update(bytes)
            try body(bytes)
            done += UInt64(bytes.count)
            onBytes(done)
        }
        let actual = hasher.finalize()
        guard actual == diffID else { throw PushError.diffID(expected: diffID, actual: actual) }
    }

    private func zstd(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        var compressor = ZstdCompressor(level: level, threads: Int32(clamping: max(1, pool.threadCount)))
        var packed: [UInt8] = []
        func flush() throws {
            try packed.withUnsafeBytes { try emit($0) }
            packed.removeAll(keepingCapacity: true)
        }
        try read { bytes in
            compressor.compress(bytes, into: &packed)
            if packed.count >= 256 << 10 { try flush() }
        }
        compressor.finish(into: &packed)
        try flush()
    }

    private func gzip(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        var blocks = GzipBlocks(level: level, pool: pool)
        var checksum = GzipChecksum()
        try GzipMember.header.withUnsafeBytes { try emit($0) }
        try read { bytes in
            checksum.update(bytes)
            var rest = bytes
            while !rest.isEmpty {
                let count = min(rest.count, Self.blockSize - blocks.filled)
                blocks.append(UnsafeRawBufferPointer(rebasing: rest[..<count]))
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                if blocks.filled == Self.blockSize { try blocks.submit(isLast: false, emit) }
            }
        }
        try blocks.submit(isLast: true, emit)
        try blocks.drain(emit)
        try GzipMember.trailer(checksum).withUnsafeBytes { try emit($0) }
    }
}

/// Blocks that are being packed by the pool, and come out in their order.
private struct GzipBlocks {
    private final class Packed: Sendable {
        let done = Semaphore(0)
        let bytes = Mutex<[UInt8]>([])
    }

    private let level: Int32
    private let pool: WorkerPool
    private let limit: Int
    private var block: [UInt8] = []
    private var dictionary: [UInt8] = []
    private var underWay: [Packed] = []

    init(level: Int32, pool: WorkerPool) {
        self.level = level
        self.pool = pool
        limit = max(1, pool.threadCount) + 1
    }

    /// Bytes of the block that is being filled.
    var filled: Int { block.count }

    mutating func append(_ bytes: UnsafeRawBufferPointer) { block.append(contentsOf: bytes) }

    mutating func submit(isLast: Bool, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        if underWay.count >= limit { try emitFirst(emit) }
        let packed = Packed()
        pool.submit { [block, dictionary, level] in
            var compressor = GzipBlockCompressor(level: level)
            let bytes = block.withUnsafeBytes { block in
                dictionary.withUnsafeBytes { compressor.pack(block, after: $0, isLast: isLast) }
            }
            packed.bytes.withLock { $0 = bytes }
            packed.done.signal()
        }
        underWay.append(packed)
        dictionary = Array(block.suffix(GzipMember.dictionarySize))
        block = []
        block.reserveCapacity(512 << 10)
    }

    mutating func drain(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        while !underWay.isEmpty { try emitFirst(emit) }
    }

    private mutating func emitFirst(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        let first = underWay.removeFirst()
        first.done.wait()
        let bytes = first.bytes.withLock { bytes in
            defer { bytes = [] }
            return bytes
        }
        try bytes.withUnsafeBytes { try emit($0) }
    }
}

/// Remembers what a layer was packed to, in an extended attribute of its stream's object, so that a destination that has that blob need not be
/// sent it again. As with `LayerMark`, a file system without user attributes costs time only.
///
/// A hint, no proof: before the blob's digest goes into a manifest, the layer is packed again and compared.
struct PackingMark: Equatable {
    static let prefix = "user.cfsoci.packed."

    /// Of the library that packed it, with its release: what another release made is not what this one would make.
    var encoder: String
    var diffID: ContentDigest
    var blob: SentBlob

    /// `1 ENCODER DIFF_ID DIGEST SIZE`
    init?(_ text: String) {
        let fields = text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
        guard fields.count == 5, fields[0] == "1", let diffID = ContentDigest(fields[2]), let digest = ContentDigest(fields[3]),
            let size = UInt64(fields[4])
        else { return nil }
        encoder = fields[1]
        self.diffID = diffID
        blob = SentBlob(digest: digest, size: size)
    }

    private init(_ blob: SentBlob, _ packing: LayerPacking) {
        encoder = Encoders.name(packing.format)
        diffID = packing.diffID
        self.blob = blob
    }

    private var text: String { "1 \(encoder) \(diffID) \(blob.digest) \(blob.size)" }

    private static func attribute(_ packing: LayerPacking) -> String { prefix + "\(packing.format.name)-\(packing.level)" }

    /// How the attribute says that the layer was packed.
    static func packing(_ attribute: ByteString) -> (format: CompressionFormat, level: Int32)? {
        guard let name = attribute.utf8Text, name.hasPrefix(prefix) else { return nil }
        let parts = name.dropFirst(prefix.count).split(separator: "-", maxSplits: 1)
        guard parts.count == 2, let level = Int32(parts[1]),
            let format = [CompressionFormat.gzip, .zstd].first(where: { $0.name == parts[0] }),
            PushOptions.levels(of: format)?.contains(Int(level)) == true
        else { return nil }
        return (format, level)
    }

    static func set(_ blob: SentBlob, for packing: LayerPacking) {
        let repository = packing.store.repository
        // Reading does not ask whose the repository is, and a mark is not worth the question.
        guard (try? repository.requireTrustedOwner()) != nil, let file = try? repository.openObject(packing.stream, verify: false)
        else { return }
        try? file.setExtendedAttribute(.init(attribute(packing)), .init(PackingMark(blob, packing).text))
    }

    static func find(for packing: LayerPacking) -> SentBlob? {
        guard let file = try? packing.store.repository.openObject(packing.stream, verify: false),
            let text = (try? file.extendedAttribute(.init(attribute(packing))))?.utf8Text, let mark = PackingMark(text),
            mark == PackingMark(mark.blob, packing)
        else { return nil }
        return mark.blob
    }
}
