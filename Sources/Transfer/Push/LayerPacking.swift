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

/// Remembers what a layer was packed to, in an extended attribute of its stream's object, so that a registry that has that blob need not be
/// sent it again. As with `LayerMark`, a file system without user attributes costs time only.
enum PackingMark {
    private static func attribute(_ packing: LayerPacking) -> String { "user.cfsoci.packed.\(packing.format.name)-\(packing.level)" }

    /// What another release of the encoder made is not what this one would make.
    private static func prefix(_ packing: LayerPacking) -> String { "1 \(Encoders.name(packing.format)) \(packing.diffID) " }

    static func set(_ blob: SentBlob, for packing: LayerPacking) {
        let repository = packing.store.repository
        // Reading does not ask whose the repository is, and a mark is not worth the question.
        guard (try? repository.requireTrustedOwner()) != nil, let file = try? repository.openObject(packing.stream, verify: false)
        else { return }
        try? file.setExtendedAttribute(.init(attribute(packing)), .init(prefix(packing) + "\(blob.digest) \(blob.size)"))
    }

    static func find(for packing: LayerPacking) -> SentBlob? {
        guard let file = try? packing.store.repository.openObject(packing.stream, verify: false),
            let text = (try? file.extendedAttribute(.init(attribute(packing))))?.utf8Text, text.hasPrefix(prefix(packing))
        else { return nil }
        let fields = text.dropFirst(prefix(packing).count).split(separator: " ", omittingEmptySubsequences: false)
        guard fields.count == 2, let digest = ContentDigest(String(fields[0])), let size = UInt64(fields[1]) else { return nil }
        return SentBlob(digest: digest, size: size)
    }
}
