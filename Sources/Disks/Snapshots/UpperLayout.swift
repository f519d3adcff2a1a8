import ComposefsHashing
import ComposefsRepository
import ComposefsSnapshotFormat
import ComposefsSplitStream

/// How the content of a disk is cut into objects: one for each 64 KiB, a leaf of the Merkle tree, and the rest at the end. File systems change blocks
/// in place and move nothing, so fixed boundaries find what two snapshots share, and each object can be shared with the restored file (FICLONERANGE).
///
/// 256 leaves of zeros are one object of 16 MiB. It is a hole, too, and stands for any number of them: a disk of 1 TiB has 65,536 references of eight
/// bytes, which zstd packs to almost nothing. A run of zeros begins at the offset of its first leaf.
struct UpperLayout: Sendable {
    static let leafSize = UInt64(UpperMerkleTree.leafSize)
    /// In leaves.
    static let runLength: UInt64 = 256
    static let runSize = leafSize * runLength
    /// The largest disk in bytes: that of ext4 with 48-bit block numbers in practice, and four million references.
    static let sizeLimit: UInt64 = 1 << 46

    /// The content type of the stream: `snapdisk`.
    static let contentType = UInt64(littleEndianText: "snapdisk")

    let size: UInt64
    let zeroLeaf: ObjectID
    let zeroRun: ObjectID
    /// The last leaf, if it is shorter and all zeros.
    let zeroTail: ObjectID?

    init(size: UInt64, _ algorithm: VerityAlgorithm) {
        self.size = size
        var hasher = VerityHasher(algorithm)
        func zeros(_ count: UInt64) -> ObjectID {
            hasher.update(zeros: count)
            return hasher.finalize()
        }
        zeroLeaf = zeros(Self.leafSize)
        zeroRun = zeros(Self.runSize)
        let tail = size % Self.leafSize
        zeroTail = tail == 0 ? nil : zeros(tail)
    }

    /// A part of a disk: one leaf or, of zeros, several.
    struct Part: Sendable {
        /// Nil for zeros.
        var object: ObjectID?
        /// In bytes.
        var offset: UInt64
        var count: UInt64
    }

    /// The part that an object of the stream stands for at an offset; nil if none can be there.
    func part(_ object: ObjectID, at offset: UInt64) -> Part? {
        guard offset < size, offset % Self.leafSize == 0 else { return nil }
        if object == zeroRun { return size - offset < Self.runSize ? nil : Part(object: nil, offset: offset, count: Self.runSize) }
        let count = min(Self.leafSize, size - offset)
        let isZero = object == (count < Self.leafSize ? zeroTail : zeroLeaf)
        return Part(object: isZero ? nil : object, offset: offset, count: count)
    }
}

extension UInt64 {
    /// Eight ASCII characters as a content type.
    init(littleEndianText text: StaticString) {
        precondition(text.utf8CodeUnitCount == 8)
        self = text.withUTF8Buffer { $0.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
    }
}

/// Whether all bytes are zero. Ends at the first that is not, so it costs nothing for other data.
func isZero(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var at = 0
    while at + 8 <= bytes.count {
        if bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self) != 0 { return false }
        at += 8
    }
    return bytes[at...].allSatisfy { $0 == 0 }
}
