import ComposefsEROFS
public import ComposefsFileTree
package import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSplitStream
import ComposefsTar
import Synchronization

/// The layers of an image, from bottom to top. A pull may store their streams while others read them.
package struct LayerStreams: Sendable {
    package var diffIDs: [ContentDigest]
    private var stream: @Sendable (Int) throws -> ObjectID
    fileprivate var sharing: SharedTree?

    /// - Parameters:
    ///   - sharing: keeps the tree of the first merge for the next ones.
    ///   - stream: the stream of the layer with an index; may wait until it is stored.
    package init(_ diffIDs: [ContentDigest], sharing: SharedTree? = nil, _ stream: @escaping @Sendable (Int) throws -> ObjectID) {
        self.diffIDs = diffIDs
        self.stream = stream
        self.sharing = sharing
    }

    package init(_ layers: [(diffID: ContentDigest, stream: ObjectID)]) {
        let streams = layers.map(\.stream)
        self.init(layers.map(\.diffID)) { streams[$0] }
    }

    package func stream(_ index: Int) throws -> ObjectID { try stream(index) }
}

/// The merged tree of layers that several users need. It may have more extended attributes than some of them want.
package final class SharedTree: Sendable {
    fileprivate let filtering: XattrFiltering?
    private let tree = Mutex<FileTree?>(nil)
    private let merged: @Sendable (FileTree) -> Void

    /// - Parameters:
    ///   - filtering: leaves out extended attributes that no user wants.
    ///   - merged: takes the tree as soon as there is one.
    package init(_ filtering: XattrFiltering?, _ merged: @escaping @Sendable (FileTree) -> Void) {
        self.filtering = filtering
        self.merged = merged
    }

    fileprivate var known: FileTree? { tree.withLock { $0 } }

    fileprivate func keep(_ new: FileTree) {
        let isFirst = tree.withLock { tree in
            guard tree == nil else { return false }
            tree = new
            return true
        }
        if isFirst { merged(new) }
    }

    /// Lets go of the tree, so that its last user can change it without a copy.
    package func end() { tree.withLock { $0 = nil } }
}

extension ImageStore {
    /// The merged tree of layers, from bottom to top, before any transform.
    ///
    /// - Parameters:
    ///   - filtering: leaves out extended attributes that it does not allow; nil keeps all.
    ///   - entryLimit: entries of all layers together; more are `LimitExceeded`.
    ///   - treeLimit: bytes of memory that the tree and its image may take; more are `LimitExceeded`.
    package func mergedTree(
        of layers: [(diffID: ContentDigest, stream: ObjectID)], _ filtering: XattrFiltering? = nil, entryLimit: UInt64 = .max,
        treeLimit: UInt64 = .max
    ) throws -> FileTree {
        try mergedTree(of: LayerStreams(layers), filtering, entryLimit: entryLimit, treeLimit: treeLimit)
    }

    /// The same of layers that may be stored later. A tree that is shared has all attributes that any user wants.
    package func mergedTree(
        of layers: LayerStreams, _ filtering: XattrFiltering? = nil, entryLimit: UInt64 = .max, treeLimit: UInt64 = .max
    ) throws -> FileTree {
        if let known = layers.sharing?.known { return known }
        let filtering = if let sharing = layers.sharing { sharing.filtering } else { filtering }
        var merger = LayerMerger(filtering, memoryLimit: treeLimit, in: repository.memory)
        try merge(layers, into: &merger, entryLimit: entryLimit) { _, _ in }
        let tree = merger.finish()
        layers.sharing?.keep(tree)
        return tree
    }

    /// The merged tree of layers with all their extended attributes, and on the way what each layer adds to those below it.
    ///
    /// - Parameters:
    ///   - entryLimit: as for `mergedTree(of:)`.
    ///   - treeLimit: as for `mergedTree(of:)`.
    ///   - body: takes the index of each layer, from bottom to top, and what overlayfs needs of it.
    package func mergedTree(
        ofStack layers: LayerStreams, entryLimit: UInt64 = .max, treeLimit: UInt64 = .max,
        _ body: (_ index: Int, StackableLayer) throws -> Void
    ) throws -> FileTree {
        var merger = LayerMerger(recordingRemovals: (), memoryLimit: treeLimit, in: repository.memory)
        var stack = LayerStack(in: repository.memory)
        try merge(layers, into: &merger, entryLimit: entryLimit) { index, merger in try body(index, try stack.layer(of: merger)) }
        let tree = merger.finish()
        if let sharing = layers.sharing {
            precondition(sharing.filtering == nil, "the layers of a stack keep all extended attributes")
            sharing.keep(tree)
        }
        return tree
    }

    /// Applies layers, from bottom to top.
    ///
    /// - Parameter afterEach: takes the index of each layer when it is applied, and the merger.
    private func merge(
        _ layers: LayerStreams, into merger: inout LayerMerger, entryLimit: UInt64,
        afterEach: (_ index: Int, borrowing LayerMerger) throws -> Void
    ) throws {
        var entries: UInt64 = 0
        for index in layers.diffIDs.indices {
            let stream = try layers.stream(index)
            Misbehaviour.act(at: .merge)
            merger.beginLayer()
            try forEachEntry(of: stream) { entry, content in
                entries += 1
                guard entries <= entryLimit else { throw LimitExceeded(.imageEntries, allowed: entryLimit) }
                try merger.add(entry, content: content.leaf)
            }
            try merger.endLayer()
            try afterEach(index, merger)
        }
    }

    /// The objects that are contents of sparse files of the layers' archives.
    package func sparseObjects(of layers: LayerStreams) throws -> Set<ObjectID> {
        var found: Set<ObjectID> = []
        for index in layers.diffIDs.indices {
            let stream = try repository.openStream(try layers.stream(index), contentType: StreamContentType.layer)
            for reference in stream.namedReferences where reference.name.hasPrefix(SparseFile.referencePrefix) {
                found.insert(reference.id)
            }
        }
        return found
    }

    /// Reports which limit a tree exceeds.
    package func withTreeLimit<Value>(_ limit: UInt64, _ body: () throws -> Value) throws -> Value {
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
