public import ComposefsBytes
public import ComposefsFileTree
internal import ComposefsHashing

/// An entry of a directory in an image.
public struct Ext4Entry: Hashable, Sendable {
    public var name: ByteString
    public var inode: UInt32
    public var kind: FileTree.Kind
}

/// The blocks of a directory, by their place in the directory.
struct DirectoryExtents {
    private let extents: [Ext4Extent]
    let blockCount: UInt32

    /// Every block must be there. There are at most as many as the file system has, so that time and memory are limited.
    init(_ extents: [Ext4Extent], size: UInt64, limit: UInt64) throws(Unreadable) {
        guard size > 0, size % UInt64(Ext4Format.blockSize) == 0, size >> Ext4Format.blockBits <= limit,
            let count = UInt32(exactly: size >> Ext4Format.blockBits)
        else { throw Unreadable("a directory of \(size) bytes") }
        var at: UInt32 = 0
        for extent in extents {
            guard extent.logical == at, extent.isWritten, extent.count <= count - at else { throw Unreadable("a directory with a hole") }
            at += extent.count
        }
        guard at == count else { throw Unreadable("a directory with a hole") }
        self.extents = extents
        blockCount = count
    }

    func block(_ logical: UInt32) -> UInt64 {
        var (low, high) = (0, extents.count)
        while high - low > 1 {
            let middle = (low + high) / 2
            if extents[middle].logical <= logical { low = middle } else { high = middle }
        }
        return extents[low].start + UInt64(logical - extents[low].logical)
    }
}

/// A fault without its place, which the caller knows.
struct Unreadable: Error {
    var what: String
    init(_ what: String) { self.what = what }
}

extension Ext4Image {
    /// The entries of a directory without `.` and `..`, in the order of its blocks. An index is checked: every name is in the block that its hash
    /// determines.
    public func entries(of directory: Ext4Inode) throws -> [Ext4Entry] {
        try listing(of: directory).entries
    }

    /// Finds a name as the kernel does: through the index, if there is one.
    public func entry(_ name: ByteString, in directory: Ext4Inode) throws -> Ext4Entry? {
        let reader = try DirectoryReader(self, directory)
        guard directory.flags & Ext4Format.flagIndexed != 0, let hash = superblock.hash else {
            return try listing(of: directory).entries.first { $0.name == name }
        }
        let wanted = name.bytes.withUnsafeBytes { hash($0).major }
        let index = try reader.index()
        guard index.version == Ext4Format.halfMD4 else { return try listing(of: directory).entries.first { $0.name == name } }
        guard var leaf = index.leaves.lastIndex(where: { $0.hash & ~1 <= wanted }) else { return nil }
        // Names with one hash can extend over several blocks.
        while leaf > 0, index.leaves[leaf].hash & ~1 == wanted, index.leaves[leaf].hash & 1 == 1 { leaf -= 1 }
        while leaf < index.leaves.count, index.leaves[leaf].hash & ~1 <= wanted {
            if let found = try reader.entries(index.leaves[leaf].block).first(where: { $0.name == name }) { return found }
            leaf += 1
        }
        return nil
    }

    /// The entries, and the parent's inode number.
    func listing(of directory: Ext4Inode) throws -> (entries: [Ext4Entry], parent: UInt32) {
        let reader = try DirectoryReader(self, directory)
        var found: [Ext4Entry] = []
        var parent: UInt32 = 0
        if directory.flags & Ext4Format.flagIndexed != 0 {
            let index = try reader.index()
            parent = index.parent
            for (position, leaf) in index.leaves.enumerated() {
                let part = try reader.entries(leaf.block)
                if let hash = superblock.hash, index.version == Ext4Format.halfMD4 {
                    let low = leaf.hash & ~1
                    let high = position + 1 < index.leaves.count ? index.leaves[position + 1].hash : .max
                    for entry in part {
                        let own = entry.name.bytes.withUnsafeBytes { hash($0).major }
                        // The next block may continue with the same hash, which bit 0 of its entry says.
                        guard own >= low, own < high else {
                            throw reader.damaged("the hash of '\(entry.name)' does not belong in block \(leaf.block)")
                        }
                    }
                }
                found += part
            }
        } else {
            for block in 0..<reader.extents.blockCount {
                var part = try reader.entries(block, allowsDots: block == 0)
                if block == 0 {
                    guard part.count >= 2, part[0].name == ".", part[0].inode == directory.number, part[1].name == ".." else {
                        throw reader.damaged("it does not begin with '.' and '..'")
                    }
                    parent = part[1].inode
                    part.removeFirst(2)
                }
                found += part
            }
        }
        guard Set(found.map(\.name)).count == found.count else { throw reader.damaged("a name occurs twice") }
        return (found, parent)
    }
}

/// Reads the blocks of one directory.
private struct DirectoryReader<Source: RandomAccessBytes> {
    let image: Ext4Image<Source>
    let directory: Ext4Inode
    let extents: DirectoryExtents
    private let seed: UInt32

    struct Index {
        var version: UInt8
        var parent: UInt32
        var leaves: [(hash: UInt32, block: UInt32)]
    }

    init(_ image: Ext4Image<Source>, _ directory: Ext4Inode) throws {
        self.image = image
        self.directory = directory
        seed = image.superblock.checksums.inodeSeed(directory.number, generation: directory.generation)
        guard directory.kind == .directory else {
            throw Ext4Error.damaged(inode: directory.number, offset: 0, "it is not a directory")
        }
        do {
            extents = try DirectoryExtents(try image.extents(of: directory), size: directory.size, limit: image.superblock.blocks)
        } catch let error as Unreadable {
            throw Ext4Error.damaged(inode: directory.number, offset: 0, error.what)
        }
    }

    func damaged(_ what: String, block: UInt32 = 0) -> Ext4Error {
        .damaged(inode: directory.number, offset: extents.block(block) << Ext4Format.blockBits, what)
    }

    private func bytes(_ block: UInt32) throws -> [UInt8] { try image.block(extents.block(block), inode: directory.number) }

    /// The entries of a leaf block.
    func entries(_ block: UInt32, allowsDots: Bool = false) throws -> [Ext4Entry] {
        let bytes = try bytes(block)
        let tail = EntryLayout.blockSpace
        guard bytes.load(UInt32.self, at: tail + EntryLayout.inode) == 0,
            bytes.load(UInt16.self, at: tail + EntryLayout.recordLength) == UInt16(EntryLayout.tailSize),
            bytes[tail + EntryLayout.nameLength] == 0, bytes[tail + EntryLayout.fileType] == Ext4Format.tailType
        else { throw damaged("block \(block) has no checksum", block: block) }
        let sum = bytes.load(UInt32.self, at: EntryLayout.checksum)
        try image.checkSum(
            sum, crc32c(seed, bytes[..<tail]), inode: directory.number, block: extents.block(block), "block \(block)")
        var found: [Ext4Entry] = []
        var at = 0
        while at < tail {
            // The rest is at least 12 bytes: all lengths are multiples of four, and so is the end.
            guard tail - at >= EntryLayout.recordLength(name: 1) else { throw damaged("block \(block) ends in an entry", block: block) }
            let length = Int(bytes.load(UInt16.self, at: at + EntryLayout.recordLength))
            let nameLength = Int(bytes[at + EntryLayout.nameLength])
            guard length % 4 == 0, length >= EntryLayout.recordLength(name: nameLength), length >= 12, length <= tail - at else {
                throw damaged("an entry of block \(block) has \(length) bytes", block: block)
            }
            let inode = bytes.load(UInt32.self, at: at + EntryLayout.inode)
            if inode != 0 {
                let name = ByteString(Array(bytes[(at + EntryLayout.name)..<(at + EntryLayout.name + nameLength)]))
                let isDots = name == "." || name == ".."
                guard inode <= image.superblock.inodes, let kind = FileTree.Kind(rawValue: bytes[at + EntryLayout.fileType]), !name.isEmpty,
                    !name.bytes.contains(0), !name.bytes.contains(0x2f), !isDots || allowsDots && found.count < 2
                else { throw damaged("block \(block) has an entry that is not valid", block: block) }
                found.append(Ext4Entry(name: name, inode: inode, kind: kind))
            }
            at += length
        }
        return found
    }

    /// The index, with its leaves in ascending order of hashes. Every block of the directory has exactly one place in it.
    func index() throws -> Index {
        let root = try bytes(0)
        guard root.load(UInt32.self, at: 0) == directory.number, root.load(UInt16.self, at: EntryLayout.recordLength) == 12,
            root[EntryLayout.nameLength] == 1, root[EntryLayout.name] == 0x2e,
            root.load(UInt16.self, at: 12 + EntryLayout.recordLength) == UInt16(Ext4Format.blockSize - 12),
            root[12 + EntryLayout.nameLength] == 2, root[12 + EntryLayout.name] == 0x2e, root[13 + EntryLayout.name] == 0x2e,
            root[IndexLayout.infoLength] == 8, root.load(UInt32.self, at: 24) == 0
        else { throw damaged("its index has a wrong root") }
        let levels = Int(root[IndexLayout.levels])
        guard levels <= 2 else { throw damaged("its index has \(levels + 1) levels") }
        var seen = [Bool](repeating: false, count: Int(extents.blockCount))
        seen[0] = true
        var level = try children(root, 0, IndexLayout.rootEntries, IndexLayout.rootLimit, from: 0, &seen)
        for _ in 0..<levels {
            var below: [(hash: UInt32, block: UInt32)] = []
            for (hash, block) in level {
                let bytes = try bytes(block)
                guard bytes.load(UInt32.self, at: 0) == 0,
                    bytes.load(UInt16.self, at: EntryLayout.recordLength) == UInt16(Ext4Format.blockSize)
                else { throw damaged("block \(block) is no part of an index", block: block) }
                below += try children(bytes, block, IndexLayout.nodeEntries, IndexLayout.nodeLimit, from: hash, &seen)
            }
            level = below
        }
        for (one, next) in zip(level, level.dropFirst()) where one.hash & ~1 > next.hash & ~1 {
            throw damaged("the hashes of its index are not in order", block: next.block)
        }
        guard seen.allSatisfy({ $0 }) else { throw damaged("a block is not in its index") }
        return Index(version: root[IndexLayout.hashVersion], parent: root.load(UInt32.self, at: 12), leaves: level)
    }

    private func children(
        _ bytes: [UInt8], _ block: UInt32, _ offset: Int, _ limit: Int, from hash: UInt32, _ seen: inout [Bool]
    ) throws -> [(hash: UInt32, block: UInt32)] {
        let count = Int(bytes.load(UInt16.self, at: offset + IndexLayout.count))
        guard bytes.load(UInt16.self, at: offset + IndexLayout.limit) == UInt16(limit), count > 0, count <= limit else {
            throw damaged("block \(block) of its index has \(count) entries", block: block)
        }
        let sum = bytes.load(UInt32.self, at: IndexLayout.tail + 4)
        try image.checkSum(
            sum, Checksums.index(seed, bytes[...], entries: offset, count: count), inode: directory.number, block: extents.block(block),
            "block \(block) of its index")
        return try (0..<count).map { index in
            let at = offset + index * IndexLayout.entrySize
            // The highest four bits are reserved.
            let child = bytes.load(UInt32.self, at: at + IndexLayout.firstBlock) & 0x0fff_ffff
            guard child < extents.blockCount, !seen[Int(child)] else {
                throw damaged("block \(block) of its index refers to block \(child)", block: block)
            }
            seen[Int(child)] = true
            return (index == 0 ? hash : bytes.load(UInt32.self, at: at), child)
        }
    }
}
