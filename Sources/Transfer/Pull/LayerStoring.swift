import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsOCIModel
import ComposefsRepository
public import ComposefsTransports

extension ImageStore {
    /// Stores and publishes one layer without an image, durably.
    ///
    /// No reference keeps the layer: garbage collection removes it unless an image that contains it is stored before.
    ///
    /// - Parameters:
    ///   - diffID: the digest of the uncompressed archive, which is verified.
    ///   - blob: a tar archive of any size, possibly compressed.
    ///   - limits: limits for the archive.
    /// - Returns: the object of the split stream.
    /// - Throws: `PullError.diffID`, `LimitExceeded`, `OCIError`, `TarError`, `RepositoryError`, and errors of the blob's reader.
    public func importLayer(
        _ diffID: ContentDigest, from blob: any BlobReader, limits: PullLimits = PullLimits()
    ) throws -> ObjectID {
        try storeLayer(diffID, from: blob, limits: limits).stream
    }

    /// The same, and what it took.
    ///
    /// - Returns: the object of the split stream; the objects and bytes of the layer, nil if the store has it already, and then the blob is not
    ///   read.
    package func storeLayer(
        _ diffID: ContentDigest, from blob: any BlobReader, limits: PullLimits = PullLimits()
    ) throws -> (stream: ObjectID, statistics: LayerStatistics?) {
        let name = StreamName.layer(diffID)
        var publication = Repository.Publication()
        if let stream = try presentLayer(diffID) {
            // An interrupted pull may have stored the layer without publishing it.
            if try usableStream(name) != stream {
                publication.stream(name, stream)
                try repository.publish(publication)
            }
            return (stream, nil)
        }
        try repository.beginPull()
        let pipeline = LayerPipeline(
            repository: repository, objectPool: WorkerPool(threads: Host.processorCount), readerPool: WorkerPool(threads: 1),
            profile: PullProfile(), limits: limits)
        defer { pipeline.shutdown() }
        let imported = try pipeline.run(blob, nil, diffID: diffID)
        try LayerHint.set(diffID, on: imported.stream, in: repository)
        publication.stream(name, imported.stream)
        try repository.publish(publication)
        return (imported.stream, imported.statistics)
    }
}
