internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// The blocks of one directory: a single block of entries, or an index of hashes with leaf blocks below it (Documentation/filesystems/ext4/directory.rst).
struct DirectoryBlocks {
    struct Entry: BitwiseCopyable {
        /// Where the name begins in `names`.
        private let start: UInt32
        var inode: UInt32
        var hash: UInt32 = 0
        var minor: UInt32 = 0
        private let nameLength: UInt8
        var kind: FileTree.Kind

        /// - Parameter name: the range in the names, at most 255 bytes.
        init(name: Range<Int>, inode: UInt32, kind: FileTree.Kind) {
            start = UInt32(name.lowerBound)
            nameLength = UInt8(name.count)
            self.inode = inode
            self.kind = kind
        }

        var name: Range<Int> { Int(start)..<(Int(start) + Int(nameLength)) }
        var length: Int { EntryLayout.recordLength(name: Int(nameLength)) }
    }

    private static let dot = UInt8(ascii: ".")
    private static let dotsSize = 2 * 12

    private let names: [UInt8]
    private var entries: [Entry]
    /// The range in `entries` of each leaf block; empty without an index.
    private var leaves: [Range<Int>] = []
    private var nodeCount = 0

    var isIndexed: Bool { !leaves.isEmpty }
    var blockCount: Int { isIndexed ? 1 + nodeCount + leaves.count : 1 }

    /// - Parameter entries: All entries except `.` and `..`, with valid names.
    init(_ entries: [Entry], names: [UInt8], hash: DirectoryHash) throws(Unwritable) {
        self.names = names
        self.entries = entries
        let size = entries.reduce(Self.dotsSize) { $0 + $1.length }
        guard size > EntryLayout.blockSpace else { return }

        names.withUnsafeBytes { all in
            for index in self.entries.indices {
                let name = UnsafeRawBufferPointer(rebasing: all[self.entries[index].name])
                (self.entries[index].hash, self.entries[index].minor) = hash(name)
            }
            self.entries.sort {
                if $0.hash != $1.hash { return $0.hash < $1.hash }
                if $0.minor != $1.minor { return $0.minor < $1.minor }
                return compareBytes(UnsafeRawBufferPointer(rebasing: all[$0.name]), UnsafeRawBufferPointer(rebasing: all[$1.name])) < 0
            }
        }
        var (first, used) = (0, 0)
        for (index, entry) in self.entries.enumerated() {
            if used + entry.length > EntryLayout.blockSpace {
                leaves.append(first..<index)
                (first, used) = (index, 0)
            }
            used += entry.length
        }
        leaves.append(first..<self.entries.count)
        if leaves.count > IndexLayout.rootLimit {
            nodeCount = (leaves.count + IndexLayout.nodeLimit - 1) / IndexLayout.nodeLimit
            guard nodeCount <= IndexLayout.rootLimit else { throw Unwritable(.directoryTooLarge(entries: entries.count)) }
        }
    }

    /// The bytes of all blocks.
    /// - Parameter seed: The start of the checksums of the inode's blocks.
    func encode(own: UInt32, parent: UInt32, seed: UInt32) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: blockCount * Ext4Format.blockSize)
        guard isIndexed else {
            writeRecord(&bytes, at: 0, inode: own, length: 12, type: .directory, name: [Self.dot])
            let room = EntryLayout.blockSpace - 12
            writeRecord(&bytes, at: 12, inode: parent, length: entries.isEmpty ? room : 12, type: .directory, name: [Self.dot, Self.dot])
            writeEntries(&bytes, entries[...], from: Self.dotsSize, block: 0, seed: seed)
            return bytes
        }
        // The record of `..` hides the index from kernels that do not know it.
        writeRecord(&bytes, at: 0, inode: own, length: 12, type: .directory, name: [Self.dot])
        writeRecord(
            &bytes, at: 12, inode: parent, length: Ext4Format.blockSize - 12, type: .directory, name: [Self.dot, Self.dot])
        bytes[IndexLayout.hashVersion] = Ext4Format.halfMD4
        bytes[IndexLayout.infoLength] = 8
        bytes[IndexLayout.levels] = nodeCount > 0 ? 1 : 0
        let firstLeaf = 1 + nodeCount
        let children = leaves.indices.map { (hash: leafHash($0), block: UInt32(firstLeaf + $0)) }
        if nodeCount == 0 {
            writeIndex(&bytes, block: 0, entries: IndexLayout.rootEntries, limit: IndexLayout.rootLimit, children[...], seed)
        } else {
            var top: [(hash: UInt32, block: UInt32)] = []
            for node in 0..<nodeCount {
                let first = node * IndexLayout.nodeLimit
                let part = children[first..<min(first + IndexLayout.nodeLimit, children.count)]
                let start = (1 + node) * Ext4Format.blockSize
                bytes.put(UInt16(Ext4Format.blockSize), at: start + EntryLayout.recordLength)
                writeIndex(&bytes, block: 1 + node, entries: IndexLayout.nodeEntries, limit: IndexLayout.nodeLimit, part, seed)
                top.append((children[first].hash, UInt32(1 + node)))
            }
            writeIndex(&bytes, block: 0, entries: IndexLayout.rootEntries, limit: IndexLayout.rootLimit, top[...], seed)
        }
        for (index, leaf) in leaves.enumerated() {
            writeEntries(&bytes, entries[leaf], from: 0, block: firstLeaf + index, seed: seed)
        }
        return bytes
    }

    /// The least hash of a leaf. Bit 0 is set if the leaf before it ends with the same hash.
    private func leafHash(_ leaf: Int) -> UInt32 {
        let first = leaves[leaf].lowerBound
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

    /// Writes the entries of a block. The last record extends to the block's tail.
    private func writeEntries(_ bytes: inout [UInt8], _ part: ArraySlice<Entry>, from offset: Int, block: Int, seed: UInt32) {
        let start = block * Ext4Format.blockSize
        var at = offset
        for (index, entry) in zip(part.indices, part) {
            let length = index == part.endIndex - 1 ? EntryLayout.blockSpace - at : entry.length
            writeRecord(&bytes, at: start + at, inode: entry.inode, length: length, type: entry.kind, name: names[entry.name])
            at += entry.length
        }
        let tail = start + EntryLayout.blockSpace
        bytes.put(UInt16(EntryLayout.tailSize), at: tail + EntryLayout.recordLength)
        bytes[tail + EntryLayout.fileType] = Ext4Format.tailType
        bytes.put(crc32c(seed, bytes[start..<tail]), at: start + EntryLayout.checksum)
    }

    /// Writes the limit, the count and the entries of an index block. The first entry has no hash.
    private func writeIndex(
        _ bytes: inout [UInt8], block: Int, entries offset: Int, limit: Int, _ children: ArraySlice<(hash: UInt32, block: UInt32)>,
        _ seed: UInt32
    ) {
        let start = block * Ext4Format.blockSize
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
