import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsTestSupport

extension SplitMix {
    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in oneIn(3) ? UInt8(below(256)) : 0x61 } }
}

/// A tree with the edge cases of the format: names and directories around block sizes, links across directories, whiteouts, names of
/// object directories, long targets, contents around half a block, shared and unshared attributes, sizes around chunk limits, large owners.
struct RandomTree {
    private var random: SplitMix
    /// Whether the tree is limited to what `mkcomposefs` accepts.
    private let isPortable: Bool
    private var attributes: [ExtendedAttribute] = []
    private var times: [Timestamp] = []
    private var digests: [ObjectID] = []
    private var richness = 0
    private var nameLimit = 8
    private(set) var tree = FileTree(root: Metadata(permissions: 0))

    init(seed: UInt64, isPortable: Bool, in memory: any LargeMemory = HeapMemory.shared) throws {
        random = SplitMix(state: seed)
        self.isPortable = isPortable
        richness = random.below(4)
        nameLimit = random.pick([3, 8, 30, 120, 255])
        for _ in 0..<(1 + random.below(30)) { attributes.append(makeAttribute()) }
        let isOneTime = random.oneIn(2)
        for _ in 0..<4 {
            var seconds = Int64(random.below(1 << 33))
            if !isPortable, random.oneIn(3) { seconds = -seconds }
            times.append(Timestamp(seconds: seconds, nanoseconds: random.oneIn(2) ? 0 : UInt32(random.below(1_000_000_000))))
        }
        if isOneTime { times = [times[0]] }
        for _ in 0..<5 { if let id = makeDigest() { digests.append(id) } }
        tree = FileTree(root: makeMetadata(), in: memory)
        try fill(count: random.pick([5, 40, 200, 700, 1500]))
    }

    private mutating func fill(count: Int) throws {
        var directories = [FileTree.root]
        var leaves: [FileTree.InodeID] = []
        let hasBigDirectory = random.oneIn(3)
        for _ in 0..<count {
            let isBig = hasBigDirectory && random.oneIn(2)
            let directory = isBig ? directories[min(1, directories.count - 1)] : random.pick(directories)
            var name = makeName(isInRoot: directory == FileTree.root)
            while tree.lookup(name, in: directory) != nil { name = makeName(isInRoot: false) }
            if !leaves.isEmpty, random.oneIn(8) {
                try tree.addLink(name, in: directory, to: random.pick(leaves))
            } else if random.oneIn(6) {
                directories.append(try tree.addDirectory(name, in: directory, makeMetadata()))
            } else {
                let leaf = try tree.addLeaf(name, in: directory, makeMetadata(), makeContent())
                if !tree.isWhiteout(leaf) { leaves.append(leaf) }
            }
        }
    }

    private mutating func makeName(isInRoot: Bool) -> ByteString {
        if isInRoot, random.oneIn(3) { return random.pick(["00", "ff", "a0", "AB", "7f", "fg"]) }
        while true {
            let length = 1 + random.below(random.oneIn(5) ? 255 : nameLimit)
            let name = ByteString(
                (0..<length).map { _ -> UInt8 in
                    let byte = random.oneIn(20) ? UInt8(1 + random.below(255)) : UInt8(33 + random.below(90))
                    return byte == 0x2f || byte == 0x0a ? 0x61 : byte
                })
            if name != ".", name != ".." { return name }
        }
    }

    private mutating func makeAttribute() -> ExtendedAttribute {
        let names: [ByteString] = [
            "user.a", "user.bb", "user.overlay.redirect", "security.selinux", "security.capability", "trusted.foo", "trusted.",
            "trusted.overlay.redirect", "trusted.overlay.foo", "trusted.overlay.overlay.x", "system.posix_acl_access",
            "system.posix_acl_default", "lustre.lov", "weird", "user.a2",
        ]
        let name = random.oneIn(20) ? ByteString("user." + String(repeating: "n", count: 1 + random.below(249))) : random.pick(names)
        let length = random.pick([0, 1, 2, 3, 4, 5, 20, 36, random.below(100), random.oneIn(10) ? random.below(5000) : 7])
        return ExtendedAttribute(name: name, value: ByteString(random.bytes(length)))
    }

    private mutating func makeMetadata() -> Metadata {
        var list: [ExtendedAttribute] = []
        if richness > 0, random.oneIn(4 - richness) { for _ in 0..<random.below(richness * 3) { list.append(random.pick(attributes)) } }
        if random.oneIn(40) {
            list.append(ExtendedAttribute(name: "user.pad", value: ByteString([UInt8](repeating: 0x78, count: random.below(4200)))))
        }
        let uid = random.pick([0, 0, 1000, 65535, 65536, UInt32(truncatingIfNeeded: random.next())])
        return Metadata(
            permissions: UInt16(random.below(0o10000)), uid: uid, gid: random.oneIn(3) ? UInt32(random.below(70000)) : 0,
            modified: random.pick(times), extendedAttributes: list)
    }

    private mutating func makeDigest() -> ObjectID? {
        ObjectID(algorithm: .sha256, bytes: (0..<32).map { _ in UInt8(random.below(256)) })
    }

    private mutating func makeSize() -> UInt64 {
        // mkcomposefs accepts at most 1024 chunks of 8 TiB.
        let largest: UInt64 = isPortable ? 1 << 53 : 1 << 63 | 1
        let any = 1 + random.next() >> UInt64((isPortable ? 12 : 1) + random.below(50))
        return random.pick([any, any, 1, 4096, 4097, 1 << 20, 1 << 43, (1 << 43) + 1, largest])
    }

    private mutating func makeContent() -> Content {
        // Supported by all versions.
        let targetLimit = isPortable ? 4095 : 1024
        switch random.below(12) {
        case 0: return .symbolicLink(ByteString([UInt8](repeating: 0x62, count: 1 + random.below(random.oneIn(3) ? targetLimit : 60))))
        case 1: return .fifo
        case 2: return .socket
        case 3: return .blockDevice(UInt64(random.below(1 << 32)))
        case 4: return .characterDevice(random.oneIn(2) ? 0 : UInt64(1 + random.below(0xffff_fffe)))
        case 5, 6: return .inline(ByteString(random.bytes(random.oneIn(3) ? random.below(isPortable ? 5000 : 4096) : random.below(64))))
        case 7: return .sparse(size: makeSize())
        case 8: return .externalWithoutVerity(random.pick(digests), size: makeSize())
        default:
            guard let id = random.oneIn(2) ? random.pick(digests) : makeDigest() else { return .fifo }
            return .external(id, size: makeSize())
        }
    }
}
