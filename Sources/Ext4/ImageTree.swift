internal import ComposefsBytes
public import ComposefsFileTree

extension Ext4Image {
    /// Reads the whole tree, with `lost+found`.
    ///
    /// Every directory must have one name and the right parent, and every inode as many names as it counts. Time and memory are limited by the
    /// size of the file system: no block can belong to two directories, and attributes have at most 256 MiB or sixteen times that size.
    /// - Parameter content: Returns the content of a regular file.
    public func tree(content: (Ext4Inode) throws -> Content) throws -> FileTree {
        let root = try root()
        guard root.kind == .directory else { throw Ext4Error.damaged(inode: root.number, offset: 0, "the root is not a directory") }
        var tree = FileTree(root: try metadata(of: root))
        var known: [UInt32: FileTree.InodeID] = [root.number: FileTree.root]
        var links: [UInt32: UInt16] = [:]
        var pending: [(inode: Ext4Inode, parent: UInt32, id: FileTree.InodeID)] = [(root, root.number, FileTree.root)]
        var blocksLeft = superblock.blocks
        let attributeLimit = max(1 << 28, byteCount << 4)
        while let (directory, parent, id) = pending.popLast() {
            func damaged(_ what: String) -> Ext4Error { .damaged(inode: directory.number, offset: 0, what) }
            guard directory.size >> Ext4Format.blockBits <= blocksLeft else {
                throw damaged("the directories have more blocks than there are")
            }
            blocksLeft -= directory.size >> Ext4Format.blockBits
            let listing = try listing(of: directory)
            guard listing.parent == parent else { throw damaged("'..' is inode \(listing.parent), not \(parent)") }
            var subdirectories = 0
            for entry in listing.entries {
                if let leaf = known[entry.inode] {
                    guard !tree.isDirectory(leaf), entry.kind == tree.kind(of: leaf) else {
                        throw damaged("'\(entry.name)' is another name of directory \(entry.inode), or has a wrong type")
                    }
                    try tree.addLink(entry.name, in: id, to: leaf)
                    continue
                }
                let inode = try inode(entry.inode)
                guard inode.kind == entry.kind, entry.inode >= Ext4Format.firstInode else {
                    throw damaged("'\(entry.name)' has a wrong type, or a reserved inode")
                }
                let metadata = try metadata(of: inode)
                guard UInt64(tree.attributeBytes) <= attributeLimit else {
                    throw Ext4Error.unsupported("extended attributes of more than 256 MiB")
                }
                if inode.kind == .directory {
                    subdirectories += 1
                    let child = try tree.addDirectory(entry.name, in: id, metadata)
                    known[entry.inode] = child
                    pending.append((inode, directory.number, child))
                } else {
                    known[entry.inode] = try tree.addLeaf(entry.name, in: id, metadata, try self.content(inode, content))
                    links[entry.inode] = inode.links
                }
            }
            // 1 means that there may be more than can be counted.
            guard directory.links == 1 || Int(directory.links) == subdirectories + 2 else {
                throw damaged("\(directory.links) links for \(subdirectories) subdirectories")
            }
        }
        for (number, count) in links.sorted(by: { $0.key < $1.key }) {
            guard let leaf = known[number], tree.linkCount(of: leaf) == UInt32(count) else {
                throw Ext4Error.damaged(inode: number, offset: 0, "it counts \(count) names, which is wrong")
            }
        }
        return tree
    }

    private func metadata(of inode: Ext4Inode) throws -> Metadata {
        Metadata(
            permissions: inode.permissions, uid: inode.uid, gid: inode.gid, modified: inode.modified,
            extendedAttributes: try attributes(of: inode))
    }

    private func content(_ inode: Ext4Inode, _ file: (Ext4Inode) throws -> Content) throws -> Content {
        switch inode.kind {
        case .regular: try file(inode)
        case .symbolicLink: .symbolicLink(try target(of: inode))
        case .blockDevice: .blockDevice(inode.deviceNumber)
        case .characterDevice: .characterDevice(inode.deviceNumber)
        case .fifo: .fifo
        case .socket: .socket
        case .directory: preconditionFailure("a directory has no content")
        }
    }
}
