internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// The inodes of a file system in the order of their numbers: the root, `lost+found`, the tree depth-first, values of extended attributes.
struct InodeList: Sendable {
    enum Role: UInt8, BitwiseCopyable { case tree, lostAndFound, value }

    struct Node: Sendable, BitwiseCopyable {
        /// The root for inodes that are not in the tree.
        var inode: FileTree.InodeID
        /// The first entry for this inode; nil for the root and for inodes that are not in the tree.
        var entry: FileTree.EntryID?
        var role: Role
        var kind: FileTree.Kind
        var hasAttributeBlock = false
        /// For a directory, whether it has an index.
        var isIndexed = false
        /// The index of the parent directory; the root is its own parent.
        var parent: UInt32
        /// The number of names; for a directory, that of subdirectories.
        var links: UInt32
        /// The index in `values`, for a value.
        var value: UInt32 = 0
        /// The range in `segments`.
        var firstSegment: UInt32 = 0
        var segmentCount: UInt32 = 0
    }

    /// Consecutive blocks of a file that hold data.
    struct Segment: Sendable, BitwiseCopyable {
        var first: UInt32
        var count: UInt32
    }

    private struct Attributes: Sendable {
        /// Values that have inodes of their own, each once, and the number of inodes that refer to each.
        var values: DistinctBytes
        var references: LargeArray<UInt64>
        /// By the number of the tree's list.
        var forms: LargeArray<AttributeForm>
    }

    /// What is known of a list of attributes, which is made of the tree when it is needed.
    private struct AttributeForm: BitwiseCopyable {
        var isChecked = false
        var hasBlock = false
        var hasSeparateValues = false
    }

    static let none = UInt32.max
    static let lostAndFound: ByteString = "lost+found"

    let tree: FileTree
    private(set) var nodes: LargeArray<Node>
    private var segments: LargeArray<Segment>
    /// One element, so that copies of the list stay cheap.
    private var attributes: [Attributes]
    private var firstValue = 0
    /// For each inode of the tree, its index in `nodes`.
    private var slots: LargeArray<UInt32>
    private let hasLostAndFound: Bool
    let uuid: Ext4UUID
    let hash: DirectoryHash
    /// The number of blocks of all segments and of all blocks of attributes.
    private(set) var blocks: UInt64 = 0

    /// The number of the last inode.
    var last: UInt32 { Self.number(nodes.count - 1) }

    /// The number of an inode. The root has its own; the others follow the reserved ones.
    static func number(_ node: Int) -> UInt32 {
        node == 0 ? Ext4Format.rootInode : Ext4Format.firstInode - 1 + UInt32(node)
    }

    init(_ tree: FileTree, _ options: Ext4Options, holes: (ObjectID, UInt64) -> [Range<UInt64>]) throws(Ext4Error) {
        self.tree = tree
        nodes = LargeArray(in: tree.memory)
        segments = LargeArray(in: tree.memory)
        slots = LargeArray(repeating: Self.none, count: tree.inodeCapacity, in: tree.memory)
        attributes = [
            Attributes(
                values: DistinctBytes(in: tree.memory), references: LargeArray(in: tree.memory),
                forms: LargeArray(repeating: AttributeForm(), count: tree.attributeListCapacity, in: tree.memory))
        ]
        hasLostAndFound = options.hasLostAndFound && tree.entry(Self.lostAndFound, in: FileTree.root) == nil
        uuid = options.uuid ?? Ext4UUID(digest: TreeDigest.of(tree))
        hash = DirectoryHash(seed: uuid.bytes, isSigned: false)
        try collect()
        try collectValues()
        for index in nodes.indices { try addSegments(index, holes: holes) }
    }

    // MARK: Reading

    /// The attributes of an inode that was checked; nil if it has none.
    func attributes(of node: Node) -> AttributeList? {
        guard node.role == .tree, tree.extendedAttributeGroup(of: node.inode) != 0 else { return nil }
        do throws(Unwritable) {
            return try AttributeList(tree.extendedAttributes(of: node.inode))
        } catch {
            preconditionFailure("attributes that were checked cannot be written")
        }
    }

    private func form(of node: Node) -> AttributeForm {
        node.role == .tree ? attributes[0].forms[tree.extendedAttributeGroup(of: node.inode)] : AttributeForm()
    }

    /// The values of an inode's attributes that have inodes of their own.
    func separateValues(of node: Node) -> [[UInt8]] {
        form(of: node).hasSeparateValues ? attributes(of: node)?.separateValues ?? [] : []
    }

    /// The number of the inode that holds a value.
    func number(ofValue value: [UInt8]) -> UInt32 {
        let index = value.withUnsafeBytes { attributes[0].values.number(of: $0) }
        guard let index else { preconditionFailure("a value without an inode") }
        return Self.number(firstValue + index)
    }

    /// Whether any value has an inode of its own.
    var hasValues: Bool { attributes[0].values.count > 0 }

    /// The number of inodes that refer to a value.
    func references(to node: Node) -> UInt64 { attributes[0].references[Int(node.value)] }

    /// A value that has an inode of its own.
    func value(of node: Node) -> [UInt8] { attributes[0].values.withBytes(of: Int(node.value)) { Array($0) } }

    /// Passes the segments of an inode to `body`.
    func forEachSegment(of node: Node, _ body: (Segment) -> Void) {
        for index in 0..<Int(node.segmentCount) { body(segments[Int(node.firstSegment) + index]) }
    }

    func directory(_ index: Int) throws(Unwritable) -> DirectoryBlocks {
        var entries = LargeArray<DirectoryBlocks.Entry>(in: tree.memory)
        if index == 0, hasLostAndFound {
            entries.append(DirectoryBlocks.Entry(nil, of: tree, inode: Self.number(1), kind: .directory))
        }
        if nodes[index].role == .tree {
            for entry in tree.sortedEntries(of: nodes[index].inode) {
                let inode = tree.inode(of: entry)
                let number = Self.number(Int(slots[inode.arenaIndex]))
                entries.append(DirectoryBlocks.Entry(entry, of: tree, inode: number, kind: tree.kind(of: inode)))
            }
        }
        return try DirectoryBlocks(entries, of: tree, hash: hash)
    }

    func path(_ index: Int) -> ByteString {
        guard let entry = nodes[index].entry else { return "/" }
        return path(entry)
    }

    private func path(_ entry: FileTree.EntryID) -> ByteString {
        var parts: [ByteString] = []
        var at: FileTree.EntryID? = entry
        while let entry = at {
            parts.append(tree.name(of: entry))
            let parent = slots[tree.parent(of: entry).arenaIndex]
            at = nodes[Int(parent)].entry
        }
        return ByteString(Array(parts.reversed().map { [0x2f] + $0.bytes }.joined()))
    }

    // MARK: Collecting

    private mutating func collect() throws(Ext4Error) {
        slots[FileTree.root.arenaIndex] = 0
        nodes.append(Node(inode: FileTree.root, role: .tree, kind: .directory, parent: 0, links: 0))
        if hasLostAndFound {
            nodes.append(Node(inode: FileTree.root, role: .lostAndFound, kind: .directory, parent: 0, links: 0))
            nodes[0].links += 1
        }
        // An explicit stack instead of recursion, because the tree determines the depth.
        var open: [(node: UInt32, entries: FileTree.EntryList, next: Int)] = [(0, tree.sortedEntries(of: FileTree.root), 0)]
        while let (parent, entries, next) = open.last {
            guard next < entries.count else {
                open.removeLast()
                continue
            }
            open[open.count - 1].next = next + 1
            let entry = entries[next]
            let length = tree.withName(of: entry) { $0.count }
            guard length <= Ext4Format.maximumNameLength else { throw .unwritable(path: path(entry), .nameTooLong(bytes: length)) }
            let inode = tree.inode(of: entry)
            let known = slots[inode.arenaIndex]
            if known != Self.none {
                nodes[Int(known)].links += 1
                continue
            }
            let index = UInt32(nodes.count)
            guard index < UInt32.max / 2 else { throw .tooManyInodes(UInt64(index)) }
            slots[inode.arenaIndex] = index
            let kind = tree.kind(of: inode)
            nodes.append(Node(inode: inode, entry: entry, role: .tree, kind: kind, parent: parent, links: kind == .directory ? 0 : 1))
            if kind == .directory {
                nodes[Int(parent)].links += 1
                open.append((index, tree.sortedEntries(of: inode), 0))
            }
        }
        for index in nodes.indices where nodes[index].role == .tree {
            do throws(Unwritable) { try check(nodes[index]) } catch { throw .unwritable(path: path(index), error.reason) }
        }
    }

    private mutating func check(_ node: Node) throws(Unwritable) {
        let time = tree.modified(of: node.inode)
        guard time.nanoseconds < 1_000_000_000 else { throw Unwritable(.nanosecondsTooLarge(time.nanoseconds)) }
        if node.kind != .directory, node.links > Ext4Format.maximumLinks { throw Unwritable(.tooManyLinks(node.links)) }
        let list = tree.extendedAttributeGroup(of: node.inode)
        if list != 0, !attributes[0].forms[list].isChecked {
            let found = try AttributeList(tree.extendedAttributes(of: node.inode))
            attributes[0].forms[list] = AttributeForm(
                isChecked: true, hasBlock: found.hasBlock, hasSeparateValues: !found.separateValues.isEmpty)
        }
        switch tree.content(of: node.inode) {
        case .symbolicLink(let target):
            guard target.count <= Ext4Format.maximumTargetLength else { throw Unwritable(.targetTooLong(bytes: target.count)) }
            guard !target.isEmpty, !target.bytes.contains(0) else { throw Unwritable(.targetInvalid) }
        case .blockDevice(let number), .characterDevice(let number):
            guard InodeRecord.blockMap(device: number) != nil else { throw Unwritable(.deviceNumberTooLarge(number)) }
        case .external(_, let size), .externalWithoutVerity(_, let size), .sparse(let size):
            guard Ext4Format.blocks(size) <= Ext4Format.maximumFileBlocks else { throw Unwritable(.fileTooLarge(bytes: size)) }
        case .inline, .fifo, .socket, nil: break
        }
    }

    /// Gives every large value an inode. Equal values share one, as in the kernel.
    private mutating func collectValues() throws(Ext4Error) {
        let count = nodes.count
        firstValue = count
        for index in 0..<count {
            nodes[index].hasAttributeBlock = form(of: nodes[index]).hasBlock
            for value in separateValues(of: nodes[index]) {
                let number = value.withUnsafeBytes { attributes[0].values.insert($0) }
                if number < attributes[0].references.count {
                    attributes[0].references[number] += 1
                    continue
                }
                nodes.append(
                    Node(inode: FileTree.root, role: .value, kind: .regular, parent: 0, links: 1, value: UInt32(number)))
                attributes[0].references.append(1)
            }
        }
    }

    // MARK: Contents

    /// The size of an inode's content in bytes, and whether blocks hold it.
    func content(of node: Node) -> (size: UInt64, isInBlocks: Bool) {
        switch node.role {
        case .value: return (UInt64(attributes[0].values.byteCount(of: Int(node.value))), true)
        case .lostAndFound: return (UInt64(Ext4Format.blockSize), true)
        case .tree: break
        }
        if node.kind == .directory {
            return (node.segmentCount == 0 ? 0 : UInt64(segments[Int(node.firstSegment)].count) << Ext4Format.blockBits, true)
        }
        switch tree.content(of: node.inode) {
        case .inline(let bytes): return (UInt64(bytes.count), true)
        case .external(_, let size), .externalWithoutVerity(_, let size), .sparse(let size): return (size, true)
        case .symbolicLink(let target): return (UInt64(target.count), target.count >= Ext4Format.blockMapSize)
        case .blockDevice, .characterDevice, .fifo, .socket, nil: return (0, false)
        }
    }

    private mutating func addSegments(_ index: Int, holes: (ObjectID, UInt64) -> [Range<UInt64>]) throws(Ext4Error) {
        nodes[index].firstSegment = UInt32(segments.count)
        if nodes[index].hasAttributeBlock { blocks += 1 }
        if nodes[index].kind == .directory {
            let directory: DirectoryBlocks
            do throws(Unwritable) { directory = try self.directory(index) } catch { throw .unwritable(path: path(index), error.reason) }
            nodes[index].isIndexed = directory.isIndexed
            append(0, UInt64(directory.blockCount))
        } else {
            let (size, isInBlocks) = content(of: nodes[index])
            let all = isInBlocks ? Ext4Format.blocks(size) : 0
            switch nodes[index].role == .tree ? tree.content(of: nodes[index].inode) : nil {
            case .sparse: break
            case .external(let id, _), .externalWithoutVerity(let id, _): appendData(all, size: size, holes: holes(id, size))
            default: append(0, all)
            }
        }
        nodes[index].segmentCount = UInt32(segments.count) - nodes[index].firstSegment
        guard blocks <= Ext4Format.maximumBlocks, segments.count < Int(UInt32.max) else {
            throw .tooLarge(bytes: blocks << Ext4Format.blockBits)
        }
    }

    /// Appends what is not in a hole. Only whole blocks become holes.
    private mutating func appendData(_ all: UInt64, size: UInt64, holes: [Range<UInt64>]) {
        var at: UInt64 = 0
        for hole in holes.sorted(by: { $0.lowerBound < $1.lowerBound }) where hole.lowerBound < size {
            let first = Ext4Format.blocks(hole.lowerBound)
            let end = hole.upperBound >= size ? all : hole.upperBound >> Ext4Format.blockBits
            guard first < end else { continue }
            if first > at { append(at, first - at) }
            at = max(at, end)
        }
        if at < all { append(at, all - at) }
    }

    private mutating func append(_ first: UInt64, _ count: UInt64) {
        guard count > 0 else { return }
        segments.append(Segment(first: UInt32(first), count: UInt32(count)))
        blocks += count
    }
}

/// A digest of everything in a tree, from which the file system's UUID is derived.
enum TreeDigest {
    static func of(_ tree: FileTree) -> [UInt8] {
        var hasher = DigestHasher(.sha256)
        var writer = ByteWriter(capacity: 1 << 16)
        var numbers = LargeArray<UInt32>(repeating: InodeList.none, count: tree.inodeCapacity, in: tree.memory)
        var count: UInt32 = 0
        writer.append("cfsoci.ext4\u{0}".utf8)

        func add(_ inode: FileTree.InodeID) {
            numbers[inode.arenaIndex] = count
            count += 1
            writer.u8(tree.kind(of: inode).rawValue)
            writer.u16(tree.permissions(of: inode))
            writer.u32(tree.uid(of: inode))
            writer.u32(tree.gid(of: inode))
            writer.i64(tree.modified(of: inode).seconds)
            writer.u32(tree.modified(of: inode).nanoseconds)
            let attributes = tree.extendedAttributes(of: inode)
            writer.u32(UInt32(attributes.count))
            for attribute in attributes { for part in [attribute.name, attribute.value] { addBytes(part.bytes) } }
            switch tree.content(of: inode) {
            case .inline(let bytes): addBytes(bytes.bytes)
            case .symbolicLink(let target): addBytes(target.bytes)
            case .external(let id, let size), .externalWithoutVerity(let id, let size):
                addBytes(id.bytes)
                writer.u64(size)
            case .sparse(let size): writer.u64(size)
            case .blockDevice(let number), .characterDevice(let number): writer.u64(number)
            case .fifo, .socket, nil: break
            }
            if writer.count >= 1 << 15 { flush() }
        }
        func addBytes(_ bytes: [UInt8]) {
            writer.u64(UInt64(bytes.count))
            writer.append(bytes)
        }
        func flush() {
            writer.bytes.withUnsafeBytes { hasher.update($0) }
            writer.bytes.removeAll(keepingCapacity: true)
        }

        add(FileTree.root)
        var open: [(directory: FileTree.InodeID, entries: FileTree.EntryList, next: Int)] = [
            (FileTree.root, tree.sortedEntries(of: FileTree.root), 0)
        ]
        while let (directory, entries, next) = open.last {
            guard next < entries.count else {
                open.removeLast()
                continue
            }
            open[open.count - 1].next = next + 1
            let inode = tree.inode(of: entries[next])
            writer.u32(numbers[directory.arenaIndex])
            tree.withName(of: entries[next]) { name in
                writer.u64(UInt64(name.count))
                writer.append(name)
            }
            let known = numbers[inode.arenaIndex]
            writer.u32(known)
            guard known == InodeList.none else { continue }
            add(inode)
            if tree.isDirectory(inode) { open.append((inode, tree.sortedEntries(of: inode), 0)) }
        }
        flush()
        return hasher.finalize().bytes
    }
}
