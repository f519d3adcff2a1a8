public import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing
public import ComposefsTar

/// The content of an entry, after it has been stored.
public enum LeafContent: Sendable, Hashable {
    /// Not a regular file.
    case none
    case inline(ByteString)
    /// Size in bytes.
    case external(ObjectID, size: UInt64)
}

/// Applies layers to each other by the rules of the OCI image specification (layer.md) and Repo-Format.md 7.4, in time linear in the
/// entries.
///
/// Entries are applied in the archive's order. Whiteouts act on lower layers only, at any position in their layer: they are applied at the
/// end of the layer, and do not affect the layer's own entries. Parents without an entry are directories with mode 0755, owner 0:0 and time
/// 0. Parents that are symbolic links are resolved with the image as the root, unless the layer replaces the link by a directory.
public struct LayerMerger {
    var tree: FileTree
    private(set) var isLowest = true

    /// Entries of the tree from this index on were made by the layer that is being applied.
    private(set) var firstOwn = 0
    /// Entries of lower layers that the layer has removed or replaced, by their positions, for `LayerStack`; nil if they are not recorded. They keep
    /// their names and parents.
    private(set) var removals: LargeArray<UInt32>?
    /// Directories of lower layers that the layer has entries for.
    private(set) var described: Set<FileTree.InodeID> = []
    /// Names of lower layers that the layer links to themselves.
    private var renewed: Set<FileTree.EntryID> = []
    private var whiteouts: LayerWhiteouts
    /// Entries from the first one whose path leads through a lower layer's file in place of a directory: only at the end of the layer is it
    /// known whether the layer replaces that file.
    private var waiting: WaitingEntries
    /// The paths of the directories among the waiting entries; nil before the end of the layer.
    private var replacements: DistinctBytes?

    private var knownParents = KnownParents()
    private var budget: MergeBudget

    /// The metadata of a directory without an entry.
    static let implicit = Metadata(permissions: 0o755)
    /// The depth of directories below the root; readers of EROFS images accept no deeper ones.
    static let depthLimit = 2048

    private let filtering: XattrFiltering?

    /// - Parameters:
    ///   - filtering: extended attributes that it does not allow are not stored in the tree; nil keeps all.
    ///   - memoryLimit: bytes of memory that the tree and an image of it may take, roughly.
    public init(_ filtering: XattrFiltering? = nil, memoryLimit: UInt64 = .max) {
        self.init(filtering, memoryLimit: memoryLimit, in: HeapMemory.shared)
    }

    /// - Parameter memory: where the tree is.
    init(_ filtering: XattrFiltering? = nil, memoryLimit: UInt64 = .max, in memory: any LargeMemory) {
        tree = FileTree(root: Self.implicit, in: memory)
        whiteouts = LayerWhiteouts(in: memory)
        waiting = WaitingEntries(in: memory)
        self.filtering = filtering
        budget = MergeBudget(memory: memoryLimit)
    }

    /// Keeps all extended attributes, and records what a layer removes.
    init(recordingRemovals: Void, memoryLimit: UInt64 = .max, in memory: any LargeMemory) {
        self.init(memoryLimit: memoryLimit, in: memory)
        removals = LargeArray(in: memory)
    }

    init(implicitLimit: Int, stepLimit: Int = MergeBudget.stepLimit) {
        self.init()
        budget.implicitLimit = implicitLimit
        budget.steps = stepLimit
    }

    public mutating func beginLayer() {
        knownParents.forget()
        firstOwn = tree.entryCapacity
        described.removeAll()
        renewed.removeAll()
        whiteouts.removeAll()
        waiting.removeAll()
        replacements = nil
        removals?.reset()
    }

    /// Applies the layer's next entry, in the archive's order.
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
        case .ignored: return
        case .whiteout, .opaque:
            // The lowest layer has no lower layers to hide.
            if isLowest { return }
            try budget.spend(memory: 160 + entry.path.count, tree, entry)
            whiteouts.append(path, offset: entry.headerOffset)
        case .root, .entry:
            if waiting.isEmpty, try insert(path, entry, content) { return }
            try budget.spend(memory: MergeBudget.waitingCost(entry, content), tree, entry)
            waiting.append(entry, content)
        }
    }

    public mutating func endLayer() throws(MergeError) {
        try insertWaiting()
        try applyWhiteouts()
        if let farm = tree.entry(EntryPath.linkFarm, in: FileTree.root) { remove(farm) }
        isLowest = false
    }

    public consuming func finish() -> FileTree {
        var tree = tree
        tree.order()
        return tree
    }

    private mutating func insertWaiting() throws(MergeError) {
        guard !waiting.isEmpty else { return }
        var directories = DistinctBytes(in: tree.memory)
        for index in waiting.indices {
            let entry = waiting[index].entry
            guard entry.kind == .directory else { continue }
            let names = entry.path.bytes.split(separator: UInt8(ascii: "/")).filter { !$0.elementsEqual([UInt8(ascii: ".")]) }
            _ = Array(names.joined(separator: [UInt8(ascii: "/")])).withUnsafeBytes { directories.insert($0) }
        }
        replacements = directories
        for index in waiting.indices {
            let (entry, content) = waiting[index]
            guard case .success(let path) = EntryPath.parse(entry.path) else { preconditionFailure("a path that was refused") }
            let isInserted = try insert(path, entry, content)
            precondition(isInserted, "at a layer's end nothing is left to wait for")
        }
        waiting.removeAll()
    }

    func isOwn(_ entry: FileTree.EntryID) -> Bool { entry.arenaIndex >= firstOwn }

    // MARK: Whiteouts

    private mutating func applyWhiteouts() throws(MergeError) {
        // The link is not followed to find entries below a hidden link, whichever of the two whiteouts comes first in the archive.
        whiteouts.sort()
        for index in whiteouts.indices {
            let (path, offset) = whiteouts[index]
            guard let directory = try lowerDirectory(path, offset) else { continue }
            switch path.role {
            case .opaque: hideChildren(of: directory)
            case .whiteout(let name):
                guard let entry = tree.entry(name, in: directory), !isOwn(entry), !renewed.contains(entry) else { continue }
                let inode = tree.inode(of: entry)
                if tree.isDirectory(inode) {
                    hideChildren(of: inode)
                    settle(inode, entry)
                } else {
                    remove(entry)
                }
            case .root, .entry, .ignored: break
            }
        }
        whiteouts.removeAll()
    }

    /// The directory of a lower layer that a whiteout refers to; nil if there is none, or if the layer has replaced it.
    private mutating func lowerDirectory(_ path: EntryPath, _ offset: UInt64) throws(MergeError) -> FileTree.InodeID? {
        var walk = PathWalk(path.parents)
        while let name = walk.next() {
            guard budget.takeStep() else { throw MergeError(path: path.path, offset: offset, reason: MergeBudget.tooManySteps) }
            guard let entry = find(name, in: walk.here), !isOwn(entry) else { return nil }
            let inode = tree.inode(of: entry)
            if tree.isDirectory(inode) {
                walk.enter(inode, name)
            } else {
                guard case .symbolicLink(let target) = tree.content(of: inode), walk.follow(target) == nil else { return nil }
            }
        }
        return walk.here
    }

    /// Removes all entries of lower layers below a directory. Directories that contain entries of the layer itself stay.
    private mutating func hideChildren(of directory: FileTree.InodeID) {
        var lower: [FileTree.EntryID] = []
        var pending = [directory]
        while let next = pending.popLast() {
            for entry in tree.entries(of: next) where !isOwn(entry) && !renewed.contains(entry) {
                let inode = tree.inode(of: entry)
                if tree.isDirectory(inode) {
                    lower.append(entry)
                    pending.append(inode)
                } else {
                    remove(entry)
                }
            }
        }
        // Children before their parents.
        for entry in lower.reversed() { settle(tree.inode(of: entry), entry) }
    }

    /// A hidden directory whose lower content is removed: it is removed, too, unless it contains an entry of the layer. If it has no entry
    /// of its own, it becomes a parent like any other without one.
    private mutating func settle(_ directory: FileTree.InodeID, _ entry: FileTree.EntryID) {
        if described.contains(directory) { return }
        if tree.hasEntries(directory) {
            tree.setMetadata(of: directory, to: Self.implicit)
        } else {
            remove(entry)
        }
    }

    private mutating func remove(_ entry: FileTree.EntryID) {
        switch tree.kind(of: tree.inode(of: entry)) {
        case .directory, .symbolicLink: knownParents.forget()
        default: break
        }
        if !isOwn(entry) { removals?.append(UInt32(entry.arenaIndex)) }
        tree.remove(entry)
    }

    // MARK: Entries

    /// Returns false if the entry has to wait for the end of the layer.
    private mutating func insert(_ path: EntryPath, _ entry: TarEntry, _ content: LeafContent) throws(MergeError) -> Bool {
        guard case .entry(let name) = path.role else {
            guard entry.kind == .directory else { throw Self.failure(entry, "it names the root, but is no directory") }
            tree.setMetadata(of: FileTree.root, to: metadata(of: entry))
            return true
        }
        guard let (parent, depth) = try directory(path, entry) else { return false }
        let present = tree.entry(name, in: parent)
        switch entry.kind {
        case .directory:
            try budget.spend(memory: MergeBudget.entryCost(name, entry, content), tree, entry)
            if let present, tree.isDirectory(tree.inode(of: present)) {
                let inode = tree.inode(of: present)
                tree.setMetadata(of: inode, to: metadata(of: entry))
                if !isOwn(present) { described.insert(inode) }
            } else {
                try checkDepth(depth + 1, entry)
                if let present { remove(present) }
                let metadata = self.metadata(of: entry)
                try change(entry) { (tree) throws(FileTreeError) in _ = try tree.addDirectory(name, in: parent, metadata) }
            }
        case .hardLink:
            guard let target = try linkTarget(entry) else { return false }
            try budget.spend(memory: MergeBudget.entryCost(name, entry, .none), tree, entry)
            if let present {
                // A link to itself changes nothing; removing the name first would lose the file.
                if tree.inode(of: present) == target {
                    if !isOwn(present) { renewed.insert(present) }
                    return true
                }
                remove(present)
                // The replaced file may have been the directory that contained the target.
                guard tree.linkCount(of: target) > 0 else {
                    throw Self.failure(entry, "its target \"\(entry.linkTarget)\" is removed with the directory that it replaces")
                }
            }
            try change(entry) { (tree) throws(FileTreeError) in
                // A whiteout has one name in an image, see `DirectoryImport`.
                if tree.isWhiteout(target) {
                    _ = try tree.addLeaf(name, in: parent, tree.metadata(of: target), .characterDevice(0))
                } else {
                    try tree.addLink(name, in: parent, to: target)
                }
            }
        default:
            try budget.spend(memory: MergeBudget.entryCost(name, entry, content), tree, entry)
            let (metadata, content) = (self.metadata(of: entry), try Self.leaf(entry, content))
            if let present { remove(present) }
            try change(entry) { (tree) throws(FileTreeError) in _ = try tree.addLeaf(name, in: parent, metadata, content) }
        }
        return true
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

    static func metadata(_ entry: TarEntry, _ filtering: XattrFiltering? = nil) -> Metadata {
        var attributes: [ExtendedAttribute] = []
        for attribute in entry.extendedAttributes where filtering?.keeps(attribute.name) != false {
            attributes.append(ExtendedAttribute(name: attribute.name, value: attribute.value))
        }
        return Metadata(
            permissions: UInt16(truncatingIfNeeded: entry.mode & 0o7777), uid: entry.uid, gid: entry.gid,
            modified: Timestamp(seconds: entry.mtime.seconds, nanoseconds: entry.mtime.nanoseconds), extendedAttributes: attributes)
    }

    private func metadata(of entry: TarEntry) -> Metadata { Self.metadata(entry, filtering) }

    /// Nil if the entry has to wait for the end of the layer.
    private mutating func linkTarget(_ entry: TarEntry) throws(MergeError) -> FileTree.InodeID? {
        let path: EntryPath
        switch EntryPath.parse(entry.linkTarget, honouringWhiteouts: false) {
        case .success(let parsed): path = parsed
        case .failure(let refusal): throw Self.failure(entry, "link target: \(refusal.reason)")
        }
        guard case .entry(let name) = path.role else { throw Self.failure(entry, "a hard link to a directory, \"\(entry.linkTarget)\"") }
        let missing = Self.failure(entry, "its target \"\(entry.linkTarget)\" is not in the image")
        switch try resolve(path, entry, makesMissing: false) {
        case .waits: return nil
        case .missing: throw missing
        case .found(let directory, _):
            guard let target = tree.lookup(name, in: directory) else { throw missing }
            guard !tree.isDirectory(target) else {
                throw Self.failure(entry, "a hard link to a directory, \"\(entry.linkTarget)\"")
            }
            return target
        }
    }

    static func failure(_ entry: TarEntry, _ reason: String) -> MergeError {
        MergeError(path: entry.path, offset: entry.headerOffset, reason: reason)
    }

    // MARK: Parents

    private enum Way {
        case found(FileTree.InodeID, depth: Int)
        case missing
        /// The path leads through a lower layer's file in place of a directory, which the layer may still replace.
        case waits
    }

    /// The directory of an entry, with missing parents made, and its depth below the root, itself included; nil if the entry has to wait.
    private mutating func directory(_ path: EntryPath, _ entry: TarEntry) throws(MergeError) -> (inode: FileTree.InodeID, depth: Int)? {
        if let known = knownParents.find(path) { return known }
        guard case .found(let inode, let depth) = try resolve(path, entry, makesMissing: true) else { return nil }
        return (inode, depth)
    }

    private mutating func resolve(_ path: EntryPath, _ entry: TarEntry, makesMissing: Bool) throws(MergeError) -> Way {
        var walk = PathWalk(path.parents)
        var steps = 0
        while let name = walk.next() {
            steps += 1
            guard budget.takeStep() else { throw Self.failure(entry, MergeBudget.tooManySteps) }
            guard let found = find(name, in: walk.here) else {
                guard makesMissing else { return .missing }
                try makeParent(name, &walk, entry)
                continue
            }
            let inode = tree.inode(of: found)
            if tree.isDirectory(inode) {
                walk.enter(inode, name)
                continue
            }
            if !isOwn(found) {
                guard let replacements else { return .waits }
                if walk.path(of: name).bytes.withUnsafeBytes({ replacements.number(of: $0) }) != nil {
                    remove(found)
                    try makeParent(name, &walk, entry)
                    continue
                }
            }
            guard case .symbolicLink(let target) = tree.content(of: inode) else {
                guard makesMissing else { return .missing }
                throw Self.failure(entry, "its parent \"\(ByteString(name))\" is no directory")
            }
            if let refusal = walk.follow(target) {
                guard makesMissing else { return .missing }
                switch refusal {
                case .tooManyLinks:
                    throw Self.failure(entry, "more than \(PathWalk.linkLimit) symbolic links on the way to its parent")
                case .tooLongLinks:
                    let limit = PathWalk.linkedNameLimit
                    throw Self.failure(entry, "the symbolic links on the way to its parent hold more than \(limit) names")
                }
            }
        }
        if makesMissing { knownParents.keep(path, walk.here, depth: walk.depth, isCostly: walk.links > 0 || steps > 16) }
        return .found(walk.here, depth: walk.depth)
    }

    /// A directory without an entry so far.
    private mutating func makeParent(_ name: ArraySlice<UInt8>, _ walk: inout PathWalk, _ entry: TarEntry) throws(MergeError) {
        // The names in the entry's own path are checked for length already; those of a link's target are not.
        guard name.count <= EntryPath.nameLimit else {
            throw Self.failure(entry, "a link on the way to its parent holds a name of \(name.count) bytes; 255 are possible")
        }
        try checkDepth(walk.depth + 1, entry)
        try budget.makeImplicit(ByteString(name), tree, entry)
        let parent = walk.here
        var made = FileTree.root
        try change(entry) { (tree) throws(FileTreeError) in made = try tree.addDirectory(ByteString(name), in: parent, Self.implicit) }
        walk.enter(made, name)
    }

    private func find(_ name: ArraySlice<UInt8>, in directory: FileTree.InodeID) -> FileTree.EntryID? {
        name.withUnsafeBytes { tree.entry($0, in: directory) }
    }

    private func checkDepth(_ depth: Int, _ entry: TarEntry) throws(MergeError) {
        guard depth <= Self.depthLimit else { throw Self.failure(entry, "directories are nested deeper than \(Self.depthLimit)") }
    }
}
