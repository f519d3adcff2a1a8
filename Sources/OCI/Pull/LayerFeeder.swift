import Compression
import Hashing
import LinuxSystem
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

/// A blob's bytes as they come, digested and counted: more or fewer than announced is refused at that byte.
struct VerifiedBlob: ~Copyable {
    /// What has been read and not been consumed yet.
    var input: UnsafeRawBufferPointer
    private(set) var received: UInt64 = 0
    private(set) var isAtEnd = false
    private let buffer: UnsafeMutableRawBufferPointer
    private let blob: any BlobReader
    /// Nil where nothing is known of the blob beforehand.
    private let descriptor: Descriptor?
    private let sink: (any BlobSink)?
    private var hasher: DigestHasher?
    private let profile: PullProfile

    init(blob: any BlobReader, descriptor: Descriptor?, sink: (any BlobSink)? = nil, profile: PullProfile) {
        buffer = .allocate(byteCount: 256 * 1024, alignment: 4096)
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        self.blob = blob
        self.descriptor = descriptor
        self.sink = sink
        self.profile = profile
        hasher = if let descriptor { DigestHasher(descriptor.digest.algorithm) } else { nil }
    }

    deinit { buffer.deallocate() }

    /// Reads the next bytes into `input`, which must have been consumed.
    mutating func fill() throws {
        guard !isAtEnd else { return }
        let count = try profile.measure(.read) { try blob.read(into: buffer) }
        guard count > 0 else {
            isAtEnd = true
            return
        }
        received += UInt64(count)
        if let descriptor, received > descriptor.size { throw PullError.blobTooLong(descriptor.digest, announced: descriptor.size) }
        input = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        let started = PullProfile.now()
        hasher?.update(input)
        profile.add(.digest, PullProfile.now() - started)
        try sink?.append(input)
    }

    /// What `fill` has read, taken as a whole; valid until the next `fill`.
    mutating func takeAll() -> UnsafeRawBufferPointer {
        let all = input
        input = UnsafeRawBufferPointer(rebasing: buffer[..<0])
        return all
    }

    /// Throws unless everything was read, the size is the announced one and the digest is the descriptor's.
    mutating func finish() throws {
        guard let descriptor else { return }
        guard received == descriptor.size else {
            throw PullError.blobTooShort(descriptor.digest, announced: descriptor.size, received: received)
        }
        guard let actual = hasher?.finalize(), actual == descriptor.digest else { throw PullError.blobDigest(descriptor.digest) }
    }

    /// All of a blob that is small enough to hold.
    consuming func readAll(limit: Int) throws -> [UInt8] {
        if let descriptor, descriptor.size > UInt64(limit) {
            throw PullError.blobTooLarge(descriptor.digest, announced: descriptor.size, limit: limit)
        }
        var bytes: [UInt8] = []
        while true {
            try fill()
            if isAtEnd { break }
            bytes.append(contentsOf: input)
        }
        try finish()
        return bytes
    }
}
