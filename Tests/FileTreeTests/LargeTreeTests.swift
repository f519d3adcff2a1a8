import ComposefsBytes
import ComposefsFileTree
import ComposefsTestSupport
import Testing

/// Trees with more than is kept ready on the heap.
@Suite struct LargeFileTrees {
    private let plain = Metadata(permissions: 0o755)
    private static let memories: @Sendable () -> [any LargeMemory] = { [HeapMemory.shared, CountedMemory()] }

    /// Names of more than a megabyte: some begin with others, some differ only far behind, in groups of all sizes.
    @Test(arguments: 0..<4) func sortedNames(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        var names: Set<ByteString> = []
        let common = String(repeating: "c", count: random.below(40))
        while names.reduce(0, { $0 + $1.count }) < 3 << 19 {
            for _ in 0..<500 {
                let stem = String(repeating: random.pick(["a", "b", "\u{e9}"]), count: random.pick([0, 3, 8, 9, 90, 100]))
                let rest = String(random.below(random.pick([10, 1000, 100_000])))
                names.insert(ByteString(common + stem + rest + String(repeating: "z", count: random.pick([0, 1, 30]))))
            }
        }
        let order = names.sorted().shuffled(using: &random)
        for memory in Self.memories() {
            var tree = FileTree(root: plain, in: memory)
            let directory = try tree.addDirectory("d", in: FileTree.root, plain)
            for name in order { try tree.addLeaf(name, in: directory, plain, .fifo) }
            #expect(tree.entries(of: directory).map(tree.name(of:)) == order)
            #expect(tree.sortedEntries(of: directory).map(tree.name(of:)) == names.sorted())
        }
    }

    @Test func removedFromAnOrderedTree() throws {
        var tree = FileTree(root: plain, in: CountedMemory())
        for number in (0..<3000).reversed() { try tree.addLeaf(ByteString("f\(number)"), in: FileTree.root, plain, .fifo) }
        tree.order()
        let sorted = (0..<3000).map { ByteString("f\($0)") }.sorted()
        #expect(tree.entries(of: FileTree.root).map(tree.name(of:)) == sorted)
        for name in ["f0", "f1500", "f999"] as [ByteString] { #expect(tree.remove(name, from: FileTree.root) as Bool) }
        let rest = sorted.filter { !["f0", "f1500", "f999"].contains($0) }
        #expect(tree.entries(of: FileTree.root).map(tree.name(of:)) == rest)
        #expect(tree.sortedEntries(of: FileTree.root).map(tree.name(of:)) == rest)
        try tree.addLeaf("a", in: FileTree.root, plain, .fifo)
        #expect(tree.sortedEntries(of: FileTree.root).map(tree.name(of:)) == ["a"] + rest)
    }

    @Test func manyAttributes() throws {
        var random = SplitMix(state: 3)
        let lists = (0..<8000).map { number in
            (0..<(1 + random.below(3))).map { index in
                ExtendedAttribute(
                    name: ByteString("user.\(index)\(random.oneIn(9) ? String(number) : "")"),
                    value: ByteString(String(repeating: String(number % 5000), count: random.pick([1, 7, 40]))))
            }
        }
        for memory in Self.memories() {
            var tree = FileTree(root: plain, in: memory)
            var expected: [ByteString: [ExtendedAttribute]] = [:]
            for (number, list) in lists.enumerated() {
                let metadata = Metadata(permissions: 0o644, extendedAttributes: list)
                let name = ByteString("f\(number)")
                try tree.addLeaf(name, in: FileTree.root, metadata, .fifo)
                expected[name] = metadata.extendedAttributes
            }
            check(tree, expected)
            #expect(tree.attributeBytes == Set(expected.values).reduce(0) { $0 + $1.reduce(0) { $0 + $1.name.count + $1.value.count } })
            tree.order()
            check(tree, expected)
            tree.mapExtendedAttributes { $0.filter { $0.name != "user.0" } }
            check(tree, expected.mapValues { $0.filter { $0.name != "user.0" } })
        }
    }

    private func check(_ tree: FileTree, _ expected: [ByteString: [ExtendedAttribute]]) {
        var groups: [Int: [ExtendedAttribute]] = [:]
        var numbers: [Int: ExtendedAttribute] = [:]
        for (name, list) in expected {
            guard let inode = tree.lookup(name, in: FileTree.root) else {
                Issue.record("\(name) is missing")
                continue
            }
            #expect(tree.extendedAttributes(of: inode) == list)
            let group = tree.extendedAttributeGroup(of: inode)
            #expect(groups.updateValue(list, forKey: group) ?? list == list && (group == 0) == list.isEmpty)
            var index = 0
            tree.forEachAttribute(of: inode) { number in
                let attribute = tree.withAttribute(number) { ExtendedAttribute(name: ByteString($0), value: ByteString($1)) }
                #expect(attribute == list[index] && numbers.updateValue(attribute, forKey: number) ?? attribute == attribute)
                index += 1
            }
            #expect(index == list.count)
        }
        #expect(Set(groups.values).count == groups.count && Set(numbers.values).count == numbers.count)
    }
}
