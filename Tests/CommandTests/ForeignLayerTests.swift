import ComposefsHashing
import ComposefsTestSupport
import Glibc
import Testing

/// Layers that a registry need not have: the message says what they are, and `--foreign-layers` fetches them.
@Suite struct ForeignLayerTests {
    private static let layer = tarArchive([
        TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "usr/small", content: Array("hello\n".utf8)),
    ])
    private static let config = Array(
        #"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["\#(ContentDigest.of(layer))"]}}"#.utf8)
    private static let manifestType = "application/vnd.oci.image.manifest.v1+json"

    private static func descriptor(_ type: String, _ bytes: [UInt8], _ more: String = "") -> String {
        #"{"mediaType":"application/vnd.oci.image.\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)\#(more)}"#
    }

    private static func manifest(_ address: String) -> [UInt8] {
        let layer = descriptor("layer.nondistributable.v1.tar", layer, #","urls":["\#(address)"]"#)
        return Array(
            #"{"schemaVersion":2,"mediaType":"\#(manifestType)","config":\#(descriptor("config.v1+json", config)),"layers":[\#(layer)]}"#
                .utf8)
    }

    @Test func fromARegistry() throws {
        let server = ScriptedServer { request in
            if request.path == "/there" { return [.reply(200, [:], Self.layer)] }
            if request.path.hasPrefix("/v2/team/app/manifests/") {
                let manifest = Self.manifest("http://\(request.headers["host"] ?? "")/there")
                return [.reply(200, ["Content-Type": Self.manifestType], manifest)]
            }
            return [request.path.hasSuffix("/\(ContentDigest.of(Self.config))") ? .reply(200, [:], Self.config) : .reply(404)]
        }
        defer { server.stop() }
        let store = try ContractStore()
        let pull = ["pull", "\(server.host)/team/app:1", "t"]
        let refused = try store.run(pull)
        #expect(refused.status == 1 && refused.error.contains("it is a foreign layer"), "\(refused.error)")
        #expect(refused.error.contains("http://\(server.host)/there; --foreign-layers fetches it from there"), "\(refused.error)")
        #expect(!server.requests.contains { $0.path == "/there" })
        let pulled = try store.run(pull + ["--foreign-layers"])
        #expect(pulled.status == 0, "\(pulled.error)")
        #expect(try store.succeed(["cat", "t", "usr/small"]).text == "hello\n")
        #expect(try store.succeed(["fsck", "--deep"]).lines.last == "status: ok")
    }

    /// Archives and layouts leave them out.
    @Test func fromALayout() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("t")
        try mustShell("mkdir -p \"$1/blobs/sha256\"", [layout])
        let manifest = Self.manifest("https://user:s3cret@example.com/there?sig=1")
        for bytes in [Self.config, manifest] { try writeFile(layout + "/blobs/sha256/" + ContentDigest.of(bytes).hex, bytes) }
        try writeFile(layout + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        let entry = Self.descriptor("manifest.v1+json", manifest)
        try writeFile(layout + "/index.json", Array(#"{"schemaVersion":2,"manifests":[\#(entry)]}"#.utf8))
        let refused = try store.run(["pull", "oci:" + layout, "t"])
        #expect(refused.status == 1 && refused.error.contains("it is a foreign layer"), "\(refused.error)")
        #expect(refused.error.contains("https://***@example.com/there") && !refused.error.contains("s3cret"), "\(refused.error)")
    }
}
