import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// Sizes at a limit are accepted. One more is refused with the limit and the value.
@Suite struct LimitTests {
    private func pull(_ archives: [LayerArchive], _ adjust: (inout PullLimits) -> Void) throws {
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        var options = PullOptions()
        adjust(&options.limits)
        _ = try pullImage(from: ArraySource(archives.map { ArraySource.Layer($0) }), into: repository, options)
    }

    private func refused(_ archives: [LayerArchive], _ adjust: (inout PullLimits) -> Void) -> String {
        refusal { try pull(archives, adjust) } ?? "nothing was refused"
    }

    @Test func layerBytes() throws {
        let archive = LayerArchive.zeros("a", 100_000)
        let count = UInt64(archive.bytes.count)
        try pull([archive]) { $0.layerBytes = count }
        #expect(
            refused([archive]) { $0.layerBytes = count - 1 }
                == "layer 1 of 1 (\(ContentDigest.of(archive.bytes))): the layer has \(count) bytes; the limit is \(count - 1)")
        // When only decompression shows the size.
        let packed = Pack.zstd(archive.bytes)
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        let source = ArraySource([
            ArraySource.Layer(blob: packed, diffID: archive.diffID, mediaType: "application/vnd.oci.image.layer.v1.tar+zstd")
        ])
        var options = PullOptions()
        options.limits.layerBytes = count - 1
        let said = refusal { _ = try pullImage(from: source, into: repository, options) }
        #expect(
            said?.hasSuffix(": the layer has more than \(count - 1) bytes; the limit is \(count - 1)") == true)
        options.limits.layerBytes = count
        _ = try pullImage(from: source, into: repository, options)
    }

    @Test func entries() throws {
        let one = LayerArchive().adding("a").adding("b").adding("c")
        let two = LayerArchive().adding("d").adding("e")
        try pull([one, two]) { ($0.layerEntries, $0.imageEntries) = (3, 5) }
        let digest = ContentDigest.of(one.bytes)
        #expect(
            refused([one, two]) { $0.layerEntries = 2 }
                == "layer 1 of 2 (\(digest)): the layer has more than 2 entries; the limit is 2")
        #expect(
            refused([one, two]) { $0.imageEntries = 4 }
                == "the image's layers have more than 4 entries; the limit is 4")
    }

    @Test func trees() throws {
        var archive = LayerArchive()
        for index in 0..<200 { archive.add("l\(index)", type: "2", link: String(repeating: "x", count: 90)) }
        // An image may have four times the size of its layers, with any limit.
        try pull([archive]) { $0.treeBytes = 1 }
        var packed = LayerArchive()
        for index in 0..<2000 { packed.add("l\(index)", type: "2", link: String(repeating: "x", count: 90)) }
        let layer = ArraySource.Layer(
            blob: Pack.zstd(packed.bytes), diffID: packed.diffID, mediaType: "application/vnd.oci.image.layer.v1.tar+zstd")
        func attempt(_ limit: UInt64) throws {
            let scratch = try StoreScratch()
            var options = PullOptions()
            options.limits.treeBytes = limit
            _ = try pullImage(from: ArraySource([layer]), into: try scratch.create(), options)
        }
        try attempt(2_000_000)
        let said = refusal { try attempt(500_000) }
        #expect(
            said?.hasSuffix(
                "of the archive: the image's tree uses more than 500000 bytes of memory so far; the limit is 500000") == true)
        #expect(said?.hasPrefix("entry \"l") == true)
    }

    @Test func paths() throws {
        let archive = LayerArchive().adding("a").adding("directory/file")
        try pull([archive]) { $0.pathBytes = 14 }
        #expect(
            refused([archive]) { $0.pathBytes = 13 }
                == "layer 1 of 1 (\(ContentDigest.of(archive.bytes))): entry \"directory/file\" at byte 512 of the archive: its path has 14 "
                + "bytes; the limit is 13")
    }

    @Test func attributes() throws {
        var archive = LayerArchive()
        archive.add("a", attributes: [("user.one", [UInt8](repeating: 1, count: 92)), ("user.two", [2, 3])])
        try pull([archive]) { $0.xattrBytes = 110 }
        #expect(
            refused([archive]) { $0.xattrBytes = 109 }.hasSuffix(
                "its extended attributes have 110 bytes; the limit is 109"))
    }

    @Test func manifests() throws {
        let archive = LayerArchive.zeros("a", 100)
        let size = UInt64(ArraySource([ArraySource.Layer(archive)]).manifest.count)
        try pull([archive]) { $0.manifestBytes = size }
        #expect(
            refused([archive]) { $0.manifestBytes = size - 1 }
                == "manifest: it has \(size) bytes; the limit is \(size - 1)")
        // More than the default if allowed, also later, when the store reads it.
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = BigManifest(ArraySource([ArraySource.Layer(archive)]), padding: 5 << 20)
        #expect(refusal { _ = try pullImage(from: source, into: store.repository) }?.contains("the limit is 4194304") == true)
        var options = PullOptions()
        options.limits.manifestBytes = 8 << 20
        _ = try pullImage(from: source, into: store.repository, options)
        #expect(try store.faults() == [])
        #expect(try store.open("localhost/test:latest").image.manifest.bytes.count > 5 << 20)
        // Never more than the largest.
        options.limits.manifestBytes = .max
        let huge = BigManifest(ArraySource([ArraySource.Layer(archive)]), padding: ImageLimits.largestManifest)
        #expect(refusal { _ = try pullImage(from: huge, into: store.repository, options) }?.contains("the limit is 67108864") == true)
    }

    private struct BigManifest: ImageSource {
        let source: ArraySource
        let bytes: [UInt8]

        init(_ source: ArraySource, padding: Int) {
            self.source = source
            bytes =
                source.manifest.dropLast() + Array(#","annotations":{"x":""#.utf8) + [UInt8](repeating: 0x61, count: padding)
                + Array("\"}}".utf8)
        }

        var canonicalName: String { source.canonicalName }
        func rootManifest() -> SourceManifest { SourceManifest(bytes: bytes, mediaType: MediaType.ociManifest) }
        func manifest(_ descriptor: Descriptor) throws -> [UInt8] { try source.manifest(descriptor) }
        func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { try source.openBlob(descriptor) }
    }

    // MARK: Space

    private func status(free: UInt64, available: UInt64, inodes: UInt64 = 1000, of total: UInt64 = 2000) throws -> FileSystemStatus {
        var status = try FileDescriptor.open("/", [.readOnly, .directory]).fileSystemStatus()
        (status.freeBytes, status.availableBytes, status.freeInodes, status.totalInodes) = (free, available, inodes, total)
        return status
    }

    @Test func space() throws {
        func said(
            _ bytes: UInt64, _ status: FileSystemStatus, isPrivileged: Bool = false, layers: Int = 3, blobs: UInt64 = 0
        ) -> String? {
            refusal {
                try SpaceCheck(compressedBytes: bytes, blobBytes: blobs, layers: layers, status, isPrivileged: isPrivileged).check("/repo")
            }
        }
        let status = try status(free: 2_000_000, available: 1_500_000)
        #expect(said(1_500_000, status) == nil)
        #expect(
            said(1_500_001, status)
                == "/repo: the 3 missing layers need at least 1.43 MiB, and about 3.72 MiB unpacked; 1.43 MiB are free")
        // Kept blobs are not decompressed, and need their size in addition.
        #expect(said(700_000, status, blobs: 800_000) == nil)
        #expect(
            said(700_001, status, blobs: 800_000)?.hasPrefix(
                "/repo: the 3 missing layers need at least 1.43 MiB, and about 2.50 MiB unpacked")
                == true
        )
        #expect(said(.max, status, blobs: .max)?.contains("need at least 16.00 EiB") == true)
        #expect(said(2_000_000, status, isPrivileged: true) == nil)
        #expect(said(2_000_001, status, isPrivileged: true) != nil)
        #expect(said(.max, status)?.contains("need at least 16.00 EiB") == true)
        let few = try self.status(free: 1 << 40, available: 1 << 40, inodes: 8)
        #expect(said(1, few, layers: 2) == nil)
        #expect(said(1, few) == "/repo: the image needs at least 9 inodes; 8 are free")
        // A file system that does not count inodes.
        #expect(said(1, try self.status(free: 1 << 40, available: 1 << 40, inodes: 0, of: 0)) == nil)
    }
}
