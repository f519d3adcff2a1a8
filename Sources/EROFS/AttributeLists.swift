internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// The list of extended attributes of each inode of an image, in the order in which they are written.
struct AttributeLists {
    /// A range in `references`.
    struct List: BitwiseCopyable {
        var first: UInt32 = 0
        var count: UInt32 = 0
        /// The filter bits of all names.
        var filter: UInt32 = 0
    }

    /// The attributes that the format adds to an inode's own ones.
    private struct Key: Hashable {
        var group: Int
        var isRoot = false
        var isStub = false
        var isEscapedWhiteout = false
        var holdsEscapedWhiteout = false
        var isSparse = false
    }

    /// A list that several inodes share, except for their digests.
    private struct Base {
        var references: [AttributeTable.Reference]
        var list: List
        /// The positions of metacopy and redirect in the order of names.
        var metacopyAt: Int
        var redirectAt: Int
        var filter: UInt32
    }

    private(set) var table: AttributeTable
    private(set) var references: LargeArray<AttributeTable.Reference>
    private(set) var lists: LargeArray<List>
    /// The size of the shared table in bytes.
    private(set) var sharedSize = 0
    /// Whether any inode has a POSIX ACL.
    private(set) var hasACL = false
    private var bases: [Base] = []
    private var known: [Key: Int] = [:]

    init(_ plan: borrowing ImagePlan, _ tree: borrowing FileTree) throws(ErofsError) {
        table = AttributeTable(version: plan.version, tree)
        references = LargeArray(in: tree.memory)
        lists = LargeArray(in: tree.memory)
        // Most inodes have the same list as the one before. A comparison with it saves the dictionary lookup.
        var last: (key: Key, base: Int)?
        for index in plan.nodes.indices {
            let node = plan.nodes[index]
            let content: Content? =
                node.kind == .regular && node.role == .ordinary ? tree.content(of: node.inode) : nil
            let key = key(of: node, content, plan, tree)
            let base: Int
            if let last, last.key == key {
                base = last.base
            } else {
                base = try self.base(for: key, of: node, plan, tree)
                last = (key, base)
            }
            lists.append(list(base, node.inode, content, tree))
        }
        known = [:]
        bases = []
        for index in lists.indices {
            let list = lists[index]
            for index in Int(list.first)..<Int(list.first + list.count) { table.count(references[index]) }
        }
        sharedSize = try table.share(in: tree)
        hasACL = plan.version.isFirstEpoch && table.kept.contains { (2...3).contains(table.names[Int($0.name)].prefix) }
    }

    private func key(
        of node: ImagePlan.Node, _ content: Content?, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) -> Key {
        if node.role == .stub { return Key(group: 0, isStub: true) }
        var key = Key(group: tree.extendedAttributeGroup(of: node.inode))
        if node.directory != ImagePlan.none {
            key.isRoot = node.directory == 0 && plan.version.isFirstEpoch
            key.holdsEscapedWhiteout = plan.directories[Int(node.directory)].holdsEscapedWhiteout
        }
        key.isEscapedWhiteout = node.role == .escapedWhiteout
        if case .sparse = content { key.isSparse = true }
        if case .externalWithoutVerity = content { key.isSparse = true }
        return key
    }

    private mutating func base(
        for key: Key, of node: ImagePlan.Node, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) throws(ErofsError) -> Int {
        if let index = known[key] { return index }
        var attributes: [ExtendedAttribute] = []
        if key.isStub {
            attributes = tree.extendedAttributes(of: FileTree.root).filter { $0.name == OverlayAttribute.selinux }
        } else {
            attributes = tree.extendedAttributes(of: node.inode)
        }
        for index in attributes.indices where attributes[index].name.hasPrefix(OverlayAttribute.prefix) {
            let rest = attributes[index].name.bytes.dropFirst(OverlayAttribute.prefix.count)
            attributes[index].name = ByteString(OverlayAttribute.escapedPrefix.bytes + rest)
        }
        func set(_ name: ByteString, _ value: ByteString) {
            if let index = attributes.firstIndex(where: { $0.name == name }) {
                attributes[index].value = value
            } else {
                attributes.append(ExtendedAttribute(name: name, value: value))
            }
        }
        if key.isEscapedWhiteout {
            set(OverlayAttribute.escapedWhiteout, ByteString())
            set(OverlayAttribute.userWhiteout, ByteString())
        }
        if key.holdsEscapedWhiteout {
            set(OverlayAttribute.escapedWhiteouts, ByteString())
            set(OverlayAttribute.userWhiteouts, ByteString())
            if plan.version == .v1 {
                set(OverlayAttribute.escapedOpaque, "x")
                set(OverlayAttribute.userOpaque, "x")
            }
        }
        if key.isRoot { set(OverlayAttribute.opaque, "y") }
        var list = attributes.map { table.intern($0) }
        if key.isSparse { list.insert(table.emptyMetacopy, at: 0) }
        for reference in list {
            let name = table.name(of: reference)
            if name.full.isEmpty || name.full.bytes.contains(0) {
                throw .unwritable(path: plan.path(of: node, tree), .attributeNameInvalid(name.full))
            }
            if name.suffix.count > 255 { throw .unwritable(path: plan.path(of: node, tree), .attributeNameTooLong(name.full)) }
            let size = table.kept[reference.index].value.count
            if size > 65535 { throw .unwritable(path: plan.path(of: node, tree), .attributeValueTooLong(name.full, bytes: size)) }
        }
        var metacopyAt = 0
        var redirectAt = key.isSparse ? 1 : 0
        if plan.version.isFirstEpoch {
            list.sort { table.name(of: $0).full < table.name(of: $1).full }
            metacopyAt = list.count { table.name(of: $0).full < OverlayAttribute.metacopy }
            redirectAt = list.count { table.name(of: $0).full < OverlayAttribute.redirect }
        }
        let start = references.count
        list.withUnsafeBufferPointer { references.append(contentsOf: $0) }
        let filter = list.reduce(0) { $0 | table.name(of: $1).filterBit }
        bases.append(
            Base(
                references: list, list: List(first: UInt32(start), count: UInt32(list.count), filter: filter), metacopyAt: metacopyAt,
                redirectAt: redirectAt, filter: filter))
        known[key] = bases.count - 1
        return bases.count - 1
    }

    private mutating func list(_ index: Int, _ inode: FileTree.InodeID, _ content: Content?, _ tree: borrowing FileTree) -> List {
        guard let content, let digest = tree.objectNumber(of: inode) else { return bases[index].list }
        let base = bases[index]
        let start = references.count
        var filter = base.filter | table.names[Int(table.redirectName)].filterBit
        for position in 0...base.references.count {
            if position == base.metacopyAt, case .external = content {
                references.append(.init(.metacopy, digest))
                filter |= table.names[Int(table.metacopyName)].filterBit
            }
            if position == base.redirectAt { references.append(.init(.redirect, digest)) }
            if position < base.references.count { references.append(base.references[position]) }
        }
        return List(first: UInt32(start), count: UInt32(references.count - start), filter: filter)
    }
}
