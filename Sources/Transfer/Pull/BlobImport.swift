package import ComposefsImageStore
package import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream
package import ComposefsTransports

extension ImageStore {
    /// Stores and verifies a blob of any size: one object, and a stream that refers to it. The stream is not published.
    ///
    /// - Parameter onBytes: called with the number of bytes received so far.
    /// - Throws: `PullError`, `RepositoryError`, and errors of the blob's reader.
    package func importBlob(
        _ blob: any BlobReader, _ descriptor: Descriptor, profile: PullProfile = PullProfile(), onBytes: (UInt64) -> Void = { _ in }
    ) throws -> LayerPipeline.Imported {
        var source = VerifiedBlob(blob: blob, descriptor: descriptor, profile: profile)
        var writer = try repository.makeObjectWriter()
        while true {
            try source.fill()
            if source.isAtEnd { break }
            try writer.append(source.takeAll())
            onBytes(source.received)
        }
        try source.finish()
        let object = try writer.finish()
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try stream.external(object.id, size: object.size)
        var statistics = LayerStatistics()
        statistics.add(object)
        return LayerPipeline.Imported(stream: try stream.finish().id, statistics: statistics)
    }
}
