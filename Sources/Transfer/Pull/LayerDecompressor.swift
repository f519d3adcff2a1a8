import ComposefsCompression
import ComposefsHashing
import ComposefsOCIModel

/// The third stage of a layer's way: a verified blob's bytes in, buffers of the uncompressed layer out.
struct LayerDecompressor: ~Copyable {
    private var blob: VerifiedBlob
    private let buffers: LayerBufferPool
    private let profile: PullProfile
    private let onBytes: @Sendable (UInt64) -> Void
    private var decompressor: Decompressor?
    private var reported: UInt64 = 0
    private var isAtEnd = false
    /// Progress is reported after so many bytes.
    private static let reportStep: UInt64 = 256 * 1024

    /// - Parameter onBytes: called with the number of the blob's bytes that have come since the last call.
    init(
        _ blob: consuming VerifiedBlob, into buffers: LayerBufferPool, _ profile: PullProfile, onBytes: @escaping @Sendable (UInt64) -> Void
    ) {
        self.blob = blob
        self.buffers = buffers
        self.profile = profile
        self.onBytes = onBytes
    }

    /// The next buffer, full but for the last one; nil at the end, and when the pool is cancelled.
    ///
    /// - Throws: what reading, verifying or decompressing throws. Size and digest are verified once nil has been returned without an error.
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
        // The content decides: registries are known to label one compression as another.
        if decompressor == nil { decompressor = Decompressor(CompressionFormat.detect(blob.input)) }
    }
}
