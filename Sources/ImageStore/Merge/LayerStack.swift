import ComposefsBytes
package import ComposefsFileTree

/// What a layer adds to the layers below it, as overlayfs needs it (Documentation/filesystems/overlayfs.rst).
package struct StackableLayer: Sendable {
    /// The layer's files with all their parents; whiteouts (character devices 0:0) only for names that a lower layer has; opaque marks
    /// (`trusted.overlay.opaque`) on directories that replace lower ones. Attributes that overlayfs would obey are escaped.
    package var tree: FileTree
    /// What overlayfs cannot show.
    package var exceptions: StackExceptions
}

/// Makes the layers of a stack, one after the other, from a merge.
struct LayerStack {
    /// For each directory of the merged tree, by its position, the entry that names it.
    private var names: LargeArray<UInt32>
    private var isLowest = true

    private static let none = UInt32.max

    private static let opaque: ByteString = "trusted.overlay.opaque"
    private static let prefix: ByteString = "trusted.overlay."
    private static let escapedPrefix: ByteString = "trusted.overlay.overlay."

    /// - Parameter memory: where the layers' trees are.
    init(in memory: any LargeMemory) { names = LargeArray(repeating: Self.none, count: 1, in: memory) }

    /// The layer that the merger has applied last. Must be called after each.
    mutating func layer(of merger: borrowing LayerMerger) throws(FileTreeError) -> StackableLayer {
        let firstInode = names.count
        names.append(repeating: Self.none, count: merger.tree.inodeCapacity - names.count)
        merger.tree.forEachEntry(addedAfter: merger.firstOwn) { entry in
            let inode = merger.tree.inode(of: entry)
            if merger.tree.isDirectory(inode) { names[inode.arenaIndex] = UInt32(entry.arenaIndex) }
        }
        var copy = Copy(merger, names, firstOwnInode: isLowest ? 0 : firstInode)
        isLowest = false
        try copy.addAll()
        copy.result.order()
        return StackableLayer(tree: copy.result, exceptions: copy.exceptions)
    }

    private struct Copy: ~Copyable {
        let tree: FileTree
        let names: LargeArray<UInt32>
        let firstOwn: Int
        let firstOwnInode: Int
        let described: Set<FileTree.InodeID>
        /// Entries of lower layers that the layer has removed or replaced, ordered by directory and name.
        let removed: LargeArray<UInt32>
        var directories: [FileTree.InodeID: FileTree.InodeID] = [:]
        /// Those with several names.
        var leaves: [FileTree.InodeID: FileTree.InodeID] = [:]
        var result: FileTree
        var exceptions: StackExceptions

        init(_ merger: borrowing LayerMerger, _ names: LargeArray<UInt32>, firstOwnInode: Int) {
            guard var removed = merger.removals else { preconditionFailure("the merger does not record what layers remove") }
            let tree = merger.tree
            removed.sort { left, right in
                let (left, right) = (FileTree.EntryID(arenaIndex: Int(left)), FileTree.EntryID(arenaIndex: Int(right)))
                let (first, second) = (tree.parent(of: left), tree.parent(of: right))
                if first != second { return first < second }
                return tree.withName(of: left) { name in tree.withName(of: right) { compareBytes(name, $0) < 0 } }
            }
            self.removed = removed
            self.tree = tree
            self.names = names
            firstOwn = merger.firstOwn
            self.firstOwnInode = firstOwnInode
            described = merger.described
            exceptions = StackExceptions(in: names.memory)
            result = FileTree(root: LayerStack.escaped(tree.metadata(of: FileTree.root)), in: names.memory)
            directories[FileTree.root] = FileTree.root
        }

        private func isOwn(_ directory: FileTree.InodeID) -> Bool {
            directory != FileTree.root && directory.arenaIndex >= firstOwnInode
        }

        private func isAlive(_ directory: FileTree.InodeID) -> Bool { directory == FileTree.root || tree.linkCount(of: directory) > 0 }

        mutating func addAll() throws(FileTreeError) {
            let tree = tree
            try tree.forEachEntry(addedAfter: firstOwn) { (entry) throws(FileTreeError) in try add(entry) }
            for directory in described.sorted() where isAlive(directory) { _ = try self.directory(directory) }
            var next = 0
            while next < removed.count {
                let directory = tree.parent(of: removedEntry(next))
                let range = next..<removedIndex { tree.parent(of: $0) > directory }
                next = range.upperBound
                guard isAlive(directory), !isOwn(directory) else { continue }
                if hidesAll(directory) {
                    _ = try self.directory(directory)
                    continue
                }
                for index in range {
                    let name = tree.name(of: removedEntry(index))
                    if tree.entry(name, in: directory) == nil { try addWhiteout(name, in: directory) }
                }
            }
        }

        private func removedEntry(_ index: Int) -> FileTree.EntryID { FileTree.EntryID(arenaIndex: Int(removed[index])) }

        /// The index of the first removed entry for which a condition holds that holds for all after it; their number if there is none.
        private func removedIndex(_ condition: (FileTree.EntryID) -> Bool) -> Int {
            var (low, high) = (0, removed.count)
            while low < high {
                let middle = (low + high) / 2
                if condition(removedEntry(middle)) { high = middle } else { low = middle + 1 }
            }
            return low
        }

        /// Whether the layer has removed or replaced a name of a lower layer.
        private func isRemoved(_ name: ByteString, in directory: FileTree.InodeID) -> Bool {
            let index = removedIndex { entry in
                let parent = tree.parent(of: entry)
                return parent == directory ? tree.name(of: entry) >= name : parent > directory
            }
            guard index < removed.count else { return false }
            return tree.parent(of: removedEntry(index)) == directory && tree.name(of: removedEntry(index)) == name
        }

        private func hasRemovals(_ directory: FileTree.InodeID) -> Bool {
            let index = removedIndex { tree.parent(of: $0) >= directory }
            return index < removed.count && tree.parent(of: removedEntry(index)) == directory
        }

        /// Whether a directory of a lower layer has lost all that it had there. The root's mark has no effect.
        private func hidesAll(_ directory: FileTree.InodeID) -> Bool {
            directory != FileTree.root && hasRemovals(directory)
                && tree.entries(of: directory).allSatisfy { $0.arenaIndex >= firstOwn }
        }

        private mutating func add(_ entry: FileTree.EntryID) throws(FileTreeError) {
            let inode = tree.inode(of: entry)
            if tree.isDirectory(inode) {
                _ = try directory(inode)
                return
            }
            let (parent, name) = (tree.parent(of: entry), tree.name(of: entry))
            if tree.isWhiteout(inode) {
                exceptions.append(StackException(kind: .whiteoutDevice, path: path(of: entry)))
                if isRemoved(name, in: parent), !hidesAll(parent) { try addWhiteout(name, in: parent) }
                return
            }
            let directory = try directory(parent)
            if let known = leaves[inode] { return try result.addLink(name, in: directory, to: known) }
            if inode.arenaIndex < firstOwnInode { exceptions.append(StackException(kind: .linkAcrossLayers, path: path(of: entry))) }
            guard let content = tree.content(of: inode) else { preconditionFailure("a leaf without content") }
            let leaf = try result.addLeaf(name, in: directory, LayerStack.escaped(tree.metadata(of: inode)), content)
            if tree.linkCount(of: inode) > 1 { leaves[inode] = leaf }
        }

        private mutating func addWhiteout(_ name: ByteString, in directory: FileTree.InodeID) throws(FileTreeError) {
            try result.addLeaf(name, in: try self.directory(directory), Metadata(permissions: 0), .characterDevice(0))
        }

        /// The directory in the layer, with its parents.
        private mutating func directory(_ inode: FileTree.InodeID) throws(FileTreeError) -> FileTree.InodeID {
            var missing: [FileTree.InodeID] = []
            var at = inode
            while directories[at] == nil {
                missing.append(at)
                at = tree.parent(of: entry(of: at))
            }
            while let next = missing.popLast() {
                let entry = entry(of: next)
                let (parent, name) = (tree.parent(of: entry), tree.name(of: entry))
                guard let place = directories[parent] else { preconditionFailure("parents are added first") }
                var metadata = LayerStack.escaped(tree.metadata(of: next))
                if isOwn(next) ? isRemoved(name, in: parent) : hidesAll(next) {
                    metadata.setExtendedAttributes(
                        metadata.extendedAttributes + [ExtendedAttribute(name: LayerStack.opaque, value: "y")])
                }
                directories[next] = try result.addDirectory(name, in: place, metadata)
            }
            guard let found = directories[inode] else { preconditionFailure("the directory was added") }
            return found
        }

        private func entry(of directory: FileTree.InodeID) -> FileTree.EntryID {
            let entry = names[directory.arenaIndex]
            precondition(entry != LayerStack.none, "every directory but the root has a name")
            return FileTree.EntryID(arenaIndex: Int(entry))
        }

        private func path(of entry: FileTree.EntryID) -> ByteString {
            var path = tree.name(of: entry).bytes
            var at = tree.parent(of: entry)
            while at != FileTree.root {
                path = tree.name(of: self.entry(of: at)).bytes + [UInt8(ascii: "/")] + path
                at = tree.parent(of: self.entry(of: at))
            }
            return ByteString([UInt8(ascii: "/")] + path)
        }
    }

    /// Attributes that overlayfs would obey, in the form in which it shows them again (Linux 6.7).
    private static func escaped(_ metadata: Metadata) -> Metadata {
        guard metadata.extendedAttributes.contains(where: { $0.name.hasPrefix(prefix) }) else { return metadata }
        var metadata = metadata
        metadata.setExtendedAttributes(
            metadata.extendedAttributes.map { attribute in
                guard attribute.name.hasPrefix(prefix) else { return attribute }
                return ExtendedAttribute(
                    name: escapedPrefix + ByteString(Array(attribute.name.bytes.dropFirst(prefix.count))), value: attribute.value)
            })
        return metadata
    }
}
