import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

private let manifestType = "application/vnd.oci.image.manifest.v1+json"
private let manifest = Array(#"{"schemaVersion":2,"mediaType":"\#(manifestType)","layers":[]}"#.utf8)
private let blob = pattern(1_500_000)

/// Several registries, and a configuration of mirrors.
@Suite struct MirrorTests {
    /// A registry that has everything, except for requests that `action` handles.
    private func registry(
        _ action: @escaping @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]? = { _ in nil }
    ) -> ScriptedServer {
        ScriptedServer { request in
            if let actions = action(request) { return actions }
            if request.path.contains("/manifests/") { return [.reply(200, ["Content-Type": manifestType], manifest)] }
            if let range = request.headers["range"], let first = Int(range.dropFirst(6).prefix { $0 != "-" }) {
                let rest = Array(blob[first...])
                return [.reply(206, ["Content-Range": "bytes \(first)-\(blob.count - 1)/\(blob.count)"], rest)]
            }
            return [.reply(200, [:], blob)]
        }
    }

    private func withClient(
        _ configuration: String, _ adjust: (inout RegistryOptions) -> Void = { _ in }, _ body: (RegistryClient) throws -> Void
    ) throws {
        try withTemporaryDirectory { directory in
            try writeFile(directory + "/registries.conf", configuration)
            try body(
                try makeClient {
                    $0.registriesConfiguration = ByteString(directory + "/registries.conf")
                    adjust(&$0)
                })
        }
    }

    private func text(primary: String = "a.example", location: String, mirrors: [String]) -> String {
        "[[registry]]\nprefix = \"\(primary)\"\nlocation = \"\(location)\"\n"
            + mirrors.map { "[[registry.mirror]]\nlocation = \"\($0)\"\n" }.joined()
    }

    private let descriptor = Descriptor(mediaType: "application/octet-stream", digest: .of(blob), size: UInt64(blob.count))

    private func pull(_ client: RegistryClient, _ reference: String = "a.example/team/app:v1") throws -> RegistryImageSource {
        let source = RegistryImageSource(try RegistryReference(parsing: reference), client: client)
        #expect(try source.rootManifest().bytes == manifest)
        #expect(try readAll(try source.openBlob(descriptor)) == blob)
        return source
    }

    private func paths(_ server: ScriptedServer) -> [String] { server.requests.map(\.path) }
    private var manifestPath: String { "/v2/team/app/manifests/v1" }
    private var blobPath: String { "/v2/team/app/blobs/\(ContentDigest.of(blob))" }

    @Test func theFirstMirrorThatHasItServesAll() throws {
        let (empty, full, primary) = (registry { _ in [.reply(404)] }, registry(), registry())
        defer { for server in [empty, full, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [empty.host + "/x", full.host + "/cache/hub", primary.host])) { client in
            let source = try pull(client)
            // The image keeps the name that the user gave.
            #expect(source.canonicalName == "a.example/team/app:v1")
        }
        #expect(paths(empty) == ["/v2/x/team/app/manifests/v1"])
        #expect(paths(full) == ["/v2/cache/hub/team/app/manifests/v1", "/v2/cache/hub/team/app/blobs/\(ContentDigest.of(blob))"])
        #expect(paths(primary) == [])
    }

    @Test func theRegistryItselfComesLast() throws {
        let (down, broken, primary) = (registry(), registry { _ in [.reply(503)] }, registry())
        down.stop()
        usleep(50_000)
        defer { for server in [broken, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [down.host, broken.host])) { client in _ = try pull(client) }
        #expect(paths(primary) == [manifestPath, blobPath])
        // A mirror gets few attempts.
        #expect(broken.requests.count == 3)
    }

    @Test func aMirrorThatBreaksInABlobIsContinuedElsewhere() throws {
        let mirror = registry { request in
            guard request.path.contains("/blobs/") else { return nil }
            // Too little progress to refill the retry budget, so the mirror is given up after the first part.
            if request.number == 0 {
                return [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: \(blob.count)\r\n\r\n".utf8) + blob[..<500_000]), .reset]
            }
            return [.reset]
        }
        let primary = registry()
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in
            _ = try pull(client)
            // The next layer does not ask it any more.
            let source = RegistryImageSource(try RegistryReference(parsing: "a.example/team/app:v1"), client: client)
            let before = mirror.requests.count
            #expect(try readAll(try source.openBlob(descriptor)) == blob)
            #expect(mirror.requests.count == before)
        }
        let ranges = primary.requests(to: blobPath).map { $0.headers["range"] }
        #expect(ranges.count == 2)
        // It continues, and does not start again.
        let first = try #require(ranges.first ?? nil)
        #expect(first.hasPrefix("bytes=") && first.hasSuffix("-1499999") && first != "bytes=0-1499999")
        #expect(ranges.last == .some(nil))
    }

    @Test func aBlobThatOneMirrorLacksComesFromTheNext() throws {
        let mirror = registry { $0.path.contains("/blobs/") ? [.reply(404)] : nil }
        let primary = registry()
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in _ = try pull(client) }
        #expect(paths(mirror) == [manifestPath, blobPath])
        #expect(paths(primary) == [blobPath])
    }

    @Test func wrongContentOfAMirrorIsNotTaken() throws {
        let digest = ContentDigest.of(manifest)
        let mirror = registry { _ in [.reply(200, ["Content-Type": manifestType], manifest + [0x20])] }
        let primary = registry()
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in
            let source = RegistryImageSource(try RegistryReference(parsing: "a.example/team/app:v1@\(digest)"), client: client)
            #expect(try source.rootManifest().bytes == manifest)
            #expect(source.canonicalName == "a.example/team/app:v1@\(digest)")
        }
        // By digest, not by tag.
        #expect(paths(mirror) == ["/v2/team/app/manifests/\(digest)"])
        #expect(paths(primary) == ["/v2/team/app/manifests/\(digest)"])
    }

    @Test func allFailuresAreTold() throws {
        let (mirror, primary) = (registry { _ in [.reply(403)] }, registry { _ in [.reply(404)] })
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in
            let error = registryError { _ = try pull(client) }
            #expect(error?.kind == .notFound)
            #expect(error?.description.contains("before that, \(mirror.host)/team/app: ") == true)
            #expect(error?.description.contains("returned 403 Forbidden") == true)
        }
    }

    /// Mirrors often have images without their referrers. A list with referrers is used; an empty list counts only if no other
    /// endpoint has more.
    @Test func referrersThatAMirrorLacksComeFromTheNext() throws {
        let digest = ContentDigest.of(manifest)
        func list(_ names: String...) -> [UInt8] {
            let entries = names.map {
                #"{"mediaType":"a/b","digest":"\#(ContentDigest.of(Array($0.utf8)))","size":1,"artifactType":"\#($0)"}"#
            }
            return Array(#"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
        }
        func serve(_ answer: [ScriptedServer.Action]) -> ScriptedServer {
            registry { $0.path.contains("/referrers/") ? answer : $0.path.contains("/manifests/sha256-") ? [.reply(404)] : nil }
        }
        for (mirrored, registrys, found) in [
            ([.reply(404)], [.reply(200, [:], list("r"))], ["r"]),
            ([.reply(200, [:], list())], [.reply(200, [:], list("r"))], ["r"]),
            ([.reply(200, [:], list("m"))], [.reply(200, [:], list("r"))], ["m"]),
            ([.reply(200, [:], list())], [.reply(403)], []),
        ] as [([ScriptedServer.Action], [ScriptedServer.Action], [String])] {
            let (mirror, primary) = (serve(mirrored), serve(registrys))
            defer { for server in [mirror, primary] { server.stop() } }
            try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in
                let source = try pull(client)
                #expect(try client.referrers(of: digest, in: source.reference).map(\.artifactType) == found)
            }
        }
    }

    @Test func givenCredentialsAreForTheNamedRegistryOnly() throws {
        let unauthorized: @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]? = {
            $0.headers["authorization"] == nil ? [.reply(401, ["WWW-Authenticate": #"Basic realm="x""#])] : nil
        }
        let (mirror, primary) = (registry(unauthorized), registry(unauthorized))
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(primary: primary.host, location: primary.host, mirrors: [mirror.host])) {
            $0.credentials = .password(user: "me", password: "secret")
        } _: { client in
            _ = try pull(client, "\(primary.host)/team/app:v1")
        }
        #expect(mirror.requests.allSatisfy { $0.headers["authorization"] == nil })
        #expect(primary.requests.last?.headers["authorization"] == "Basic bWU6c2VjcmV0")
    }

    @Test func cancellingDoesNotMoveOn() throws {
        let (mirror, primary) = (registry { _ in [.pause(.seconds(5))] }, registry())
        defer { for server in [mirror, primary] { server.stop() } }
        try withClient(text(location: primary.host, mirrors: [mirror.host])) { client in
            onThread {
                usleep(200_000)
                client.cancel()
            }
            #expect(registryError { _ = try pull(client) }?.kind == .cancelled)
        }
        #expect(paths(primary) == [])
    }

    @Test func shortNamesAreSearched() throws {
        let (first, second) = (registry { _ in [.reply(404)] }, registry())
        defer { for server in [first, second] { server.stop() } }
        try withClient("unqualified-search-registries = [\"\(first.host)\", \"\(second.host)\"]") { client in
            let source = RegistryImageSource(try RegistryReference(parsing: "team/app:v1"), client: client)
            #expect(source.canonicalName == "\(first.host)/team/app:v1")
            #expect(try source.rootManifest().bytes == manifest)
            #expect(source.canonicalName == "\(second.host)/team/app:v1")
            #expect(try readAll(try source.openBlob(descriptor)) == blob)
            // The same when the client is used directly.
            let short = try RegistryReference(parsing: "team/app:v1")
            #expect(try client.candidates(for: short).map(\.canonical) == ["\(second.host)/team/app:v1"])
            #expect(try readAll(try client.openBlob(descriptor, of: short)) == blob)
        }
        #expect(paths(first) == [manifestPath])
        #expect(paths(second) == [manifestPath, blobPath, blobPath])
    }

    /// The user is asked once, and only if a registry has to be chosen.
    @Test func shortNamesAreChosen() throws {
        let (first, second) = (registry(), registry())
        defer { for server in [first, second] { server.stop() } }
        let questions = Mutex(0)
        let text = "short-name-mode = \"enforcing\"\nunqualified-search-registries = [\"\(first.host)\", \"\(second.host)\"]"
        try withClient(text) {
            $0.chooseRegistry = { candidates in
                questions.withLock { $0 += 1 }
                return candidates.last
            }
        } _: { client in
            let source = RegistryImageSource(try RegistryReference(parsing: "team/app:v1"), client: client)
            #expect(try client.candidates(for: source.reference).count == 2)
            #expect(source.canonicalName == "\(first.host)/team/app:v1")
            #expect(questions.withLock { $0 } == 0)
            #expect(try source.rootManifest().bytes == manifest)
            #expect(try source.rootManifest().bytes == manifest)
            #expect(try readAll(try source.openBlob(descriptor)) == blob)
            #expect(source.canonicalName == "\(second.host)/team/app:v1")
            #expect(questions.withLock { $0 } == 1)
        }
        #expect(first.requests.isEmpty)
        try withClient(text) { client in
            #expect(registryError { _ = try pull(client, "team/app:v1") }?.kind == .configuration)
        }
    }

    @Test func insecureAllowsPlainHTTPThereAlone() throws {
        // On other hosts TLS is required by default; here the option requires it.
        let server = registry()
        defer { server.stop() }
        try withClient("[[registry]]\nlocation = \"\(server.host)\"\ninsecure = true") { client in
            _ = try pull(client, "\(server.host)/team/app:v1")
        }
        try withClient("[[registry]]\nlocation = \"\(server.host)\"\ninsecure = true") {
            $0.tlsVerify = true
        } _: { client in
            #expect(registryError { _ = try pull(client, "\(server.host)/team/app:v1") }?.kind == .tls)
        }
        var insecure = RemoteRepository(domain: "a.example", name: "x")
        insecure.isInsecure = true
        let session = try makeClient().session
        #expect(session.tlsVerify(insecure) == false)
        #expect(session.tlsVerify(RemoteRepository(domain: "a.example", name: "x")) == nil)
    }
}
