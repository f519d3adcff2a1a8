import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsLinuxSystem

/// RFC 4648. The digests of the decoded data show that it is correct.
private func base64(_ bytes: [UInt8]) -> String {
    let digits = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
    var text = ""
    for start in stride(from: 0, to: bytes.count, by: 3) {
        let group = Array(bytes[start..<min(start + 3, bytes.count)])
        let bits = group.indices.reduce(0) { $0 | Int(group[$1]) << (16 - 8 * $1) }
        for offset in 0..<4 { text += offset <= group.count ? String(digits[bits >> (18 - 6 * offset) & 63]) : "=" }
    }
    return text
}

@Suite struct SourcesStorageTests {
    /// Two layers: one with small and large files, and one with a link as a parent and a name that is not UTF-8.
    private struct Storage {
        let folder: SourcesFolder
        let lower: [UInt8]
        let upper: [UInt8]
        let image: SourcesImage
        let manifest: [UInt8]
        static let id = String(repeating: "ab", count: 32)

        var reference: String { "containers-storage:[overlay@\(folder.path)/root+\(folder.path)/run]" }

        init() throws {
            folder = try SourcesFolder()
            let (small, large) = (Array("small".utf8), [UInt8](repeating: 3, count: 300_000))
            lower = ustar([(path: "./bin/small", bytes: small), (path: "empty", bytes: []), (path: "large", bytes: large)])
            upper = ustar([(path: "lib/x", bytes: small), (path: "y", bytes: [9])])
            image = SourcesImage([lower, upper])
            // The pulled blobs differed. The storage keeps the original manifest.
            let compressed = SourcesImage([[1], [2]])
            var document = try JSONValue.parse(compressed.manifest)
            document["config"] = try JSONValue.parse(image.manifest)["config"]
            manifest = document.compactBytes

            let images = #"""
                [{"id":"\#(Storage.id)","digest":"\#(ContentDigest.of(manifest))","names":["docker.io/library/app:1","localhost/mine:latest"],\#
                "layer":"\#(Storage.layerID(2))","metadata":"{}"},\#
                {"id":"\#(String(repeating: "ac", count: 32))","names":null}]
                """#
            try folder.write("root/overlay-images/images.json", images)
            let config = "=" + base64(Array(ContentDigest.of(image.config).description.utf8))
            try folder.write("root/overlay-images/\(Storage.id)/manifest", manifest)
            try folder.write("root/overlay-images/\(Storage.id)/\(config)", image.config)
            try writeLayers()
            try folder.write("root/overlay/\(Storage.layerID(1))/diff/bin/small", small)
            try folder.write("root/overlay/\(Storage.layerID(1))/diff/large", large)
            try folder.write("root/overlay/\(Storage.layerID(2))/diff/usr/x", small)
            try folder.symlink("/usr", "root/overlay/\(Storage.layerID(2))/diff/lib")
            try FileDescriptor.open(
                folder.path + ByteString("/root/overlay/\(Storage.layerID(2))/diff/") + ByteString([0xff]), [.writeOnly, .create]
            )
            .writeAll([9])
            try writeSplit(
                1,
                [
                    .segment(0, 512), .file("./bin/small", 5), .segment(517, 1536), .file("empty", 0), .segment(1536, 1536),
                    .segment(1536, 2048),
                ] + [.file("large", 300_000), .segment(302_048, lower.count), .segment(0, 0)], lower)
            try writeSplit(
                2, [.segment(0, 512), .file("lib/x", 5), .segment(517, 1536), .raw([0xff], 1), .segment(1537, upper.count)], upper)
        }

        static func layerID(_ number: Int) -> String { String(repeating: "\(number)", count: 64) }

        func writeLayers(lowerDigest: ContentDigest? = nil, parent: String = Storage.layerID(1), size: String? = nil) throws {
            let text = #"""
                [{"id":"\#(Storage.layerID(1))","diff-digest":"\#(lowerDigest ?? ContentDigest.of(lower))","diff-size":\#(size ?? "\(lower.count)"),"x":1},\#
                {"id":"\#(Storage.layerID(2))","parent":"\#(parent)","diff-digest":"\#(ContentDigest.of(upper))","diff-size":\#(upper.count)}]
                """#
            try folder.write("root/overlay-layers/layers.json", text)
        }

        enum Part {
            case segment(Int, Int), file(String, Int), raw([UInt8], Int)
        }

        func writeSplit(_ layer: Int, _ parts: [Part], _ archive: [UInt8], encode: ([UInt8]) -> String = base64) throws {
            let lines = parts.enumerated().map { position, part in
                switch part {
                case .segment(let start, let end):
                    #"{"type":2,"payload":"\#(encode(Array(archive[start..<end])))","position":\#(position)}"#
                case .file(let name, 0): #"{"type":1,"name":"\#(name)","payload":null,"position":\#(position)}"#
                case .file(let name, let size):
                    #"{"type":1,"name":"\#(name)","size":\#(size),"payload":"AAAAAAAAAAA=","position":\#(position)}"#
                case .raw(let name, let size): #"{"type":1,"name_raw":"\#(encode(name))","size":\#(size),"position":\#(position)}"#
                }
            }
            try writeSplit(layer, lines.joined(separator: "\n") + "\n")
        }

        func writeSplit(_ layer: Int, _ text: String) throws {
            var compressor = ZstdCompressor()
            var packed: [UInt8] = []
            Array(text.utf8).withUnsafeBytes { compressor.compress($0, into: &packed) }
            compressor.finish(into: &packed)
            try folder.write("root/overlay-layers/\(Storage.layerID(layer)).tar-split.gz", packed)
        }

        func fault(_ name: String = "app:1") -> String? { sourceFault(reference + name) }
    }

    /// Also on a kernel, or in a sandbox, without openat2(2).
    @Test(arguments: [false, true]) func layersArePutTogetherAgain(lacksOpenat2: Bool) throws {
        PathResolution.lacksOpenat2.store(lacksOpenat2, ordering: .relaxed)
        defer { PathResolution.lacksOpenat2.store(false, ordering: .relaxed) }
        let storage = try Storage()
        let digest = ContentDigest.of(storage.manifest)
        for (name, canonical) in [
            ("app:1", "docker.io/library/app:1"), ("docker.io/library/app:1", "docker.io/library/app:1"), ("mine", "localhost/mine:latest"),
            ("localhost/mine", "localhost/mine:latest"), (Storage.id, "docker.io/library/app:1"), ("ababab", "docker.io/library/app:1"),
            ("sha256:" + Storage.id, "docker.io/library/app:1"), ("app@\(digest)", "docker.io/library/app@\(digest)"),
        ] {
            let (image, source) = try readImage(storage.reference + name)
            #expect(image.layers == [storage.lower, storage.upper])
            #expect(image.config == storage.image.config)
            #expect(image.manifest.layers.map(\.digest) == [ContentDigest.of(storage.lower), ContentDigest.of(storage.upper)])
            #expect(source.canonicalName == canonical)
        }
    }

    /// Line breaks in base64, as Go's decoder accepts them.
    @Test(arguments: ["\\n", "\\r\\n"]) func lineEndsInPayloads(_ lineEnd: String) throws {
        let storage = try Storage()
        let parts: [Storage.Part] = [
            .segment(0, 512), .file("lib/x", 5), .segment(517, 1536), .raw([0xff], 1), .segment(1537, storage.upper.count),
        ]
        try storage.writeSplit(2, parts, storage.upper) { bytes in
            var text = ""
            for (index, digit) in base64(bytes).enumerated() { text += (index % 3 == 2 ? lineEnd : "") + String(digit) }
            return text + lineEnd
        }
        #expect(try readImage(storage.reference + "app:1").0.layers == [storage.lower, storage.upper])
    }

    /// `NAME@ID`: the image with this ID, which has a name in the same repository.
    @Test func namesWithIdentifiers() throws {
        let storage = try Storage()
        for (name, canonical) in [
            ("app:1@\(Storage.id)", "docker.io/library/app:1"), ("app@ababab", "docker.io/library/app:1"),
            ("docker.io/library/app:2@\(Storage.id)", "docker.io/library/app:1"), ("mine@\(Storage.id)", "localhost/mine:latest"),
            ("localhost/mine:latest@ababab", "localhost/mine:latest"), ("@\(Storage.id)", "docker.io/library/app:1"),
        ] {
            let (image, source) = try readImage(storage.reference + name)
            #expect(image.config == storage.image.config)
            #expect(source.canonicalName == canonical)
        }
        #expect(storage.fault("other:1@\(Storage.id)")?.contains("does not have this name; it has docker.io/library/app:1") == true)
        #expect(storage.fault("app:1@\(String(repeating: "cd", count: 32))")?.contains("no such image") == true)
        #expect(storage.fault("app:1@ababa")?.contains("no such image") == true)
        let message = storage.fault("app:9")
        #expect(message?.contains("containers-storage:[overlay@DIR]NAME") == true, "\(message ?? "none")")
    }

    @Test func aManifestOfUncompressedLayersIsKept() throws {
        let storage = try Storage()
        try storage.folder.write("root/overlay-images/\(Storage.id)/manifest", storage.image.manifest)
        #expect(try readImage(storage.reference + "app:1").0.manifest.bytes == storage.image.manifest)
    }

    @Test func notFound() throws {
        let storage = try Storage()
        for name in ["none", "app:2", "ababa", "abad00"] { #expect(storage.fault(name)?.contains("no such image") == true) }
        try storage.folder.write(
            "root/overlay-images/images.json", #"[{"id":"abcdef00","names":[]},{"id":"abcdef01","names":[]}]"#)
        #expect(storage.fault("abcdef")?.contains("more than one image ID") == true)
        #expect(
            sourceFault("containers-storage:[overlay@\(storage.folder.path)/none]app")?.contains("no storage with the overlay driver")
                == true)
        #expect(sourceFault("containers-storage:[vfs@/x]app")?.contains("driver vfs is not supported") == true)
        #expect(sourceFault("containers-storage:[overlay@x]app")?.contains("not an absolute path") == true)
        try storage.folder.write("other/vfs-images/images.json", "[]")
        #expect(sourceFault("containers-storage:[overlay@\(storage.folder.path)/other]app")?.contains("driver vfs") == true)
    }

    @Test func damagedIndexes() throws {
        let storage = try Storage()
        try storage.writeLayers(lowerDigest: .of(storage.upper))
        #expect(storage.fault()?.contains("the storage does not record the layer") == true)
        try storage.writeLayers(size: "-1")
        #expect(storage.fault()?.contains("the storage does not record the layer") == true)
        try storage.writeLayers(parent: Storage.layerID(2))
        #expect(storage.fault()?.contains("has no layer") == true)
        try storage.writeLayers(parent: "../../x")
        #expect(storage.fault()?.contains("has no layer") == true)
        try storage.writeLayers(parent: "")
        #expect(storage.fault()?.contains("has 1 layers of the image, but its config lists 2 diff IDs") == true)
        for text in ["{}", "[1]", #"[{"id":"../x"}]"#, #"[{"id":""}]"#, "["] {
            try storage.folder.write("root/overlay-images/images.json", text)
            #expect(storage.fault()?.contains("images.json") == true)
        }
    }

    @Test func damagedContent() throws {
        let storage = try Storage()
        let large = "root/overlay/\(Storage.layerID(1))/diff/large"
        try storage.folder.write(large, [UInt8](repeating: 3, count: 299_999))
        #expect(storage.fault()?.contains("the file large has 299999 bytes, but the layer's archive has 300000") == true)
        try storage.folder.remove(large)
        #expect(storage.fault()?.contains("the file large is missing") == true)
        try storage.folder.symlink("/etc/passwd", large)
        #expect(storage.fault()?.contains("symbolic link") == true)
        for line in [
            "x", "{}", #"{"type":3}"#, #"{"type":2,"payload":"x"}"#, #"{"type":1,"size":5}"#, #"{"type":1,"name":"bin/small","size":-1}"#,
            #"{"type":1,"name":"../../../../../etc/passwd","size":5}"#, #"{"type":1,"name_raw":"x","size":5}"#,
            #"{"type":1,"name":"bin","size":5}"#,
        ] {
            try storage.writeSplit(1, line)
            #expect(storage.fault() != nil, "\(line)")
        }
        try storage.folder.write("root/overlay-layers/\(Storage.layerID(1)).tar-split.gz", [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 7])
        #expect(storage.fault()?.contains("tar-split") == true)
        try storage.folder.remove("root/overlay-layers/\(Storage.layerID(1)).tar-split.gz")
        #expect(storage.fault()?.contains("has no tar-split data") == true)
    }
}
