internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

extension ErofsDiskPlan {
    /// Calls `write` with all bytes of the image that are not contents of objects, in ascending order of their offsets. What is left out is zero.
    ///
    /// - Parameter write: takes bytes, which are valid only during the call, and their offset in bytes.
    public func writeMetadata(_ write: (UnsafeRawBufferPointer, _ offset: UInt64) throws -> Void) rethrows {
        try header().withUnsafeBytes { try write($0, 0) }
        var part = MetadataPart(start: UInt64(metadataBlock) << Erofs.blockBits)
        for index in nodes.indices {
            part.pad(to: Int(nodes[index].slot) * Erofs.slotSize)
            writeInode(index, to: &part.writer)
            try part.flush(ifLargerThan: MetadataPart.size, write)
        }
        part.pad(to: inodesEnd)
        for start in stride(from: 0, to: attributes.sharedSize, by: MetadataPart.size) {
            attributes.shared.withElements(start..<min(start + MetadataPart.size, attributes.sharedSize)) { part.writer.append($0) }
            try part.flush(ifLargerThan: MetadataPart.size, write)
        }
        part.pad(to: Int(blocksStart - metadataBlock) * Erofs.blockSize)
        for index in nodes.indices where hasMetadataBlocks(nodes[index]) {
            // A tail beside the inode is not in a block.
            let tail = nodes[index].layout == .inline ? Int(nodes[index].size) % Erofs.blockSize : 0
            var rest = Int(nodes[index].size) - tail
            try forEachPart(of: index) { bytes in
                part.writer.append(bytes.prefix(rest))
                rest -= min(rest, Erofs.align(bytes.count, to: Erofs.blockSize))
                part.padBlock()
                try part.flush(ifLargerThan: MetadataPart.size, write)
            }
        }
        try part.flush(ifLargerThan: 0, write)
    }

    private func hasMetadataBlocks(_ node: Node) -> Bool {
        guard node.block != Node.none else { return false }
        switch tree.content(of: node.inode) {
        case nil, .inline, .symbolicLink: return true
        default: return false
        }
    }

    /// Passes the content of a directory, a symbolic link or a file in line to `body`. Each part but the last fills whole blocks, once it is padded.
    private func forEachPart(of index: Int, _ body: ([UInt8]) throws -> Void) rethrows {
        switch tree.content(of: nodes[index].inode) {
        case nil: try forEachDirectoryBlock(index, body)
        case .inline(let bytes), .symbolicLink(let bytes): try body(bytes.bytes)
        default: break
        }
    }

    /// What is beside an inode: the last part of a block.
    private func tail(of index: Int) -> [UInt8] {
        let count = Int(nodes[index].size) % Erofs.blockSize
        var last: [UInt8] = []
        forEachPart(of: index) { last = $0 }
        return Array(last.suffix(count))
    }

    // MARK: Superblock and devices

    /// The blocks before the inodes.
    private func header() -> [UInt8] {
        var writer = ByteWriter(capacity: Int(metadataBlock) << Erofs.blockBits)
        var incompatible: UInt32 = hasHoles ? Erofs.incompatChunkedFile : 0
        var devices: [UInt32] = []
        var blocks = UInt64(blockCount)
        if case .space(let space, let form) = contents {
            switch form {
            case .devices:
                devices = space.images
                incompatible |= DeviceSlotLayout.incompatibleFeature
            case .oneDisk: blocks += space.blockCount
            }
        }
        writer.zeros(Erofs.superblockOffset)
        writer.u32(Erofs.magic)
        writer.u32(0)
        writer.u32(Erofs.compatChecksum)
        writer.u8(UInt8(Erofs.blockBits))
        writer.u8(0)
        writer.u16(0)
        writer.u64(UInt64(nodes.count))
        // All inodes have times of their own.
        writer.u64(0)
        writer.u32(0)
        writer.u32(UInt32(blocks))
        writer.u32(metadataBlock)
        writer.u32(attributes.sharedSize > 0 ? metadataBlock + UInt32(inodesEnd / Erofs.blockSize) : 0)
        writer.zeros(SuperblockLayout.incompatibleFeatures - SuperblockLayout.uuid)
        writer.u32(incompatible)
        writer.u16(0)
        writer.u16(UInt16(devices.count))
        writer.u16(devices.isEmpty ? 0 : UInt16(Erofs.firstInodeOffset / DeviceSlotLayout.size))
        writer.zeros(Erofs.firstInodeOffset - writer.count)
        var start = contentStart
        for device in devices {
            writer.zeros(DeviceSlotLayout.blocks)
            writer.u32(device)
            writer.u32(start)
            writer.zeros(DeviceSlotLayout.size - DeviceSlotLayout.blocks - 8)
            start += device
        }
        writer.zeros(Int(metadataBlock) << Erofs.blockBits - writer.count)
        let checksum = crc32c(~0, writer.bytes[Erofs.superblockOffset..<Erofs.blockSize])
        for (index, byte) in withUnsafeBytes(of: checksum.littleEndian, Array.init).enumerated() {
            writer.bytes[Erofs.superblockOffset + SuperblockLayout.checksum + index] = byte
        }
        return writer.bytes
    }

    // MARK: Inodes

    private func writeInode(_ index: Int, to writer: inout ByteWriter) {
        let node = nodes[index]
        let kind = tree.kind(of: node.inode)
        let modified = tree.modified(of: node.inode)
        let area = attributes.size(of: node.inode, in: tree)
        writer.u16(Erofs.formatExtended | node.layout.rawValue)
        writer.u16(area == 0 ? 0 : UInt16(1 + (area - AttributeHeaderLayout.size) / AttributeEntryLayout.alignment))
        writer.u16(kind.modeBits | tree.permissions(of: node.inode))
        writer.u16(0)
        writer.u64(node.size)
        writer.u32(value(of: node))
        writer.u32(node.slot)
        writer.u32(tree.uid(of: node.inode))
        writer.u32(tree.gid(of: node.inode))
        writer.i64(modified.seconds)
        writer.u32(modified.nanoseconds)
        writer.u32(kind == .directory ? 2 + node.subdirectories : tree.linkCount(of: node.inode))
        writer.zeros(ExtendedInodeLayout.reservedAtEnd.count)
        attributes.write(node.inode, in: tree, tableOffset: inodesEnd % Erofs.blockSize, to: &writer)
        switch node.layout {
        case .plain: break
        case .inline:
            writer.append(tail(of: index))
        case .chunked: writer.append(repeatElement(0xff, count: Int(Erofs.chunkTableSize(size: node.size))))
        }
    }

    /// The field that has the first block, the device number or the form of chunks.
    private func value(of node: Node) -> UInt32 {
        switch tree.content(of: node.inode) {
        case .characterDevice(let number), .blockDevice(let number): UInt32(number)
        case .fifo, .socket: 0
        case .sparse where node.layout == .chunked: UInt32(Erofs.chunkFormat(size: node.size))
        case _ where node.block == Node.none: Node.none
        case .external, .externalWithoutVerity: contentStart + node.block
        default: blocksStart + node.block
        }
    }

    // MARK: Directories

    /// Passes the blocks of a directory to `body`, without the zeros at their ends.
    private func forEachDirectoryBlock(_ index: Int, _ body: ([UInt8]) throws -> Void) rethrows {
        var listed: [ListedEntry] = []
        var size = 0
        func write() throws {
            var writer = ByteWriter(capacity: size)
            var nameOffset = listed.count * DirectoryEntryLayout.size
            for entry in listed {
                writer.u64(UInt64(slots[entry.inode.arenaIndex]))
                writer.u16(UInt16(nameOffset))
                writer.u8(tree.kind(of: entry.inode).rawValue)
                writer.u8(0)
                nameOffset += entry.nameLength(tree)
            }
            for entry in listed { entry.appendName(to: &writer, tree) }
            try body(writer.bytes)
        }
        try forEachListed(index) { entry in
            let needed = DirectoryEntryLayout.size + entry.nameLength(tree)
            if size + needed > Erofs.blockSize {
                try write()
                listed.removeAll(keepingCapacity: true)
                size = 0
            }
            listed.append(entry)
            size += needed
        }
        try write()
    }
}

/// A part of an image that is not written yet.
private struct MetadataPart {
    static let size = 1 << 18

    /// In bytes from the start of the image.
    private let start: UInt64
    /// The bytes that were written, from the start.
    private var written = 0
    var writer = ByteWriter()

    init(start: UInt64) { self.start = start }

    /// Appends zeros up to an offset from the start.
    mutating func pad(to offset: Int) {
        let count = offset - written - writer.count
        precondition(count >= 0, "metadata overlap")
        writer.zeros(count)
    }

    mutating func padBlock() { pad(to: Erofs.align(written + writer.count, to: Erofs.blockSize)) }

    mutating func flush(ifLargerThan limit: Int, _ write: (UnsafeRawBufferPointer, UInt64) throws -> Void) rethrows {
        guard writer.count > limit else { return }
        try writer.bytes.withUnsafeBytes { try write($0, start + UInt64(written)) }
        written += writer.count
        writer.bytes.removeAll(keepingCapacity: true)
    }
}
