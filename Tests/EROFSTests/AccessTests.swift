import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import Testing

/// Lookups, listings and reads of an image match the tree that `tree()` builds from it.
@Suite struct Access {
    /// Walks an image by its entries and compares everything with the tree.
    private struct Comparison {
        let image: ErofsImage
        let tree: FileTree
        var numbers: [FileTree.InodeID: UInt64] = [:]

        mutating func check() throws {
            let root = try image.inode(image.rootNumber)
            #expect(root.kind == .directory)
            try compare(root, FileTree.root, parent: root)
        }

        mutating func compare(_ inode: ErofsInode, _ id: FileTree.InodeID, parent: ErofsInode) throws {
            // One number for all names of an inode.
            if let known = numbers[id] {
                #expect(known == inode.number)
                return
            }
            numbers[id] = inode.number
            let metadata = tree.metadata(of: id)
            #expect(inode.permissions == metadata.permissions && inode.uid == metadata.uid && inode.gid == metadata.gid)
            #expect(inode.modified == metadata.modified)
            #expect(try image.attributes(of: inode).sorted { $0.name < $1.name } == metadata.extendedAttributes)
            guard inode.kind != .directory else { return try compareEntries(inode, id, parent: parent) }
            let content = tree.content(of: id)
            #expect(inode.kind == content?.kind)
            switch content {
            case .inline(let bytes), .symbolicLink(let bytes):
                #expect(inode.size == UInt64(bytes.count))
                #expect(try image.content(of: inode) == .inImage)
                #expect(try read(inode, at: 0, count: bytes.count + 10) == bytes.bytes)
                for offset in [1, bytes.count / 2, bytes.count - 1, bytes.count, bytes.count + 1, 4095, 4096, 4097] where offset >= 0 {
                    for count in [0, 1, 5000] {
                        #expect(try read(inode, at: UInt64(offset), count: count) == Array(bytes.bytes.dropFirst(offset).prefix(count)))
                    }
                }
                #expect(try read(inode, at: .max, count: 10).isEmpty)
            case .external(let object, let size):
                #expect(try image.content(of: inode) == .object(object, isEnforced: true) && inode.size == size)
            case .externalWithoutVerity(let object, let size):
                #expect(try image.content(of: inode) == .object(object, isEnforced: false) && inode.size == size)
            case .sparse(let size): #expect(try image.content(of: inode) == .hole && inode.size == size)
            case .characterDevice(let device), .blockDevice(let device): #expect(UInt64(inode.deviceNumber) == device)
            case .fifo, .socket: #expect(inode.deviceNumber == 0 && inode.size == 0)
            case nil: Issue.record("a directory in the tree, \(inode.kind) in the image")
            }
        }

        func read(_ inode: ErofsInode, at offset: UInt64, count: Int) throws -> [UInt8] {
            try [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
                filled = try image.read(inode, at: offset, into: UnsafeMutableRawBufferPointer(buffer))
            }
        }

        mutating func compareEntries(_ inode: ErofsInode, _ id: FileTree.InodeID, parent: ErofsInode) throws {
            struct Found {
                var name: ByteString
                var inode: ErofsInode
                var next: UInt64
            }
            var found: [Found] = []
            try image.forEachEntry(of: inode, from: 0) { name, child, next in
                found.append(Found(name: ByteString(name), inode: child, next: next))
                return true
            }
            let entries = tree.entries(of: id)
            #expect(found.map(\.name) == (entries.map { tree.name(of: $0) } + [".", ".."]).sorted())
            // A listing that is restarted after any entry returns the rest.
            for (index, entry) in found.enumerated() where index % 7 == 0 || found.count < 50 {
                var rest: [ByteString] = []
                try image.forEachEntry(of: inode, from: entry.next) { name, _, _ in
                    rest.append(ByteString(name))
                    return rest.count < 3
                }
                #expect(rest == found[(index + 1)...].prefix(3).map(\.name))
            }
            for entry in found {
                let looked = try entry.name.bytes.withUnsafeBytes { try image.lookup($0, in: inode) }
                #expect(looked?.number == entry.inode.number)
                switch entry.name {
                case ".": #expect(entry.inode.number == inode.number)
                case "..": #expect(entry.inode.number == parent.number)
                default:
                    guard let child = entries.first(where: { tree.name(of: $0) == entry.name }) else { continue }
                    try compare(entry.inode, tree.inode(of: child), parent: inode)
                }
                for absent in [entry.name + "\u{1}", ByteString(entry.name.bytes.dropLast()), ByteString([0xff] + entry.name.bytes)]
                where !found.contains(where: { $0.name == absent }) {
                    #expect(try absent.bytes.withUnsafeBytes { try image.lookup($0, in: inode) } == nil)
                }
            }
        }
    }

    private func check(_ tree: FileTree) throws {
        for version in ErofsVersion.allCases {
            let image = try ErofsImage(try writeErofs(tree, version: version))
            var comparison = Comparison(image: image, tree: try image.tree())
            try comparison.check()
        }
    }

    @Test func goldenTrees() throws {
        try check(FileTree(root: Metadata(permissions: 0o755)))
        try check(Golden.simple())
        for dump in [Dumps.special, Dumps.base, Dumps.linked, Dumps.bootable] { try check(tree(dump)) }
    }

    @Test(arguments: 300..<316 as Range<UInt64>)
    func randomTrees(seed: UInt64) throws { try check(RandomTree(seed: seed, isPortable: false).tree) }

    /// The names that hide an object store's directories are not part of the tree, unless the tree itself has them.
    @Test func objectDirectoriesAreHidden() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        _ = try tree.addDirectory("7f", in: FileTree.root, Metadata(permissions: 0o700))
        let image = try ErofsImage(try writeErofs(tree, version: .v1))
        let root = try image.inode(image.rootNumber)
        for (name, isThere) in [("00", false), ("7f", true), ("ff", false), ("FF", false)] as [(ByteString, Bool)] {
            let found = try name.bytes.withUnsafeBytes { try image.lookup($0, in: root) }
            #expect((found != nil) == isThere, "\(name)")
        }
    }

    /// Every number and every position gives an answer or an error.
    @Test func foreignNumbers() throws {
        let tree = try RandomTree(seed: 77, isPortable: false).tree
        for version in ErofsVersion.allCases {
            let image = try ErofsImage(try writeErofs(tree, version: version))
            for number in (0..<UInt64(image.byteCount / 32 + 2)).map({ $0 }) + [.max, .max / 32, 1 << 59, 1 << 63] {
                guard let inode = try? image.inode(number) else { continue }
                _ = try? image.content(of: inode)
                _ = try? image.attributes(of: inode)
                for position: UInt64 in [0, 1, 12, 4096, 4108, 1 << 40, .max] {
                    var count = 0
                    try? image.forEachEntry(of: inode, from: position) { _, _, _ in
                        count += 1
                        return count < 10
                    }
                    _ = try? [UInt8](unsafeUninitializedCapacity: 64) { buffer, filled in
                        filled = try image.read(inode, at: position, into: UnsafeMutableRawBufferPointer(buffer))
                    }
                }
                _ = try? ("name" as ByteString).bytes.withUnsafeBytes { try image.lookup($0, in: inode) }
            }
            #expect(throws: ErofsError.self) { try image.inode(.max) }
            #expect(throws: ErofsError.self) { try image.inode(UInt64(image.byteCount / 32)) }
        }
    }
}
