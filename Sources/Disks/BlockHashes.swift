import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

/// The hashes of the blocks of a new file, from which its fs-verity digest follows.
final class BlockHashes: Sendable {
    private let algorithm: VerityAlgorithm
    private let byteCount: UInt64
    private let memory: any LargeMemory
    /// Threads write to different blocks. Memory is taken only for the blocks of objects.
    private let region: LargeRegion
    /// Blocks that hold objects, in ascending order.
    private let objects: [Range<UInt64>]
    /// Blocks that hold metadata, in ascending order; only the thread that begins the file adds some.
    private let metadata = Mutex<[Range<UInt64>]>([])

    /// Larger tables are not made: the file is read again instead.
    private static let sizeLimit: UInt64 = 32 << 20
    /// Blocks of which the hashes are read at a time.
    private static let hashesPart = 1 << 12
    static let blockSize = UInt64(VerityHasher.blockSize)

    /// Blocks without an object or metadata are zero.
    ///
    /// - Parameters:
    ///   - byteCount: the size of the file.
    ///   - parts: of objects, in ascending order of their offsets. The hashes of all their blocks must be set.
    ///   - memory: where the hashes are.
    init?(_ algorithm: VerityAlgorithm, byteCount: UInt64, parts: some Collection<ObjectPart>, in memory: any LargeMemory) {
        let size = byteCount / Self.blockSize * UInt64(algorithm.digestSize)
        guard byteCount > 0, byteCount % Self.blockSize == 0, size <= Self.sizeLimit else { return nil }
        self.algorithm = algorithm
        self.byteCount = byteCount
        self.memory = memory
        region = memory.allocate(byteCount: Int(size), isScattered: false)
        var objects: [Range<UInt64>] = []
        for part in parts { Self.add(Self.blocks(part.offset..<part.end), to: &objects) }
        self.objects = objects
    }

    deinit { memory.release(region) }

    /// The blocks that a range of bytes touches.
    private static func blocks(_ range: Range<UInt64>) -> Range<UInt64> {
        (range.lowerBound / blockSize)..<((range.upperBound + blockSize - 1) / blockSize)
    }

    private static func add(_ blocks: Range<UInt64>, to ranges: inout [Range<UInt64>]) {
        if let last = ranges.last, last.upperBound >= blocks.lowerBound {
            ranges[ranges.count - 1] = last.lowerBound..<max(blocks.upperBound, last.upperBound)
        } else {
            ranges.append(blocks)
        }
    }

    /// The memory for the hashes of the blocks from an offset on.
    ///
    /// - Parameter count: the number of bytes, the last block of which is padded with zeros.
    func place(at offset: UInt64, count: UInt64) -> UnsafeMutableRawBufferPointer {
        precondition(offset % Self.blockSize == 0 && count <= byteCount && offset <= byteCount - count, "a part outside of the file")
        let (first, blocks) = (Int(offset / Self.blockSize), Int((count + Self.blockSize - 1) / Self.blockSize))
        return hashes(ofBlocks: first..<(first + blocks))
    }

    private func hashes(ofBlocks blocks: Range<Int>) -> UnsafeMutableRawBufferPointer {
        let size = algorithm.digestSize
        let place = UnsafeMutableRawBufferPointer(start: region.base + blocks.lowerBound * size, count: blocks.count * size)
        if !blocks.isEmpty { region.windows?.use(UnsafeRawPointer(region.base + blocks.lowerBound * size), byteCount: place.count) }
        return place
    }

    /// Copies the hashes of a part of an object.
    ///
    /// - Parameter hashes: of all blocks of the object.
    func copy(_ hashes: UnsafeRawBufferPointer, of part: ObjectPart) {
        let place = place(at: part.offset, count: part.count)
        let first = Int(part.objectOffset / Self.blockSize) * algorithm.digestSize
        place.copyMemory(from: UnsafeRawBufferPointer(rebasing: hashes[first..<(first + place.count)]))
    }

    /// - Parameter hashes: of all blocks of the object.
    func copy(_ hashes: [UInt8], of part: ObjectPart) { hashes.withUnsafeBytes { copy($0, of: part) } }

    /// Metadata was written to a range of bytes.
    func addMetadata(_ range: Range<UInt64>) { metadata.withLock { Self.add(Self.blocks(range), to: &$0) } }

    /// The digest of the complete file, from which the blocks of metadata are read.
    func identifier(of file: borrowing FileDescriptor) throws -> ObjectID {
        var hasher = VerityHasher(algorithm)
        var objects = objects[...]
        var position: UInt64 = 0
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * VerityHasher.blockSize, alignment: 4096)
        defer { buffer.deallocate() }
        for blocks in metadata.withLock({ $0 }) {
            addObjects(&objects, from: position, to: blocks.lowerBound, &hasher)
            var parts = FileParts(into: buffer, from: blocks.lowerBound * Self.blockSize, to: blocks.upperBound * Self.blockSize)
            while let bytes = try parts.next(of: file) { hasher.update(bytes) }
            precondition(parts.offset == blocks.upperBound * Self.blockSize, "the file is shorter than it was made")
            position = blocks.upperBound
        }
        addObjects(&objects, from: position, to: byteCount / Self.blockSize, &hasher)
        return hasher.finalize()
    }

    /// Adds blocks that hold objects or zeros.
    private func addObjects(
        _ objects: inout ArraySlice<Range<UInt64>>, from start: UInt64, to end: UInt64, _ hasher: inout VerityHasher
    ) {
        var position = start
        while position < end {
            guard let next = objects.first, next.lowerBound < end else {
                hasher.update(zeros: (end - position) * Self.blockSize)
                return
            }
            // A block with the end of an object and metadata was read.
            let known = max(position, next.lowerBound)..<min(end, max(position, next.upperBound))
            hasher.update(zeros: (known.lowerBound - position) * Self.blockSize)
            // In parts: not all hashes are in memory at a time.
            for first in stride(from: Int(known.lowerBound), to: Int(known.upperBound), by: Self.hashesPart) {
                let part = hashes(ofBlocks: first..<min(first + Self.hashesPart, Int(known.upperBound)))
                hasher.update(blockHashes: UnsafeRawBufferPointer(part))
            }
            position = known.upperBound
            if next.upperBound <= position { objects.removeFirst() }
        }
    }
}
