import ComposefsBytes
import ComposefsExt4
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import Glibc
import Testing

/// Contents of objects, which a test keeps in memory.
struct Contents {
    private(set) var all: [ObjectID: [UInt8]] = [:]

    mutating func add(_ bytes: [UInt8]) throws -> Content {
        let id = try #require(ObjectID(algorithm: .sha256, bytes: ContentDigest.of(bytes).bytes))
        all[id] = bytes
        return .external(id, size: UInt64(bytes.count))
    }
}

/// An image in a temporary sparse file.
final class ImageFile {
    let folder: TestFolder
    var path: String { String(decoding: folder.path.bytes, as: UTF8.self) + "/image" }

    init(_ plan: Ext4Plan, _ contents: Contents = Contents()) throws {
        folder = try TestFolder("ext4")
        let file = try FileDescriptor.open(folder.path + "/image", [.readWrite, .create], mode: 0o600)
        try file.truncate(to: plan.byteCount)
        var end: UInt64 = 0
        for part in plan.metadata {
            #expect(part.offset >= end, "in ascending order")
            end = part.offset + UInt64(part.bytes.count)
            #expect(end <= plan.byteCount)
            try part.bytes.withUnsafeBytes { try file.pwriteAll($0, at: part.offset) }
        }
        end = 0
        for part in plan.placements {
            #expect(part.imageOffset >= end, "in ascending order")
            end = part.imageOffset + part.byteCount
            #expect(end <= plan.byteCount)
            guard let content = contents.all[part.object] else { continue }
            let range = Int(part.objectOffset)..<Int(part.objectOffset + part.byteCount)
            try content[range].withUnsafeBytes { try file.pwriteAll($0, at: part.imageOffset) }
        }
    }

    /// Runs a command in which `$I` is the image.
    func run(_ command: String) throws -> (status: Int32, output: String) {
        let log = folder.path + "/log"
        let prefix = "exec >\(log) 2>&1; I=\(path); "
        let status = try ChildProcess.start("sh", ["-c", ByteString(prefix + command)]).wait()
        let bytes = try FileDescriptor.open(log, .readOnly).readAll(limit: 1 << 28)
        return (status, String(decoding: bytes, as: UTF8.self))
    }

    /// e2fsck must find nothing at all.
    func check(_ context: String = "", sourceLocation: SourceLocation = #_sourceLocation) throws {
        let (status, output) = try run("e2fsck -fn $I")
        // The banner, five passes, and the summary.
        let lines = output.split(separator: "\n").filter { !$0.hasPrefix("Pass ") && !$0.hasPrefix("e2fsck ") }
        #expect(status == 0 && lines.count == 1, "\(context) \(status): \(output)", sourceLocation: sourceLocation)
    }

    func debugfs(_ request: String) throws -> String { try run("debugfs -R '\(request)' $I 2>/dev/null").output }

    func bytes() throws -> [UInt8] {
        try FileDescriptor.open(folder.path + "/image", .readOnly).readAll(limit: 1 << 31)
    }
}

func planOf(_ tree: FileTree, _ options: Ext4Options = Ext4Options()) throws -> Ext4Plan { try Ext4Plan(tree, options) }

/// The image as bytes; objects have the contents that are given.
func imageBytes(_ plan: Ext4Plan, _ contents: Contents = Contents()) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(plan.byteCount))
    for part in plan.metadata { bytes.replaceSubrange(Int(part.offset)..<(Int(part.offset) + part.bytes.count), with: part.bytes) }
    for part in plan.placements {
        guard let content = contents.all[part.object] else { continue }
        let data = content[Int(part.objectOffset)..<Int(part.objectOffset + part.byteCount)]
        bytes.replaceSubrange(Int(part.imageOffset)..<(Int(part.imageOffset) + data.count), with: data)
    }
    return bytes
}

// MARK: Descriptions

/// What a user sees of a file: everything but the inode's number. Hard links name the first path of their inode.
struct Description: Equatable {
    var text: String
    var attributes: [ExtendedAttribute]
    var content: [UInt8]
}

private func text(
    _ mode: UInt32, _ uid: UInt32, _ gid: UInt32, _ links: UInt64, _ time: Timestamp, _ size: UInt64, _ device: UInt64, _ first: String
) -> String {
    "\(String(mode, radix: 8)) \(uid):\(gid) \(links) \(time.seconds).\(time.nanoseconds) size \(size) device \(device) first \(first)"
}

/// Describes a tree by path. Contents of objects come from `contents`.
func describe(_ tree: FileTree, _ contents: Contents = Contents()) -> [String: Description] {
    var found: [String: Description] = [:]
    var first: [FileTree.InodeID: String] = [:]
    func add(_ inode: FileTree.InodeID, _ path: String) {
        var (size, device, bytes) = (UInt64(0), UInt64(0), [UInt8]())
        switch tree.content(of: inode) {
        case .inline(let content), .symbolicLink(let content): (size, bytes) = (UInt64(content.count), content.bytes)
        case .external(let id, let length), .externalWithoutVerity(let id, let length): (size, bytes) = (length, contents.all[id] ?? [])
        case .sparse(let length): (size, bytes) = (length, length < 1 << 24 ? [UInt8](repeating: 0, count: Int(length)) : [])
        case .blockDevice(let number), .characterDevice(let number): device = number
        case .fifo, .socket, nil: break
        }
        var links = UInt64(tree.linkCount(of: inode))
        if tree.isDirectory(inode) {
            links = 2 + UInt64(tree.entries(of: inode).filter { tree.isDirectory(tree.inode(of: $0)) }.count)
            if links > 65000 { links = 1 }
        }
        let origin = tree.isDirectory(inode) ? path : first[inode, default: path]
        first[inode] = origin
        let mode = UInt32(tree.kind(of: inode).modeBits | tree.permissions(of: inode))
        found[path] = Description(
            text: text(mode, tree.uid(of: inode), tree.gid(of: inode), links, tree.modified(of: inode), size, device, origin),
            attributes: tree.extendedAttributes(of: inode), content: bytes)
        for entry in tree.sortedEntries(of: inode) { add(tree.inode(of: entry), path + "/" + tree.name(of: entry).description) }
    }
    add(FileTree.root, "")
    return found
}

/// Describes a mounted file system in the same way, without `lost+found`.
func describe(mounted root: String) throws -> [String: Description] {
    var found: [String: Description] = [:]
    var first: [UInt64: String] = [:]
    func add(_ path: ByteString, _ shown: String) throws {
        var status = stat()
        try #require(path.withCString { lstat($0, &status) } == 0)
        let kind = try #require(FileTree.Kind(modeBits: status.st_mode))
        var content: [UInt8] = []
        var names: [ByteString] = []
        switch kind {
        case .regular: if status.st_size < 1 << 24 { content = try FileDescriptor.open(path, .readOnly).readAll(limit: 1 << 24) }
        case .symbolicLink: content = try FileDescriptor.currentDirectory.readLink(at: path).bytes
        case .directory: names = try FileDescriptor.open(path, [.readOnly, .directory]).entries().map(\.name).sorted()
        default: break
        }
        let slash = path.bytes.lastIndex(of: 0x2f) ?? 0
        let parent = try FileDescriptor.open(ByteString(path.bytes[..<slash]), [.readOnly, .directory])
        let attributes = try parent.extendedAttributes(at: ByteString(path.bytes[(slash + 1)...]))
            .map { ExtendedAttribute(name: $0.name, value: $0.value) }.sorted { $0.name < $1.name }
        let isNode = kind == .blockDevice || kind == .characterDevice
        let origin = kind == .directory ? shown : first[UInt64(status.st_ino), default: shown]
        first[UInt64(status.st_ino)] = origin
        let time = Timestamp(seconds: Int64(status.st_mtim.tv_sec), nanoseconds: UInt32(status.st_mtim.tv_nsec))
        let size = kind == .directory ? 0 : UInt64(status.st_size)
        found[shown] = Description(
            text: text(
                status.st_mode, status.st_uid, status.st_gid, UInt64(status.st_nlink), time, size,
                isNode ? UInt64(status.st_rdev) : 0, origin),
            attributes: attributes, content: content)
        for name in names where !(shown.isEmpty && name == "lost+found") { try add(path + "/" + name, shown + "/" + name.description) }
    }
    try add(ByteString(root), "")
    return found
}

extension ByteString {
    /// For functions of the C library.
    func withCString<Result>(_ body: (UnsafePointer<CChar>) throws -> Result) rethrows -> Result {
        try (bytes.map { CChar(bitPattern: $0) } + [0]).withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { fatalError("an array with a NUL is not empty") }
            return try body(base)
        }
    }
}

/// Compares descriptions and names what differs. `lost+found` adds one to the links of the root.
func expectEqual(_ found: [String: Description], _ expected: [String: Description], sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(Set(found.keys) == Set(expected.keys), sourceLocation: sourceLocation)
    for (path, one) in found {
        guard let other = expected[path] else { continue }
        if !path.isEmpty { #expect(one.text == other.text, "'\(path)'", sourceLocation: sourceLocation) }
        #expect(one.attributes == other.attributes, "'\(path)'", sourceLocation: sourceLocation)
        #expect(one.content == other.content, "'\(path)'", sourceLocation: sourceLocation)
    }
}

/// Cancels the test if images cannot be mounted with loop devices.
func requireLoopMounts() throws {
    try requireMounting()
    guard access("/dev/loop-control", R_OK | W_OK) == 0 else { try Test.cancel("there are no loop devices") }
}

/// Mounts an image, runs `body`, and unmounts it.
func withMount<Result>(_ image: ImageFile, _ options: String = "ro", _ body: (String) throws -> Result) throws -> Result {
    let point = String(decoding: image.folder.path.bytes, as: UTF8.self) + "/mounted"
    try FileDescriptor.makeDirectory(ByteString(point))
    let (status, output) = try image.run("mount -t ext4 -o loop,\(options) $I \(point)")
    try #require(status == 0, "\(output)")
    defer {
        _ = try? image.run("umount \(point)")
        _ = rmdir(point)
    }
    return try body(point)
}
