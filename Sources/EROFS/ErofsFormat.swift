internal import ComposefsBytes

/// The version of the composefs image format, as in the image's first header.
///
/// Versions 0 and 1 share a layout that every kernel with EROFS and overlayfs can mount (`mkcomposefs` writes it): inodes in breadth-first
/// order, compact if possible, with whiteouts that hide the 256 names `00`…`ff`, and with escaped whiteouts of the tree. Version 2 has
/// inodes in depth-first order, does not escape whiteouts and drops nanoseconds.
public enum ErofsVersion: UInt32, CaseIterable, Sendable, Codable {
    case v0 = 0
    case v1
    case v2

    /// `v0`, `v1` or `v2`: how a dictionary with versions as its keys is coded.
    private var name: String { "v\(rawValue)" }

    /// Whether this version has the layout of versions 0 and 1.
    var isFirstEpoch: Bool { self != .v2 }

    /// The longest symlink target in bytes. In versions 0 and 1 it is PATH_MAX without the NUL. In version 2, a longer target could be
    /// placed so that kernels refuse it, and readers of that version refuse it always.
    var maximumTargetLength: Int { isFirstEpoch ? 4095 : 1024 }
}

extension ErofsVersion: CodingKeyRepresentable {
    private struct Key: CodingKey {
        var stringValue: String
        var intValue: Int? { nil }

        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    public var codingKey: any CodingKey { Key(stringValue: name) }

    public init?(codingKey: some CodingKey) {
        guard let version = Self.allCases.first(where: { $0.name == codingKey.stringValue }) else { return nil }
        self = version
    }
}

/// Constants of the on-disk format: composefs's header, and the part of EROFS that it uses (linux/fs/erofs/erofs_fs.h).
enum Erofs {
    static let blockSize = 4096
    static let blockBits = 12
    /// Inodes are placed at multiples of this size. An inode's number is its offset divided by it.
    static let slotSize = 32

    static let headerMagic: UInt32 = 0xd078_629a
    static let headerVersion: UInt32 = 1
    /// The header flag that says that an inode has a POSIX ACL.
    static let headerHasACL: UInt32 = 1

    static let superblockOffset = 1024
    static let magic: UInt32 = 0xe0f5_e1e2
    static let compatChecksum: UInt32 = 1
    static let compatModified: UInt32 = 2
    static let compatAttributeFilter: UInt32 = 4
    static let incompatChunkedFile: UInt32 = 4
    static let firstInodeOffset = superblockOffset + SuperblockLayout.size

    static let formatExtended: UInt16 = 1
    /// The chunk format of files in version 2: chunks of 4 KiB << 31, so that a file of any size has one chunk.
    static let widestChunk: UInt32 = 31
    static let maximumChunkBits = 43

    /// The inode's count has 16 bits and stands for one unit of the header and one for every further four bytes.
    static let maximumAttributeSize = AttributeHeaderLayout.size + 65534 * AttributeEntryLayout.alignment
    static let filterSeed: UInt32 = 0x25bb_e08f

    static let maximumNameLength = 255
    /// The largest image that readers accept. Larger ones are not written.
    static let maximumImageSize = 1 << 30
    static let maximumDepth = 2048
    /// The largest size of all extended attributes of a tree together, in bytes. Shared attributes can be long, and every inode can have all of them.
    static func attributeLimit(imageSize: Int) -> Int { (1 << 28) + 16 * imageSize }

    /// The layout of an inode's data (`EROFS_INODE_*`), as bits of the format field.
    enum Layout: UInt16, BitwiseCopyable {
        case plain = 0
        case inline = 4
        case chunked = 8
    }

    /// Prefixes of attribute names, which the image stores as an index.
    static let attributePrefixes: [[UInt8]] = [
        [], Array("user.".utf8), Array("system.posix_acl_access".utf8), Array("system.posix_acl_default".utf8), Array("trusted.".utf8),
        Array("lustre.".utf8), Array("security.".utf8),
    ]
    static let lustrePrefix: UInt8 = 5
    static let trustedPrefix: UInt8 = 4

    /// The log2 of a file's chunk size in units of 4 KiB: the smallest size that holds the file in one chunk, at most 2^43 bytes.
    static func chunkFormat(size: UInt64) -> Int {
        let bits = size > 1 ? UInt64.bitWidth - (size - 1).leadingZeroBitCount : 1
        return min(max(bits, blockBits), maximumChunkBits) - blockBits
    }

    /// The size of a file's chunk table in bytes: one null address per chunk.
    static func chunkTableSize(size: UInt64) -> UInt64 {
        let bits = UInt64(chunkFormat(size: size) + blockBits)
        return UInt64(ChunkTableLayout.entrySize) * ((size >> bits) + (size & ((1 << bits) - 1) == 0 ? 0 : 1))
    }

    /// Whether `name` is two lower-case hexadecimal digits, like the directories of an object store.
    static func isObjectDirectory(_ name: UnsafeRawBufferPointer) -> Bool {
        name.count == 2 && Hex.value(of: name[0]) != nil && Hex.value(of: name[1]) != nil
    }

    @inline(__always)
    static func align(_ value: Int, to alignment: Int) -> Int { (value + alignment - 1) & ~(alignment - 1) }
}

/// The names of overlayfs's attributes (Documentation/filesystems/overlayfs.rst; "Nesting overlayfs mounts" for the escaped ones).
enum OverlayAttribute {
    static let prefix: ByteString = "trusted.overlay."
    static let escapedPrefix: ByteString = "trusted.overlay.overlay."
    static let metacopy: ByteString = "trusted.overlay.metacopy"
    static let redirect: ByteString = "trusted.overlay.redirect"
    static let opaque: ByteString = "trusted.overlay.opaque"
    static let whiteout: ByteString = "trusted.overlay.whiteout"
    static let whiteouts: ByteString = "trusted.overlay.whiteouts"
    static let escapedWhiteout: ByteString = "trusted.overlay.overlay.whiteout"
    static let escapedWhiteouts: ByteString = "trusted.overlay.overlay.whiteouts"
    static let escapedOpaque: ByteString = "trusted.overlay.overlay.opaque"
    static let userWhiteout: ByteString = "user.overlay.whiteout"
    static let userWhiteouts: ByteString = "user.overlay.whiteouts"
    static let userOpaque: ByteString = "user.overlay.opaque"
    static let selinux: ByteString = "security.selinux"
}

/// 32-bit xxHash (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), from which the attribute name filter is computed.
func xxHash32(_ bytes: UnsafeRawBufferPointer, seed: UInt32) -> UInt32 {
    let prime1: UInt32 = 0x9e37_79b1
    let prime2: UInt32 = 0x85eb_ca77
    let prime3: UInt32 = 0xc2b2_ae3d
    let prime4: UInt32 = 0x27d4_eb2f
    let prime5: UInt32 = 0x1656_67b1
    func rotate(_ value: UInt32, _ by: UInt32) -> UInt32 { value << by | value >> (32 - by) }
    func lane(_ at: Int) -> UInt32 { UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt32.self)) }

    var at = 0
    var hash: UInt32
    if bytes.count >= 16 {
        var (a, b, c, d) = (seed &+ prime1 &+ prime2, seed &+ prime2, seed, seed &- prime1)
        while at + 16 <= bytes.count {
            a = rotate(a &+ lane(at) &* prime2, 13) &* prime1
            b = rotate(b &+ lane(at + 4) &* prime2, 13) &* prime1
            c = rotate(c &+ lane(at + 8) &* prime2, 13) &* prime1
            d = rotate(d &+ lane(at + 12) &* prime2, 13) &* prime1
            at += 16
        }
        hash = rotate(a, 1) &+ rotate(b, 7) &+ rotate(c, 12) &+ rotate(d, 18)
    } else {
        hash = seed &+ prime5
    }
    hash = hash &+ UInt32(truncatingIfNeeded: bytes.count)
    while at + 4 <= bytes.count {
        hash = rotate(hash &+ lane(at) &* prime3, 17) &* prime4
        at += 4
    }
    while at < bytes.count {
        hash = rotate(hash &+ UInt32(bytes[at]) &* prime5, 11) &* prime1
        at += 1
    }
    hash = (hash ^ hash >> 15) &* prime2
    hash = (hash ^ hash >> 13) &* prime3
    return hash ^ hash >> 16
}
