import ComposefsBytes
import ComposefsHashing
import ComposefsTar
import ComposefsTestSupport
import Testing

@testable import ComposefsImageStore

@Suite struct StoredEntries {
    @Test func entriesAreKept() throws {
        let short = try #require(ObjectID(algorithm: .sha256, bytes: Array(1...32)))
        let long = try #require(ObjectID(algorithm: .sha512, bytes: Array(1...64)))
        let contents: [LeafContent] = [
            .none, .inline(""), .inline("text"), .external(short, size: 1 << 40), .external(long, size: .max),
        ]
        let kinds: [TarEntry.Kind] = [
            .regular, .hardLink, .symbolicLink, .characterDevice, .blockDevice, .directory, .fifo, .other(0x53),
        ]
        for memory in [HeapMemory.shared, CountedMemory()] as [any LargeMemory] {
            var random = SplitMix(state: 1)
            var waiting = WaitingEntries(in: memory)
            var expected: [(entry: TarEntry, content: LeafContent)] = []
            for number in 0..<3000 {
                func text(_ longest: Int) -> ByteString { ByteString((0..<random.below(longest)).map { _ in UInt8(random.below(256)) }) }
                let attributes = (0..<random.below(3)).map { _ in (name: text(20), value: text(500)) }
                let entry = TarEntry(
                    path: text(200), linkTarget: text(90), kind: random.pick(kinds), mode: UInt32(random.below(4096)), uid: .max,
                    gid: UInt32(number), mtime: (Int64.min + Int64(number), UInt32(random.below(1_000_000_000))),
                    size: UInt64(number) << 40, deviceMajor: 4095, deviceMinor: UInt32(number), extendedAttributes: attributes,
                    headerOffset: UInt64(number) * 512)
                let content = random.pick(contents)
                waiting.append(entry, content)
                expected.append((entry, content))
            }
            #expect(waiting.indices == expected.indices)
            for index in expected.indices {
                let (found, wanted) = (waiting[index], expected[index])
                #expect(found.content == wanted.content && "\(found.entry)" == "\(wanted.entry)")
            }
            waiting.removeAll()
            #expect(waiting.isEmpty)
        }
    }

    /// Those with few parents come first, the others in the order of the archive.
    @Test func whiteoutsAreSorted() throws {
        var whiteouts = LayerWhiteouts(in: CountedMemory())
        let paths: [ByteString] = ["a/b/.wh.c", ".wh.z", "x/.wh..wh..opq", "./a//.wh.b", ".wh.a"]
        for (number, path) in paths.enumerated() { whiteouts.append(try EntryPath.parse(path).get(), offset: UInt64(number)) }
        whiteouts.sort()
        #expect(whiteouts.indices.map { whiteouts[$0].offset } == [1, 4, 2, 3, 0])
        #expect(whiteouts.indices.map { whiteouts[$0].path.path } == [".wh.z", ".wh.a", "x/.wh..wh..opq", "./a//.wh.b", "a/b/.wh.c"])
        whiteouts.removeAll()
        #expect(whiteouts.indices.isEmpty)
    }
}
