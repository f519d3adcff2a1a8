// FileTree: a file system tree in memory, the common form between layers, dumpfiles and EROFS images.
//
// The module does no I/O and knows no format. Names are bytes; a tree cannot contain an invalid name or a hard link to a directory.
//
// - `FileTree` holds inodes and directory entries in flat arrays, so that trees of millions of files stay small. `order` puts them side by side in the
//   order in which images are written.
// - `Metadata`, `Content`, `Timestamp` and `ExtendedAttribute` describe an inode; `FileKind` is its type.
// - `FileTreeError` is the reason why a change was refused.

public import ComposefsBytes
package import ComposefsHashing

/// A file system tree in memory. Inodes and directory entries are stored in flat arrays and addressed by index. Those of large trees may be in
/// files of which only a part is in memory at a time (`LargeMemory`).
///
/// Hard links are several entries for one inode. Adding, finding and removing an entry takes constant time for any directory size; removing
/// a subtree takes time in proportion to the subtree. The space of removed nodes is not reused: a tree is built once and then read.
public struct FileTree: Sendable {
    /// Identifies an inode within one tree. Stays valid for the life of the tree; the ID of a removed inode is not reused.
    public struct InodeID: Hashable, Sendable, Comparable, BitwiseCopyable {
        @usableFromInline let index: UInt32
        @usableFromInline init(_ index: UInt32) { self.index = index }
        /// The position in the arena, below `inodeCapacity`: an index for side tables.
        @inlinable public var arenaIndex: Int { Int(index) }
        public static func < (lhs: InodeID, rhs: InodeID) -> Bool { lhs.index < rhs.index }
    }

    /// Identifies a directory entry within one tree.
    public struct EntryID: Hashable, Sendable, BitwiseCopyable {
        @usableFromInline let index: UInt32
        @usableFromInline init(_ index: UInt32) { self.index = index }
        package init(arenaIndex: Int) { index = UInt32(arenaIndex) }
        /// The position in the arena, below `entryCapacity`. Later entries have larger positions.
        @inlinable public var arenaIndex: Int { Int(index) }
    }

    /// The root directory's inode.
    public static let root = InodeID(0)

    struct Inode: BitwiseCopyable {
        /// The file size, the device number, or the length of the inline content or target.
        var value: UInt64 = 0
        var modified: Timestamp
        var uid: UInt32
        var gid: UInt32
        /// The index of the list of extended attributes; 0 is the empty list.
        var attributes: UInt32
        /// The number of an object or an offset into `blob`; for a directory, the first entry.
        var reference: UInt32
        /// For a directory, the last entry.
        var last: UInt32 = none
        /// The number of entries for this inode, 0 once it is removed; 1 for a directory.
        var links: UInt32
        var permissions: UInt16
        var shape: Shape
        /// That of an object.
        var algorithm = VerityAlgorithm.sha256
    }

    enum Shape: UInt8, BitwiseCopyable {
        case directory, inline, external, externalWithoutVerity, sparse, blockDevice, characterDevice, fifo, socket, symbolicLink
    }

    struct Entry: BitwiseCopyable {
        var name: UInt32
        var parent: UInt32
        var inode: UInt32
        var next: UInt32
        var previous: UInt32
        var nameLength: UInt16

        /// The range in `names`.
        var nameRange: Range<Int> { Int(name)..<(Int(name) + Int(nameLength)) }
    }

    static let none = UInt32.max

    var inodes: LargeArray<Inode>
    var entries: LargeArray<Entry>
    /// All names, concatenated.
    var names: LargeArray<UInt8>
    /// Inline contents and symlink targets, concatenated.
    var blob: LargeArray<UInt8>
    /// The distinct objects, those of SHA-256 first.
    var objects: [ObjectIDTable]
    /// One element: a tree is a small value.
    var attributes: [AttributeStore]
    /// Finds the entry for a directory and a name.
    var table: LargeTable

    public init(root metadata: Metadata) { self.init(root: metadata, in: HeapMemory.shared) }

    /// - Parameter memory: where inodes, entries, names and contents are.
    package init(root metadata: Metadata, in memory: any LargeMemory) {
        inodes = LargeArray(in: memory)
        entries = LargeArray(in: memory)
        names = LargeArray(in: memory)
        blob = LargeArray(in: memory)
        objects = [ObjectIDTable(.sha256, in: memory), ObjectIDTable(.sha512, in: memory)]
        attributes = [AttributeStore(in: memory)]
        table = LargeTable(in: memory)
        inodes.append(makeInode(metadata, shape: .directory))
    }

    /// Whether the entries of each directory are side by side in ascending order of their names, with no other one between them, and so are their
    /// inodes.
    var isInOrder = true

    /// Where the tree is, for what is made of it.
    package var memory: any LargeMemory { inodes.memory }

    // MARK: Inodes

    /// The number of inodes that were ever added: every `arenaIndex` is smaller.
    public var inodeCapacity: Int { inodes.count }

    /// The number of entries that were ever added: every `arenaIndex` is smaller.
    public var entryCapacity: Int { entries.count }

    /// The total size of names and values of all distinct lists of extended attributes, in bytes.
    public var attributeBytes: Int { attributes[0].byteCount }

    public func kind(of inode: InodeID) -> Kind {
        switch self[inode].shape {
        case .directory: .directory
        case .inline, .external, .externalWithoutVerity, .sparse: .regular
        case .blockDevice: .blockDevice
        case .characterDevice: .characterDevice
        case .fifo: .fifo
        case .socket: .socket
        case .symbolicLink: .symbolicLink
        }
    }

    public func isDirectory(_ inode: InodeID) -> Bool { self[inode].shape == .directory }

    /// Whether a directory has any entry.
    public func hasEntries(_ directory: InodeID) -> Bool { isDirectory(directory) && self[directory].reference != Self.none }

    /// The number of entries for the inode; always 1 for a directory.
    public func linkCount(of inode: InodeID) -> UInt32 { self[inode].links }

    public func metadata(of inode: InodeID) -> Metadata {
        let it = self[inode]
        return Metadata(
            permissions: it.permissions, uid: it.uid, gid: it.gid, modified: it.modified, sorted: attributes[0][it.attributes])
    }

    public func permissions(of inode: InodeID) -> UInt16 { self[inode].permissions }
    public func uid(of inode: InodeID) -> UInt32 { self[inode].uid }
    public func gid(of inode: InodeID) -> UInt32 { self[inode].gid }
    public func modified(of inode: InodeID) -> Timestamp { self[inode].modified }

    /// The extended attributes in ascending byte order of their names.
    public func extendedAttributes(of inode: InodeID) -> [ExtendedAttribute] { attributes[0][self[inode].attributes] }

    /// A number that is the same for inodes with the same attributes; 0 means none. It allows grouping without comparing.
    public func extendedAttributeGroup(of inode: InodeID) -> Int { Int(self[inode].attributes) }

    /// The number of distinct lists of attributes that were ever added: every `extendedAttributeGroup` is smaller.
    package var attributeListCapacity: Int { attributes[0].listCount }

    /// The number of distinct attributes that were ever added: every number of one is smaller.
    package var attributeCapacity: Int { attributes[0].attributeCount }

    /// Passes the numbers of an inode's attributes to `body`, in ascending byte order of the names. Equal attributes have the same number.
    package func forEachAttribute<Failure: Error>(
        of inode: InodeID, _ body: (_ number: Int) throws(Failure) -> Void
    ) throws(Failure) {
        let list = self[inode].attributes
        if list != 0 { try attributes[0].forEachAttribute(of: list, body) }
    }

    /// Passes name and value of an attribute to `body`. The bytes are valid only during the call.
    package func withAttribute<Result, Failure: Error>(
        _ number: Int, _ body: (_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result { try attributes[0].withAttribute(number, body) }

    public mutating func setMetadata(of inode: InodeID, to metadata: Metadata) {
        let list = attributes[0].insert(metadata.extendedAttributes)
        withInode(inode) {
            $0.permissions = metadata.permissions
            $0.uid = metadata.uid
            $0.gid = metadata.gid
            $0.modified = metadata.modified
            $0.attributes = list
        }
    }

    public mutating func setModified(of inode: InodeID, to time: Timestamp) {
        withInode(inode) { $0.modified = time }
    }

    /// Rewrites the extended attributes of all inodes. `transform` is called once for each distinct list.
    public mutating func mapExtendedAttributes(_ transform: ([ExtendedAttribute]) -> [ExtendedAttribute]) {
        let old = attributes[0]
        attributes[0] = AttributeStore(in: memory)
        var moved = LargeArray<UInt32>(in: memory)
        for list in 0..<old.listCount { moved.append(attributes[0].insert(transform(old[UInt32(list)]))) }
        for index in inodes.indices { inodes[index].attributes = moved[Int(inodes[index].attributes)] }
    }

    public mutating func setExtendedAttributes(of inode: InodeID, to new: [ExtendedAttribute]) {
        var metadata = Metadata(permissions: 0)
        metadata.setExtendedAttributes(new)
        let list = attributes[0].insert(metadata.extendedAttributes)
        withInode(inode) { $0.attributes = list }
    }

    /// The content of a leaf; nil for a directory.
    public func content(of inode: InodeID) -> Content? {
        let it = self[inode]
        switch it.shape {
        case .directory: return nil
        case .inline: return .inline(bytes(of: it))
        case .external: return .external(object(it), size: it.value)
        case .externalWithoutVerity: return .externalWithoutVerity(object(it), size: it.value)
        case .sparse: return .sparse(size: it.value)
        case .blockDevice: return .blockDevice(it.value)
        case .characterDevice: return .characterDevice(it.value)
        case .fifo: return .fifo
        case .socket: return .socket
        case .symbolicLink: return .symbolicLink(bytes(of: it))
        }
    }

    private func object(_ it: Inode) -> ObjectID {
        objects[it.algorithm == .sha256 ? 0 : 1].ids[Int(it.reference)]
    }

    /// The number of distinct objects that were ever added: every `objectNumber` is smaller.
    package var objectCapacity: Int { objects[0].count + objects[1].count }

    /// The number of the object with a file's content, which is the same for files with the same object; nil for other inodes. It changes when the
    /// tree does.
    package func objectNumber(of inode: InodeID) -> Int? {
        let it = self[inode]
        guard it.shape == .external || it.shape == .externalWithoutVerity else { return nil }
        return Int(it.reference) + (it.algorithm == .sha256 ? 0 : objects[0].count)
    }

    /// The object with a number.
    package func object(_ number: Int) -> ObjectID {
        let first = objects[0].count
        return number < first ? objects[0].ids[number] : objects[1].ids[number - first]
    }

    package func objectAlgorithm(_ number: Int) -> VerityAlgorithm { number < objects[0].count ? .sha256 : .sha512 }

    /// Whether this is a character device 0:0, the whiteout of overlayfs.
    public func isWhiteout(_ inode: InodeID) -> Bool {
        let it = self[inode]
        return it.shape == .characterDevice && it.value == 0
    }

    private func bytes(of it: Inode) -> ByteString {
        let start = Int(it.reference)
        return blob.withElements(start..<(start + Int(it.value))) { ByteString(Array($0)) }
    }

    // MARK: Entries

    /// Passes the entry's name to `body`; the bytes are valid only during the call.
    public func withName<Result>(of entry: EntryID, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        let it = entries[Int(entry.index)]
        return names.withElements(it.nameRange) { body(UnsafeRawBufferPointer($0)) }
    }

    /// The length of the entry's name, in bytes.
    package func nameLength(of entry: EntryID) -> Int { Int(entries[Int(entry.index)].nameLength) }

    public func name(of entry: EntryID) -> ByteString { withName(of: entry) { ByteString($0) } }

    public func inode(of entry: EntryID) -> InodeID { InodeID(entries[Int(entry.index)].inode) }

    public func parent(of entry: EntryID) -> InodeID { InodeID(entries[Int(entry.index)].parent) }

    public func entry(_ name: ByteString, in directory: InodeID) -> EntryID? {
        name.bytes.withUnsafeBytes { entry($0, in: directory) }
    }

    public func entry(_ name: UnsafeRawBufferPointer, in directory: InodeID) -> EntryID? {
        find(name, in: directory).map(EntryID.init)
    }

    public func lookup(_ name: ByteString, in directory: InodeID) -> InodeID? { entry(name, in: directory).map(inode(of:)) }

    /// The entries of a directory in the order in which they were added. Empty if the inode is not a directory.
    public func entries(of directory: InodeID) -> EntryList {
        let it = self[directory]
        guard it.shape == .directory, it.reference != Self.none else { return EntryList(.range(0, 0)) }
        if isInOrder { return EntryList(.range(it.reference, Int(it.last - it.reference) + 1)) }
        return EntryList(.list(entryNumbers(of: directory)))
    }

    func entryNumbers(of directory: InodeID) -> LargeArray<UInt32> {
        var list = LargeArray<UInt32>(in: memory)
        var at = self[directory].reference
        while at != Self.none {
            list.append(at)
            at = entries[Int(at)].next
        }
        return list
    }

    /// Visits the entries after the first `count` ones that were ever added, as far as they are still in the tree, in the order in which they were
    /// added.
    package func forEachEntry<Failure: Error>(
        addedAfter count: Int, _ body: (EntryID) throws(Failure) -> Void
    ) throws(Failure) {
        for index in min(count, entries.count)..<entries.count {
            let it = entries[index]
            // A removed entry keeps its fields, but the table does not find it any more.
            let found = withName(of: EntryID(UInt32(index))) { find($0, in: InodeID(it.parent)) }
            if found == UInt32(index) { try body(EntryID(UInt32(index))) }
        }
    }

    /// The inode at a path of names separated by `/`. Symbolic links are not followed; empty names are skipped.
    public func lookup(path: ByteString) -> InodeID? {
        var at = Self.root
        for name in path.bytes.split(separator: UInt8(ascii: "/")) {
            guard let next = lookup(ByteString(Array(name)), in: at) else { return nil }
            at = next
        }
        return at
    }
}
