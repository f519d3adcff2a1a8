import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository
import ComposefsSplitStream

/// Keeps a layer's blob while the layer is imported.
final class BlobKeeper: BlobSink {
    private let repository: Repository
    private var writer: ObjectWriter?

    init(_ repository: Repository) throws {
        self.repository = repository
        writer = try repository.makeObjectWriter()
    }

    func append(_ bytes: UnsafeRawBufferPointer) throws { try writer?.append(bytes) }

    /// Stores the blob once its digest is known to be right, and stages its stream.
    func finish(_ digest: ContentDigest) throws {
        guard let writer = writer.take() else { return }
        let object = try writer.finish()
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try stream.external(object.id, size: object.size)
        let id = try stream.finish().id
        try LayerMark.set(digest, on: id, in: repository)
        try repository.stage(StreamName.blob(digest), id)
    }
}
