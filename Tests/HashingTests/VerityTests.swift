import Testing

@testable import ComposefsHashing

/// Values from the specification's golden file (fs-verity of 4 KiB blocks, no salt), pinned by other implementations.
@Suite struct VerityDigests {
    private func sha256(_ content: [UInt8]) -> String {
        content.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256).hex }
    }

    @Test(arguments: [
        (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (1000, "f6fa43bbc0a7908e2ef77438244159e9dec289dfc4c49d229237f9797a6a9b79"),
        (2000, "f13c0c1a5b8bc8b8983be2761bae9dd229cc951b260dab7b2558987542c45c23"),
        (3000, "0000610752b6366b2bd42ce92fa0c0089bc132408b8f3dc20f879a06d0e05aaf"),
        (4095, "5372beb83c78537c8970c8361e3254119fafdf1763854ecd57d3f0fe2da7c719"),
        (4096, "babc284ee4ffe7f449377fbf6692715b43aec7bc39c094a95878904d34bac97e"),
        (4097, "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"),
    ])
    func zeros(count: Int, expected: String) {
        #expect(sha256([UInt8](repeating: 0, count: count)) == expected)
    }

    /// Counting zeros gives the same digest as hashing them, at any position in the content.
    @Test(arguments: [0, 1, 4095, 4096, 4097, 130 * 4096, 1_000_000, 40_000_001])
    func countedZeros(count: Int) {
        for algorithm in VerityAlgorithm.allCases {
            for (before, after) in [(0, 0), (1, 0), (0, 1), (4096, 4096), (5000, 300)] {
                let (first, last) = ([UInt8](repeating: 1, count: before), [UInt8](repeating: 2, count: after))
                var hasher = VerityHasher(algorithm)
                first.withUnsafeBytes { hasher.update($0) }
                hasher.update(zeros: UInt64(count))
                last.withUnsafeBytes { hasher.update($0) }
                let whole = first + [UInt8](repeating: 0, count: count) + last
                #expect(hasher.finalize() == whole.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) })
            }
        }
    }

    @Test func helloWorld() {
        #expect(sha256(Array("hello world".utf8)) == "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64")
        let long = Array("hello world".utf8).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) }
        #expect(
            long.hex
                == "18430270729d162d4e469daca123ae61893db4b0583d8f7081e3bf4f92b88ba514e7982f10733fb6aa895195c5ae8fd2eb2c47a8be05513ce5a0c51a6f570409"
        )
        #expect(sha256(Array("{}".utf8)) == "7f943a505c946ab0b3bc97afd3ab20cc376b16a0560b1da6f9abf5f6086d4515")
    }

    /// The hashes of blocks are collected beside the digest, up to the limit.
    @Test(arguments: VerityAlgorithm.allCases)
    func collectedBlockHashes(algorithm: VerityAlgorithm) {
        let digest: DigestAlgorithm = algorithm == .sha256 ? .sha256 : .sha512
        var hasher = VerityHasher(algorithm)
        for count in [0, 1, 4095, 4096, 4097, 3 * 4096, 129 * 4096 + 5] {
            let content = (0..<count).map { UInt8(truncatingIfNeeded: $0 / 4096 + $0) }
            var expected: [UInt8] = []
            for start in stride(from: 0, to: count, by: 4096) {
                let block = content[start..<min(start + 4096, count)]
                expected += ContentDigest.of(Array(block) + [UInt8](repeating: 0, count: 4096 - block.count), digest).bytes
            }
            for (limit, kept) in [(expected.count, true), (expected.count - 1, expected.isEmpty)] {
                hasher.collectBlockHashes(limit: limit)
                for part in stride(from: 0, to: count, by: 1000) {
                    content[part..<min(part + 1000, count)].withUnsafeBytes { hasher.update($0) }
                }
                #expect(hasher.finalize() == content.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) })
                #expect(hasher.takeBlockHashes() == (kept ? expected : nil), "\(count) bytes")
                #expect(hasher.takeBlockHashes() == nil)
            }
        }
        // Zeros that are only counted have hashes, too.
        hasher.collectBlockHashes(limit: 1 << 10)
        hasher.update(zeros: 5000)
        _ = hasher.finalize()
        let zeros = ContentDigest.of([UInt8](repeating: 0, count: 4096), digest).bytes
        #expect(hasher.takeBlockHashes() == zeros + zeros)
    }

    /// A simple model of the definition, with whole levels in memory.
    private func model(_ content: [UInt8], _ algorithm: VerityAlgorithm) -> [UInt8] {
        let digest: DigestAlgorithm = algorithm == .sha256 ? .sha256 : .sha512
        var level = content
        var root = [UInt8](repeating: 0, count: algorithm.digestSize)
        if !content.isEmpty {
            repeat {
                var next: [UInt8] = []
                for start in stride(from: 0, to: level.count, by: 4096) {
                    var block = Array(level[start..<min(start + 4096, level.count)])
                    block += [UInt8](repeating: 0, count: 4096 - block.count)
                    next += ContentDigest.of(block, digest).bytes
                }
                level = next
            } while level.count > algorithm.digestSize
            root = level
        }
        var descriptor: [UInt8] = [1, algorithm.rawValue, 12, 0, 0, 0, 0, 0]
        descriptor += (0..<8).map { UInt8(truncatingIfNeeded: content.count >> (8 * $0)) }
        descriptor += root + [UInt8](repeating: 0, count: 256 - 16 - root.count)
        return ContentDigest.of(descriptor, digest).bytes
    }

    /// Sizes around the boundary of every level: 128 SHA-256 hashes or 64 SHA-512 hashes fill a tree block.
    @Test(arguments: VerityAlgorithm.allCases)
    func treeLevels(algorithm: VerityAlgorithm) {
        let fan = 4096 / algorithm.digestSize
        var hasher = VerityHasher(algorithm)
        for blocks in [1, 2, fan - 1, fan, fan + 1, 2 * fan, fan * fan, fan * fan + 1] {
            for extra in [-1, 0, 1] {
                let count = blocks * 4096 + extra
                let content = [UInt8](unsafeUninitializedCapacity: count) { out, used in
                    for index in 0..<count { out[index] = UInt8(truncatingIfNeeded: index &* 31 &+ index >> 12) }
                    used = count
                }
                let expected = model(content, algorithm)
                // Unusual part sizes, so that blocks are never aligned with updates.
                content.withUnsafeBytes { all in
                    var at = 0
                    while at < count {
                        let end = min(at + 7919, count)
                        hasher.update(UnsafeRawBufferPointer(rebasing: all[at..<end]))
                        at = end
                    }
                }
                #expect(hasher.finalize().bytes == expected, "\(blocks) blocks \(extra)")
            }
        }
    }

    /// A digest from the hashes of blocks is that of the content, for trees of one to three levels and with zeros in between.
    @Test(arguments: VerityAlgorithm.allCases, [1, 2, 64, 65, 128, 129, 4097]) func blockHashes(_ algorithm: VerityAlgorithm, _ blocks: Int)
    {
        var content = [UInt8](repeating: 0, count: blocks * 4096)
        for at in stride(from: 0, to: content.count, by: 4096) where at % 12288 != 4096 {
            content[at] = UInt8(truncatingIfNeeded: at >> 12)
            content[at + 4095] = UInt8(truncatingIfNeeded: at >> 20) | 1
        }
        let hashes = UnsafeMutableRawBufferPointer.allocate(byteCount: blocks * algorithm.digestSize, alignment: 64)
        defer { hashes.deallocate() }
        var hasher = VerityHasher(algorithm)
        hasher.blockHashes = hashes.baseAddress
        // In parts that end inside of blocks, and one run of zeros.
        let expected = content.withUnsafeBytes { bytes in
            var at = 0
            for part in [1000, 5000, 4096, 100_000].cycled where at < bytes.count {
                let end = min(bytes.count, at + part)
                hasher.update(UnsafeRawBufferPointer(rebasing: bytes[at..<end]))
                at = end
                if at == bytes.count { break }
            }
            return VerityHasher.objectID(of: bytes, algorithm)
        }
        #expect(hasher.finalize() == expected && hasher.blockHashes == nil)
        hasher.update(blockHashes: UnsafeRawBufferPointer(hashes))
        #expect(hasher.finalize() == expected)
        hasher.update(zeros: UInt64(content.count))
        let plain = [UInt8](repeating: 0, count: content.count)
        #expect(plain.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) } == hasher.finalize())
    }
}

@Suite struct ContentDigests {
    @Test func knownValues() {
        #expect(ContentDigest.of(Array("".utf8)).description == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(
            ContentDigest.of(Array("hello world".utf8)).description
                == "sha256:b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")
        #expect(ContentDigest.of(Array("{}".utf8)).hex == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a")
        #expect(ContentDigest.of([], .sha384).hex.hasPrefix("38b060a7"))
        #expect(ContentDigest.of([], .sha512).hex.hasPrefix("cf83e135"))
    }

    @Test(arguments: [
        "", "sha256", "sha256:", "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8",
        "sha256:44136FA355B3678A1146AD16F7E8649E94FB4FC21FE77E8310C060F61CAAFF8A",
        "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:../../../../../../etc/passwd0000000000000000000000000000000000000000",
        " sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    ])
    func malformed(text: String) {
        #expect(ContentDigest(text) == nil)
    }
}

@Suite struct ObjectIDs {
    @Test func pathsAndHex() throws {
        let hex = "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"
        let id = try #require(ObjectID(hex: hex))
        #expect(id.algorithm == .sha256)
        #expect(id.objectPath == "1e/2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64")
        #expect(ObjectID(objectPath: id.objectPath.utf8) == id)
        #expect(id.hex == hex)
        #expect(ObjectID(hex: hex.uppercased()) == nil)
        #expect(ObjectID(hex: String(hex.dropLast())) == nil)
        #expect(ObjectID(hex: hex + hex)?.algorithm == .sha512)
    }
}

extension [Int] {
    /// The elements again and again.
    fileprivate var cycled: some Sequence<Int> {
        sequence(state: 0) { state in
            state += 1
            return self[(state - 1) % count]
        }
    }
}
