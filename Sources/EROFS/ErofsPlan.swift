internal import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// The composefs EROFS image of a tree, of which every part has its place. The result equals, byte for byte, that of the version's reference
/// implementations.
///
/// Only inodes that the root reaches are written. The size of the image is a multiple of 4096 and at most 1 GiB. Version 2 drops the
/// nanoseconds of times. Time and memory are linear in the size of the tree; the image itself is never in memory as a whole.
public struct ErofsPlan: Sendable {
    private let tree: FileTree
    private let plan: ImagePlan
    private let lists: AttributeLists
    private let layout: ImageLayout

    /// - Throws: `ErofsError.unwritable` with the path if the format cannot express an inode; `ErofsError.imageTooLarge`.
    public init(_ tree: FileTree, version: ErofsVersion) throws(ErofsError) {
        self.tree = tree
        plan = try ImagePlan(tree, version: version)
        lists = try AttributeLists(plan, tree)
        layout = try ImageLayout(plan, lists, tree)
    }

    /// The size of the image in bytes.
    public var byteCount: Int { layout.size }

    /// Passes the image to `body`, in parts from its beginning to its end. The bytes are valid only during the call.
    public func write<Failure: Error>(_ body: (UnsafeRawBufferPointer) throws(Failure) -> Void) throws(Failure) {
        var window = ImageWindow(limit: layout.size)
        defer { window.deallocate() }
        try window.open(0..<Erofs.firstInodeOffset, body)
        ImageEmitter(out: window.image).emitHeaders(plan, lists, layout)
        for index in plan.nodes.indices {
            let it = layout.inodes[index]
            try window.open(it.offset..<it.end, body)
            ImageEmitter(out: window.image).emitInode(index, plan, lists, layout, tree)
        }
        try window.open(layout.inodesEnd..<(layout.inodesEnd + lists.sharedSize), body)
        ImageEmitter(out: window.image).emitSharedAttributes(lists, at: layout.inodesEnd, tree)
        for index in plan.nodes.indices where layout.inodes[index].blocks > 0 {
            let it = layout.inodes[index]
            let start = Int(it.dataBlock) * Erofs.blockSize
            try window.open(start..<(start + Int(it.blocks) * Erofs.blockSize), body)
            ImageEmitter(out: window.image).emitBlocks(index, plan, layout, tree)
        }
        try window.open(layout.size..<layout.size, body)
        try window.flush(body)
    }

    /// The image's fs-verity digest.
    public func identifier(_ algorithm: VerityAlgorithm) -> ObjectID {
        var hasher = VerityHasher(algorithm)
        write { hasher.update($0) }
        return hasher.finalize()
    }
}

/// Writes the composefs EROFS image of a tree into memory.
///
/// - Throws: as `ErofsPlan.init`.
public func writeErofs(_ tree: borrowing FileTree, version: ErofsVersion) throws(ErofsError) -> [UInt8] {
    let plan = try ErofsPlan(copy tree, version: version)
    var image: [UInt8] = []
    image.reserveCapacity(plan.byteCount)
    plan.write { image.append(contentsOf: $0) }
    return image
}
