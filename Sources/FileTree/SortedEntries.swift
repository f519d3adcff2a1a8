internal import ComposefsBytes

extension FileTree {
    /// The entries of a directory in ascending byte order of their names.
    public func sortedEntries(of directory: InodeID) -> [EntryID] {
        struct Name: BitwiseCopyable {
            var start: UInt32
            var entry: UInt32
            var length: UInt16
        }
        let it = self[directory]
        guard it.shape == .directory, it.reference != Self.none else { return [] }
        if isInOrder { return entries(of: directory) }
        // A copy of the names: those of a large tree can be far from each other.
        var bytes = LargeArray<UInt8>()
        var sorted = LargeArray<Name>()
        var at = it.reference
        while at != Self.none {
            let entry = entries[Int(at)]
            sorted.append(Name(start: UInt32(bytes.count), entry: at, length: entry.nameLength))
            names.withElements(entry.nameRange) { bytes.append(contentsOf: $0) }
            at = entry.next
        }
        bytes.withElements(bytes.indices) { bytes in
            let bytes = UnsafeRawBufferPointer(bytes)
            func name(_ it: Name) -> UnsafeRawBufferPointer {
                UnsafeRawBufferPointer(rebasing: bytes[Int(it.start)..<(Int(it.start) + Int(it.length))])
            }
            sorted.withMutableElements { sorted in
                let isSorted = sorted.indices.dropFirst().allSatisfy { compareBytes(name(sorted[$0 - 1]), name(sorted[$0])) < 0 }
                if !isSorted { sorted.sort { compareBytes(name($0), name($1)) < 0 } }
            }
        }
        return sorted.indices.map { EntryID(sorted[$0].entry) }
    }

    /// Copies a tree that is not on the heap so that the entries of each directory are side by side, in ascending order of their names, and so are
    /// their inodes: a visit of all files uses each part of it once. Inodes and entries get other identifiers.
    package mutating func order() {
        guard !isInOrder, inodes.isOutsideOfHeap || entries.isOutsideOfHeap || names.isOutsideOfHeap else { return }
        // Its memory is needed for that of the copy.
        table = LargeTable(in: memory)
        var new = FileTree(orderedCopyOf: self)
        var places = LargeArray<UInt32>(repeating: Self.none, count: inodes.count, in: memory)
        places[Self.root.arenaIndex] = UInt32(Self.root.arenaIndex)
        var pending = [Self.root]
        while let directory = pending.popLast() {
            var below: [InodeID] = []
            for entry in sortedEntries(of: directory) {
                let old = inode(of: entry)
                let isDirectory = isDirectory(old)
                if places[old.arenaIndex] == Self.none { places[old.arenaIndex] = new.copyInode(old, of: self) }
                new.copyEntry(entry, of: self, in: places[directory.arenaIndex], to: places[old.arenaIndex])
                if isDirectory { below.append(old) }
            }
            pending += below.reversed()
        }
        self = new
    }

    private init(orderedCopyOf old: FileTree) {
        self.init(root: old.metadata(of: Self.root), in: old.memory)
        objects = old.objects
        attributeLists = old.attributeLists
        attributeIndex = old.attributeIndex
        attributeBytes = old.attributeBytes
        inodes[Self.root.arenaIndex].attributes = old[Self.root].attributes
    }

    private mutating func copyInode(_ inode: InodeID, of old: FileTree) -> UInt32 {
        var it = old[inode]
        switch it.shape {
        case .directory:
            it.reference = Self.none
            it.last = Self.none
        case .inline, .symbolicLink:
            let start = Int(it.reference)
            it.reference = UInt32(blob.count)
            old.blob.withElements(start..<(start + Int(it.value))) { blob.append(contentsOf: $0) }
        default: break
        }
        inodes.append(it)
        return UInt32(inodes.count - 1)
    }

    private mutating func copyEntry(_ entry: EntryID, of old: FileTree, in directory: UInt32, to inode: UInt32) {
        old.names.withElements(old.entries[entry.arenaIndex].nameRange) {
            addEntry($0, in: InodeID(directory), to: inode)
        }
    }
}
