import ComposefsBytes
import Testing

@testable import ComposefsDisks

@Suite struct VirtualDiskTests {
    /// vm-disks: extents split at 2 GiB with offsets in sectors, no empty line, relative names, cylinders of 1,008 sectors.
    @Test func splitsExtents() {
        let disk = VirtualDisk(extents: [("fsmeta.erofs", 8192), ("0000-a.erofs", 5 << 30), ("0001-b.erofs", 2 << 30)])
        let text = String(decoding: disk.descriptor, as: UTF8.self)
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        #expect(lines.last == "" && !lines.dropLast().contains(""))
        #expect(
            lines.filter { $0.hasPrefix("RW") } == [
                #"RW 16 FLAT "fsmeta.erofs" 0"#, #"RW 4194304 FLAT "0000-a.erofs" 0"#, #"RW 4194304 FLAT "0000-a.erofs" 4194304"#,
                #"RW 2097152 FLAT "0000-a.erofs" 8388608"#, #"RW 4194304 FLAT "0001-b.erofs" 0"#,
            ])
        // 14,680,080 sectors.
        #expect(lines.contains(#"ddb.geometry.cylinders = "14564""#))
        #expect(lines.contains(#"createType="twoGbMaxExtentFlat""#))
    }
}
