internal import ComposefsBytes
internal import ComposefsFileTree

/// The content of an image: the reachable part of a tree as flat lists, with inodes in the order in which they are written.
struct ImagePlan {
    /// A directory entry.
    struct Record: BitwiseCopyable {
        var name: Name
        var nameLength: UInt8
        var kind: FileTree.Kind
        var role: Role
        /// The inode in the tree; the root for entries that are not in the tree.
        var inode: FileTree.InodeID
        /// An index into `nodes`.
        var node: UInt32 = ImagePlan.none
    }

    /// Where the name of an entry is.
    struct Name: BitwiseCopyable {
        fileprivate let raw: UInt32

        init(_ entry: FileTree.EntryID) { raw = UInt32(entry.arenaIndex) }
        /// - Parameter stub: the number of a directory of the object store, of which the name are the two hexadecimal digits.
        init(stub: UInt8) { raw = UInt32(stub) }
        static let dots = Name(stub: 0)
    }

    enum Role: UInt8, BitwiseCopyable {
        case ordinary
        /// A whiteout that becomes a regular file, with attributes that tell overlayfs that it was a whiteout.
        case escapedWhiteout
        /// A whiteout that is not in the tree and hides a directory of the object store.
        case stub
        /// `.` and `..`.
        case dots
    }

    struct Directory: BitwiseCopyable {
        var inode: FileTree.InodeID
        /// The start of the range in `records`, in ascending byte order of names.
        var first: UInt32
        var end: UInt32
        /// An index into `directories`; the root is its own parent.
        var parent: UInt32
        /// The entry of this directory in its parent; unused for the root.
        var record: UInt32
        var node: UInt32 = ImagePlan.none
        var subdirectories: UInt32 = 0
        var holdsEscapedWhiteout = false
    }

    /// An inode of the image.
    struct Node: BitwiseCopyable {
        var inode: FileTree.InodeID
        /// The first entry for this inode, for messages; `none` for the root.
        var record: UInt32
        /// An index into `directories`, or `none`.
        var directory: UInt32
        var links: UInt32
        var kind: FileTree.Kind
        var role: Role
    }

    static let none = UInt32.max

    let version: ErofsVersion
    private(set) var records: LargeArray<Record>
    private(set) var directories: LargeArray<Directory>
    private(set) var nodes: LargeArray<Node>

    /// For each inode of the tree: the number of entries for it.
    private var references: LargeArray<UInt32>
    /// For each inode of the tree: the index of its directory, or of a leaf's node.
    private var slots: LargeArray<UInt32>
    /// For each leaf of the tree: the directory of its first entry in depth-first order.
    private var homes: LargeArray<UInt32>
    /// The length of all names, in bytes.
    private var nameBytes = 0

    init(_ tree: borrowing FileTree, version: ErofsVersion) throws(ErofsError) {
        self.version = version
        let capacity = tree.inodeCapacity
        records = LargeArray(in: tree.memory)
        directories = LargeArray(in: tree.memory)
        nodes = LargeArray(in: tree.memory)
        references = LargeArray(repeating: 0, count: capacity, in: tree.memory)
        slots = LargeArray(repeating: Self.none, count: capacity, in: tree.memory)
        homes = LargeArray(repeating: Self.none, count: capacity, in: tree.memory)
        try collect(tree)
        if version.isFirstEpoch {
            orderBreadthFirst()
        } else {
            orderDepthFirst()
        }
        for index in records.indices where records[index].role == .ordinary || records[index].role == .escapedWhiteout {
            let slot = slots[records[index].inode.arenaIndex]
            records[index].node = records[index].kind == .directory ? directories[Int(slot)].node : slot
        }
        references.reset()
        slots.reset()
        homes.reset()
    }

    // MARK: Collecting

    /// Lists all directories in depth-first order, by ascending names.
    private mutating func collect(_ tree: borrowing FileTree) throws(ErofsError) {
        try openDirectory(tree, FileTree.root, parent: 0, record: Self.none)
        // An explicit stack instead of recursion, because the tree determines the depth.
        var open: [(directory: UInt32, next: UInt32)] = [(0, directories[0].first)]
        while let (directory, next) = open.last {
            guard next < directories[Int(directory)].end else {
                open.removeLast()
                continue
            }
            open[open.count - 1].next = next + 1
            let record = records[Int(next)]
            guard record.kind == .directory else {
                if record.role == .stub { continue }
                let leaf = record.inode.arenaIndex
                if references[leaf] == 0 { homes[leaf] = directory }
                references[leaf] &+= 1
                continue
            }
            if record.role == .dots { continue }
            let opened = UInt32(directories.count)
            try openDirectory(tree, record.inode, parent: directory, record: next)
            open.append((opened, directories[Int(opened)].first))
        }
        if let (index, record) = linkedWhiteout(in: tree) {
            throw .unwritable(path: path(ofRecord: index, named: record, tree), .linkedWhiteout)
        }
    }

    private mutating func openDirectory(
        _ tree: borrowing FileTree, _ inode: FileTree.InodeID, parent: UInt32, record: UInt32
    ) throws(ErofsError) {
        let index = UInt32(directories.count)
        slots[inode.arenaIndex] = index
        directories.append(Directory(inode: inode, first: UInt32(records.count), end: 0, parent: parent, record: record))
        var rest = insertions(in: inode, isRoot: index == 0, tree)[...]
        for entry in tree.sortedEntries(of: inode) {
            let target = tree.inode(of: entry)
            let kind = tree.kind(of: target)
            let length = tree.nameLength(of: entry)
            nameBytes += length
            // Every record needs 12 bytes and its name in the image, so all offsets and indices are far below 32 bits.
            let needed = nameBytes + DirectoryEntryLayout.size * records.count
            guard needed <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(needed)) }
            guard let nameLength = UInt8(exactly: length) else {
                throw .unwritable(path: path(ofDirectory: index, tree) + tree.name(of: entry), .nameTooLong(bytes: length))
            }
            while let next = rest.first {
                let order = tree.withName(of: entry) { name in next.name.bytes.withUnsafeBytes { compareBytes($0, name) } }
                guard order <= 0 else { break }
                rest.removeFirst()
                // The entry takes the place of a stub with its name.
                if order < 0 { insert(next.record) }
            }
            if kind == .directory { directories[Int(index)].subdirectories += 1 }
            var record = Record(name: Name(entry), nameLength: nameLength, kind: kind, role: .ordinary, inode: target)
            if version.isFirstEpoch, kind == .characterDevice, tree.isWhiteout(target), index != 0 || !isStubAlready(tree, record) {
                record.kind = .regular
                record.role = .escapedWhiteout
                directories[Int(index)].holdsEscapedWhiteout = true
            }
            records.append(record)
        }
        for next in rest { insert(next.record) }
        directories[Int(index)].end = UInt32(records.count)
    }

    private mutating func insert(_ record: Record) {
        if record.role == .stub { nameBytes += Int(record.nameLength) }
        records.append(record)
    }

    /// The entries of a directory that are not in the tree, in ascending byte order of their names.
    private func insertions(
        in inode: FileTree.InodeID, isRoot: Bool, _ tree: borrowing FileTree
    ) -> [(name: ByteString, record: Record)] {
        var added = (1...2).map {
            Record(name: .dots, nameLength: $0, kind: .directory, role: .dots, inode: inode)
        }
        if isRoot, version.isFirstEpoch {
            added += (0...UInt8.max).map {
                Record(name: Name(stub: $0), nameLength: 2, kind: .characterDevice, role: .stub, inode: FileTree.root)
            }
        }
        return added.map { (name(of: $0, tree), $0) }
    }

    /// Whether the root's entry equals the one that would be inserted for the object store's directory of that name.
    private func isStubAlready(_ tree: borrowing FileTree, _ record: Record) -> Bool {
        guard withName(of: record, tree, { Erofs.isObjectDirectory($0) }) else { return false }
        let inode = record.inode
        return tree.permissions(of: inode) == 0o644 && tree.uid(of: inode) == tree.uid(of: FileTree.root)
            && tree.gid(of: inode) == tree.gid(of: FileTree.root) && tree.modified(of: inode) == tree.modified(of: FileTree.root)
            && tree.extendedAttributes(of: inode)
                == tree.extendedAttributes(of: FileTree.root).filter { $0.name == OverlayAttribute.selinux }
    }

    private func linkedWhiteout(in tree: borrowing FileTree) -> (Int, Record)? {
        for index in records.indices {
            let record = records[index]
            guard record.kind == .characterDevice || record.role == .escapedWhiteout else { continue }
            if record.role != .stub, references[record.inode.arenaIndex] > 1, tree.isWhiteout(record.inode) { return (index, record) }
        }
        return nil
    }

    // MARK: Order

    /// Version 2: a directory, then its children in order of names, each subdirectory followed by everything below it.
    private mutating func orderDepthFirst() {
        addDirectoryNode(0)
        var open: [(next: UInt32, end: UInt32)] = [(directories[0].first, directories[0].end)]
        while let (next, end) = open.last {
            guard next < end else {
                open.removeLast()
                continue
            }
            open[open.count - 1].next = next + 1
            let record = records[Int(next)]
            if record.role == .dots { continue }
            if record.kind == .directory {
                let directory = slots[record.inode.arenaIndex]
                addDirectoryNode(directory)
                open.append((directories[Int(directory)].first, directories[Int(directory)].end))
            } else if slots[record.inode.arenaIndex] == Self.none {
                addLeafNode(next)
            }
        }
    }

    /// Versions 0 and 1: breadth-first by directory. An inode with several names is placed with the directory that comes first in
    /// depth-first order.
    private mutating func orderBreadthFirst() {
        addDirectoryNode(0)
        var at = 0
        while at < nodes.count {
            let directory = nodes[at].directory
            at += 1
            if directory == Self.none { continue }
            for index in directories[Int(directory)].first..<directories[Int(directory)].end {
                let record = records[Int(index)]
                if record.role == .dots { continue }
                if record.kind == .directory {
                    addDirectoryNode(slots[record.inode.arenaIndex])
                } else if record.role == .stub {
                    records[Int(index)].node = UInt32(nodes.count)
                    addLeafNode(index)
                } else if slots[record.inode.arenaIndex] == Self.none, homes[record.inode.arenaIndex] == directory {
                    addLeafNode(index)
                }
            }
        }
    }

    private mutating func addDirectoryNode(_ directory: UInt32) {
        let it = directories[Int(directory)]
        directories[Int(directory)].node = UInt32(nodes.count)
        nodes.append(
            Node(
                inode: it.inode, record: it.record, directory: directory, links: it.subdirectories &+ 2, kind: .directory, role: .ordinary))
    }

    private mutating func addLeafNode(_ index: UInt32) {
        let record = records[Int(index)]
        var links: UInt32 = 1
        if record.role != .stub {
            slots[record.inode.arenaIndex] = UInt32(nodes.count)
            links = references[record.inode.arenaIndex]
        }
        nodes.append(
            Node(inode: record.inode, record: index, directory: Self.none, links: links, kind: record.kind, role: record.role))
    }

    /// The records that a block of a directory holds, from its first one on.
    func block(of directory: Directory, from first: Int) -> Range<Int> {
        var used = 0
        var next = first
        while next < Int(directory.end) {
            used += DirectoryEntryLayout.size + Int(records[next].nameLength)
            if used > Erofs.blockSize { break }
            next += 1
        }
        return first..<next
    }

    // MARK: Names

    /// Passes the name of an entry to `body`; the bytes are valid only during the call.
    func withName<Result>(of record: Record, _ tree: borrowing FileTree, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let digits: [UInt8]
        switch record.role {
        case .ordinary, .escapedWhiteout: return tree.withName(of: FileTree.EntryID(arenaIndex: Int(record.name.raw)), body)
        case .stub: digits = Array(Hex.encode(CollectionOfOne(UInt8(truncatingIfNeeded: record.name.raw))).utf8)
        case .dots: digits = Array(repeating: UInt8(ascii: "."), count: Int(record.nameLength))
        }
        return digits.withUnsafeBytes(body)
    }

    private func name(of record: Record, _ tree: borrowing FileTree) -> ByteString { withName(of: record, tree) { ByteString($0) } }

    /// The absolute path of a node by its first name, for messages.
    func path(of node: Node, _ tree: borrowing FileTree) -> ByteString {
        node.record == Self.none ? "/" : path(ofRecord: Int(node.record), named: records[Int(node.record)], tree)
    }

    private func path(ofRecord index: Int, named record: Record, _ tree: borrowing FileTree) -> ByteString {
        // Directories were opened in the order of their records.
        var low = 0
        var high = directories.count
        while high - low > 1 {
            let middle = (low + high) / 2
            if Int(directories[middle].first) <= index { low = middle } else { high = middle }
        }
        return path(ofDirectory: UInt32(low), tree) + name(of: record, tree)
    }

    /// The path of a directory, with a slash at the end.
    private func path(ofDirectory index: UInt32, _ tree: borrowing FileTree) -> ByteString {
        var parts: [ByteString] = []
        var at = index
        while at != 0 {
            parts.append(name(of: records[Int(directories[Int(at)].record)], tree))
            at = directories[Int(at)].parent
        }
        return ByteString([0x2f] + parts.reversed().flatMap { $0.bytes + [0x2f] })
    }
}
