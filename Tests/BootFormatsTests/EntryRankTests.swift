import ComposefsBootFormats
import ComposefsBytes
import Testing

/// The order of entries (UAPI "Boot Loader Specification", Sorting), and what `boot prepare` does with lines of an entry.
@Suite struct EntryRankTests {
    private func rank(
        _ file: ByteString, key: ByteString? = nil, machine: ByteString? = nil, version: ByteString? = nil
    ) throws -> EntryRank {
        EntryRank(try #require(LoaderEntryName(fileName: file)), sortKey: key, machineID: machine, version: version)
    }

    @Test func fromTheFirstToTheLast() throws {
        let ordered = [
            try rank("b.conf", key: "a", machine: "1", version: "2"),
            try rank("a.conf", key: "a", machine: "1", version: "2"),
            try rank("z.conf", key: "a", machine: "1", version: "1.10"),
            try rank("z.conf", key: "a", machine: "1", version: "1.9"),
            try rank("z.conf", key: "a", machine: "1", version: "1.9~rc1"),
            try rank("z.conf", key: "a", machine: "1"),
            try rank("z.conf", key: "a", machine: "2", version: "3"),
            try rank("z.conf", key: "b", version: "9"),
            // Without a sort key the name decides.
            try rank("linux-6.12.conf", version: "1"),
            try rank("linux-6.9+3.conf", version: "2"),
            try rank("linux-6.9+1-2.conf", version: "2"),
            try rank("linux-6.1.conf", version: "3"),
            // No attempt left.
            try rank("y+0-3.conf", key: "a", version: "9"),
            try rank("z+0-3.conf", version: "9"),
        ]
        for (left, first) in ordered.enumerated() {
            for (right, second) in ordered.enumerated() { #expect((first < second) == (left < right), "\(left) \(right)") }
        }
        #expect(ordered.shuffled().sorted() == ordered)
    }

    @Test func linesOfAnEntry() {
        var entry = LoaderEntry(
            parsing: "title\tA\nlinux /l\n initrd  /i\ninitrd /j\nuki\nuki-url x\ndevicetree /d\nlinuxes /x\n".utf8)
        #expect(entry.keyedFiles.map { "\($0.key) \($0.path)" } == ["linux /l", "initrd /i", "initrd /j", "devicetree /d"])
        #expect(entry.has("uki") && entry.has("uki-url") && entry.has("title") && !entry.has("titl") && !entry.has("efi"))
        entry.remove("initrd")
        #expect(entry.lines == ["title\tA", "linux /l", "uki", "uki-url x", "devicetree /d", "linuxes /x"])
    }
}
