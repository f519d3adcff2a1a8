import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization

/// The hashes of the blocks of a new file, from which its fs-verity digest follows.
final class BlockHashes: Sendable {
    private let algorithm: VerityAlgorithm
    private let byteCount: UInt64
    /// Threads write to different blocks.
    private nonisolated(unsafe) let hashes: UnsafeMutableRawBufferPointer
    /// Blocks that hold metadata, in ascending order; only the thread that begins the file adds some.
    private let metadata = Mutex<[Range<UInt64>]>([])

    /// Larger tables are not made: the file is read again instead.
    private static let sizeLimit: UInt64 = 32 << 20
    static let blockSize = UInt64(VerityHasher.blockSize)

    /// All blocks are zero.
    ///
    /// - Parameter byteCount: the size of the file.
    init?(_ algorithm: VerityAlgorithm, byteCount: UInt64) {
        let size = byteCount / Self.blockSize * UInt64(algorithm.digestSize)
        guard byteCount > 0, byteCount % Self.blockSize == 0, size <= Self.sizeLimit else { return nil }
        self.algorithm = algorithm
        self.byteCount = byteCount
        hashes = .allocate(byteCount: Int(size), alignment: 64)
        var hasher = VerityHasher(algorithm)
        hasher.fill(zeroBlocks: hashes)
    }

    deinit { hashes.deallocate() }

    /// The memory for the hashes of the blocks from an offset on.
    ///
    /// - Parameter count: the number of bytes, the last block of which is padded with zeros.
    func place(at offset: UInt64, count: UInt64) -> UnsafeMutableRawBufferPointer {
        precondition(offset % Self.blockSize == 0 && count <= byteCount && offset <= byteCount - count, "a part outside of the file")
        let (first, blocks) = (Int(offset / Self.blockSize), Int((count + Self.blockSize - 1) / Self.blockSize))
        let size = algorithm.digestSize
        return UnsafeMutableRawBufferPointer(rebasing: hashes[(first * size)..<((first + blocks) * size)])
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
    func addMetadata(_ range: Range<UInt64>) {
        let (start, end) = (range.lowerBound / Self.blockSize, (range.upperBound + Self.blockSize - 1) / Self.blockSize)
        metadata.withLock { metadata in
            if let last = metadata.last, last.upperBound >= start {
                metadata[metadata.count - 1] = last.lowerBound..<max(end, last.upperBound)
            } else {
                metadata.append(start..<end)
            }
        }
    }

    /// The digest of the complete file, from which the blocks of metadata are read.
    func identifier(of file: borrowing FileDescriptor) throws -> ObjectID {
        var hasher = VerityHasher(algorithm)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 * VerityHasher.blockSize, alignment: 4096)
        defer { buffer.deallocate() }
        for range in metadata.withLock({ $0 }) {
            var position = range.lowerBound * Self.blockSize
            let end = range.upperBound * Self.blockSize
            while position < end {
                let wanted = Int(min(UInt64(buffer.count), end - position))
                let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<wanted])
                let count = try file.preadFully(into: part, at: position)
                precondition(count == wanted, "the file is shorter than it was made")
                hasher.blockHashes = place(at: position, count: UInt64(count)).baseAddress
                hasher.update(UnsafeRawBufferPointer(part))
                _ = hasher.finalize()
                position += UInt64(count)
            }
        }
        hasher.update(blockHashes: UnsafeRawBufferPointer(hashes))
        return hasher.finalize()
    }
}
