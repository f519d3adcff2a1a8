import ComposefsCompression
import ComposefsHashing
import ComposefsOCIModel

/// The third stage of a pull: its input is a verified blob, its output buffers of the uncompressed layer.
struct LayerDecompressor: ~Copyable {
    private var blob: VerifiedBlob
    private let buffers: LayerBufferPool
    private let profile: PullProfile
    private let onBytes: @Sendable (UInt64) -> Void
    private var decompressor: Decompressor?
    private var reported: UInt64 = 0
    private var isAtEnd = false
    /// Progress is reported each time that this many bytes have arrived.
    private static let reportStep: UInt64 = 256 * 1024

    /// - Parameter onBytes: called with the number of the blob's bytes that have arrived since the last call.
    init(
        _ blob: consuming VerifiedBlob, into buffers: LayerBufferPool, _ profile: PullProfile, onBytes: @escaping @Sendable (UInt64) -> Void
    ) {
        self.blob = blob
        self.buffers = buffers
        self.profile = profile
        self.onBytes = onBytes
    }

    /// Returns the next buffer; nil at the end, and if the pool is cancelled. All buffers but the last are full.
    ///
    /// - Throws: errors of reading, verification and decompression. When nil has been returned at the end, size and digest are verified.
    mutating func next() throws -> LayerBuffer? {
        guard !isAtEnd, let buffer = buffers.take() else { return nil }
        while buffer.count < buffer.memory.count {
            try readOn()
            let room = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[buffer.count...])
            let started = PullProfile.now()
            let produced = try decompressor?.decompress(&blob.input, into: room) ?? 0
            profile.add(.inflate, PullProfile.now() - started)
            buffer.count += produced
            if produced == 0, blob.input.isEmpty, blob.isAtEnd {
                isAtEnd = true
                try blob.finish()
                try decompressor?.finish()
                break
            }
        }
        return buffer.count > 0 ? buffer : nil
    }

    private mutating func readOn() throws {
        if blob.input.isEmpty {
            try blob.fill()
            if blob.received - reported >= Self.reportStep || blob.isAtEnd {
                onBytes(blob.received - reported)
                reported = blob.received
            }
        }
        // The content determines the format, because media types in registries are not always right.
        if decompressor == nil { decompressor = Decompressor(CompressionFormat.detect(blob.input)) }
    }
}
