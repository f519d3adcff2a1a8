import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsLinuxSystem

private let first = SourcesImage([Array("first layer".utf8), [UInt8](repeating: 7, count: 5000)], name: "first")
private let second = SourcesImage([Array("other layer".utf8)], name: "second")

@Suite struct SourcesLayoutTests {
    private func layout(_ entries: [String], _ folder: SourcesFolder) throws -> String {
        for (path, bytes) in layoutFiles([first, second], entries: entries) { try folder.write("l/" + path, bytes) }
        return "oci:" + folder.at("l")
    }

    @Test func oneImage() throws {
        let folder = try SourcesFolder()
        let reference = try layout([first.entry("v1")], folder)
        for text in [reference, reference + ":v1", reference + "@\(first.digest)"] {
            let (image, source) = try readImage(text)
            #expect(image.manifest.bytes == first.manifest)
            #expect(image.config == first.config)
            #expect(image.layers == first.layers)
            #expect(source.canonicalName == text)
            #expect(try source.rootManifest().expected?.digest == first.digest)
        }
        #expect(sourceFault(reference + ":v2") == "\(folder.at("l")): there is no image \"v2\"; the layout has \"v1\"")
        #expect(sourceFault(reference + "@\(second.digest)")?.contains("lists no manifest \(second.digest)") == true)
    }

    @Test func severalImages() throws {
        let folder = try SourcesFolder()
        let full = "registry.example:5000/team/app:v1.0_x"
        let reference = try layout([first.entry("a"), first.entry(full), second.entry("b"), second.entry(nil)], folder)
        #expect(try readImage(reference + ":a").0.manifest.bytes == first.manifest)
        #expect(try readImage(reference + ":b").0.manifest.bytes == second.manifest)
        let (image, source) = try readImage(reference + ":" + full)
        #expect(image.manifest.bytes == first.manifest)
        #expect(source.canonicalName == full)
        let names = "\"a\", \"\(full)\", \"b\", @\(second.digest)"
        #expect(sourceFault(reference) == "\(folder.at("l")): the layout has \(names); name one of them after a colon")
        #expect(sourceFault(reference + ":c")?.hasSuffix("there is no image \"c\"; the layout has \(names)") == true)
    }

    @Test func oneNameTwice() throws {
        let folder = try SourcesFolder()
        let reference = try layout([first.entry("a"), second.entry("a")], folder)
        #expect(sourceFault(reference + ":a") == "\(folder.at("l")): index.json has 2 different images with the name \"a\"")
        #expect(try readImage(layout([first.entry("a"), first.entry("a")], folder) + ":a").0.manifest.bytes == first.manifest)
        // Entries that differ only in their platform are one image.
        let platforms = ["amd64", "arm64"].map { ",\"platform\":{\"os\":\"linux\",\"architecture\":\"\($0)\"}" }
        let entries = [second.entry("a", more: platforms[1]), first.entry("a", more: platforms[0])]
        #expect(try readImage(layout(entries, folder) + ":a").0.manifest.bytes == first.manifest)
        #expect(try readImage(layout(entries, folder)).0.manifest.bytes == first.manifest)
    }

    @Test func containerdNames() throws {
        let folder = try SourcesFolder()
        let annotations =
            ",\"annotations\":{\"io.containerd.image.name\":\"docker.io/library/x:1\",\"org.opencontainers.image.ref.name\":\"1\"}"
        let reference = try layout([first.entry(nil, more: annotations), second.entry("2")], folder)
        #expect(try readImage(reference + ":1").0.manifest.bytes == first.manifest)
        #expect(try readImage(reference + ":docker.io/library/x:1").0.manifest.bytes == first.manifest)
    }

    @Test(arguments: ["", "..", "/etc/passwd", "a/../../../x", "a//b", "a\\nb", "a\\u0000b", "a/", "\\u001b[31m", "\\u007f"])
    func namesThatAreNone(_ name: String) throws {
        let folder = try SourcesFolder()
        let reference = try layout([first.entry(name), second.entry("b")], folder)
        // The other image remains usable.
        #expect(try readImage(reference + ":b").0.manifest.bytes == second.manifest)
        let error = try #require(sourceFault(try layout([first.entry(name)], folder)))
        #expect(error.contains("the reference name"))
        #expect(error.utf8.allSatisfy { (0x20..<0x7f).contains($0) })
    }

    @Test func whatIsNoLayout() throws {
        let folder = try SourcesFolder()
        let reference = try layout([first.entry("a")], folder)
        #expect(sourceFault("oci:" + folder.at("none"))?.contains("No such file or directory") == true)
        #expect(sourceFault("oci:" + folder.at("l/index.json"))?.contains("Not a directory") == true)
        try folder.write("l/oci-layout", #"{"imageLayoutVersion":"2.0"}"#)
        #expect(sourceFault(reference)?.contains("is not supported, only 1.0.0") == true)
        for text in ["", "x", "[]", "{}", #"{"imageLayoutVersion":1}"#] {
            try folder.write("l/oci-layout", text)
            #expect(sourceFault(reference)?.contains("oci-layout") == true)
        }
        try folder.remove("l/oci-layout")
        #expect(sourceFault(reference)?.contains("the file oci-layout is missing") == true)
        try folder.write("l/oci-layout", #"{"imageLayoutVersion":"1.0.0"}"#)
        for text in [
            "", "[]", #"{"schemaVersion":2,"manifests":null}"#, #"{"schemaVersion":2,"manifests":[]}"#,
            String(decoding: first.manifest, as: UTF8.self),
        ] {
            try folder.write("l/index.json", text)
            #expect(sourceFault(reference)?.contains("index.json") == true, "\(text)")
        }
        try folder.remove("l/index.json")
        #expect(sourceFault(reference)?.contains("index.json is missing") == true)
    }

    @Test func blobsThatAreNone() throws {
        let folder = try SourcesFolder()
        let reference = try layout([first.entry("a")], folder)
        let blob = try #require(first.blobs.last)
        let path = "l/" + blob.path
        try folder.write(path, Array(blob.bytes.dropLast()))
        #expect(sourceFault(reference)?.contains("has 4999 bytes, but its descriptor announces 5000") == true)
        try folder.remove(path)
        #expect(sourceFault(reference)?.contains("is missing") == true)
        // A link, even to the right bytes, and a path out of the directory.
        try folder.write("l/blobs/copy", blob.bytes)
        try folder.symlink("../copy", path)
        #expect(sourceFault(reference)?.contains("symbolic link") == true)
        try folder.remove(path)
        try FileDescriptor.currentDirectory.makeNode(at: folder.path + "/" + ByteString(path), mode: 0o010600)
        #expect(sourceFault(reference)?.contains("not a regular file") == true)
        try folder.remove(path)
        try folder.write(path + "/x", "x")
        #expect(sourceFault(reference)?.contains("not a regular file") == true)
    }

    /// Also on a kernel, or in a sandbox, without openat2(2).
    @Test(arguments: [false, true]) func nothingOutsideIsRead(lacksOpenat2: Bool) throws {
        PathResolution.lacksOpenat2.store(lacksOpenat2, ordering: .relaxed)
        defer { PathResolution.lacksOpenat2.store(false, ordering: .relaxed) }
        let folder = try SourcesFolder()
        let reference = try layout([first.entry("a")], folder)
        try FileDescriptor.currentDirectory.rename(at: ByteString(folder.at("l/blobs")), to: ByteString(folder.at("blobs")))
        try folder.symlink("../blobs", "l/blobs")
        #expect(sourceFault(reference)?.contains("outside") == true)
        try folder.remove("l/blobs")
        try folder.symlink(folder.at("blobs"), "l/blobs")
        #expect(sourceFault(reference)?.contains("outside") == true)
        // A link within the layout is as good as a directory.
        try folder.remove("l/blobs")
        try FileDescriptor.currentDirectory.rename(at: ByteString(folder.at("blobs")), to: ByteString(folder.at("l/real")))
        try folder.symlink("real", "l/blobs")
        #expect(try readImage(reference).0.layers == first.layers)
    }

    @Test func embeddedDataNeedsNoBlob() throws {
        let folder = try SourcesFolder()
        let digest = ContentDigest.of(Array("{}".utf8))
        let manifest = Array(
            """
            {"schemaVersion":2,"mediaType":"\(MediaType.ociManifest)","artifactType":"application/x",\
            "config":{"mediaType":"\(MediaType.ociEmpty)","digest":"\(digest)","size":2,"data":"e30="},"layers":[]}
            """.utf8)
        let entry = #"{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(ContentDigest.of(manifest))","size":\#(manifest.count)}"#
        for (path, bytes) in layoutFiles([], entries: [entry]) { try folder.write("l/" + path, bytes) }
        try folder.write("l/blobs/sha256/" + ContentDigest.of(manifest).hex, manifest)
        #expect(try readImage("oci:" + folder.at("l")).0.config == Array("{}".utf8))
    }

    @Test func pathsWithColons() throws {
        let folder = try SourcesFolder()
        for (path, bytes) in layoutFiles([first], entries: [first.entry("v1")]) { try folder.write("a:b/" + path, bytes) }
        #expect(try readImage("oci:" + folder.at("a:b")).0.manifest.bytes == first.manifest)
        #expect(try readImage("oci:" + folder.at("a:b:v1")).0.manifest.bytes == first.manifest)
        #expect(sourceFault("oci:" + folder.at("c:v1"))?.contains("open \(folder.at("c")): No such file") == true)
        #expect(sourceFault("oci:" + folder.at("c:x/y:v1"))?.contains("open \(folder.at("c")): No such file") == true)
    }
}
