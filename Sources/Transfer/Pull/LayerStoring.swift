import ComposefsConcurrency
public import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
public import ComposefsOCIModel
import ComposefsRepository
public import ComposefsTransports

extension ImageStore {
    /// Stores one layer that comes without an image: a tar archive, compressed or not, of any size. Its diff ID is verified, and it is
    /// published, durably. Returns the split stream's object.
    ///
    /// Nothing keeps the layer yet: garbage collection takes it unless an image is pulled that has it.
    public func importLayer(
        _ diffID: ContentDigest, from blob: any BlobReader, limits: PullLimits = PullLimits()
    ) throws -> ObjectID {
        let name = StreamName.layer(diffID)
        var publication = Repository.Publication()
        if let stream = try presentLayer(diffID) {
            // A pull that did not come to its end may have stored it without publishing it.
            if try usableStream(name) != stream {
                publication.stream(name, stream)
                try repository.publish(publication)
            }
            return stream
        }
        try repository.beginPull()
        let pipeline = LayerPipeline(
            repository: repository, objectPool: WorkerPool(threads: Host.processorCount), readerPool: WorkerPool(threads: 1),
            profile: PullProfile(), limits: limits)
        defer { pipeline.shutdown() }
        let imported = try pipeline.run(blob, nil, diffID: diffID)
        try LayerMark.set(diffID, on: imported.stream, in: repository)
        publication.stream(name, imported.stream)
        try repository.publish(publication)
        return imported.stream
    }
}
