internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// The blocks of one directory: a single block of entries, or an index of hashes with leaf blocks below it (Documentation/filesystems/ext4/directory.rst).
struct DirectoryBlocks {
    struct Entry: BitwiseCopyable {
        /// The position of the tree's entry, or `lostAndFound`.
        private let position: UInt32
        var inode: UInt32
        var hash: UInt32 = 0
        var minor: UInt32 = 0
        private let nameLength: UInt8
        var kind: FileTree.Kind

        private static let lostAndFound = UInt32.max

        /// - Parameter entry: with a name of at most 255 bytes; nil for `lost+found`.
        init(_ entry: FileTree.EntryID?, of tree: FileTree, inode: UInt32, kind: FileTree.Kind) {
            position = entry.map { UInt32($0.arenaIndex) } ?? Self.lostAndFound
            nameLength = UInt8(entry.map { tree.nameLength(of: $0) } ?? InodeList.lostAndFound.count)
            self.inode = inode
            self.kind = kind
        }

        var length: Int { EntryLayout.recordLength(name: Int(nameLength)) }

        /// The order in which names are stored in the tree.
        static func isStoredBefore(_ lhs: Entry, _ rhs: Entry) -> Bool { lhs.position < rhs.position }

        func withName<Result>(in tree: FileTree, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
            if position == Self.lostAndFound { return InodeList.lostAndFound.bytes.withUnsafeBytes(body) }
            return tree.withName(of: FileTree.EntryID(arenaIndex: Int(position)), body)
        }
    }

    private static let dot = UInt8(ascii: ".")
    private static let dotsSize = 2 * 12

    private let tree: FileTree
    private var entries: LargeArray<Entry>
    /// The first entry of each leaf block; empty without an index.
    private var leaves: [UInt32] = []
    private var nodeCount = 0

    var isIndexed: Bool { !leaves.isEmpty }
    var blockCount: Int { isIndexed ? 1 + nodeCount + leaves.count : 1 }

    /// - Parameter entries: All entries except `.` and `..`, with valid names.
    init(_ entries: consuming LargeArray<Entry>, of tree: FileTree, hash: DirectoryHash) throws(Unwritable) {
        self.tree = tree
        self.entries = entries
        var size = Self.dotsSize
        for index in self.entries.indices { size += self.entries[index].length }
        guard size > EntryLayout.blockSpace else { return }

        for index in self.entries.indices {
            (self.entries[index].hash, self.entries[index].minor) = self.entries[index].withName(in: tree) { hash($0) }
        }
        self.entries.sort { left, right in
            if left.hash != right.hash { return left.hash < right.hash }
            if left.minor != right.minor { return left.minor < right.minor }
            return left.withName(in: tree) { name in right.withName(in: tree) { compareBytes(name, $0) < 0 } }
        }
        var used = 0
        for index in self.entries.indices {
            let length = self.entries[index].length
            if index == 0 || used + length > EntryLayout.blockSpace {
                leaves.append(UInt32(index))
                used = 0
            }
            used += length
        }
        if leaves.count > IndexLayout.rootLimit {
            nodeCount = (leaves.count + IndexLayout.nodeLimit - 1) / IndexLayout.nodeLimit
            guard nodeCount <= IndexLayout.rootLimit else { throw Unwritable(.directoryTooLarge(entries: self.entries.count)) }
        }
    }

    /// The bytes of a range of blocks.
    ///
    /// - Parameter seed: The start of the checksums of the inode's blocks.
    func encode(_ blocks: Range<Int>, own: UInt32, parent: UInt32, seed: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: blocks.count * Ext4Format.blockSize)
        for block in blocks where block <= nodeCount {
            let start = (block - blocks.lowerBound) * Ext4Format.blockSize
            if block == 0 {
                writeRoot(&bytes, at: start, own: own, parent: parent, seed)
            } else {
                bytes.put(UInt16(Ext4Format.blockSize), at: start + EntryLayout.recordLength)
                let first = (block - 1) * IndexLayout.nodeLimit
                let children = (first..<min(first + IndexLayout.nodeLimit, leaves.count)).map(leafChild)
                writeIndex(&bytes, at: start, entries: IndexLayout.nodeEntries, limit: IndexLayout.nodeLimit, children, seed)
            }
        }
        guard isIndexed else {
            writeEntries(&bytes, [(at: 0, from: Self.dotsSize, entries: entries.indices)], seed: seed)
            return bytes
        }
        let written = blocks.clamped(to: firstLeaf..<blockCount).map { block in
            (at: (block - blocks.lowerBound) * Ext4Format.blockSize, from: 0, entries: entries(ofLeaf: block - firstLeaf))
        }
        writeEntries(&bytes, written, seed: seed)
        return bytes
    }

    private var firstLeaf: Int { 1 + nodeCount }

    private func entries(ofLeaf leaf: Int) -> Range<Int> {
        Int(leaves[leaf])..<(leaf + 1 < leaves.count ? Int(leaves[leaf + 1]) : entries.count)
    }

    private typealias Child = (hash: UInt32, block: UInt32)

    private func leafChild(_ leaf: Int) -> Child { (leafHash(leaf), UInt32(firstLeaf + leaf)) }

    /// Writes what the first block has besides entries.
    private func writeRoot(_ bytes: inout [UInt8], at start: Int, own: UInt32, parent: UInt32, _ seed: UInt32) {
        writeRecord(&bytes, at: start, inode: own, length: 12, type: .directory, name: [Self.dot])
        guard isIndexed else {
            let room = EntryLayout.blockSpace - 12
            writeRecord(
                &bytes, at: start + 12, inode: parent, length: entries.isEmpty ? room : 12, type: .directory, name: [Self.dot, Self.dot])
            return
        }
        // The record of `..` hides the index from kernels that do not know it.
        writeRecord(
            &bytes, at: start + 12, inode: parent, length: Ext4Format.blockSize - 12, type: .directory, name: [Self.dot, Self.dot])
        bytes[start + IndexLayout.hashVersion] = Ext4Format.halfMD4
        bytes[start + IndexLayout.infoLength] = 8
        bytes[start + IndexLayout.levels] = nodeCount > 0 ? 1 : 0
        let children: [Child]
        if nodeCount == 0 {
            children = leaves.indices.map(leafChild)
        } else {
            children = (0..<nodeCount).map { (leafHash($0 * IndexLayout.nodeLimit), UInt32(1 + $0)) }
        }
        writeIndex(&bytes, at: start, entries: IndexLayout.rootEntries, limit: IndexLayout.rootLimit, children, seed)
    }

    /// The least hash of a leaf. Bit 0 is set if the leaf before it ends with the same hash.
    private func leafHash(_ leaf: Int) -> UInt32 {
        let first = Int(leaves[leaf])
        guard first > 0 else { return 0 }
        let hash = entries[first].hash
        return entries[first - 1].hash == hash ? hash | 1 : hash
    }

    private func writeRecord(
        _ bytes: inout [UInt8], at offset: Int, inode: UInt32, length: Int, type: FileTree.Kind, name: some Collection<UInt8>
    ) {
        bytes.put(inode, at: offset + EntryLayout.inode)
        bytes.put(UInt16(length), at: offset + EntryLayout.recordLength)
        bytes[offset + EntryLayout.nameLength] = UInt8(name.count)
        bytes[offset + EntryLayout.fileType] = Ext4Format.entryType(type)
        bytes.put(name, at: offset + EntryLayout.name)
    }

    /// Writes blocks of entries, each of which has room from an offset on. The last record of a block extends to its tail.
    private func writeEntries(_ bytes: inout [UInt8], _ blocks: [(at: Int, from: Int, entries: Range<Int>)], seed: UInt32) {
        // Each with the offset and the length of its record, in the order of the tree: names of a large tree can be far from each other.
        var records: [(entry: Entry, at: Int, length: Int)] = []
        records.reserveCapacity(blocks.reduce(0) { $0 + $1.entries.count })
        for block in blocks {
            var at = block.at + block.from
            for index in block.entries {
                let entry = entries[index]
                let isLast = index + 1 == block.entries.upperBound
                records.append((entry, at, isLast ? block.at + EntryLayout.blockSpace - at : entry.length))
                at += entry.length
            }
        }
        records.sort { Entry.isStoredBefore($0.entry, $1.entry) }
        for (entry, at, length) in records {
            entry.withName(in: tree) { writeRecord(&bytes, at: at, inode: entry.inode, length: length, type: entry.kind, name: $0) }
        }
        for block in blocks {
            let tail = block.at + EntryLayout.blockSpace
            bytes.put(UInt16(EntryLayout.tailSize), at: tail + EntryLayout.recordLength)
            bytes[tail + EntryLayout.fileType] = Ext4Format.tailType
            bytes.put(crc32c(seed, bytes[block.at..<tail]), at: block.at + EntryLayout.checksum)
        }
    }

    /// Writes the limit, the count and the entries of an index block. The first entry has no hash.
    private func writeIndex(_ bytes: inout [UInt8], at start: Int, entries offset: Int, limit: Int, _ children: [Child], _ seed: UInt32) {
        var at = start + offset
        for (index, child) in children.enumerated() {
            if index > 0 { bytes.put(child.hash, at: at) }
            bytes.put(child.block, at: at + IndexLayout.firstBlock)
            at += IndexLayout.entrySize
        }
        bytes.put(UInt16(limit), at: start + offset + IndexLayout.limit)
        bytes.put(UInt16(children.count), at: start + offset + IndexLayout.count)
        let whole = bytes[start..<(start + Ext4Format.blockSize)]
        let sum = Checksums.index(seed, whole, entries: offset, count: children.count)
        bytes.put(sum, at: start + IndexLayout.tail + 4)
    }
}
