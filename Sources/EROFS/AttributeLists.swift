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
    private struct Additions: OptionSet {
        let rawValue: UInt8
        static let root = Additions(rawValue: 1)
        static let stub = Additions(rawValue: 2)
        static let escapedWhiteout = Additions(rawValue: 4)
        static let holdsEscapedWhiteout = Additions(rawValue: 8)
        static let sparse = Additions(rawValue: 16)
    }

    private struct Key: Hashable, BitwiseCopyable {
        var group: UInt32
        var additions: UInt8

        var hash: UInt32 { UInt32(truncatingIfNeeded: hashValue) }
    }

    /// A list that several inodes share, except for their digests.
    private struct Base: BitwiseCopyable {
        var key: Key
        var list: List
        /// The positions of metacopy and redirect in the order of names.
        var metacopyAt: UInt32
        var redirectAt: UInt32
    }

    private(set) var table: AttributeTable
    private(set) var references: LargeArray<AttributeTable.Reference>
    private(set) var lists: LargeArray<List>
    /// The size of the shared table in bytes.
    private(set) var sharedSize = 0
    /// Whether any inode has a POSIX ACL.
    private(set) var hasACL = false
    private var bases: LargeArray<Base>
    /// The numbers of bases by their keys.
    private var known: LargeTable

    init(_ plan: borrowing ImagePlan, _ tree: borrowing FileTree) throws(ErofsError) {
        table = AttributeTable(version: plan.version, tree)
        references = LargeArray(in: tree.memory)
        lists = LargeArray(in: tree.memory)
        bases = LargeArray(in: tree.memory)
        known = LargeTable(in: tree.memory)
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
        known = LargeTable()
        bases.reset()
        for index in lists.indices {
            let list = lists[index]
            for index in Int(list.first)..<Int(list.first + list.count) { table.count(references[index]) }
        }
        sharedSize = try table.share(in: tree)
        hasACL = plan.version.isFirstEpoch && table.hasACL
    }

    private func key(
        of node: ImagePlan.Node, _ content: Content?, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) -> Key {
        if node.role == .stub { return Key(group: 0, additions: Additions.stub.rawValue) }
        var additions: Additions = []
        if node.directory != ImagePlan.none {
            if node.directory == 0, plan.version.isFirstEpoch { additions.insert(.root) }
            if plan.directories[Int(node.directory)].holdsEscapedWhiteout { additions.insert(.holdsEscapedWhiteout) }
        }
        if node.role == .escapedWhiteout { additions.insert(.escapedWhiteout) }
        switch content {
        case .sparse, .externalWithoutVerity: additions.insert(.sparse)
        default: break
        }
        return Key(group: UInt32(tree.extendedAttributeGroup(of: node.inode)), additions: additions.rawValue)
    }

    private mutating func base(
        for key: Key, of node: ImagePlan.Node, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) throws(ErofsError) -> Int {
        if let index = known.find(hash: key.hash, where: { bases[Int($0)].key == key }) { return Int(index) }
        let additions = Additions(rawValue: key.additions)
        var attributes: [ExtendedAttribute] = []
        if additions.contains(.stub) {
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
        if additions.contains(.escapedWhiteout) {
            set(OverlayAttribute.escapedWhiteout, ByteString())
            set(OverlayAttribute.userWhiteout, ByteString())
        }
        if additions.contains(.holdsEscapedWhiteout) {
            set(OverlayAttribute.escapedWhiteouts, ByteString())
            set(OverlayAttribute.userWhiteouts, ByteString())
            if plan.version == .v1 {
                set(OverlayAttribute.escapedOpaque, "x")
                set(OverlayAttribute.userOpaque, "x")
            }
        }
        if additions.contains(.root) { set(OverlayAttribute.opaque, "y") }
        var list = attributes.map { table.intern($0) }
        if additions.contains(.sparse) { list.insert(table.emptyMetacopy, at: 0) }
        for reference in list {
            let name = table.fullName(of: reference)
            if name.isEmpty || name.bytes.contains(0) {
                throw .unwritable(path: plan.path(of: node, tree), .attributeNameInvalid(name))
            }
            if table.suffixLength(of: reference) > 255 { throw .unwritable(path: plan.path(of: node, tree), .attributeNameTooLong(name)) }
            let size = table.keptValueLength(reference.index)
            if size > 65535 { throw .unwritable(path: plan.path(of: node, tree), .attributeValueTooLong(name, bytes: size)) }
        }
        var metacopyAt = 0
        var redirectAt = additions.contains(.sparse) ? 1 : 0
        if plan.version.isFirstEpoch {
            var named = list.map { (name: table.fullName(of: $0), reference: $0) }
            named.sort { $0.name < $1.name }
            list = named.map(\.reference)
            metacopyAt = named.count { $0.name < OverlayAttribute.metacopy }
            redirectAt = named.count { $0.name < OverlayAttribute.redirect }
        }
        let start = references.count
        list.withUnsafeBufferPointer { references.append(contentsOf: $0) }
        let filter = list.reduce(0) { $0 | table.name(of: $1).filterBit }
        bases.append(
            Base(
                key: key, list: List(first: UInt32(start), count: UInt32(list.count), filter: filter), metacopyAt: UInt32(metacopyAt),
                redirectAt: UInt32(redirectAt)))
        known.insert(UInt32(bases.count - 1), hash: key.hash)
        return bases.count - 1
    }

    private mutating func list(_ index: Int, _ inode: FileTree.InodeID, _ content: Content?, _ tree: borrowing FileTree) -> List {
        guard let content, let digest = tree.objectNumber(of: inode) else { return bases[index].list }
        let base = bases[index]
        let start = references.count
        let redirect = AttributeTable.Reference(.redirect, digest)
        var filter = base.list.filter | table.name(of: redirect).filterBit
        for position in 0...base.list.count {
            if position == base.metacopyAt, case .external = content {
                let metacopy = AttributeTable.Reference(.metacopy, digest)
                references.append(metacopy)
                filter |= table.name(of: metacopy).filterBit
            }
            if position == base.redirectAt { references.append(redirect) }
            if position < base.list.count { references.append(references[Int(base.list.first + position)]) }
        }
        return List(first: UInt32(start), count: UInt32(references.count - start), filter: filter)
    }
}
