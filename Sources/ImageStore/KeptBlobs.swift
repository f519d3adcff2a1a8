import ComposefsBytes
public import ComposefsHashing
public import ComposefsLinuxSystem
package import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream

/// Blobs of container layers that are kept unchanged, beside the split streams that were made of them: pushes and exports then send exactly
/// what was pulled.
///
/// A kept blob is a blob stream, `streams/oci-blob-<digest>`, and the manifest stream has a reference `blob:<digest>` to it, so it exists
/// as long as the manifest. Other programs that rewrite the manifest stream drop the reference, and the next garbage collection removes the
/// blob: that loses the exact compression, but no content.
extension ImageStore {
    /// Opens the kept blob of a layer; nil if it is not kept. It is verified as other objects of the repository are.
    public func openKeptBlob(_ digest: ContentDigest, of image: StoredImage) throws -> FileDescriptor? {
        guard let stream = image.keptBlobs.first(where: { $0.digest == digest })?.stream else { return nil }
        return try openBlob(stream: stream, StreamName.blob(digest))
    }

    /// The blobs that a manifest stream will keep: the given ones and those that it keeps already, in the order of its layers.
    package func keptBlobs(
        of manifest: Manifest, _ digest: ContentDigest, adding new: [(digest: ContentDigest, stream: ObjectID)]
    ) throws -> [(digest: ContentDigest, stream: ObjectID)] {
        var kept = Dictionary(new.map { ($0.digest, $0.stream) }, uniquingKeysWith: { first, _ in first })
        // A stream that cannot be read is being replaced and keeps no blobs.
        if let id = try usableStream(StreamName.manifest(digest)),
            let known = try? repository.openStream(id, contentType: StreamContentType.manifest).namedReferences
        {
            for blob in ReferenceKey.blobs(in: known) where kept[blob.digest] == nil {
                if try isWhole(blob.stream, StreamContentType.blob) { kept[blob.digest] = blob.stream }
            }
        }
        var ordered: [(digest: ContentDigest, stream: ObjectID)] = []
        for layer in manifest.layers {
            if let stream = kept.removeValue(forKey: layer.digest) { ordered.append((layer.digest, stream)) }
        }
        return ordered
    }
}
