import ComposefsBytes
import ComposefsSnapshotFormat
import Testing

@Suite struct DigestTests {
    /// The test vectors of the BLAKE3 reference implementation (test_vectors.json): byte i of the input is i mod 251.
    @Test(arguments: [
        (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
        (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
        (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
        (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
        (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
        (2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"),
        (3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"),
        (8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b"),
        (31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"),
        (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
    ]) func blake3(count: Int, expected: String) {
        let content = (0..<count).map { UInt8($0 % 251) }
        #expect(content.withUnsafeBytes { Blake3Digest.of($0) }.description == expected)
        #expect(Blake3Digest(hex: expected.utf8)?.description == expected)
    }

    @Test func blake3Text() {
        let text = String(repeating: "a", count: 64)
        #expect(Blake3Digest(hex: text.utf8)?.bytes == [UInt8](repeating: 0xaa, count: 32))
        #expect(Blake3Digest(hex: text.dropLast().utf8) == nil && Blake3Digest(hex: text.uppercased().utf8) == nil)
    }

    // The roots are from a Python program with the package blake3, written from the rules at `UpperMerkleTree`.

    private static let leafSize = UpperMerkleTree.leafSize

    private func append(_ content: [UInt8], to tree: inout UpperMerkleTree, _ hasher: inout LeafHasher) {
        content.withUnsafeBytes { all in
            for start in stride(from: 0, to: all.count, by: Self.leafSize) {
                tree.append(hasher.digest(UnsafeRawBufferPointer(rebasing: all[start..<min(all.count, start + Self.leafSize)])))
            }
        }
    }

    /// Byte i is 7i + ⌊i / 251⌋.
    @Test(arguments: [
        (1, "ff6bcbd3a0739fd14ef2bfae57db1372ae75d8ed19e90be2e5eebe4673ce21fc"),
        (65536, "d077999240d9b5f1d806e5c196089fc44ceef9c6db33f6a76532d5414be310ef"),
        (65537, "678bf113690c0a420771727067d24eabe43b68a3af4fbf6380dec5a6a68fda7a"),
        (200_000, "a7841053efe44c236d94e2d78847fed6877072ee523b8a3958c0454c5e68c260"),
        (327_680, "708fa40b605d8817b6690ed4e57118dc8fc69359b37653339f1ba70417f3fb36"),
    ]) func merkleRoot(count: Int, expected: String) {
        var tree = UpperMerkleTree(size: UInt64(count))
        var hasher = LeafHasher()
        append((0..<count).map { UInt8(truncatingIfNeeded: $0 * 7 + $0 / 251) }, to: &tree, &hasher)
        #expect(tree.finish().description == expected)
    }

    @Test func merkleRootOfHoles() {
        var five = UpperMerkleTree(size: 5 * UInt64(Self.leafSize))
        five.append(zeroLeaves: 5)
        #expect(five.finish().description == "4a783fdb50446726aef60fd51c1e62a93c6645abbe7bbb90821b3e7d7043a664")
        var large = UpperMerkleTree(size: 1 << 40)
        large.append(zeroLeaves: 1 << 24)
        #expect(large.finish().description == "22316e55db31021c8d75f5c90e44bb1e9926519136abe359fca9a8c8ecfcfc7b")
        // 1 TiB and five bytes, with data in leaf 3, in the last whole leaf and at the end.
        var mixed = UpperMerkleTree(size: 1 << 40 + 5)
        var hasher = LeafHasher()
        mixed.append(zeroLeaves: 3)
        append([UInt8](repeating: 1, count: Self.leafSize), to: &mixed, &hasher)
        mixed.append(zeroLeaves: 1 << 24 - 5)
        append([UInt8](repeating: 2, count: Self.leafSize), to: &mixed, &hasher)
        append([3, 3, 3, 3, 3], to: &mixed, &hasher)
        #expect(mixed.finish().description == "df6e1e4ceb92158d5fc9d13211eb49a2f769206900d70bf53da8d35fe3d9b892")
    }

    /// Zeros that are read and zeros that are skipped give the same digest, whatever the pieces.
    @Test func holesAndZerosAreEqual() {
        let size = 77 * UInt64(Self.leafSize) - 1000
        var hasher = LeafHasher()
        let data = (0..<77).map { index in [UInt8](repeating: [5, 11, 12, 40].contains(index) ? UInt8(index) : 0, count: Self.leafSize) }
        var read = UpperMerkleTree(size: size)
        for leaf in data { append(leaf, to: &read, &hasher) }
        let expected = read.finish()
        for piece in [1, 3, 64] as [UInt64] {
            var skipped = UpperMerkleTree(size: size)
            var zeros: UInt64 = 0
            func flush() {
                while zeros > 0 {
                    let count = min(zeros, piece)
                    skipped.append(zeroLeaves: count)
                    zeros -= count
                }
            }
            for leaf in data {
                if leaf[0] == 0 {
                    zeros += 1
                } else {
                    flush()
                    append(leaf, to: &skipped, &hasher)
                }
            }
            flush()
            #expect(skipped.finish() == expected)
        }
    }
}
