import ComposefsBytes
import ComposefsCompression
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTestSupport
import ComposefsTransfer
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// Pushes of a stored image to a registry in memory: what is sent, what is not, and the state after a failure.
struct WholePushTests {
    /// A ustar archive of one file, written by this test.
    private func archive(_ name: String, _ content: [UInt8]) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        func put(_ text: String, _ offset: Int) { for (index, byte) in text.utf8.enumerated() { header[offset + index] = byte } }
        let size = String(content.count, radix: 8)
        put(name, 0)
        put("0000644", 100)
        put("0000000", 108)
        put("0000000", 116)
        put(String(repeating: "0", count: 11 - size.utf8.count) + size, 124)
        put("00000000000", 136)
        put("        ", 148)
        put("0", 156)
        put("ustar", 257)
        put("00", 263)
        let sum = String(header.reduce(0) { $0 + Int($1) }, radix: 8)
        put(String(repeating: "0", count: 6 - sum.utf8.count) + sum + "\0 ", 148)
        return header + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512 + 1024)
    }

    private struct Image: ImageSource {
        let layers: [[UInt8]]
        let config: [UInt8]
        let document: [UInt8]
        let canonicalName = "image"

        init(layers: [[UInt8]]) {
            self.layers = layers
            let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
            config = Array(#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
            let list = layers.map {
                #"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"\#(ContentDigest.of($0))","size":\#($0.count),"annotations":{"keep":"me","containerd.io/snapshot/stargz/toc.digest":"x"}}"#
            }.joined(separator: ",")
            let type = "application/vnd.oci.image.manifest.v1+json"
            document = Array(
                #"{"schemaVersion":2,"mediaType":"\#(type)","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"\#(ContentDigest.of(config))","size":\#(config.count)},"layers":[\#(list)],"annotations":{"z":"1","a":"2"},"unknown":[1.5,18446744073709551615]}"#
                    .utf8)
        }

        func rootManifest() -> SourceManifest { SourceManifest(bytes: document) }
        func manifest(_ descriptor: Descriptor) -> [UInt8] { document }
        func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
            let found = ([config] + layers).first { ContentDigest.of($0) == descriptor.digest }
            return Reader(bytes: try #require(found))
        }

        final class Reader: BlobReader {
            let bytes: [UInt8]
            var position = 0
            init(bytes: [UInt8]) { self.bytes = bytes }
            func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
                let part = bytes[position..<min(bytes.count, position + buffer.count)]
                part.withUnsafeBytes { buffer.copyMemory(from: $0) }
                position += part.count
                return part.count
            }
        }
    }

    private func withImage(_ tag: String = "image", _ body: (StoredImage, ImageStore, Image) throws -> Void) throws {
        try withTemporaryDirectory { directory in
            let image = Image(layers: [archive("one", pattern(400_000)), archive("two", pattern(90_000)), archive("one", pattern(400_000))])
            let repository = try Repository.initialize(
                ByteString(directory + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
            ).repository
            _ = try pullImage(from: image, into: repository, PullOptions(name: ByteString(tag)))
            let store = ImageStore(repository)
            try body(try store.open(ByteString(tag)).image, store, image)
        }
    }

    private func destination(_ registry: FakeRegistry, _ tag: String = "v1") throws -> RegistryDestination {
        try RegistryDestination(
            try RegistryReference(parsing: "\(registry.server.host)/team/app:\(tag)"),
            client: try makeClient([:]) { $0.retry.limit = 2 })
    }

    @Test func nothingTwice() throws {
        try withImage { image, store, source in
            let registry = FakeRegistry()
            defer { registry.server.stop() }
            let first = try pushImage(image, of: store, to: try destination(registry))
            // One layer occurs twice, and is sent once.
            #expect(registry.count("PUT", "uploads") == 3)
            #expect(first.isUnchanged)
            #expect(registry.contents.manifests["team/app:v1"] == source.document)
            #expect(registry.contents.received == Int(first.bytesSent))
            let second = try pushImage(image, of: store, to: try destination(registry, "v2"))
            #expect(second.bytesSent == 0)
            #expect(second.layers.map(\.outcome) == [.present, .present, .present])
            #expect(registry.count("POST", "uploads") == 3)
            #expect(registry.contents.manifests["team/app:v2"] == source.document)
        }
    }

    /// Everything in the manifest except what compression changes stays, in its order.
    @Test func aRewrittenManifest() throws {
        try withImage { image, store, source in
            let registry = FakeRegistry()
            defer { registry.server.stop() }
            let result = try pushImage(image, of: store, to: try destination(registry), PushOptions(compression: .gzip, level: 1))
            let pushed = try #require(registry.contents.manifests["team/app:v1"])
            var expected = String(decoding: source.document, as: UTF8.self)
            for (layer, descriptor) in zip(source.layers, result.layers.map(\.descriptor)) {
                expected = expected.split(
                    separator: #""digest":"\#(ContentDigest.of(layer))","size":\#(layer.count)"#, omittingEmptySubsequences: false
                )
                .joined(separator: #""digest":"\#(descriptor.digest)","size":\#(descriptor.size)"#)
            }
            expected = expected.split(separator: "layer.v1.tar\"", omittingEmptySubsequences: false).joined(
                separator: "layer.v1.tar+gzip\"")
            expected = expected.split(separator: #","containerd.io/snapshot/stargz/toc.digest":"x""#).joined()
            #expect(String(decoding: pushed, as: UTF8.self) == expected)
            #expect(result.manifestDigest == .of(pushed))
            #expect(!result.isUnchanged)
            // The next push knows the digest that it would produce, and asks for it.
            let again = try pushImage(image, of: store, to: try destination(registry), PushOptions(compression: .gzip, level: 1))
            #expect(again.bytesSent == 0)
            #expect(again.manifestDigest == result.manifestDigest)
        }
    }

    @Test func mountsFromWhereItCame() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        try withImage("\(registry.server.host)/other/image:v1") { image, store, source in
            for layer in source.layers { registry.add(layer, to: "other/image") }
            let result = try pushImage(image, of: store, to: try destination(registry))
            #expect(result.layers.map(\.outcome) == [.mounted, .mounted, .mounted])
            // The registry did not have the config, and started an upload instead of the mount, which was used.
            #expect(registry.count("PUT", "uploads") == 1)
            #expect(registry.contents.received == source.config.count)
            #expect(registry.count("POST", "uploads") == 3)
        }
    }

    /// Whatever fails, and however long it takes: the name does not appear.
    @Test(arguments: ["POST", "PATCH", "PUT", "manifests"]) func failuresLeaveNoName(what: String) throws {
        try withImage { image, store, _ in
            let registry = FakeRegistry(script: { request in
                if what == "manifests" { return request.method == "PUT" && request.path.contains("/manifests/") ? [.reply(503)] : nil }
                return request.method == what && request.path.contains("/uploads/") && (what != "POST" || request.number > 0)
                    ? [.reset] : nil
            })
            defer { registry.server.stop() }
            #expect(throws: (any Error).self) {
                _ = try pushImage(image, of: store, to: try destination(registry), PushOptions(compression: what == "PATCH" ? .zstd : nil))
            }
            #expect(registry.contents.manifests.isEmpty)
        }
    }

    /// A reference by digest requires that digest.
    @Test func byDigest() throws {
        try withImage { image, store, source in
            let registry = FakeRegistry()
            defer { registry.server.stop() }
            for (digest, isRight) in [(ContentDigest.of(source.document), true), (.of([1] as [UInt8]), false)] {
                let target = try RegistryDestination(
                    try RegistryReference(parsing: "\(registry.server.host)/team/app@\(digest)"), client: try makeClient())
                if isRight {
                    #expect(try pushImage(image, of: store, to: target).manifestDigest == digest)
                } else {
                    #expect(throws: PushError.self) { _ = try pushImage(image, of: store, to: target) }
                }
            }
            #expect(Array(registry.contents.manifests.keys) == ["team/app:\(ContentDigest.of(source.document))"])
        }
    }
}
