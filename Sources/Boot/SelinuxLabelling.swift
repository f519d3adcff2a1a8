import ComposefsBytes
import ComposefsFileTree

/// A walk over a tree that labels every file: depth first, names in byte order. The order matters for a file with several names: the first
/// name decides, and a name with another label gets a copy of the file.
struct SelinuxLabelling {
    private let policy: SelinuxPolicy
    /// The label that each inode got first, by arena index.
    private var given: [Int32]
    private static let unlabelled: Int32 = -2

    private struct Frame {
        var entries: FileTree.EntryList
        var next = 0
        /// The length of the directory's path, with the `/` at its end.
        var length: Int
        var scope: FileContexts.Scope
        /// The path of the parent directory, if an alias has replaced it.
        var replaced: [UInt8]?
    }

    init(_ policy: SelinuxPolicy, _ tree: FileTree) {
        self.policy = policy
        given = Array(repeating: Self.unlabelled, count: tree.inodeCapacity)
    }

    mutating func run(_ tree: inout FileTree) throws(BootTransformError) {
        var path = [slash]
        let top = policy.contexts.scope(of: path)
        set(FileTree.root, try policy.contexts.label(of: path, type: UInt8(ascii: "d"), top), &tree)
        // A list instead of recursion: the input decides how deep the tree is.
        var frames = [Frame(entries: tree.sortedEntries(of: FileTree.root), length: 1, scope: top)]
        while var frame = frames.popLast() {
            guard frame.next < frame.entries.count else {
                if let replaced = frame.replaced { path = replaced }
                continue
            }
            let entry = frame.entries[frame.next]
            frame.next += 1
            path.removeSubrange(frame.length...)
            tree.withName(of: entry) { path.append(contentsOf: $0) }
            let parentScope = frame.scope
            let parentLength = frame.length
            frames.append(frame)
            guard path.count <= BootLimits.pathBytes else { throw .pathTooLong(ByteString(path.prefix(200))) }

            var effective = path
            var scope = parentScope
            let alias = path.count <= BootLimits.fieldBytes && !policy.aliases.isEmpty ? policy.aliases[ByteString(path)] : nil
            if let alias {
                effective = alias.bytes
                scope = policy.contexts.scope(of: effective)
            }
            let inode = tree.inode(of: entry)
            let label = try policy.contexts.label(of: effective, type: Self.letter(tree.kind(of: inode)), scope)
            guard tree.isDirectory(inode) else {
                try give(label, to: inode, by: entry, &tree)
                continue
            }
            set(inode, label, &tree)
            if effective.last != slash {
                effective.append(slash)
                policy.contexts.enter(effective, &scope)
            }
            let replaced = alias == nil ? nil : Array(path[..<parentLength])
            path = effective
            frames.append(
                Frame(entries: tree.sortedEntries(of: inode), length: path.count, scope: scope, replaced: replaced))
        }
    }

    /// Labels a file that was reached by one of its names.
    private mutating func give(
        _ label: Int32, to inode: FileTree.InodeID, by entry: FileTree.EntryID, _ tree: inout FileTree
    ) throws(BootTransformError) {
        let first = given[inode.arenaIndex]
        if first == label { return }
        if first == Self.unlabelled {
            given[inode.arenaIndex] = label
            return set(inode, label, &tree)
        }
        // Each further name gets its own copy, even if two of them have the same label.
        let copy = tree.cloneLeaf(inode)
        do throws(FileTreeError) {
            try tree.redirect(entry, to: copy)
        } catch {
            throw .cannotLabel(tree.name(of: entry), error)
        }
        set(copy, label, &tree)
    }

    private func set(_ inode: FileTree.InodeID, _ label: Int32, _ tree: inout FileTree) {
        var attributes = tree.extendedAttributes(of: inode)
        if label == FileContexts.noLabel, attributes.isEmpty { return }
        attributes.removeAll { $0.name == selinuxAttribute }
        if label != FileContexts.noLabel {
            attributes.append(ExtendedAttribute(name: selinuxAttribute, value: policy.contexts.labels[Int(label)]))
        }
        tree.setExtendedAttributes(of: inode, to: attributes)
    }

    private static func letter(_ kind: FileTree.Kind) -> UInt8 {
        switch kind {
        case .regular: UInt8(ascii: "-")
        case .directory: UInt8(ascii: "d")
        case .symbolicLink: UInt8(ascii: "l")
        case .characterDevice: UInt8(ascii: "c")
        case .blockDevice: UInt8(ascii: "b")
        case .fifo: UInt8(ascii: "p")
        case .socket: UInt8(ascii: "s")
        }
    }
}
