import ComposefsBytes
import ComposefsFileTree
import ComposefsHashing
import ComposefsTestSupport
import Testing

@testable import ComposefsEROFS

/// Trees that are not on the heap, and are put in order before they are written.
@Suite struct LargeTrees {
    @Test(arguments: 0..<40) func sameImages(seed: UInt64) throws {
        let tree = try RandomTree(seed: seed, isPortable: false).tree
        let memory = CountedMemory()
        var other = try RandomTree(seed: seed, isPortable: false, in: memory).tree
        let unordered = other
        other.order()
        #expect(other.inodeCapacity <= tree.inodeCapacity && memory.evictions > 0)
        for version in ErofsVersion.allCases {
            let expected = Result { try writeErofs(tree, version: version) }
            for tree in [unordered, other] {
                switch (expected, Result { try writeErofs(tree, version: version) }) {
                case (.success(let bytes), .success(let found)): #expect(found == bytes)
                case (.failure(let error), .failure(let found)): #expect("\(found)" == "\(error)")
                default: Issue.record("one of two equal trees is refused")
                }
            }
        }
        let expected = Result { try bytes(ErofsDiskPlan(tree)) }
        for tree in [unordered, other] {
            switch (expected, Result { try bytes(ErofsDiskPlan(tree)) }) {
            case (.success(let bytes), .success(let found)): #expect(found == bytes)
            case (.failure(let error), .failure(let found)): #expect("\(found)" == "\(error)")
            default: Issue.record("one of two equal trees is refused")
            }
        }
    }

    /// Everything that a plan says of an image.
    private func bytes(_ plan: ErofsDiskPlan) throws -> [[UInt8]] {
        var parts: [[UInt8]] = []
        plan.writeMetadata { bytes, offset in parts.append(Array(bytes) + Array("\(offset)".utf8)) }
        return parts + plan.placements.map { Array("\($0.object) \($0.offset) \($0.byteCount)".utf8) }
    }

    /// A directory that is larger than the buffer of a writer, and attributes that pairs of files share.
    @Test func largeDirectory() throws {
        var tree = FileTree(root: Metadata(permissions: 0o755))
        for number in 0..<9000 {
            let attribute = ExtendedAttribute(
                name: "security.capability", value: ByteString("\(number / 2)" + String(repeating: "v", count: 200)))
            try tree.addLeaf(
                ByteString("\(number &* 7919 % 9000)" + String(repeating: "n", count: 240)), in: FileTree.root,
                Metadata(permissions: 0o644, extendedAttributes: [attribute]), .inline(ByteString("\(number)")))
        }
        for version in ErofsVersion.allCases {
            let image = try writeErofs(tree, version: version)
            let read = try ErofsImage(image).tree()
            #expect(read.entries(of: FileTree.root).count == 9000)
            for entry in tree.entries(of: FileTree.root) {
                guard let found = read.lookup(tree.name(of: entry), in: FileTree.root) else {
                    Issue.record("a file is missing")
                    return
                }
                #expect(read.content(of: found) == tree.content(of: tree.inode(of: entry)))
                #expect(read.extendedAttributes(of: found) == tree.extendedAttributes(of: tree.inode(of: entry)))
            }
        }
    }
}
