import ComposefsHashing
import ComposefsImageStore
import ComposefsRepository
import ComposefsSplitStream

/// Keeps a layer's blob, as it comes, while the layer is imported. A pass over the blob that begins again has a keeper of its own.
final class BlobKeeper {
    private let repository: Repository
    private var writer: ObjectWriter?

    init(_ repository: Repository) throws {
        self.repository = repository
        writer = try repository.makeObjectWriter()
    }

    /// Takes the blob's next bytes, still compressed and not verified yet.
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
