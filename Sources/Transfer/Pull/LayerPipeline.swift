import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsDisks
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTar
import ComposefsTransports
import Synchronization

/// The stages that turn a layer's blob into a verified split stream, to which nothing refers yet:
///
/// ```
///   download ─▶ verify ─▶ decompress ═▶ split ═▶ store
///   BlobDownload  VerifiedBlob  LayerDecompressor   LayerSplitter   ObjectBatch, LargeObject
/// ```
///
/// The output of each stage is the input of the next one. A double arrow is a change of threads: a reader thread downloads, verifies and
/// decompresses into buffers; the caller's thread computes the diff ID and splits the archive; the object pool hashes and writes the
/// contents of files. A layer has a fixed number of buffers, so memory use does not depend on its size.
package struct LayerPipeline: Sendable {
    let repository: Repository
    /// Stores objects; shared by all layers of a pull.
    let objectPool: WorkerPool
    /// One thread for each layer that is imported at the same time.
    let readerPool: WorkerPool
    let profile: PullProfile
    let limits: PullLimits
    /// Remembers objects, if a disk is made at the same time.
    var storedObjects: StoredObjects?

    /// A layer or blob that has been stored.
    package struct Imported: Sendable {
        var stream: ObjectID
        var statistics: LayerStatistics
    }

    /// Imports one layer and blocks until it is stored.
    ///
    /// - Parameters:
    ///   - blob: the download, or another reader of the blob.
    ///   - descriptor: the blob's size and digest; nil if they are not known.
    ///   - diffID: the expected digest of the uncompressed archive.
    ///   - keeper: stores the original blob.
    ///   - onBytes: called on the reader thread, with the number of the blob's bytes that have arrived since the last call.
    /// - Throws: errors of the blob, the archive and the store. Only unreferenced objects remain then.
    func run(
        _ blob: any BlobReader, _ descriptor: Descriptor?, diffID: ContentDigest, keeper: BlobKeeper? = nil,
        onBytes: @escaping @Sendable (UInt64) -> Void = { _ in }
    ) throws -> Imported {
        // Without a thread of its own, the reader would block forever when the queue is full.
        guard readerPool.threadCount > 0 else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
        let reading = Reading(blob, keeper)
        let hasEnded = Semaphore(0)
        readerPool.submit { [profile] in
            let verified = VerifiedBlob(blob: reading.blob, descriptor: descriptor, keeper: reading.keeper, profile: profile)
            reading.run(LayerDecompressor(verified, into: reading.buffers, profile, onBytes: onBytes))
            hasEnded.signal()
        }
        defer {
            // The reader thread uses the blob until it has stopped.
            reading.cancel()
            hasEnded.wait()
        }
        return try split(reading, diffID: diffID)
    }

    /// Waits for pending objects, of which there can be some after a failure, and ends the threads.
    func shutdown() {
        readerPool.shutdown()
        objectPool.shutdown()
    }

    /// Runs the stages of this thread, from buffers to the split stream.
    private func split(_ reading: Reading, diffID: ContentDigest) throws -> Imported {
        var splitter = try LayerSplitter(repository, pool: objectPool, profile: profile, limits: limits, storedObjects: storedObjects)
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
                // If the blob is damaged, that error explains more than the parser's. The check does not wait for the rest of the blob,
                // which may be hostile.
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

    /// The error to report for an archive whose first block cannot be parsed: if it has a known other format, the error names that.
    private static func explain(_ error: any Error, _ foreign: ForeignFormat?) -> any Error {
        guard let foreign, let fault = error as? TarError, fault.offset < 512 else { return error }
        return OCIError.unsupported(document: "the layer's blob", .layerFormat(foreign))
    }
}

/// The state of the reader thread, and the queue between it and the splitter.
private final class Reading: @unchecked Sendable {
    let buffers = LayerBufferPool()
    let queue = BoundedQueue<LayerBuffer>(capacity: LayerBufferPool.buffersPerLayer)
    // Only the reader thread uses these two.
    let blob: any BlobReader
    let keeper: BlobKeeper?
    private let outcome = Mutex<(any Error)?>(nil)

    init(_ blob: any BlobReader, _ keeper: BlobKeeper?) {
        self.blob = blob
        self.keeper = keeper
    }

    /// The error that ended the queue early; nil if it ended with a verified blob.
    var failure: (any Error)? { outcome.withLock { $0 } }

    func run(_ decompressor: consuming LayerDecompressor) {
        do {
            while let buffer = try decompressor.next(), queue.push(buffer) {}
        } catch {
            outcome.withLock { $0 = error }
        }
        queue.close()
    }

    /// Wakes the reader thread if it waits for a buffer or for room in the queue.
    func cancel() {
        buffers.cancel()
        queue.cancel()
    }
}

extension BlobDownload.Verdict {
    /// What the error of an import says about the blob.
    static func ofImport(_ error: any Error) -> Self {
        switch error {
        case is RepositoryError, is SystemError: .unrelated
        case PullError.diffID: .unusable
        case is LimitExceeded: .tooLarge
        default: .refused
        }
    }
}

extension BlobLease: PartialBlob {}
