import ComposefsBytes
package import ComposefsConcurrency
import ComposefsEROFS
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsRepository

/// Limits for a disk whose layers come from a source and were not merged before, and options for making it.
package struct DiskLimits: Sendable {
    /// Entries of all layers together.
    package var entries: UInt64
    /// Bytes of memory that a merged tree may take.
    package var treeBytes: UInt64
    /// Ends the making of a disk with `CancellationError`.
    package var cancellation = Cancellation()
    /// Objects that were stored a moment ago.
    package var stored: StoredObjects?
    /// Whether a file that certainly does not fit is refused before its content is written.
    package var checksSpace = true
    /// Receives the steps of the making, one at a time.
    package var observer: (@Sendable (DiskStep) -> Void)?

    package init(entries: UInt64 = .max, treeBytes: UInt64 = .max) {
        self.entries = entries
        self.treeBytes = treeBytes
    }
}

/// Makes the files of a disk, wherever a sink puts them. The same layers give the same bytes.
struct DiskBuilder {
    let images: ImageStore
    let request: DiskRequest
    let layers: LayerStreams
    var limits = DiskLimits()

    struct Result {
        /// In the order of the disk: a descriptor, the merged image, then the layers from bottom to top.
        var files: [MadeFile] = []
        /// What overlayfs cannot show of a stack.
        var exceptions = StackExceptions()
    }

    static let descriptorName: ByteString = "disk.vmdk"
    static let metadataName: ByteString = "fsmeta.erofs"

    static func layerName(_ index: Int, _ diffID: ContentDigest) -> ByteString {
        let digits = String(index)
        return ByteString(String(repeating: "0", count: max(0, 4 - digits.count)) + digits + "-" + diffID.hex + ".erofs")
    }

    /// The names of a disk's files in their order, and the layers that they hold.
    static func fileNames(_ kind: DiskKind, _ diffIDs: [ContentDigest]) -> [(name: ByteString, diffID: ContentDigest?)] {
        let layers = diffIDs.enumerated().map { (name: layerName($0, $1), diffID: ContentDigest?.some($1)) }
        return switch kind {
        case .single, .flat, .fsmeta: [("", nil)]
        case .layered: layers
        case .vmdk: [(descriptorName, nil), (metadataName, nil)] + layers
        }
    }

    func run(into sink: some DiskSink) throws -> Result {
        try request.check()
        // Other kinds copy layers while they merge.
        let ahead = request.kind.isOfMergedTree && sink.verifiesAhead ? AheadVerifier(images.repository, layers) : nil
        defer { ahead?.end() }
        let proofs = ObjectProofs(images, ahead: ahead, layers: layers)
        return try images.withTreeLimit(limits.treeBytes) {
            switch request.kind {
            case .single: Result(files: [try make("", DiskContent(try ErofsDiskPlan(merged())), sink, proofs)])
            case .flat: Result(files: [try make("", DiskContent(try flatPlan()), sink, proofs)])
            case .fsmeta:
                Result(files: [try make("", DiskContent(try addLayers { _, _ in }.plan(finished, .devices)), sink, proofs)])
            case .layered: try makeLayers(sink, proofs).result
            case .vmdk: try makeVirtualDisk(sink, proofs)
            }
        }
    }

    private func make(_ name: ByteString, _ content: DiskContent, _ sink: some DiskSink, _ proofs: ObjectProofs) throws -> MadeFile {
        try begin(MadeFile(name: name, size: content.byteCount), content, sink, proofs).finish()
    }

    private func begin(
        _ file: MadeFile, _ content: DiskContent, _ sink: some DiskSink, _ proofs: ObjectProofs
    ) throws -> any FileInMaking {
        if limits.checksSpace { try sink.space()?.check(content, from: images.repository) }
        return try sink.begin(file, content, proofs)
    }

    // MARK: Trees

    private func merged() throws -> FileTree {
        let filtering: XattrFiltering? = request.tree == .composefs ? .allowlistOnly : nil
        return finished(try images.mergedTree(of: layers, filtering, entryLimit: limits.entries, treeLimit: limits.treeBytes))
    }

    private func finished(_ merged: FileTree) -> FileTree {
        limits.observer?(.joining(request.kind))
        var merged = merged
        if request.tree == .composefs { transformForContainer(&merged) }
        return merged
    }

    // MARK: EROFS

    /// The merged tree of layers, and where their images have their blocks.
    private struct Merged {
        var tree: FileTree
        var space: ErofsBlockSpace

        func plan(_ finish: (FileTree) -> FileTree, _ form: ErofsBlockSpace.Form) throws -> ErofsDiskPlan {
            try ErofsDiskPlan(finish(tree), .space(space, form))
        }
    }

    private func addLayers(_ body: (Int, (layer: StackableLayer, plan: ErofsDiskPlan)) throws -> Void) throws -> Merged {
        var space = ErofsBlockSpace()
        let tree = try images.mergedTree(ofStack: layers, entryLimit: limits.entries, treeLimit: limits.treeBytes) { index, layer in
            let plan = try ErofsDiskPlan(layer.tree)
            try space.append(plan)
            try body(index, (layer, plan))
        }
        return Merged(tree: tree, space: space)
    }

    private func makeLayers(_ sink: some DiskSink, _ proofs: ObjectProofs) throws -> (result: Result, merged: Merged) {
        var result = Result()
        var pending: (any FileInMaking)?
        let merged = try addLayers { index, added in
            result.exceptions.append(contentsOf: added.layer.exceptions)
            // The content of one is copied while the next one is merged.
            if let file = try pending?.finish() { result.files.append(file) }
            pending = nil
            if index > 0 { limits.observer?(.layerWritten(index - 1)) }
            limits.observer?(.layer(index, byteCount: added.plan.byteCount))
            if let file = try sink.existingLayer(index) {
                result.files.append(file)
            } else {
                let diffID = layers.diffIDs[index]
                let file = MadeFile(name: Self.layerName(index, diffID), size: added.plan.byteCount, diffID: diffID)
                pending = try begin(file, DiskContent(added.plan), sink, proofs)
            }
        }
        if let file = try pending?.finish() { result.files.append(file) }
        if !layers.diffIDs.isEmpty { limits.observer?(.layerWritten(layers.diffIDs.count - 1)) }
        return (result, merged)
    }

    private func makeVirtualDisk(_ sink: some DiskSink, _ proofs: ObjectProofs) throws -> Result {
        var (result, merged) = try makeLayers(sink, proofs)
        // Machines see one disk, on which nothing of a stack is left out.
        result.exceptions = []
        result.files.insert(try make(Self.metadataName, DiskContent(try merged.plan(finished, .oneDisk)), sink, proofs), at: 0)
        let descriptor = Self.descriptor(of: result.files) { sink.extentName(of: $0) }
        result.files.insert(try make(Self.descriptorName, DiskContent(descriptor), sink, proofs), at: 0)
        return result
    }

    /// - Parameter extents: the merged image and the layers.
    static func descriptor(of extents: [MadeFile], _ name: (MadeFile) -> ByteString) -> [UInt8] {
        VirtualDisk(extents: extents.map { (name($0), $0.size) }).descriptor
    }

    // MARK: ext4

    private func flatPlan() throws -> Ext4Plan {
        // From the layers: that of the tree depends on the digests of the repository.
        let chainID = ContentDigest.chainID(of: layers.diffIDs)
        let identity = ContentDigest.of(Array("cfsoci flat disk\0\(request.tree.rawValue)\0\(chainID)".utf8))
        var options = Ext4Options(uuid: Ext4UUID(random: identity.bytes))
        if let size = request.size {
            options.size = .exactly(size)
            options.journal = .automatic
        }
        var failure: (any Error)?
        let tree = try merged()
        let sparse = try images.sparseObjects(of: layers)
        // Only what the archives hold as sparse files is searched for holes: the layout must not depend on how a repository stores its objects.
        let plan = try Ext4Plan(tree, options) { id, size in
            guard failure == nil, sparse.contains(id) else { return [] }
            do {
                return try zeros(of: id, size)
            } catch {
                failure = error
                return []
            }
        }
        if let failure { throw failure }
        return plan
    }

    /// The ranges of an object's bytes that are zero, in whole blocks. The object is verified when it is copied.
    private func zeros(of id: ObjectID, _ size: UInt64) throws -> [Range<UInt64>] {
        let file = try images.repository.openObject(id, verify: false)
        var found: [Range<UInt64>] = []
        func add(_ range: Range<UInt64>) {
            guard !range.isEmpty else { return }
            if let last = found.last, last.upperBound == range.lowerBound {
                found[found.count - 1] = last.lowerBound..<range.upperBound
            } else {
                found.append(range)
            }
        }
        let blockSize = 4096
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: blockSize)
        defer { buffer.deallocate() }
        var position: UInt64 = 0
        while position < size {
            // A hole begins and ends with a block, whatever the file system's blocks are.
            let data = min(try file.nextData(from: position) ?? size, size)
            let start = data == size ? size : data & ~UInt64(blockSize - 1)
            if start > position {
                add(position..<start)
                position = start
                continue
            }
            let count = try file.preadFully(into: buffer, at: position)
            guard count > 0 else { break }
            for block in stride(from: 0, to: count, by: blockSize) {
                let bytes = buffer[block..<min(count, block + blockSize)]
                let at = position + UInt64(block)
                if bytes.allSatisfy({ $0 == 0 }) { add(at..<min(size, at + UInt64(bytes.count))) }
            }
            position += UInt64(count)
        }
        return found
    }
}
