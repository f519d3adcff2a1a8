import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import Testing

import struct ComposefsFileTree.ExtendedAttribute

@testable import ComposefsFuse

/// Hostile images, and inode numbers without a directory entry: every request gets an answer or an error and ends.
@Suite struct HostileImages {
    private func sample(_ version: ErofsVersion) throws -> [UInt8] {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let id = [UInt8](repeating: 7, count: 100).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let plain = Metadata(
            permissions: 0o644,
            extendedAttributes: [
                ExtendedAttribute(name: "user.a", value: "b"), ExtendedAttribute(name: "trusted.overlay.x", value: "y"),
                ExtendedAttribute(name: "system.posix_acl_access", value: "no list"),
            ])
        let root = FileTree.root
        _ = try tree.addLeaf("object", in: root, plain, .external(id, size: 100))
        _ = try tree.addLeaf("inline", in: root, plain, .inline("some content in the image"))
        _ = try tree.addLeaf("hole", in: root, plain, .sparse(size: 1 << 40))
        _ = try tree.addLeaf("link", in: root, plain, .symbolicLink(ByteString([UInt8](repeating: 0x61, count: 300))))
        _ = try tree.addLeaf("gone", in: root, plain, .characterDevice(0))
        let directory = try tree.addDirectory("directory", in: root, plain)
        for number in 0..<150 {
            _ = try tree.addLeaf(ByteString("a name of some length to fill blocks \(number)"), in: directory, plain, .inline("x"))
        }
        return try writeErofs(tree, version: version)
    }

    /// Every operation on a node.
    private func exercise(_ fileSystem: ImageFileSystem, _ node: UInt64, _ buffer: UnsafeMutableRawBufferPointer) -> Int {
        var answers = 0
        func ask(_ operation: FuseOperation, _ arguments: [UInt8]) {
            request(operation, 2, node: node, arguments).withUnsafeBytes { bytes in
                guard let request = FuseRequest(bytes) else { return }
                var reply = FuseReply(buffer)
                let space = UnsafeMutableRawBufferPointer(rebasing: buffer[FuseProtocol.replyHeaderSize...])
                if case .reply = fileSystem.handle(request, &reply, space) { answers += 1 }
            }
        }
        let nothing = [UInt8](repeating: 0, count: 8)
        for operation: FuseOperation in [.getAttributes, .readLink, .open, .openDirectory] { ask(operation, nothing) }
        for name: ByteString in [".", "..", "a", "inline", "zz", "a name of some length to fill blocks 77"] { ask(.lookup, text(name)) }
        for offset: UInt64 in [0, 12, 13, 4096, 4095, 1 << 31, .max] {
            for operation: FuseOperation in [.read, .readDirectory, .readDirectoryPlus] {
                ask(operation, readArguments(offset: offset, size: 1 << 16))
            }
        }
        for size: UInt32 in [0, 1, 1 << 16] {
            ask(.listExtendedAttributes, fields { $0.u64(UInt64(size)) })
            ask(.getExtendedAttribute, fields { $0.u64(UInt64(size)) } + text("user.a"))
        }
        return answers
    }

    private func serve(_ bytes: [UInt8], _ buffer: UnsafeMutableRawBufferPointer, strangers: Bool) -> Int? {
        guard let image = try? ErofsImage(bytes) else { return nil }
        let files = ObjectFiles(MemoryObjects(), ObjectVerifier(requireVerity: false), nil, capacity: 4)
        let fileSystem = ImageFileSystem(image, files, showsTrusted: true, needsNoOpen: false, needsNoOpenDirectory: false) { _ in }
        var answers = 0
        for node in 0..<(strangers ? UInt64(bytes.count / 32) + 2 : 80) { answers += exercise(fileSystem, node, buffer) }
        for node: UInt64 in [.max, 1 << 32, 1 << 59, 1 << 63] { answers += exercise(fileSystem, node, buffer) }
        return answers
    }

    @Test(arguments: [ErofsVersion.v0, .v1, .v2]) func anyNodeOfAnyImage(version: ErofsVersion) throws {
        let good = try sample(version)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: FuseProtocol.maximumRead + 4096, alignment: 8)
        defer { buffer.deallocate() }
        #expect(try #require(serve(good, buffer, strangers: true)) > 1000)
        var generator = SystemRandomNumberGenerator()
        var accepted = 0
        for _ in 0..<200 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                let offset = Int.random(in: 1024..<bytes.count, using: &generator)
                bytes[offset] = Bool.random(using: &generator) ? UInt8.random(in: .min ... .max, using: &generator) : bytes[offset] ^ 1
            }
            if serve(bytes, buffer, strangers: false) != nil { accepted += 1 }
        }
        #expect(accepted > 0)
    }
}
