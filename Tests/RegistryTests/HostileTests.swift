import ComposefsBytes
import ComposefsHashing
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// Every truncation and every flipped byte of what servers send: an error or the correct result, never a trap or wrong bytes.
@Suite struct HostileTests {
    private let manifest = Array(#"{"schemaVersion":2}"#.utf8)

    private var response: [UInt8] {
        let digest = ContentDigest.of(manifest)
        return Array(
            "HTTP/1.1 200 OK\r\nContent-Length: \(manifest.count)\r\nContent-Type: a/b\r\nDocker-Content-Digest: \(digest)\r\n\r\n".utf8)
            + manifest
    }

    /// Serves `variants` one after the other, each on a connection of its own, and passes the client's results to `body`.
    private func serve(_ variants: [[UInt8]], _ check: (Int, [UInt8]?) -> Void) throws {
        let server = ScriptedServer { request in [.send(variants[min(request.number, variants.count - 1)]), .close] }
        defer { server.stop() }
        let client = try makeClient {
            $0.retry.limit = 0
            $0.retry.unreachableLimit = 0
            $0.stallTimeout = .milliseconds(300)
        }
        var served = 0
        while served < variants.count {
            let before = served
            let result = try? client.fetchManifest(server.repository(), reference: "latest", expected: .of(manifest), limit: 1 << 16).bytes
            served = server.requests(to: "/v2/team/app/manifests/latest").count
            // A redirect to itself, or a status that asks for a token, consumes several.
            check(before, result)
            if served == before { served += 1 }
        }
    }

    @Test func truncatedResponses() throws {
        let whole = response
        try serve((0...whole.count).map { Array(whole[..<$0]) }) { index, bytes in
            #expect(bytes == nil || (bytes == manifest && index == whole.count), "cut at \(index)")
        }
    }

    @Test(arguments: [0x01, 0x20, 0x80] as [UInt8])
    func flippedResponses(mask: UInt8) throws {
        let whole = response
        let variants = whole.indices.map { index in
            var bytes = whole
            bytes[index] ^= mask
            return bytes
        }
        try serve(variants) { index, bytes in #expect(bytes == nil || bytes == manifest, "flipped at \(index)") }
    }

    @Test func challenges() {
        let text = Array(#"Bearer realm="https://auth.example/token",service="a\"b", scope=x, Basic realm=y, Negotiate abc=="#.utf8)
        for end in text.indices { _ = Challenge.parse([String(decoding: text[..<end], as: UTF8.self)]) }
        for index in text.indices {
            for mask in [0x01, 0x02, 0x08, 0x20, 0x80] as [UInt8] {
                var bytes = text
                bytes[index] ^= mask
                let challenges = Challenge.parse([String(decoding: bytes, as: UTF8.self)])
                #expect(challenges.count <= 8)
            }
        }
        // The time is proportional to the input.
        _ = Challenge.parse([
            String(repeating: "a=b,", count: 10_000), String(repeating: "\"", count: 10_000), String(repeating: "x ", count: 10_000),
        ])
    }

    @Test func authFiles() throws {
        let text = Array(#"{"auths":{"quay.io":{"auth":"dTpw"}},"credHelpers":{"a":"b"},"credsStore":""}"#.utf8)
        let repository = RemoteRepository(domain: "quay.io", name: "a")
        func find(_ bytes: [UInt8]) throws -> RegistryCredentials? {
            try AuthFile("x", bytes).find(for: repository, Environment(["PATH": "/nonexistent"]))?.credentials
        }
        #expect(try find(text) == .password(user: "u", password: "p"))
        // A file that was just created has no entries.
        #expect(try find([]) == nil)
        for end in text.indices.dropFirst() { #expect(throws: RegistryError.self) { try find(Array(text[..<end])) } }
        for index in text.indices {
            for mask in [0x01, 0x04, 0x20, 0x80] as [UInt8] {
                var bytes = text
                bytes[index] ^= mask
                do { _ = try find(bytes) } catch { #expect(error is RegistryError) }
            }
        }
        for other in [
            #"{"auths":[]}"#, #"{"auths":{"quay.io":5}}"#,
            #"{"auths":{"quay.io":{"auth":7}},"credHelpers":[],"credsStore":{}}"#,
        ] {
            #expect(try find(Array(other.utf8)) == nil)
        }
        for other in ["[]", "null", "5"] { #expect(throws: RegistryError.self) { try find(Array(other.utf8)) } }
    }
}
