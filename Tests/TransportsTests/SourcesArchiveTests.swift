import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTransports
import Testing

private let layers: [[UInt8]] = [[1, 2, 3], [UInt8](repeating: 9, count: 512), [UInt8](repeating: 5, count: 200_001), []]
private let image = SourcesImage(layers)

@Suite struct SourcesOCIArchiveTests {
    private func archive() -> [UInt8] {
        let files = layoutFiles([image], entries: [image.entry("v1")])
        return ustar([(path: "./", bytes: []), (path: "blobs/", bytes: [])] + files.map { (path: "./" + $0.path, bytes: $0.bytes) })
    }

    @Test func plainAndCompressed() throws {
        let folder = try SourcesFolder()
        let plain = archive()
        try folder.write("x.tar", plain)
        var compressor = ZstdCompressor()
        var packed: [UInt8] = []
        plain.withUnsafeBytes { compressor.compress($0, into: &packed) }
        compressor.finish(into: &packed)
        try folder.write("x.tar.zst", packed)
        for name in ["x.tar", "x.tar.zst"] {
            for tag in ["", ":v1"] {
                let (read, source) = try readImage("oci-archive:" + folder.at(name) + tag, scratch: folder.path)
                #expect(read.manifest.bytes == image.manifest)
                #expect(read.config == image.config)
                #expect(read.layers == layers)
                #expect(source.canonicalName == "oci-archive:" + folder.at(name) + tag)
            }
        }
        #expect(try FileDescriptor.open(folder.path, [.readOnly, .directory]).entries().count == 2)
        try folder.write("x.tar.zst", Array(packed.dropLast(5)))
        #expect(sourceFault("oci-archive:" + folder.at("x.tar.zst"), scratch: folder.path)?.contains("x.tar.zst") == true)
    }

    @Test func cutAnywhere() throws {
        let folder = try SourcesFolder()
        let bytes = archive()
        let end = bytes.count - 1024
        // Around every header, and some other offsets.
        for count in stride(from: 0, to: end - 512, by: 509) {
            try folder.write("x.tar", Array(bytes[..<count]))
            #expect(sourceFault("oci-archive:" + folder.at("x.tar")) != nil)
        }
        try folder.write("x.tar", Array(bytes[..<end]))
        #expect(sourceFault("oci-archive:" + folder.at("x.tar")) == nil)
        try folder.write("x.tar", "not an archive, but long enough to be looked at as one")
        #expect(sourceFault("oci-archive:" + folder.at("x.tar"))?.contains("tar archive") == true)
        #expect(sourceFault("oci-archive:" + folder.at(""))?.contains("neither a regular file") == true)
    }

    @Test func theLaterOfTwoCounts() throws {
        let folder = try SourcesFolder()
        let files = layoutFiles([image], entries: [image.entry("v1")])
        try folder.write("x.tar", ustar([(path: "index.json", bytes: Array("garbage".utf8))] + files))
        #expect(sourceFault("oci-archive:" + folder.at("x.tar")) == nil)
        try folder.write("x.tar", ustar(files + [(path: "a/../index.json", bytes: Array("garbage".utf8))]))
        #expect(sourceFault("oci-archive:" + folder.at("x.tar"))?.contains("index.json") == true)
    }

    @Test func manyNames() throws {
        let folder = try SourcesFolder()
        let filler = (0..<3000).map { (path: "filler/\($0)", bytes: [UInt8](repeating: 1, count: $0 % 700)) }
        try folder.write("x.tar", ustar(filler + layoutFiles([image], entries: [image.entry("v1")])))
        #expect(try readImage("oci-archive:" + folder.at("x.tar")).0.layers == layers)
    }
}

@Suite struct SourcesDockerArchiveTests {
    private func manifest(_ tags: String, config: String = "c.json", layers: String = #"["0.tar","1.tar","2.tar","3.tar"]"#) -> String {
        #"{"Config":"\#(config)","RepoTags":\#(tags),"Layers":\#(layers),"LayerSources":{}}"#
    }

    private var files: [(path: String, bytes: [UInt8])] {
        [(path: "c.json", bytes: image.config)] + layers.enumerated().map { (path: "\($0.offset).tar", bytes: $0.element) }
    }

    private func fault(_ text: String, _ tag: String = "") throws -> String? {
        let folder = try SourcesFolder()
        try folder.write("x.tar", ustar(files + [(path: "manifest.json", bytes: Array(text.utf8))]))
        return sourceFault("docker-archive:" + folder.at("x.tar") + tag)
    }

    @Test func oneImage() throws {
        let folder = try SourcesFolder()
        let text = "[" + manifest(#"["example.com/team/app:v1","other:2"]"#) + "]"
        try folder.write("x.tar", ustar(files + [(path: "manifest.json", bytes: Array(text.utf8))]))
        let reference = "docker-archive:" + folder.at("x.tar")
        let (read, source) = try readImage(reference)
        #expect(read.layers == layers)
        #expect(read.config == image.config)
        #expect(read.manifest.mediaType == MediaType.dockerManifest)
        #expect(read.manifest.layers.map(\.digest) == layers.map { ContentDigest.of($0) })
        #expect(source.canonicalName == "example.com/team/app:v1")
        for (tag, name) in [
            (":v1", "example.com/team/app:v1"), (":example.com/team/app:v1", "example.com/team/app:v1"),
            (":other:2", "docker.io/library/other:2"),
            (":docker.io/library/other:2", "docker.io/library/other:2"), (":2", "docker.io/library/other:2"),
        ] {
            let (other, source) = try readImage(reference + tag)
            #expect(other.manifest.bytes == read.manifest.bytes)
            #expect(source.canonicalName == name)
        }
        #expect(sourceFault(reference + ":v3")?.contains("there is no image \"v3\"") == true)
    }

    @Test func severalImages() throws {
        let both = "[" + manifest(#"["a:1"]"#) + "," + manifest(#"["b:1"]"#) + "]"
        #expect(try fault(both)?.contains(#"the archive has "a:1", "b:1""#) == true)
        #expect(try fault(both, ":a:1") == nil)
        #expect(try fault(both, ":1")?.contains("names several images") == true)
        #expect(try fault("[" + manifest("null") + "]") == nil)
        #expect(try fault("[]")?.contains("no image") == true)
    }

    @Test func linksAndCompressedLayers() throws {
        let folder = try SourcesFolder()
        var compressor = ZstdCompressor()
        var packed: [UInt8] = []
        layers[2].withUnsafeBytes { compressor.compress($0, into: &packed) }
        compressor.finish(into: &packed)
        let named = "blobs/sha256/" + ContentDigest.of(packed).hex
        for path in ["2.tar", named] {
            let text = "[" + manifest(#"["a:1"]"#, layers: #"["l/layer.tar","hard","\#(path)","/3.tar"]"#) + "]"
            try folder.write(
                "x.tar",
                ustar(
                    [
                        (path: "c.json", bytes: image.config), (path: "real/0.tar", bytes: layers[0]), (path: "1.tar", bytes: layers[1]),
                        (path: path, bytes: packed), (path: "./3.tar", bytes: layers[3]), (path: "manifest.json", bytes: Array(text.utf8)),
                    ], links: [(path: "l/layer.tar", type: "2", target: "../real/./0.tar"), (path: "hard", type: "1", target: "1.tar")]))
            let (read, _) = try readImage("docker-archive:" + folder.at("x.tar"))
            #expect(read.layers == [layers[0], layers[1], packed, layers[3]])
            #expect(
                read.manifest.layers.map(\.mediaType) == [
                    MediaType.dockerLayer, MediaType.dockerLayer, MediaType.dockerLayerZstd, MediaType.dockerLayer,
                ])
            #expect(read.manifest.layers.map(\.digest) == [layers[0], layers[1], packed, layers[3]].map { ContentDigest.of($0) })
        }
    }

    @Test func linksThatLeadNowhere() throws {
        let folder = try SourcesFolder()
        let text = "[" + manifest("null", layers: #"["0.tar","1.tar","2.tar","l"]"#) + "]"
        for (target, part) in [
            ("l", "too many links"), ("../../etc/passwd", "is missing"), ("none", "is missing"), ("/etc/passwd", "is missing"),
        ] {
            let archive = ustar(files + [(path: "manifest.json", bytes: Array(text.utf8))], links: [(path: "l", type: "2", target: target)])
            try folder.write("x.tar", archive)
            #expect(sourceFault("docker-archive:" + folder.at("x.tar"))?.contains(part) == true)
        }
    }

    @Test func damaged() throws {
        #expect(try fault("{}")?.contains("not an array") == true)
        #expect(try fault("[7]")?.contains("is a number, not an object") == true)
        #expect(try fault("[{}]")?.contains(#"Config" is missing"#) == true)
        #expect(try fault("1],\"x\":[")?.contains("manifest.json") == true)
        #expect(try fault("[" + manifest("null", config: "d.json") + "]")?.contains("the config d.json is missing") == true)
        #expect(try fault("[" + manifest("null", config: "../c.json") + "]")?.contains("is not a path in the archive") == true)
        #expect(try fault("[" + manifest("null", config: "0.tar") + "]")?.contains("config: ") == true)
        #expect(
            try fault("[" + manifest("null", layers: #"["0.tar"]"#) + "]")?.contains("lists 1 layers, but the config lists 4 diff IDs")
                == true)
        #expect(
            try fault("[" + manifest("null", layers: #"["0.tar","1.tar","2.tar","x.tar"]"#) + "]")?.contains("the layer x.tar is missing")
                == true)
        #expect(try fault("[" + manifest("{}") + "]")?.contains(#"RepoTags" is an object"#) == true)
        let folder = try SourcesFolder()
        try folder.write("x.tar", ustar([(path: "repositories", bytes: Array("{}".utf8))]))
        #expect(sourceFault("docker-archive:" + folder.at("x.tar"))?.contains("older than 1.10") == true)
    }
}

@Suite struct SourcesDirectoryTests {
    private func directory() throws -> SourcesFolder {
        let folder = try SourcesFolder()
        try folder.write("manifest.json", image.manifest)
        try folder.write("version", "Directory Transport Version: 1.1\n")
        for blob in [image.config] + layers { try folder.write(ContentDigest.of(blob).hex, blob) }
        return folder
    }

    @Test func oneImage() throws {
        let folder = try directory()
        let (read, source) = try readImage("dir:\(folder.path)")
        #expect(read.manifest.bytes == image.manifest)
        #expect(read.config == image.config)
        #expect(read.layers == layers)
        #expect(source.canonicalName == "dir:\(folder.path)")
    }

    @Test func severalPlatforms() throws {
        let folder = try directory()
        let index = #"{"schemaVersion":2,"manifests":[\#(image.entry(nil))]}"#
        try folder.write("manifest.json", index)
        try folder.write(image.digest.hex + ".manifest.json", image.manifest)
        #expect(try readImage("dir:\(folder.path)").0.manifest.bytes == image.manifest)
    }

    @Test func damaged() throws {
        let folder = try directory()
        try folder.write("version", "Directory Transport Version: 2.0\n")
        #expect(sourceFault("dir:\(folder.path)")?.contains("version") == true)
        try folder.remove("version")
        #expect(sourceFault("dir:\(folder.path)") == nil)
        try folder.remove(ContentDigest.of(layers[0]).hex)
        #expect(sourceFault("dir:\(folder.path)")?.contains("\(ContentDigest.of(layers[0])) is missing") == true)
        try folder.remove("manifest.json")
        #expect(sourceFault("dir:\(folder.path)")?.contains("manifest.json is missing") == true)
    }
}
