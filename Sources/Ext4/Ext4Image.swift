public import ComposefsBytes
public import ComposefsFileTree
internal import ComposefsHashing

/// An ext4 file system in a file that is not mounted.
///
/// It must have 4096-byte blocks, 256-byte inodes, extents and checksums of its metadata, which are verified whenever a block is read. A file system
/// that was not unmounted is refused. Functions throw `Ext4Error`, or what the source throws.
public struct Ext4Image<Source: RandomAccessBytes> {
    let source: Source
    let superblock: Superblock
    let verifiesChecksums: Bool

    public var uuid: Ext4UUID { superblock.uuid }
    /// The size of the file system in bytes.
    public var byteCount: UInt64 { superblock.blocks << Ext4Format.blockBits }

    /// Checks the superblock: `.notExt4`, `.unsupported`, `.notClean` or `.damaged` is thrown.
    public init(_ source: Source) throws { try self.init(source, verifiesChecksums: true) }

    /// For fuzzers, which cannot make checksums.
    package init(_ source: Source, verifiesChecksums: Bool) throws {
        self.source = source
        self.verifiesChecksums = verifiesChecksums
        superblock = try Superblock(source, verifiesChecksums: verifiesChecksums)
    }

    // MARK: Blocks

    func bytes(at offset: UInt64, count: Int, inode: UInt32) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let length = try bytes.withUnsafeMutableBytes { try source.read(at: offset, into: $0) }
        guard length == count else {
            throw Ext4Error.damaged(inode: inode, offset: offset, "the file ends after \(length) of \(count) bytes")
        }
        return bytes
    }

    func block(_ number: UInt64, inode: UInt32) throws -> [UInt8] {
        guard number > 0, number < superblock.blocks else {
            throw Ext4Error.damaged(inode: inode, offset: 0, "block \(number) is outside of the file system")
        }
        return try bytes(at: number << Ext4Format.blockBits, count: Ext4Format.blockSize, inode: inode)
    }

    func checkSum(_ found: UInt32, _ computed: @autoclosure () -> UInt32, inode: UInt32, block: UInt64, _ what: String) throws {
        guard !verifiesChecksums || found == computed() else {
            throw Ext4Error.damaged(inode: inode, offset: block << Ext4Format.blockBits, "the checksum of \(what) is wrong")
        }
    }

    func descriptor(_ group: Int) throws -> GroupDescriptor {
        let offset = UInt64(Ext4Format.blockSize + group * DescriptorLayout.size)
        let bytes = try bytes(at: offset, count: DescriptorLayout.size, inode: 0)
        let sum = UInt32(bytes.load(UInt16.self, at: DescriptorLayout.checksum))
        let computed = UInt32(superblock.checksums.descriptor(bytes[...], group: group))
        guard !verifiesChecksums || sum == computed else {
            throw Ext4Error.damaged(inode: 0, offset: offset, "the checksum of group \(group)'s descriptor is wrong")
        }
        return GroupDescriptor(bytes[...])
    }

    // MARK: Inodes

    /// The offset of an inode, in bytes.
    func offset(ofInode number: UInt32) throws -> UInt64 {
        guard number > 0, number <= superblock.inodes else {
            throw Ext4Error.damaged(inode: number, offset: 0, "there are \(superblock.inodes) inodes")
        }
        let (group, index) = (Int(number - 1) / superblock.inodesPerGroup, Int(number - 1) % superblock.inodesPerGroup)
        let table = try descriptor(group).inodeTable
        guard table > 0, table < superblock.blocks, superblock.blocks - table >= UInt64(superblock.geometry.inodeTableBlocks) else {
            throw Ext4Error.damaged(inode: number, offset: 0, "the inode table at block \(table) is outside of the file system")
        }
        return table << Ext4Format.blockBits + UInt64(index * Ext4Format.inodeSize)
    }

    /// Reads an inode that is in use.
    public func inode(_ number: UInt32) throws -> Ext4Inode {
        let offset = try offset(ofInode: number)
        let bytes = try bytes(at: offset, count: Ext4Format.inodeSize, inode: number)
        func damaged(_ what: String) -> Ext4Error { .damaged(inode: number, offset: offset, what) }
        let extra = bytes.load(UInt16.self, at: InodeLayout.extraSize)
        guard extra % 4 == 0, extra >= 4, Int(extra) <= Ext4Format.inodeSize - InodeLayout.baseSize else {
            throw damaged("its extra fields have \(extra) bytes")
        }
        let sum =
            UInt32(bytes.load(UInt16.self, at: InodeLayout.checksumLow)) | UInt32(bytes.load(UInt16.self, at: InodeLayout.checksumHigh))
            << 16
        let computed = bytes.withUnsafeBytes { superblock.checksums.inode($0, number: number) }
        try checkSum(sum, computed, inode: number, block: offset >> Ext4Format.blockBits, "the inode")
        guard let inode = Ext4Inode(number, bytes, extraSize: Int(extra)) else {
            throw damaged("its mode, time or link count is not valid")
        }
        let unsupported =
            Ext4Format.flagInlineData | Ext4Format.flagEncrypted | Ext4Format.flagCasefold | Ext4Format.flagVerity | Ext4Format.flagHugeFile
        guard inode.flags & unsupported == 0 else {
            throw Ext4Error.unsupported("inode \(number) has flags 0x\(String(inode.flags & unsupported, radix: 16))")
        }
        return inode
    }

    public func root() throws -> Ext4Inode { try inode(Ext4Format.rootInode) }

    /// The target of a symbolic link.
    public func target(of link: Ext4Inode) throws -> ByteString {
        guard link.kind == .symbolicLink, link.size > 0, link.size <= UInt64(Ext4Format.maximumTargetLength) else {
            throw Ext4Error.damaged(inode: link.number, offset: 0, "it is no symbolic link, or its target has \(link.size) bytes")
        }
        if link.size < UInt64(Ext4Format.blockMapSize), link.flags & Ext4Format.flagExtents == 0 {
            return ByteString(Array(link.blockMap.prefix(Int(link.size))))
        }
        return ByteString(try content(of: link, limit: Ext4Format.maximumTargetLength))
    }

    // MARK: Contents

    /// Reads the content of a file.
    /// - Parameter limit: A larger file is an error (`.unsupported`).
    public func content(of inode: Ext4Inode, limit: Int) throws -> [UInt8] {
        guard inode.size <= UInt64(limit) else { throw Ext4Error.unsupported("inode \(inode.number) has \(inode.size) bytes") }
        var bytes = [UInt8](repeating: 0, count: Int(inode.size))
        for extent in try extents(of: inode) where extent.isWritten {
            let first = UInt64(extent.logical) << Ext4Format.blockBits
            guard first < inode.size else { continue }
            let count = Int(min(UInt64(extent.count) << Ext4Format.blockBits, inode.size - first))
            let length = try bytes.withUnsafeMutableBytes { buffer in
                try source.read(
                    at: extent.start << Ext4Format.blockBits,
                    into: UnsafeMutableRawBufferPointer(rebasing: buffer[Int(first)..<(Int(first) + count)]))
            }
            guard length == count else {
                throw Ext4Error.damaged(inode: inode.number, offset: extent.start << Ext4Format.blockBits, "the file ends in its content")
            }
        }
        return bytes
    }

    /// The extents of a file, directory or symbolic link, in ascending order. Ranges that none has are holes.
    public func extents(of inode: Ext4Inode) throws -> [Ext4Extent] {
        guard inode.flags & Ext4Format.flagExtents != 0 else { return try mappedBlocks(of: inode) }
        var found: [Ext4Extent] = []
        let seed = superblock.checksums.inodeSeed(inode.number, generation: inode.generation)
        // Each entry is a node that is still to be read: its block, its depth, and the range of logical blocks for which it is responsible.
        var pending: [(block: UInt64, depth: UInt16, range: Range<UInt64>)] = []
        func read(_ node: [UInt8], depth: UInt16?, room: Int, range: Range<UInt64>, block: UInt64) throws {
            func damaged(_ what: String) -> Ext4Error { .damaged(inode: inode.number, offset: block << Ext4Format.blockBits, what) }
            let count = Int(node.load(UInt16.self, at: ExtentLayout.entries))
            let maximum = Int(node.load(UInt16.self, at: ExtentLayout.maximum))
            let own = node.load(UInt16.self, at: ExtentLayout.depth)
            guard node.load(UInt16.self, at: ExtentLayout.magic) == Ext4Format.extentMagic, maximum <= room, count <= maximum,
                own == depth ?? min(own, Ext4Format.maximumExtentDepth), depth == nil && own == 0 || count > 0
            else { throw damaged("a node of its extents has a wrong header") }
            var children: [(block: UInt64, depth: UInt16, range: Range<UInt64>)] = []
            var at = range.lowerBound
            for index in 0..<count {
                let entry = ExtentLayout.headerSize + index * ExtentLayout.entrySize
                let logical = UInt64(node.load(UInt32.self, at: entry + ExtentLayout.logical))
                guard logical >= at, logical < range.upperBound else { throw damaged("its extents are not in order") }
                if own > 0 {
                    let child =
                        UInt64(node.load(UInt32.self, at: entry + ExtentLayout.childLow))
                        | UInt64(node.load(UInt16.self, at: entry + ExtentLayout.childHigh)) << 32
                    if let last = children.last { children[children.count - 1].range = last.range.lowerBound..<logical }
                    children.append((child, own - 1, logical..<range.upperBound))
                    at = logical + 1
                    continue
                }
                let length = node.load(UInt16.self, at: entry + ExtentLayout.length)
                let isWritten = length <= UInt16(Ext4Format.maximumExtentLength)
                let blocks = UInt64(isWritten ? length : length - UInt16(Ext4Format.maximumExtentLength))
                let start =
                    UInt64(node.load(UInt32.self, at: entry + ExtentLayout.startLow))
                    | UInt64(node.load(UInt16.self, at: entry + ExtentLayout.startHigh)) << 32
                guard blocks > 0, blocks <= range.upperBound - logical, start > 0, start < superblock.blocks,
                    blocks <= superblock.blocks - start
                else { throw damaged("an extent of \(blocks) blocks at \(start) is outside of the file system") }
                found.append(Ext4Extent(logical: UInt32(logical), count: UInt32(blocks), start: start, isWritten: isWritten))
                at = logical + blocks
            }
            pending += children.reversed()
        }
        try read(inode.blockMap, depth: nil, room: Ext4Format.extentsInInode, range: 0..<(1 << 32), block: 0)
        while let next = pending.popLast() {
            let bytes = try block(next.block, inode: inode.number)
            let sum = bytes.load(UInt32.self, at: ExtentLayout.checksum)
            try checkSum(sum, crc32c(seed, bytes[..<ExtentLayout.checksum]), inode: inode.number, block: next.block, "its extents")
            try read(bytes, depth: next.depth, room: Ext4Format.extentsInBlock, range: next.range, block: next.block)
        }
        return found
    }
}

/// Consecutive blocks of a file that are consecutive in the image.
public struct Ext4Extent: Hashable, Sendable {
    /// The first block of the file.
    public var logical: UInt32
    /// The number of blocks of 4,096 bytes.
    public var count: UInt32
    /// The first block of the image.
    public var start: UInt64
    /// Blocks that are allocated but not written read as zeros.
    public var isWritten: Bool
}

/// An inode of an image.
public struct Ext4Inode: Hashable, Sendable {
    public let number: UInt32
    public let kind: FileTree.Kind
    /// The twelve permission bits.
    public let permissions: UInt16
    public let uid: UInt32
    public let gid: UInt32
    public let links: UInt16
    /// In bytes.
    public let size: UInt64
    public let modified: Timestamp
    /// As in `st_rev`, of a device; otherwise 0.
    public let deviceNumber: UInt64
    let flags: UInt32
    let generation: UInt32
    let attributeBlock: UInt64
    let blockMap: [UInt8]
    /// The bytes after the extra fields.
    let attributes: [UInt8]
    /// For the value of an extended attribute: its hash.
    let valueHash: UInt32

    /// Nil if the inode is not in use, or if its type or time is not valid.
    init?(_ number: UInt32, _ bytes: [UInt8], extraSize: Int) {
        let mode = bytes.load(UInt16.self, at: InodeLayout.mode)
        links = bytes.load(UInt16.self, at: InodeLayout.links)
        let hasTimes = extraSize >= 16
        guard let kind = FileTree.Kind(modeBits: UInt32(mode)), links > 0,
            let modified = InodeTime.decode(
                bytes.load(UInt32.self, at: InodeLayout.modified), hasTimes ? bytes.load(UInt32.self, at: InodeLayout.modifiedExtra) : 0)
        else { return nil }
        self.number = number
        self.kind = kind
        self.modified = modified
        permissions = mode & 0o7777
        uid = UInt32(bytes.load(UInt16.self, at: InodeLayout.uidLow)) | UInt32(bytes.load(UInt16.self, at: InodeLayout.uidHigh)) << 16
        gid = UInt32(bytes.load(UInt16.self, at: InodeLayout.gidLow)) | UInt32(bytes.load(UInt16.self, at: InodeLayout.gidHigh)) << 16
        size = UInt64(bytes.load(UInt32.self, at: InodeLayout.sizeLow)) | UInt64(bytes.load(UInt32.self, at: InodeLayout.sizeHigh)) << 32
        flags = bytes.load(UInt32.self, at: InodeLayout.flags)
        generation = bytes.load(UInt32.self, at: InodeLayout.generation)
        attributeBlock =
            UInt64(bytes.load(UInt32.self, at: InodeLayout.attributeBlockLow))
            | UInt64(bytes.load(UInt16.self, at: InodeLayout.attributeBlockHigh)) << 32
        blockMap = Array(bytes[InodeLayout.blockMap..<(InodeLayout.blockMap + Ext4Format.blockMapSize)])
        attributes = Array(bytes[(InodeLayout.baseSize + extraSize)...])
        valueHash = bytes.load(UInt32.self, at: InodeLayout.accessed)
        guard kind == .blockDevice || kind == .characterDevice else {
            deviceNumber = 0
            return
        }
        let old = blockMap.load(UInt32.self, at: 0)
        let new = blockMap.load(UInt32.self, at: 4)
        deviceNumber =
            old != 0
            ? Content.deviceNumber(major: old >> 8 & 0xff, minor: old & 0xff)
            : Content.deviceNumber(major: new >> 8 & 0xfff, minor: new & 0xff | new >> 12 & 0xfff00)
    }
}
