import Testing

@testable import ComposefsHashing

/// Blocks that are hashed together have the digests that libcrypto computes of each.
@Suite struct BlockLanesTests {
    private static let available = VerityAlgorithm.allCases.filter { BlockLanes($0) != nil }

    /// Bytes that differ between blocks and lanes.
    private func content(_ count: Int) -> [UInt8] {
        var state: UInt64 = 0x9e37_79b9_7f4a_7c15
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return UInt8(truncatingIfNeeded: state >> 56)
        }
    }

    @Test(arguments: available)
    func sameDigestsAsLibcrypto(algorithm: VerityAlgorithm) throws {
        let lanes = try #require(BlockLanes(algorithm))
        let digest: DigestAlgorithm = algorithm == .sha256 ? .sha256 : .sha512
        let special = [UInt8](repeating: 0, count: 4096) + [UInt8](repeating: 0xff, count: 4096)
        for shift in [0, 1, 7, 63] {
            let content = content(shift + (lanes.count - 2) * 4096) + special
            for number in 1...lanes.count {
                // From the end, so that a read beyond the last block is outside of the array.
                let first = content.count - number * 4096
                var found = [UInt8](repeating: 0xaa, count: number * algorithm.digestSize + 1)
                content.withUnsafeBytes { content in
                    found.withUnsafeMutableBytes { found in
                        guard let blocks = content.baseAddress, let digests = found.baseAddress else { return }
                        lanes.hash(blocks + first, number, into: digests)
                    }
                }
                let expected = stride(from: first, to: content.count, by: 4096).flatMap {
                    ContentDigest.of(Array(content[$0..<($0 + 4096)]), digest).bytes
                }
                #expect(found == expected + [0xaa], "\(number) blocks at \(shift)")
            }
        }
    }

    @Test(arguments: available)
    func sameTree(algorithm: VerityAlgorithm) throws {
        let lanes = try #require(BlockLanes(algorithm))
        let digestSize = algorithm.digestSize
        let perBlock = 4096 / digestSize
        var together = VerityHasher(algorithm, lanes)
        var apart = VerityHasher(algorithm, nil)
        let few = [0, 1, lanes.fewest - 1, lanes.fewest, lanes.count, lanes.count + 1]
        let blocks = few + [perBlock - 1, perBlock, perBlock + 1, 2 * perBlock + 9]
        for count in blocks.flatMap({ [$0 * 4096, $0 * 4096 + 1, max(0, $0 * 4096 - 1)] }) {
            let content = content(count)
            for part in [count, 100_000, 65_536, 4096 * 3 + 17] where part > 0 {
                func digest(_ hasher: inout VerityHasher) -> (ObjectID, [UInt8]?) {
                    hasher.collectBlockHashes(limit: .max)
                    content.withUnsafeBytes { bytes in
                        for start in stride(from: 0, to: count, by: part) {
                            hasher.update(UnsafeRawBufferPointer(rebasing: bytes[start..<min(count, start + part)]))
                        }
                    }
                    return (hasher.finalize(), hasher.takeBlockHashes())
                }
                #expect(digest(&together) == digest(&apart), "\(count) bytes in parts of \(part)")
            }
        }
    }

    /// Other programs' digest of content of more than one tree level: `fsverity digest` of 3,000,000 bytes `i % 251`.
    @Test(arguments: available)
    func golden(algorithm: VerityAlgorithm) throws {
        let lanes = try #require(BlockLanes(algorithm))
        var hasher = VerityHasher(algorithm, lanes)
        (0..<3_000_000).map { UInt8($0 % 251) }.withUnsafeBytes { hasher.update($0) }
        let expected =
            switch algorithm {
            case .sha256: "806637cc95983f0e50918d26413ef0a35b7cd8ed7c16e2c5ff140ea87bdc8f58"
            case .sha512:
                "5b9071cd592a531344fd5041eedcf2fe6207cc7a572ed82731cf921a5281768b7457afcc9cfdf1c31316fb8edfed03ad88e832979a634442fff1be8df7f78fe2"
            }
        #expect(hasher.finalize().hex == expected)
    }
}
