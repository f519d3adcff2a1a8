/// The digest of a disk's content that a descriptor records as `msb-file-merkle-blake3-v1`: the root of a binary tree over leaves of 64 KiB.
///
/// The last leaf is padded with zeros, and the tree has a power of two of leaves, those behind the file all zeros. A subtree of zeros costs one
/// step, so holes of any size cost nothing. BLAKE3 of, each with its domain before it:
///
///     leaf    "msb-file-merkle-blake3-v1" NUL "leaf" NUL, 65,536 bytes
///     parent  "msb-file-merkle-blake3-v1" NUL "parent" NUL, the left and the right digest
///     root    "msb-file-merkle-blake3-v1" NUL "root" NUL, the size (u64), 65,536 (u32), the height of the tree (u32), the digest of its top
///
/// Numbers are little-endian. The height of a single leaf is 0.
public struct UpperMerkleTree: Sendable {
    /// In bytes.
    public static let leafSize = 1 << 16

    private static let domain = Array("msb-file-merkle-blake3-v1".utf8) + [0]
    fileprivate static let leafDomain = domain + Array("leaf".utf8) + [0]
    private static let parentDomain = domain + Array("parent".utf8) + [0]
    private static let rootDomain = domain + Array("root".utf8) + [0]

    private let size: UInt64
    private let height: Int
    /// The left sibling that waits at each level.
    private var waiting: [Blake3Digest?]
    /// The digest of a subtree of zeros of each height.
    private let zeros: [Blake3Digest]
    /// The number of leaves that have been added.
    private var count: UInt64 = 0

    /// - Parameter size: of the file in bytes, at most `SnapshotDescriptor.sizeLimit`.
    public init(size: UInt64) {
        precondition(size <= SnapshotDescriptor.sizeLimit)
        self.size = size
        let leaves = max(1, Self.leafCount(of: size))
        height = leaves == 1 ? 0 : UInt64.bitWidth - (leaves - 1).leadingZeroBitCount
        waiting = Array(repeating: nil, count: height + 1)
        var hasher = LeafHasher()
        let empty = [UInt8](repeating: 0, count: Self.leafSize)
        var zeros = [empty.withUnsafeBytes { hasher.digest($0) }]
        for _ in 0..<height { zeros.append(Self.parent(zeros[zeros.count - 1], zeros[zeros.count - 1])) }
        self.zeros = zeros
    }

    /// The number of leaves with bytes of a file of this size.
    public static func leafCount(of size: UInt64) -> UInt64 { size / UInt64(leafSize) + (size % UInt64(leafSize) > 0 ? 1 : 0) }

    /// Adds the next leaf.
    public mutating func append(_ leaf: Blake3Digest) { append(leaf, height: 0) }

    /// Adds leaves that are all zeros.
    public mutating func append(zeroLeaves number: UInt64) {
        let end = count + number
        while count < end {
            // The largest subtree that begins here and does not reach beyond the end.
            let aligned = count == 0 ? height : min(height, count.trailingZeroBitCount)
            let fitting = UInt64.bitWidth - 1 - (end - count).leadingZeroBitCount
            let level = min(aligned, fitting)
            append(zeros[level], height: level)
        }
    }

    private mutating func append(_ digest: Blake3Digest, height first: Int) {
        count += 1 << UInt64(first)
        precondition(count <= 1 << UInt64(height), "more leaves than the file has")
        var (digest, level) = (digest, first)
        while let left = waiting[level] {
            waiting[level] = nil
            digest = Self.parent(left, digest)
            level += 1
        }
        waiting[level] = digest
    }

    /// The root. All leaves of the file must have been added.
    public mutating func finish() -> Blake3Digest {
        precondition(count >= Self.leafCount(of: size), "leaves are missing")
        append(zeroLeaves: (1 << UInt64(height)) - count)
        guard let top = waiting[height] else { preconditionFailure("a complete tree has one top") }
        var input = Self.rootDomain
        func add(_ number: UInt64, _ bytes: UInt64) {
            for index in 0..<bytes { input.append(UInt8(truncatingIfNeeded: number >> (8 * index))) }
        }
        add(size, 8)
        add(UInt64(Self.leafSize), 4)
        add(UInt64(height), 4)
        input += top.bytes
        return input.withUnsafeBytes { .of($0) }
    }

    private static func parent(_ left: Blake3Digest, _ right: Blake3Digest) -> Blake3Digest {
        let input = parentDomain + left.bytes + right.bytes
        return input.withUnsafeBytes { .of($0) }
    }
}

/// Computes the digests of leaves. It has one buffer, which all its leaves use.
public struct LeafHasher: ~Copyable {
    private let buffer: UnsafeMutableRawBufferPointer

    public init() {
        let domain = UpperMerkleTree.leafDomain
        buffer = .allocate(byteCount: domain.count + UpperMerkleTree.leafSize, alignment: 64)
        buffer.copyBytes(from: domain)
    }

    deinit { buffer.deallocate() }

    /// The digest of a leaf. The last one of a file may be shorter than the others: zeros are added.
    public mutating func digest(_ leaf: UnsafeRawBufferPointer) -> Blake3Digest {
        precondition(leaf.count <= UpperMerkleTree.leafSize)
        let start = UpperMerkleTree.leafDomain.count
        let place = UnsafeMutableRawBufferPointer(rebasing: buffer[start...])
        place.copyMemory(from: leaf)
        if leaf.count < place.count {
            UnsafeMutableRawBufferPointer(rebasing: place[leaf.count...]).initializeMemory(as: UInt8.self, repeating: 0)
        }
        return .of(UnsafeRawBufferPointer(buffer))
    }
}
