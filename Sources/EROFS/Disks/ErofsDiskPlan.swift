internal import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// The layout of an EROFS image for a disk: every inode has its place, and every object its blocks.
///
/// The image needs no other file system below it: it holds the contents of its files (`Contents.own`), or it addresses them in other images that are
/// its devices or follow it on the same disk (`Contents.space`). An object is stored once, in whole blocks; short contents that the tree has in
/// line, targets and directories are beside their inodes if they fit. The same tree gives the same bytes.
///
/// ```
/// 0             superblock at 1024, device table
/// meta block    inodes depth first, each with extended attributes and tail; shared attributes
///               blocks of directories, targets and contents that have no room beside their inodes
/// content block objects
/// ```
public struct ErofsDiskPlan: Sendable {
    /// Where the contents of objects are.
    public enum Contents: Sendable {
        /// In the image itself.
        case own
        /// In the images of a space, which must hold every object of the tree.
        case space(ErofsBlockSpace, ErofsBlockSpace.Form)
    }

    /// An inode, in the order of the image: depth first, names in ascending byte order.
    struct Node: Sendable {
        var inode: FileTree.InodeID
        /// The index of the parent directory; the root is its own parent.
        var parent: UInt32
        /// For a directory, the number of its subdirectories.
        var subdirectories: UInt32 = 0
        /// The position in units of 32 bytes from the start of the metadata, which is the inode's number.
        var slot: UInt32 = 0
        /// The first block: of an object from the start of the contents, of anything else from the start of the blocks of metadata.
        var block: UInt32 = Self.none
        /// In bytes; 0 for devices, FIFOs and sockets.
        var size: UInt64 = 0
        var layout = Erofs.Layout.plain

        static let none = UInt32.max
    }

    let tree: FileTree
    let contents: Contents
    private(set) var nodes: [Node] = []
    let attributes: DiskAttributes
    /// For each inode of the tree, its number in the image.
    private(set) var slots: [UInt32]
    /// The first block of inodes.
    let metadataBlock: UInt32
    /// The end of the inodes, and the start of shared attributes, in bytes from the start of the metadata.
    private(set) var inodesEnd = 0
    /// The first block after inodes and shared attributes.
    private(set) var blocksStart: UInt32 = 0
    /// The first block of contents; the size of an image that has none itself.
    public private(set) var contentStart: UInt32 = 0
    private(set) var hasHoles = false
    /// The objects of the image in the order of their blocks. Empty unless the image holds its contents.
    public private(set) var placements: [ErofsPlacement] = []
    private var contentBlocks: UInt64 = 0

    /// The size of the image in blocks of 4 KiB.
    public var blockCount: UInt32 { contentStart + UInt32(contentBlocks) }

    /// The size of the image in bytes.
    public var byteCount: UInt64 { UInt64(blockCount) << Erofs.blockBits }

    /// Plans the image of a tree, and keeps the tree.
    ///
    /// - Throws: `ErofsError.unwritable` if EROFS cannot express the tree; `.diskTooLarge`.
    public init(_ tree: FileTree, _ contents: Contents = .own) throws(ErofsError) {
        let nodes = Self.collect(tree)
        self.tree = tree
        self.contents = contents
        attributes = try DiskAttributes(tree, nodes)
        slots = Array(repeating: Node.none, count: tree.inodeCapacity)
        var devices = 0
        if case .space(let space, .devices) = contents { devices = space.images.count }
        let headerSize = Erofs.firstInodeOffset + devices * DeviceSlotLayout.size
        metadataBlock = UInt32((headerSize + Erofs.blockSize - 1) / Erofs.blockSize)
        self.nodes = nodes
        try place()
        for node in self.nodes { slots[node.inode.arenaIndex] = node.slot }
    }

    // MARK: Order

    private static func collect(_ tree: FileTree) -> [Node] {
        var nodes = [Node(inode: FileTree.root, parent: 0)]
        var isKnown = [Bool](repeating: false, count: tree.inodeCapacity)
        // The entries of a directory that are still to visit, in descending order, with the directory's index.
        var pending: [(directory: UInt32, entries: [FileTree.EntryID])] = []
        func open(_ directory: Int) { pending.append((UInt32(directory), tree.sortedEntries(of: nodes[directory].inode).reversed())) }
        open(0)
        while let level = pending.last {
            guard let entry = level.entries.last else {
                pending.removeLast()
                continue
            }
            pending[pending.count - 1].entries.removeLast()
            let inode = tree.inode(of: entry)
            guard !isKnown[inode.arenaIndex] else { continue }
            isKnown[inode.arenaIndex] = true
            nodes.append(Node(inode: inode, parent: level.directory))
            if tree.isDirectory(inode) {
                nodes[Int(level.directory)].subdirectories += 1
                open(nodes.count - 1)
            }
        }
        return nodes
    }

    // MARK: Places

    /// The two cursors of blocks, and the blocks of the objects that are placed already.
    private struct Cursors {
        /// In bytes from the start of the metadata.
        var position = 0
        var blocks: UInt64 = 0
        var objects: [ObjectID: UInt32] = [:]
    }

    private mutating func place() throws(ErofsError) {
        var cursors = Cursors()
        for index in nodes.indices {
            do throws(Unplaceable) {
                try place(index, &cursors)
            } catch {
                switch error {
                case .reason(let reason): throw .unwritable(path: tree.path(of: nodes[index].inode), reason)
                case .size(let blocks): throw .diskTooLarge(bytes: blocks << Erofs.blockBits)
                }
            }
        }
        // References to shared attributes count four bytes.
        inodesEnd = Erofs.align(cursors.position, to: Erofs.slotSize)
        let metadata = (inodesEnd + attributes.sharedSize + Erofs.blockSize - 1) / Erofs.blockSize
        let start = UInt64(metadataBlock) + UInt64(metadata)
        var end = start + cursors.blocks + contentBlocks
        if case .space(let space, _) = contents { end += space.blockCount }
        guard end < UInt64(UInt32.max) else { throw .diskTooLarge(bytes: end << Erofs.blockBits) }
        blocksStart = UInt32(start)
        contentStart = UInt32(start + cursors.blocks)
        for index in placements.indices { placements[index].offset += UInt64(contentStart) << Erofs.blockBits }
    }

    private enum Unplaceable: Error {
        case reason(ErofsError.Reason)
        case size(UInt64)
    }

    private mutating func place(_ index: Int, _ cursors: inout Cursors) throws(Unplaceable) {
        let inode = nodes[index].inode
        guard tree.modified(of: inode).nanoseconds < 1_000_000_000 else {
            throw .reason(.nanosecondsTooLarge(tree.modified(of: inode).nanoseconds))
        }
        let fixed = ExtendedInodeLayout.size + attributes.size(of: inode, in: tree)
        guard let content = tree.content(of: inode) else {
            let size = try directorySize(index)
            return try place(index, size: size, fixed: fixed, &cursors)
        }
        switch content {
        case .inline(let bytes): try place(index, size: UInt64(bytes.count), fixed: fixed, &cursors)
        case .symbolicLink(let target):
            guard target.count <= ErofsVersion.v1.maximumTargetLength else { throw .reason(.targetTooLong(bytes: target.count)) }
            try place(index, size: UInt64(target.count), fixed: fixed, &cursors)
        case .external(let id, let size), .externalWithoutVerity(let id, let size):
            nodes[index].size = size
            if size > 0 { nodes[index].block = try block(of: id, size, &cursors) }
            try put(index, length: fixed, &cursors)
        case .sparse(let size):
            nodes[index].size = size
            guard size > 0 else { return try put(index, length: fixed, &cursors) }
            hasHoles = true
            nodes[index].layout = .chunked
            try put(index, length: fixed + Int(Erofs.chunkTableSize(size: size)), &cursors)
        case .characterDevice(let number), .blockDevice(let number):
            guard number <= UInt64(UInt32.max) else { throw .reason(.deviceNumberTooLarge(number)) }
            try put(index, length: fixed, &cursors)
        case .fifo, .socket: try put(index, length: fixed, &cursors)
        }
    }

    /// Places an inode with content that is metadata: the last part block is beside the inode if it fits and is not larger than half a block.
    ///
    /// Readers take the tail of a symbolic link only from the block of its inode (Linux before 6.12), so inode and tail are in one block.
    private mutating func place(_ index: Int, size: UInt64, fixed: Int, _ cursors: inout Cursors) throws(Unplaceable) {
        let tail = Int(size % UInt64(Erofs.blockSize))
        nodes[index].size = size
        var blocks = size >> UInt64(Erofs.blockBits)
        if tail > 0, tail <= Erofs.blockSize / 2, fixed + tail <= Erofs.blockSize {
            nodes[index].layout = .inline
            cursors.position = Erofs.align(cursors.position, to: Erofs.slotSize)
            if cursors.position % Erofs.blockSize + fixed + tail > Erofs.blockSize {
                cursors.position = Erofs.align(cursors.position, to: Erofs.blockSize)
            }
            try put(index, length: fixed + tail, &cursors)
        } else {
            if tail > 0 { blocks += 1 }
            try put(index, length: fixed, &cursors)
        }
        guard blocks > 0 else { return }
        guard cursors.blocks + blocks < UInt64(UInt32.max) else { throw .size(cursors.blocks + blocks) }
        nodes[index].block = UInt32(cursors.blocks)
        cursors.blocks += blocks
    }

    private mutating func put(_ index: Int, length: Int, _ cursors: inout Cursors) throws(Unplaceable) {
        cursors.position = Erofs.align(cursors.position, to: Erofs.slotSize)
        guard let slot = UInt32(exactly: cursors.position / Erofs.slotSize), slot < Node.none else {
            throw .size(UInt64(cursors.position) >> UInt64(Erofs.blockBits))
        }
        nodes[index].slot = slot
        cursors.position += length
    }

    private mutating func block(of id: ObjectID, _ size: UInt64, _ cursors: inout Cursors) throws(Unplaceable) -> UInt32 {
        if case .space(let space, _) = contents {
            guard let block = space.block(of: id) else { preconditionFailure("an object that no image of the space holds") }
            return block
        }
        if let known = cursors.objects[id] { return known }
        let blocks = (size - 1) >> UInt64(Erofs.blockBits) + 1
        guard contentBlocks + blocks < UInt64(UInt32.max) else { throw .size(contentBlocks + blocks) }
        let block = UInt32(contentBlocks)
        contentBlocks += blocks
        cursors.objects[id] = block
        placements.append(ErofsPlacement(object: id, offset: UInt64(block) << Erofs.blockBits, byteCount: size))
        return block
    }

    /// The size of a directory's content: full blocks, and what the last one uses.
    private func directorySize(_ index: Int) throws(Unplaceable) -> UInt64 {
        let listing = listing(index)
        var blocks: UInt64 = 0
        var used = 0
        for entry in listing.entries {
            guard entry.name.count <= Erofs.maximumNameLength else { throw .reason(.nameTooLong(bytes: entry.name.count)) }
            let size = DirectoryEntryLayout.size + entry.name.count
            if used + size > Erofs.blockSize {
                blocks += 1
                used = 0
            }
            used += size
        }
        return blocks << UInt64(Erofs.blockBits) + UInt64(used)
    }

    /// The entries of a directory, with `.` and `..`, in the order of the image.
    func listing(_ index: Int) -> DiskListing {
        let node = nodes[index]
        return DiskListing(tree, node.inode, parent: nodes[Int(node.parent)].inode)
    }
}

/// An object and its place in an image.
public struct ErofsPlacement: Hashable, Sendable {
    public var object: ObjectID
    /// In bytes from the start of the image; a multiple of 4096.
    public var offset: UInt64
    /// The size of the object. Zeros follow up to the next block.
    public var byteCount: UInt64
}

/// Images that hold objects, one after the other in one space of blocks.
public struct ErofsBlockSpace: Sendable {
    /// How a merged image finds the images.
    public enum Form: Sendable {
        /// Each is a device, which the mount option `device` names (Linux 5.16), or follows on the same disk (Linux 6.4).
        case devices
        /// They follow on the same disk (Linux 5.4).
        case oneDisk
    }

    /// The sizes of the images in blocks of 4 KiB, the lowest first.
    public private(set) var images: [UInt32] = []
    private var blocks: [ObjectID: UInt32] = [:]
    private(set) var blockCount: UInt64 = 0

    public init() {}

    /// Adds an image that holds its contents. An object that a lower image has is read from there.
    ///
    /// - Throws: `ErofsError.diskTooLarge`.
    public mutating func append(_ plan: ErofsDiskPlan) throws(ErofsError) {
        let end = blockCount + UInt64(plan.blockCount)
        guard end < UInt64(UInt32.max) else { throw .diskTooLarge(bytes: end << Erofs.blockBits) }
        for placement in plan.placements where blocks[placement.object] == nil {
            blocks[placement.object] = UInt32(blockCount + placement.offset >> UInt64(Erofs.blockBits))
        }
        images.append(plan.blockCount)
        blockCount = end
    }

    func block(of id: ObjectID) -> UInt32? { blocks[id] }
}

/// The entries of a directory in ascending byte order of their names.
struct DiskListing {
    struct Entry {
        /// The range in `names`.
        var name: Range<Int>
        var inode: FileTree.InodeID
    }

    private(set) var names: [UInt8] = []
    private(set) var entries: [Entry] = []

    init(_ tree: FileTree, _ directory: FileTree.InodeID, parent: FileTree.InodeID) {
        var dots: [(name: [UInt8], inode: FileTree.InodeID)] = [(Array("..".utf8), parent), (Array(".".utf8), directory)]
        for entry in tree.sortedEntries(of: directory) {
            let inode = tree.inode(of: entry)
            // Names that begin with a byte below that of the dot precede it.
            while let dot = dots.last, tree.withName(of: entry, { dot.name.lexicographicallyPrecedes($0) }) {
                add(dot.name, dot.inode)
                dots.removeLast()
            }
            tree.withName(of: entry) { add($0, inode) }
        }
        for dot in dots.reversed() { add(dot.name, dot.inode) }
    }

    private mutating func add(_ name: some Collection<UInt8>, _ inode: FileTree.InodeID) {
        entries.append(Entry(name: names.count..<(names.count + name.count), inode: inode))
        names.append(contentsOf: name)
    }
}
