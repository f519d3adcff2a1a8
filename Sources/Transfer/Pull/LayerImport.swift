import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTar
import ComposefsTransports

/// One layer, from its blob to a verified split stream object that nothing refers to yet.
package struct LayerImport: Sendable {
    let repository: Repository
    /// Stores objects; shared by all layers of a pull.
    let objectPool: WorkerPool
    /// One thread for each layer that is imported at the same time.
    let feederPool: WorkerPool
    let profile: PullProfile
    let limits: PullLimits

    package struct Imported: Sendable {
        var stream: ObjectID
        var statistics: LayerStatistics
    }

    /// - Throws: what the blob, the archive or the store refused; nothing but unreferenced objects is left behind then.
    func run(
        _ blob: any BlobReader, _ descriptor: Descriptor?, diffID: ContentDigest, sink: (any BlobSink)? = nil,
        onBytes: @escaping @Sendable (UInt64) -> Void
    ) throws -> Imported {
        // Run by this thread, a feeder would wait for ever for its reader.
        guard feederPool.threadCount > 0 else { throw SystemError(operation: "start a thread", errno: .tryAgain) }
        let feeder = LayerFeeder(blob: blob, descriptor: descriptor, sink: sink, profile: profile, onBytes: onBytes)
        let fed = Semaphore(0)
        feederPool.submit {
            feeder.run()
            fed.signal()
        }
        defer {
            // The blob's reader belongs to the feeder until it has stopped.
            feeder.cancel()
            fed.wait()
        }
        return try split(feeder, diffID: diffID)
    }

    /// An archive that cannot even begin to be read is in the other format that its first bytes are of.
    private static func explain(_ error: any Error, _ foreign: ForeignFormat?) -> any Error {
        guard let foreign, let fault = error as? TarError, fault.offset < 512 else { return error }
        return OCIError.unsupported(
            document: "the layer's blob",
            "is in \(foreign.rawValue) format, and only layers without compression, with gzip or with zstd are read")
    }

    /// Waits for what is being stored and ends the threads. After a failure some objects of the layer may still be on their way.
    func shutdown() {
        feederPool.shutdown()
        objectPool.shutdown()
    }

    private func split(_ feeder: LayerFeeder, diffID: ContentDigest) throws -> Imported {
        var splitter = try LayerSplitter(repository, pool: objectPool, profile: profile, limits: limits)
        var parser = TarParser()
        var hasher = DigestHasher(diffID.algorithm)
        var room = limits.layerBytes
        var foreign: ForeignFormat?
        while let slab = feeder.queue.pop() {
            guard UInt64(slab.count) <= room else { throw LimitExceeded(.layerBytes, allowed: limits.layerBytes) }
            room -= UInt64(slab.count)
            profile.measure(.digest) { hasher.update(slab.bytes) }
            if parser.position == 0 { foreign = ForeignFormat.detect(slab.bytes) }
            splitter.slab = slab
            do {
                try profile.measure(.split) { try parser.feed(slab.bytes, to: &splitter) }
            } catch {
                // A damaged blob is the better explanation of an archive that cannot be read; but waiting for the rest of a hostile
                // one is not worth it.
                throw feeder.failure ?? Self.explain(error, foreign)
            }
            try splitter.endOfSlab()
        }
        if let failure = feeder.failure { throw failure }
        try parser.finish()
        let actual = hasher.finalize()
        guard actual == diffID else { throw PullError.diffID(expected: diffID, actual: actual) }
        let (stream, statistics) = try splitter.finish()
        return Imported(stream: stream.id, statistics: statistics)
    }
}
