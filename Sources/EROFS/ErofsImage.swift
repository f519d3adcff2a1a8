internal import ComposefsBytes
public import ComposefsFileTree
public import ComposefsHashing

/// A composefs EROFS image, which is checked completely when it is opened.
///
/// The initialiser visits every inode that the root reaches once. It checks that no two inodes overlap, that directories are sorted, that
/// names and types are valid, and that link counts are correct. Time and memory are linear in the image's size, whatever it contains. All
/// other functions only return what was checked. The caller checks the image's own identity, its fs-verity digest.
public struct ErofsImage: Sendable {
    public let version: ErofsVersion
    /// The number of inodes, including those that hide the object store's directories in versions 0 and 1.
    public let inodeCount: Int

    /// The size of the largest image in bytes. Larger ones are neither written nor read.
    public static let maximumSize = Erofs.maximumImageSize

    let bytes: [UInt8]
    let superblock: Superblock
    /// The objects that files refer to, with each size that a file has in the image; in ascending order.
    package let references: [Reference]
    /// Whether `tree` can return the tree.
    package let hasTree: Bool
    private let metadataFault: ErofsError?

    package struct Reference: Equatable, Sendable {
        package var id: ObjectID
        /// Bytes; nil if the image does not state the object's digest, so that a mount does not verify it.
        package var size: UInt64?
    }

    /// Whether a file that begins with these four bytes may be a composefs image.
    package static func isImage(beginningWith bytes: [UInt8]) -> Bool {
        bytes == (0..<4).map { UInt8(truncatingIfNeeded: Erofs.headerMagic >> (8 * $0)) }
    }

    /// Checks `bytes` completely. If `algorithm` is given, all objects must be named by digests of that algorithm.
    public init(_ bytes: [UInt8], algorithm: VerityAlgorithm? = nil) throws(ErofsError) {
        let superblock = try Superblock(bytes)
        var inspection = ImageInspection(superblock: superblock)
        let (count, depth) = try bytes.withUnsafeBufferPointer { (buffer) throws(ErofsError) -> (Int, Int) in
            let source = ImageSource(bytes: UnsafeRawBufferPointer(buffer), superblock: superblock, algorithm: algorithm)
            var walk = ImageWalk<ImageInspection>(source)
            return (try walk.run(&inspection), walk.depth)
        }
        guard superblock.inodeCount == UInt64(count) else {
            throw .notComposefs(
                offset: UInt64(Superblock.inodeCountOffset), "the superblock counts \(superblock.inodeCount) inodes, the tree has \(count)")
        }
        self.bytes = bytes
        self.superblock = superblock
        version = superblock.version
        inodeCount = count
        references = inspection.sortedReferences()
        hasTree = depth <= Erofs.maximumDepth && inspection.attributeBytes <= Erofs.attributeLimit(imageSize: bytes.count)
        metadataFault = inspection.finding(root: superblock.rootNumber)
    }

    /// The objects that the image's files refer to, each once, in ascending order.
    public func objectReferences() -> [ObjectID] {
        var ids: [ObjectID] = []
        ids.reserveCapacity(references.count)
        for reference in references where reference.id != ids.last { ids.append(reference.id) }
        return ids
    }

    /// Throws the first violation of a rule of the image's version that does not affect readability.
    ///
    /// Versions 0 and 1: no symlink target crosses a block boundary (kernels before 6.12 refuse it), the root has all 256 names `00`…`ff`,
    /// whiteouts below the root are escaped, and the header says whether there are ACLs. Version 2: no whiteout is escaped.
    public func checkMetadata() throws(ErofsError) {
        if let metadataFault { throw metadataFault }
    }

    /// The tree that the image was made from, without the whiteouts that hide object directories, and with whiteouts and attributes
    /// unescaped. `writeErofs` of this tree gives the same bytes (in version 2 without nanoseconds).
    ///
    /// - Throws: `ErofsError` only for trees beyond any practical use: nested deeper than 2048 directories, or with attributes of more than
    ///   256 MiB and more than 16 times the image's size.
    public func tree() throws(ErofsError) -> FileTree {
        var builder = ImageTreeBuilder(version: version, imageSize: bytes.count)
        try bytes.withUnsafeBufferPointer { (buffer) throws(ErofsError) in
            let source = ImageSource(bytes: UnsafeRawBufferPointer(buffer), superblock: superblock, algorithm: nil)
            var walk = ImageWalk<ImageTreeBuilder>(source, maximumDepth: Erofs.maximumDepth)
            _ = try walk.run(&builder)
        }
        return builder.tree
    }
}

/// The composefs header and the EROFS superblock of an image.
struct Superblock: Sendable {
    static let inodeCountOffset = Erofs.superblockOffset + SuperblockLayout.inodeCount

    let version: ErofsVersion
    let hasACL: Bool
    let rootNumber: UInt64
    let inodeCount: UInt64
    /// The modification time of compact inodes.
    let buildTime: Timestamp
    /// The offset from which shared attributes are counted, in bytes.
    let sharedBase: Int
    /// Whether inodes have a filter of attribute names.
    let hasFilter: Bool

    init(_ bytes: [UInt8]) throws(ErofsError) {
        self = try bytes.withUnsafeBufferPointer { (buffer) throws(ErofsError) in try Superblock(UnsafeRawBufferPointer(buffer)) }
    }

    private init(_ bytes: UnsafeRawBufferPointer) throws(ErofsError) {
        guard bytes.count >= Erofs.blockSize, bytes.count % Erofs.blockSize == 0 else {
            throw .notComposefs(offset: 0, "\(bytes.count) bytes are not one or more blocks of 4096")
        }
        guard bytes.count <= Erofs.maximumImageSize else {
            throw .notComposefs(offset: 0, "\(bytes.count) bytes are more than the limit of \(Erofs.maximumImageSize)")
        }
        // All fields below are in the first block.
        func load<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _: Value.Type) -> Value {
            Value(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Value.self))
        }
        func expect<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ value: Value, _ what: String) throws(ErofsError) {
            let found = load(offset, Value.self)
            guard found == value else {
                throw .notComposefs(offset: UInt64(offset), "\(what) is 0x\(String(found, radix: 16)), not 0x\(String(value, radix: 16))")
            }
        }
        func expectZero(_ range: Range<Int>, _ what: String) throws(ErofsError) {
            for offset in range where bytes[offset] != 0 { throw .notComposefs(offset: UInt64(offset), "\(what) is not zero") }
        }

        try expect(ComposefsHeaderLayout.magic, Erofs.headerMagic, "the composefs magic number")
        try expect(ComposefsHeaderLayout.version, Erofs.headerVersion, "the header's version")
        let flags = load(ComposefsHeaderLayout.flags, UInt32.self)
        let number = load(ComposefsHeaderLayout.formatVersion, UInt32.self)
        guard let version = ErofsVersion(rawValue: number) else {
            throw .notComposefs(offset: UInt64(ComposefsHeaderLayout.formatVersion), "format version \(number) is unknown")
        }
        guard flags & ~Erofs.headerHasACL == 0, version.isFirstEpoch || flags == 0 else {
            throw .notComposefs(offset: UInt64(ComposefsHeaderLayout.flags), "the header has unknown flags 0x\(String(flags, radix: 16))")
        }
        try expectZero(ComposefsHeaderLayout.unused..<Erofs.superblockOffset, "the header's unused part")

        let at = Erofs.superblockOffset
        try expect(at + SuperblockLayout.magic, Erofs.magic, "the EROFS magic number")
        let compatible = load(at + SuperblockLayout.compatibleFeatures, UInt32.self)
        guard compatible & ~(Erofs.compatChecksum | Erofs.compatModified | Erofs.compatAttributeFilter) == 0 else {
            throw .notComposefs(
                offset: UInt64(at + SuperblockLayout.compatibleFeatures), "unknown compatible features 0x\(String(compatible, radix: 16))")
        }
        try expect(at + SuperblockLayout.blockBits, UInt8(Erofs.blockBits), "the block size's logarithm")
        try expect(at + SuperblockLayout.extraSlots, 0 as UInt8, "the number of extra superblock slots")
        try expect(at + SuperblockLayout.blockCount, UInt32(bytes.count / Erofs.blockSize), "the number of blocks")
        try expect(at + SuperblockLayout.metadataBlock, 0 as UInt32, "the metadata's block address")
        let incompatible = load(at + SuperblockLayout.incompatibleFeatures, UInt32.self)
        guard incompatible & ~Erofs.incompatChunkedFile == 0 else {
            throw .notComposefs(
                offset: UInt64(at + SuperblockLayout.incompatibleFeatures),
                "unknown incompatible features 0x\(String(incompatible, radix: 16))")
        }
        try expectZero((at + SuperblockLayout.unused)..<(at + SuperblockLayout.size), "a superblock field that composefs does not use")
        let seconds = load(at + SuperblockLayout.buildSeconds, Int64.self)
        let nanoseconds = load(at + SuperblockLayout.buildNanoseconds, UInt32.self)
        guard nanoseconds < 1_000_000_000 else {
            throw .notComposefs(offset: UInt64(at + SuperblockLayout.buildNanoseconds), "the build time has \(nanoseconds) nanoseconds")
        }
        let attributeBlock = load(at + SuperblockLayout.attributeBlock, UInt32.self)
        guard Int(attributeBlock) * Erofs.blockSize < bytes.count || attributeBlock == 0 else {
            throw .notComposefs(
                offset: UInt64(at + SuperblockLayout.attributeBlock),
                "shared attributes begin at block \(attributeBlock), after the image's end")
        }
        self.version = version
        hasACL = flags & Erofs.headerHasACL != 0
        rootNumber = UInt64(load(at + SuperblockLayout.rootNumber, UInt16.self))
        inodeCount = load(Self.inodeCountOffset, UInt64.self)
        buildTime = Timestamp(seconds: seconds, nanoseconds: nanoseconds)
        sharedBase = Int(attributeBlock) * Erofs.blockSize
        hasFilter = compatible & Erofs.compatAttributeFilter != 0
    }
}

extension ErofsVersion {
    /// The version that the first block of an image states; nil if it is not the first block of a composefs image. The rest is not checked.
    package init?(firstBlock: [UInt8]) {
        guard firstBlock.count >= ComposefsHeaderLayout.size else { return nil }
        func load(_ offset: Int) -> UInt32 {
            firstBlock.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
        }
        guard load(ComposefsHeaderLayout.magic) == Erofs.headerMagic, load(ComposefsHeaderLayout.version) == Erofs.headerVersion else {
            return nil
        }
        self.init(rawValue: load(ComposefsHeaderLayout.formatVersion))
    }
}
