import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsExt4

@Suite struct Parts {
    /// RFC 3720, appendix B.4, and the check value of CRC-32C in the catalogue of parametrised CRCs.
    @Test func checksums() {
        #expect(~crc32c(~0, [UInt8](repeating: 0, count: 32)) == 0x8a91_36aa)
        #expect(~crc32c(~0, [UInt8](repeating: 0xff, count: 32)) == 0x62a8_ab43)
        #expect(~crc32c(~0, (0..<32).map { UInt8($0) }) == 0x46dd_794e)
        #expect(~crc32c(~0, (0..<32).map { UInt8(31 - $0) }) == 0x113f_db5c)
        #expect(~crc32c(~0, Array("123456789".utf8)) == 0xe306_9283)
        let text = Array("123456789".utf8)
        #expect(crc32c(crc32c(~0, text[..<4]), text[4...]) == crc32c(~0, text))
    }

    /// Values that `debugfs dx_hash` of e2fsprogs 1.47 prints for this seed; for the last name with both signs.
    @Test func directoryHashes() {
        let seed: [UInt8] = [0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x43, 0x33, 0x84, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55]
        func hash(_ name: String, isSigned: Bool = false) -> [UInt32] {
            Array(name.utf8).withUnsafeBytes {
                let (major, minor) = DirectoryHash(seed: seed, isSigned: isSigned)($0)
                return [major, minor]
            }
        }
        #expect(hash("a") == [0xc709_fb08, 0x3bfe_3173])
        #expect(hash(String(repeating: "y", count: 32)) == [0x36b1_58fa, 0xed97_5937])
        #expect(hash(String(repeating: "z", count: 33)) == [0x7021_35b4, 0xf9c7_9d53])
        #expect(hash(String(repeating: "q", count: 255)) == [0xf01b_09e0, 0x1e5c_f7f1])
        #expect(hash("Gőtanús", isSigned: true) == [0x6fa1_353c, 0xdb27_de51])
        #expect(hash("Gőtanús") == [0x4f0a_a6dc, 0xae73_60d0])
        #expect(hash("a", isSigned: true) == hash("a"))
    }

    /// debugfs hashes with signed bytes.
    @Test func directoryHashesOfDebugfs() throws {
        let seed: [UInt8] = (1...16).map { $0 }
        let letters = Array("abcxyz019._äß€🙂".unicodeScalars.map { String($0) })
        let names = (1...80).map { length in (0..<length).map { letters[($0 * 7 + length) % letters.count] }.joined() }
        let folder = try TestFolder("dx-hash")
        let requests = names.map { "dx_hash -h half_md4 -s 01020304-0506-0708-090a-0b0c0d0e0f10 \($0)\n" }.joined()
        let file = try FileDescriptor.open(folder.path + "/requests", [.writeOnly, .create])
        try file.writeAll(Array(requests.utf8))
        let script = ByteString("debugfs -f ") + folder.path + "/requests >" + folder.path + "/found 2>&1"
        #expect(try ChildProcess.start("sh", ["-c", script]).wait() == 0)
        let output = try FileDescriptor.open(folder.path + "/found", .readOnly).readAll(limit: 1 << 20)
        let found = String(decoding: output, as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix("Hash of ") }
        // printf's %0#8x: six digits at least.
        func hex(_ value: UInt32) -> String {
            let digits = String(value, radix: 16)
            return "0x" + String(repeating: "0", count: max(6 - digits.count, 0)) + digits
        }
        let expected = names.map { name -> String in
            let (major, minor) = Array(name.utf8).withUnsafeBytes { DirectoryHash(seed: seed, isSigned: true)($0) }
            return "Hash of \(name) is \(hex(major)) (minor \(hex(minor)))"
        }
        #expect(found.map(String.init) == expected)
    }

    /// The layouts of include/uapi/linux/posix_acl_xattr.h and fs/ext4/acl.h.
    @Test func accessControlLists() throws {
        let attribute: [UInt8] = [
            2, 0, 0, 0,
            // The owner: rw.
            1, 0, 6, 0, 255, 255, 255, 255,
            // User 1234: r.
            2, 0, 4, 0, 0xd2, 4, 0, 0,
            // The group: nothing.
            4, 0, 0, 0, 255, 255, 255, 255,
            // Group 70000: rx.
            8, 0, 5, 0, 0x70, 0x11, 1, 0,
            // The mask, and others.
            16, 0, 5, 0, 255, 255, 255, 255,
            32, 0, 0, 0, 255, 255, 255, 255,
        ]
        let stored: [UInt8] = [
            1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xd2, 4, 0, 0, 4, 0, 0, 0, 8, 0, 5, 0, 0x70, 0x11, 1, 0, 16, 0, 5, 0, 32, 0, 0, 0,
        ]
        #expect(AccessControlList.stored(attribute) == stored)
        #expect(AccessControlList.attribute(stored) == attribute)
        #expect(AccessControlList.stored([2, 0, 0, 0]) == [1, 0, 0, 0])
        for bad: [UInt8] in [[], [2, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0, 1, 0, 6, 0], [2, 0, 0, 0, 3, 0, 6, 0, 0, 0, 0, 0]] {
            #expect(AccessControlList.stored(bad) == nil)
        }
        for bad: [UInt8] in [[], [2, 0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 2, 0, 4, 0, 1], [1, 0, 0, 0, 3, 0, 6, 0]] {
            #expect(AccessControlList.attribute(bad) == nil)
        }
    }

    /// The table in Documentation/filesystems/ext4/inodes.rst ("Inode Timestamps").
    @Test func times() {
        let table: [(Int64, UInt32, UInt32)] = [
            (-0x8000_0000, 0x8000_0000, 0), (-1, 0xffff_ffff, 0), (0, 0, 0), (0x7fff_ffff, 0x7fff_ffff, 0), (0x8000_0000, 0x8000_0000, 1),
            (0xffff_ffff, 0xffff_ffff, 1), (0x1_0000_0000, 0, 1), (0x1_7fff_ffff, 0x7fff_ffff, 1), (0x1_8000_0000, 0x8000_0000, 2),
            (0x2_7fff_ffff, 0x7fff_ffff, 2), (0x2_8000_0000, 0x8000_0000, 3), (0x3_7fff_ffff, 0x7fff_ffff, 3),
        ]
        for (seconds, word, epoch) in table {
            let (low, extra) = InodeTime.encode(Timestamp(seconds: seconds, nanoseconds: 999_999_999))
            #expect(low == word && extra & 3 == epoch && extra >> 2 == 999_999_999)
            #expect(InodeTime.decode(low, extra) == Timestamp(seconds: seconds, nanoseconds: 999_999_999))
        }
        #expect(InodeTime.decode(0, 1_000_000_000 << 2) == nil)
        // Outside the range: the nearest time that can be stored.
        let late = InodeTime.encode(Timestamp(seconds: .max, nanoseconds: 5))
        #expect(InodeTime.decode(late.seconds, late.extra) == Timestamp(seconds: 15_032_385_535, nanoseconds: 999_999_999))
        let early = InodeTime.encode(Timestamp(seconds: .min, nanoseconds: 5))
        #expect(InodeTime.decode(early.seconds, early.extra) == Timestamp(seconds: -2_147_483_648))
    }

    /// `old_encode_dev` and `new_encode_dev` (include/linux/kdev_t.h).
    @Test func devices() {
        func words(_ major: UInt32, _ minor: UInt32) -> [UInt32]? {
            InodeRecord.blockMap(device: Content.deviceNumber(major: major, minor: minor)).map {
                [$0.load(UInt32.self, at: 0), $0.load(UInt32.self, at: 4)]
            }
        }
        #expect(words(0, 0) == [0, 0])
        #expect(words(8, 17) == [0x811, 0])
        #expect(words(255, 255) == [0xffff, 0])
        #expect(words(8, 256) == [0, 0x10_0800])
        #expect(words(259, 5) == [0, 0x1_0305])
        #expect(words(4095, 0xfffff) == [0, 0xffff_ffff])
        #expect(words(4096, 0) == nil)
        #expect(words(0, 0x10_0000) == nil)
    }

    /// Groups with copies of the superblock, as dumpe2fs lists them.
    @Test func groupsWithCopies() {
        #expect((0..<130).filter(Geometry.hasSuperblock) == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125])
        #expect(Geometry.hasSuperblock(2401) && Geometry.hasSuperblock(15625) && !Geometry.hasSuperblock(15))
    }

    @Test func extentBlocks() {
        let counts = [0: 0, 4: 0, 5: 1, 340: 1, 341: 2, 1360: 4, 1361: 6, 340 * 340: 341]
        for (runs, blocks) in counts { #expect(ExtentTree.blockCount(runs: runs) == blocks, "\(runs)") }
    }
}
