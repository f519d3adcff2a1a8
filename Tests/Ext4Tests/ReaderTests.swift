import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

private let plain = Metadata(permissions: 0o644, modified: Timestamp(seconds: 1_700_000_000))

/// The tree of an image, with the contents of files as inline contents.
private func tree(of source: some RandomAccessBytes) throws -> FileTree {
    let image = try Ext4Image(source)
    return try image.tree { .inline(ByteString(try image.content(of: $0, limit: 1 << 26))) }
}

/// Everything that an image has must equal the tree from which it was made.
private func expectTree(_ bytes: [UInt8], _ random: RandomTree) throws {
    var found = describe(try tree(of: bytes))
    found["/lost+found"] = nil
    expectEqual(found, describe(random.tree, random.contents))
}

@Suite struct Reader {
    @Test(arguments: 20..<30 as Range<UInt64>)
    func randomTrees(seed: UInt64) throws {
        let random = try RandomTree(seed: seed)
        try expectTree(imageBytes(try planOf(random.tree), random.contents), random)
    }

    /// Every name is found through the index, and no other.
    @Test func lookups() throws {
        var it = FileTree(root: plain)
        for index in 0..<3000 { try it.addLeaf(ByteString("\(index)-\u{fc}"), in: FileTree.root, plain, .fifo) }
        let image = try Ext4Image(imageBytes(try planOf(it)))
        let root = try image.root()
        #expect(try image.entries(of: root).count == 3001)
        for index in 0..<3000 {
            let entry = try #require(try image.entry(ByteString("\(index)-\u{fc}"), in: root))
            #expect(entry.kind == .fifo)
        }
        #expect(try image.entry("3000-\u{fc}", in: root) == nil)
        #expect(try image.entry("lost+found", in: root)?.kind == .directory)
    }

    /// An image of another program: mke2fs makes the file system, the kernel fills it.
    @Test(arguments: ["-O ea_inode", "-O ^flex_bg,ea_inode -E hash_seed=11111111-2222-4333-8444-555555555555", "-O metadata_csum_seed"])
    func filledByTheKernel(options: String) throws {
        try requireLoopMounts()
        let image = try ImageFile(try planOf(FileTree(root: plain), Ext4Options(size: .exactly(64 << 20))))
        let made = try image.run("mke2fs -q -F -t ext4 -b 4096 -I 256 -N 20000 \(options) $I")
        try #require(made.status == 0, "\(made.output)")
        let large = options.contains("ea_inode")
        let script = """
            set -e; umask 022
            mkdir many; i=0; while [ $i -lt 2000 ]; do : > many/file-with-a-long-name-$i; i=$((i+1)); done
            ln many/file-with-a-long-name-0 hard; ln -s target short; ln -s $(printf %0200d 1) long
            mknod b b 8 1; mknod c c 300 5; mkfifo p; truncate -s 5M sparse; echo x | dd of=sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null
            setfattr -n user.a -v value hard; setfattr -n trusted.b -v 0x0102030405 p
            setfattr -n user.big -v $(printf %03000d 7) hard; chown 70000:80000 hard; setfacl -m u:1234:r hard
            \(large ? "setfattr -n user.huge -v $(printf %030000d 7) hard; setfattr -n user.huge -v $(printf %030000d 7) sparse" : ":")
            touch -d 2100-01-01T00:00:00.123456789Z short; touch -d 1950-01-01 b; touch -h -d @4000000000 long
            """
        let expected = try withMount(image, "rw") { root -> [String: Description] in
            let (status, output) = try image.run("cd \(root) && \(script)")
            try #require(status == 0, "\(output)")
            return try describe(mounted: root)
        }
        var found = describe(try tree(of: OpenFile(image.folder.path + "/image")))
        found["/lost+found"] = nil
        expectEqual(found, expected)
    }

    // MARK: Hostile images

    /// A changed byte is found by a checksum, or it is in a part that no checksum covers: then the tree is the same, or an error is thrown.
    @Test func everyChangedByte() throws {
        let random = try RandomTree(seed: 3)
        let options = Ext4Options(uuid: Ext4UUID([UInt8](repeating: 9, count: 16)), reservedDescriptorBlocks: 0)
        let plan = try planOf(random.tree, options)
        let bytes = imageBytes(plan, random.contents)
        let original = describe(try tree(of: bytes), random.contents)
        var metadata = Set<Int>()
        for part in plan.metadata { metadata.formUnion((Int(part.offset) / 4096)..<((Int(part.offset) + part.bytes.count) / 4096)) }
        var generator = SplitMix(state: 1)
        var refused = 0
        for _ in 0..<300 {
            let block = generator.pick(Array(metadata))
            let at = block * 4096 + generator.below(4096)
            var changed = bytes
            changed[at] ^= UInt8(1 << generator.below(8))
            do {
                let found = describe(try tree(of: changed), random.contents)
                for (path, one) in found { #expect(one.text == original[path]?.text, "\(path), byte \(at)") }
            } catch is Ext4Error {
                refused += 1
            }
        }
        #expect(refused > 100)
    }

    @Test func truncated() throws {
        let random = try RandomTree(seed: 5)
        let bytes = imageBytes(try planOf(random.tree), random.contents)
        for count in [0, 1, 1023, 1024, 1500, 2047, 2048, 4096, bytes.count - 1] {
            #expect(throws: Ext4Error.self) { try Ext4Image(Array(bytes[..<count])) }
        }
    }

    @Test func whatIsRefused() throws {
        let bytes = imageBytes(try planOf(FileTree(root: plain)))
        func changed(_ offset: Int, _ value: UInt8) -> [UInt8] {
            var copy = bytes
            copy[1024 + offset] = value
            copy.replaceSubrange(2044..<2048, with: checksum(copy))
            return copy
        }
        #expect(throws: Ext4Error.notClean(.journal)) { try Ext4Image(changed(0x60, 0xc2 | 4)) }
        #expect(throws: Ext4Error.unsupported("blocks that do not have 4096 bytes")) { try Ext4Image(changed(0x18, 0)) }
        #expect(throws: Ext4Error.unsupported("incompatible features 0x10")) { try Ext4Image(changed(0x60, 0xc2 | 0x10)) }
        #expect(throws: Ext4Error.self) { try Ext4Image(changed(4, 0xff)) }
        #expect(throws: Ext4Error.self) { try Ext4Image(changed(0x28, 0)) }
        var noMagic = bytes
        noMagic[1024 + 0x38] = 0
        #expect(throws: Ext4Error.notExt4(offset: 1024 + 0x38, "there is no superblock")) { try Ext4Image(noMagic) }
    }

    /// CRC-32C bit by bit, so that the test does not depend on the module's own.
    private func checksum(_ bytes: [UInt8]) -> [UInt8] {
        var crc: UInt32 = ~0
        for byte in bytes[1024..<2044] {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 0 ? crc >> 1 : crc >> 1 ^ 0x82f6_3b78 }
        }
        return (0..<4).map { UInt8(truncatingIfNeeded: crc >> (8 * $0)) }
    }
}
