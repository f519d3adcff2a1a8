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
}
