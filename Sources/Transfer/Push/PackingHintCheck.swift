public import ComposefsBytes
import ComposefsCompression
import ComposefsConcurrency
import ComposefsHashing
public import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTransports

extension ImageStore {
    /// Compares the hints about compressed layers (`PackingHint`) with the blobs that the layers are compressed to. A wrong hint has no
    /// effect on a push, but cfsoci never writes one, so it is reported.
    ///
    /// - Parameters:
    ///   - only: the image, as for `resolve`; nil for all layers.
    ///   - options: with `metadataOnly`, layers are not compressed, and only the form of the hints is checked.
    /// - Returns: the problems, of the kind `packing-mark-mismatch`.
    /// - Throws: `ImageStoreError`, `RepositoryError`.
    public func checkPackingHints(_ only: ByteString? = nil, _ options: ImageCheckOptions = ImageCheckOptions()) throws -> [ImageProblem] {
        let layers =
            if let only {
                try image(resolve(only).manifestDigest)?.layerIdentifiers ?? []
            } else {
                try repository.streamNames().compactMap { StreamName.digest(in: $0, after: StreamName.layerPrefix) }
            }
        let pool = WorkerPool(threads: Host.processorCount)
        defer { pool.shutdown() }
        var problems: [ImageProblem] = []
        for layer in layers {
            let name = StreamName.layer(layer)
            // Other checks report missing and unreadable streams.
            guard let stream = try? repository.stream(name), let file = try? repository.openObject(stream, verify: false),
                let attributes = try? file.extendedAttributes()
            else { continue }
            for attribute in attributes where attribute.name.hasPrefix(ByteString(PackingHint.prefix)) {
                guard let fault = fault(of: attribute, layer, stream, pool, options) else { continue }
                problems.append(
                    ImageProblem(kind: "packing-mark-mismatch", image: name, detail: "\(attribute.name) of object \(stream) \(fault)"))
            }
        }
        return problems
    }

    private func fault(
        of attribute: FileDescriptor.ExtendedAttribute, _ layer: ContentDigest, _ stream: ObjectID, _ pool: WorkerPool,
        _ options: ImageCheckOptions
    ) -> String? {
        guard let (format, level) = PackingHint.packing(attribute.name), let hint = attribute.value.utf8Text.flatMap({ PackingHint($0) })
        else {
            return "cannot be read"
        }
        guard hint.diffID == layer else {
            // The same stream has a name for each digest algorithm.
            return hint.diffID.algorithm == layer.algorithm ? "belongs to the layer \(hint.diffID)" : nil
        }
        let packing = LayerPacking(store: self, stream: stream, diffID: layer, format: format, level: level, pool: pool, onBytes: { _ in })
        guard !options.metadataOnly, PackingHint.isOfThisEncoder(hint, format), let made = try? packing.measure(), made != hint.blob else {
            return nil
        }
        return "names the blob \(hint.blob.digest), but compressing the layer results in \(made.digest)"
    }
}

extension PackingHint {
    fileprivate static func isOfThisEncoder(_ hint: PackingHint, _ format: CompressionFormat) -> Bool {
        hint.encoder == Encoders.name(format)
    }
}
