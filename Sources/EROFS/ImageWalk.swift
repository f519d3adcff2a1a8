internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// Receives the inodes and entries of an image in the order of a walk.
protocol ImageVisitor {
    /// The visitor's identifier of an inode.
    associatedtype Handle
    /// `name` is nil for the root.
    mutating func directory(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<Handle>?
    ) throws(Fault) -> Handle
    mutating func leaf(
        _ inode: ImageInode, _ attributes: borrowing ImageAttributes, _ source: ImageSource, _ entry: VisitedEntry<Handle>
    ) throws(Fault) -> Handle
    /// A further name of a leaf.
    mutating func link(_ leaf: Handle, _ entry: VisitedEntry<Handle>) throws(Fault)
    /// Called after all entries of a directory. `holdsEscapedWhiteout` says whether one of them was an escaped whiteout.
    mutating func endDirectory(_ directory: Handle, holdsEscapedWhiteout: Bool) throws(Fault)
}

/// A directory entry that is visited.
struct VisitedEntry<Handle> {
    var name: UnsafeRawBufferPointer
    var parent: Handle
    var parentIsRoot: Bool
}

/// Visits everything that the root of an untrusted image reaches.
///
/// Every directory, and every inode with one link, is visited once: its bytes are marked as taken, and taking bytes twice is an error. This
/// bounds the work by the image's size and excludes cycles and shared directories.
struct ImageWalk<Visitor: ImageVisitor> {
    private struct Directory {
        var inode: ImageInode
        /// An index into `directories`; the root is its own parent.
        var parent: Int
        /// The range of the name of the directory's entry in the image.
        var name: Range<Int>
        var depth: Int
        var handle: Visitor.Handle
        var subdirectories: UInt32 = 0
        var holdsEscapedWhiteout = false
    }

    /// A leaf that has more links than names were seen.
    private struct Linked {
        var handle: Visitor.Handle
        var kind: FileTree.Kind
        var links: UInt32
        var seen: UInt32
        var directory: Int
        var name: Range<Int>
    }

    private let source: ImageSource
    private let maximumDepth: Int
    private var taken: SlotMap
    private var directories: [Directory] = []
    private var pending: [Int] = []
    private var linked: [UInt64: Linked] = [:]
    private var attributes = ImageAttributes()
    private var inodeCount = 0
    /// The largest number of directories above an inode, without the root.
    private(set) var depth = 0

    init(_ source: ImageSource, maximumDepth: Int = .max) {
        self.source = source
        self.maximumDepth = maximumDepth
        taken = SlotMap(slots: source.bytes.count / Erofs.slotSize)
        _ = taken.take(0..<Erofs.firstInodeOffset)
    }

    /// Visits the image and returns the number of inodes.
    mutating func run(_ visitor: inout Visitor) throws(ErofsError) -> Int {
        let nid = source.superblock.rootNumber
        do throws(Fault) {
            let root = try take(nid)
            guard root.kind == .directory else { throw Fault("the root is not a directory") }
            let handle = try visitor.directory(root, attributes, source, nil)
            directories.append(Directory(inode: root, parent: 0, name: 0..<0, depth: 0, handle: handle))
        } catch {
            throw .damaged(nid: nid, path: "/", error.what)
        }
        pending = [0]
        while let next = pending.popLast() { try visit(next, &visitor) }
        for (nid, leaf) in linked where leaf.seen != leaf.links {
            throw .damaged(
                nid: nid, path: path(leaf.directory, leaf.name), "it has \(leaf.seen) names, but its link count is \(leaf.links)")
        }
        return inodeCount
    }

    // MARK: Inodes

    /// Reads an inode and its attributes, and marks their bytes as taken.
    private mutating func take(_ nid: UInt64) throws(Fault) -> ImageInode {
        var inode = try source.inode(nid)
        guard taken.take(inode.offset..<inode.attributes.upperBound) else {
            throw Fault("it overlaps another inode or has more names than links")
        }
        try attributes.read(inode.attributes, of: source)
        if inode.layout == .chunked { try source.placeChunks(&inode, isExternal: attributes.metacopy != nil) }
        if inode.kind != .regular, attributes.hasMetacopy || attributes.hasRedirect {
            throw Fault("only regular files can have their content in an object")
        }
        if inode.kind == .regular, inode.layout != .chunked, attributes.hasMetacopy || attributes.hasRedirect {
            throw Fault("its content is both in the image and in an object")
        }
        if let metacopy = attributes.metacopy, let redirect = attributes.redirect, metacopy != redirect {
            throw Fault("its digest is \(metacopy), but it refers to object \(redirect)")
        }
        let rest = Erofs.align(inode.attributes.upperBound, to: Erofs.slotSize)..<inode.slotsEnd
        guard rest.isEmpty || taken.take(rest), inode.blocks.isEmpty || taken.take(inode.blocks) else {
            throw Fault("its data overlap other data")
        }
        try source.expectZero(inode.tail.upperBound..<inode.slotsEnd, "the padding after it")
        if !inode.blocks.isEmpty, inode.tail.isEmpty, let used = Int(exactly: inode.size) {
            try source.expectZero((inode.blocks.lowerBound + used)..<inode.blocks.upperBound, "the padding of its last block")
        }
        inodeCount += 1
        return inode
    }

    // MARK: Directories

    private mutating func visit(_ index: Int, _ visitor: inout Visitor) throws(ErofsError) {
        let inode = directories[index].inode
        var previous: Range<Int>?
        var dots = (itself: false, parent: false)
        var start = inode.blocks.lowerBound
        while start < inode.blocks.upperBound {
            try visit(start..<(start + Erofs.blockSize), of: index, &previous, &dots, &visitor)
            start += Erofs.blockSize
        }
        if !inode.tail.isEmpty { try visit(inode.tail, of: index, &previous, &dots, &visitor) }
        let it = directories[index]
        do throws(Fault) {
            guard dots.itself, dots.parent else { throw Fault("the directory lacks '.' or '..'") }
            guard it.subdirectories < UInt32.max - 2, inode.links == it.subdirectories + 2 else {
                throw Fault("the directory's link count is \(inode.links), it has \(it.subdirectories) subdirectories")
            }
            try visitor.endDirectory(it.handle, holdsEscapedWhiteout: it.holdsEscapedWhiteout)
        } catch {
            throw .damaged(nid: inode.nid, path: path(index), error.what)
        }
    }

    /// Visits one block of entries: the headers, then the names.
    private mutating func visit(
        _ block: Range<Int>, of index: Int, _ previous: inout Range<Int>?, _ dots: inout (itself: Bool, parent: Bool),
        _ visitor: inout Visitor
    ) throws(ErofsError) {
        var nid = directories[index].inode.nid
        var name = 0..<0
        do throws(Fault) {
            let entries = try DirectoryBlock(source, block)
            for entry in 0..<entries.count {
                name = 0..<0
                nid = directories[index].inode.nid
                name = try entries.nameRange(entry)
                if entry + 1 == entries.count { try source.expectZero(try entries.padding(), "the padding of a directory block") }
                let bytes = try source.slice(name)
                guard !bytes.isEmpty, bytes.count <= Erofs.maximumNameLength else { throw Fault("a name has \(bytes.count) bytes") }
                guard !bytes.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") }) else { throw Fault("a name contains '/' or NUL") }
                if let previous, compareBytes(try source.slice(previous), bytes) >= 0 {
                    throw Fault("directory entries are not in ascending order, or a name occurs twice")
                }
                previous = name
                nid = try entries.number(entry)
                guard let kind = FileTree.Kind(rawValue: try entries.fileType(entry)) else {
                    throw Fault("an entry's file type is unknown")
                }
                guard try entries.reserved(entry) == 0 else { throw Fault("a reserved field of an entry is not zero") }
                if bytes[0] == UInt8(ascii: "."), bytes.count == 1 || (bytes.count == 2 && bytes[1] == UInt8(ascii: ".")) {
                    let isParent = bytes.count == 2
                    let expected = directories[isParent ? directories[index].parent : index].inode.nid
                    guard nid == expected, kind == .directory else { throw Fault("'.' or '..' refers to the wrong inode") }
                    if isParent { dots.parent = true } else { dots.itself = true }
                } else {
                    try visit(nid, kind, bytes, name, of: index, &visitor)
                }
            }
        } catch {
            throw .damaged(nid: nid, path: name.isEmpty ? path(index) : path(index, name), error.what)
        }
    }

    private mutating func visit(
        _ nid: UInt64, _ kind: FileTree.Kind, _ bytes: UnsafeRawBufferPointer, _ name: Range<Int>, of index: Int, _ visitor: inout Visitor
    ) throws(Fault) {
        let entry = VisitedEntry(name: bytes, parent: directories[index].handle, parentIsRoot: index == 0)
        if var known = linked[nid] {
            guard known.kind == kind else { throw Fault("the entry's file type differs from the inode's") }
            guard known.seen < known.links else { throw Fault("it has more names than its link count of \(known.links)") }
            known.seen += 1
            linked[nid] = known
            try visitor.link(known.handle, entry)
            return
        }
        let inode = try take(nid)
        guard inode.kind == kind else { throw Fault("the entry's file type differs from the inode's") }
        if kind == .directory {
            let depth = directories[index].depth + 1
            guard depth <= maximumDepth else { throw Fault("directories are nested deeper than \(maximumDepth)") }
            self.depth = max(self.depth, depth)
            directories[index].subdirectories &+= 1
            let handle = try visitor.directory(inode, attributes, source, entry)
            pending.append(directories.count)
            directories.append(Directory(inode: inode, parent: index, name: name, depth: depth, handle: handle))
            return
        }
        let isEscaped = source.superblock.version.isFirstEpoch && inode.isEscapedWhiteout(attributes)
        if isEscaped { directories[index].holdsEscapedWhiteout = true }
        if inode.links > 1, kind == .characterDevice, inode.value == 0 {
            throw Fault("a whiteout's link count is \(inode.links)")
        }
        let handle = try visitor.leaf(inode, attributes, source, entry)
        if inode.links > 1 {
            linked[nid] = Linked(handle: handle, kind: kind, links: inode.links, seen: 1, directory: index, name: name)
        }
    }

    // MARK: Messages

    private func path(_ index: Int, _ name: Range<Int>? = nil) -> ByteString {
        var parts: [Range<Int>] = name.map { [$0] } ?? []
        var at = index
        while at != 0 {
            parts.append(directories[at].name)
            at = directories[at].parent
        }
        var path: [UInt8] = []
        for part in parts.reversed() {
            path.append(UInt8(ascii: "/"))
            path.append(contentsOf: source.bytes[part])
        }
        return path.isEmpty ? "/" : ByteString(path)
    }
}

extension ImageInode {
    /// Whether the inode is the escaped form of a whiteout in versions 0 and 1: an empty file with one name and the attribute.
    func isEscapedWhiteout(_ attributes: borrowing ImageAttributes) -> Bool {
        kind == .regular && attributes.isEscapedWhiteout && layout == .plain && size == 0 && links == 1
    }
}

/// The slots of an image that are taken.
struct SlotMap {
    private var words: [UInt64]

    init(slots: Int) { words = Array(repeating: 0, count: slots / 64 + 1) }

    /// Takes all slots that the bytes touch. The bytes must be in the image. Returns false if a slot was taken already.
    mutating func take(_ bytes: Range<Int>) -> Bool {
        let first = bytes.lowerBound / Erofs.slotSize
        let end = Erofs.align(bytes.upperBound, to: Erofs.slotSize) / Erofs.slotSize
        var slot = first
        while slot < end {
            let word = slot / 64
            let count = min(64 - slot % 64, end - slot)
            let mask = (count == 64 ? UInt64.max : (1 << UInt64(count)) - 1) << UInt64(slot % 64)
            guard words[word] & mask == 0 else { return false }
            words[word] |= mask
            slot += count
        }
        return true
    }
}
