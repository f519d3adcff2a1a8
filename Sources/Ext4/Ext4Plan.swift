public import ComposefsFileTree
public import ComposefsHashing

/// The layout of an ext4 file system for a tree: every inode has its number and its blocks.
///
/// The image is made of zeros, of `metadata`, and of the contents of objects at the places that `placements` lists. Nothing else is written, so that
/// a new file of `byteCount` bytes remains sparse.
public struct Ext4Plan: Sendable {
    /// The size of the image in bytes.
    public let byteCount: UInt64
    public var uuid: Ext4UUID { list.uuid }

    /// The blocks that belong to an inode.
    struct Allocation: Sendable {
        var attributeBlock: UInt64 = 0
        /// The range in `runs` of the data.
        var firstRun: UInt32 = 0
        var runCount: UInt32 = 0
        /// The number of runs after those, of the extent tree.
        var treeRunCount: UInt32 = 0
    }

    let list: InodeList
    let options: Ext4Options
    private(set) var geometry = Geometry(blocks: 0, inodesPerGroup: 16, groups: 1, reservedDescriptorBlocks: 0)
    private(set) var allocations: [Allocation] = []
    private(set) var runs: [BlockRun] = []
    private(set) var journal: [BlockRun] = []
    private(set) var resizeBlock: UInt64 = 0
    /// The block after the last used one. All data blocks before it are used.
    private(set) var end: UInt64 = 0

    /// The features of the file system.
    var features: Features {
        var features = Features.written
        if !journal.isEmpty { features.compatible |= Features.Compatible.journal }
        if geometry.reservedDescriptorBlocks > 0 { features.compatible |= Features.Compatible.resizeInode }
        if !list.values.isEmpty { features.incompatible |= Features.Incompatible.attributeValues }
        return features
    }

    /// Plans the file system of a tree.
    ///
    /// - Parameters:
    ///   - tree: The plan keeps it.
    ///   - holes: Returns the ranges of an object's bytes that are zero, for an object and its size. Whole blocks in them are not stored.
    /// - Throws: `.unwritable` if ext4 cannot express the tree; `.tooSmall`, `.tooLarge`, `.tooManyInodes`; `.invalidOption`.
    public init(
        _ tree: FileTree, _ options: Ext4Options = Ext4Options(), holes: (ObjectID, UInt64) -> [Range<UInt64>] = { _, _ in [] }
    ) throws(Ext4Error) {
        try options.check()
        let list = try InodeList(tree, options, holes: holes)
        var layout = Layout(list, options)
        switch options.size {
        case .minimal: try layout.fit(blocks: 0, inodes: 0)
        case .spare(let bytes, let inodes): try layout.fit(blocks: Ext4Format.blocks(bytes), inodes: inodes)
        case .exactly(let bytes): try layout.fill(bytes: bytes)
        }
        self.list = list
        self.options = options
        geometry = layout.geometry
        allocations = layout.allocations
        runs = layout.runs
        journal = layout.journal
        resizeBlock = layout.resizeBlock
        end = layout.end
        if case .exactly(let bytes) = options.size {
            byteCount = (bytes >> Ext4Format.blockBits) << Ext4Format.blockBits
        } else {
            byteCount = layout.geometry.blocks << Ext4Format.blockBits
        }
    }

    /// The blocks of metadata, and contents that the tree itself has, in ascending order.
    public var metadata: Ext4Metadata { Ext4Metadata(self) }

    /// The places of the contents of objects, in ascending order.
    public var placements: Ext4Placements { Ext4Placements(self) }

    /// The runs of an inode's data.
    func dataRuns(_ index: Int) -> ArraySlice<BlockRun> {
        let it = allocations[index]
        return runs[Int(it.firstRun)..<Int(it.firstRun + it.runCount)]
    }

    /// The numbers of the blocks of an inode's extent tree.
    func treeBlocks(_ index: Int) -> [UInt64] {
        let it = allocations[index]
        let first = Int(it.firstRun + it.runCount)
        return runs[first..<(first + Int(it.treeRunCount))].flatMap { run in (0..<UInt64(run.count)).map { run.start + $0 } }
    }
}

/// A part of an object and its place in the image.
public struct Ext4Placement: Hashable, Sendable {
    public var object: ObjectID
    /// The size of the whole object in bytes.
    public var objectSize: UInt64
    /// In bytes from the start of the object; a multiple of 4096.
    public var objectOffset: UInt64
    /// In bytes from the start of the image; a multiple of 4096.
    public var imageOffset: UInt64
    /// A multiple of 4096, except at the end of an object.
    public var byteCount: UInt64
}

/// The places of the contents of objects, in ascending order of their offsets in the image.
public struct Ext4Placements: Sequence, IteratorProtocol, Sendable {
    private let plan: Ext4Plan
    private var node = 0
    private var run = 0

    init(_ plan: Ext4Plan) { self.plan = plan }

    public mutating func next() -> Ext4Placement? {
        let list = plan.list
        while node < list.nodes.count {
            let it = list.nodes[node]
            if it.role == .tree, it.kind == .regular {
                switch list.tree.content(of: it.inode) {
                case .external(let id, let size), .externalWithoutVerity(let id, let size):
                    let runs = plan.dataRuns(node)
                    if run < runs.count {
                        let part = runs[runs.startIndex + run]
                        run += 1
                        let offset = UInt64(part.logical) << Ext4Format.blockBits
                        return Ext4Placement(
                            object: id, objectSize: size, objectOffset: offset, imageOffset: part.start << Ext4Format.blockBits,
                            byteCount: Swift.min(UInt64(part.count) << Ext4Format.blockBits, size - offset))
                    }
                default: break
                }
            }
            node += 1
            run = 0
        }
        return nil
    }
}
