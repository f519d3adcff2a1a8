import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsTestSupport
import Testing

@testable import ComposefsEROFS

/// Invalid images. Each must give an error that names the inode, or a well-formed tree. None may trap or take long.
@Suite struct Hostile {
    private func opens(_ bytes: [UInt8]) -> Bool {
        guard let image = try? ErofsImage(bytes) else { return false }
        try? image.checkMetadata()
        guard let tree = try? image.tree() else { return false }
        // The tree of an accepted image can be written.
        return (try? writeErofs(tree, version: image.version)) != nil
    }

    /// One of each: a directory in a directory, links, attributes shared and not, all kinds of files.
    static func sample(_ version: ErofsVersion) throws -> [UInt8] {
        var tree = try Golden.simple()
        let label = ExtendedAttribute(name: "security.selinux", value: "usr_t")
        let directory = try tree.addDirectory("sub", in: FileTree.root, Metadata(permissions: 0o755, extendedAttributes: [label]))
        let leaf = try tree.addLeaf(
            "one", in: directory, Metadata(permissions: 0o644, extendedAttributes: [label, .init(name: "user.a", value: "b")]),
            .external(try digest(1), size: 77))
        try tree.addLink("two", in: FileTree.root, to: leaf)
        try tree.addLeaf("sparse", in: directory, Metadata(permissions: 0o600), .sparse(size: 5))
        try tree.addLeaf("path", in: directory, Metadata(permissions: 0o600), .externalWithoutVerity(try digest(2), size: 5))
        try tree.addLeaf("gone", in: directory, Metadata(permissions: 0o600), .characterDevice(0))
        return try writeErofs(tree, version: version)
    }

    @Test(arguments: ErofsVersion.allCases)
    func truncated(version: ErofsVersion) throws {
        let image = try Self.sample(version)
        #expect(opens(image))
        for length in stride(from: 0, to: image.count, by: 32) { #expect(!opens(Array(image[..<length]))) }
        // The same with the shorter length in the superblock: the missing data is detected.
        for length in stride(from: 4096, to: image.count, by: 4096) {
            var cut = Array(image[..<length])
            cut.set(UInt32(length / 4096), at: 1024 + 36)
            #expect(!opens(cut))
        }
    }

    @Test(arguments: [0x01, 0x10, 0x80, 0xff] as [UInt8])
    func flippedBytes(mask: UInt8) throws {
        var image = try Self.sample(.v2)
        for offset in image.indices {
            image[offset] ^= mask
            _ = opens(image)
            image[offset] ^= mask
        }
        #expect(opens(image))
    }

    @Test(arguments: [0x01, 0x40] as [UInt8])
    func flippedBytesFirstEpoch(mask: UInt8) throws {
        var image = try Self.sample(.v1)
        // Most of the image is 256 equal inodes: change all bytes of the different parts, and one in fifty of the rest.
        for offset in image.indices where offset < 1600 || offset % 53 == 0 {
            image[offset] ^= mask
            _ = opens(image)
            image[offset] ^= mask
        }
        #expect(opens(image))
    }

    @Test(arguments: 0..<60 as Range<UInt64>)
    func randomDamage(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        let original = try Self.sample(seed % 4 == 0 ? .v1 : .v2)
        for _ in 0..<40 {
            var image = original
            for _ in 0...random.below(4) {
                let at = random.oneIn(2) ? 1024 + random.below(2000) : random.below(image.count)
                image[min(at, image.count - 1)] = random.oneIn(2) ? image[random.below(image.count)] : UInt8(random.below(256))
            }
            _ = opens(image)
        }
    }

    // MARK: Single false fields

    /// Offsets in the "simple" image of version 2 (see `Writer.inodeNumbersVersion2`).
    private enum Simple {
        static let root = 36 * 32
        static let entries = root + 64
        static func entry(_ index: Int) -> Int { entries + 12 * index }
        static func inode(_ nid: Int) -> Int { nid * 32 }
        static let external = 50 * 32
    }

    /// The error of reading the image after the change.
    private func complaint(_ change: (inout [UInt8]) -> Void) throws -> String {
        var image = try writeErofs(Golden.simple(), version: .v2)
        change(&image)
        do {
            _ = try ErofsImage(image)
            return "accepted"
        } catch {
            return "\(error)"
        }
    }

    @Test(arguments: [
        (0, "composefs magic"), (4, "header's version"), (8, "unknown flags"), (12, "format version"), (16, "unused"), (900, "unused"),
        (1024, "EROFS magic"), (1024 + 8, "accepted"), (1024 + 9, "compatible features"), (1024 + 12, "block size"),
        (1024 + 13, "extra superblock slots"), (1024 + 16, "counts"), (1024 + 36, "number of blocks"), (1024 + 40, "metadata's block"),
        (1024 + 45, "shared attributes"), (1024 + 80, "incompatible features"), (1024 + 84, "does not use"), (1024 + 86, "does not use"),
        (1024 + 91, "does not use"), (1024 + 96, "does not use"), (1024 + 127, "does not use"),
    ])
    func headers(offset: Int, what: String) throws {
        #expect(try complaint { $0[offset] ^= 0x01 }.contains(what))
    }

    @Test func inodes() throws {
        let inode = Simple.inode(44)
        func expect(_ what: String, _ change: (inout [UInt8]) -> Void, line: Int = #line) throws {
            let said = try complaint(change)
            #expect(said.contains(what), "\(said)")
            #expect(what == "accepted" || said.contains("inode "), "\(said)")
        }
        try expect("data layout") { $0[inode] = 3 }
        try expect("data layout") { $0[inode] = 0x21 }
        try expect("not a valid file type") { $0.set(0o10000 * 5 as UInt16, at: inode + 4) }
        try expect("file type differs from the inode's") { $0.set(0o020000 as UInt16, at: inode + 4) }
        try expect("reserved") { $0[inode + 6] = 1 }
        try expect("reserved") { $0[inode + 50] = 1 }
        try expect("cannot have data") { $0[inode + 8] = 1 }
        try expect("cannot have data") { $0[inode] = 5 }
        try expect("only devices") { $0[Simple.inode(48) + 16] = 1 }
        try expect("nanoseconds") { $0.set(UInt32.max, at: inode + 40) }
        try expect("link count") { $0.set(0 as UInt32, at: inode + 44) }
        try expect("link count is 2") { $0.set(2 as UInt32, at: inode + 44) }
        try expect("beyond the image's end") { $0.set(UInt16.max, at: inode + 2) }
        // The inline content overlaps the socket's inode.
        try expect("overlaps another inode") { $0.set(64 as UInt64, at: Simple.inode(57) + 8) }
        try expect("size of") { $0.set(1 << 40 as UInt64, at: Simple.inode(57) + 8) }
        try expect("beyond the image's end") { $0.set(4000 as UInt64, at: Simple.inode(57) + 8) }
        try expect("padding after it") { $0[Simple.inode(57) + 64 + 4] = 1 }
        for count in [1025, 4095, 4096] as [UInt64] { try expect("limit is 1024") { $0.set(count, at: Simple.inode(62) + 8) } }
        try expect("data blocks reach") {
            $0.set(1 as UInt16, at: Simple.inode(57))
            $0.set(1 as UInt32, at: Simple.inode(57) + 16)
        }
        // Block 0 holds the superblock.
        try expect("overlap other data") {
            $0.set(1 as UInt16, at: Simple.inode(57))
            $0.set(0 as UInt32, at: Simple.inode(57) + 16)
        }
        try expect("chunk format") { $0[Simple.external + 16] = 30 }
        try expect("only regular files can be stored in chunks") { $0[Simple.inode(62)] = 9 }
        try expect("the root is not a directory") { $0.set(44 as UInt16, at: 1024 + 14) }
        try expect("beyond the image's end") { $0.set(UInt16.max, at: 1024 + 14) }
        try expect("beyond the image's end") { $0.set(UInt64.max, at: Simple.entry(2)) }
        try expect("beyond the image's end") { $0.set(1 << 59 as UInt64, at: Simple.entry(2)) }
    }

    @Test func directories() throws {
        func expect(_ what: String, _ change: (inout [UInt8]) -> Void) throws {
            let said = try complaint(change)
            #expect(said.contains(what), "\(said)")
        }
        let names = Simple.entries + 9 * 12
        // Names: '.', '..', blkdev, chrdev, fifo, …
        try expect("first name") { $0.set(0 as UInt16, at: Simple.entry(0) + 8) }
        try expect("first name") { $0.set(13 as UInt16, at: Simple.entry(0) + 8) }
        try expect("first name") { $0.set(12 * 5000 as UInt16, at: Simple.entry(0) + 8) }
        try expect("no name or is out of order") { $0.set(108 as UInt16, at: Simple.entry(1) + 8) }
        try expect("outside its block") { $0.set(60000 as UInt16, at: Simple.entry(3) + 8) }
        try expect("contains '/' or NUL") { $0[names + 5] = 0x2f }
        try expect("contains '/' or NUL") { $0[names + 5] = 0 }
        try expect("ascending order") { $0[names + 3] = 0x7a }
        try expect("a name occurs twice") { $0.replaceSubrange((names + 3)..<(names + 9), with: Array("chrdev".utf8)) }
        try expect("file type is unknown") { $0[Simple.entry(2) + 10] = 8 }
        try expect("file type is unknown") { $0[Simple.entry(2) + 10] = 0 }
        try expect("file type differs from the inode's") { $0[Simple.entry(2) + 10] = 3 }
        try expect("reserved field of an entry") { $0[Simple.entry(2) + 11] = 1 }
        try expect("'.' or '..'") { $0[Simple.entry(0)] = 44 }
        try expect("'.' or '..'") { $0[Simple.entry(1)] = 44 }
        try expect("lacks '.' or '..'") {
            $0.replaceSubrange((names + 1)..<(names + 3), with: Array(".a".utf8)); $0.set(44 as UInt64, at: Simple.entry(1));
            $0[Simple.entry(1) + 10] = 4; $0.set(2 as UInt32, at: Simple.inode(44) + 44)
        }
        // Two names, one link.
        try expect("more names than links") {
            $0.set(44 as UInt64, at: Simple.entry(3))
            $0[Simple.entry(3) + 10] = 4
        }
        // The root again, below itself.
        try expect("more names than links") {
            $0.set(36 as UInt64, at: Simple.entry(3))
            $0[Simple.entry(3) + 10] = 2
        }
        try expect("link count is 3") { $0.set(3 as UInt32, at: Simple.root + 44) }
        let path = try complaint { $0[Simple.inode(44) + 6] = 1 }
        #expect(path == "damaged EROFS image: a reserved field is not zero (inode 44, '/blkdev')")
    }

    @Test func attributes() throws {
        func expect(_ what: String, _ change: (inout [UInt8]) -> Void) throws {
            let said = try complaint(change)
            #expect(said.contains(what), "\(said)")
        }
        // The external file: header, then metacopy (4 + 16 + 36) and redirect (4 + 16 + 66, padded).
        let area = Simple.external + 64
        let metacopy = area + 12
        let redirect = metacopy + 56
        try expect("filter") { $0[area] ^= 1 }
        try expect("reserved field of the attributes") { $0[area + 5] = 1 }
        try expect("shared attributes do not fit in the inode") { $0[area + 4] = 255 }
        try expect("beyond its end") { $0[metacopy + 2] = 255 }
        try expect("beyond its end") { $0[redirect] = 200 }
        try expect("prefix 7") { $0[metacopy + 1] = 7 }
        try expect("holds a NUL") { $0[metacopy + 6] = 0 }
        try expect("padding of an attribute") { $0[redirect + 4 + 16 + 66] = 1 }
        for offset in [0, 1, 2, 3] { try expect("metacopy attribute is malformed") { $0[metacopy + 20 + offset] ^= 0xff } }
        try expect("but it refers to object") { $0[metacopy + 24] ^= 1 }
        try expect("but it refers to object") { $0[redirect + 20 + 5] = 0x62 }
        // Content inside and outside.
        try expect("both in the image and in an object") {
            $0[Simple.external] = 5; $0[Simple.external + 8] = 2; $0[Simple.external + 9] = 0
        }
        try expect("only regular files can") {
            $0.set(0o020000 as UInt16, at: Simple.external + 4)
            $0[Simple.external] = 1
            $0.set(0 as UInt64, at: Simple.external + 8)
        }
        // The kernel does not find a name with a known prefix that is stored in full.
        try expect("no name") {
            $0[metacopy] = 0; $0[metacopy + 1] = 0
        }
    }

    @Test(arguments: [2, 12])
    func doubledAttributes(count: Int) throws {
        let list = (0..<count).map { ExtendedAttribute(name: ByteString("user.\(Character(Unicode.Scalar(UInt8(0x61 + $0))))"), value: "") }
        var image = try writeErofs(FileTree(root: Metadata(permissions: 0o755, extendedAttributes: list)), version: .v2)
        _ = try ErofsImage(image)
        // Without a filter, so that only the names are wrong: the last name becomes the first one.
        image[1024 + 8] = 2
        image[36 * 32 + 64 + 12 + (count - 1) * 8 + 4] = 0x61
        do {
            _ = try ErofsImage(image)
            Issue.record("accepted")
        } catch {
            #expect("\(error)".contains("has a duplicate attribute"))
        }
    }

    /// Cycles of directories would give a tree of unlimited size.
    @Test func sharedDirectoriesAreRefused() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        for name in ["a", "b"] as [ByteString] { try tree.addDirectory(name, in: FileTree.root, Metadata(permissions: 0o755)) }
        var image = try writeErofs(tree, version: .v2)
        // Entries: '.', '..', a, b. Let b be a.
        let entries = 36 * 32 + 64
        image.set(image.integer(entries + 24, as: UInt64.self), at: entries + 36)
        #expect(throws: ErofsError.self) { try ErofsImage(image) }
    }

    // MARK: What fsck looks for

    private func finding(_ image: [UInt8]) throws -> String? {
        do throws(ErofsError) {
            try ErofsImage(image).checkMetadata()
            return nil
        } catch {
            return error.description
        }
    }

    @Test func metadataRules() throws {
        for version in ErofsVersion.allCases { #expect(try finding(Self.sample(version)) == nil) }
        // ACLs without the flag, and the flag without ACLs.
        let list = ExtendedAttribute(name: "system.posix_acl_default", value: "")
        var withList = try writeErofs(FileTree(root: Metadata(permissions: 0, extendedAttributes: [list])), version: .v0)
        #expect(try finding(withList) == nil)
        withList[8] = 0
        #expect(try finding(withList)?.contains("the header says that it has none") == true)
        var image = try writeErofs(FileTree(root: Metadata(permissions: 0o755)), version: .v1)
        image[8] = 1
        #expect(try finding(image)?.contains("the header says that the image has ACLs") == true)

        // The layout of version 2 with the number of version 1: object directories are not hidden, the whiteout is not escaped.
        var tree = FileTree(root: Metadata(permissions: 0o755))
        image = try writeErofs(tree, version: .v2)
        image[12] = 1
        #expect(try finding(image)?.contains("0 of the 256") == true)
        let directory = try tree.addDirectory("d", in: FileTree.root, Metadata(permissions: 0o755))
        try tree.addLeaf("w", in: directory, Metadata(permissions: 0), .characterDevice(0))
        image = try writeErofs(tree, version: .v2)
        image[12] = 0
        #expect(try finding(image)?.contains("whiteout 'w' below the root is not escaped") == true)

        // And vice versa.
        image = try writeErofs(tree, version: .v1)
        image[12] = 2
        #expect(try finding(image)?.contains("whiteout 'w' is escaped") == true)
    }
}
