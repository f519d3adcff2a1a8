import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

private let plain = Metadata(permissions: 0o755, modified: Timestamp(seconds: 1_700_000_000))

/// A file that holds a file system. It can stop working after a number of writes.
private final class Disk: Ext4Storage {
    private let file: FileDescriptor
    private(set) var writes = 0
    var limit = Int.max

    struct Broken: Error {}

    init(_ image: ImageFile, size: UInt64? = nil) throws {
        file = try FileDescriptor.open(image.folder.path + "/image", .readWrite)
        if let size { try file.truncate(to: size) }
    }

    var byteCount: UInt64 { (try? file.status().size) ?? 0 }

    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws -> Int { try file.preadFully(into: buffer, at: offset) }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws {
        guard writes < limit else { throw Broken() }
        writes += 1
        try file.pwriteAll(bytes, at: offset)
    }

    func sync() throws {}
}

@Suite struct Growth {
    private func upper() throws -> FileTree {
        var tree = FileTree(root: plain)
        for name in ["upper", "work"] as [ByteString] { try tree.addDirectory(name, in: FileTree.root, plain) }
        return tree
    }

    private func upperDisk(_ size: UInt64, reserve: Int = 256) throws -> ImageFile {
        let options = Ext4Options(size: .exactly(size), journal: .automatic, reservedDescriptorBlocks: reserve, hasLostAndFound: false)
        return try ImageFile(try planOf(upper(), options))
    }

    private func tree(_ image: ImageFile) throws -> [String: Description] {
        let it = try Ext4Image(OpenFile(image.folder.path + "/image"))
        return describe(try it.tree { .inline(ByteString(try it.content(of: $0, limit: 1 << 26))) })
    }

    /// A new disk of 4 GiB takes little more than its journal's first block and its bitmaps.
    @Test func formattingIsSparse() throws {
        let image = try upperDisk(4 << 30)
        try image.check()
        let status = try FileDescriptor.currentDirectory.status(at: image.folder.path + "/image")
        #expect(status.size == 4 << 30 && status.blocks * 512 < 2 << 20)
        #expect(Set(try tree(image).keys) == ["", "/upper", "/work"])
    }

    /// Sizes before and after: within a group, to its end, to new groups, over the first block of descriptors, and to ends that are too short.
    @Test(arguments: [
        (64, 65), (64, 128), (100, 300), (128, 129), (128, 384), (300, 2048), (4096, 6144), (6144, 8192 + 128), (1024, 40_000),
        (9000, 100_000),
    ])
    func sizes(_ before: UInt64, _ after: UInt64) throws {
        let image = try upperDisk(before << 20)
        let contents = try tree(image)
        let disk = try Disk(image, size: after << 20)
        let size = try growExt4(disk, to: after << 20, zeroes: before << 20)
        // A last group that has no room for its metadata stays unused.
        #expect(size <= after << 20 && size + (10 << 20) > after << 20)
        try image.check("\(before) to \(after) MiB")
        #expect(try tree(image) == contents)
        // Again, with nothing to do.
        let writes = disk.writes
        #expect(try growExt4(disk, to: size) == size)
        #expect(disk.writes == writes)
    }

    /// Many small steps give a file system that is as good as one step.
    @Test func steps() throws {
        let image = try upperDisk(50 << 20)
        for size in stride(from: 150, through: 9450, by: 930) as StrideThrough<UInt64> {
            let before = try Disk(image).byteCount
            try growExt4(try Disk(image, size: size << 20), to: size << 20, zeroes: before)
        }
        try image.check()
    }

    /// Old content of the storage is overwritten, if the caller does not say that it is zero.
    @Test func storageThatIsNotZero() throws {
        let image = try upperDisk(64 << 20)
        let size: UInt64 = 200 << 20
        #expect(try image.run("head -c 136M /dev/zero | tr '\\0' '\\377' >>$I").status == 0)
        try growExt4(try Disk(image), to: size)
        try image.check()
        try requireLoopMounts()
        try withMount(image, "rw") { root in
            let (status, output) = try image.run("cd \(root) && mkdir $(seq -f d%g 3000); sync")
            #expect(status == 0, "\(output)")
        }
        try image.check("after use")
    }

    /// The kernel fills the disk, it grows, and is filled again; then the kernel itself makes it larger.
    @Test func withTheKernel() throws {
        try requireLoopMounts()
        let image = try upperDisk(64 << 20)
        let fill = "for i in $(seq 40); do head -c 1M /dev/urandom >upper/$1-$i; done; sha256sum upper/* >work/$1.sums"
        func run(_ root: String, _ name: String) throws {
            let (status, output) = try image.run("set -e; cd \(root); set -- \(name); \(fill)")
            #expect(status == 0, "\(output)")
        }
        try withMount(image, "rw") { try run($0, "first") }
        try image.check("filled")
        try growExt4(try Disk(image, size: 1 << 30), to: 1 << 30, zeroes: 64 << 20)
        try image.check("grown")
        try withMount(image, "rw") { root in
            try run(root, "second")
            let (status, output) = try image.run("cd \(root); sha256sum -c --quiet work/first.sums")
            #expect(status == 0, "\(output)")
            // Growing a mounted file system needs CAP_SYS_RESOURCE.
            guard try image.run("setpriv --dump | grep 'bounding set.*sys_resource' > /dev/null").status == 0 else { return }
            let device = "$(findmnt -no SOURCE \(root))"
            let grown = try image.run("set -e; truncate -s 1536M $I; losetup -c \(device); resize2fs \(device)")
            #expect(grown.status == 0, "\(grown.output)")
        }
        try image.check("grown while mounted")
        let (status, output) = try image.run("e2fsck -fp $I; truncate -s 12G $I; resize2fs $I")
        #expect(status == 0, "\(output)")
        try image.check("grown by resize2fs")
        #expect(try tree(image)["/work/second.sums"] != nil)
    }

    /// A file system of mke2fs with its usual features.
    @Test func madeByMke2fs() throws {
        for options in ["", "-O ^flex_bg", "-O ^has_journal"] {
            let image = try upperDisk(64 << 20)
            #expect(try image.run("truncate -s 0 $I; truncate -s 200M $I; mke2fs -q -F -t ext4 -b 4096 -I 256 \(options) $I").status == 0)
            try growExt4(try Disk(image, size: 3 << 30), to: 3 << 30, zeroes: 200 << 20)
            try image.check(options)
        }
    }

    @Test func whatIsRefused() throws {
        let image = try upperDisk(128 << 20, reserve: 1)
        let disk = try Disk(image, size: 20 << 30)
        #expect(throws: Ext4Error.cannotShrink(from: 128 << 20, to: 64 << 20)) { try growExt4(disk, to: 64 << 20) }
        #expect(throws: Ext4Error.storageTooSmall(bytes: 20 << 30, needed: 21 << 30)) { try growExt4(disk, to: 21 << 30) }
        #expect(throws: Ext4Error.growthExceedsReserve(bytes: 20 << 30, maximum: 16 << 30)) { try growExt4(disk, to: 20 << 30) }
        #expect(disk.writes == 0)
        try growExt4(disk, to: 16 << 30, zeroes: 128 << 20)
        try image.check("up to its reserve")

        // States that e2fsck must repair first: set by debugfs.
        let states: [(String, Ext4Error)] = [
            ("ssv state 2", .notClean(.state(2))), ("ssv last_orphan 12", .notClean(.orphans(inode: 12))),
            ("feature needs_recovery", .notClean(.journal)),
        ]
        for (command, error) in states {
            let image = try upperDisk(64 << 20)
            _ = try image.run("debugfs -w -R '\(command)' $I")
            let disk = try Disk(image, size: 256 << 20)
            #expect(throws: error) { try growExt4(disk, to: 256 << 20) }
            #expect(disk.writes == 0)
        }
    }

    /// Whatever a superblock says below a right checksum, growth refuses it before the first write, or ends.
    @Test func changedSuperblocks() throws {
        let before: UInt64 = 200 << 20
        let after: UInt64 = 1 << 30
        let image = try upperDisk(before)
        #expect(try image.run("cp --sparse=always $I $I-old").status == 0)
        let file = try FileDescriptor.open(image.folder.path + "/image-old", .readOnly)
        var original = [UInt8](repeating: 0, count: 1024)
        #expect(try original.withUnsafeMutableBytes { try file.preadFully(into: $0, at: 1024) } == 1024)
        var generator = SplitMix(state: 7)
        var (refused, grown) = (0, 0)
        for _ in 0..<300 {
            // Fields that are in use are in the first half of what is used at all.
            let offset = generator.below(generator.below(2) == 0 ? 0x180 : 1020)
            var changed = original
            changed[offset] = generator.pick([0, 0xff, changed[offset] ^ 1, changed[offset] ^ 0x80, changed[offset] &+ 1])
            for (index, byte) in withUnsafeBytes(of: crc32c(~0, changed[..<1020]).littleEndian, Array.init).enumerated() {
                changed[1020 + index] = byte
            }
            #expect(try image.run("cp --sparse=always $I-old $I").status == 0)
            let writable = try FileDescriptor.open(image.folder.path + "/image", .readWrite)
            try changed.withUnsafeBytes { try writable.pwriteAll($0, at: 1024) }
            let disk = try Disk(image, size: after)
            do {
                try growExt4(disk, to: after, zeroes: before)
                grown += 1
            } catch is Ext4Error {
                refused += 1
                #expect(disk.writes == 0, "byte \(offset)")
            }
        }
        #expect(refused > 30 && grown > 50, "\(refused) \(grown)")
    }

    /// An image that was copied while it was mounted has a journal that must be replayed.
    @Test func copiedWhileMounted() throws {
        try requireLoopMounts()
        let image = try upperDisk(64 << 20)
        let copy = try withMount(image, "rw") { root in
            _ = try image.run("mkdir \(root)/upper/x; sync; cp $I $I-copy")
            return try image.run("cp --sparse=always $I-copy $I-2")
        }
        #expect(copy.status == 0)
        #expect(try image.run("mv $I-2 $I").status == 0)
        let disk = try Disk(image, size: 256 << 20)
        #expect(throws: Ext4Error.notClean(.journal)) { try growExt4(disk, to: 256 << 20) }
        #expect(disk.writes == 0)
        _ = try image.run("e2fsck -fp $I")
        try growExt4(disk, to: 256 << 20)
        try image.check()
        #expect(try tree(image)["/upper/x"] != nil)
    }

    /// After every write the growth is interrupted: e2fsck repairs the file system, and nothing of it is lost.
    @Test func interrupted() throws {
        let before: UInt64 = 200 << 20
        let after: UInt64 = 9 << 30
        let image = try upperDisk(before, reserve: 4)
        #expect(try image.run("cp --sparse=always $I $I-old").status == 0)
        let contents = try tree(image)
        let all = try Disk(image, size: after)
        try growExt4(all, to: after, zeroes: before)
        #expect(all.writes > 10)
        for limit in 0..<all.writes {
            #expect(try image.run("cp --sparse=always $I-old $I").status == 0)
            let disk = try Disk(image, size: after)
            disk.limit = limit
            #expect(throws: Disk.Broken.self) { try growExt4(disk, to: after, zeroes: before) }
            let (status, output) = try image.run("e2fsck -fy $I")
            #expect(status <= 1, "after \(limit) writes: \(status) \(output)")
            try image.check("after \(limit) writes")
            var found = try tree(image)
            found["/lost+found"] = nil
            #expect(found.mapValues(\.content) == contents.mapValues(\.content))
            disk.limit = .max
            try growExt4(disk, to: after, zeroes: before)
            try image.check("grown after \(limit) writes")
        }
    }
}
