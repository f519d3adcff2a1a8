import ComposefsBytes
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// `boot seal-uki`, and the whole way from an image to a sealed image that has the unified kernel image of itself.
@Suite struct SealedBootTests {
    /// The smallest program of EFI that objcopy takes: one section, and a header with the figures of the specification.
    private static let stub: [UInt8] = {
        func little(_ value: UInt64, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * $0)) } }
        var header = little(0x20b, 2) + [14, 0] + little(0x200, 4) + little(0, 8) + little(0x1000, 4) + little(0x1000, 4)
        header += little(base, 8) + little(0x1000, 4) + little(0x200, 4) + little(0, 16)
        // The size in memory, that of the headers, a checksum, the kind (EFI application), and the number of directories.
        header += little(0x2000, 4) + little(0x400, 4) + little(0, 4) + little(10, 2) + little(0, 34) + little(0, 4) + little(16, 4)
        header += [UInt8](repeating: 0, count: 128)
        var file = Array("MZ".utf8) + [UInt8](repeating: 0, count: 0x3a) + little(0x80, 4) + [UInt8](repeating: 0, count: 0x40)
        file += Array("PE\0\0".utf8) + little(0x8664, 2) + little(1, 2) + little(0, 12) + little(UInt64(header.count), 2) + little(0x22, 2)
        file += header + Array(".text\0\0\0".utf8) + little(16, 4) + little(0x1000, 4) + little(0x200, 4) + little(0x400, 4)
        file += [UInt8](repeating: 0, count: 12) + little(0x6000_0020, 4)
        file += [UInt8](repeating: 0, count: 0x400 - file.count) + [UInt8](repeating: 0xc3, count: 0x200)
        return file
    }()
    private static let base: UInt64 = 0x1_4000_0000

    private static let kernel = [UInt8]((0..<30_001).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 9) })
    private static let disk = [UInt8]((0..<9_000).map { UInt8(truncatingIfNeeded: $0 &* 7) })
    private static let release = "ID=example\nPRETTY_NAME=\"Example\"\nVERSION_ID=1\n"

    private static let base1 = tarArchive(
        BootEntriesTests.base + BootEntriesTests.directories(["usr/lib", "usr/lib/modules", "usr/lib/modules/6.1"]) + [
            TarMember(name: "usr/lib/os-release", content: Array(release.utf8)),
            TarMember(name: "usr/lib/modules/6.1/vmlinuz", content: kernel),
            TarMember(name: "usr/lib/modules/6.1/initramfs.img", content: disk),
        ])

    /// A store with the base image as `base`, and the stub.
    private func store() throws -> (store: ContractStore, id: String, stub: String) {
        let store = try ContractStore()
        _ = try store.pull(LayoutBuilder(layers: [Self.base1]), as: "base")
        let stub = store.folder.path + "/stub.efi"
        try writeFile(stub, Self.stub)
        return (store, try store.succeed(["compute-id", "base", "--bootable"]).lines[0], stub)
    }

    /// A section, as objcopy copies it out.
    private func section(_ name: String, of file: String) throws -> [UInt8] {
        let copied = try launch("objcopy", ["-O", "binary", "--only-section=" + name, file, file + name])
        try #require(copied.status == 0, "\(copied.error)")
        return try readFile(file + name)
    }

    /// The example of the documentation: base image, ID, unified kernel image, image with it, seal, registry, boot partition.
    @Test(.enabled(if: isRoot, "needs root: owners and attributes are kept")) func theWholeWay() throws {
        let (store, id, stub) = try store()
        let uki = store.folder.path + "/os.efi"
        let built = try store.succeed([
            "boot", "seal-uki", "base", "--stub", stub, "-o", uki, "--cmdline", "root=/dev/vda2  rw", "--cmdline", "quiet",
            "--allow-insecure",
            "--json",
        ]).json()
        let argument = "composefs.digest=?v1-sha512-12:" + id
        #expect(
            built
                == [
                    "imageId": .string(id), "path": .string(uki), "size": .integer(Int64(try readFile(uki).count)),
                    "options": [.string(argument), "root=/dev/vda2", "rw", "quiet"], "version": "6.1", "program": built["program"] ?? .null,
                ])
        for (name, content) in [
            (".linux", Self.kernel), (".initrd", Self.disk), (".osrel", Array(Self.release.utf8)), (".uname", Array("6.1".utf8)),
            (".cmdline", Array("\(argument) root=/dev/vda2 rw quiet".utf8)),
        ] { #expect(try section(name, of: uki) == content, "\(name)") }

        // The ID does not depend on /boot, so that of the image with the unified kernel image is the same.
        let added = tarArchive(
            BootEntriesTests.directories(["boot/EFI", "boot/EFI/Linux"]) + [
                TarMember(name: "boot/EFI/Linux/os.efi", content: try readFile(uki))
            ])
        _ = try store.pull(LayoutBuilder(layers: [Self.base1, added]), as: "os")
        #expect(try store.succeed(["compute-id", "os", "--bootable"]).lines == [id])
        #expect(try store.succeed(["compute-id", "os"]).lines != store.succeed(["compute-id", "base"]).lines)
        let sealed = try store.succeed(["seal", "os", "--bootable", "--json"]).json()
        #expect(sealed["bootImageId"]?.string == id)
        #expect(try store.succeed(["compute-id", "os", "--bootable"]).lines == [id])
        try store.succeed(["push", "os", "oci:" + store.folder.path + "/registry:os"])

        // The machine that boots it.
        let machine = try ContractStore()
        try machine.succeed(["pull", "oci:" + store.folder.path + "/registry:os", "os", "--require-seal", "--bootable"])
        let entries = try machine.succeed(["boot", "entries", "os", "--json"]).json()["entries"]?.array ?? []
        let entry = try #require(entries.first { $0["type"] == "uki" })
        #expect(entry["options"] == [.string(argument), "root=/dev/vda2", "rw", "quiet"] && entry["title"] == "Example 1")
        #expect(entry["version"] == "6.1" && entry["isInBootImage"] == false && entry["problem"] == .null)
        let boot = machine.folder.path + "/boot"
        mkdir(boot, 0o755)
        let prepared = try machine.succeed(["boot", "prepare", "os", "--boot", boot, "--kernel", "os", "--json"]).json()
        #expect(prepared["imageId"]?.string == id)
        #expect(try readFile(boot + "/" + #require(prepared["path"]?.string)) == readFile(uki))
        #expect(access(machine.folder.path + "/state/deploy/" + id, F_OK) == 0)
    }

    /// By default fs-verity is demanded, which the machine's repository here lacks.
    @Test func demandsVerity() throws {
        let (store, id, stub) = try store()
        let uki = store.folder.path + "/os.efi"
        let lines = try store.succeed(["boot", "seal-uki", "base", "--stub", stub, "-o", uki]).lines
        #expect(lines == ["image  " + id, "file  \(uki)  \(try readFile(uki).count)", "cmdline  composefs.digest=v1-sha512-12:" + id])
        #expect(try section(".cmdline", of: uki) == Array(("composefs.digest=v1-sha512-12:" + id).utf8))
        let files =
            BootEntriesTests.directories(["boot/EFI", "boot/EFI/Linux"])
            + [TarMember(name: "boot/EFI/Linux/os.efi", content: try readFile(uki))]
        _ = try store.pull(LayoutBuilder(layers: [Self.base1, tarArchive(files)]), as: "os")
        mkdir(store.folder.path + "/boot", 0o755)
        #expect(
            try store.refuse(["boot", "prepare", "os", "--boot", store.folder.path + "/boot", "--kernel", "os"]).contains(
                "demands fs-verity"))
    }

    /// Files of this system take the place of the image's, and an image's entry for another image does not count.
    @Test func otherParts() throws {
        let (store, id, stub) = try store()
        let folder = store.folder.path
        try writeFile(folder + "/k", Self.disk)
        try writeFile(folder + "/i", Self.kernel)
        try writeFile(folder + "/r", Array("ID=other\n".utf8))
        let given = ["--stub", stub, "-o", folder + "/os.efi", "--linux", folder + "/k", "--initrd", folder + "/i"]
        try store.succeed(["boot", "seal-uki", "base", "--os-release", folder + "/r"] + given)
        #expect(try section(".linux", of: folder + "/os.efi") == Self.disk && section(".initrd", of: folder + "/os.efi") == Self.kernel)
        #expect(try section(".osrel", of: folder + "/os.efi") == Array("ID=other\n".utf8))
        let entry =
            "title x\nlinux /usr/lib/modules/6.1/vmlinuz\ninitrd /i1\ninitrd /i2\noptions composefs.digest=?v1-sha512-12:\(String(repeating: "0", count: 128)) ro a=1\n"
        let files =
            BootEntriesTests.directories(["boot/loader", "boot/loader/entries"]) + [
                TarMember(name: "boot/loader/entries/e.conf", content: Array(entry.utf8)), TarMember(name: "boot/i1", content: [1]),
                TarMember(name: "boot/i2", content: [2, 3]),
            ]
        _ = try store.pull(LayoutBuilder(layers: [Self.base1, tarArchive(files)]), as: "entry")
        let own = ["--stub", stub, "-o", folder + "/os.efi", "--kernel", "e"]
        let built = try store.succeed(["boot", "seal-uki", "entry", "--cmdline", "a=2", "--json"] + own).json()
        #expect(built["options"] == [.string("composefs.digest=v1-sha512-12:" + id), "ro", "a=2"] && built["version"] == .null)
        // Archives begin at multiples of four bytes.
        #expect(try section(".initrd", of: folder + "/os.efi") == [1, 0, 0, 0, 2, 3])
    }

    /// The file is replaced by a whole one only, and nothing else stays behind.
    @Test func refusals() throws {
        let (store, _, stub) = try store()
        let folder = store.folder.path
        let uki = folder + "/os.efi"
        try writeFile(uki, [1])
        mkfifo(folder + "/fifo", 0o600)
        try writeFile(folder + "/text", Array("text".utf8))
        _ = try store.pull(LayoutBuilder.small(), as: "small")
        let before = fileList(folder)
        func refuse(_ arguments: [String], _ environment: [String] = []) throws -> String {
            let result = try store.run(["boot", "seal-uki"] + arguments + ["-o", uki], environment: environment)
            let line = result.error.split(separator: "\n").last.map(String.init) ?? ""
            #expect(result.status == 1 && result.output.isEmpty && line.hasPrefix("cfsoci: error: "), "\(result.text)\(result.error)")
            #expect(try readFile(uki) == [1] && fileList(folder) == before, "\(arguments)")
            return line
        }
        #expect(try refuse(["base", "--stub", folder + "/none"]).hasSuffix("install systemd-boot-efi, or name one with --stub"))
        #expect(try refuse(["base", "--stub", folder + "/text"]).contains("text: not an EFI program"))
        #expect(try refuse(["base", "--stub", folder + "/fifo"]).contains("is not a regular file"))
        #expect(try refuse(["base", "--stub", stub, "--linux", folder + "/fifo"]).contains("is not a regular file"))
        #expect(try refuse(["base", "--stub", stub, "--kernel", "7.0"]).contains("7.0"))
        #expect(try refuse(["base", "--stub", stub, "--cmdline", "a\u{7f}b"]).contains("control character"))
        #expect(try refuse(["small", "--stub", stub]).contains("/boot"))
        #expect(try refuse(["base", "--stub", stub], ["PATH=/nowhere"]).contains("install systemd-ukify or binutils"))

        // Programs that fail, or make something else.
        mkdir(folder + "/bin", 0o755)
        defer { removeTree(folder + "/bin") }
        for (script, message) in [
            ("exit 3", "ukify failed with status 3"), ("cp '\(stub)' \"${3#--output=}\"", "section .osrel is not what it was told to make"),
            ("cp '\(folder)/text' \"${3#--output=}\"", "not an EFI program"), ("true", "No such file"),
        ] {
            try writeFile(folder + "/bin/ukify", Array("#!/bin/sh\n\(script)\n".utf8))
            chmod(folder + "/bin/ukify", 0o755)
            let result = try store.run(
                ["boot", "seal-uki", "base", "--stub", stub, "-o", uki], environment: ["PATH=\(folder)/bin:/usr/bin:/bin"])
            #expect(result.status == 1 && result.error.contains(message), "\(script): \(result.error)")
            #expect(try readFile(uki) == [1] && fileList(folder).filter { !$0.hasPrefix("bin") } == before)
        }
    }
}
