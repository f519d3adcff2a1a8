internal import ComposefsBytes
internal import ComposefsFileTree

/// The extended attributes of the inodes of a disk's image. What several inodes have is stored once, up to the 255 attributes that an inode can
/// share.
///
/// The tree counts inodes with equal lists as one group, and so does this table: its size is that of the distinct lists.
struct DiskAttributes: Sendable {
    private struct Group {
        /// The range in `references`.
        var shared: Range<Int> = 0..<0
        /// The entries that are beside the inode, encoded.
        var own: [UInt8] = []
    }

    private var groups: [Int: Group] = [:]
    /// The offsets of shared entries in their table, in bytes.
    private var references: [UInt32] = []
    /// The table of shared entries.
    private(set) var shared: [UInt8] = []

    var sharedSize: Int { shared.count }

    private static let maximumShared = 255

    /// - Throws: `ErofsError.unwritable`.
    init(_ tree: FileTree, _ nodes: LargeArray<ErofsDiskPlan.Node>) throws(ErofsError) {
        var owners: [(group: Int, inode: FileTree.InodeID, count: Int)] = []
        var known: [Int: Int] = [:]
        for index in nodes.indices {
            let node = nodes[index]
            let group = tree.extendedAttributeGroup(of: node.inode)
            guard group != 0 else { continue }
            if let index = known[group] {
                owners[index].count += 1
            } else {
                known[group] = owners.count
                owners.append((group, node.inode, 1))
            }
        }
        guard !owners.isEmpty else { return }
        var uses: [ExtendedAttribute: Int] = [:]
        for owner in owners {
            for attribute in tree.extendedAttributes(of: owner.inode) { uses[attribute, default: 0] += owner.count }
        }
        var offsets: [ExtendedAttribute: UInt32] = [:]
        for owner in owners {
            var group = Group()
            var list: [UInt32] = []
            for attribute in tree.extendedAttributes(of: owner.inode) {
                let entry: [UInt8]
                do throws(Refusal) {
                    entry = try Self.encode(attribute)
                } catch {
                    throw .unwritable(path: tree.path(of: owner.inode), error.reason)
                }
                if let uses = uses[attribute], uses > 1, list.count < Self.maximumShared, let offset = share(attribute, entry, &offsets) {
                    list.append(offset)
                } else {
                    group.own += entry
                }
            }
            group.shared = references.count..<(references.count + list.count)
            references += list
            let size = Self.size(shared: list.count, own: group.own.count)
            guard size <= Erofs.maximumAttributeSize else {
                throw .unwritable(path: tree.path(of: owner.inode), .attributesTooLarge(bytes: size))
            }
            groups[owner.group] = group
        }
    }

    /// The offset of an entry in the table, to which it is added if it is new; nil if the table is full.
    private mutating func share(_ attribute: ExtendedAttribute, _ entry: [UInt8], _ offsets: inout [ExtendedAttribute: UInt32]) -> UInt32? {
        if let known = offsets[attribute] { return known }
        guard let offset = UInt32(exactly: shared.count), shared.count + entry.count < Int(UInt32.max) else { return nil }
        shared += entry
        offsets[attribute] = offset
        return offset
    }

    private static func size(shared: Int, own: Int) -> Int {
        AttributeHeaderLayout.size + shared * AttributeHeaderLayout.referenceSize + own
    }

    private struct Refusal: Error {
        var reason: ErofsError.Reason
    }

    private static func encode(_ attribute: ExtendedAttribute) throws(Refusal) -> [UInt8] {
        let (name, value) = (attribute.name, attribute.value)
        guard !name.isEmpty, !name.bytes.contains(0) else { throw Refusal(reason: .attributeNameInvalid(name)) }
        // No kernel knows the prefix `lustre.`.
        let prefix =
            Erofs.attributePrefixes.indices.last { $0 != Int(Erofs.lustrePrefix) && name.bytes.starts(with: Erofs.attributePrefixes[$0]) }
            ?? 0
        let suffix = name.bytes.dropFirst(Erofs.attributePrefixes[prefix].count)
        guard let nameLength = UInt8(exactly: suffix.count) else { throw Refusal(reason: .attributeNameTooLong(name)) }
        guard let size = UInt16(exactly: value.count) else { throw Refusal(reason: .attributeValueTooLong(name, bytes: value.count)) }
        var entry = ByteWriter(capacity: AttributeEntryLayout.size + suffix.count + value.count + AttributeEntryLayout.alignment)
        entry.u8(nameLength)
        entry.u8(UInt8(prefix))
        entry.u16(size)
        entry.append(suffix)
        entry.append(value.bytes)
        entry.pad(to: AttributeEntryLayout.alignment)
        return entry.bytes
    }

    // MARK: Areas

    /// The size of the area after an inode; 0 without attributes.
    func size(of inode: FileTree.InodeID, in tree: FileTree) -> Int {
        guard let group = groups[tree.extendedAttributeGroup(of: inode)] else { return 0 }
        return Self.size(shared: group.shared.count, own: group.own.count)
    }

    /// Appends the area after an inode.
    ///
    /// - Parameter tableOffset: the offset of the table of shared entries, in bytes from the block that the superblock names.
    func write(_ inode: FileTree.InodeID, in tree: FileTree, tableOffset: Int, to writer: inout ByteWriter) {
        guard let group = groups[tree.extendedAttributeGroup(of: inode)] else { return }
        writer.u32(0)
        writer.u8(UInt8(group.shared.count))
        writer.zeros(AttributeHeaderLayout.reserved.count)
        for reference in references[group.shared] {
            writer.u32(UInt32((tableOffset + Int(reference)) / AttributeHeaderLayout.referenceSize))
        }
        writer.append(group.own)
    }
}

extension FileTree {
    /// The absolute path of an inode, for messages. Searches the tree.
    func path(of wanted: InodeID) -> ByteString {
        var pending: [(directory: InodeID, path: [UInt8])] = [(FileTree.root, [])]
        guard wanted != FileTree.root else { return "/" }
        while let (directory, path) = pending.popLast() {
            for entry in sortedEntries(of: directory).reversed() {
                let inode = inode(of: entry)
                let below = path + [UInt8(ascii: "/")] + name(of: entry).bytes
                if inode == wanted { return ByteString(below) }
                if isDirectory(inode) { pending.append((inode, below)) }
            }
        }
        return "/"
    }
}
