import ComposefsEROFS
public import ComposefsFileTree
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTar

extension ImageStore {
    /// The merged tree of layers, from bottom to top, before any transform.
    ///
    /// - Parameters:
    ///   - filtering: leaves out extended attributes that it does not allow; nil keeps all.
    ///   - entryLimit: entries of all layers together; more are `LimitExceeded`.
    ///   - treeLimit: bytes of memory that the tree and its image may take; more are `LimitExceeded`.
    func mergedTree(
        of layers: [(diffID: ContentDigest, stream: ObjectID)], _ filtering: XattrFiltering? = nil, entryLimit: UInt64 = .max,
        treeLimit: UInt64 = .max
    ) throws -> FileTree {
        var merger = LayerMerger(filtering, memoryLimit: treeLimit)
        var entries: UInt64 = 0
        Misbehaviour.act(at: .merge)
        for layer in layers {
            merger.beginLayer()
            try forEachEntry(of: layer.stream) { entry, content in
                entries += 1
                guard entries <= entryLimit else { throw LimitExceeded(.imageEntries, allowed: entryLimit) }
                try merger.add(entry, content: content.leaf)
            }
            try merger.endLayer()
        }
        return merger.finish()
    }

    /// Reports which limit a tree exceeds.
    private func withTreeLimit<Value>(_ limit: UInt64, _ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let error as MergeError where error.memoryLimit != nil {
            throw LimitExceeded(.treeBytes, allowed: limit, location: LimitExceeded.entry(error.path, at: error.offset))
        }
    }

    /// The tree of an image's EROFS image: merged, and in canonical container form.
    package func containerTree(
        of layers: [(diffID: ContentDigest, stream: ObjectID)], _ filtering: XattrFiltering = .allowlistOnly, entryLimit: UInt64 = .max,
        treeLimit: UInt64 = .max
    ) throws -> FileTree {
        var tree = try withTreeLimit(treeLimit) {
            try mergedTree(of: layers, filtering, entryLimit: entryLimit, treeLimit: treeLimit)
        }
        transformForContainer(&tree, filtering)
        return tree
    }

    /// The tree of a stored image's EROFS image, merged again from its layers.
    ///
    /// - Throws: `ImageStoreError.isArtifact`; `ImageStoreError.damaged`, `RepositoryError` if the store is damaged.
    public func tree(of image: StoredImage, _ filtering: XattrFiltering = .allowlistOnly) throws -> FileTree {
        try containerTree(of: try layers(of: image), filtering)
    }

    /// An image's layers with their streams, from bottom to top.
    package func layers(of image: StoredImage) throws -> [(diffID: ContentDigest, stream: ObjectID)] {
        guard let config = image.config else { throw ImageStoreError.isArtifact(image.manifestDigest) }
        return try config.diffIDs.map { diffID in
            guard let stream = image.layerStream(diffID) else {
                throw ImageStoreError.damaged(stream: StreamName.config(image.configDigest), .missingLayer(diffID))
            }
            return (diffID, stream)
        }
    }
}
