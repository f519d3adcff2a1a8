import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsDisks

/// The digest of a file of which the hashes of objects' blocks are known, beside that of its bytes.
@Suite struct BlockHashesTests {
    private static let block = 4096
    private static let blocks = 40

    /// Ranges of bytes, in ascending order.
    private func check(objects: [Range<Int>], metadata: [Range<Int>], _ algorithm: VerityAlgorithm) throws {
        let folder = try TestFolder("block-hashes")
        var bytes = [UInt8](repeating: 0, count: Self.blocks * Self.block)
        for (number, range) in (objects + metadata).enumerated() {
            for at in range { bytes[at] = UInt8(truncatingIfNeeded: at &* 31 &+ at / 251 &+ number) | 1 }
        }
        let file = try FileDescriptor.open(folder.path + "/file", [.readWrite, .create], mode: 0o600)
        try bytes.withUnsafeBytes { try file.pwriteAll($0, at: 0) }
        let any = bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) }
        let parts = objects.map { range in
            ObjectPart(
                object: any, objectSize: UInt64(range.count), objectOffset: 0, offset: UInt64(range.lowerBound),
                count: UInt64(range.count))
        }
        for memory in [HeapMemory.shared, CountedMemory(windows: 1)] as [any LargeMemory] {
            let hashes = try #require(BlockHashes(algorithm, byteCount: UInt64(bytes.count), parts: parts, in: memory))
            for part in parts {
                var hasher = VerityHasher(algorithm)
                hasher.blockHashes = hashes.place(at: part.offset, count: part.count).baseAddress
                bytes[Int(part.offset)..<Int(part.end)].withUnsafeBytes { hasher.update($0) }
                _ = hasher.finalize()
            }
            for range in metadata { hashes.addMetadata(UInt64(range.lowerBound)..<UInt64(range.upperBound)) }
            #expect(try hashes.identifier(of: file) == any, "objects \(objects), metadata \(metadata)")
        }
    }

    @Test(arguments: VerityAlgorithm.allCases)
    func objectsMetadataAndZeros(algorithm: VerityAlgorithm) throws {
        let block = Self.block
        let end = Self.blocks * block
        try check(objects: [], metadata: [], algorithm)
        try check(objects: [0..<end], metadata: [], algorithm)
        try check(objects: [], metadata: [0..<end], algorithm)
        // Side by side, with ends inside of blocks, and with zeros before, between and after.
        try check(objects: [3 * block..<(5 * block + 7), 6 * block..<(7 * block)], metadata: [0..<(2 * block)], algorithm)
        try check(
            objects: [2 * block..<(3 * block + 1), 9 * block..<(11 * block - 1), 30 * block..<(31 * block)],
            metadata: [0..<block, 4 * block..<(9 * block), 12 * block..<(13 * block), 35 * block..<end], algorithm)
        // Metadata in the last block of an object.
        try check(objects: [block..<(3 * block + 100)], metadata: [(3 * block + 200)..<(5 * block)], algorithm)
    }
}
