import ComposefsBytes
import ComposefsFileTree

/// Reads an image for a disk by the rules of linux/fs/erofs, without the writer's code. Traps on an image that is not valid.
struct DiskReader {
    /// A file as a reader of the image sees it. Hard links have the path of their first name.
    struct File: Equatable, CustomStringConvertible {
        var mode: UInt16
        var uid: UInt32
        var gid: UInt32
        var time: Timestamp
        var links: UInt32
        var size: UInt64
        /// Content, target, or the blocks of an object as offsets in bytes; nil for a hole.
        var content: [UInt8]?
        var device: UInt32
        var attributes: [ExtendedAttribute]
        var first: String

        var description: String {
            "mode \(String(mode, radix: 8)) \(uid):\(gid) \(time) links \(links) size \(size) device \(device) \(attributes) first \(first) \(content?.count ?? -1)"
        }
    }

    let bytes: [UInt8]
    private let metadata: Int
    private let shared: Int
    private static let prefixes = ["", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "", "security."]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
        metadata = Self.number(bytes, 1024 + 40, 4) * 4096
        shared = Self.number(bytes, 1024 + 44, 4) * 4096
    }

    private static func number(_ bytes: [UInt8], _ offset: Int, _ width: Int) -> Int {
        (0..<width).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
    }

    func number(_ offset: Int, _ width: Int) -> Int { Self.number(bytes, offset, width) }

    /// All files by path; the root is the empty path.
    func files() -> [String: File] {
        var found: [String: File] = [:]
        var first: [Int: String] = [:]
        var pending = [(nid: number(1024 + 14, 2), path: "", parent: number(1024 + 14, 2))]
        while let (nid, path, parent) = pending.popLast() {
            var file = file(nid)
            file.first = first[nid, default: path]
            first[nid] = file.first
            if file.mode & 0o170000 == 0o040000, let content = file.content {
                // The first name is the first in depth-first order.
                for (name, child, kind) in entries(content).reversed() {
                    let mode = number(metadata + child * 32 + 4, 2)
                    precondition([0, 0o10, 0o4, 0o2, 0o6, 0o1, 0o14, 0o12][kind] == mode >> 12, "type of \(path)/\(name)")
                    switch name {
                    case ".": precondition(child == nid)
                    case "..": precondition(child == parent)
                    default: pending.append((child, path + "/" + name, nid))
                    }
                }
                file.content = []
                file.size = 0
            }
            found[path] = file
        }
        return found
    }

    private func file(_ nid: Int) -> File {
        let at = metadata + nid * 32
        let (format, count, mode) = (number(at, 2), number(at + 2, 2), number(at + 4, 2))
        precondition(format & 1 == 1 && number(at + 20, 4) == nid)
        let area = count == 0 ? 0 : 12 + 4 * (count - 1)
        let size = number(at + 8, 8)
        let value = number(at + 16, 4)
        let rest = at + 64 + area
        var content: [UInt8]? = []
        let isDevice = [0o2, 0o6].contains(mode >> 12)
        switch format >> 1 {
        case 0 where isDevice: break
        case 0: if size > 0 { content = Array(bytes[(value * 4096)..<(value * 4096 + size)]) }
        case 2:
            let blocks = size / 4096 * 4096
            let tail = size - blocks
            precondition(rest / 4096 == (rest + tail - 1) / 4096, "the tail crosses a block")
            // Linux before 6.12 looks for the tail of a symbolic link in the block of its inode.
            precondition(mode >> 12 != 0o12 || at / 4096 == (rest + tail - 1) / 4096)
            content = (blocks > 0 ? Array(bytes[(value * 4096)..<(value * 4096 + blocks)]) : []) + bytes[rest..<(rest + tail)]
        default:
            // Chunks: only holes.
            precondition(bytes[rest..<(rest + 4)].allSatisfy { $0 == 0xff })
            content = nil
        }
        return File(
            mode: UInt16(mode), uid: UInt32(number(at + 24, 4)), gid: UInt32(number(at + 28, 4)),
            time: Timestamp(seconds: Int64(number(at + 32, 8)), nanoseconds: UInt32(number(at + 40, 4))), links: UInt32(number(at + 44, 4)),
            size: isDevice ? 0 : UInt64(bitPattern: Int64(size)), content: content, device: isDevice ? UInt32(value) : 0,
            attributes: attributes(at + 64, area),
            first: "")
    }

    private func attributes(_ start: Int, _ area: Int) -> [ExtendedAttribute] {
        guard area > 0 else { return [] }
        var found: [ExtendedAttribute] = []
        func entry(_ at: Int) -> Int {
            let (length, index, size) = (number(at, 1), number(at + 1, 1), number(at + 2, 2))
            let name = Array(Self.prefixes[index].utf8) + bytes[(at + 4)..<(at + 4 + length)]
            found.append(
                ExtendedAttribute(name: ByteString(name), value: ByteString(Array(bytes[(at + 4 + length)..<(at + 4 + length + size)]))))
            return (4 + length + size + 3) / 4 * 4
        }
        let count = number(start + 4, 1)
        for index in 0..<count { _ = entry(shared + 4 * number(start + 12 + 4 * index, 4)) }
        var at = start + 12 + 4 * count
        while at < start + area { at += entry(at) }
        precondition(at == start + area)
        return found.sorted { $0.name < $1.name }
    }

    private func entries(_ content: [UInt8]) -> [(name: String, nid: Int, kind: Int)] {
        var found: [(String, Int, Int)] = []
        var previous: [UInt8] = []
        for block in stride(from: 0, to: content.count, by: 4096) {
            let part = Array(content[block..<min(content.count, block + 4096)])
            let count = Self.number(part, 8, 2) / 12
            for index in 0..<count {
                let start = Self.number(part, 12 * index + 8, 2)
                let end = index + 1 < count ? Self.number(part, 12 * index + 20, 2) : part.count
                let name = Array(part[start..<end].prefix { $0 != 0 })
                precondition(previous.lexicographicallyPrecedes(name), "order")
                previous = name
                found.append((ByteString(name).description, Self.number(part, 12 * index, 8), Int(part[12 * index + 10])))
            }
        }
        return found
    }
}

/// What a reader must see of a tree.
func expectedFiles(_ tree: FileTree, _ object: (FileTree.InodeID) -> [UInt8]?) -> [String: DiskReader.File] {
    var found: [String: DiskReader.File] = [:]
    var first: [FileTree.InodeID: String] = [:]
    func add(_ inode: FileTree.InodeID, _ path: String) {
        let metadata = tree.metadata(of: inode)
        let kind = tree.kind(of: inode)
        var file = DiskReader.File(
            mode: kind.modeBits | metadata.permissions, uid: metadata.uid, gid: metadata.gid, time: metadata.modified,
            links: tree.linkCount(of: inode), size: 0, content: [], device: 0, attributes: metadata.extendedAttributes,
            first: first[inode, default: path])
        first[inode] = file.first
        switch tree.content(of: inode) {
        case nil: file.links = 2 + UInt32(tree.entries(of: inode).count { tree.isDirectory(tree.inode(of: $0)) })
        case .inline(let bytes), .symbolicLink(let bytes): (file.content, file.size) = (bytes.bytes, UInt64(bytes.count))
        case .external(_, let size), .externalWithoutVerity(_, let size): (file.content, file.size) = (object(inode), size)
        case .sparse(let size): (file.content, file.size) = (size > 0 ? nil : [], size)
        case .blockDevice(let number), .characterDevice(let number): file.device = UInt32(number)
        case .fifo, .socket: break
        }
        found[path] = file
        for entry in tree.sortedEntries(of: inode) { add(tree.inode(of: entry), path + "/" + tree.name(of: entry).description) }
    }
    add(FileTree.root, "")
    return found
}
