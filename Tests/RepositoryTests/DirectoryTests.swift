import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Testing

@Suite struct DirectoryTests {
    private func makeTree(_ scratch: Scratch) throws -> ByteString {
        let path = scratch.path + "/tree"
        try FileDescriptor.makeDirectory(path, mode: 0o755)
        let root = try FileDescriptor.open(path, [.readOnly, .directory])
        func write(_ name: ByteString, _ bytes: [UInt8], _ mode: UInt32 = 0o644) throws {
            let file = try root.open(at: name, [.writeOnly, .create, .exclusive], mode: mode)
            try file.writeAll(bytes)
            try file.changeMode(mode)
        }
        try write("empty", [])
        try write("small", content(64), 0o4755)
        try write("object", content(65))
        try write("large", content(3 << 20))
        try root.makeDirectory(at: "sub", mode: 0o700)
        try root.makeDirectory(at: "sub/deep", mode: 0o755)
        try write("sub/deep/same", content(65))
        try root.link(at: "object", to: "sub/link")
        try root.link(at: "empty", to: "sub/empty")
        try root.symlink(target: "/etc/passwd", at: "sub/outside")
        try root.symlink(target: "..", at: "sub/up")
        try root.makeNode(at: "fifo", mode: 0o010644)
        try write(ByteString([0x61, 0xff, 0x0a]), [1])
        try root.setTime(at: "small", seconds: -5, nanoseconds: 123_456_789)
        try root.setTime(at: "sub/up", seconds: 1_000_000_007, nanoseconds: 1)
        return path
    }

    /// overlayfs gives all whiteouts of an upper directory one inode. In an image each is one of its own.
    @Test func linkedWhiteouts() throws {
        guard Host.effectiveUserID == 0 else { try Test.cancel("making devices needs root") }
        let scratch = try Scratch()
        let path = scratch.path + "/tree"
        try FileDescriptor.makeDirectory(path, mode: 0o755)
        let root = try FileDescriptor.open(path, [.readOnly, .directory])
        try root.makeNode(at: "one", mode: 0o020000)
        try root.link(at: "one", to: "two")
        try root.makeNode(at: "null", mode: 0o020666, device: DeviceNumber(major: 1, minor: 3))
        try root.link(at: "null", to: "void")
        let tree = try hashDirectory(path, .sha256)
        for name: ByteString in ["one", "two"] {
            let inode = try #require(tree.lookup(path: name))
            #expect(tree.isWhiteout(inode) && tree.linkCount(of: inode) == 1)
        }
        #expect(tree.lookup(path: "null") == tree.lookup(path: "void"))
        for version in ErofsVersion.allCases {
            let again = try ErofsImage(try writeErofs(tree, version: version)).tree()
            for name: ByteString in ["one", "two"] { #expect(again.isWhiteout(try #require(again.lookup(path: name)))) }
        }
    }

    private func check(_ tree: FileTree) throws {
        func at(_ path: ByteString) throws -> FileTree.InodeID {
            let found = tree.lookup(path: path)
            return try #require(found, "\(path)")
        }
        #expect(try tree.content(of: at("empty")) == .inline(""))
        #expect(try tree.content(of: at("small")) == .inline(ByteString(content(64))))
        #expect(try tree.permissions(of: at("small")) == 0o4755)
        #expect(try tree.modified(of: at("small")) == Timestamp(seconds: -5, nanoseconds: 123_456_789))
        let id = content(65).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        #expect(try tree.content(of: at("object")) == .external(id, size: 65))
        #expect(try tree.content(of: at("sub/deep/same")) == .external(id, size: 65))
        #expect(try at("sub/link") == at("object"))
        #expect(try at("sub/empty") == at("empty"))
        #expect(try at("sub/deep/same") != at("object"))
        #expect(try tree.linkCount(of: at("object")) == 2)
        let large = content(3 << 20).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        #expect(try tree.content(of: at("large")) == .external(large, size: 3 << 20))
        #expect(try tree.content(of: at("sub/outside")) == .symbolicLink("/etc/passwd"))
        #expect(try tree.content(of: at("sub/up")) == .symbolicLink(".."))
        #expect(try tree.modified(of: at("sub/up")) == Timestamp(seconds: 1_000_000_007, nanoseconds: 1))
        #expect(try tree.content(of: at("fifo")) == .fifo)
        #expect(try tree.permissions(of: at("sub")) == 0o700)
        #expect(try tree.content(of: at(ByteString([0x61, 0xff, 0x0a]))) == .inline(ByteString([1])))
        #expect(tree.entries(of: FileTree.root).count == 7)
    }

    @Test func hashing() throws {
        let scratch = try Scratch()
        let path = try makeTree(scratch)
        for threads in [1, 4] { try check(hashDirectory(path, .sha256, threads: threads)) }
        // The directory itself may be reached through a link.
        try FileDescriptor.currentDirectory.symlink(target: "tree", at: scratch.path + "/alias")
        try check(hashDirectory(scratch.path + "/alias", .sha256))
        #expect(
            failure { _ = try hashDirectory(scratch.path + "/none", .sha256) }?.description
                == "open \(scratch.path)/none: No such file or directory")
        #expect(failure { _ = try hashDirectory(path + "/small", .sha256) }?.description.hasSuffix("Not a directory") == true)
    }

    @Test func importing() throws {
        let scratch = try Scratch()
        let path = try makeTree(scratch)
        let repository = try scratch.create()
        try check(repository.importDirectory(path))
        let report = try repository.check()
        #expect(report.problems == [] && report.objectsChecked == 2)
        let large = content(3 << 20).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        #expect(try repository.readObject(large, limit: 3 << 20) == content(3 << 20))
        try check(repository.importDirectory(path, threads: 1))
        #expect(try repository.check().objectsChecked == 2)
    }

    @Test func attributesAndDevices() throws {
        let scratch = try Scratch()
        let path = try makeTree(scratch)
        let root = try FileDescriptor.open(path, [.readOnly, .directory])
        let large = ByteString([UInt8](repeating: 7, count: 2000))
        do {
            try root.setExtendedAttribute("user.b", "1", at: "small")
        } catch {
            try Test.cancel("the temporary directory has no user xattrs")
        }
        try root.setExtendedAttribute("user.a", large, at: "small")
        try root.setExtendedAttribute("user.d", "2", at: "sub")
        try root.setExtendedAttribute("user.root", "3", at: "")
        let isRoot = Host.effectiveUserID == 0 && Host.hasCapability(.makeNode)
        if isRoot {
            try root.makeNode(at: "null", mode: 0o020600, device: DeviceNumber(major: 1, minor: 300))
            try root.makeNode(at: "whiteout", mode: 0o020600)
            try root.changeOwner(at: "sub/outside", uid: 12, gid: 70_000)
        }
        let tree = try hashDirectory(path, .sha256)
        func attributes(_ path: ByteString) throws -> [ByteString: ByteString] {
            let found = tree.lookup(path: path)
            let inode = try #require(found)
            return Dictionary(
                tree.extendedAttributes(of: inode).map { ($0.name, $0.value) }.filter { $0.0.hasPrefix("user.") },
                uniquingKeysWith: { first, _ in first })
        }
        #expect(try attributes("small") == ["user.a": large, "user.b": "1"])
        #expect(try attributes("sub") == ["user.d": "2"])
        #expect(try attributes("") == ["user.root": "3"])
        if isRoot {
            let null = try #require(tree.lookup(path: "null"))
            #expect(tree.content(of: null) == .characterDevice(Content.deviceNumber(major: 1, minor: 300)))
            let whiteout = try #require(tree.lookup(path: "whiteout"))
            #expect(tree.isWhiteout(whiteout))
            let outside = try #require(tree.lookup(path: "sub/outside"))
            #expect(tree.uid(of: outside) == 12 && tree.gid(of: outside) == 70_000)
        }
    }

    /// Deeper than any path may be long.
    @Test func deepDirectory() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/deep"
        try FileDescriptor.makeDirectory(path)
        let name = ByteString(String(repeating: "d", count: 200))
        var at = try FileDescriptor.open(path, [.readOnly, .directory])
        for _ in 0..<30 {
            try at.makeDirectory(at: name)
            at = try at.open(at: name, [.readOnly, .directory])
        }
        try at.open(at: "file", [.writeOnly, .create]).writeAll(content(100))
        var tree: FileTree? = try hashDirectory(path, .sha256)
        var inode = FileTree.root
        for _ in 0..<30 { inode = try #require(tree?.lookup(name, in: inode)) }
        let id = content(100).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let file = try #require(tree?.lookup("file", in: inode))
        #expect(tree?.content(of: file) == .external(id, size: 100))
        tree = nil
    }

    /// A writer that changes a file all the while: the result is an error, never a mixture.
    @Test func changingFile() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/changing"
        try FileDescriptor.makeDirectory(path)
        let name = path + "/file"
        try FileDescriptor.open(name, [.writeOnly, .create]).writeAll(content(1 << 20))
        let stop = BoundedQueue<Int>(capacity: 1)
        let pool = WorkerPool(threads: 1)
        pool.submit {
            var size: UInt64 = 1 << 20
            while let file = try? FileDescriptor.open(name, .writeOnly), stop.push(0) {
                _ = stop.pop()
                size = size == 1 << 20 ? 900_000 : 1 << 20
                try? file.truncate(to: size)
            }
        }
        var failures = 0
        for _ in 0..<50 {
            do {
                let tree = try hashDirectory(path, .sha256)
                // What is not refused is one of the two contents (a truncated tail reads as zeros afterwards).
                let file = try #require(tree.lookup(path: "file"))
                #expect(tree.kind(of: file) == .regular)
            } catch let error as RepositoryError {
                failures += 1
                #expect(error.description.contains("it changed while being read"), "\(error)")
            }
        }
        stop.close()
        pool.shutdown()
        #expect(failures > 0)
    }
}
