import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Glibc
import Testing

import struct ComposefsFileTree.ExtendedAttribute

@testable import ComposefsFuse

/// An image mounted and served by this process.
final class MountedImage {
    let path: String
    private let mount: AttachedFuseMount
    private let thread = Guarded(false)

    init(_ tree: FileTree, _ objects: MemoryObjects, _ version: ErofsVersion = .v1) throws {
        var template = Array("/var/tmp/cfsoci-fuse-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let made = try FuseMount(at: ByteString(path), FuseMountOptions(source: "composefs:test", allowOther: true))
        let server = try FuseServer(
            try ErofsImage(try writeErofs(tree, version: version)), objects: objects, device: try made.connection(),
            FuseServerOptions(threads: 2))
        mount = try made.attach()
        let thread = thread
        _ = startThread("server") {
            server.run()
            thread.change { $0 = true }
        }
    }

    func unmount() throws {
        try mount.unmount()
        thread.wait { (done, _) -> Void? in done ? () : nil }
    }

    deinit {
        try? mount.unmount(lazily: true)
        rmdir(path)
    }
}

/// The image as users see it through the kernel.
@Suite(.serialized, .enabled(if: geteuid() == 0 && access("/dev/fuse", F_OK) == 0, "needs root and FUSE")) struct ThroughTheKernel {
    private let plain = Metadata(permissions: 0o600, uid: 0, gid: 0)

    /// struct posix_acl_xattr_header and entries: tag, permissions, id.
    private func acl(_ entries: [(tag: UInt16, permissions: UInt16, id: UInt32)]) -> ByteString {
        ByteString(
            fields {
                $0.u32(2)
                for entry in entries {
                    $0.u16(entry.tag)
                    $0.u16(entry.permissions)
                    $0.u32(entry.id)
                }
            })
    }

    /// Whether a user can read a file.
    private func canRead(_ path: String, _ uid: UInt32) throws -> Bool {
        let arguments = ["--reuid", "\(uid)", "--regid", "\(uid)", "--clear-groups", "cat", path].map { ByteString($0) }
        return try ChildProcess.start("setpriv", arguments, isDetached: true).wait() == 0
    }

    @Test func accessControlLists() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        // The owner may read and write, user 1234 may read, others have no access.
        let list = acl([(1, 6, .max), (2, 4, 1234), (4, 0, .max), (16, 4, .max), (32, 0, .max)])
        let metadata = Metadata(
            permissions: 0o640, extendedAttributes: [ExtendedAttribute(name: "system.posix_acl_access", value: list)])
        _ = try tree.addLeaf("listed", in: FileTree.root, metadata, .inline("secret"))
        _ = try tree.addLeaf("plain", in: FileTree.root, Metadata(permissions: 0o640), .inline("secret"))
        let image = try MountedImage(tree, MemoryObjects())
        let file = try FileDescriptor.open(ByteString(image.path + "/listed"), .readOnly)
        #expect(try file.extendedAttribute("system.posix_acl_access") == list)
        let expected: [(UInt32, String, Bool)] = [
            (1234, "listed", true), (1235, "listed", false), (1234, "plain", false), (0, "plain", true),
        ]
        for (uid, name, isReadable) in expected { #expect(try canRead(image.path + "/" + name, uid) == isReadable, "\(uid) \(name)") }
        _ = consume file
        try image.unmount()
    }

    @Test func trustedAttributesAreRootsAlone() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let list: [ExtendedAttribute] = [ExtendedAttribute(name: "trusted.a", value: "1"), ExtendedAttribute(name: "user.b", value: "2")]
        _ = try tree.addLeaf("file", in: FileTree.root, Metadata(permissions: 0o644, extendedAttributes: list), .inline("x"))
        let image = try MountedImage(tree, MemoryObjects())
        let found = try FileDescriptor.open(ByteString(image.path + "/file"), .readOnly).extendedAttributes().map(\.name)
        #expect(found == ["trusted.a", "user.b"])
        try image.unmount()
    }

    /// Within one process: no mount, descriptor, thread or connection remains.
    @Test(.timeLimit(.minutes(5))) func aThousandCyclesLeaveNothing() throws {
        let objects = MemoryObjects()
        let content = [UInt8](repeating: 7, count: 10_000)
        var tree = FileTree(root: Metadata(permissions: 0o755))
        _ = try tree.addLeaf("file", in: FileTree.root, plain, .external(objects.add(content), size: 10_000))
        let connections = "/tmp/cfsoci-connections-" + Host.randomName(12).description
        #expect(mkdir(connections, 0o755) == 0 && Glibc.mount("none", connections, "fusectl", 0, nil) == 0)
        defer {
            umount2(connections, Int32(MNT_DETACH))
            rmdir(connections)
        }
        func count(_ path: String) throws -> Int { try FileDescriptor.open(ByteString(path), [.readOnly, .directory]).entries().count }
        func state() throws -> [Int] {
            let mounts = try FileDescriptor.open("/proc/self/mountinfo", .readOnly).readAll(limit: 1 << 24).count { $0 == 10 }
            return try [mounts, count("/proc/self/fd"), count(connections)]
        }
        // Only named threads are ours; the test library starts and ends others.
        func threads() throws -> Int {
            let tasks = try FileDescriptor.open("/proc/self/task", [.readOnly, .directory])
            return try tasks.entries().count { task in
                let name = try? tasks.open(at: task.name + "/comm", .readOnly).readAll(limit: 64)
                return name.map { $0 == Array("worker\n".utf8) || $0 == Array("server\n".utf8) } ?? false
            }
        }
        func cycle(_ index: Int) throws {
            let image = try MountedImage(tree, objects)
            let file = try FileDescriptor.open(ByteString(image.path + "/file"), .readOnly)
            if index % 10 == 0 { #expect(try file.readAll(limit: 20_000) == content) }
            _ = consume file
            try image.unmount()
        }
        try cycle(0)
        let before = (try state(), try threads())
        for index in 0..<1000 { try cycle(index) }
        // Threads and connections end a moment after their last user.
        for _ in 0..<200 where try state() != before.0 || threads() != before.1 { Host.sleep(milliseconds: 10) }
        #expect(try state() == before.0)
        #expect(try threads() == before.1)
    }

    /// Larger than a reply: read through the page cache, by mapping and at any offset.
    @Test func largeFiles() throws {
        let objects = MemoryObjects()
        let content = [UInt8](unsafeUninitializedCapacity: 9_000_001) { buffer, count in
            for index in 0..<9_000_001 { buffer[index] = UInt8(truncatingIfNeeded: index &* 7 &+ index >> 11) }
            count = 9_000_001
        }
        var tree = FileTree(root: Metadata(permissions: 0o755))
        _ = try tree.addLeaf("large", in: FileTree.root, plain, .external(objects.add(content), size: 9_000_001))
        _ = try tree.addLeaf("hole", in: FileTree.root, plain, .sparse(size: 5_000_000_000))
        let image = try MountedImage(tree, objects)
        let file = try FileDescriptor.open(ByteString(image.path + "/large"), .readOnly)
        #expect(try file.readAll(limit: 10_000_000) == content)
        let mapped = mmap(nil, 9_000_001, PROT_READ, Int32(MAP_PRIVATE), file.raw, 0)
        #expect(mapped != MAP_FAILED)
        if let mapped, mapped != MAP_FAILED {
            #expect(UnsafeRawBufferPointer(start: mapped, count: content.count).elementsEqual(content))
            munmap(mapped, 9_000_001)
        }
        #expect(try file.seek(to: 0, from: .end) == 9_000_001)
        let hole = try FileDescriptor.open(ByteString(image.path + "/hole"), .readOnly)
        var byte: UInt8 = 9
        #expect(pread(hole.raw, &byte, 1, 4_999_999_999) == 1 && byte == 0)
        #expect(pread(hole.raw, &byte, 1, 5_000_000_000) == 0)
        _ = consume file
        _ = consume hole
        try image.unmount()
    }

    /// The kernel caches existing and missing names, and lists directories from its cache.
    @Test func directoriesOfManyEntries() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let directory = try tree.addDirectory("many", in: FileTree.root, plain)
        for number in 0..<20_000 { _ = try tree.addLeaf(ByteString("entry \(number)"), in: directory, plain, .inline("")) }
        let image = try MountedImage(tree, MemoryObjects())
        for _ in 0..<3 {
            let folder = try FileDescriptor.open(ByteString(image.path + "/many"), [.readOnly, .directory])
            let names = try folder.entries().map(\.name).sorted()
            #expect(names == (0..<20_000).map { ByteString("entry \($0)") }.sorted())
            #expect(try folder.statusIfPresent(at: "entry 777" as ByteString)?.size == 0)
            #expect(try folder.statusIfPresent(at: "entry x" as ByteString) == nil)
        }
        try image.unmount()
    }
}
