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
    struct Node: Sendable, BitwiseCopyable {
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
    private(set) var nodes: LargeArray<Node>
    let attributes: DiskAttributes
    /// For each inode of the tree, its number in the image.
    private(set) var slots: LargeArray<UInt32>
    /// The first block of inodes.
    let metadataBlock: UInt32
    /// The end of the inodes, and the start of shared attributes, in bytes from the start of the metadata.
    private(set) var inodesEnd = 0
    /// The first block after inodes and shared attributes.
    private(set) var blocksStart: UInt32 = 0
    /// The first block of contents; the size of an image that has none itself.
    public private(set) var contentStart: UInt32 = 0
    private(set) var hasHoles = false
    /// The objects that the image holds, in the order of their blocks.
    private var places: LargeArray<ErofsPlacements.Place>
    private var contentBlocks: UInt64 = 0

    /// The size of the image in blocks of 4 KiB.
    public var blockCount: UInt32 { contentStart + UInt32(contentBlocks) }

    /// The objects of the image in the order of their blocks. Empty unless the image holds its contents.
    public var placements: ErofsPlacements { ErofsPlacements(places, tree, start: UInt64(contentStart)) }

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
        slots = LargeArray(repeating: Node.none, count: tree.inodeCapacity, in: tree.memory)
        places = LargeArray(in: tree.memory)
        var devices = 0
        if case .space(let space, .devices) = contents { devices = space.images.count }
        let headerSize = Erofs.firstInodeOffset + devices * DeviceSlotLayout.size
        metadataBlock = UInt32((headerSize + Erofs.blockSize - 1) / Erofs.blockSize)
        self.nodes = nodes
        try place()
        for index in self.nodes.indices { slots[self.nodes[index].inode.arenaIndex] = self.nodes[index].slot }
    }

    // MARK: Order

    private static func collect(_ tree: FileTree) -> LargeArray<Node> {
        var nodes = LargeArray<Node>(repeating: Node(inode: FileTree.root, parent: 0), count: 1, in: tree.memory)
        var isKnown = LargeArray<Bool>(repeating: false, count: tree.inodeCapacity, in: tree.memory)
        // An explicit stack instead of recursion, because the tree determines the depth.
        var open: [(directory: UInt32, entries: FileTree.EntryList, next: Int)] = [(0, tree.sortedEntries(of: FileTree.root), 0)]
        while let (directory, entries, next) = open.last {
            guard next < entries.count else {
                open.removeLast()
                continue
            }
            open[open.count - 1].next = next + 1
            let inode = tree.inode(of: entries[next])
            guard !isKnown[inode.arenaIndex] else { continue }
            isKnown[inode.arenaIndex] = true
            let node = UInt32(nodes.count)
            nodes.append(Node(inode: inode, parent: directory))
            if tree.isDirectory(inode) {
                nodes[Int(directory)].subdirectories += 1
                open.append((node, tree.sortedEntries(of: inode), 0))
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
        /// By the number of the tree's object.
        var objects: LargeArray<UInt32>
    }

    private mutating func place() throws(ErofsError) {
        var cursors = Cursors(objects: LargeArray(repeating: Node.none, count: tree.objectCapacity, in: tree.memory))
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
        let area = attributes.size(of: inode, in: tree)
        guard area <= Erofs.maximumAttributeSize else { throw .reason(.attributesTooLarge(bytes: area)) }
        let fixed = ExtendedInodeLayout.size + area
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
            if size > 0 { nodes[index].block = try block(of: id, inode, size, &cursors) }
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

    private mutating func block(
        of id: ObjectID, _ inode: FileTree.InodeID, _ size: UInt64, _ cursors: inout Cursors
    ) throws(Unplaceable) -> UInt32 {
        if case .space(let space, _) = contents {
            guard let block = space.block(of: id) else { preconditionFailure("an object that no image of the space holds") }
            return block
        }
        guard let number = tree.objectNumber(of: inode) else { preconditionFailure("a file without an object") }
        let known = cursors.objects[number]
        guard known == Node.none else { return known }
        let blocks = (size - 1) >> UInt64(Erofs.blockBits) + 1
        guard contentBlocks + blocks < UInt64(UInt32.max) else { throw .size(contentBlocks + blocks) }
        let block = UInt32(contentBlocks)
        contentBlocks += blocks
        cursors.objects[number] = block
        places.append(ErofsPlacements.Place(inode: inode, block: block))
        return block
    }

    /// The size of a directory's content: full blocks, and what the last one uses.
    private func directorySize(_ index: Int) throws(Unplaceable) -> UInt64 {
        var blocks: UInt64 = 0
        var used = 0
        try forEachListed(index) { (entry) throws(Unplaceable) in
            let length = entry.nameLength(tree)
            guard length <= Erofs.maximumNameLength else { throw .reason(.nameTooLong(bytes: length)) }
            let size = DirectoryEntryLayout.size + length
            if used + size > Erofs.blockSize {
                blocks += 1
                used = 0
            }
            used += size
        }
        return blocks << UInt64(Erofs.blockBits) + UInt64(used)
    }

    /// Passes the entries of a directory, with `.` and `..`, to `body` in the order of the image: ascending byte order of their names.
    func forEachListed<Failure: Error>(_ index: Int, _ body: (ListedEntry) throws(Failure) -> Void) throws(Failure) {
        let node = nodes[index]
        var dots = [ListedEntry(name: .dots(2), inode: nodes[Int(node.parent)].inode), ListedEntry(name: .dots(1), inode: node.inode)]
        for entry in tree.sortedEntries(of: node.inode) {
            // Names that begin with a byte below that of the dot precede it.
            while let dot = dots.last, tree.withName(of: entry, { dot.dots.lexicographicallyPrecedes($0) }) {
                try body(dot)
                dots.removeLast()
            }
            try body(ListedEntry(name: .entry(entry), inode: tree.inode(of: entry)))
        }
        for dot in dots.reversed() { try body(dot) }
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

/// The objects of an image in the order of their blocks.
public struct ErofsPlacements: RandomAccessCollection, Sendable {
    struct Place: BitwiseCopyable {
        /// A file with the object.
        var inode: FileTree.InodeID
        /// From the start of the contents.
        var block: UInt32
    }

    private let places: LargeArray<Place>
    private let tree: FileTree
    /// The first block of contents.
    private let start: UInt64

    init(_ places: LargeArray<Place>, _ tree: FileTree, start: UInt64) {
        self.places = places
        self.tree = tree
        self.start = start
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { places.count }

    public subscript(index: Int) -> ErofsPlacement {
        let place = places[index]
        switch tree.content(of: place.inode) {
        case .external(let id, let size), .externalWithoutVerity(let id, let size):
            return ErofsPlacement(object: id, offset: (start + UInt64(place.block)) << UInt64(Erofs.blockBits), byteCount: size)
        default: preconditionFailure("a place of a file without an object")
        }
    }
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
    private struct Objects: Sendable {
        var ids: ObjectIDTable
        /// By the number of the object.
        var blocks: LargeArray<UInt32>

        init(_ algorithm: VerityAlgorithm, _ memory: any LargeMemory) {
            ids = ObjectIDTable(algorithm, in: memory)
            blocks = LargeArray(in: memory)
        }

        mutating func insert(_ id: ObjectID, _ block: UInt32) {
            if ids.insert(id) == blocks.count { blocks.append(block) }
        }
    }

    private var objects: [VerityAlgorithm: Objects] = [:]
    private(set) var blockCount: UInt64 = 0

    public init() {}

    /// Adds an image that holds its contents. An object that a lower image has is read from there.
    ///
    /// - Throws: `ErofsError.diskTooLarge`.
    public mutating func append(_ plan: ErofsDiskPlan) throws(ErofsError) {
        let end = blockCount + UInt64(plan.blockCount)
        guard end < UInt64(UInt32.max) else { throw .diskTooLarge(bytes: end << Erofs.blockBits) }
        for placement in plan.placements {
            let block = UInt32(blockCount + placement.offset >> UInt64(Erofs.blockBits))
            let algorithm = placement.object.algorithm
            objects[algorithm, default: Objects(algorithm, plan.tree.memory)].insert(placement.object, block)
        }
        images.append(plan.blockCount)
        blockCount = end
    }

    func block(of id: ObjectID) -> UInt32? {
        guard let objects = objects[id.algorithm], let number = objects.ids.number(of: id) else { return nil }
        return objects.blocks[number]
    }
}

/// An entry of a directory of an image.
struct ListedEntry {
    enum Name {
        /// `.` or `..`.
        case dots(Int)
        case entry(FileTree.EntryID)
    }

    var name: Name
    var inode: FileTree.InodeID

    /// The name, if it is `.` or `..`.
    var dots: [UInt8] {
        guard case .dots(let count) = name else { return [] }
        return Array(repeating: UInt8(ascii: "."), count: count)
    }

    /// In bytes.
    func nameLength(_ tree: FileTree) -> Int {
        switch name {
        case .dots(let count): count
        case .entry(let entry): tree.nameLength(of: entry)
        }
    }

    func appendName(to writer: inout ByteWriter, _ tree: FileTree) {
        switch name {
        case .dots: writer.append(dots)
        case .entry(let entry): tree.withName(of: entry) { writer.append($0) }
        }
    }
}
