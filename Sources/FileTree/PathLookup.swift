public import ComposefsBytes

extension FileTree {
    /// Follows a path as the kernel would with the tree as its root: at most 40 symbolic links, and `..` never leaves the root.
    ///
    /// - Parameters:
    ///   - path: with or without a slash at its beginning.
    ///   - followingLast: whether a symbolic link at the end of the path is followed, too.
    /// - Returns: nil if nothing is there.
    public func resolve(_ path: ByteString, followingLast: Bool = false) -> InodeID? {
        locate(path, followingLast: followingLast)?.inode
    }

    /// The same, with the path on which no link is left, from the root on.
    package func locate(_ path: ByteString, followingLast: Bool = false) -> (inode: InodeID, path: ByteString)? {
        let slash = UInt8(ascii: "/")
        var pending = Array(path.bytes.split(separator: slash).map { Array($0) }.reversed())
        var trail: [(inode: InodeID, name: [UInt8])] = [(FileTree.root, [])]
        var links = 0
        while let name = pending.popLast() {
            guard let at = trail.last?.inode else { return nil }
            guard isDirectory(at) else { return nil }
            if name == [UInt8(ascii: ".")] { continue }
            if name == [UInt8(ascii: "."), UInt8(ascii: ".")] {
                if trail.count > 1 { trail.removeLast() }
                continue
            }
            guard let child = lookup(ByteString(name), in: at) else { return nil }
            if case .symbolicLink(let target) = content(of: child), !pending.isEmpty || followingLast {
                links += 1
                guard links <= 40 else { return nil }
                if target.bytes.first == slash { trail = [(FileTree.root, [])] }
                pending += target.bytes.split(separator: slash).map { Array($0) }.reversed()
                continue
            }
            trail.append((child, name))
        }
        guard let last = trail.last else { return nil }
        let names = trail.dropFirst().map(\.name)
        return (last.inode, ByteString(names.isEmpty ? [slash] : names.flatMap { [slash] + $0 }))
    }
}
