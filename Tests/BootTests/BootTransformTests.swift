import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import Testing

@testable import ComposefsBoot
@testable import ComposefsImageStore

/// Trees with a policy, built from lines of a dumpfile.
enum BootTree {
    static func parse(_ dump: String) throws -> FileTree { try parseDumpfile(Array(dump.utf8)) }

    /// A bootable tree with a policy "targeted"; `lines` are further lines of the dumpfile.
    static func with(
        _ contexts: String?, config: String = "SELINUX=enforcing\nSELINUXTYPE=targeted\n", _ lines: String
    ) throws -> FileTree {
        try with(contexts, [], config: config, lines)
    }

    static func with(
        _ contexts: String?, _ more: [(suffix: String, text: String)], config: String = "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
        _ lines: String
    ) throws -> FileTree {
        var tree = try parse("/ 0 40755 4 0 0 0 0.0 - - -\n/boot 0 40755 2 0 0 0 0.0 - - -\n/sysroot 0 40755 2 0 0 0 0.0 - - -\n" + lines)
        let directory = Metadata(permissions: 0o755)
        let file = Metadata(permissions: 0o644)
        var at = FileTree.root
        for name in ["etc", "selinux", "targeted", "contexts", "files"] as [ByteString] {
            at = try tree.lookup(name, in: at) ?? tree.addDirectory(name, in: at, directory)
        }
        let selinux = try #require(tree.lookup(path: "etc/selinux"))
        try tree.addLeaf("config", in: selinux, file, .inline(ByteString(config)))
        if let contexts { try tree.addLeaf("file_contexts", in: at, file, .inline(ByteString(contexts))) }
        for (suffix, text) in more { try tree.addLeaf(ByteString("file_contexts" + suffix), in: at, file, .inline(ByteString(text))) }
        return tree
    }

    static func transform(_ tree: inout FileTree) throws(BootTransformError) {
        try transformForBoot(&tree) { throw UnexpectedObject(id: $0) }
    }

    struct UnexpectedObject: Error { var id: ObjectID }

    static func fault(_ tree: FileTree) -> String? {
        var tree = tree
        do throws(BootTransformError) {
            try transform(&tree)
            return nil
        } catch {
            return error.description
        }
    }

    static func label(_ tree: FileTree, _ path: ByteString) throws -> String? {
        let inode = try #require(tree.lookup(path: path), "no \(path)")
        return tree.metadata(of: inode)[attribute: "security.selinux"]?.utf8Text
    }
}

@Suite struct BootTransformTests {
    static let plain = """
        / 0 40755 5 0 0 0 1234567890.0 - - -
        /boot 0 40755 2 0 0 0 1234567890.0 - - -
        /sysroot 0 40755 2 0 0 0 1234567890.0 - - -
        /usr 0 40755 2 0 0 0 1234567890.0 - - -
        /usr/hello.txt 31 100644 1 0 0 0 1234567890.0 - hello\\x20from\\x20bootable\\x20test\\x20layer\\n -

        """

    /// Digests that the reference implementation computes for the same layer.
    @Test(arguments: [
        (
            ErofsVersion.v2,
            "8dc1c4019e86d6c82d9118fcd3b8d7135901e621404af5c0e73590633a92acf49f584346958738a07001a489b60855fbda0b020caf0410c29ce469f223ea4915"
        ),
        (
            .v1,
            "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"
        ),
    ])
    func bootableImage(_ version: ErofsVersion, _ digest: String) throws {
        var tree = try BootTree.parse(Self.plain)
        transformForContainer(&tree)
        try BootTree.transform(&tree)
        let image = try writeErofs(tree, version: version)
        #expect(image.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) }.hex == digest)
    }

    @Test func emptiesBootAndSysroot() throws {
        var tree = try BootTree.parse(
            """
            / 0 40755 5 0 0 0 1.0 - - -
            /boot 0 40700 3 1 2 0 5.7 - - - user.a=b
            /boot/efi 0 40755 2 0 0 0 5.0 - - -
            /boot/efi/x 1 100644 2 0 0 0 5.0 - x -
            /sysroot 0 40755 2 0 0 0 6.8 - - -
            /usr 0 40755 2 0 0 0 99.123 - - -
            /usr/x 0 @120000 2 0 0 0 0.0 /boot/efi/x - -

            """)
        try BootTree.transform(&tree)
        let boot = try #require(tree.lookup(path: "boot"))
        let sysroot = try #require(tree.lookup(path: "sysroot"))
        #expect(tree.entries(of: boot).isEmpty)
        #expect(tree.modified(of: boot) == Timestamp(seconds: 99, nanoseconds: 123))
        #expect(tree.modified(of: sysroot) == Timestamp(seconds: 99, nanoseconds: 123))
        #expect(tree.permissions(of: boot) == 0o700)
        #expect(tree.uid(of: boot) == 1)
        #expect(tree.metadata(of: boot)[attribute: "user.a"] == "b")
        // A file keeps its names outside of the directory.
        let kept = try #require(tree.lookup(path: "usr/x"))
        #expect(tree.linkCount(of: kept) == 1)
        #expect(tree.content(of: kept) == .inline("x"))
    }

    @Test func withoutUsr() throws {
        var tree = try BootTree.parse(
            "/ 0 40755 4 0 0 0 1.0 - - -\n/boot 0 40755 2 0 0 0 5.0 - - -\n/sysroot 0 40755 2 0 0 0 5.0 - - -\n")
        try BootTree.transform(&tree)
        #expect(tree.modified(of: try #require(tree.lookup(path: "boot"))).seconds == 0)
    }

    @Test func missingDirectories() throws {
        let root = "/ 0 40755 4 0 0 0 1.0 - - -\n"
        let boot = "/boot 0 40755 2 0 0 0 5.0 - - -\n"
        #expect(BootTree.fault(try BootTree.parse(root)) == "no directory /boot in the image, so it cannot be made bootable")
        #expect(BootTree.fault(try BootTree.parse(root + boot)) == "no directory /sysroot in the image, so it cannot be made bootable")
        #expect(
            BootTree.fault(try BootTree.parse(root + boot + "/sysroot 0 120777 1 0 0 0 5.0 /usr - -\n"))
                == "/sysroot in the image is no directory")
    }
}
