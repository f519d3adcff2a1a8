import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTransports
import Synchronization

/// Produces the blob of a stored layer: re-assembles the archive byte for byte, compares it with the diff ID, and compresses it.
struct LayerPacking: Sendable {
    let store: ImageStore
    let stream: ObjectID
    let diffID: ContentDigest
    let format: CompressionFormat
    let level: Int32
    /// Compresses blocks; shared by all layers of a push.
    let pool: WorkerPool
    /// Called with the number of bytes of the archive that have been read so far.
    let onBytes: @Sendable (UInt64) -> Void

    /// The size of a block of the archive, in bytes: large enough that dictionaries cost little, small enough that several blocks fit in
    /// memory.
    private static let blockSize = 512 << 10

    /// Emits the blob. Every call emits the same bytes. Takes memory for about one and a half blocks per thread of the pool.
    ///
    /// - Throws: `PushError.diffID` at the end if the stored layer is damaged, `RepositoryError`, and what `emit` throws.
    func produce(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        switch format {
        case .none: try read(emit)
        case .gzip: try gzip(emit)
        case .zstd: try zstd(emit)
        }
    }

    /// The digest and size of the blob that `produce` emits.
    func measure() throws -> SentBlob {
        var check = BlobCheck(nil)
        try produce { check.update($0) }
        return try check.finish()
    }

    /// Reads the archive. A wrong diff ID is detected only after the last bytes have been passed on, so the receiver must not publish them
    /// before this method returns.
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
        guard actual == diffID else {
            throw PushError.diffID(expected: diffID, actual: actual, object: try store.damagedObject(of: stream))
        }
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

/// Blocks that the pool compresses, and that are emitted in order.
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
    private var pending: [Packed] = []

    init(level: Int32, pool: WorkerPool) {
        self.level = level
        self.pool = pool
        limit = max(1, pool.threadCount) + 1
    }

    /// The number of bytes in the current block.
    var filled: Int { block.count }

    mutating func append(_ bytes: UnsafeRawBufferPointer) { block.append(contentsOf: bytes) }

    mutating func submit(isLast: Bool, _ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        if pending.count >= limit { try emitFirst(emit) }
        let packed = Packed()
        pool.submit { [block, dictionary, level] in
            var compressor = GzipBlockCompressor(level: level)
            let bytes = block.withUnsafeBytes { block in
                dictionary.withUnsafeBytes { compressor.pack(block, after: $0, isLast: isLast) }
            }
            packed.bytes.withLock { $0 = bytes }
            packed.done.signal()
        }
        pending.append(packed)
        dictionary = Array(block.suffix(GzipMember.dictionarySize))
        block = []
        block.reserveCapacity(512 << 10)
    }

    mutating func drain(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        while !pending.isEmpty { try emitFirst(emit) }
    }

    private mutating func emitFirst(_ emit: (UnsafeRawBufferPointer) throws -> Void) throws {
        let first = pending.removeFirst()
        first.done.wait()
        let bytes = first.bytes.withLock { bytes in
            defer { bytes = [] }
            return bytes
        }
        try bytes.withUnsafeBytes { try emit($0) }
    }
}

/// A hint in an extended attribute of a layer's stream object: the blob that the layer was compressed to. If a destination has that blob,
/// it need not be sent again. On a file system without user attributes a push only takes more time, as with `LayerHint`.
///
/// The hint is not trusted: before the blob's digest is written into a manifest, the layer is compressed again and compared.
struct PackingHint: Equatable {
    static let prefix = "user.cfsoci.packed."

    /// The name and version of the compression library. Another version can produce other bytes.
    var encoder: String
    var diffID: ContentDigest
    var blob: SentBlob

    /// Parses `1 ENCODER DIFF_ID DIGEST SIZE`.
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

    /// The format and level in the attribute's name; nil if it is not the name of a hint.
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
        // Writing requires a trusted owner. Without one, the push continues without the hint. It does not change what other programs stored:
        // a layer with a record of its diff ID was stored, or verified by a pull, by this one.
        guard !repository.isReadOnly, (try? repository.requireTrustedOwner()) != nil,
            (try? LayerHint.isSet(packing.diffID, on: packing.stream, in: repository)) == true,
            let file = try? repository.openObject(packing.stream, verify: false)
        else { return }
        try? file.setExtendedAttribute(.init(attribute(packing)), .init(PackingHint(blob, packing).text))
    }

    static func find(for packing: LayerPacking) -> SentBlob? {
        guard let file = try? packing.store.repository.openObject(packing.stream, verify: false),
            let text = (try? file.extendedAttribute(.init(attribute(packing))))?.utf8Text, let hint = PackingHint(text),
            hint == PackingHint(hint.blob, packing)
        else { return nil }
        return hint.blob
    }
}
