package import ComposefsConcurrency
package import ComposefsHashing
package import ComposefsOCIModel

/// A manifest or index of an image, verified.
package struct ImageDocument: Sendable {
    package var document: ManifestDocument
    package var digest: ContentDigest

    package init(_ document: ManifestDocument, _ digest: ContentDigest) {
        self.document = document
        self.digest = digest
    }

    package var bytes: [UInt8] {
        switch document {
        case .manifest(let manifest): manifest.bytes
        case .index(let index): index.bytes
        }
    }

    package var mediaType: String {
        switch document {
        case .manifest(let manifest): manifest.mediaType
        case .index(let index): index.mediaType
        }
    }
}

/// Reads all documents of an image: the manifest that a reference names, or the index and every manifest and index below it, each once. An
/// index follows the documents that it lists, so the one that the reference names is the last. Attestations, artifacts and manifests of
/// unknown platforms are included. Size and digest of every document are compared with the descriptor that names it.
///
/// - Parameters:
///   - source: the image's source.
///   - limits: sizes of manifests and depth of indexes. The number of documents is limited, too.
///   - cancellation: ends reading, with `CancellationError`.
/// - Throws: `OCIError`, also if an index lists something that is neither a manifest nor an index; `LimitExceeded`, `CancellationError`,
///   or what the source throws.
package func readImageDocuments(
    _ source: any ImageSource, limits: PullLimits, _ cancellation: Cancellation
) throws -> [ImageDocument] {
    try cancellation.check()
    switch try readRoot(source, limits) {
    case .manifest(let manifest): return [ImageDocument(.manifest(manifest.manifest), manifest.digest)]
    case .index(let index, let digest):
        var documents: [ImageDocument] = []
        var reader = IndexReader(source: source, limits: limits, cancellation: cancellation)
        func visit(_ index: ImageIndex, _ digest: ContentDigest, depth: UInt64) throws {
            for entry in index.manifests {
                // Without it the copy would have an index that names something missing.
                guard entry.isOfKnownKind else {
                    if MediaType.isDockerSchema1(entry.mediaType) { throw ManifestDocument.schema1 }
                    throw OCIError.unsupported(document: "entry \(entry.digest) of index \(digest)", .mediaType(entry.mediaType))
                }
                switch try reader.read(entry, depth: depth) {
                case .index(let inner)?: try visit(inner, entry.digest, depth: depth + 1)
                case .manifest(let manifest)?: documents.append(ImageDocument(.manifest(manifest), entry.digest))
                case nil: break
                }
            }
            documents.append(ImageDocument(.index(index), digest))
        }
        try visit(index, digest, depth: 1)
        return documents
    }
}
