import ComposefsHashing
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// Manifests from correct and incorrect servers.
@Suite struct ManifestTests {
    private let manifest = Array(#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#.utf8)
    /// `printf '{"schemaVersion":2,…}' | sha256sum`
    private let digest = "sha256:b22c7289dd3b4785a3795c90e15d16bd66bd29b444b8974fe29ed0443ce50405"
    private let type = "application/vnd.oci.image.manifest.v1+json"

    private func fetch(
        _ reference: String = "latest", expected: ContentDigest? = nil, limit: Int = 4 << 20, _ handler: @escaping ScriptedServer.Handler
    ) throws -> (RegistryClient.FetchedManifest, [ScriptedServer.Request]) {
        let server = ScriptedServer(handler)
        defer { server.stop() }
        let result = try makeClient().fetchManifest(server.repository(), reference: reference, expected: expected, limit: limit)
        return (result, server.requests)
    }

    @Test func byTag() throws {
        let (result, requests) = try fetch { [manifest, type, digest] _ in
            [.reply(200, ["Content-Type": "\(type); charset=utf-8", "Docker-Content-Digest": digest], manifest)]
        }
        #expect(result.bytes == manifest)
        #expect(result.mediaType == type)
        #expect(requests.map(\.path) == ["/v2/team/app/manifests/latest"])
        let accepted = requests.first?.headers["accept"] ?? ""
        for kind in [
            "application/vnd.oci.image.index.v1+json", type, "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ] { #expect(accepted.contains(kind)) }
    }

    @Test func digestFieldMayBeMissing() throws {
        let plain = try fetch { [manifest] _ in [.reply(200, [:], manifest)] }
        #expect(plain.0.bytes == manifest)
        let chunked = try fetch { [manifest] _ in [.chunked([:], manifest)] }
        #expect(chunked.0.bytes == manifest && chunked.0.mediaType == nil)
    }

    @Test func wrongDigestField() {
        let wrong = "sha256:" + String(repeating: "0", count: 64)
        let error = registryError { _ = try fetch { [manifest] _ in [.reply(200, ["Docker-Content-Digest": wrong], manifest)] } }
        #expect(error?.kind == .digestMismatch)
        #expect(error?.description.hasSuffix("the manifest's digest is \(digest), but Docker-Content-Digest says \(wrong)") == true)
        let malformed = registryError { _ = try fetch { [manifest] _ in [.reply(200, ["Docker-Content-Digest": "sha256:x"], manifest)] } }
        #expect(malformed?.kind == .badResponse)
    }

    /// By digest, only the content decides: a field that repeats the request proves nothing.
    @Test func wrongContentForDigest() throws {
        let asked = try #require(ContentDigest(digest))
        let right = try fetch(digest, expected: asked) { [manifest] _ in [.reply(200, [:], manifest)] }
        #expect(right.0.bytes == manifest)
        let error = registryError {
            _ = try fetch(digest, expected: asked) { [manifest, digest] _ in
                [.reply(200, ["Docker-Content-Digest": digest], manifest + [0x20])]
            }
        }
        #expect(error?.kind == .digestMismatch)
    }

    @Test func tooLarge() {
        let large = [UInt8](repeating: 0x20, count: 5 << 20)
        let announced = registryError { _ = try fetch { _ in [.reply(200, [:], large)] } }
        #expect(announced?.kind == .tooLarge)
        #expect(announced?.description.contains("the manifest has 5242880 bytes; the limit is 4194304") == true)
        let unannounced = registryError { _ = try fetch { _ in [.chunked([:], large)] } }
        #expect(unannounced?.kind == .tooLarge)
        #expect(throws: Never.self) { try fetch(limit: 5 << 20) { _ in [.reply(200, [:], large)] } }
    }

    @Test func brokenOffOnce() throws {
        let (result, requests) = try fetch { [manifest] request in
            request.number == 0
                ? [.reply(200, ["Content-Length": "\(manifest.count)"], Array(manifest[..<20])), .close] : [.reply(200, [:], manifest)]
        }
        #expect(result.bytes == manifest)
        #expect(requests.count == 2)
    }

    @Test(arguments: [408, 425, 429, 500, 502, 503, 504])
    func retriedStatuses(status: Int) throws {
        let (result, requests) = try fetch { [manifest] request in request.number < 2 ? [.reply(status)] : [.reply(200, [:], manifest)] }
        #expect(result.bytes == manifest)
        #expect(requests.count == 3)
    }

    @Test func unavailableForever() {
        let error = registryError {
            let server = ScriptedServer { _ in [.reply(503)] }
            defer { server.stop() }
            let client = try makeClient { $0.retry.limit = 2 }
            defer { #expect(server.requests.count == 3) }
            _ = try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 100)
        }
        #expect(error?.kind == .server && error?.status == 503)
        #expect(error?.description.hasSuffix("/v2/team/app/manifests/latest returned 503 Service Unavailable") == true)
    }

    @Test func notFound() {
        let body = Array(#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":"unknown tag=latest"}]}"#.utf8)
        let error = registryError { _ = try fetch { _ in [.reply(404, [:], body)] } }
        #expect(error?.kind == .notFound && error?.code == "MANIFEST_UNKNOWN" && error?.status == 404)
        #expect(error?.description.contains("returned 404 Not Found (MANIFEST_UNKNOWN: manifest unknown)") == true)
        #expect(error?.description.contains("\n") == false)
    }

    /// An endless error body is not read to its end.
    @Test func endlessErrorBody() {
        let error = registryError {
            _ = try fetch { _ in
                [.reply(404, ["Content-Length": "100000000000"], [UInt8](repeating: 0x61, count: 200_000)), .pause(.seconds(1))]
            }
        }
        #expect(error?.kind == .notFound)
    }

    @Test(arguments: ["../x", "a b", "a?b=c", "a#b", "a\r\nX: y", ""])
    func referencesThatAreNone(reference: String) {
        let error = registryError { _ = try fetch(reference) { _ in [.reply(200)] } }
        #expect(error?.kind == .invalidRequest)
    }
}
