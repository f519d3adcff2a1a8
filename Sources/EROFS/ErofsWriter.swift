internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// Writes the parts of an image to the offsets of its layout.
struct ImageEmitter {
    let out: ImageBytes

    func emitHeaders(_ plan: borrowing ImagePlan, _ lists: borrowing AttributeLists, _ layout: borrowing ImageLayout) {
        let firstEpoch = plan.version.isFirstEpoch
        out.put(Erofs.headerMagic, at: ComposefsHeaderLayout.magic)
        out.put(Erofs.headerVersion, at: ComposefsHeaderLayout.version)
        out.put(lists.hasACL ? Erofs.headerHasACL : 0, at: ComposefsHeaderLayout.flags)
        out.put(plan.version.rawValue, at: ComposefsHeaderLayout.formatVersion)

        let at = Erofs.superblockOffset
        out.put(Erofs.magic, at: at + SuperblockLayout.magic)
        out.put(Erofs.compatModified | Erofs.compatAttributeFilter, at: at + SuperblockLayout.compatibleFeatures)
        out.put(UInt8(Erofs.blockBits), at: at + SuperblockLayout.blockBits)
        // The root is the first inode, after padding of at most a few blocks, so its number fits in 16 bits.
        out.put(UInt16(truncatingIfNeeded: layout.inodes[0].nid), at: at + SuperblockLayout.rootNumber)
        out.put(UInt64(plan.nodes.count), at: at + SuperblockLayout.inodeCount)
        out.put(layout.earliest.seconds, at: at + SuperblockLayout.buildSeconds)
        out.put(layout.earliest.nanoseconds, at: at + SuperblockLayout.buildNanoseconds)
        out.put(UInt32(layout.size / Erofs.blockSize), at: at + SuperblockLayout.blockCount)
        out.put(firstEpoch ? UInt32(layout.inodesEnd / Erofs.blockSize) : 0, at: at + SuperblockLayout.attributeBlock)
    }

    // MARK: Inodes

    func emitInode(
        _ index: Int, _ plan: borrowing ImagePlan, _ lists: borrowing AttributeLists, _ layout: borrowing ImageLayout,
        _ tree: borrowing FileTree
    ) {
        let node = plan.nodes[index]
        let it = layout.inodes[index]
        let at = it.offset
        let firstEpoch = plan.version.isFirstEpoch
        let format = it.dataLayout.rawValue | (it.isExtended ? Erofs.formatExtended : 0)
        let attributeCount =
            it.attributes == 0 ? 0 : 1 + (it.attributes - UInt32(AttributeHeaderLayout.size)) / UInt32(AttributeEntryLayout.alignment)
        let permissions = node.role == .stub ? 0o644 : tree.permissions(of: node.inode)
        let number = firstEpoch ? UInt32(index) : UInt32(truncatingIfNeeded: it.nid)
        let uid = tree.uid(of: node.inode)
        let gid = tree.gid(of: node.inode)
        if it.isExtended {
            let time = tree.modified(of: node.inode)
            out.put(format, at: at + ExtendedInodeLayout.format)
            out.put(UInt16(truncatingIfNeeded: attributeCount), at: at + ExtendedInodeLayout.attributeCount)
            out.put(node.kind.modeBits | permissions & 0o7777, at: at + ExtendedInodeLayout.mode)
            out.put(it.size, at: at + ExtendedInodeLayout.fileSize)
            out.put(it.value, at: at + ExtendedInodeLayout.value)
            out.put(number, at: at + ExtendedInodeLayout.number)
            out.put(uid, at: at + ExtendedInodeLayout.uid)
            out.put(gid, at: at + ExtendedInodeLayout.gid)
            out.put(time.seconds, at: at + ExtendedInodeLayout.seconds)
            out.put(firstEpoch ? time.nanoseconds : 0, at: at + ExtendedInodeLayout.nanoseconds)
            out.put(node.links, at: at + ExtendedInodeLayout.links)
        } else {
            out.put(format, at: at + CompactInodeLayout.format)
            out.put(UInt16(truncatingIfNeeded: attributeCount), at: at + CompactInodeLayout.attributeCount)
            out.put(node.kind.modeBits | permissions & 0o7777, at: at + CompactInodeLayout.mode)
            out.put(UInt16(truncatingIfNeeded: node.links), at: at + CompactInodeLayout.links)
            out.put(UInt32(truncatingIfNeeded: it.size), at: at + CompactInodeLayout.fileSize)
            out.put(it.value, at: at + CompactInodeLayout.value)
            out.put(number, at: at + CompactInodeLayout.number)
            out.put(UInt16(truncatingIfNeeded: uid), at: at + CompactInodeLayout.uid)
            out.put(UInt16(truncatingIfNeeded: gid), at: at + CompactInodeLayout.gid)
        }
        if it.attributes > 0 {
            let base = firstEpoch ? layout.inodesEnd % Erofs.blockSize : layout.inodesEnd
            emitAttributes(lists, lists.lists[index], at: at + it.headerSize, sharedBase: base, tree)
        }
        emitTail(index, plan, layout, tree)
    }

    /// The data blocks of an inode that is no directory.
    func emitBlocks(_ index: Int, _ plan: borrowing ImagePlan, _ layout: borrowing ImageLayout, _ tree: borrowing FileTree) {
        if plan.nodes[index].role == .ordinary { emitContent(.blocks, layout.inodes[index], plan.nodes[index], tree) }
    }

    // MARK: Contents

    /// The parts of an inode's content, which are not side by side.
    private enum Part {
        /// What follows the inode.
        case tail
        case blocks
    }

    private func emitTail(_ index: Int, _ plan: borrowing ImagePlan, _ layout: borrowing ImageLayout, _ tree: borrowing FileTree) {
        let (node, it) = (plan.nodes[index], layout.inodes[index])
        guard it.tail > 0 else { return }
        if node.directory != ImagePlan.none {
            let directory = plan.directories[Int(node.directory)]
            var records = plan.block(of: directory, from: Int(directory.first))
            for _ in 0..<it.blocks { records = plan.block(of: directory, from: records.upperBound) }
            emitEntries(records, of: directory, at: it.tailOffset, plan, layout, tree)
        } else if node.role == .ordinary {
            emitContent(.tail, it, node, tree)
        }
    }

    private func emitContent(_ part: Part, _ it: ImageLayout.Inode, _ node: ImagePlan.Node, _ tree: borrowing FileTree) {
        let start = part == .tail ? it.tailOffset : Int(it.dataBlock) * Erofs.blockSize
        if it.dataLayout == .chunked {
            // Null addresses: the content is not in the image.
            let count = part == .tail ? Int(it.tail) : Erofs.blockSize
            for offset in stride(from: start, to: start + count, by: ChunkTableLayout.entrySize) { out.put(UInt32.max, at: offset) }
            return
        }
        let bytes: [UInt8]
        switch tree.content(of: node.inode) {
        case .inline(let content): bytes = content.bytes
        case .symbolicLink(let target): bytes = target.bytes
        default: preconditionFailure("only files and symlinks have data in the image")
        }
        bytes.withUnsafeBytes { bytes in
            let inBlocks = bytes.count - Int(it.tail)
            out.put(UnsafeRawBufferPointer(rebasing: part == .tail ? bytes[inBlocks...] : bytes[..<inBlocks]), at: start)
        }
    }

    /// Writes one block of a directory: all entries, then all names.
    func emitEntries(
        _ range: Range<Int>, of directory: ImagePlan.Directory, at start: Int, _ plan: borrowing ImagePlan, _ layout: borrowing ImageLayout,
        _ tree: borrowing FileTree
    ) {
        var nameOffset = range.count * DirectoryEntryLayout.size
        var at = start
        for index in range {
            let record = plan.records[index]
            let node =
                switch (record.role, record.nameLength) {
                case (.dots, 1): directory.node
                case (.dots, _): plan.directories[Int(directory.parent)].node
                default: record.node
                }
            out.put(layout.inodes[Int(node)].nid, at: at + DirectoryEntryLayout.number)
            out.put(UInt16(truncatingIfNeeded: nameOffset), at: at + DirectoryEntryLayout.nameOffset)
            out.put(record.kind.rawValue, at: at + DirectoryEntryLayout.fileType)
            plan.withName(of: record, tree) { out.put($0, at: start + nameOffset) }
            nameOffset += Int(record.nameLength)
            at += DirectoryEntryLayout.size
        }
    }

    // MARK: Extended attributes

    private func emitAttributes(
        _ lists: borrowing AttributeLists, _ list: AttributeLists.List, at start: Int, sharedBase: Int, _ tree: borrowing FileTree
    ) {
        out.put(~list.filter, at: start + AttributeHeaderLayout.nameFilter)
        var at = start + AttributeHeaderLayout.size
        var shared: UInt8 = 0
        let range = Int(list.first)..<Int(list.first + list.count)
        for index in range {
            guard let offset = lists.table.sharedOffset(lists.references[index]) else { continue }
            out.put(UInt32(truncatingIfNeeded: (sharedBase + offset) / AttributeEntryLayout.alignment), at: at)
            at += AttributeHeaderLayout.referenceSize
            shared &+= 1
        }
        out.put(shared, at: start + AttributeHeaderLayout.sharedCount)
        for index in range {
            let reference = lists.references[index]
            if lists.table.sharedOffset(reference) == nil { at += emitEntry(lists, reference, at: at, tree) }
        }
    }

    /// Writes an attribute and returns its size in bytes.
    @discardableResult
    func emitEntry(
        _ lists: borrowing AttributeLists, _ reference: AttributeTable.Reference, at: Int, _ tree: borrowing FileTree
    ) -> Int {
        let name = lists.table.name(of: reference)
        let suffixLength = lists.table.suffixLength(of: reference)
        let valueAt = at + AttributeEntryLayout.size + suffixLength
        let size = lists.table.valueLength(of: reference, in: tree)
        switch reference.kind {
        case .kept: lists.table.withKeptValue(reference.index) { out.put($0, at: valueAt) }
        case .metacopy: ObjectAttribute.encodeMetacopy(tree.object(reference.index), into: out.room(size, at: valueAt))
        case .redirect: ObjectAttribute.encodeRedirect(tree.object(reference.index), into: out.room(size, at: valueAt))
        }
        out.put(UInt8(truncatingIfNeeded: suffixLength), at: at + AttributeEntryLayout.nameLength)
        out.put(name.prefix, at: at + AttributeEntryLayout.namePrefix)
        out.put(UInt16(truncatingIfNeeded: size), at: at + AttributeEntryLayout.valueSize)
        lists.table.withSuffix(of: reference) { out.put($0, at: at + AttributeEntryLayout.size) }
        return AttributeTable.entrySize(suffix: suffixLength, value: size)
    }
}
