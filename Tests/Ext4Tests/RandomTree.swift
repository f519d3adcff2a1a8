import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsTestSupport

/// A tree with the edge cases of ext4: names of all lengths and bytes, indexed directories, links, targets around 60 bytes, contents around blocks,
/// attributes in the inode, in blocks and in inodes of their own, lists of access, devices of both encodings, times at the limits.
struct RandomTree {
    private var random: SplitMix
    private(set) var contents = Contents()
    private(set) var tree = FileTree(root: Metadata(permissions: 0o755))
    private let nameLimit: Int

    init(seed: UInt64, in memory: any LargeMemory = HeapMemory.shared) throws {
        random = SplitMix(state: seed)
        nameLimit = random.pick([3, 8, 30, 120, 255])
        tree = FileTree(root: makeMetadata(isFile: false), in: memory)
        var directories = [FileTree.root]
        var leaves: [FileTree.InodeID] = []
        let hasBigDirectory = random.oneIn(2)
        for _ in 0..<random.pick([5, 40, 200, 900]) {
            let directory = hasBigDirectory && random.oneIn(2) ? directories[min(1, directories.count - 1)] : random.pick(directories)
            var name = makeName()
            while tree.lookup(name, in: directory) != nil || name == "lost+found" { name = makeName() + makeName() }
            if name.count > 255 { continue }
            if !leaves.isEmpty, random.oneIn(8) {
                try tree.addLink(name, in: directory, to: random.pick(leaves))
            } else if random.oneIn(6) {
                directories.append(try tree.addDirectory(name, in: directory, makeMetadata(isFile: false)))
            } else {
                let content = try makeContent()
                leaves.append(try tree.addLeaf(name, in: directory, makeMetadata(isFile: content.kind == .regular), content))
            }
        }
    }

    private mutating func makeName() -> ByteString {
        while true {
            let length = 1 + random.below(random.oneIn(5) ? 255 : nameLimit)
            let name = (0..<length).map { _ -> UInt8 in
                let byte = UInt8(random.oneIn(4) ? 1 + random.below(255) : 0x61 + random.below(26))
                return byte == 0x2f ? 0x61 : byte
            }
            if name != [0x2e], name != [0x2e, 0x2e] { return ByteString(name) }
        }
    }

    private mutating func makeMetadata(isFile: Bool) -> Metadata {
        let seconds: Int64 = random.pick([0, 1_700_000_000, -1, -(1 << 31), (1 << 31) - 1, 1 << 31, 1 << 32, 5_000_000_000, 15_032_385_535])
        let time = Timestamp(seconds: seconds, nanoseconds: random.oneIn(2) ? 0 : UInt32(random.below(1_000_000_000)))
        let uid = random.pick([0, 1000, 65535, 65536, UInt32(truncatingIfNeeded: random.next())])
        let gid = random.pick([0, 1000, 65536, UInt32(truncatingIfNeeded: random.next())])
        return Metadata(
            permissions: UInt16(random.below(0o10000)), uid: uid, gid: gid, modified: time, extendedAttributes: makeAttributes(isFile))
    }

    private mutating func makeAttributes(_ isFile: Bool) -> [ExtendedAttribute] {
        guard random.oneIn(3) else { return [] }
        var list: [ExtendedAttribute] = []
        for _ in 0..<(1 + random.below(6)) {
            // Kernels show attributes of users only for files and directories.
            let prefix = random.pick(isFile ? ["user.", "trusted.", "security."] : ["trusted.", "security."])
            let name = prefix + String(repeating: "n", count: random.pick([1, 2, 10, 200])) + String(random.below(9))
            let length = random.pick([0, 1, 3, 4, 20, 60, 100, 1000, 4000, random.oneIn(4) ? 5000 : 7, random.oneIn(12) ? 65536 : 8])
            let byte = UInt8(random.below(256))
            let value = (0..<length).map { UInt8(truncatingIfNeeded: $0 / 3) ^ byte }
            list.append(ExtendedAttribute(name: ByteString(name), value: ByteString(value)))
        }
        if isFile, random.oneIn(2) {
            list.append(
                ExtendedAttribute(
                    name: "system.posix_acl_access", value: acl([(1, 6, .max), (2, 4, 1234), (4, 0, .max), (16, 4, .max), (32, 0, .max)])))
        }
        return list
    }

    private mutating func makeContent() throws -> Content {
        switch random.below(12) {
        case 0, 1:
            let length = random.pick([1, 58, 59, 60, 61, 200, 4095])
            return .symbolicLink(ByteString([UInt8](repeating: 0x62, count: length)))
        case 2: return random.oneIn(2) ? .fifo : .socket
        case 3:
            let pairs: [(UInt32, UInt32)] = [(0, 0), (8, 1), (255, 255), (256, 0), (1, 256), (4095, 0xfffff)]
            let (major, minor) = random.pick(pairs)
            let number = Content.deviceNumber(major: major, minor: minor)
            return random.oneIn(2) ? .blockDevice(number) : .characterDevice(number)
        case 4: return .sparse(size: random.pick([0, 1, 4096, 1 << 20]))
        case 5: return .inline(ByteString([UInt8](repeating: 0x63, count: random.pick([0, 1, 64, 5000]))))
        default:
            let length = random.pick([1, 4095, 4096, 4097, 20_000, 100_000])
            let byte = UInt8(random.below(256))
            return try contents.add((0..<length).map { UInt8(truncatingIfNeeded: $0 &* 7) ^ byte })
        }
    }
}

/// A list of access as an extended attribute (struct posix_acl_xattr_header and entries: tag, permissions, ID).
func acl(_ entries: [(tag: UInt16, permissions: UInt16, id: UInt32)]) -> ByteString {
    var out = ByteWriter()
    out.u32(2)
    for entry in entries {
        out.u16(entry.tag)
        out.u16(entry.permissions)
        out.u32(entry.id)
    }
    return ByteString(out.bytes)
}
