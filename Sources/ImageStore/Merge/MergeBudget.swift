import ComposefsBytes
import ComposefsFileTree
import ComposefsTar

/// What a merge may still cost, so that a small image can neither take all memory nor run for hours.
struct MergeBudget {
    /// Steps from directory to directory, in all layers. Ten million files ten directories deep need fewer, even if no two neighbours share
    /// a parent.
    static let stepLimit = 1 << 27
    static let tooManySteps = "the paths of the image's entries lead through more than \(stepLimit) directories and links in sum"

    var steps = Self.stepLimit
    /// Directories without an entry: one entry of 5 KB can require two thousand of them.
    var implicitLimit = 1 << 20
    private var implicitCount = 0
    private let memory: UInt64
    private var used: UInt64 = 0

    init(memory: UInt64) { self.memory = memory }

    mutating func takeStep() -> Bool {
        steps -= 1
        return steps >= 0
    }

    mutating func spend(memory bytes: Int, _ tree: borrowing FileTree, _ entry: TarEntry) throws(MergeError) {
        used += UInt64(bytes)
        // An attribute is stored in the tree, in the writer's table and in the image.
        guard used + 3 * UInt64(tree.attributeBytes) <= memory else {
            var error = LayerMerger.failure(entry, "up to it the image's tree takes more than \(memory) bytes of memory")
            error.memoryLimit = memory
            throw error
        }
    }

    // MARK: Costs

    /// Bytes that an inode with a name takes in the tree, in the plan of an image, and in the image, with the unused capacity of arrays.
    private static let inodeCost = 288
    /// As above for an object's identifier and its form in the image; sha512 is the longer one.
    private static let objectCost = 480

    static func entryCost(_ name: ByteString, _ entry: TarEntry, _ content: LeafContent) -> Int {
        var cost = inodeCost + 3 * name.count
        if entry.kind == .symbolicLink { cost += 3 * entry.linkTarget.count }
        switch content {
        case .none: break
        case .inline(let bytes): cost += 3 * bytes.count
        case .external: cost += objectCost
        }
        return cost
    }

    /// The cost of an entry of the archive.
    static func waitingCost(_ entry: TarEntry, _ content: LeafContent) -> Int {
        var cost = 512 + entry.path.count + entry.linkTarget.count
        for attribute in entry.extendedAttributes { cost += 128 + attribute.name.count + attribute.value.count }
        return cost
    }

    mutating func makeImplicit(_ name: ByteString, _ tree: borrowing FileTree, _ entry: TarEntry) throws(MergeError) {
        implicitCount += 1
        guard implicitCount <= implicitLimit else {
            throw LayerMerger.failure(entry, "more than \(implicitLimit) directories are parents only, with no entry of their own")
        }
        try spend(memory: Self.inodeCost + 3 * name.count, tree, entry)
    }
}

/// Parents that were found already: neighbours in an archive usually share them, and some have a long path.
struct KnownParents {
    private var last: (path: EntryPath, inode: FileTree.InodeID, depth: Int)?
    private var costly: [ByteString: (inode: FileTree.InodeID, depth: Int)] = [:]
    private var costlyBytes = 0
    private static let byteLimit = 1 << 20

    mutating func forget() {
        last = nil
        if !costly.isEmpty {
            costly.removeAll()
            costlyBytes = 0
        }
    }

    func find(_ path: EntryPath) -> (inode: FileTree.InodeID, depth: Int)? {
        if let last, last.path.parentsEnd == path.parentsEnd, isEqual(last.path.parents, path.parents) { return (last.inode, last.depth) }
        return costly.isEmpty ? nil : costly[ByteString(path.parents)]
    }

    mutating func keep(_ path: EntryPath, _ inode: FileTree.InodeID, depth: Int, isCostly: Bool) {
        last = (path, inode, depth)
        guard isCostly else { return }
        costlyBytes += path.parentsEnd + 64
        if costlyBytes > Self.byteLimit {
            costly.removeAll()
            costlyBytes = path.parentsEnd + 64
        }
        costly[ByteString(path.parents)] = (inode, depth)
    }

    private func isEqual(_ a: ArraySlice<UInt8>, _ b: ArraySlice<UInt8>) -> Bool {
        a.withUnsafeBytes { a in b.withUnsafeBytes { b in compareBytes(a, b) == 0 } }
    }
}
