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
        var at = layout.inodesEnd
        for reference in lists.table.shared {
            let end = at + lists.localSize(reference, tree)
            try window.open(at..<end, body)
            ImageEmitter(out: window.image).emitEntry(lists, reference, at: at, tree)
            at = end
        }
        for index in plan.nodes.indices where layout.inodes[index].blocks > 0 { try writeBlocks(index, &window, body) }
        try window.open(layout.size..<layout.size, body)
        try window.flush(body)
    }

    private func writeBlocks<Failure: Error>(
        _ index: Int, _ window: inout ImageWindow, _ body: (UnsafeRawBufferPointer) throws(Failure) -> Void
    ) throws(Failure) {
        let it = layout.inodes[index]
        let start = Int(it.dataBlock) * Erofs.blockSize
        guard plan.nodes[index].directory != ImagePlan.none else {
            try window.open(start..<(start + Int(it.blocks) * Erofs.blockSize), body)
            return ImageEmitter(out: window.image).emitBlocks(index, plan, layout, tree)
        }
        // One by one, since a directory can be large.
        let directory = plan.directories[Int(plan.nodes[index].directory)]
        var next = Int(directory.first)
        for block in 0..<Int(it.blocks) {
            let (at, records) = (start + block * Erofs.blockSize, plan.block(of: directory, from: next))
            try window.open(at..<(at + Erofs.blockSize), body)
            ImageEmitter(out: window.image).emitEntries(records, of: directory, at: at, plan, layout, tree)
            next = records.upperBound
        }
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
