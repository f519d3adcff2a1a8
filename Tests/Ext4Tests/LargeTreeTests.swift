import ComposefsBytes
import ComposefsFileTree
import ComposefsTestSupport
import Testing

@testable import ComposefsExt4

/// Trees that are not on the heap, and are put in order before they are written.
@Suite struct LargeTrees {
    @Test(arguments: 0..<24) func sameImages(seed: UInt64) throws {
        let (tree, contents) = try { ($0.tree, $0.contents) }(RandomTree(seed: seed))
        let memory = CountedMemory()
        let unordered = try RandomTree(seed: seed, in: memory).tree
        var other = unordered
        other.order()
        let expected = Result { try planOf(tree) }
        for tree in [unordered, other] {
            switch (expected, Result { try planOf(tree) }) {
            case (.success(let plan), .success(let found)):
                #expect(found.uuid.bytes == plan.uuid.bytes && Array(found.placements) == Array(plan.placements))
                if plan.byteCount < 16 << 20 { #expect(imageBytes(found, contents) == imageBytes(plan, contents)) }
            case (.failure(let error), .failure(let found)): #expect("\(found)" == "\(error)")
            default: Issue.record("one of two equal trees is refused")
            }
        }
    }

    /// An index of two levels in the root, which also has `lost+found`.
    @Test func largeDirectory() throws {
        let memory = CountedMemory()
        let names = (0..<9000).map { ByteString("\($0 &* 7919 % 9000)" + String(repeating: "n", count: 240)) }
        var (tree, other) = (FileTree(root: Metadata(permissions: 0o755)), FileTree(root: Metadata(permissions: 0o755), in: memory))
        for name in names {
            try tree.addLeaf(name, in: FileTree.root, Metadata(permissions: 0o644), .fifo)
            try other.addLeaf(name, in: FileTree.root, Metadata(permissions: 0o644), .fifo)
        }
        let image = try ImageFile(Ext4Plan(tree))
        try image.check()
        let (_, listed) = try image.run("debugfs -R 'htree_dump /' $I | grep -c 'Entry #.*Hash'; debugfs -R 'ls -p /' $I | grep -c nnn")
        let numbers = listed.split(separator: "\n").compactMap { Int($0) }
        #expect(numbers.count == 2 && numbers[0] > 507 && numbers[1] == 9000)
        let expected = imageBytes(try Ext4Plan(tree), Contents())
        #expect(imageBytes(try Ext4Plan(other), Contents()) == expected)
        other.order()
        #expect(imageBytes(try Ext4Plan(other), Contents()) == expected)
    }
}
