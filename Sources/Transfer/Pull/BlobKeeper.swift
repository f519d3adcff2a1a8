import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository
import ComposefsSplitStream

/// Stores a layer's original blob while the layer is imported. Each pass over the blob has its own keeper.
final class BlobKeeper {
    private let repository: Repository
    private var writer: ObjectWriter?

    init(_ repository: Repository) throws {
        self.repository = repository
        writer = try repository.makeObjectWriter()
    }

    /// Appends the blob's next bytes, which are compressed and not verified yet.
    func append(_ bytes: UnsafeRawBufferPointer) throws { try writer?.append(bytes) }

    /// Stores the blob and stages its stream. The caller has verified the digest.
    func finish(_ digest: ContentDigest) throws {
        guard let writer = writer.take() else { return }
        let object = try writer.finish()
        var stream = try repository.makeStreamBuilder(contentType: StreamContentType.blob)
        try stream.external(object.id, size: object.size)
        let id = try stream.finish().id
        try LayerHint.set(digest, on: id, in: repository)
        try repository.stage(StreamName.blob(digest), id)
    }
}
