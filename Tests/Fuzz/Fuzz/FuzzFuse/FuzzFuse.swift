import ComposefsBytes
import ComposefsEROFS
import ComposefsFileTree
import ComposefsFuse
import ComposefsFuzzSupport
import ComposefsHashing
import ComposefsLinuxSystem
import Glibc

import struct ComposefsFileTree.ExtendedAttribute

/// Requests in any order and of any form, for an image of each format: no trap, and each reply has the form of the protocol.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var choices = Choices(start, count)
    let image = images[choices.below(images.count)]
    let server = FuseAnswers(image, objects: Objects(), opensLazily: choices.rarely(2))
    for _ in 0..<64 where !choices.isAtEnd {
        let bytes = choices.rarely(8) ? choices.bytes(upTo: 200) : request(&choices, image)
        bytes.withUnsafeBytes { bytes in
            guard let reply = server.answer(bytes, output) else { return }
            precondition(reply.count >= 16 && reply.count <= output.count, "a reply of \(reply.count) bytes")
            precondition(reply.loadUnaligned(as: UInt32.self) == UInt32(reply.count), "another length")
            let error = reply.loadUnaligned(fromByteOffset: 4, as: Int32.self)
            precondition(error <= 0 && error > -4096, "the error \(error)")
            precondition(error == 0 || reply.count == 16, "an error with a content")
            let unique = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
            precondition(reply.loadUnaligned(fromByteOffset: 8, as: UInt64.self) == unique, "a reply to another request")
            // No reply is longer than the request asks for: read and readdir have their sizes at the same place.
            let operation = bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
            if [15, 28, 44].contains(operation), error == 0, bytes.count >= 60 {
                let asked = bytes.loadUnaligned(fromByteOffset: 56, as: UInt32.self)
                precondition(reply.count - 16 <= Int(asked), "\(reply.count - 16) bytes instead of \(asked)")
            }
        }
    }
    return 0
}

/// A request with the right length of an operation of the protocol, mostly for a node that exists.
private func request(_ choices: inout Choices, _ image: ErofsImage) -> [UInt8] {
    let operation = choices.rarely(12) ? UInt32(truncatingIfNeeded: choices.integer()) : UInt32(1 + choices.below(53))
    var arguments = ByteWriter()
    for _ in 0..<choices.below(5) { arguments.u64(choices.integer()) }
    if choices.rarely(2) {
        let names: [ByteString] = [
            "object", "inline", "directory", ".", "..", "link", "name 7", "user.a", "trusted.overlay.x", "", "00", "a/b",
        ]
        arguments.append(choices.one(of: names).bytes)
        if !choices.rarely(8) { arguments.append([0]) }
    }
    if choices.rarely(8) { arguments.append(choices.bytes(upTo: 64)) }
    let node = choices.rarely(4) ? choices.integer() : choices.rarely(2) ? 1 : UInt64(36 + choices.below(200))
    var out = ByteWriter()
    out.u32(UInt32(40 + arguments.bytes.count))
    out.u32(operation)
    out.u64(choices.integer())
    out.u64(node)
    out.u32(choices.rarely(2) ? 1000 : 0)
    out.u32(0)
    out.u32(UInt32(getpid()))
    out.u32(0)
    return out.bytes + arguments.bytes
}

nonisolated(unsafe) private let output = UnsafeMutableRawBufferPointer.allocate(byteCount: FuseAnswers.replyBuffer, alignment: 4096)

private let content = [UInt8](repeating: 7, count: 100_000)

/// One object that is intact, one with another content, and no others.
private struct Objects: ObjectOpener {
    static let intact = content.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
    static let missing = [UInt8](repeating: 9, count: 70).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
    static let damaged = [UInt8](repeating: 8, count: 5000).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
    private static let path: ByteString = {
        let path = Scratch.path + "/object"
        Scratch.write(path, content)
        return path
    }()

    func openObject(_ id: ObjectID) throws(ObjectOpenError) -> FileDescriptor {
        do throws(SystemError) {
            guard id == Self.intact || id == Self.damaged else { throw SystemError("open", ByteString(id.hex), .noEntry) }
            return try FileDescriptor.open(Self.path, .readOnly)
        } catch {
            throw .system(error)
        }
    }
}

private let images: [ErofsImage] = ErofsVersion.allCases.map { version in
    do {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        let plain = Metadata(
            permissions: 0o644,
            extendedAttributes: [ExtendedAttribute(name: "trusted.overlay.x", value: "y"), ExtendedAttribute(name: "user.a", value: "b")])
        let root = FileTree.root
        _ = try tree.addLeaf("object", in: root, plain, .external(Objects.intact, size: UInt64(content.count)))
        _ = try tree.addLeaf("damaged", in: root, plain, .external(Objects.damaged, size: 5000))
        _ = try tree.addLeaf("missing", in: root, plain, .external(Objects.missing, size: 70))
        _ = try tree.addLeaf("inline", in: root, plain, .inline("some content in the image"))
        _ = try tree.addLeaf("hole", in: root, plain, .sparse(size: 1 << 40))
        _ = try tree.addLeaf("link", in: root, plain, .symbolicLink(ByteString([UInt8](repeating: 0x61, count: 300))))
        _ = try tree.addLeaf("gone", in: root, plain, .characterDevice(0))
        let directory = try tree.addDirectory("directory", in: root, plain)
        for number in 0..<120 { _ = try tree.addLeaf(ByteString("name \(number)"), in: directory, plain, .inline("x")) }
        return try ErofsImage(try writeErofs(tree, version: version))
    } catch {
        fatalError("the image: \(error)")
    }
}
