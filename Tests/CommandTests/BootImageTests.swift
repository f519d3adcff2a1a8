import ComposefsHashing
import ComposefsJSON
import Testing

/// Images for booting that are recorded with an image: `boot image`, `boot karg`, `pull --bootable`.
struct BootImageTests {
    /// The identifiers that the reference implementation gives the image for booting of this layer, for fs-verity with SHA-512.
    private static let v1 =
        "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"
    private static let v2 =
        "8dc1c4019e86d6c82d9118fcd3b8d7135901e621404af5c0e73590633a92acf49f584346958738a07001a489b60855fbda0b020caf0410c29ce469f223ea4915"
    private static let other = String(repeating: "0", count: 128)

    private static let bootable = LayoutBuilder(layers: [
        tarArchive([
            TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "boot/", mode: 0o755, type: "5"),
            TarMember(name: "sysroot/", mode: 0o755, type: "5"),
            TarMember(name: "usr/hello.txt", content: Array("hello from bootable test layer\n".utf8)),
            // Not part of the image for booting.
            TarMember(name: "boot/kernel", content: Array("kernel".utf8)),
        ])
    ])

    private static func store(_ formats: [String] = ["1", "2"]) throws -> ContractStore {
        let store = try ContractStore(["--algorithm", "fsverity-sha512-12"] + formats.flatMap { ["--erofs-version", $0] })
        try bootable.write(to: store.layoutPath("t"))
        return store
    }

    private static func pull(_ store: ContractStore, _ options: [String] = []) -> [String] {
        ["pull", "oci:" + store.layoutPath("t"), "t"] + options
    }

    private func recorded(_ store: ContractStore) throws -> JSONValue? { try store.succeed(["inspect", "t"]).json()["bootImageIds"] }

    /// Without the directories of objects, which stay when they are empty.
    private func files(of store: ContractStore) -> [String] {
        store.files.filter { !$0.hasPrefix("objects/") || $0.count > "objects/ab".count }
    }

    private static let both: JSONValue = ["composefs.image.boot": .string(v2), "composefs.image.boot.v1": .string(v1)]

    @Test func madeRecordedAndRemoved() throws {
        let store = try Self.store()
        try store.succeed(Self.pull(store))
        #expect(try recorded(store) == [:])
        #expect(try store.refuse(["boot", "karg", "t"]).contains("cfsoci boot image"))
        let before = files(of: store)

        #expect(try store.succeed(["boot", "image", "t"]).lines == [Self.v1])
        #expect(try recorded(store) == Self.both)
        #expect(try store.succeed(["boot", "karg", "t"]).lines == ["composefs.digest=?v1-sha512-12:" + Self.v1])
        #expect(try store.succeed(["boot", "karg", "t", "--erofs-version", "2"]).lines == ["composefs=?" + Self.v2])
        #expect(
            try store.succeed(["boot", "karg", "t", "--json"]).json()
                == [
                    "imageId": .string(Self.v1), "erofsVersion": 1, "xattrs": "allowlist-only",
                    "kernelArgument": .string("composefs.digest=?v1-sha512-12:" + Self.v1),
                ])
        // Once more changes nothing, and the images stay as long as the image.
        let made = store.files
        #expect(try store.succeed(["boot", "image", "t", "--json"]).json()["imageId"] == .string(Self.v1))
        #expect(store.files == made)
        try store.succeed(["gc"])
        try store.succeed(["fsck", "--deep"])
        #expect(try recorded(store) == Self.both)

        #expect(try store.succeed(["boot", "image", "t", "--remove"]).lines == ["Removed 2 records"])
        #expect(try recorded(store) == [:])
        #expect(try store.succeed(["gc", "--json"]).json()["imagesRemoved"] == 2)
        #expect(try store.succeed(["boot", "image", "t", "--remove"]).lines == ["Removed 0 records"])
        try store.succeed(["gc"])
        #expect(files(of: store) == before)
        try store.succeed(["fsck"])
    }

    @Test func foundByItsIdentifier() throws {
        let store = try Self.store(["1"])
        try store.succeed(Self.pull(store))
        let files = store.files
        let refusal = try store.refuse(["boot", "image", "t", "--find", Self.other])
        #expect(refusal.contains(Self.other) && refusal.contains("6 combinations"), "\(refusal)")
        #expect(try store.refuse(["boot", "image", "t", "--find", String(repeating: "0", count: 64)]).contains("sha512"))
        try store.succeed(["gc"])
        #expect(store.files == files)

        // A format that the repository does not make.
        #expect(try store.succeed(["boot", "image", "t", "--find", Self.v2]).lines == ["\(Self.v2)  allowlist-only  format 2"])
        #expect(try recorded(store) == ["composefs.image.boot": .string(Self.v2)])
        // It stays when the other is made.
        #expect(try store.succeed(["boot", "image", "t"]).lines == [Self.v1])
        #expect(try recorded(store) == Self.both)
        #expect(try store.succeed(["boot", "image", "t", "--find", Self.v1, "--json"]).json()["erofsVersion"] == 1)
    }

    @Test func xattrModesAreApart() throws {
        let store = try Self.store(["1"])
        try store.succeed(Self.pull(store))
        let id = try #require(try store.succeed(["boot", "image", "t", "--xattrs", "keep-user-xattrs"]).lines.first)
        #expect(try store.succeed(["compute-id", "t", "--bootable", "--xattrs", "keep-user-xattrs"]).lines == [id])
        #expect(try recorded(store) == ["composefs.image.boot.v1.xattrs=keep-user-xattrs": .string(id)])
        #expect(
            try store.succeed(["boot", "karg", "t", "--xattrs", "keep-user-xattrs"]).lines == ["composefs.digest=?v1-sha512-12:" + id])
        #expect(try store.refuse(["boot", "karg", "t"]).contains("for booting"))
    }

    @Test func pulledWithItsImageForBooting() throws {
        let store = try Self.store()
        let refusal = try store.refuse(Self.pull(store, ["--bootable", "--expected-digest", Self.other]))
        #expect(refusal.contains(Self.other), "\(refusal)")
        #expect(try store.succeed(["images", "--json"]).json()["images"] == [])

        let lines = try store.succeed(Self.pull(store, ["--bootable", "--expected-digest", Self.v2])).lines
        #expect(lines.contains("boot image  " + Self.v2))
        #expect(try recorded(store) == ["composefs.image.boot": .string(Self.v2)])
        // The image is there already; the other images for booting are added, and stay when it is pulled without the option.
        let report = try store.succeed(Self.pull(store, ["--bootable", "--json"])).json()
        #expect(report["bootImage"] == ["imageId": .string(Self.v1), "erofsVersion": 1, "xattrs": "allowlist-only"])
        for policy in ["missing", "always"] {
            try store.succeed(Self.pull(store, ["--policy", policy]))
            #expect(try recorded(store) == Self.both, "\(policy)")
        }
        try store.succeed(["gc"])
        try store.succeed(["fsck", "--deep"])
    }

    /// `pull --policy always` makes a damaged image for booting anew.
    @Test func damagedImagesForBootingAreMended() throws {
        let store = try Self.store(["1"])
        try store.succeed(Self.pull(store, ["--bootable"]))
        let object = "\(store.path)/objects/\(Self.v1.prefix(2))/\(Self.v1.dropFirst(2))"
        _ = try launch("sh", ["-c", "printf x | dd of=\(object) bs=1 seek=1100 conv=notrunc"])
        #expect(try store.run(["fsck"]).status == 2)
        try store.succeed(Self.pull(store, ["--policy", "always"]))
        #expect(try recorded(store) == ["composefs.image.boot.v1": .string(Self.v1)])
        try store.succeed(["fsck", "--deep"])
    }

    @Test func imagesThatCannotBeBooted() throws {
        let (store, _) = try ContractStore.small()
        let files = store.files
        #expect(try store.refuse(["boot", "image", "t"]).contains("/boot"))
        #expect(try store.refuse(["boot", "image", "missing"], status: 3).contains("no image \"missing\""))
        #expect(try store.refuse(["pull", "oci:" + store.layoutPath("t"), "other", "--bootable"]).contains("/boot"))
        try store.succeed(["gc"])
        #expect(store.files == files)
        for arguments in [
            ["boot", "image", "t", "--find", "xyz"], ["boot", "image", "t", "--find", Self.v1, "--remove"],
            ["boot", "image", "t", "--remove", "--xattrs", "allowlist-only"],
            ["pull", "oci:x", "--expected-digest", Self.v1], ["pull", "oci:x", "--bootable", "--expected-digest", "ABC"],
            ["pull", "oci:x", "--bootable", "--all-platforms", "--expected-digest", Self.v1],
        ] {
            #expect(try store.run(arguments).status == 64, "\(arguments)")
        }
    }
}
