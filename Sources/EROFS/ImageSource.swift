internal import ComposefsBytes
internal import ComposefsFileTree
internal import ComposefsHashing

/// An error in a part of an image. The walk adds the position.
struct Fault: Error {
    let what: String
    init(_ what: String) { self.what = what }
}

/// The bytes of an untrusted image. Every read is checked against the end of the image.
struct ImageSource {
    let bytes: UnsafeRawBufferPointer
    let superblock: Superblock
    /// The only accepted digest algorithm, or nil for any.
    let algorithm: VerityAlgorithm?

    @inline(__always)
    func load<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as _: Value.Type) throws(Fault) -> Value {
        guard offset >= 0, offset <= bytes.count - MemoryLayout<Value>.size else { throw Fault("it reaches beyond the image's end") }
        return Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
    }

    @inline(__always)
    func slice(_ range: Range<Int>) throws(Fault) -> UnsafeRawBufferPointer {
        guard range.lowerBound >= 0, range.upperBound <= bytes.count else { throw Fault("it reaches beyond the image's end") }
        return UnsafeRawBufferPointer(rebasing: bytes[range])
    }

    private func expectZero(_ field: Range<Int>, of inode: Int) throws(Fault) {
        try expectZero((inode + field.lowerBound)..<(inode + field.upperBound), "a reserved field")
    }

    func expectZero(_ range: Range<Int>, _ what: String) throws(Fault) {
        for byte in try slice(range) where byte != 0 { throw Fault("\(what) is not zero") }
    }
}

/// An inode as stored in the image.
struct ImageInode {
    var nid: UInt64
    var kind: FileTree.Kind
    var permissions: UInt16
    var uid: UInt32
    var gid: UInt32
    var modified: Timestamp
    var links: UInt32
    var size: UInt64
    var layout: Erofs.Layout
    var value: UInt32
    var offset: Int
    var headerSize: Int
    /// The range of the attributes in the image.
    var attributes: Range<Int>
    /// The range of the bytes after the attributes. For chunked files it is set once the attributes are known.
    var tail: Range<Int>
    /// The range of the data blocks in the image.
    var blocks: Range<Int>

    /// The end of the last slot that the inode occupies.
    var slotsEnd: Int { Erofs.align(tail.upperBound, to: Erofs.slotSize) }
}

extension ImageSource {
    func inode(_ nid: UInt64) throws(Fault) -> ImageInode {
        // Check the number before it is multiplied.
        guard let slot = Int(exactly: nid), slot < bytes.count / Erofs.slotSize else { throw Fault("it lies beyond the image's end") }
        let at = slot * Erofs.slotSize
        // These five fields have the same offsets in compact and extended inodes.
        let format = try load(at + CompactInodeLayout.format, as: UInt16.self)
        guard let layout = Erofs.Layout(rawValue: format & ~Erofs.formatExtended) else {
            throw Fault("the data layout of format 0x\(String(format, radix: 16)) is not used by composefs")
        }
        let attributeCount = Int(try load(at + CompactInodeLayout.attributeCount, as: UInt16.self))
        let mode = try load(at + CompactInodeLayout.mode, as: UInt16.self)
        guard let kind = FileTree.Kind(modeBits: UInt32(mode)) else {
            throw Fault("mode 0\(String(mode, radix: 8)) is not a valid file type")
        }
        var it = ImageInode(
            nid: nid, kind: kind, permissions: mode & 0o7777, uid: 0, gid: 0, modified: superblock.buildTime, links: 0, size: 0,
            layout: layout, value: try load(at + CompactInodeLayout.value, as: UInt32.self), offset: at,
            headerSize: CompactInodeLayout.size, attributes: at..<at,
            tail: at..<at, blocks: at..<at)
        if format & Erofs.formatExtended != 0 {
            it.headerSize = ExtendedInodeLayout.size
            it.size = try load(at + ExtendedInodeLayout.fileSize, as: UInt64.self)
            it.uid = try load(at + ExtendedInodeLayout.uid, as: UInt32.self)
            it.gid = try load(at + ExtendedInodeLayout.gid, as: UInt32.self)
            it.modified = Timestamp(
                seconds: try load(at + ExtendedInodeLayout.seconds, as: Int64.self),
                nanoseconds: try load(at + ExtendedInodeLayout.nanoseconds, as: UInt32.self))
            it.links = try load(at + ExtendedInodeLayout.links, as: UInt32.self)
            try expectZero(ExtendedInodeLayout.reserved, of: at)
            try expectZero(ExtendedInodeLayout.reservedAtEnd, of: at)
        } else {
            it.size = UInt64(try load(at + CompactInodeLayout.fileSize, as: UInt32.self))
            it.uid = UInt32(try load(at + CompactInodeLayout.uid, as: UInt16.self))
            it.gid = UInt32(try load(at + CompactInodeLayout.gid, as: UInt16.self))
            it.links = UInt32(try load(at + CompactInodeLayout.links, as: UInt16.self))
            try expectZero(CompactInodeLayout.reserved, of: at)
            try expectZero(CompactInodeLayout.reservedAtEnd, of: at)
        }
        guard it.modified.nanoseconds < 1_000_000_000 else { throw Fault("its time has \(it.modified.nanoseconds) nanoseconds") }
        guard it.links > 0 else { throw Fault("its link count is 0") }
        let attributesAt = at + it.headerSize
        let attributesEnd =
            attributeCount == 0
            ? attributesAt : attributesAt + AttributeHeaderLayout.size + AttributeEntryLayout.alignment * (attributeCount - 1)
        guard attributesEnd <= bytes.count else { throw Fault("its attributes reach beyond the image's end") }
        it.attributes = attributesAt..<attributesEnd
        it.tail = attributesEnd..<attributesEnd
        try placeData(&it)
        return it
    }

    private func placeData(_ it: inout ImageInode) throws(Fault) {
        switch it.kind {
        case .characterDevice, .blockDevice, .fifo, .socket:
            guard it.layout == .plain, it.size == 0 else { throw Fault("a special file cannot have data") }
            guard it.value == 0 || it.kind == .characterDevice || it.kind == .blockDevice else {
                throw Fault("only devices have a device number")
            }
            return
        case .regular where it.layout == .chunked: return
        case .directory, .symbolicLink, .regular:
            guard it.layout != .chunked else { throw Fault("only regular files can be stored in chunks") }
        }
        guard let size = Int(exactly: it.size), size <= bytes.count else {
            throw Fault("its size of \(it.size) bytes is more than the image's")
        }
        if it.kind == .symbolicLink, size > superblock.version.maximumTargetLength {
            let limit = superblock.version.maximumTargetLength
            throw Fault("its target has \(size) bytes, the limit is \(limit)")
        }
        if it.kind == .directory, it.layout == .plain, size % Erofs.blockSize != 0 { throw Fault("a directory block is truncated") }
        let inTail = it.layout == .inline ? size % Erofs.blockSize : 0
        let inBlocks = size - inTail
        if inBlocks > 0 {
            // A 32-bit address times 4096 fits in 64 bits.
            let start = Int(it.value) * Erofs.blockSize
            let end = start + Erofs.align(inBlocks, to: Erofs.blockSize)
            guard end <= bytes.count else { throw Fault("its data blocks reach beyond the image's end") }
            it.blocks = start..<end
        }
        it.tail = it.attributes.upperBound..<(it.attributes.upperBound + inTail)
        guard it.tail.upperBound <= bytes.count else { throw Fault("its data reach beyond the image's end") }
    }

    /// Checks the chunk table of a file whose content is not in the image: it must contain only null addresses.
    func placeChunks(_ it: inout ImageInode, isExternal: Bool) throws(Fault) {
        let start = it.attributes.upperBound
        var size: UInt64
        if superblock.version.isFirstEpoch {
            guard it.value & 0xffff == UInt32(Erofs.chunkFormat(size: it.size)) else {
                throw Fault("chunk format 0x\(String(it.value, radix: 16)) does not match a size of \(it.size) bytes")
            }
            size = Erofs.chunkTableSize(size: it.size)
            // A larger table is in a block of its own.
            if size + UInt64(it.attributes.count % Erofs.slotSize) > UInt64(Erofs.blockSize) { size = 0 }
        } else {
            guard it.value == Erofs.widestChunk else {
                throw Fault("chunk format 0x\(String(it.value, radix: 16)) is not valid in version 2")
            }
            size = isExternal ? UInt64(ChunkTableLayout.entrySize) : 0
        }
        it.tail = start..<(start + Int(truncatingIfNeeded: size))
        for byte in try slice(it.tail) where byte != 0xff { throw Fault("a chunk has its data in the image") }
    }

    /// All data of an inode that are in the image.
    func data(of it: ImageInode) throws(Fault) -> ByteString {
        var data: [UInt8] = []
        // At most the size of the image, which was checked when the inode was read.
        data.reserveCapacity(it.blocks.count + it.tail.count)
        let inBlocks = Int(truncatingIfNeeded: it.size) - it.tail.count
        data.append(contentsOf: try slice(it.blocks.lowerBound..<(it.blocks.lowerBound + inBlocks)))
        data.append(contentsOf: try slice(it.tail))
        return ByteString(data)
    }
}
