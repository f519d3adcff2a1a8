import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTransports
import Synchronization

/// The first half of a layer's way: blob bytes are counted and digested, decompressed into slabs, and handed on.
///
/// Runs on a thread of its own. The digest and the size are known to be the descriptor's only when the queue has ended without failure.
final class LayerFeeder: @unchecked Sendable {
    let slabs = SlabPool()
    let queue = BoundedQueue<Slab>(capacity: SlabPool.slabsPerLayer)
    private let blob: any BlobReader
    /// Nil where nothing is known of the blob beforehand.
    private let descriptor: Descriptor?
    private let sink: (any BlobSink)?
    private let profile: PullProfile
    private let onBytes: @Sendable (UInt64) -> Void
    private let outcome = Mutex<(any Error)?>(nil)

    init(
        blob: any BlobReader, descriptor: Descriptor?, sink: (any BlobSink)?, profile: PullProfile,
        onBytes: @escaping @Sendable (UInt64) -> Void
    ) {
        self.blob = blob
        self.descriptor = descriptor
        self.sink = sink
        self.profile = profile
        self.onBytes = onBytes
    }

    /// Why the queue ended early; nil where it ended with a verified blob.
    var failure: (any Error)? { outcome.withLock { $0 } }

    /// Lets a feeder that waits for a slab or for room in the queue go.
    func cancel() {
        slabs.cancel()
        queue.cancel()
    }

    func run() {
        do {
            try feed()
        } catch {
            outcome.withLock { $0 = error }
        }
        queue.close()
    }

    private func feed() throws {
        var source = VerifiedBlob(blob: blob, descriptor: descriptor, sink: sink, profile: profile)
        var decompressor: Decompressor?
        var isEnded = false
        var reported: UInt64 = 0
        while !isEnded {
            guard let slab = slabs.take() else { return }
            while slab.count < slab.memory.count {
                if source.input.isEmpty {
                    try source.fill()
                    if source.received - reported >= 256 * 1024 || source.isAtEnd {
                        onBytes(source.received - reported)
                        reported = source.received
                    }
                }
                if decompressor == nil {
                    // The content decides: registries are known to label one compression as another.
                    decompressor = Decompressor(CompressionFormat.detect(source.input))
                }
                let started = PullProfile.now()
                let room = UnsafeMutableRawBufferPointer(rebasing: slab.memory[slab.count...])
                let produced = try decompressor?.decompress(&source.input, into: room) ?? 0
                profile.add(.inflate, PullProfile.now() - started)
                slab.count += produced
                if produced == 0, source.input.isEmpty, source.isAtEnd {
                    isEnded = true
                    break
                }
            }
            if slab.count > 0, !queue.push(slab) { return }
        }
        try source.finish()
        try decompressor?.finish()
    }
}
