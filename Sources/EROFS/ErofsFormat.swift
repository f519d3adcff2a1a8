internal import ComposefsBytes

/// Version of the composefs image format, as the image's first header names it.
///
/// 0 and 1 share a layout that every kernel with EROFS and overlayfs mounts (`mkcomposefs` writes it): breadth first, compact inodes
/// where they suffice, the 256 names `00`…`ff` hidden behind whiteouts, whiteouts of the tree escaped. 2 is depth first, keeps whiteouts
/// as they are and drops nanoseconds.
public enum ErofsVersion: UInt32, CaseIterable, Sendable {
    case v0 = 0
    case v1
    case v2

    /// The layout of versions 0 and 1.
    var isFirstEpoch: Bool { self != .v2 }

    /// Longest symlink target. Linux has PATH_MAX without its NUL; in version 2 a longer one than this can come to lie so that kernels refuse it,
    /// and readers of that version take none.
    var maximumTargetLength: Int { isFirstEpoch ? 4095 : 1024 }
}

/// Numbers of the on-disk format: composefs' header and the part of EROFS that it uses (linux/fs/erofs/erofs_fs.h).
enum Erofs {
    static let blockSize = 4096
    static let blockBits = 12
    /// Inodes lie at multiples of this; an inode's number is its offset divided by it.
    static let slotSize = 32

    static let headerMagic: UInt32 = 0xd078_629a
    static let headerVersion: UInt32 = 1
    /// Some inode has a POSIX ACL.
    static let headerHasACL: UInt32 = 1

    static let superblockOffset = 1024
    static let magic: UInt32 = 0xe0f5_e1e2
    static let compatChecksum: UInt32 = 1
    static let compatModified: UInt32 = 2
    static let compatAttributeFilter: UInt32 = 4
    static let incompatChunkedFile: UInt32 = 4
    static let firstInodeOffset = superblockOffset + SuperblockLayout.size

    static let formatExtended: UInt16 = 1
    /// Chunk format of files in version 2: 4 KiB chunks << 31, so one chunk whatever the size.
    static let widestChunk: UInt32 = 31
    static let maximumChunkBits = 43

    /// The inode's count has 16 bits: one for the header, four bytes for each of the others.
    static let maximumAttributeSize = AttributeHeaderLayout.size + 65534 * AttributeEntryLayout.alignment
    static let filterSeed: UInt32 = 0x25bb_e08f

    static let maximumNameLength = 255
    /// What readers accept; larger images are not written.
    static let maximumImageSize = 1 << 30
    static let maximumDepth = 2048

    /// How an inode's data lie (`EROFS_INODE_*`), as bits of the format field.
    enum Layout: UInt16 {
        case plain = 0
        case inline = 4
        case chunked = 8
    }

    /// Beginnings of attribute names that are stored as their index.
    static let attributePrefixes: [[UInt8]] = [
        [], Array("user.".utf8), Array("system.posix_acl_access".utf8), Array("system.posix_acl_default".utf8), Array("trusted.".utf8),
        Array("lustre.".utf8), Array("security.".utf8),
    ]
    static let lustrePrefix: UInt8 = 5
    static let trustedPrefix: UInt8 = 4

    /// Log2 of the chunk size of a file, over 4 KiB: the smallest that holds the file in one chunk, at most 2^43 bytes.
    static func chunkFormat(size: UInt64) -> Int {
        let bits = size > 1 ? UInt64.bitWidth - (size - 1).leadingZeroBitCount : 1
        return min(max(bits, blockBits), maximumChunkBits) - blockBits
    }

    /// Bytes of the chunk table of a file: one null address each.
    static func chunkTableSize(size: UInt64) -> UInt64 {
        let bits = UInt64(chunkFormat(size: size) + blockBits)
        return UInt64(ChunkTableLayout.entrySize) * ((size >> bits) + (size & ((1 << bits) - 1) == 0 ? 0 : 1))
    }

    /// Whether `name` is two lower-case hexadecimal digits, as the directories of an object store are named.
    static func isObjectDirectory(_ name: UnsafeRawBufferPointer) -> Bool {
        name.count == 2 && Hex.value(of: name[0]) != nil && Hex.value(of: name[1]) != nil
    }

    @inline(__always)
    static func align(_ value: Int, to alignment: Int) -> Int { (value + alignment - 1) & ~(alignment - 1) }
}

/// Names of overlayfs' attributes (Documentation/filesystems/overlayfs.rst, "Nesting overlayfs mounts" for the escaped ones).
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

/// xxHash, 32 bits (github.com/Cyan4973/xxHash, doc/xxhash_spec.md): what the attribute name filter is made of.
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
