internal import ComposefsBytes
internal import ComposefsFileTree

/// Finds the geometry of a file system and allocates its blocks.
///
/// Blocks are taken in ascending order: the resize inode's block, the journal, then the metadata of all inodes, then the contents of all files.
struct Layout {
    /// The least number of data blocks in the last group, as in mke2fs and resize2fs.
    static let leastDataBlocks: UInt64 = 50

    private let list: InodeList
    private let options: Ext4Options
    private(set) var geometry: Geometry
    private(set) var allocations: LargeArray<Ext4Plan.Allocation>
    private(set) var runs: LargeArray<BlockRun>
    private(set) var journal: [BlockRun] = []
    private(set) var resizeBlock: UInt64 = 0
    private(set) var end: UInt64 = 0
    /// The block after the room that is to remain free.
    private var limit: UInt64 = 0

    init(_ list: InodeList, _ options: Ext4Options) {
        self.list = list
        self.options = options
        allocations = LargeArray(in: list.tree.memory)
        runs = LargeArray(in: list.tree.memory)
        geometry = Geometry(blocks: 0, inodesPerGroup: 16, groups: 1, reservedDescriptorBlocks: options.reservedDescriptorBlocks)
    }

    /// Finds the smallest file system with room for more blocks and inodes.
    mutating func fit(blocks spare: UInt64, inodes: UInt64) throws(Ext4Error) {
        let (needed, isOver) = UInt64(list.last).addingReportingOverflow(inodes)
        guard !isOver, needed <= UInt64(UInt32.max) else { throw .tooManyInodes(isOver ? .max : needed) }
        guard spare <= Ext4Format.maximumBlocks, list.blocks + spare <= Ext4Format.maximumBlocks else {
            throw .tooLarge(bytes: min(spare, Ext4Format.maximumBlocks) << Ext4Format.blockBits)
        }
        let journalBlocks = options.journalBlocks(fileSystem: list.blocks + spare)
        let most = UInt64(Ext4Format.maximumInodesPerGroup)
        geometry.groups = max(Geometry.groups(blocks: list.blocks + spare), Int((needed + most - 1) / most), 1)
        while true {
            geometry.inodesPerGroup = Self.inodesPerGroup(needed, groups: geometry.groups)
            geometry.blocks = geometry.firstBlock(geometry.groups)
            guard geometry.inodes <= UInt64(UInt32.max) else { throw .tooManyInodes(geometry.inodes) }
            guard geometry.blocks <= Ext4Format.maximumBlocks else { throw .tooLarge(bytes: geometry.blocks << Ext4Format.blockBits) }
            allocate(journalBlocks: journalBlocks, spare: spare)
            let groups = Geometry.groups(blocks: limit)
            if groups <= geometry.groups { break }
            geometry.groups = groups
        }
        let last = geometry.groups - 1
        geometry.blocks = max(limit, geometry.dataStart(last) + (last > 0 ? Self.leastDataBlocks : 0))
    }

    /// Fills a size in bytes.
    mutating func fill(bytes: UInt64) throws(Ext4Error) {
        let blocks = bytes >> Ext4Format.blockBits
        guard blocks <= Ext4Format.maximumBlocks else { throw .tooLarge(bytes: bytes) }
        let groups = Geometry.groups(blocks: blocks)
        let needed = UInt64(list.last)
        let least = Self.inodesPerGroup(needed, groups: max(groups, 1))
        // One inode for each 16 KiB, as in mke2fs, or as few as possible.
        let usual = Int(min(8192, blocks / 4 / UInt64(max(groups, 1)))) / 16 * 16
        let attempts = [
            (max(usual, least), options.journalBlocks(fileSystem: blocks)), (least, options.journalBlocks(fileSystem: list.blocks)),
        ]
        for (inodesPerGroup, journalBlocks) in attempts where inodesPerGroup <= Ext4Format.maximumInodesPerGroup && blocks > 0 {
            geometry.groups = groups
            geometry.inodesPerGroup = inodesPerGroup
            geometry.blocks = blocks
            let last = groups - 1
            if last > 0, blocks < geometry.dataStart(last) + Self.leastDataBlocks {
                geometry.groups = last
                geometry.blocks = geometry.firstBlock(last)
                if needed > geometry.inodes { continue }
            }
            allocate(journalBlocks: journalBlocks, spare: 0)
            if end <= geometry.blocks { return }
        }
        try fit(blocks: 0, inodes: 0)
        throw .tooSmall(bytes: bytes, needed: geometry.blocks << Ext4Format.blockBits)
    }

    private static func inodesPerGroup(_ needed: UInt64, groups: Int) -> Int {
        Ext4Format.align(Int((needed + UInt64(groups) - 1) / UInt64(groups)), to: Ext4Format.inodesPerBlock)
    }

    // MARK: Allocation

    private mutating func allocate(journalBlocks: Int, spare: UInt64) {
        var cursor = BlockCursor(geometry)
        runs.removeAll()
        allocations.removeAll()
        allocations.append(repeating: Ext4Plan.Allocation(), count: list.nodes.count)
        resizeBlock = geometry.reservedDescriptorBlocks > 0 ? cursor.take(1).start : 0
        take(0, UInt64(journalBlocks), &cursor)
        journal = runs.indices.map { runs[$0] }
        precondition(journal.count <= Ext4Format.extentsInInode, "a journal of \(journalBlocks) blocks has \(journal.count) extents")
        runs.removeAll()
        for index in list.nodes.indices {
            if list.nodes[index].hasAttributeBlock { allocations[index].attributeBlock = cursor.take(1).start }
            if !isFile(index) { allocate(index, &cursor) }
        }
        for index in list.nodes.indices where isFile(index) { allocate(index, &cursor) }
        end = cursor.next
        var left = spare
        while left > 0 { left -= cursor.take(left).count }
        limit = cursor.next
    }

    private func isFile(_ index: Int) -> Bool { list.nodes[index].kind == .regular && list.nodes[index].role == .tree }

    private mutating func allocate(_ index: Int, _ cursor: inout BlockCursor) {
        let first = runs.count
        list.forEachSegment(of: list.nodes[index]) { take($0.first, UInt64($0.count), &cursor) }
        let count = runs.count - first
        take(0, UInt64(ExtentTree.blockCount(runs: count)), &cursor)
        allocations[index].firstRun = UInt32(first)
        allocations[index].runCount = UInt32(count)
        allocations[index].treeRunCount = UInt32(runs.count - first - count)
    }

    private mutating func take(_ logical: UInt32, _ count: UInt64, _ cursor: inout BlockCursor) {
        var (at, left) = (logical, count)
        while left > 0 {
            let (start, taken) = cursor.take(left)
            runs.append(BlockRun(logical: at, count: UInt32(taken), start: start))
            at += UInt32(taken)
            left -= taken
        }
    }
}
