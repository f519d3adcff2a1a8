import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTar
import ComposefsTransports
import Synchronization

/// One layer's way, from wherever its blob is to a verified split stream that nothing refers to yet:
///
/// ```
///   download ─▶ verify ─▶ decompress ═▶ split ═▶ store
///   BlobDownload  VerifiedBlob  LayerDecompressor   LayerSplitter   ObjectBatch, LargeObject
/// ```
///
/// Each stage takes what the one before it gives. The double arrows lead to another thread: a reader thread downloads, verifies and
/// decompresses into buffers; the caller's thread computes the diff ID and takes the archive apart; the object pool hashes and writes the
/// contents of files. A layer has a fixed number of buffers, so its size does not decide about memory.
package struct LayerPipeline: Sendable {
    let repository: Repository
    /// Stores objects; shared by all layers of a pull.
    let objectPool: WorkerPool
    /// One thread for each layer that is on its way at the same time.
    let readerPool: WorkerPool
    let profile: PullProfile
    let limits: PullLimits

    package struct Imported: Sendable {
        var stream: ObjectID
        var statistics: LayerStatistics
    }

    /// - Parameters:
    ///   - blob: the download, or another reader of a blob.
    ///   - descriptor: the blob's size and digest; nil if nothing is known of it beforehand.
    ///   - keeper: takes the blob as it comes.
    ///   - onBytes: called, on the reader's thread, with the number of bytes of the blob that have come since the last call.
    /// - Throws: what the blob, the archive or the store refused; nothing but unreferenced objects is left behind then.
    func run(
        _ blob: any BlobReader, _ descriptor: Descriptor?, diffID: ContentDigest, keeper: BlobKeeper? = nil,
        onBytes: @escaping @Sendable (UInt64) -> Void = { _ in }
    ) throws -> Imported {
        // Run by this thread, the reader would wait for ever for room in the queue.
        guard readerPool.threadCount > 0 else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
        let reading = Reading(blob, keeper)
        let hasEnded = Semaphore(0)
        readerPool.submit { [profile] in
            let verified = VerifiedBlob(blob: reading.blob, descriptor: descriptor, keeper: reading.keeper, profile: profile)
            reading.run(LayerDecompressor(verified, into: reading.buffers, profile, onBytes: onBytes))
            hasEnded.signal()
        }
        defer {
            // The blob belongs to the reader until that has stopped.
            reading.cancel()
            hasEnded.wait()
        }
        return try split(reading, diffID: diffID)
    }

    /// Waits for what is being stored and ends the threads. After a failure some objects of the layer may still be on their way.
    func shutdown() {
        readerPool.shutdown()
        objectPool.shutdown()
    }

    /// The stages on this thread: buffers in, the split stream out.
    private func split(_ reading: Reading, diffID: ContentDigest) throws -> Imported {
        var splitter = try LayerSplitter(repository, pool: objectPool, profile: profile, limits: limits)
        var parser = TarParser()
        var hasher = DigestHasher(diffID.algorithm)
        var room = limits.layerBytes
        var foreign: ForeignFormat?
        while let buffer = reading.queue.pop() {
            guard UInt64(buffer.count) <= room else { throw LimitExceeded(.layerBytes, allowed: limits.layerBytes) }
            room -= UInt64(buffer.count)
            profile.measure(.digest) { hasher.update(buffer.bytes) }
            if parser.position == 0 { foreign = ForeignFormat.detect(buffer.bytes) }
            splitter.buffer = buffer
            do {
                try profile.measure(.split) { try parser.feed(buffer.bytes, to: &splitter) }
            } catch {
                // A damaged blob is the better explanation of an archive that cannot be read; but waiting for the rest of a hostile
                // one is not worth it.
                throw reading.failure ?? Self.explain(error, foreign)
            }
            try splitter.endOfBuffer()
        }
        if let failure = reading.failure { throw failure }
        try parser.finish()
        let actual = hasher.finalize()
        guard actual == diffID else { throw PullError.diffID(expected: diffID, actual: actual) }
        let (stream, statistics) = try splitter.finish()
        return Imported(stream: stream.id, statistics: statistics)
    }

    /// An archive that cannot even begin to be read is in the other format that its first bytes are of.
    private static func explain(_ error: any Error, _ foreign: ForeignFormat?) -> any Error {
        guard let foreign, let fault = error as? TarError, fault.offset < 512 else { return error }
        return OCIError.unsupported(
            document: "the layer's blob",
            "is in \(foreign.rawValue) format, and only layers without compression, with gzip or with zstd are read")
    }
}

/// The reader thread's side of a layer's way, and what leads from it to the splitter.
private final class Reading: @unchecked Sendable {
    let buffers = LayerBufferPool()
    let queue = BoundedQueue<LayerBuffer>(capacity: LayerBufferPool.buffersPerLayer)
    // Both are used by the reader thread only.
    let blob: any BlobReader
    let keeper: BlobKeeper?
    private let outcome = Mutex<(any Error)?>(nil)

    init(_ blob: any BlobReader, _ keeper: BlobKeeper?) {
        self.blob = blob
        self.keeper = keeper
    }

    /// Why the queue ended early; nil if it ended with a verified blob.
    var failure: (any Error)? { outcome.withLock { $0 } }

    func run(_ decompressor: consuming LayerDecompressor) {
        do {
            while let buffer = try decompressor.next(), queue.push(buffer) {}
        } catch {
            outcome.withLock { $0 = error }
        }
        queue.close()
    }

    /// Lets a reader go on that waits for a buffer or for room in the queue.
    func cancel() {
        buffers.cancel()
        queue.cancel()
    }
}

extension BlobDownload.Verdict {
    /// What the error of an import says of the blob.
    static func ofImport(_ error: any Error) -> Self {
        switch error {
        case is RepositoryError, is SystemError: .unrelated
        case PullError.diffID: .unusable
        case is LimitExceeded: .tooLarge
        default: .refused
        }
    }
}

extension BlobClaim: PartialBlob {}
