internal import ComposefsBytes
internal import ComposefsFileTree

/// The extended attributes of the inodes of a disk's image. What several inodes have is stored once, up to the 255 attributes that an inode can
/// share.
///
/// The table has a number for each distinct attribute of the tree. What is beside an inode follows from the tree.
struct DiskAttributes: Sendable {
    /// For each attribute of the tree, where it is in `shared`, plus one; 0 if it is beside its inode.
    private var places: LargeArray<UInt32>
    /// The table of shared entries.
    private(set) var shared: LargeArray<UInt8>

    var sharedSize: Int { shared.count }

    private static let maximumShared = 255

    /// - Throws: `ErofsError.unwritable`.
    init(_ tree: FileTree, _ nodes: LargeArray<ErofsDiskPlan.Node>) throws(ErofsError) {
        places = LargeArray(repeating: 0, count: tree.attributeCapacity, in: tree.memory)
        shared = LargeArray(in: tree.memory)
        guard tree.attributeCapacity > 0 else { return }
        var uses = LargeArray<UInt32>(repeating: 0, count: tree.attributeCapacity, in: tree.memory)
        for index in nodes.indices { tree.forEachAttribute(of: nodes[index].inode) { uses[$0] += 1 } }
        var isKnown = LargeArray<Bool>(repeating: false, count: tree.attributeListCapacity, in: tree.memory)
        for index in nodes.indices {
            let inode = nodes[index].inode
            let list = tree.extendedAttributeGroup(of: inode)
            guard list != 0, !isKnown[list] else { continue }
            isKnown[list] = true
            do throws(Refusal) { try add(inode, of: tree, uses) } catch { throw .unwritable(path: tree.path(of: inode), error.reason) }
        }
    }

    private struct Refusal: Error {
        var reason: ErofsError.Reason
    }

    /// Adds to the table what an inode has in common with others.
    private mutating func add(_ inode: FileTree.InodeID, of tree: FileTree, _ uses: LargeArray<UInt32>) throws(Refusal) {
        var count = 0
        try tree.forEachAttribute(of: inode) { (number) throws(Refusal) in
            let entry = Entry(number, of: tree)
            try entry.check(number, of: tree)
            guard uses[number] > 1, count < Self.maximumShared else { return }
            if places[number] == 0 {
                guard shared.count + entry.size < Int(UInt32.max) else { return }
                places[number] = UInt32(shared.count + 1)
                var writer = ByteWriter(capacity: entry.size)
                entry.write(number, of: tree, to: &writer)
                writer.bytes.withUnsafeBufferPointer { shared.append(contentsOf: $0) }
            }
            count += 1
        }
    }

    /// The form of an attribute in the image.
    private struct Entry {
        var prefix: Int
        var suffixLength: Int
        var valueLength: Int

        var size: Int {
            Erofs.align(AttributeEntryLayout.size + suffixLength + valueLength, to: AttributeEntryLayout.alignment)
        }

        init(_ number: Int, of tree: FileTree) {
            self = tree.withAttribute(number) { name, value in
                // No kernel knows the prefix `lustre.`.
                let prefix =
                    Erofs.attributePrefixes.indices.last { $0 != Int(Erofs.lustrePrefix) && name.starts(with: Erofs.attributePrefixes[$0]) }
                    ?? 0
                return Entry(prefix: prefix, suffixLength: name.count - Erofs.attributePrefixes[prefix].count, valueLength: value.count)
            }
        }

        private init(prefix: Int, suffixLength: Int, valueLength: Int) {
            self.prefix = prefix
            self.suffixLength = suffixLength
            self.valueLength = valueLength
        }

        func check(_ number: Int, of tree: FileTree) throws(Refusal) {
            func name() -> ByteString { tree.withAttribute(number) { name, _ in ByteString(name) } }
            let isValid = tree.withAttribute(number) { name, _ in !name.isEmpty && !name.contains(0) }
            guard isValid else { throw Refusal(reason: .attributeNameInvalid(name())) }
            guard suffixLength <= Int(UInt8.max) else { throw Refusal(reason: .attributeNameTooLong(name())) }
            guard valueLength <= Int(UInt16.max) else { throw Refusal(reason: .attributeValueTooLong(name(), bytes: valueLength)) }
        }

        func write(_ number: Int, of tree: FileTree, to writer: inout ByteWriter) {
            writer.u8(UInt8(suffixLength))
            writer.u8(UInt8(prefix))
            writer.u16(UInt16(valueLength))
            tree.withAttribute(number) { name, value in
                writer.append(UnsafeRawBufferPointer(rebasing: name.suffix(suffixLength)))
                writer.append(value)
            }
            writer.zeros(size - AttributeEntryLayout.size - suffixLength - valueLength)
        }
    }

    // MARK: Areas

    /// Whether an attribute is in the table, for an inode that has a number of shared ones already.
    private func isShared(_ number: Int, _ count: Int) -> Bool { count < Self.maximumShared && places[number] != 0 }

    /// The size of the area after an inode; 0 without attributes.
    func size(of inode: FileTree.InodeID, in tree: FileTree) -> Int {
        guard tree.extendedAttributeGroup(of: inode) != 0 else { return 0 }
        var (count, own) = (0, 0)
        tree.forEachAttribute(of: inode) { number in
            if isShared(number, count) { count += 1 } else { own += Entry(number, of: tree).size }
        }
        return AttributeHeaderLayout.size + count * AttributeHeaderLayout.referenceSize + own
    }

    /// Appends the area after an inode.
    ///
    /// - Parameter tableOffset: the offset of the table of shared entries, in bytes from the block that the superblock names.
    func write(_ inode: FileTree.InodeID, in tree: FileTree, tableOffset: Int, to writer: inout ByteWriter) {
        guard tree.extendedAttributeGroup(of: inode) != 0 else { return }
        var references: [UInt32] = []
        var own: [Int] = []
        tree.forEachAttribute(of: inode) { number in
            if isShared(number, references.count) { references.append(places[number] - 1) } else { own.append(number) }
        }
        writer.u32(0)
        writer.u8(UInt8(references.count))
        writer.zeros(AttributeHeaderLayout.reserved.count)
        for reference in references {
            writer.u32(UInt32((tableOffset + Int(reference)) / AttributeHeaderLayout.referenceSize))
        }
        for number in own { Entry(number, of: tree).write(number, of: tree, to: &writer) }
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
