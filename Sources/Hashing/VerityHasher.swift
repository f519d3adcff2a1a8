/// Computes fs-verity digests in user space: a Merkle tree of 4096-byte blocks without salt
/// (Documentation/filesystems/fsverity.rst, "File digest computation").
///
/// Pass the content to `update` in parts of any size. `finalize` returns the object ID and resets the hasher. Memory use is one block per
/// tree level.
public struct VerityHasher: ~Copyable {
    /// The size of a Merkle tree block in bytes.
    public static let blockSize = 4096

    public let algorithm: VerityAlgorithm
    private var sha: SHA2
    private let lanes: BlockLanes?
    /// The end of the content so far, which does not fill a block yet.
    private let partial: UnsafeMutableRawPointer
    private var partialCount = 0
    private var size: UInt64 = 0
    /// One block of hashes for each tree level above the data. Eight levels of 64-byte digests are enough for any 64-bit size.
    private let levels: UnsafeMutableRawPointer
    private var levelCounts: [Int]
    private static let levelCount = 12
    /// The hash of a block of zeros; computed on first use.
    private var zeroHash: [UInt8] = []
    /// If set, the hash of each block of the content is also written here, one after the other. The memory must have room for them.
    package var blockHashes: UnsafeMutableRawPointer?
    /// The hashes of the blocks since `collectBlockHashes`; nil if they are not wanted or too many.
    private var collected: [UInt8]?
    private var collectedLimit = 0

    public init(_ algorithm: VerityAlgorithm) { self.init(algorithm, BlockLanes.best(algorithm)) }

    /// - Parameter lanes: hash several blocks at a time.
    init(_ algorithm: VerityAlgorithm, _ lanes: BlockLanes?) {
        self.algorithm = algorithm
        self.lanes = lanes
        sha = SHA2(algorithm == .sha256 ? .sha256 : .sha512)
        partial = .allocate(byteCount: Self.blockSize, alignment: 64)
        levels = .allocate(byteCount: Self.blockSize * Self.levelCount, alignment: 64)
        levelCounts = Array(repeating: 0, count: Self.levelCount)
    }

    deinit {
        partial.deallocate()
        levels.deallocate()
    }

    /// The object ID of content that is in memory as a whole.
    public static func objectID(of content: UnsafeRawBufferPointer, _ algorithm: VerityAlgorithm) -> ObjectID {
        var hasher = VerityHasher(algorithm)
        hasher.update(content)
        return hasher.finalize()
    }

    public mutating func update(_ content: UnsafeRawBufferPointer) {
        guard var at = content.baseAddress, content.count > 0 else { return }
        var left = content.count
        size += UInt64(left)
        if partialCount > 0 {
            let part = min(Self.blockSize - partialCount, left)
            (partial + partialCount).copyMemory(from: at, byteCount: part)
            partialCount += part
            at += part
            left -= part
            guard partialCount == Self.blockSize else { return }
            hash(partial, level: 0)
            partialCount = 0
        }
        while left >= Self.blockSize {
            let hashed = hashBlocks(at, atMost: left / Self.blockSize) * Self.blockSize
            at += hashed
            left -= hashed
        }
        if left > 0 {
            partial.copyMemory(from: at, byteCount: left)
            partialCount = left
        }
    }

    /// Equivalent to `update` with `count` zero bytes, but about a hundred times as fast.
    public mutating func update(zeros count: UInt64) {
        var left = count
        if partialCount > 0 {
            let part = min(Self.blockSize - partialCount, Int(min(left, UInt64(Self.blockSize))))
            (partial + partialCount).initializeMemory(as: UInt8.self, repeating: 0, count: part)
            partialCount += part
            size += UInt64(part)
            left -= UInt64(part)
            guard partialCount == Self.blockSize else { return }
            hash(partial, level: 0)
            partialCount = 0
        }
        size += left
        if left >= UInt64(Self.blockSize) { findZeroHash() }
        while left >= UInt64(Self.blockSize) {
            zeroHash.withUnsafeBytes { if let base = $0.baseAddress { append(blockHash: base) } }
            left -= UInt64(Self.blockSize)
        }
        if left > 0 {
            partial.initializeMemory(as: UInt8.self, repeating: 0, count: Int(left))
            partialCount = Int(left)
        }
    }

    /// Adds content of which the hashes of all blocks are known; that so far must consist of whole blocks.
    ///
    /// - Parameter hashes: of consecutive blocks, each of `algorithm.digestSize` bytes.
    package mutating func update(blockHashes hashes: UnsafeRawBufferPointer) {
        precondition(partialCount == 0 && hashes.count % algorithm.digestSize == 0, "hashes are of whole blocks")
        guard let base = hashes.baseAddress else { return }
        for offset in stride(from: 0, to: hashes.count, by: algorithm.digestSize) { append(blockHash: base + offset) }
        size += UInt64(hashes.count / algorithm.digestSize * Self.blockSize)
    }

    private mutating func findZeroHash() {
        guard zeroHash.isEmpty else { return }
        let zeros = [UInt8](repeating: 0, count: Self.blockSize)
        zeroHash = sum(zeros)
    }

    private mutating func append(blockHash: UnsafeRawPointer) {
        makeRoom(level: 0)
        (levels + levelCounts[0]).copyMemory(from: blockHash, byteCount: algorithm.digestSize)
        note(levels + levelCounts[0])
        levelCounts[0] += algorithm.digestSize
    }

    private mutating func note(_ blockHash: UnsafeRawPointer) {
        if let place = blockHashes {
            place.copyMemory(from: blockHash, byteCount: algorithm.digestSize)
            blockHashes = place + algorithm.digestSize
        }
        if let count = collected?.count {
            if count + algorithm.digestSize > collectedLimit {
                collected = nil
            } else {
                collected?.append(contentsOf: UnsafeRawBufferPointer(start: blockHash, count: algorithm.digestSize))
            }
        }
    }

    /// From now on collects the hashes of blocks, until there are too many.
    ///
    /// - Parameter limit: the most bytes to collect.
    package mutating func collectBlockHashes(limit: Int) {
        collected = []
        collectedLimit = limit
    }

    /// Returns the hashes of the blocks of the content that was finalized last, and collects no more; nil if there were too many.
    package mutating func takeBlockHashes() -> [UInt8]? { collected.take() }

    public mutating func finalize() -> ObjectID {
        if partialCount > 0 {
            (partial + partialCount).initializeMemory(as: UInt8.self, repeating: 0, count: Self.blockSize - partialCount)
            hash(partial, level: 0)
        }
        // The root hash of an empty file is all zeros. The hash of a single block is the root hash itself. Otherwise the last block of
        // each level, padded with zeros, is hashed until one hash is left.
        var level = 0
        let digestSize = algorithm.digestSize
        if size > 0 {
            while levelCounts[level] != digestSize || levelCounts[(level + 1)...].contains(where: { $0 != 0 }) {
                let filled = levelCounts[level]
                if filled > 0 {
                    let block = levels + level * Self.blockSize
                    (block + filled).initializeMemory(as: UInt8.self, repeating: 0, count: Self.blockSize - filled)
                    levelCounts[level] = 0
                    hash(block, level: level + 1)
                }
                level += 1
            }
        }
        let digest = sum(descriptor(rootAt: size > 0 ? level * Self.blockSize : nil))
        size = 0
        partialCount = 0
        blockHashes = nil
        for index in levelCounts.indices { levelCounts[index] = 0 }
        guard let id = digest.withUnsafeBytes({ ObjectID(algorithm: algorithm, bytes: $0) }) else {
            fatalError("the digest's length is the algorithm's")
        }
        return id
    }

    /// `struct fsverity_descriptor` (linux/fsverity.h): version, algorithm, log2 of the block size, salt size, 4 reserved bytes, data size
    /// (little-endian), root hash[64], salt[32], 144 reserved bytes.
    private func descriptor(rootAt offset: Int?) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 256)
        bytes[0] = 1
        bytes[1] = algorithm.rawValue
        bytes[2] = 12
        for index in 0..<8 { bytes[8 + index] = UInt8(truncatingIfNeeded: size >> UInt64(8 * index)) }
        if let offset {
            for index in 0..<algorithm.digestSize { bytes[16 + index] = levels.load(fromByteOffset: offset + index, as: UInt8.self) }
        }
        return bytes
    }

    /// Hashes one block and appends the hash to `level`. A full level is hashed into the next one.
    private mutating func hash(_ block: UnsafeRawPointer, level: Int) {
        makeRoom(level: level)
        let at = level * Self.blockSize + levelCounts[level]
        sha.update(block, Self.blockSize)
        sha.finish(into: levels + at)
        if level == 0 { note(levels + at) }
        levelCounts[level] += algorithm.digestSize
    }

    /// Hashes as many blocks of the content as can be hashed at once. Returns their number.
    private mutating func hashBlocks(_ blocks: UnsafeRawPointer, atMost available: Int) -> Int {
        makeRoom(level: 0)
        let room = (Self.blockSize - levelCounts[0]) / algorithm.digestSize
        guard let lanes, min(available, room) >= lanes.fewest else {
            hash(blocks, level: 0)
            return 1
        }
        let number = min(available, room, lanes.count)
        let place = levels + levelCounts[0]
        lanes.hash(blocks, number, into: place)
        for index in 0..<number { note(place + index * algorithm.digestSize) }
        levelCounts[0] += number * algorithm.digestSize
        return number
    }

    /// A full level is hashed only when one more hash arrives: a level of exactly one block may be the root.
    private mutating func makeRoom(level: Int) {
        guard levelCounts[level] == Self.blockSize else { return }
        levelCounts[level] = 0
        hash(levels + level * Self.blockSize, level: level + 1)
    }

    private mutating func sum(_ bytes: [UInt8]) -> [UInt8] {
        bytes.withUnsafeBytes { if let start = $0.baseAddress { sha.update(start, $0.count) } }
        var digest = [UInt8](repeating: 0, count: algorithm.digestSize)
        digest.withUnsafeMutableBytes { if let start = $0.baseAddress { sha.finish(into: start) } }
        return digest
    }
}
