internal import ComposefsBytes
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
    struct Allocation: Sendable, BitwiseCopyable {
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
    let allocations: LargeArray<Allocation>
    private let runs: LargeArray<BlockRun>
    private let places: LargeArray<Ext4Placements.Place>
    private(set) var journal: [BlockRun] = []
    private(set) var resizeBlock: UInt64 = 0
    /// The block after the last used one. All data blocks before it are used.
    private(set) var end: UInt64 = 0

    /// The features of the file system.
    var features: Features {
        var features = Features.written
        if !journal.isEmpty { features.compatible |= Features.Compatible.journal }
        if geometry.reservedDescriptorBlocks > 0 { features.compatible |= Features.Compatible.resizeInode }
        if list.hasValues { features.incompatible |= Features.Incompatible.attributeValues }
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
        places = Ext4Placements.places(of: list, allocations)
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
    public var placements: Ext4Placements { Ext4Placements(list, runs, places) }

    /// The runs of an inode's data.
    func dataRuns(_ index: Int) -> [BlockRun] {
        let it = allocations[index]
        return (0..<Int(it.runCount)).map { runs[Int(it.firstRun) + $0] }
    }

    /// The numbers of the blocks of an inode's extent tree.
    func treeBlocks(_ index: Int) -> [UInt64] {
        let it = allocations[index]
        let first = Int(it.firstRun + it.runCount)
        return (first..<(first + Int(it.treeRunCount))).flatMap { index in
            let run = runs[index]
            return (0..<UInt64(run.count)).map { run.start + $0 }
        }
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
public struct Ext4Placements: RandomAccessCollection, Sendable {
    /// A run of a file.
    struct Place: BitwiseCopyable {
        /// An index into the list's nodes.
        var node: UInt32
        /// An index into the plan's runs.
        var run: UInt32
    }

    private let list: InodeList
    private let runs: LargeArray<BlockRun>
    private let places: LargeArray<Place>

    fileprivate init(_ list: InodeList, _ runs: LargeArray<BlockRun>, _ places: LargeArray<Place>) {
        self.list = list
        self.runs = runs
        self.places = places
    }

    fileprivate static func places(of list: InodeList, _ allocations: LargeArray<Ext4Plan.Allocation>) -> LargeArray<Place> {
        var places = LargeArray<Place>(in: list.tree.memory)
        for index in list.nodes.indices {
            let node = list.nodes[index]
            guard node.role == .tree, node.kind == .regular, list.tree.objectNumber(of: node.inode) != nil else { continue }
            let it = allocations[index]
            for run in 0..<it.runCount { places.append(Place(node: UInt32(index), run: it.firstRun + run)) }
        }
        return places
    }

    public var startIndex: Int { 0 }
    public var endIndex: Int { places.count }

    public subscript(index: Int) -> Ext4Placement {
        let place = places[index]
        switch list.tree.content(of: list.nodes[Int(place.node)].inode) {
        case .external(let id, let size), .externalWithoutVerity(let id, let size):
            let run = runs[Int(place.run)]
            let offset = UInt64(run.logical) << Ext4Format.blockBits
            return Ext4Placement(
                object: id, objectSize: size, objectOffset: offset, imageOffset: run.start << Ext4Format.blockBits,
                byteCount: Swift.min(UInt64(run.count) << Ext4Format.blockBits, size - offset))
        default: preconditionFailure("a place of a file without an object")
        }
    }
}
