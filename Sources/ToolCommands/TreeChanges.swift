import ComposefsBytes
import ComposefsFileTree
import ComposefsOCI

/// What the options of `mkcomposefs` change about the tree of a directory (`LCFS_BUILD_*` in lcfs-writer.h).
struct TreeChanges {
    enum Attributes { case all, user, none }

    var usesEpoch = false
    var skipsDevices = false
    var attributes = Attributes.all
    /// The C tool makes a file of its own of every name.
    var keepsHardLinks = false

    func applied(to tree: FileTree) throws(FileTreeError) -> FileTree {
        func metadata(_ inode: FileTree.InodeID) -> Metadata {
            var metadata = tree.metadata(of: inode)
            if usesEpoch { metadata.modified = Timestamp(seconds: 0) }
            switch attributes {
            case .all: break
            case .user: metadata.setExtendedAttributes(metadata.extendedAttributes.filter { $0.name.hasPrefix("user.") })
            case .none: metadata.setExtendedAttributes([])
            }
            return metadata
        }
        var new = FileTree(root: metadata(FileTree.root))
        var leaves: [FileTree.InodeID: FileTree.InodeID] = [:]
        // A list instead of recursion, because the input determines the depth.
        var pending: [(old: FileTree.InodeID, new: FileTree.InodeID)] = [(FileTree.root, FileTree.root)]
        while let directory = pending.popLast() {
            for entry in tree.sortedEntries(of: directory.old) {
                let (name, inode) = (tree.name(of: entry), tree.inode(of: entry))
                guard let content = tree.content(of: inode) else {
                    pending.append((inode, try new.addDirectory(name, in: directory.new, metadata(inode))))
                    continue
                }
                switch content {
                case .blockDevice, .characterDevice: if skipsDevices { continue }
                default: break
                }
                if keepsHardLinks, let leaf = leaves[inode] {
                    try new.addLink(name, in: directory.new, to: leaf)
                    continue
                }
                leaves[inode] = try new.addLeaf(name, in: directory.new, metadata(inode), content)
            }
        }
        return new
    }
}
