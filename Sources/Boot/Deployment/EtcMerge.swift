import ComposefsBytes
import ComposefsFileTree

/// The three-way merge of `/etc`: what the user changed over the old image is kept over the new one, and all else is as in the new image.
///
/// The user's changes are the upper directory of an overlay over the old image; the result is one for an overlay over the new image. What the
/// user and the new image changed both is as the user left it, and is told as a conflict. Times alone, SELinux labels and the marks of
/// overlayfs are no changes.
struct EtcMerge {
    /// A directory in a tree. A class, since trees are large values, and directories are merged by recursion.
    final class Side: Sendable {
        let tree: FileTree
        let root: FileTree.InodeID

        init(tree: FileTree, root: FileTree.InodeID = FileTree.root) {
            self.tree = tree
            self.root = root
        }
    }

    struct Result {
        /// The new upper directory; whiteouts are character devices 0:0.
        var tree: FileTree
        /// Paths in `/etc` that are as the user left them.
        var kept: [ByteString] = []
        /// Those that the user removed, and that the new image has.
        var removed: [ByteString] = []
        /// Those of `kept` and `removed` that the new image changed too.
        var conflicts: [ByteString] = []
    }

    /// Deeper directories are refused.
    private static let depthLimit = 256

    private static let opaque: ByteString = "trusted.overlay.opaque"
    private static let redirect: ByteString = "trusted.overlay.redirect"
    private static let metacopy: ByteString = "trusted.overlay.metacopy"
    private static let whiteout: ByteString = "trusted.overlay.whiteout"
    private static let overlayPrefix: ByteString = "trusted.overlay."

    /// Something that the user sees: an entry of the upper directory, or one of the old image, or a directory of both.
    private struct Local {
        var upper: FileTree.InodeID?
        /// What is below it. For a directory, nil if it hides what was there; for a file, the one with its content.
        var lower: FileTree.InodeID?
    }

    private indirect enum Node {
        case whiteout
        case leaf(Metadata, Content)
        case directory(Metadata, [(ByteString, Node)])
    }

    private let old: Side?
    private let new: Side?
    private let upper: Side
    /// Whether `upper` is all of the local `/etc`, and not only its changes.
    private let isComplete: Bool
    private var kept: [ByteString] = []
    private var removed: [ByteString] = []
    private var conflicts: [ByteString] = []

    /// - Throws: `BootError.etcDamaged`, `FileTreeError`.
    static func merge(old: Side?, new: Side?, upper: FileTree, isComplete: Bool = false) throws -> Result {
        var merge = EtcMerge(old: old, new: new, upper: upper, isComplete: isComplete)
        let local = Local(upper: FileTree.root, lower: isComplete ? nil : old?.root)
        let top = try merge.directory(local, old?.root, new?.root, "", 0)
        let metadata: Metadata
        var children: [(ByteString, Node)] = []
        if case .directory(let merged, let below)? = top {
            metadata = merged
            children = below
        } else {
            metadata = new.map { $0.tree.metadata(of: $0.root) } ?? merge.clean(upper.metadata(of: FileTree.root))
        }
        var result = Result(tree: FileTree(root: metadata), kept: merge.kept, removed: merge.removed, conflicts: merge.conflicts)
        try add(children, to: FileTree.root, &result.tree)
        return result
    }

    private init(old: Side?, new: Side?, upper: FileTree, isComplete: Bool) {
        self.old = old
        self.new = new
        self.upper = Side(tree: upper)
        self.isComplete = isComplete
    }

    private static func add(_ children: [(ByteString, Node)], to directory: FileTree.InodeID, _ tree: inout FileTree) throws(FileTreeError)
    {
        for (name, node) in children {
            switch node {
            case .whiteout: try tree.addLeaf(name, in: directory, Metadata(permissions: 0), .characterDevice(0))
            case .leaf(let metadata, let content): try tree.addLeaf(name, in: directory, metadata, content)
            case .directory(let metadata, let below):
                try add(below, to: try tree.addDirectory(name, in: directory, metadata), &tree)
            }
        }
    }

    // MARK: What there is

    private func attribute(_ name: ByteString, _ inode: FileTree.InodeID) -> ByteString? {
        upper.tree.extendedAttributes(of: inode).first { $0.name == name }?.value
    }

    private func isWhiteout(_ inode: FileTree.InodeID) -> Bool {
        upper.tree.isWhiteout(inode) || (upper.tree.kind(of: inode) == .regular && attribute(Self.whiteout, inode) != nil)
    }

    private func oldDirectory(_ inode: FileTree.InodeID?) -> FileTree.InodeID? {
        inode.flatMap { old?.tree.isDirectory($0) == true ? $0 : nil }
    }

    private func newDirectory(_ inode: FileTree.InodeID?) -> FileTree.InodeID? {
        inode.flatMap { new?.tree.isDirectory($0) == true ? $0 : nil }
    }

    private func isDirectory(_ local: Local) -> Bool {
        if let upper = local.upper { return self.upper.tree.isDirectory(upper) }
        return oldDirectory(local.lower) != nil
    }

    /// What the user sees under a name in a directory.
    private func child(_ name: ByteString, of local: Local, _ path: ByteString) throws(BootError) -> Local? {
        let lower = oldDirectory(local.lower)
        let below = lower.flatMap { old?.tree.lookup(name, in: $0) }
        guard let directory = local.upper, let inode = upper.tree.lookup(name, in: directory) else {
            return below.map { Local(upper: nil, lower: $0) }
        }
        if isWhiteout(inode) { return nil }
        var target = below
        if let redirect = attribute(Self.redirect, inode) {
            // Absolute: from the root of the overlay, which is /etc. Else: a name in the same directory.
            if redirect.hasPrefix("/") {
                target = try old.map { (side) throws(BootError) in try Self.lookup(redirect, side, path) }
            } else {
                target = lower.flatMap { old?.tree.lookup(redirect, in: $0) }
            }
        }
        if upper.tree.isDirectory(inode) {
            let isOpaque = attribute(Self.opaque, inode) == "y"
            return Local(upper: inode, lower: isOpaque ? nil : oldDirectory(target))
        }
        return Local(upper: inode, lower: target)
    }

    private static func lookup(_ path: ByteString, _ side: Side, _ place: ByteString) throws(BootError) -> FileTree.InodeID {
        var at = side.root
        for name in path.bytes.split(separator: UInt8(ascii: "/")) {
            guard let next = side.tree.lookup(ByteString(name), in: at) else { throw .etcDamaged("/etc" + place) }
            at = next
        }
        return at
    }

    private func names(in local: Local, _ o: FileTree.InodeID?) -> [ByteString] {
        var names: Set<ByteString> = []
        if let directory = local.upper { names.formUnion(upper.tree.entries(of: directory).map(upper.tree.name(of:))) }
        if let old {
            for directory in [oldDirectory(local.lower), oldDirectory(o)] {
                if let directory { names.formUnion(old.tree.entries(of: directory).map(old.tree.name(of:))) }
            }
        }
        return names.sorted()
    }

    /// Without what overlayfs keeps for itself.
    private func clean(_ metadata: Metadata) -> Metadata {
        var metadata = metadata
        metadata.setExtendedAttributes(metadata.extendedAttributes.filter { !$0.name.hasPrefix(Self.overlayPrefix) })
        return metadata
    }

    private func metadata(_ local: Local) -> Metadata? {
        if let inode = local.upper { return clean(upper.tree.metadata(of: inode)) }
        return local.lower.flatMap { old?.tree.metadata(of: $0) }.map(clean)
    }

    private func leaf(_ local: Local, _ path: ByteString) throws(BootError) -> (Metadata, Content) {
        guard let metadata = metadata(local) else { throw .etcDamaged("/etc" + path) }
        let content: Content?
        if let inode = local.upper, attribute(Self.metacopy, inode) == nil {
            content = upper.tree.content(of: inode)
        } else {
            // The content stayed in the image.
            content = local.lower.flatMap { old?.tree.content(of: $0) }
            if local.upper != nil, content?.kind != .regular { throw .etcDamaged("/etc" + path) }
        }
        guard let content else { throw .etcDamaged("/etc" + path) }
        return (metadata, content)
    }

    // MARK: What is a change

    private static func isSame(_ a: Metadata, _ b: Metadata) -> Bool {
        func attributes(_ metadata: Metadata) -> [ExtendedAttribute] {
            metadata.extendedAttributes.filter { $0.name != selinuxAttribute && !$0.name.hasPrefix(overlayPrefix) }
        }
        return a.permissions == b.permissions && a.uid == b.uid && a.gid == b.gid && attributes(a) == attributes(b)
    }

    private static func isSame(_ leaf: (Metadata, Content), _ side: Side?, _ inode: FileTree.InodeID?) -> Bool {
        guard let side, let inode, let content = side.tree.content(of: inode) else { return false }
        // A link's permissions mean nothing.
        var other = side.tree.metadata(of: inode)
        if content.kind == .symbolicLink { other.permissions = leaf.0.permissions }
        return isSame(content, leaf.1) && isSame(leaf.0, other)
    }

    private static func isSame(_ a: Content, _ b: Content) -> Bool {
        switch (a, b) {
        case (.external(let a, _), .externalWithoutVerity(let b, _)), (.externalWithoutVerity(let a, _), .external(let b, _)): a == b
        default: a == b
        }
    }

    /// Whether the new image has something else than the old one.
    private func imageChanged(_ o: FileTree.InodeID?, _ n: FileTree.InodeID?) -> Bool {
        guard let o, let old else { return n != nil }
        guard let n, let new else { return true }
        if let content = old.tree.content(of: o) { return !Self.isSame((old.tree.metadata(of: o), content), new, n) }
        return !new.tree.isDirectory(n)
    }

    // MARK: Merging

    /// Nil if the new image is right as it is.
    private mutating func merge(
        _ local: Local?, _ o: FileTree.InodeID?, _ n: FileTree.InodeID?, _ path: ByteString, _ depth: Int
    ) throws(BootError) -> Node? {
        guard let local else {
            guard o != nil, n != nil else { return nil }
            removed.append(path)
            if imageChanged(o, n) { conflicts.append(path) }
            return .whiteout
        }
        // Seen as it is in the old image, at its own place.
        if local.upper == nil, let o, local.lower == o { return nil }
        if isDirectory(local) { return try directory(local, o, n, path, depth) }
        let leaf = try leaf(local, path)
        if Self.isSame(leaf, old, o) || Self.isSame(leaf, new, n) { return nil }
        kept.append(path)
        if imageChanged(o, n) { conflicts.append(path) }
        return .leaf(leaf.0, leaf.1)
    }

    private mutating func directory(
        _ local: Local, _ o: FileTree.InodeID?, _ n: FileTree.InodeID?, _ path: ByteString, _ depth: Int
    ) throws(BootError) -> Node? {
        guard depth < Self.depthLimit, let own = metadata(local) else { throw .etcDamaged("/etc" + path) }
        let (o, n, replaced) = (oldDirectory(o), newDirectory(n), n)
        var children: [(ByteString, Node)] = []
        for name in names(in: local, o) {
            let place = path + "/" + name
            let child = try child(name, of: local, place)
            let before = o.flatMap { old?.tree.lookup(name, in: $0) }
            let after = n.flatMap { new?.tree.lookup(name, in: $0) }
            if let node = try merge(child, before, after, place, depth + 1) { children.append((name, node)) }
        }
        let before = o.flatMap { old?.tree.metadata(of: $0) }
        let isChanged = before.map { !Self.isSame(own, $0) } ?? true
        guard let n, let after = new?.tree.metadata(of: n) else {
            // The new image has no such directory.
            if children.isEmpty, !isChanged { return nil }
            if isChanged { kept.append(path) }
            if o != nil || replaced != nil { conflicts.append(path) }
            return .directory(own, children)
        }
        let metadata = isChanged ? own : after
        let differs = !Self.isSame(metadata, after)
        if differs {
            kept.append(path)
            if before.map({ !Self.isSame($0, after) }) ?? true { conflicts.append(path) }
        }
        if children.isEmpty, !differs { return nil }
        return .directory(metadata, children)
    }
}
