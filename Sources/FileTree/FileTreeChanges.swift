public import ComposefsBytes
internal import ComposefsHashing

/// The reason why a change to a tree was refused.
public enum FileTreeError: Error, Hashable, CustomStringConvertible {
    case notADirectory
    case hardLinkToDirectory
    case exists
    /// The name is empty, longer than 65,535 bytes, `.` or `..`, or contains `/` or NUL.
    case invalidName(ByteString)
    /// The tree exceeds what its 32-bit indices can address.
    case tooLarge

    public var description: String {
        switch self {
        case .notADirectory: "not a directory"
        case .hardLinkToDirectory: "a directory cannot have a hard link"
        case .exists: "the name already exists"
        case .invalidName(let name): "'\(name)' is not a valid file name"
        case .tooLarge: "the tree has more than 4 GiB of names or contents, or too many inodes"
        }
    }
}

extension FileTree {
    /// Adds an empty directory. Throws `.exists` if the name is taken.
    @discardableResult
    public mutating func addDirectory(_ name: ByteString, in directory: InodeID, _ metadata: Metadata) throws(FileTreeError) -> InodeID {
        try checkRoom(name, in: directory)
        let inode = UInt32(inodes.count)
        inodes.append(makeInode(metadata, shape: .directory))
        addEntry(name, in: directory, to: inode)
        return InodeID(inode)
    }

    /// Adds a new leaf with one name. Throws `.exists` if the name is taken.
    @discardableResult
    public mutating func addLeaf(
        _ name: ByteString, in directory: InodeID, _ metadata: Metadata, _ content: Content
    ) throws(FileTreeError) -> InodeID {
        try checkRoom(name, in: directory)
        var it = makeInode(metadata, shape: .inline)
        try fill(&it, with: content)
        let inode = UInt32(inodes.count)
        inodes.append(it)
        addEntry(name, in: directory, to: inode)
        return InodeID(inode)
    }

    /// Adds a hard link to a leaf. Throws `.exists` if the name is taken.
    public mutating func addLink(_ name: ByteString, in directory: InodeID, to leaf: InodeID) throws(FileTreeError) {
        guard !isDirectory(leaf) else { throw .hardLinkToDirectory }
        try checkRoom(name, in: directory)
        inodes[Int(leaf.index)].links &+= 1
        addEntry(name, in: directory, to: leaf.index)
    }

    /// Replaces the content of a leaf, for all its names.
    public mutating func setContent(of leaf: InodeID, to content: Content) throws(FileTreeError) {
        guard !isDirectory(leaf) else { throw .notADirectory }
        var it = self[leaf]
        it.value = 0
        try fill(&it, with: content)
        inodes[Int(leaf.index)] = it
    }

    /// Makes an existing entry refer to another leaf. The new leaf gains a name and the old leaf loses one.
    public mutating func redirect(_ entry: EntryID, to leaf: InodeID) throws(FileTreeError) {
        let old = inode(of: entry)
        guard !isDirectory(leaf), !isDirectory(old) else { throw .hardLinkToDirectory }
        inodes[Int(leaf.index)].links &+= 1
        inodes[Int(old.index)].links &-= 1
        entries[Int(entry.index)].inode = leaf.index
    }

    /// Copies a leaf. No entry refers to the copy yet.
    public mutating func cloneLeaf(_ leaf: InodeID) -> InodeID {
        var it = self[leaf]
        it.links = 0
        inodes.append(it)
        return InodeID(UInt32(inodes.count - 1))
    }

    /// Removes a name, and everything below it if it is a directory. Returns whether the name existed.
    @discardableResult
    public mutating func remove(_ name: ByteString, from directory: InodeID) -> Bool {
        guard let entry = entry(name, in: directory) else { return false }
        remove(entry)
        return true
    }

    public mutating func remove(_ entry: EntryID) {
        let it = entries[Int(entry.index)]
        unlink(entry.index)
        if self[InodeID(it.inode)].shape == .directory { removeChildren(of: InodeID(it.inode)) }
        inodes[Int(it.inode)].links &-= 1
    }

    /// Removes all entries of a directory.
    public mutating func removeChildren(of directory: InodeID) {
        // An explicit stack instead of recursion, because the input determines the depth.
        var pending = [directory]
        while let next = pending.popLast() {
            for entry in entries(of: next) {
                let child = entries[Int(entry.index)].inode
                unlink(entry.index)
                inodes[Int(child)].links &-= 1
                if inodes[Int(child)].shape == .directory { pending.append(InodeID(child)) }
            }
        }
    }

    // MARK: Below

    @inline(__always)
    subscript(inode: InodeID) -> Inode { inodes[Int(inode.index)] }

    mutating func withInode(_ inode: InodeID, _ body: (inout Inode) -> Void) { body(&inodes[Int(inode.index)]) }

    mutating func makeInode(_ metadata: Metadata, shape: Shape) -> Inode {
        Inode(
            modified: metadata.modified, uid: metadata.uid, gid: metadata.gid,
            attributes: attributes[0].insert(metadata.extendedAttributes), reference: Self.none, links: 1,
            permissions: metadata.permissions, shape: shape)
    }

    private mutating func fill(_ it: inout Inode, with content: Content) throws(FileTreeError) {
        switch content {
        case .inline(let bytes):
            it.shape = .inline
            try keep(bytes, in: &it)
        case .symbolicLink(let target):
            it.shape = .symbolicLink
            try keep(target, in: &it)
        case .external(let id, let size):
            it.shape = .external
            keep(id, size, in: &it)
        case .externalWithoutVerity(let id, let size):
            it.shape = .externalWithoutVerity
            keep(id, size, in: &it)
        case .sparse(let size):
            it.shape = .sparse
            it.value = size
        case .blockDevice(let number):
            it.shape = .blockDevice
            it.value = number
        case .characterDevice(let number):
            it.shape = .characterDevice
            it.value = number
        case .fifo: it.shape = .fifo
        case .socket: it.shape = .socket
        }
    }

    private mutating func keep(_ id: ObjectID, _ size: UInt64, in it: inout Inode) {
        it.algorithm = id.algorithm
        it.reference = UInt32(objects[id.algorithm == .sha256 ? 0 : 1].insert(id))
        it.value = size
    }

    private mutating func keep(_ bytes: ByteString, in it: inout Inode) throws(FileTreeError) {
        guard blob.count + bytes.count < Int(UInt32.max) else { throw .tooLarge }
        it.reference = UInt32(blob.count)
        it.value = UInt64(bytes.count)
        bytes.bytes.withUnsafeBufferPointer { blob.append(contentsOf: $0) }
    }

    private func checkRoom(_ name: ByteString, in directory: InodeID) throws(FileTreeError) {
        guard isDirectory(directory) else { throw .notADirectory }
        guard !name.isEmpty, name.count <= Int(UInt16.max), name != ".", name != "..",
            !name.bytes.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") })
        else { throw .invalidName(name) }
        guard entry(name, in: directory) == nil else { throw .exists }
        guard names.count + name.count < Int(UInt32.max), inodes.count < Int(UInt32.max), entries.count < Int(UInt32.max) - 2 else {
            throw .tooLarge
        }
    }

    mutating func addEntry(_ name: UnsafeBufferPointer<UInt8>, in directory: InodeID, to inode: UInt32) {
        let index = UInt32(entries.count)
        let last = inodes[Int(directory.index)].last
        entries.append(
            Entry(
                name: UInt32(names.count), parent: directory.index, inode: inode, next: Self.none, previous: last,
                nameLength: UInt16(name.count)))
        names.append(contentsOf: name)
        if last == Self.none {
            inodes[Int(directory.index)].reference = index
        } else {
            entries[Int(last)].next = index
        }
        inodes[Int(directory.index)].last = index
        table.insert(index, hash: Self.hash(UnsafeRawBufferPointer(name), directory.index))
    }

    private mutating func addEntry(_ name: ByteString, in directory: InodeID, to inode: UInt32) {
        isInOrder = false
        name.bytes.withUnsafeBufferPointer { addEntry($0, in: directory, to: inode) }
    }

    private mutating func unlink(_ index: UInt32) {
        isInOrder = false
        let it = entries[Int(index)]
        if it.previous == Self.none {
            inodes[Int(it.parent)].reference = it.next
        } else {
            entries[Int(it.previous)].next = it.next
        }
        if it.next == Self.none {
            inodes[Int(it.parent)].last = it.previous
        } else {
            entries[Int(it.next)].previous = it.previous
        }
        let hash = withName(of: EntryID(index)) { Self.hash($0, it.parent) }
        table.remove(index, hash: hash)
    }

    func find(_ name: UnsafeRawBufferPointer, in directory: InodeID) -> UInt32? {
        table.find(hash: Self.hash(name, directory.index)) { candidate in
            let it = entries[Int(candidate)]
            guard it.parent == directory.index, Int(it.nameLength) == name.count else { return false }
            return names.withElements(it.nameRange) { compareBytes(UnsafeRawBufferPointer($0), name) == 0 }
        }
    }

    /// Seeded per process, so that names cannot be chosen to collide.
    private static func hash(_ name: UnsafeRawBufferPointer, _ directory: UInt32) -> UInt32 {
        var hasher = Hasher()
        hasher.combine(directory)
        hasher.combine(bytes: name)
        return UInt32(truncatingIfNeeded: hasher.finalize())
    }
}
