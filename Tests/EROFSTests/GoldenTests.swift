import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import Testing

/// The image's name in a repository.
func imageID(_ tree: FileTree, _ version: ErofsVersion, _ algorithm: VerityAlgorithm = .sha256) throws -> String {
    let image = try writeErofs(tree, version: version)
    var hasher = VerityHasher(algorithm)
    image.withUnsafeBytes { hasher.update($0) }
    return hasher.finalize().hex
}

func digest(_ byte: UInt8, _ algorithm: VerityAlgorithm = .sha256) throws -> ObjectID {
    try #require(ObjectID(algorithm: algorithm, bytes: [UInt8](repeating: byte, count: algorithm.digestSize)))
}

enum Dumps {
    static let special = #"""
        / 4096 40555 2 0 0 0 1633950376.0 - - - trusted.foo1=bar-1 user.foo2=bar-2
        /blockdev 0 60777 1 0 0 107690 1633950376.0 - - - trusted.bar=bar-2
        /chardev 0 20777 1 0 0 10769 1633950376.0 - - - trusted.foo=bar-2
        /escaped-xattr 0 100777 1 0 0 0 1633950376.0 - - - trusted.overlay.redirect=/foo\n user.overlay.redirect=/foo\n user.foo=bar-2
        /fifo 0 10777 1 0 0 0 1633950376.0 - - - trusted.bar=bar-2
        /inline 15 100777 1 0 0 0 1633950376.0 - FOOBAR\nINAFILE\n - user.foo=bar-2
        /whiteout 0 20777 1 0 0 0 1633950376.0 - - - trusted.foo=bar-2

        """#

    static let base = #"""
        / 0 40755 6 0 0 0 0.0 - - -
        /etc 0 40755 2 0 0 0 0.0 - - -
        /etc/hostname 9 100644 1 0 0 0 0.0 - test-host -
        /etc/os-release 23 100644 1 0 0 0 0.0 - ID=test\nVERSION_ID=1.0\n -
        /etc/passwd 100 100644 1 0 0 0 0.0 f2/c4fd5735bd46db3b18d402ae87c5086c97c0e1321901cfd30f320b73ef25aa - f2c4fd5735bd46db3b18d402ae87c5086c97c0e1321901cfd30f320b73ef25aa
        /tmp 0 40755 2 0 0 0 0.0 - - -
        /usr 0 40755 5 0 0 0 0.0 - - -
        /usr/bin 0 40755 2 0 0 0 0.0 - - -
        /usr/bin/busybox 4096 100755 1 0 0 0 0.0 f0/f7e1e58fdd31f5792222087377a4a976760c416ecdf5f426193e608681b7a1 - f0f7e1e58fdd31f5792222087377a4a976760c416ecdf5f426193e608681b7a1
        /usr/bin/cat 7 120777 1 0 0 0 0.0 busybox - -
        /usr/bin/cp 7 120777 1 0 0 0 0.0 busybox - -
        /usr/bin/ls 7 120777 1 0 0 0 0.0 busybox - -
        /usr/bin/mv 7 120777 1 0 0 0 0.0 busybox - -
        /usr/bin/ping 7 120777 1 0 0 0 0.0 busybox - - security.capability=\x02\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00
        /usr/bin/rm 7 120777 1 0 0 0 0.0 busybox - -
        /usr/bin/sh 7 120777 1 0 0 0 0.0 busybox - -
        /usr/lib 0 40755 2 0 0 0 0.0 - - -
        /usr/share 0 40755 3 0 0 0 0.0 - - -
        /usr/share/doc 0 40755 2 0 0 0 0.0 - - -
        /usr/share/doc/README 512 100644 1 0 0 0 0.0 51/44b8f80be57c3518f410d930e18c4e405387c82e4993c18265a1ba4a80263b - 5144b8f80be57c3518f410d930e18c4e405387c82e4993c18265a1ba4a80263b
        /var 0 40755 3 0 0 0 0.0 - - -
        /var/data 0 40755 2 0 0 0 0.0 - - -
        /var/data/app.json 256 100644 1 0 0 0 0.0 c9/21965b74ac1780bc437cec640b27186d85317b9afdb3dbb68626aed5ecd2b6 - c921965b74ac1780bc437cec640b27186d85317b9afdb3dbb68626aed5ecd2b6

        """#

    /// Trees as `oci pull` builds them: the root has the metadata of `/usr`.
    static let linked = #"""
        / 0 40755 3 0 0 0 1234567890.0 - - -
        /hello-link.txt 22 100644 2 0 0 0 1234567890.0 - hello\x20from\x20test\x20layer\n -
        /hello.txt 0 @120000 - - - - 0.0 /hello-link.txt - -
        /usr 0 40755 2 0 0 0 1234567890.0 - - -

        """#

    static let bootable = #"""
        / 0 40755 5 0 0 0 1234567890.0 - - -
        /boot 0 40755 2 0 0 0 1234567890.0 - - -
        /sysroot 0 40755 2 0 0 0 1234567890.0 - - -
        /usr 0 40755 2 0 0 0 1234567890.0 - - -
        /usr/hello.txt 31 100644 1 0 0 0 1234567890.0 - hello\x20from\x20bootable\x20test\x20layer\n -

        """#
}

func tree(_ dump: String) throws -> FileTree { try parseDumpfile(Array(dump.utf8)) }

@Suite struct Golden {
    @Test(arguments: [
        (ErofsVersion.v0, "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682"),
        (.v1, "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63"),
        (.v2, "086b702a519b57d6ef5aea6f8b3f2be24355cd1fb835cd80fb4e3d388b24d5a5"),
    ])
    func emptyRoot(version: ErofsVersion, id: String) throws {
        #expect(try imageID(FileTree(root: Metadata(permissions: 0o755)), version) == id)
    }

    static func simple() throws -> FileTree {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let plain = Metadata(permissions: 0)
        let leaves: [(ByteString, Content)] = [
            ("blkdev", .blockDevice(123)), ("chrdev", .characterDevice(123)), ("fifo", .fifo),
            ("regular-external", .external(try digest(0x5a), size: 1234)), ("regular-inline", .inline("hihi")), ("socket", .socket),
            ("symlink", .symbolicLink("/target")),
        ]
        for (name, content) in leaves.reversed() { try tree.addLeaf(name, in: FileTree.root, plain, content) }
        return tree
    }

    @Test(arguments: [
        (ErofsVersion.v0, "9f3f5620ee0c54708516467d0d58741e7963047c7106b245d94c298259d0fa01"),
        (.v1, "ad6db6427568a1e4fdc772cbab7b6063f5eb4b33cb62982a740ba9213e5962b5"),
        (.v2, "a8fcd41f8b313bede69f462f2af0a38d64b99a6333f5df884ea9ab4037fac722"),
    ])
    func simple(version: ErofsVersion, id: String) throws {
        #expect(try imageID(Self.simple(), version) == id)
    }

    @Test(arguments: [
        (ErofsVersion.v0, "ca8f91c7a310308bb5737cf1ab1d06395f83a2d9266423bfe5fe2b5f2c4e4218"),
        (.v1, "b1c78c25db8638be5b9b483472d32ee9624d8d32ded626a91cd536116e8df97c"),
        (.v2, "1fdf4ddd0a17123449feb902b32594f30fa121b81735c4540db0d556c9af8c8c"),
    ])
    func special(version: ErofsVersion, id: String) throws {
        #expect(try imageID(tree(Dumps.special), version) == id)
    }

    @Test(arguments: [
        (ErofsVersion.v0, "4ce8cdfc02c93f57b5ad6372111bf03e9d9385ea0c18ae309defc8613dd56d73"),
        (.v1, "617bf3168c5bed49693358601751cd3c5467526b70d78ee0cc501bcea7918433"),
        (.v2, "c2450eb4a411b0fe92fdc1c52fb52233dd40c3de10e320f80052d66c4766e060"),
    ])
    func base(version: ErofsVersion, id: String) throws {
        #expect(try imageID(tree(Dumps.base), version) == id)
    }

    @Test(arguments: [
        (
            ErofsVersion.v1,
            "d06f1f6a73f62ed48e05ce9442ff045cdf2a9f5ba1ec623795de3d6177a253d91076459795d94f55d8c3d71dab458bb3fc0071255a50c0a4896d86ffdc870b9a"
        ),
        (
            .v2,
            "f7684c21050615c02cec250e0c7d4118fb0ff6340af5039e06f2f372a7614fff25dfd38cf7f28ad67d8b86e86371b7deafa9ae4bf543630322aee6196417de92"
        ),
    ])
    func pulledImage(version: ErofsVersion, id: String) throws {
        #expect(try imageID(tree(Dumps.linked), version, .sha512) == id)
    }

    @Test(arguments: [
        (
            ErofsVersion.v1,
            "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"
        ),
        (
            .v2,
            "8dc1c4019e86d6c82d9118fcd3b8d7135901e621404af5c0e73590633a92acf49f584346958738a07001a489b60855fbda0b020caf0410c29ce469f223ea4915"
        ),
    ])
    func bootableImage(version: ErofsVersion, id: String) throws {
        #expect(try imageID(tree(Dumps.bootable), version, .sha512) == id)
    }
}
