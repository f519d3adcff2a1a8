public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
public import ComposefsTar

/// What an entry holds, once its content has been stored.
public enum LeafContent: Sendable, Hashable {
    /// Not a regular file.
    case none
    case inline(ByteString)
    /// Size in bytes.
    case external(ObjectID, size: UInt64)
}

/// Lays layers over each other by the rules of the OCI image specification (layer.md), in time linear in the entries.
///
/// Whiteouts act on lower layers only, wherever in their layer they stand. To that end the entries of every layer but the lowest wait until
/// the layer's end, when its whiteouts are applied first. Parents that no entry made are directories with mode 0755, owner 0:0 and time 0;
/// parents that are symbolic links are resolved with the image as the root.
public struct LayerMerger {
    private var tree = FileTree(root: Self.implicit)
    private var isLowest = true
    private var waiting: [(path: EntryPath, entry: TarEntry, content: LeafContent)] = []

    /// What a directory is like that no entry describes.
    static let implicit = Metadata(permissions: 0o755)
    /// As many symbolic links as the kernel follows in one path.
    private static let linkLimit = 40
    /// Names that the links of one path may bring. The kernel has no such limit, but one short entry must not cost 80,000 look-ups.
    private static let linkedNameLimit = 1024
    /// Of directories below the root; readers of EROFS images take no deeper ones.
    static let depthLimit = 2048
    /// Directories that no entry describes, in all layers: one entry of 5 KB can ask for two thousand of them.
    private let implicitLimit: Int
    private var implicitCount = 0

    public init() { self.init(implicitLimit: 1 << 20) }

    init(implicitLimit: Int) { self.implicitLimit = implicitLimit }

    public mutating func beginLayer() { waiting.removeAll(keepingCapacity: true) }

    /// Takes the layer's next entry, in the archive's order.
    public mutating func add(_ entry: TarEntry, content: LeafContent) throws(MergeError) {
        if case .other(let type) = entry.kind {
            throw Self.failure(entry, "type \"\(ByteString([type]))\" is none that a layer may hold")
        }
        let path: EntryPath
        switch EntryPath.parse(entry.path) {
        case .success(let parsed): path = parsed
        case .failure(let refusal): throw Self.failure(entry, refusal.reason)
        }
        switch path.role {
        case .whiteout(let name): if !isLowest { hide(path.parents, name) }
        case .opaque: if !isLowest { hideAll(path.parents) }
        case .root, .entry:
            // In the lowest layer nothing can be hidden later.
            if isLowest { try place(path, entry, content) } else { waiting.append((path, entry, content)) }
        }
    }

    public mutating func endLayer() throws(MergeError) {
        for item in waiting { try place(item.path, item.entry, item.content) }
        waiting.removeAll()
        isLowest = false
    }

    public consuming func finish() -> FileTree { tree }

    // MARK: Whiteouts: only lower layers are in the tree when these are called

    private mutating func hide(_ parents: [ArraySlice<UInt8>], _ name: ByteString) {
        guard let directory = existing(parents) else { return }
        tree.remove(name, from: directory)
    }

    private mutating func hideAll(_ parents: [ArraySlice<UInt8>]) {
        guard let directory = existing(parents) else { return }
        tree.removeChildren(of: directory)
    }

    // MARK: Entries

    private mutating func place(_ path: EntryPath, _ entry: TarEntry, _ content: LeafContent) throws(MergeError) {
        guard case .entry(let name) = path.role else {
            guard entry.kind == .directory else { throw Self.failure(entry, "it names the root, but is no directory") }
            return tree.setMetadata(of: FileTree.root, to: Self.metadata(entry))
        }
        let (parent, depth) = try directory(path.parents, entry)
        let present = tree.entry(name, in: parent)
        switch entry.kind {
        case .directory:
            if let present, tree.isDirectory(tree.inode(of: present)) {
                tree.setMetadata(of: tree.inode(of: present), to: Self.metadata(entry))
            } else {
                try checkDepth(depth + 1, entry)
                if let present { tree.remove(present) }
                let metadata = Self.metadata(entry)
                try change(entry) { (tree) throws(FileTreeError) in _ = try tree.addDirectory(name, in: parent, metadata) }
            }
        case .hardLink:
            let target = try linkTarget(entry)
            if let present {
                // A link to itself changes nothing; removing the name first would lose the file.
                if tree.inode(of: present) == target { return }
                tree.remove(present)
                // The name may have been the directory that the target was in.
                guard tree.linkCount(of: target) > 0 else {
                    throw Self.failure(entry, "its target \"\(entry.linkTarget)\" goes with the directory that it replaces")
                }
            }
            try change(entry) { (tree) throws(FileTreeError) in try tree.addLink(name, in: parent, to: target) }
        default:
            let (metadata, content) = (Self.metadata(entry), try Self.leaf(entry, content))
            if let present { tree.remove(present) }
            try change(entry) { (tree) throws(FileTreeError) in _ = try tree.addLeaf(name, in: parent, metadata, content) }
        }
    }

    private mutating func change(
        _ entry: TarEntry, _ body: (inout FileTree) throws(FileTreeError) -> Void
    ) throws(MergeError) {
        do throws(FileTreeError) {
            try body(&tree)
        } catch {
            throw Self.failure(entry, error.description)
        }
    }

    static func leaf(_ entry: TarEntry, _ content: LeafContent) throws(MergeError) -> Content {
        switch entry.kind {
        case .symbolicLink:
            guard !entry.linkTarget.isEmpty else { throw Self.failure(entry, "a symbolic link without a target") }
            return .symbolicLink(entry.linkTarget)
        case .characterDevice: return .characterDevice(Content.deviceNumber(major: entry.deviceMajor, minor: entry.deviceMinor))
        case .blockDevice: return .blockDevice(Content.deviceNumber(major: entry.deviceMajor, minor: entry.deviceMinor))
        case .fifo: return .fifo
        default:
            switch content {
            case .inline(let bytes): return .inline(bytes)
            case .external(let id, let size): return .external(id, size: size)
            case .none: return .inline(ByteString())
            }
        }
    }

    package static func metadata(_ entry: TarEntry) -> Metadata {
        Metadata(
            permissions: UInt16(truncatingIfNeeded: entry.mode & 0o7777), uid: entry.uid, gid: entry.gid,
            modified: Timestamp(seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds),
            extendedAttributes: entry.extendedAttributes.map { ExtendedAttribute(name: $0.name, value: $0.value) })
    }

    private func linkTarget(_ entry: TarEntry) throws(MergeError) -> FileTree.InodeID {
        let path: EntryPath
        switch EntryPath.parse(entry.linkTarget, honouringWhiteouts: false) {
        case .success(let parsed): path = parsed
        case .failure(let refusal): throw Self.failure(entry, "link target: \(refusal.reason)")
        }
        guard case .entry(let name) = path.role else { throw Self.failure(entry, "a hard link to a directory, \"\(entry.linkTarget)\"") }
        guard let directory = existing(path.parents), let target = tree.lookup(name, in: directory) else {
            throw Self.failure(entry, "its target \"\(entry.linkTarget)\" is not in the image")
        }
        guard !tree.isDirectory(target) else { throw Self.failure(entry, "a hard link to a directory, \"\(entry.linkTarget)\"") }
        return target
    }

    private static func failure(_ entry: TarEntry, _ reason: String) -> MergeError {
        MergeError(path: entry.path, offset: entry.headerOffset, reason: reason)
    }

    // MARK: Parents

    /// The directory at a path, symbolic links resolved; nil where there is none.
    private func existing(_ components: [ArraySlice<UInt8>]) -> FileTree.InodeID? {
        var walk = Walk(components)
        while let name = walk.next() {
            switch step(&walk, name) {
            case .moved: continue
            case .missing, .notADirectory, .tooManyLinks, .tooLongLinks: return nil
            }
        }
        return walk.here
    }

    /// The same, with what is missing made; and how many directories lie between it and the root, itself included.
    private mutating func directory(
        _ components: [ArraySlice<UInt8>], _ entry: TarEntry
    ) throws(MergeError) -> (inode: FileTree.InodeID, depth: Int) {
        var walk = Walk(components)
        while let name = walk.next() {
            switch step(&walk, name) {
            case .moved: continue
            case .missing:
                // Names of the entry's own path are known to be short; those of a link's target are not.
                guard name.count <= EntryPath.nameLimit else {
                    throw Self.failure(entry, "a link on the way to its parent holds a name of \(name.count) bytes; 255 are possible")
                }
                try checkDepth(walk.depth + 1, entry)
                implicitCount += 1
                guard implicitCount <= implicitLimit else {
                    throw Self.failure(entry, "more than \(implicitLimit) directories are parents only, with no entry of their own")
                }
                do throws(FileTreeError) {
                    walk.trail.append(try tree.addDirectory(ByteString(Array(name)), in: walk.here, Self.implicit))
                } catch {
                    throw Self.failure(entry, error.description)
                }
            case .notADirectory: throw Self.failure(entry, "its parent \"\(ByteString(Array(name)))\" is no directory")
            case .tooManyLinks: throw Self.failure(entry, "more than \(Self.linkLimit) symbolic links on the way to its parent")
            case .tooLongLinks:
                throw Self.failure(entry, "the symbolic links on the way to its parent hold more than \(Self.linkedNameLimit) names")
            }
        }
        return (walk.here, walk.depth)
    }

    private func checkDepth(_ depth: Int, _ entry: TarEntry) throws(MergeError) {
        guard depth <= Self.depthLimit else { throw Self.failure(entry, "directories are nested deeper than \(Self.depthLimit)") }
    }

    /// A walk from the root: where it is, how it came there, and what is still to be gone.
    private struct Walk {
        var trail = [FileTree.root]
        /// In reverse order.
        var pending: [ArraySlice<UInt8>]
        var links = 0
        var linkedNames = 0

        init(_ components: [ArraySlice<UInt8>]) { pending = components.reversed() }

        var here: FileTree.InodeID { trail.last ?? FileTree.root }
        /// The root's is 0.
        var depth: Int { trail.count - 1 }

        mutating func next() -> ArraySlice<UInt8>? { pending.popLast() }
    }

    private enum Step { case moved, missing, notADirectory, tooManyLinks, tooLongLinks }

    private func step(_ walk: inout Walk, _ name: ArraySlice<UInt8>) -> Step {
        let dot = UInt8(ascii: ".")
        // Only a link's target can bring these; the root's parent is the root.
        if name.count == 1, name.first == dot { return .moved }
        if name.count == 2, name.first == dot, name.last == dot {
            if walk.trail.count > 1 { walk.trail.removeLast() }
            return .moved
        }
        let found = name.withUnsafeBytes { tree.entry($0, in: walk.here) }
        guard let found else { return .missing }
        let inode = tree.inode(of: found)
        if tree.isDirectory(inode) {
            walk.trail.append(inode)
            return .moved
        }
        guard case .symbolicLink(let target) = tree.content(of: inode) else { return .notADirectory }
        walk.links += 1
        guard walk.links <= Self.linkLimit else { return .tooManyLinks }
        let slash = UInt8(ascii: "/")
        if target.bytes.first == slash { walk.trail = [FileTree.root] }
        let names = target.bytes.split(separator: slash)
        walk.linkedNames += names.count
        guard walk.linkedNames <= Self.linkedNameLimit else { return .tooLongLinks }
        walk.pending += names.reversed()
        return .moved
    }
}
