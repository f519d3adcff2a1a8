import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// Foreign layers, which registries need not have: errors name their URLs, and they are fetched from there only if that is enabled.
@Suite struct ForeignLayerTests {
    private let bytes = [UInt8]("layer".utf8)
    private static let foreignType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"

    private func layer(_ urls: [String], type: String = ForeignLayerTests.foreignType) -> Descriptor {
        Descriptor(mediaType: type, digest: .of(bytes), size: UInt64(bytes.count), urls: urls)
    }

    private func source(_ server: ScriptedServer, fetches: Bool) throws -> RegistryImageSource {
        let reference = try RegistryReference(parsing: "\(server.host)/team/app:1")
        return RegistryImageSource(
            reference,
            client: try makeClient { options in
                options.fetchesForeignLayers = fetches
                options.credentials = .password(user: "user", password: "secret")
            })
    }

    /// Serves a layer at `/there`, behind a redirect at `/moved`, and has no blobs.
    private func server() -> ScriptedServer {
        ScriptedServer { [bytes] request in
            switch request.path {
            case "/there": [.reply(200, [:], bytes)]
            case "/moved": [.reply(302, ["Location": "/there?sig=1"])]
            default: [.reply(404)]
            }
        }
    }

    @Test func saysWhatItIs() throws {
        let server = server()
        defer { server.stop() }
        let url = "http://user:word@\(server.host)/there?sig=1"
        let error = registryError { _ = try source(server, fetches: false).openBlob(layer([url])) }
        #expect(error?.kind == .foreignLayer)
        #expect(error?.description.contains("it is a foreign layer") == true)
        #expect(error?.description.contains("http://***@\(server.host)/there") == true)
        #expect(error?.description.contains("word") == false && error?.description.contains("sig=1") == false)
        #expect(server.requests.allSatisfy { $0.path.hasPrefix("/v2/") })
        // One without a URL, with the option; and one with a URL, without the option.
        #expect(registryError { _ = try source(server, fetches: true).openBlob(layer([])) }?.kind == .foreignLayer)
        let plain = layer([url], type: "application/vnd.oci.image.layer.v1.tar")
        #expect(registryError { _ = try source(server, fetches: false).openBlob(plain) }?.kind == .foreignLayer)
        // Another missing blob is just missing.
        let other = layer([], type: "application/vnd.oci.image.layer.v1.tar")
        #expect(registryError { _ = try source(server, fetches: true).openBlob(other) }?.kind == .notFound)
    }

    @Test(arguments: ["/there?sig=1", "/moved"])
    func isFetched(_ path: String) throws {
        let server = server()
        defer { server.stop() }
        let address = "http://\(server.host)"
        let source = try source(server, fetches: true)
        let layer = layer(["ftp://example.com/x", address + "/gone", address + path])
        #expect(try readAll(source.openBlob(layer)) == bytes)
        #expect(try readAll(BlobDownload(layer, from: 2) { try source.origins(of: layer) }) == Array(bytes.dropFirst(2)))
        // Credentials are sent to the registry only.
        let there = server.requests.filter { !$0.path.hasPrefix("/v2/") }
        #expect(!there.isEmpty && there.allSatisfy { $0.headers["authorization"] == nil })
        let nowhere = registryError { _ = try source.openBlob(self.layer([address + "/gone", "file:///etc/passwd"])) }
        #expect(nowhere?.kind == .notFound && nowhere?.description.contains("/gone returned 404") == true)
        #expect(nowhere?.description.contains("file:///etc/passwd is not an http or https URL") == true)
    }

    /// A registry that has the layer is used.
    @Test func registryFirst() throws {
        let server = ScriptedServer { [bytes] request in request.path.hasPrefix("/v2/") ? [.reply(200, [:], bytes)] : [.reply(500)] }
        defer { server.stop() }
        #expect(try readAll(source(server, fetches: true).openBlob(layer(["http://\(server.host)/there"]))) == bytes)
    }
}
