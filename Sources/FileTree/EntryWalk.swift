package import ComposefsBytes

extension FileTree {
    /// Visits entries of the root and all entries below them, depth-first in byte order of the names.
    ///
    /// - Parameters:
    ///   - top: the entries of the root, in order.
    ///   - body: takes the absolute path, the inode, and for a further name of a leaf the path of its first name.
    package func forEachEntry<Failure: Error>(
        from top: EntryList, _ body: (ByteString, InodeID, _ first: ByteString?) throws(Failure) -> Void
    ) throws(Failure) {
        /// The path of the first name of each leaf that has several names.
        var firstNames: [InodeID: ByteString] = [:]
        // An explicit stack instead of recursion, because the input determines the depth.
        var levels: [(entries: EntryList, at: Int, pathLength: Int)] = [(top, 0, 0)]
        var path: [UInt8] = []
        while let level = levels.last {
            path.removeSubrange(level.pathLength...)
            guard level.at < level.entries.count else {
                levels.removeLast()
                continue
            }
            levels[levels.count - 1].at += 1
            let entry = level.entries[level.at]
            let inode = inode(of: entry)
            path.append(UInt8(ascii: "/"))
            withName(of: entry) { path.append(contentsOf: $0) }
            let full = ByteString(path)
            var first: ByteString?
            if isDirectory(inode) {
                levels.append((sortedEntries(of: inode), 0, path.count))
            } else if linkCount(of: inode) > 1 {
                first = firstNames[inode]
                if first == nil { firstNames[inode] = full }
            }
            try body(full, inode, first)
        }
    }
}
