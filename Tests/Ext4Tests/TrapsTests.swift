import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

private let plain = Metadata(permissions: 0o755, modified: Timestamp(seconds: 1_700_000_000))

/// Cases in which other writers of ext4 fail; the kernel reads each back.
@Suite struct Traps {
    private func throughTheKernel(_ tree: FileTree, _ contents: Contents = Contents()) throws {
        try requireLoopMounts()
        let image = try ImageFile(try planOf(tree), contents)
        try image.check()
        expectEqual(try withMount(image) { try describe(mounted: $0) }, describe(tree, contents))
    }

    /// 2038 does not become 1901, times before 1970 are no error, fractions remain, and what cannot be stored becomes the nearest time.
    @Test func times() throws {
        var tree = FileTree(root: plain)
        let seconds: [Int64] = [
            -(1 << 31), -86_400, -1, 0, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 4_294_967_297, 10_737_418_239, 15_032_385_535,
        ]
        for time in seconds {
            let metadata = Metadata(permissions: 0o644, modified: Timestamp(seconds: time, nanoseconds: 123_456_789))
            try tree.addLeaf(ByteString("at\(time)"), in: FileTree.root, metadata, .inline("x"))
            try tree.addDirectory(ByteString("d\(time)"), in: FileTree.root, metadata)
        }
        try throughTheKernel(tree)

        for (time, stored) in [(Int64.min, Int64(-(1 << 31))), (.max, 15_032_385_535)] {
            var tree = FileTree(root: plain)
            try tree.addLeaf("x", in: FileTree.root, Metadata(permissions: 0, modified: Timestamp(seconds: time)), .fifo)
            let image = try Ext4Image(imageBytes(try planOf(tree)))
            let entry = try #require(try image.entry("x", in: try image.root()))
            #expect(try image.inode(entry.inode).modified.seconds == stored)
        }
    }

    /// Capabilities, labels, lists of access and attributes of users are not lost; the largest values neither.
    @Test func attributes() throws {
        var tree = FileTree(root: plain)
        // struct vfs_cap_data, version 2: cap_net_raw, effective.
        let capability = ByteString([1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        let access = acl([(1, 6, .max), (2, 4, 1234), (4, 4, .max), (8, 5, 70_000), (16, 5, .max), (32, 0, .max)])
        let inherited = acl([(1, 7, .max), (4, 5, .max), (32, 5, .max)])
        func metadata(_ list: [(String, ByteString)]) -> Metadata {
            Metadata(
                permissions: 0o750, uid: 70_000, gid: 80_000,
                extendedAttributes: list.map { ExtendedAttribute(name: ByteString($0.0), value: $0.1) })
        }
        let large = ByteString((0..<65_536).map { UInt8(truncatingIfNeeded: $0 >> 3) })
        let other = ByteString([UInt8](repeating: 0xab, count: 4033))
        try tree.addLeaf("ping", in: FileTree.root, metadata([("security.capability", capability)]), .inline("x"))
        let lists = [("system.posix_acl_access", access), ("system.posix_acl_default", inherited)]
        try tree.addDirectory("folder", in: FileTree.root, metadata(lists))
        try tree.addLeaf("empty", in: FileTree.root, metadata([("user.empty", ""), ("user.e", "1")]), .inline(""))
        try tree.addLeaf("large", in: FileTree.root, metadata([("user.large", large), ("trusted.x", "1")]), .inline("x"))
        try tree.addLeaf(
            "same", in: FileTree.root, metadata([("user.large", large), ("user.other", other), ("user.y", other)]), .inline("x"))
        let many = (0..<100).map { ("user.n\($0)", ByteString("value \($0)")) }
        try tree.addLeaf("many", in: FileTree.root, metadata(many), .inline("x"))
        try tree.addLeaf("link", in: FileTree.root, metadata([("security.selinux", "system_u:object_r:etc_t:s0\0")]), .symbolicLink("x"))
        try throughTheKernel(tree)
    }

    /// A device 0:0 is a device; hard links are one inode; owners above 16 bits remain.
    @Test func kinds() throws {
        var tree = FileTree(root: plain)
        try tree.addLeaf("null", in: FileTree.root, plain, .characterDevice(0))
        try tree.addLeaf("block", in: FileTree.root, plain, .blockDevice(Content.deviceNumber(major: 300, minor: 70_000)))
        let file = try tree.addLeaf("file", in: FileTree.root, Metadata(permissions: 0o4755, uid: .max - 1, gid: 1 << 20), .inline("x"))
        let folder = try tree.addDirectory("z", in: FileTree.root, plain)
        try tree.addLink("again", in: folder, to: file)
        let device = try #require(tree.lookup("null", in: FileTree.root))
        try tree.addLink("null", in: folder, to: device)
        try throughTheKernel(tree)
    }

    /// A name that the root has already: the tree's own entry is kept.
    @Test func lostAndFound() throws {
        var tree = FileTree(root: plain)
        let own = try tree.addDirectory("lost+found", in: FileTree.root, Metadata(permissions: 0o711, uid: 5))
        try tree.addLeaf("x", in: own, plain, .inline("y"))
        let image = try ImageFile(try planOf(tree))
        try image.check()
        let read = try Ext4Image(OpenFile(image.folder.path + "/image"))
        let found = try read.tree { .inline(ByteString(try read.content(of: $0, limit: 100))) }
        expectEqual(describe(found), describe(tree))
        let usual = try ImageFile(try planOf(FileTree(root: plain)))
        let text = try usual.debugfs("stat lost+found")
        #expect(text.contains("Inode: 11 ") && text.contains("Mode:  0700"), "\(text)")
    }

    /// The kernel adds names to an index that was written here, and e2fsck agrees: both use the hash that the superblock says.
    @Test func indexUsedByTheKernel() throws {
        try requireLoopMounts()
        var tree = FileTree(root: plain)
        let folder = try tree.addDirectory("d", in: FileTree.root, plain)
        for index in 0..<2000 { try tree.addLeaf(ByteString("ä\(index)-\u{20ac}"), in: folder, plain, .fifo) }
        let image = try ImageFile(try planOf(tree, Ext4Options(size: .spare(bytes: 64 << 20, inodes: 5000), journal: .automatic)))
        try withMount(image, "rw") { root in
            let script = "cd \(root)/d; for n in $(seq 0 7 1999); do echo ä$n-€; done | xargs rm; seq -f 'ö%g-€' 3000 | xargs touch"
            let (status, output) = try image.run(script)
            #expect(status == 0, "\(output)")
            for index in 0..<2000 { #expect((access("\(root)/d/ä\(index)-€", F_OK) == 0) == (index % 7 != 0)) }
        }
        try image.check()
        let read = try Ext4Image(OpenFile(image.folder.path + "/image"))
        let directory = try #require(try read.entry("d", in: try read.root()))
        let inode = try read.inode(directory.inode)
        #expect(try read.entries(of: inode).count == 2000 - 286 + 3000)
        for index in 1...3000 { #expect(try read.entry(ByteString("ö\(index)-€"), in: inode) != nil) }
    }
}
