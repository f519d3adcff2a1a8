internal import ComposefsBytes
internal import ComposefsFileTree

/// The position of each part of an image. It is computed before anything is written, so that the image is allocated once.
struct ImageLayout {
    /// The form and position of one inode.
    struct Inode: BitwiseCopyable {
        /// The offset in bytes, a multiple of 32.
        var offset = 0
        /// The value of the inode's size field.
        var size: UInt64 = 0
        /// The value of the inode's `u` field: block address, device number or chunk format.
        var value: UInt32 = 0
        /// The size of the extended attributes in bytes.
        var attributes: UInt32 = 0
        /// The number of bytes after the attributes that belong to the inode.
        var tail: UInt16 = 0
        /// The number of data blocks, and the address of the first.
        var blocks: UInt32 = 0
        var dataBlock: UInt32 = 0
        var dataLayout = Erofs.Layout.plain
        var isExtended = true
        /// Whether a symlink target or chunk table had to move to a block of its own.
        var isPromoted = false

        var headerSize: Int { isExtended ? ExtendedInodeLayout.size : CompactInodeLayout.size }
        /// The offset of the bytes after header and attributes.
        var tailOffset: Int { offset + headerSize + Int(attributes) }
        var end: Int { tailOffset + Int(tail) }
        var nid: UInt64 { UInt64(offset / Erofs.slotSize) }
    }

    private(set) var inodes: LargeArray<Inode>
    /// The end of the last inode, and the start of the shared attributes.
    private(set) var inodesEnd = Erofs.firstInodeOffset
    /// The size of the image in bytes.
    private(set) var size = 0
    /// The modification time of compact inodes; 0 in version 2.
    private(set) var earliest = Timestamp(seconds: 0)

    init(_ plan: borrowing ImagePlan, _ lists: borrowing AttributeLists, _ tree: borrowing FileTree) throws(ErofsError) {
        let firstEpoch = plan.version.isFirstEpoch
        inodes = LargeArray(in: tree.memory)
        if firstEpoch { earliest = Self.earliest(plan, tree) }
        var position = Erofs.firstInodeOffset
        for index in plan.nodes.indices {
            let node = plan.nodes[index]
            var it = Inode()
            it.attributes = UInt32(try Self.attributeSize(lists, index, node, plan, tree))
            try Self.measure(&it, node, plan, tree)
            if firstEpoch {
                let nanoseconds = tree.modified(of: node.inode).nanoseconds
                guard nanoseconds < 1_000_000_000 else {
                    throw .unwritable(path: plan.path(of: node, tree), .nanosecondsTooLarge(nanoseconds))
                }
                it.isExtended =
                    tree.modified(of: node.inode) != earliest || node.links > 65535 || tree.uid(of: node.inode) > 65535
                    || tree.gid(of: node.inode) > 65535 || it.size > UInt64(UInt32.max)
                Self.promote(&it, node)
                position = Self.placeFirstEpoch(it, node, at: position)
            } else {
                position = Self.placeSecondEpoch(it, at: position)
            }
            it.offset = position
            position = Erofs.align(it.end, to: Erofs.slotSize)
            guard position <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(position)) }
            inodes.append(it)
        }
        inodesEnd = position
        try placeData(after: inodesEnd + lists.sharedSize)
    }

    /// The earliest time. Versions 0 and 1 compare seconds as unsigned numbers, so negative ones are late.
    private static func earliest(_ plan: borrowing ImagePlan, _ tree: borrowing FileTree) -> Timestamp {
        var earliest = tree.modified(of: FileTree.root)
        for index in plan.nodes.indices {
            let time = tree.modified(of: plan.nodes[index].inode)
            let (new, old) = (UInt64(bitPattern: time.seconds), UInt64(bitPattern: earliest.seconds))
            if new < old || (new == old && time.nanoseconds < earliest.nanoseconds) { earliest = time }
        }
        return earliest
    }

    private static func attributeSize(
        _ lists: borrowing AttributeLists, _ index: Int, _ node: ImagePlan.Node, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) throws(ErofsError) -> Int {
        let list = lists.lists[index]
        if list.count == 0 { return 0 }
        var shared = 0
        var size = AttributeHeaderLayout.size
        for at in Int(list.first)..<Int(list.first + list.count) {
            let reference = lists.references[at]
            if lists.table.sharedOffset(reference) != nil {
                shared += 1
                size += AttributeHeaderLayout.referenceSize
            } else {
                size += lists.localSize(reference, tree)
            }
        }
        if shared > 255 { throw .unwritable(path: plan.path(of: node, tree), .tooManySharedAttributes(shared)) }
        if size > Erofs.maximumAttributeSize { throw .unwritable(path: plan.path(of: node, tree), .attributesTooLarge(bytes: size)) }
        return size
    }

    /// Computes everything that depends only on the content.
    private static func measure(
        _ it: inout Inode, _ node: ImagePlan.Node, _ plan: borrowing ImagePlan, _ tree: borrowing FileTree
    ) throws(ErofsError) {
        if node.directory != ImagePlan.none {
            measureDirectory(&it, plan.directories[Int(node.directory)], plan)
            return
        }
        guard node.role == .ordinary, let content = tree.content(of: node.inode) else { return }
        let firstEpoch = plan.version.isFirstEpoch
        switch content {
        case .inline(let bytes):
            it.size = UInt64(bytes.count)
            if !firstEpoch {
                guard bytes.count < Erofs.blockSize else {
                    throw .unwritable(path: plan.path(of: node, tree), .inlineContentTooLong(bytes: bytes.count))
                }
                it.tail = UInt16(bytes.count)
            } else {
                guard bytes.count <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: it.size) }
                split(&it, blocks: bytes.count / Erofs.blockSize, rest: bytes.count % Erofs.blockSize)
            }
            if it.tail > 0 { it.dataLayout = .inline }
        case .external(_, let size), .externalWithoutVerity(_, let size), .sparse(let size):
            it.size = size
            it.dataLayout = .chunked
            if firstEpoch {
                it.value = UInt32(Erofs.chunkFormat(size: size))
                let table = Erofs.chunkTableSize(size: size)
                // Of a table that is larger than a block, only one block is written.
                it.isPromoted = table + UInt64(it.attributes % UInt32(Erofs.slotSize)) > UInt64(Erofs.blockSize)
                if it.isPromoted { it.blocks = 1 } else { it.tail = UInt16(table) }
            } else {
                it.value = Erofs.widestChunk
                if case .external = content { it.tail = UInt16(ChunkTableLayout.entrySize) }
            }
        case .blockDevice(let number), .characterDevice(let number):
            guard let value = UInt32(exactly: number) else {
                throw .unwritable(path: plan.path(of: node, tree), .deviceNumberTooLarge(number))
            }
            it.value = value
        case .fifo, .socket: break
        case .symbolicLink(let target):
            guard target.count <= plan.version.maximumTargetLength else {
                throw .unwritable(path: plan.path(of: node, tree), .targetTooLong(bytes: target.count))
            }
            it.size = UInt64(target.count)
            it.tail = UInt16(target.count)
            it.dataLayout = .inline
        }
    }

    /// A remainder of more than half a block becomes a block. A smaller one is stored after the inode.
    private static func split(_ it: inout Inode, blocks: Int, rest: Int) {
        if rest > Erofs.blockSize / 2 {
            it.blocks = UInt32(blocks + 1)
        } else {
            it.blocks = UInt32(blocks)
            it.tail = UInt16(rest)
        }
    }

    private static func measureDirectory(_ it: inout Inode, _ directory: ImagePlan.Directory, _ plan: borrowing ImagePlan) {
        var blocks = 0
        var used = 0
        for index in Int(directory.first)..<Int(directory.end) {
            let need = DirectoryEntryLayout.size + Int(plan.records[index].nameLength)
            if used + need > Erofs.blockSize {
                blocks += 1
                used = 0
            }
            used += need
        }
        split(&it, blocks: blocks, rest: used)
        it.size = UInt64(Int(it.blocks) * Erofs.blockSize + Int(it.tail))
        it.dataLayout = it.tail > 0 ? .inline : .plain
    }

    // MARK: Positions

    /// Moves a symlink target that could cross a block boundary to a block of its own, because old kernels refuse it otherwise.
    private static func promote(_ it: inout Inode, _ node: ImagePlan.Node) {
        guard node.kind == .symbolicLink, it.headerSize + Int(it.attributes) + Int(it.tail) >= Erofs.blockSize else { return }
        it.isPromoted = true
        it.blocks = 1
        it.tail = 0
        it.dataLayout = .plain
    }

    private static func placeFirstEpoch(_ it: Inode, _ node: ImagePlan.Node, at position: Int) -> Int {
        let block = Erofs.blockSize
        var position = position
        let length = it.headerSize + Int(it.attributes)
        if it.isPromoted, node.kind == .symbolicLink {
            if position / block != (position + length + Int(it.size) - 1) / block { position = Erofs.align(position, to: block) }
        } else if it.isPromoted {
            position = Erofs.align(position, to: block)
        } else if it.dataLayout == .inline, node.kind == .symbolicLink {
            if position % block + length + Int(it.tail) > block { position = Erofs.align(position, to: block) }
        } else if it.dataLayout != .plain {
            let room = Erofs.align(position + length, to: block) - (position + length)
            if room > 0, room < Int(it.tail) { position += Erofs.align(room, to: Erofs.slotSize) }
        }
        return position
    }

    private static func placeSecondEpoch(_ it: Inode, at position: Int) -> Int {
        guard it.dataLayout == .inline else { return position }
        let block = Erofs.blockSize
        let tailOffset = position + it.headerSize + Int(it.attributes)
        // A tail that ends exactly at a block boundary is moved too: the format requires it.
        guard (tailOffset - 1) / block != (tailOffset + Int(it.size % UInt64(block))) / block else { return position }
        return Erofs.align(position + block - (tailOffset - 1) % block, to: Erofs.slotSize)
    }

    private mutating func placeData(after offset: Int) throws(ErofsError) {
        var block = Erofs.align(offset, to: Erofs.blockSize) / Erofs.blockSize
        for index in inodes.indices where inodes[index].blocks > 0 {
            let address = UInt32(block)
            inodes[index].dataBlock = address
            if inodes[index].dataLayout == .chunked {
                inodes[index].value |= address & 0xffff_0000
            } else {
                inodes[index].value = address
            }
            block += Int(inodes[index].blocks)
            let bytes = block * Erofs.blockSize
            guard bytes <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(bytes)) }
        }
        size = block * Erofs.blockSize
        guard size <= Erofs.maximumImageSize else { throw .imageTooLarge(bytes: UInt64(size)) }
    }
}

extension AttributeLists {
    /// The size of an attribute that only one inode has, in bytes.
    @inline(__always)
    func localSize(_ reference: AttributeTable.Reference, _ tree: borrowing FileTree) -> Int {
        AttributeTable.entrySize(suffix: table.suffixLength(of: reference), value: table.valueLength(of: reference, in: tree))
    }
}
