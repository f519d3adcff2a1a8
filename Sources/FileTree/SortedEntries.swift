internal import ComposefsBytes

extension FileTree {
    /// The entries of a directory in ascending byte order of their names.
    public func sortedEntries(of directory: InodeID) -> EntryList {
        guard !isInOrder, hasEntries(directory) else { return entries(of: directory) }
        var list = entryNumbers(of: directory)
        var nameBytes = 0
        var isSorted = true
        for index in list.indices {
            nameBytes += nameLength(of: EntryID(list[index]))
            if index > 0, isSorted { isSorted = compareNames(list[index - 1], list[index]) < 0 }
        }
        if !isSorted {
            if nameBytes <= Self.copiedNames { sortCopies(&list) } else { sortPrefixes(&list) }
        }
        return EntryList(.list(list))
    }

    /// Names of a directory that are copied to sort them, in bytes.
    private static let copiedNames = 1 << 20

    private func compareNames(_ lhs: UInt32, _ rhs: UInt32) -> Int {
        withName(of: EntryID(lhs)) { l in withName(of: EntryID(rhs)) { compareBytes(l, $0) } }
    }

    /// Sorts entries by copies of their names: those of a large tree can be far from each other.
    private func sortCopies(_ list: inout LargeArray<UInt32>) {
        struct Name: BitwiseCopyable {
            var start: UInt32
            var entry: UInt32
            var length: UInt16
        }
        var bytes: [UInt8] = []
        var sorted: [Name] = []
        sorted.reserveCapacity(list.count)
        for index in list.indices {
            let entry = EntryID(list[index])
            sorted.append(Name(start: UInt32(bytes.count), entry: entry.index, length: UInt16(nameLength(of: entry))))
            withName(of: entry) { bytes.append(contentsOf: $0) }
        }
        bytes.withUnsafeBytes { bytes in
            func name(_ it: Name) -> UnsafeRawBufferPointer {
                UnsafeRawBufferPointer(rebasing: bytes[Int(it.start)..<(Int(it.start) + Int(it.length))])
            }
            sorted.sort { compareBytes(name($0), name($1)) < 0 }
        }
        for (index, name) in sorted.enumerated() { list[index] = name.entry }
    }

    /// Eight bytes of a name as a number, which has the order of the names: no name contains NUL.
    private struct Prefix: BitwiseCopyable {
        var bytes: UInt64 = 0
        var entry: UInt32

        static func isBefore(_ lhs: Prefix, _ rhs: Prefix) -> Bool {
            lhs.bytes == rhs.bytes ? lhs.entry < rhs.entry : lhs.bytes < rhs.bytes
        }
    }

    /// Sorts entries by eight bytes at a time, after what all names have in common. The names are read in the order of the entries.
    private func sortPrefixes(_ list: inout LargeArray<UInt32>) {
        var prefixes = LargeArray<Prefix>(in: memory)
        for index in list.indices { prefixes.append(Prefix(entry: list[index])) }
        var pending = [(range: prefixes.indices, depth: 0)]
        while let (range, depth) = pending.popLast() {
            let depth = commonLength(prefixes, range, from: depth)
            for index in range {
                prefixes[index].bytes = withName(of: EntryID(prefixes[index].entry)) { Self.number($0, from: depth) }
            }
            prefixes.sort(range, by: Prefix.isBefore)
            var start = range.lowerBound
            for index in range where index + 1 == range.upperBound || prefixes[index + 1].bytes != prefixes[index].bytes {
                let equal = start..<(index + 1)
                start = index + 1
                if equal.count > Self.smallGroup {
                    pending.append((equal, depth + MemoryLayout<UInt64>.size))
                } else if equal.count > 1 {
                    let sorted = equal.map { prefixes[$0] }.sorted { compareNames($0.entry, $1.entry) < 0 }
                    for (offset, prefix) in sorted.enumerated() { prefixes[equal.lowerBound + offset] = prefix }
                }
            }
        }
        for index in list.indices { list[index] = prefixes[index].entry }
    }

    /// Names that are compared as a whole.
    private static let smallGroup = 32

    /// The length of what the names of entries have in common, in bytes. They have at least `known`.
    private func commonLength(_ prefixes: LargeArray<Prefix>, _ range: Range<Int>, from known: Int) -> Int {
        let first = name(of: EntryID(prefixes[range.lowerBound].entry)).bytes
        var common = first.count
        for index in range.dropFirst() where common > known {
            withName(of: EntryID(prefixes[index].entry)) { name in
                var length = known
                while length < min(common, name.count), first[length] == name[length] { length += 1 }
                common = length
            }
        }
        return common
    }

    private static func number(_ name: UnsafeRawBufferPointer, from start: Int) -> UInt64 {
        var number: UInt64 = 0
        for index in start..<(start + MemoryLayout<UInt64>.size) { number = number << 8 | UInt64(index < name.count ? name[index] : 0) }
        return number
    }

    /// Copies a tree that is not on the heap so that the entries of each directory are side by side, in ascending order of their names, and so are
    /// their inodes: a visit of all files uses each part of it once. Inodes and entries get other identifiers.
    package mutating func order() {
        let isOnHeap = !inodes.isOutsideOfHeap && !entries.isOutsideOfHeap && !names.isOutsideOfHeap && !attributes[0].isOutsideOfHeap
        guard !isInOrder, !isOnHeap else { return }
        // Its memory is needed for that of the copy.
        table = LargeTable(in: memory)
        var new = FileTree(orderedCopyOf: self)
        // The new numbers of lists of attributes.
        var lists = LargeArray<UInt32>(repeating: Self.none, count: attributeListCapacity, in: memory)
        var places = LargeArray<UInt32>(repeating: Self.none, count: inodes.count, in: memory)
        places[Self.root.arenaIndex] = UInt32(Self.root.arenaIndex)
        var pending = [Self.root]
        while let directory = pending.popLast() {
            var below: [InodeID] = []
            for entry in sortedEntries(of: directory) {
                let old = inode(of: entry)
                let isDirectory = isDirectory(old)
                if places[old.arenaIndex] == Self.none { places[old.arenaIndex] = new.copyInode(old, of: self, &lists) }
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
    }

    private mutating func setAttributes(of index: Int, from inode: InodeID, of old: FileTree, _ lists: inout LargeArray<UInt32>) {
        let list = Int(old[inode].attributes)
        if lists[list] == Self.none { lists[list] = attributes[0].insert(old.extendedAttributes(of: inode)) }
        inodes[index].attributes = lists[list]
    }

    private mutating func copyInode(_ inode: InodeID, of old: FileTree, _ lists: inout LargeArray<UInt32>) -> UInt32 {
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
        setAttributes(of: inodes.count - 1, from: inode, of: old, &lists)
        return UInt32(inodes.count - 1)
    }

    private mutating func copyEntry(_ entry: EntryID, of old: FileTree, in directory: UInt32, to inode: UInt32) {
        old.names.withElements(old.entries[entry.arenaIndex].nameRange) {
            addEntry($0, in: InodeID(directory), to: inode)
        }
    }
}
