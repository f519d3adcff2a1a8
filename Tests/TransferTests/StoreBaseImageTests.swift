import ComposefsBytes
import ComposefsDumpfile
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsTransfer

/// xoshiro256++ (Blackman, Vigna) seeded by SplitMix64: the content of files in the reference implementation's synthetic images.
private struct SmallRandom {
    private var state: (UInt64, UInt64, UInt64, UInt64)

    init(seed: UInt64) {
        var seed = seed
        func next() -> UInt64 {
            seed &+= 0x9e37_79b9_7f4a_7c15
            var value = seed
            value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
            value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
            return value ^ value >> 31
        }
        state = (next(), next(), next(), next())
    }

    private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 { value << count | value >> (64 - count) }

    mutating func next() -> UInt64 {
        let result = Self.rotate(state.0 &+ state.3, 23) &+ state.0
        let shifted = state.1 << 17
        state.2 ^= state.0
        state.3 ^= state.1
        state.1 ^= state.2
        state.0 ^= state.3
        state.2 ^= shifted
        state.3 = Self.rotate(state.3, 45)
        return result
    }

    static func bytes(_ count: Int) -> [UInt8] {
        var generator = SmallRandom(seed: UInt64(count))
        var bytes: [UInt8] = []
        while bytes.count < count { withUnsafeBytes(of: generator.next().littleEndian) { bytes += $0 } }
        return Array(bytes[..<count])
    }
}

/// The five layers of the reference implementation's base image.
enum BaseImage {
    static var layers: [LayerArchive] {
        var folders = LayerArchive()
        for name in ["usr", "usr/bin", "usr/lib", "usr/share", "etc", "var", "tmp"] { folders.add(name, type: "5", mode: 0o755) }
        var busybox = LayerArchive()
        busybox.add("usr/bin/busybox", mode: 0o755, content: SmallRandom.bytes(4096))
        busybox.add("usr/bin/sh", type: "2", mode: 0o777, link: "busybox")
        var tools = LayerArchive()
        for name in ["ls", "cat", "cp", "mv", "rm"] { tools.add("usr/bin/" + name, type: "2", mode: 0o777, link: "busybox") }
        let capability: [UInt8] = [2, 0, 0, 2, 0, 0x20, 0, 0] + [UInt8](repeating: 0, count: 12)
        tools.add("usr/bin/ping", type: "2", mode: 0o777, link: "busybox", attributes: [("security.capability", capability)])
        var etc = LayerArchive()
        etc.add("etc/os-release", mode: 0o644, content: Array("ID=test\nVERSION_ID=1.0\n".utf8))
        etc.add("etc/hostname", mode: 0o644, content: Array("test-host".utf8))
        etc.add("etc/passwd", mode: 0o644, content: SmallRandom.bytes(100))
        var data = LayerArchive()
        data.add("usr/share/doc", type: "5", mode: 0o755)
        data.add("usr/share/doc/README", mode: 0o644, content: SmallRandom.bytes(512))
        data.add("var/data", type: "5", mode: 0o755)
        data.add("var/data/app.json", mode: 0o644, content: SmallRandom.bytes(256))
        return [folders, busybox, tools, etc, data]
    }

    static func source(_ name: String = "localhost/base:1", more: [LayerArchive] = []) -> ArraySource {
        ArraySource((layers + more).map { ArraySource.Layer($0) }, name: name)
    }
}

@Suite struct StoreBaseImageTests {
    @Test func contents() {
        for (count, digest) in [
            (100, "f2c4fd5735bd46db3b18d402ae87c5086c97c0e1321901cfd30f320b73ef25aa"),
            (256, "c921965b74ac1780bc437cec640b27186d85317b9afdb3dbb68626aed5ecd2b6"),
            (512, "5144b8f80be57c3518f410d930e18c4e405387c82e4993c18265a1ba4a80263b"),
            (4096, "f0f7e1e58fdd31f5792222087377a4a976760c416ecdf5f426193e608681b7a1"),
        ] {
            #expect(SmallRandom.bytes(count).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }.hex == digest)
        }
    }

    @Test func dumpAndImages() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create(default: .v2, extra: [.v0, .v1]))
        let result = try pullImage(from: BaseImage.source(), into: store.repository)
        #expect(
            result.imageIDs.mapValues(\.hex) == [
                .v0: "4ce8cdfc02c93f57b5ad6372111bf03e9d9385ea0c18ae309defc8613dd56d73",
                .v1: "617bf3168c5bed49693358601751cd3c5467526b70d78ee0cc501bcea7918433",
                .v2: "c2450eb4a411b0fe92fdc1c52fb52233dd40c3de10e320f80052d66c4766e060",
            ])
        #expect(result.imageID == result.imageIDs[.v2])
        #expect(result.newLayers == 5 && result.presentLayers == 0)
        #expect(result.statistics.newObjects == 4 && result.statistics.storedBytes == 4096 + 100 + 512 + 256)
        let image = try store.open("localhost/base:1").image
        let fixture = ByteString(#filePath.split(separator: "/").dropLast(2).map { "/" + $0 }.joined() + "/Fixtures/base-image.dump")
        let expected = try FileDescriptor.open(fixture, .readOnly).readAll(limit: 1 << 20)
        #expect(dumpfile(of: try store.tree(of: image)) == expected)
        // V0 and V1 share one reference, which is to the newer.
        #expect(image.imageID(.v2) == result.imageIDs[.v2] && image.imageID(.v1) == result.imageIDs[.v1])
        #expect(try store.faults().isEmpty)
        #expect(try store.repository.check().isOK)
    }

    /// This implementation writes config and manifest once, with the reference to the image. The two streams without it, which the
    /// reference implementation leaves behind, are never created.
    @Test func garbage() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        _ = try pullImage(from: BaseImage.source(), into: store.repository)
        let kept = try store.repository.collectGarbage()
        #expect(kept.objectsRemoved == 0 && kept.streamsRemoved == 0 && kept.imagesRemoved == 0 && kept.temporariesRemoved == 0)
        #expect(try scratch.objectCount() == 14)
        try store.untag("localhost/base:1")
        #expect(try store.repository.collectGarbage(dryRun: true).objectsRemoved == 14)
        let gone = try store.repository.collectGarbage()
        #expect(gone.objectsRemoved == 14 && gone.streamsRemoved == 7 && gone.imagesRemoved == 1)
        let again = try store.repository.collectGarbage()
        #expect(again.objectsRemoved == 0 && again.streamsRemoved == 0 && again.imagesRemoved == 0)
        #expect(try scratch.objectCount() == 0)
    }

    @Test func sharedLayers() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        _ = try pullImage(from: BaseImage.source(), into: store.repository)
        let own = LayerArchive().adding("usr/lib/own", [UInt8](repeating: 7, count: 1000))
        let second = try pullImage(from: BaseImage.source("localhost/second:1", more: [own]), into: store.repository)
        #expect(second.newLayers == 1 && second.presentLayers == 5)
        try store.untag("localhost/base:1")
        // Only those of the first: config and manifest with their streams, and the EROFS image.
        let removed = try store.repository.collectGarbage()
        #expect(removed.objectsRemoved == 5 && removed.streamsRemoved == 2 && removed.imagesRemoved == 1)
        #expect(try store.faults() == [])
        #expect(try store.repository.check().isOK)
        #expect(try store.repository.collectGarbage().objectsRemoved == 0)
        // Conversely, objects that only the second image has are removed with it.
        _ = try pullImage(from: BaseImage.source(), into: store.repository)
        try store.untag("localhost/second:1")
        let other = try store.repository.collectGarbage()
        #expect(other.objectsRemoved == 7 && other.streamsRemoved == 3 && other.imagesRemoved == 1)
        #expect(try store.faults() == [] && store.repository.check().isOK)
    }

    /// Golden values of a pull with the reference implementation's command: SHA-512, GNU headers.
    @Test func oneLayerWithHardLink() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create(.sha512, default: .v2, extra: [.v1]))
        var archive = LayerArchive()
        archive.add("usr/", type: "5", mode: 0o755, time: 1_234_567_890)
        archive.add("hello.txt", mode: 0o644, time: 1_234_567_890, content: Array("hello from test layer\n".utf8))
        archive.add("hello-link.txt", type: "1", mode: 0o644, time: 1_234_567_890, link: "hello.txt")
        let result = try pullImage(from: ArraySource([ArraySource.Layer(archive)]), into: store.repository)
        #expect(
            result.imageIDs[.v2]?.hex
                == "f7684c21050615c02cec250e0c7d4118fb0ff6340af5039e06f2f372a7614fff25dfd38cf7f28ad67d8b86e86371b7deafa9ae4bf543630322aee6196417de92"
        )
        #expect(
            result.imageIDs[.v1]?.hex
                == "d06f1f6a73f62ed48e05ce9442ff045cdf2a9f5ba1ec623795de3d6177a253d91076459795d94f55d8c3d71dab458bb3fc0071255a50c0a4896d86ffdc870b9a"
        )
    }
}
