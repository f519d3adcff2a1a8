import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsMounting

@Suite(.serialized) struct UnmountTests {
    @Test func pathsThatLeadThere() throws {
        try TestImage.with { test in
            let link = test.base + "/link"
            try FileDescriptor.currentDirectory.symlink(target: "target", at: link)
            for path in [test.target + "/", test.target + "//.", link, link + "/", test.base + "/../" + test.name + "/target"] {
                try test.mount()
                try unmount(path)
                #expect(try mountLine(test.target) == nil, "\(path)")
            }
            try test.mount()
            #expect(failure { try unmount(test.target + "/sub") } == .notMounted(test.target + "/sub"))
            #expect(failure { try unmount(test.target + "/inline") } == .notMounted(test.target + "/inline"))
            let none = test.base + "/none"
            #expect(failure { try unmount(none) } == .system(SystemError("open", none, .noEntry)))
        }
    }

    /// Unmounts the topmost mount, one at a time.
    @Test func mountsUponEachOther() throws {
        try TestImage.with { test in
            let before = try mountCount(test)
            for _ in 0..<3 { try test.mount() }
            for left in [2, 1, 0] {
                try unmount(test.target)
                #expect(try mountCount(test) == before + left)
            }
            #expect(failure { try unmount(test.target) } == .notMounted(test.target))
        }
    }

    /// A name that the kernel has to escape.
    @Test func strangeNames() throws {
        try TestImage.with { test in
            let target = try test.makeDirectory("a b\\040\t\n,:é")
            try mountImage(try test.open(test.image), objects: try test.open(test.objects), verity: .none, at: target)
            try unmount(target)
            #expect(failure { try unmount(target) } == .notMounted(target))
        }
    }

    @Test func whatIsNoImageStays() throws {
        try TestImage.with { test in
            let directory = try test.makeDirectory("other")
            defer { umount2(directory.description, Int32(MNT_DETACH)) }
            let context = try FileSystemContext("tmpfs")
            try context.set("source", "some thing")
            try context.create()
            try attach(try context.mount([]), directory)
            #expect(failure { try unmount(directory) } == .notAnImage(directory, type: "tmpfs", source: "some thing"))
            #expect(
                failure { try unmount(directory) }?.description
                    == "\(directory): not an image: the mount has type tmpfs and source some thing; use umount(8)")
            #expect(umount2(directory.description, 0) == 0)

            // An overlay of plain directories.
            for name in ["one", "two"] as [ByteString] { _ = try test.makeDirectory(name) }
            let overlay = try FileSystemContext("overlay")
            try overlay.set("source", "overlay")
            try overlay.set("lowerdir", test.base + "/one:" + test.base + "/two")
            try overlay.create()
            try attach(try overlay.mount(.readOnly), directory)
            #expect(failure { try unmount(directory) } == .notAnImage(directory, type: "overlay", source: "overlay"))
            #expect(umount2(directory.description, 0) == 0)
        }
    }

    private func attach(_ mount: consuming FileDescriptor, _ directory: ByteString) throws {
        try FileDescriptor.attachMount(mount.raw, at: directory)
    }

    /// A mount by a tool that leaves the EROFS part attached.
    @Test func bothPartsGo() throws {
        try TestImage.with { test in
            guard (try? FileDescriptor.open("/usr/bin/mount", .pathOnly)) != nil else { try Test.cancel("needs mount(8)") }
            let before = (try mountCount(test), try loopDevices(test))
            let part = try test.makeDirectory("part")
            let second = try test.makeDirectory("second")
            defer { for path in [second, part] { while umount2(path.description, Int32(MNT_DETACH)) == 0 {} } }
            func join(_ target: ByteString) throws {
                try run(
                    "/usr/bin/mount",
                    [
                        "-t", "overlay", "-o", "ro,metacopy=on,redirect_dir=on,lowerdir=" + part + "::" + test.objects, "some-tool", target,
                    ])
            }
            for lazily in [false, true] {
                try run("/usr/bin/mount", ["-t", "erofs", "-o", "ro", test.image, part])
                try join(test.target)
                try join(second)
                #expect(try test.mounted("external") == TestImage.external)
                try unmount(test.target, lazily: lazily)
                // The other mount still needs it.
                #expect(try mountLine(part) != nil && mountLine(second) != nil && mountLine(test.target) == nil)
                try unmount(second, lazily: lazily)
                #expect(try mountCount(test) == before.0)
            }
            for _ in 0..<100 where try loopDevices(test) != before.1 { Host.sleep(milliseconds: 10) }
            #expect(try loopDevices(test) == before.1)
        }
    }

    // MARK: The kernel's table

    @Test func linesOfTheTable() throws {
        let line = #"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:3 - ext3 /dev/ro\134ot rw,errors=continue,a\054b"#
        let entry = try #require(MountEntry(line: line.utf8))
        #expect(entry.id == 36 && entry.target == "/mnt 2" && entry.type == "ext3" && entry.source == "/dev/ro\\ot")
        #expect(entry.options == ["rw", "errors=continue", "a,b"])
        #expect(!entry.isImage && entry.layers.isEmpty)
        // Truncated at any position: no entry or one, never a trap.
        for end in 0..<line.utf8.count { _ = MountEntry(line: line.utf8.prefix(end)) }
        for bad in ["", " ", "36 35 98:0 /mnt1 /mnt2 rw - ext3 x", "x 35 98:0 /mnt1 /mnt2 rw - ext3 x rw", "36 35 98:0 / / rw a b c d e"] {
            #expect(MountEntry(line: bad.utf8) == nil, "\(bad)")
        }
    }

    @Test func whatCountsAsAnImage() throws {
        func entry(_ end: String) throws -> MountEntry { try #require(MountEntry(line: ("1 2 0:3 / /m ro shared:1 - " + end).utf8)) }
        #expect(try entry("overlay composefs ro").isImage)
        #expect(try entry("overlay composefs:abc ro").isImage)
        #expect(try entry("overlay /image ro,lowerdir+=/,datadir+=/objects").isImage)
        #expect(try entry("overlay x ro,lowerdir=/a::/b").isImage)
        #expect(try !entry("overlay overlay rw,lowerdir=/a:/b,upperdir=/c::d,workdir=/e").isImage)
        #expect(try !entry("erofs composefs ro").isImage)
        #expect(try entry("fuse.composefs x ro").isImage)
        #expect(try entry("fuse composefs:abc ro").isImage)
        #expect(try !entry("fuse.sshfs host: ro").isImage)
        #expect(try entry(#"overlay x ro,lowerdir=/a\134:b:/c::/d\134\134e,upperdir=/u"#).layers == ["/a:b", "/c", #"/d\e"#])
        #expect(try entry("overlay x ro,lowerdir+=/a,lowerdir+=/b,datadir+=/c").layers == ["/a", "/b", "/c"])
    }
}
