import ComposefsBootFormats
import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsTestSupport
import Testing

@testable import ComposefsBoot

/// Preparing images: what is on the boot partition and in the state directory afterwards.
@Suite struct BootPrepareTests {
    private static let kernel = String(repeating: "kernel of version 1. ", count: 50)

    private func argument(_ id: ObjectID) -> String { "composefs.digest=?v1-sha256-12:\(id.hex)" }

    @Test func kernelOfAnImage() throws {
        let fixture = try BootFixture()
        let id = try fixture.bootable("1", kernel: Self.kernel, disk: "disk 1", [("var/lib/data", Array("of the image".utf8))])
        let prepared = try fixture.prepare("1") { $0.arguments = KernelCommandLine(["rw", "console=tty0", "console=ttyS0"]) }
        #expect(prepared.id == id && prepared.isNext && prepared.filesWritten == 2 && prepared.filesShared == 0 && prepared.etc == .new)
        #expect(prepared.bytesWritten == UInt64(Self.kernel.utf8.count + 6))
        let system = try fixture.read("sysroot/state/cfsoci-system").dropLast()
        let name = "composefs-\(system)-1"
        let (linux, initrd) = ("composefs/\(BootFixture.digest(Self.kernel)).linux", "composefs/\(BootFixture.digest("disk 1")).initrd")
        #expect(
            try fixture.listing("boot") == [
                "loader": "/", "loader/entries": "/", "composefs": "/", linux: Self.kernel, initrd: "disk 1",
                "loader/entries/\(name).conf": """
                # Written by cfsoci for the system \(system)
                title Example OS 1
                version 1-6.1
                sort-key composefs
                linux /\(linux)
                initrd /\(initrd)
                options \(argument(id)) rw console=tty0 console=ttyS0

                """,
            ])
        var state = try fixture.listing("sysroot/state")
        let removed = state.removeValue(forKey: "deploy/\(id.hex)/deployment.json")
        let record = try #require(removed)
        #expect(record.contains(#""image": "1""#) && record.contains(#""kernel": "6.1""#) && record.contains(#""title": "Example OS 1""#))
        #expect(
            state == [
                "cfsoci-system": "\(system)\n", "deploy": "/", "deploy/\(id.hex)": "/", "deploy/\(id.hex)/etc": "/",
                "deploy/\(id.hex)/etc/upper": "/", "deploy/\(id.hex)/etc/work": "/", "deploy/\(id.hex)/var": "-> ../../os/default/var",
                "os": "/", "os/default": "/", "os/default/var": "/", "os/default/var/lib": "/", "os/default/var/lib/data": "of the image",
            ])
    }

    @Test func kernelsAreShared() throws {
        let fixture = try BootFixture()
        let first = try fixture.bootable("1", kernel: Self.kernel, disk: "disk 1")
        let second = try fixture.bootable("2", kernel: Self.kernel, disk: "disk 2")
        try fixture.prepare("1")
        let prepared = try fixture.prepare("2")
        #expect(prepared.filesWritten == 1 && prepared.filesShared == 1 && prepared.isNext)
        #expect(prepared.etc == .merged(from: first, kept: [], removed: [], conflicts: []))
        let status = try fixture.deployments().status(try fixture.partition())
        #expect(
            status.entries.map(\.images) == [[second], [first]] && status.next?.images == [second] && status.previous?.images == [first])
        #expect(status.entries.map(\.version) == ["2-6.1", "1-6.1"] && status.booted == nil)

        // A file of which a power cut left half is written again.
        try fixture.write("boot/composefs/" + ByteString(BootFixture.digest(Self.kernel)) + ".linux", "torn")
        let again = try fixture.prepare("1")
        #expect(
            again.filesWritten == 1 && again.filesShared == 1 && again.replaced.count == 1
                && again.etc
                    == .merged(
                        from: second, kept: [], removed: [], conflicts: [])
        )
        #expect(try fixture.read("boot/composefs/" + ByteString(BootFixture.digest(Self.kernel)) + ".linux") == Self.kernel)
        #expect(try fixture.partition().entries().map(\.images) == [[first], [second]])
    }

    @Test func entryOfTheImage() throws {
        let fixture = try BootFixture()
        let entry = """
            # of the image
            title Entry of the image
            version 7
            machine-id 0123
            linux /boot/vmlinuz
            initrd /boot/microcode
            initrd /boot/disk
            options root=/dev/old composefs=00 quiet
            options console=tty0
            architecture x64

            """
        let id = try fixture.image(
            "e",
            [
                ("boot/loader/entries/a.conf", Array(entry.utf8)), ("boot/vmlinuz", Array(Self.kernel.utf8)),
                ("boot/microcode", [1, 2, 3]),
                ("boot/disk", [1, 2, 3]),
            ])
        try fixture.prepare("e") {
            $0.entry = "chosen"
            $0.subdirectory = "a/b"
            $0.arguments = KernelCommandLine(["root=/dev/new"])
        }
        let disk = ContentDigest.of([1, 2, 3]).hex
        let written = try fixture.read("boot/loader/entries/chosen.conf").split(separator: "\n").dropFirst()
        #expect(
            Array(written) == [
                "title Entry of the image", "version 1-7", "sort-key composefs", "machine-id 0123",
                "linux /a/b/\(BootFixture.digest(Self.kernel)).linux", "initrd /a/b/\(disk).initrd", "initrd /a/b/\(disk).initrd",
                "architecture x64", "options quiet console=tty0 \(argument(id)) root=/dev/new",
            ])
        #expect(try fixture.read("boot/a/b/\(BootFixture.digest(Self.kernel)).linux".bytes) == Self.kernel)
        // The same name again, for another image.
        let other = try fixture.bootable("o", kernel: "k", disk: "d")
        try fixture.prepare("o") { $0.entry = "chosen" }
        #expect(try fixture.partition().entries().map(\.images) == [[other]])
    }

    @Test func theNewestKernelUnlessOneIsNamed() throws {
        let fixture = try BootFixture()
        var files: [(ByteString, [UInt8])] = []
        for version in ["6.9", "6.12", "6.10"] as [ByteString] {
            files.append(("boot/vmlinuz-" + version, Array("kernel ".utf8) + version.bytes))
            files.append(("boot/initrd.img-" + version, Array("disk ".utf8) + version.bytes))
        }
        try fixture.image("debian", files)
        func kernel() throws -> String {
            let linux = try #require(try fixture.partition().entries().first?.files.first)
            return try fixture.read("boot/" + linux)
        }
        try fixture.prepare("debian")
        #expect(try kernel() == "kernel 6.12")
        for name in ["6.9", "/boot/vmlinuz-6.9"] as [ByteString] {
            try fixture.prepare("debian") { $0.resource = name }
            #expect(try kernel() == "kernel 6.9")
        }
        // Kernels of /usr/lib/modules come first, and what is damaged does not count.
        let modules: ByteString = "usr/lib/modules/"
        try fixture.image(
            "both",
            files + [
                (modules + "5.1/vmlinuz", Array("kernel 5.1".utf8)), (modules + "5.1/initramfs.img", [1]), (modules + "7/vmlinuz", [1]),
            ])
        try fixture.prepare("both")
        #expect(try kernel() == "kernel 5.1")
    }

    private func unified(_ arguments: String) -> [UInt8] {
        EFIProgram([(".osrel", "ID=example\nVERSION_ID=1\n"), (".cmdline", arguments), (".linux", "kernel")]).bytes
    }

    /// In an image that was made from a directory, a unified kernel image below /usr cannot name the image; one below /boot is not in it. The
    /// command's tests have images that were pulled.
    @Test func unifiedKernelImagesMustNameTheImage() throws {
        let fixture = try BootFixture()
        let other = try fixture.bootable("o", kernel: "k", disk: "d")
        for (arguments, expected) in [
            ("quiet", "names no composefs image"), (argument(other), "names the image \(other.hex), and not "),
            ("composefs=zz", "kernel argument composefs=zz"),
        ] {
            try fixture.image("u", [("usr/lib/modules/6.1/u.efi", unified(arguments))])
            let before = try fixture.listing("boot")
            let error = #expect(throws: (any Error).self) { try fixture.prepare("u") }
            #expect(error.map { "\($0)".contains(expected) } == true, "\(error.map { "\($0)" } ?? "")")
            #expect(try fixture.listing("boot") == before)
        }
        #expect(try fixture.deployments().all().isEmpty)
    }

    @Test func whatCannotBePrepared() throws {
        let fixture = try BootFixture()
        try fixture.image("nothing", [("usr/x", [1])])
        try fixture.image("torn", [("usr/lib/modules/6.1/vmlinuz", [1])])
        try fixture.image(
            "tree", [("boot/k", [1]), ("boot/loader/entries/a.conf", Array("linux /boot/k\ndevicetree-overlay /boot/a /boot/b\n".utf8))])
        try fixture.bootable("good", kernel: "k", disk: "d")
        try fixture.write("boot/loader/entries/other.conf", "title Other\nlinux /other\noptions root=/dev/sda\n")
        let before = try fixture.listing("boot")
        func refusal(_ name: ByteString, _ change: @escaping (inout BootPreparation) -> Void = { _ in }) -> String {
            do {
                try fixture.prepare(name, change)
                return "prepared"
            } catch {
                return "\(error)"
            }
        }
        #expect(refusal("missing") == "no image \"missing\"" || refusal("missing").contains("missing"))
        #expect(refusal("nothing").hasPrefix("the image has nothing to boot"))
        #expect(refusal("torn").contains("/usr/lib/modules/6.1/vmlinuz in the image cannot be booted: there is no initial RAM disk"))
        #expect(refusal("tree").contains("devicetree-overlay"))
        #expect(refusal("good") { $0.resource = "7" }.contains("\"7\""))
        #expect(refusal("good") { $0.entry = "a/b" }.contains("a/b"))
        #expect(refusal("good") { $0.entry = ".." }.contains(".."))
        #expect(refusal("good") { $0.subdirectory = "../x" }.contains("../x"))
        #expect(refusal("good") { $0.arguments = KernelCommandLine(["\"a\nlinux /evil\""]) }.contains("cannot be part of an entry"))
        #expect(refusal("good") { $0.entry = "other" }.contains("other.conf exists, and cannot be replaced"))
        #expect(try fixture.listing("boot") == before)
    }

    // MARK: Power cuts

    /// Every entry is complete: its files have the content that their names say.
    private func expectComplete(_ fixture: BootFixture, _ possible: [[ObjectID]]) throws {
        let entries = try fixture.partition().entries()
        #expect(possible.contains(entries.compactMap(\.images.first)) && entries.allSatisfy { $0.images.count == 1 })
        for entry in entries {
            #expect(entry.files.count == 2)
            for file in entry.files {
                let name = ByteString(file.bytes.split(separator: UInt8(ascii: "/")).last ?? [])
                #expect(BootFixture.digest(try fixture.read("boot/" + file)) == "\(name)".prefix(64))
            }
            for image in entry.images {
                #expect(try fixture.deployments().deployment(image)?.record != nil)
                #expect(try fixture.read("sysroot/state/deploy/" + ByteString(image.hex) + "/etc/upper/local") == "kept")
            }
        }
    }

    /// A sample; CFSOCI_BOOT_CUTS=1 cuts after every call.
    @Test func powerCuts() throws {
        let every = Host.environment("CFSOCI_BOOT_CUTS").flatMap { $0.utf8Text.flatMap(Int.init) } ?? 7
        var cut = 0
        var isDone = false
        while !isDone {
            let fixture = try BootFixture()
            let first = try fixture.bootable("1", kernel: Self.kernel, disk: "disk 1")
            let second = try fixture.bootable("2", kernel: Self.kernel + "2", disk: "disk 2")
            try fixture.prepare("1")
            try fixture.write("sysroot/state/deploy/" + ByteString(first.hex) + "/etc/upper/local", "kept")
            let observer = Cut(after: cut)
            try? observer.observe { try fixture.prepare("2") }
            isDone = observer.calls <= cut
            #expect(observer.problems == [])
            try expectComplete(fixture, isDone ? [[second, first]] : [[first], [second, first]])
            // Repeated, it succeeds; and nothing unfinished is left then.
            try fixture.prepare("2")
            try expectComplete(fixture, [[second, first]])
            _ = try fixture.deployments().collectGarbage(try fixture.partition())
            let left = try Array(fixture.listing("boot").keys) + Array(fixture.listing("sysroot/state").keys)
            #expect(left.filter { $0.contains(".tmp") || $0.contains(".cfsoci-") } == [])
            #expect(try fixture.listing("boot").keys.filter { $0.hasPrefix("composefs/") }.count == 4)
            cut += every
        }
        #expect(cut > 30)
    }
}

extension String {
    fileprivate var bytes: ByteString { ByteString(self) }
}
