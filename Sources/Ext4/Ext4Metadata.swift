internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// A part of an image: its offset in bytes and its content, which is one or more blocks.
public struct Ext4Blocks: Sendable {
    public var offset: UInt64
    public var bytes: [UInt8]

    init(block: UInt64, _ bytes: [UInt8]) {
        offset = block << Ext4Format.blockBits
        self.bytes = bytes
    }

    var group: Int { Int(offset >> Ext4Format.blockBits) / Ext4Format.blocksPerGroup }
}

/// The blocks of a planned file system that are not contents of objects, in ascending order. Blocks of zeros are left out.
public struct Ext4Metadata: Sequence, IteratorProtocol {
    private let plan: Ext4Plan
    private let writer: SuperblockWriter
    private let checksums: Checksums
    private let descriptors: [UInt8]
    /// Blocks at the start of a group, which are before all others.
    private var header: ArraySlice<Ext4Blocks> = []
    /// After `header`: inodes of the group that was opened last, from 0 on, that are not written yet.
    private var inodes: Range<Int> = 0..<0
    private var pending: ArraySlice<Ext4Blocks> = []
    private var nextGroup = 0
    private var step = Step.system

    private enum Step {
        case system
        /// The metadata of a node.
        case node(Int)
        /// The blocks of a directory from one on.
        case directory(Int, DirectoryBlocks, block: Int)
        /// The contents of a file.
        case file(Int)
        case end
    }

    init(_ plan: Ext4Plan) {
        self.plan = plan
        checksums = Checksums(uuid: plan.uuid.bytes)
        var directories: [UInt32] = []
        for index in plan.list.nodes.indices where plan.list.nodes[index].kind == .directory {
            let group = plan.geometry.group(ofInode: InodeList.number(index))
            while directories.count <= group { directories.append(0) }
            directories[group] += 1
        }
        let table = GroupTable(
            plan.geometry, end: plan.end, lastInode: Swift.max(plan.list.last, Ext4Format.firstInode - 1), directories: directories,
            checksums)
        writer = SuperblockWriter(plan: plan, table: table)
        descriptors = table.encode()
    }

    public mutating func next() -> Ext4Blocks? {
        while true {
            if let blocks = header.popFirst() { return blocks }
            if !inodes.isEmpty { return nextInodes() }
            if pending.isEmpty { fill() }
            guard let blocks = pending.first else {
                guard nextGroup < plan.geometry.groups else { return nil }
                openGroup()
                continue
            }
            if blocks.group >= nextGroup {
                openGroup()
                continue
            }
            pending.removeFirst()
            return blocks
        }
    }

    // MARK: Groups

    private mutating func openGroup() {
        let (geometry, group) = (plan.geometry, nextGroup)
        nextGroup += 1
        header = []
        let first = geometry.firstBlock(group)
        if Geometry.hasSuperblock(group) {
            var block = [UInt8](repeating: 0, count: Ext4Format.blockSize)
            block.put(writer.superblock(group: group), at: group == 0 ? Ext4Format.superblockOffset : 0)
            header.append(Ext4Blocks(block: first, block))
            header.append(Ext4Blocks(block: first + 1, descriptors))
        }
        if group == 0, !geometry.backupGroups.isEmpty {
            let resize = ResizeInode(geometry: geometry, block: plan.resizeBlock)
            for index in 0..<geometry.reservedDescriptorBlocks {
                header.append(Ext4Blocks(block: UInt64(1 + geometry.descriptorBlocks + index), resize.indirect(index)))
            }
        }
        let flags = writer.table.descriptors[group].flags
        if flags & GroupDescriptor.blocksUninitialized == 0 {
            header.append(Ext4Blocks(block: geometry.blockBitmap(group), writer.table.blockBitmap(group)))
        }
        guard flags & GroupDescriptor.inodesUninitialized == 0 else { return }
        header.append(Ext4Blocks(block: geometry.inodeBitmap(group), writer.table.inodeBitmap(group)))
        inodes = 0..<writer.table.usedInodes(group)
    }

    // MARK: Inodes

    /// Inodes that are made at a time; whole blocks.
    private static let inodePart = 4096

    private mutating func nextInodes() -> Ext4Blocks {
        let group = nextGroup - 1
        let part = inodes.prefix(Self.inodePart)
        inodes = part.endIndex..<inodes.upperBound
        var bytes = ByteWriter(capacity: part.count * Ext4Format.inodeSize + Ext4Format.blockSize)
        let first = UInt32(group * plan.geometry.inodesPerGroup) + 1
        for index in part { bytes.append(inode(first + UInt32(index))) }
        bytes.pad(to: Ext4Format.blockSize)
        return Ext4Blocks(block: plan.geometry.inodeTable(group) + UInt64(part.startIndex / Ext4Format.inodesPerBlock), bytes.bytes)
    }

    private func inode(_ number: UInt32) -> [UInt8] {
        let empty = [UInt8](repeating: 0, count: Ext4Format.inodeSize)
        switch number {
        case Ext4Format.rootInode: return inode(ofNode: 0)
        case Ext4Format.resizeInode where plan.geometry.reservedDescriptorBlocks > 0:
            return ResizeInode(geometry: plan.geometry, block: plan.resizeBlock).record.encode(number, checksums)
        case Ext4Format.journalInode: return writer.journalRecord?.encode(number, checksums) ?? empty
        case ..<Ext4Format.firstInode: return empty
        default: return inode(ofNode: Int(number - (Ext4Format.firstInode - 1)))
        }
    }

    private func inode(ofNode index: Int) -> [UInt8] {
        let (list, tree) = (plan.list, plan.list.tree)
        let node = list.nodes[index]
        let number = InodeList.number(index)
        var record = InodeRecord(mode: 0, links: 1)
        let (size, isInBlocks) = list.content(of: node)
        record.size = size
        let extentBlocks = plan.treeBlocks(index)
        let runs = plan.dataRuns(index)
        record.blocks = runs.reduce(UInt64(extentBlocks.count)) { $0 + UInt64($1.count) } + (node.hasAttributeBlock ? 1 : 0)
        record.attributeBlock = plan.allocations[index].attributeBlock
        // Values in inodes of their own count for every inode that has them.
        for value in list.separateValues(of: node) { record.blocks += Ext4Format.blocks(UInt64(value.count)) }
        if isInBlocks {
            record.flags |= Ext4Format.flagExtents
            record.blockMap = ExtentTree.encode(runs, blocks: extentBlocks, seed: checksums.inodeSeed(number)).root
        }
        if node.kind == .directory {
            let links = node.links + 2
            record.links = links > Ext4Format.maximumLinks ? 1 : UInt16(links)
            if node.isIndexed { record.flags |= Ext4Format.flagIndexed }
        } else {
            record.links = UInt16(node.links)
        }
        switch node.role {
        case .value:
            record.mode = 0o100600
            record.flags |= Ext4Format.flagAttributeValue
            let value = list.value(of: node)
            let references = list.references(to: node)
            return record.encodeValue(number, hash: crc32c(checksums.seed, value), references: references, checksums)
        case .lostAndFound: record.mode = 0o040700
        case .tree:
            record.mode = node.kind.modeBits | tree.permissions(of: node.inode)
            record.uid = tree.uid(of: node.inode)
            record.gid = tree.gid(of: node.inode)
            record.time = tree.modified(of: node.inode)
            if let attributes = list.attributes(of: node) { record.attributes = attributes.body(checksums, inodeOf: list.number(ofValue:)) }
            switch tree.content(of: node.inode) {
            case .symbolicLink(let target) where !isInBlocks: record.blockMap = target.bytes
            case .blockDevice(let number), .characterDevice(let number): record.blockMap = InodeRecord.blockMap(device: number) ?? []
            default: break
            }
        }
        return record.encode(number, checksums)
    }

    // MARK: Data blocks

    /// Fills `pending` with the next blocks in the data areas of groups; leaves it empty at the end.
    private mutating func fill() {
        pending = []
        let nodes = plan.list.nodes
        while pending.isEmpty {
            switch step {
            case .system:
                if plan.geometry.reservedDescriptorBlocks > 0 {
                    let resize = ResizeInode(geometry: plan.geometry, block: plan.resizeBlock)
                    pending.append(Ext4Blocks(block: plan.resizeBlock, resize.doubleIndirect))
                }
                if let journal = plan.journal.first { pending.append(Ext4Blocks(block: journal.start, writer.journalSuperblock)) }
                step = .node(0)
            case .node(let index) where index == nodes.count: step = .file(0)
            case .node(let index) where nodes[index].kind == .directory:
                appendAttributes(index)
                step = .directory(index, directory(index), block: 0)
            case .node(let index):
                appendAttributes(index)
                if nodes[index].kind != .regular || nodes[index].role == .value { appendContent(index) }
                step = .node(index + 1)
            case .directory(let index, let directory, let block) where block == directory.blockCount:
                appendExtentTree(index)
                step = .node(index + 1)
            case .directory(let index, let directory, let block):
                step = .directory(index, directory, block: appendPart(of: directory, index, from: block))
            case .file(let index) where index == nodes.count: step = .end
            case .file(let index):
                if nodes[index].kind == .regular, nodes[index].role == .tree { appendContent(index) }
                step = .file(index + 1)
            case .end: return
            }
        }
    }

    private mutating func appendAttributes(_ index: Int) {
        let list = plan.list
        guard list.nodes[index].hasAttributeBlock, let attributes = list.attributes(of: list.nodes[index]) else { return }
        let block = plan.allocations[index].attributeBlock
        pending.append(Ext4Blocks(block: block, attributes.block(at: block, checksums, inodeOf: list.number(ofValue:))))
    }

    private mutating func appendContent(_ index: Int) {
        let runs = plan.dataRuns(index)
        guard !runs.isEmpty, let content = content(plan.list.nodes[index]) else { return appendExtentTree(index) }
        for run in runs {
            let start = Int(run.logical) * Ext4Format.blockSize
            let end = start + Int(run.count) * Ext4Format.blockSize
            // Usually there is one run, and the content is not copied.
            var part = content
            if start > 0 || end < content.count { part = Array(content[start..<Swift.min(end, content.count)]) }
            part.append(contentsOf: repeatElement(0, count: end - start - part.count))
            pending.append(Ext4Blocks(block: run.start, part))
        }
        appendExtentTree(index)
    }

    private mutating func appendExtentTree(_ index: Int) {
        let blocks = plan.treeBlocks(index)
        guard !blocks.isEmpty else { return }
        let seed = checksums.inodeSeed(InodeList.number(index))
        for (block, bytes) in ExtentTree.encode(plan.dataRuns(index), blocks: blocks, seed: seed).blocks {
            pending.append(Ext4Blocks(block: block, bytes))
        }
    }

    /// The bytes of an inode that come from the tree; nil if they are those of an object.
    private func content(_ node: InodeList.Node) -> [UInt8]? {
        if node.role == .value { return plan.list.value(of: node) }
        switch plan.list.tree.content(of: node.inode) {
        case .inline(let bytes), .symbolicLink(let bytes): return bytes.bytes
        default: return nil
        }
    }

    // MARK: Directories

    /// Blocks of a directory that are made at a time.
    private static let directoryPart = 128

    private func directory(_ index: Int) -> DirectoryBlocks {
        do throws(Unwritable) {
            return try plan.list.directory(index)
        } catch {
            preconditionFailure("a directory that was planned cannot be written")
        }
    }

    /// Appends consecutive blocks of a directory, and returns the number of the next one.
    private mutating func appendPart(of directory: DirectoryBlocks, _ index: Int, from block: Int) -> Int {
        guard let run = plan.dataRuns(index).first(where: { Int($0.logical) + Int($0.count) > block }) else {
            preconditionFailure("a block of a directory without a place")
        }
        let end = Swift.min(block + Self.directoryPart, Int(run.logical) + Int(run.count))
        let number = InodeList.number(index)
        let bytes = directory.encode(
            block..<end, own: number, parent: InodeList.number(Int(plan.list.nodes[index].parent)), seed: checksums.inodeSeed(number))
        pending.append(Ext4Blocks(block: run.start + UInt64(block - Int(run.logical)), bytes))
        return end
    }
}
