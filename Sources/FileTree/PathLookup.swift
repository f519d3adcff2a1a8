package import ComposefsBytes

extension FileTree {
    /// Follows a path as the kernel would with the tree as its root: at most 40 symbolic links, and `..` never leaves the root.
    package func resolve(_ path: ByteString, followingLast: Bool = false) -> InodeID? {
        let slash = UInt8(ascii: "/")
        var pending = Array(path.bytes.split(separator: slash).map { Array($0) }.reversed())
        var trail: [InodeID] = [FileTree.root]
        var links = 0
        while let name = pending.popLast() {
            guard let at = trail.last else { return nil }
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
                if target.bytes.first == slash { trail = [FileTree.root] }
                pending += target.bytes.split(separator: slash).map { Array($0) }.reversed()
                continue
            }
            trail.append(child)
        }
        return trail.last
    }
}
