import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import Testing

@testable import ComposefsDisks

@Suite struct KeptDiskFormatTests {
    @Test func keys() throws {
        #expect(DiskRequest(.flat, tree: .composefs, size: 1 << 30).key == "flat-1-composefs-1073741824")
        for request in [DiskRequest(.single), DiskRequest(.vmdk, tree: .composefs), DiskRequest(.flat, size: 7)] {
            #expect(DiskRequest(key: request.key) == request)
        }
        for key in [
            "", "single", "single-1", "single-2-oci", "single-01-oci", "single-1-oci-", "single-1-oci-5", "flat-1-oci-05", "flat-1-oci-+5",
            "flat-1-oci-5-5", "layered-1-composefs", "Single-1-oci", "flat-1-oci-99999999999999999999",
        ] as [ByteString] {
            #expect(DiskRequest(key: key) == nil, "\(key)")
        }
    }

    @Test func streamNames() throws {
        let digest = ContentDigest.of([])
        let name = DiskRecord.stream("flat-1-oci-5", digest)
        #expect(name == "oci-disk-flat-1-oci-5-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        let parsed = try #require(DiskRecord.parse(stream: name))
        #expect(parsed.key == "flat-1-oci-5" && parsed.chainID == digest)
        for other in ["oci-disk-", "oci-disk-x", "oci-disk--\(digest)", "oci-erofs-\(digest)", "oci-disk-x-sha256:00"] {
            #expect(DiskRecord.parse(stream: ByteString(other)) == nil, "\(other)")
        }
    }

    /// OCI image specification, config.md, "Layer ChainID": computed with sha256sum(1).
    @Test func chainIDs() throws {
        let first = try #require(ContentDigest("sha256:" + String(repeating: "a", count: 64)))
        let second = try #require(ContentDigest("sha256:" + String(repeating: "b", count: 64)))
        #expect(ContentDigest.chainIDs(of: []) == [] && ContentDigest.chainIDs(of: [first]) == [first])
        #expect(
            ContentDigest.chainIDs(of: [first, second, first]).map(\.description) == [
                first.description, "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c",
                "sha256:406364a4bd8d39df8107071d4494fa73814420337124657ec5999b072e5d3352",
            ])
    }

    @Test func exceptionTexts() throws {
        let exceptions: StackExceptions = [
            StackException(kind: .whiteoutDevice, path: "/a:b\n"), StackException(kind: .linkAcrossLayers, path: ByteString([0x2f, 0xff])),
        ]
        var text: [UInt8] = []
        exceptions.withParts { text += $0 }
        #expect(text == Array("whiteoutDevice:/a:b\n\0linkAcrossLayers:/".utf8) + [0xff, 0])
        #expect(StackExceptions(text: text) == exceptions && StackExceptions(text: []) == [])
        #expect(exceptions.map(\.path) == ["/a:b\n", ByteString([0x2f, 0xff])] && exceptions.count == 2)
        var twice = exceptions
        twice.append(contentsOf: exceptions)
        #expect(Array(twice) == Array(exceptions) + Array(exceptions) && twice != exceptions)
        for bad in ["whiteoutDevice:/a", "other:/a\0", "whiteoutDevice\0", "\0", "whiteoutDevice:/a\0\0"] {
            #expect(StackExceptions(text: Array(bad.utf8)) == nil, "\(bad)")
        }
    }
}
