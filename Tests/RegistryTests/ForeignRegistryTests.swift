import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// A host name in front of another registry (a vanity domain, a gateway that counts pulls). The other registry requires a token of its own.
@Suite struct ForeignRegistryTests {
    private static let manifest = Array(#"{"schemaVersion":2}"#.utf8)
    private static let blob = pattern(300_000)

    /// The registry behind it: accepts `Bearer back`, which its token server issues if `isKnown` allows it.
    private func back(
        challenge: String? = nil, knows isKnown: @escaping @Sendable (ScriptedServer.Request) -> Bool = { _ in true }
    ) -> ScriptedServer {
        ScriptedServer { request in
            let host = request.headers["host"] ?? ""
            if request.path == "/token" { return [isKnown(request) ? .reply(200, [:], Array(#"{"token":"back"}"#.utf8)) : .reply(401)] }
            guard request.headers["authorization"] == "Bearer back" else {
                let text = challenge ?? #"Bearer realm="http://\#(host)/token",service="back",scope="repository:org/real:pull""#
                return [.reply(401, ["WWW-Authenticate": text])]
            }
            if request.path.contains("/blobs/") {
                return [TestImage.shared.part(of: Self.blob, request)]
            }
            return [.reply(200, ["Content-Type": "application/json"], Self.manifest)]
        }
    }

    /// The host in front redirects everything to the other registry, under another name. Another spelling of the same machine counts as
    /// another host.
    private func front(of back: ScriptedServer, status: Int = 307, wants authorization: String? = nil) -> ScriptedServer {
        ScriptedServer { request in
            if let authorization, request.headers["authorization"] != authorization {
                return [.reply(401, ["WWW-Authenticate": #"Basic realm="front""#])]
            }
            let rest = request.path.dropFirst("/v2/team/app".utf8.count)
            return [.reply(status, ["Location": "http://localhost:\(back.port)/v2/org/real\(rest)"])]
        }
    }

    private func fetch(_ client: RegistryClient, _ server: ScriptedServer) throws -> [UInt8] {
        try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 1 << 20).bytes
    }

    @Test(arguments: [301, 302, 303, 307, 308])
    func anonymousTokenOfTheOther(status: Int) throws {
        let back = back()
        let front = front(of: back, status: status)
        defer { back.stop(); front.stop() }
        let client = try makeClient { $0.retry.limit = 0 }
        #expect(try fetch(client, front) == Self.manifest)
        #expect(back.requests(to: "/token").map(\.query) == ["service=back&scope=repository%3Aorg%2Freal%3Apull"])
        // Blobs too, with the same token.
        let reader = try openDownload(client, front.repository(), digest: .of(Self.blob), size: UInt64(Self.blob.count))
        #expect(try readAll(reader) == Self.blob)
        #expect(back.requests(to: "/token").count == 1)
        #expect(!front.requests.contains { $0.headers["authorization"] != nil })
    }

    /// The first registry's secret and token are sent to the first registry only.
    @Test func secretsStayAtHome() throws {
        let back = back { $0.headers["authorization"] == nil && !$0.query.contains("account") }
        let front = front(of: back, wants: "Basic dTpzM2NyZXQ=")
        defer { back.stop(); front.stop() }
        let client = try makeClient { $0.credentials = .password(user: "u", password: "s3cret") }
        #expect(try fetch(client, front) == Self.manifest)
        let seen = back.requests.compactMap { $0.headers["authorization"] }
        #expect(seen == ["Bearer back"])
        #expect(!back.requests.contains { "\($0)".contains("dTpzM2NyZXQ") || "\($0)".contains("s3cret") })
    }

    /// The second registry's credentials are looked up for its own host.
    @Test func credentialsOfTheOther() throws {
        let back = back { $0.headers["authorization"] == "Basic YmFjazpwdw==" && $0.query.hasSuffix("&account=back") }
        let front = front(of: back, wants: "Basic ZnJvbnQ6cHc=")
        defer { back.stop(); front.stop() }
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/auth.json",
                #"{"auths":{"\#(front.host)":{"auth":"ZnJvbnQ6cHc="},"localhost:\#(back.port)":{"auth":"YmFjazpwdw=="}}}"#)
            let client = try makeClient { $0.authFile = ByteString(directory + "/auth.json") }
            #expect(try fetch(client, front) == Self.manifest)
            #expect(Set(front.requests.compactMap { $0.headers["authorization"] }) == ["Basic ZnJvbnQ6cHc="])
        }
    }

    @Test func basicOfTheOther() throws {
        let back = ScriptedServer { request in
            request.headers["authorization"] == "Basic YmFjazpwdw=="
                ? [.reply(200, [:], Self.manifest)] : [.reply(401, ["WWW-Authenticate": #"Basic realm="back""#])]
        }
        let front = front(of: back)
        defer { back.stop(); front.stop() }
        let anonymous = registryError { _ = try fetch(try makeClient(), front) }
        #expect(anonymous?.kind == .unauthorized)
        #expect(anonymous?.description.contains("localhost:\(back.port)") == true, "\(anonymous?.description ?? "")")
        try withTemporaryDirectory { directory in
            try writeFile(directory + "/auth.json", #"{"auths":{"localhost:\#(back.port)/org":{"auth":"YmFjazpwdw=="}}}"#)
            let client = try makeClient { $0.authFile = ByteString(directory + "/auth.json") }
            #expect(try fetch(client, front) == Self.manifest)
        }
    }

    /// If no authorization helps, the error names the other registry.
    @Test func refusedByTheOther() throws {
        let back = ScriptedServer { request in
            request.path == "/token"
                ? [.reply(200, [:], Array(#"{"token":"useless"}"#.utf8))]
                : [.reply(401, ["WWW-Authenticate": #"Bearer realm="http://\#(request.headers["host"] ?? "")/token""#])]
        }
        let front = front(of: back)
        defer { back.stop(); front.stop() }
        let error = registryError { _ = try fetch(try makeClient(), front) }
        #expect(error?.kind == .unauthorized)
        #expect(error?.description.contains("no credentials for localhost:\(back.port) were found") == true, "\(error?.description ?? "")")
        #expect(back.requests.count < 12)
    }

    /// A blob storage is not a registry: no token is requested for it, and it gets none.
    @Test func storesOfBlobsAreNoRegistries() throws {
        let back = back()
        let front = ScriptedServer { _ in [.reply(307, ["Location": "http://localhost:\(back.port)/bucket/x?signature=y"])] }
        defer { back.stop(); front.stop() }
        let error = registryError { _ = try fetch(try makeClient(), front) }
        #expect(error?.kind == .unauthorized && error?.status == 401)
        #expect(back.requests(to: "/token").isEmpty)
    }

    // MARK: Scopes

    /// A registry whose token server issues `token(query)`; it accepts `Bearer good`.
    private func pull(
        challenge scope: String?, written: Bool = false, token: @escaping @Sendable (String) -> ScriptedServer.Action
    ) throws -> [String] {
        let tokens = ScriptedServer { [token($0.query)] }
        let registry = ScriptedServer { request in
            if request.headers["authorization"] == "Bearer good" { return [.reply(200, [:], Self.manifest)] }
            let scope = scope.map { #",scope="\#($0)""# } ?? ""
            return [.reply(401, ["WWW-Authenticate": #"Bearer realm="http://\#(tokens.host)/token",service="s""# + scope])]
        }
        defer { registry.stop(); tokens.stop() }
        var repository = registry.repository()
        repository.isWritten = written
        #expect(try makeClient().fetchManifest(repository, reference: "1", expected: nil, limit: 1 << 20).bytes == Self.manifest)
        return tokens.requests.map(\.query)
    }

    private static let good = ScriptedServer.Action.reply(200, [:], Array(#"{"token":"good"}"#.utf8))
    private static let useless = ScriptedServer.Action.reply(200, [:], Array(#"{"token":"useless"}"#.utf8))
    private static let own = "service=s&scope=repository%3Ateam%2Fapp%3Apull"

    /// A challenge does not always ask for the scope that the request needs.
    @Test(arguments: [
        nil, "", " ", "repository:user/image:pull", "repository:<name>:pull", "registry:catalog:*", "repository::pull", "*", "pull",
        "repository:team/app2:pull", "aws",
    ])
    func scopesThatAreNotOurs(scope: String?) throws {
        // The token server denies it, as GitLab and GHCR do if the account does not own the repository.
        let denied = try pull(challenge: scope) { $0 == Self.own ? Self.good : .reply(403) }
        #expect(denied == [Self.own])
        // The token server ignores it.
        #expect(try pull(challenge: scope) { $0 == Self.own ? Self.good : Self.useless } == [Self.own])
    }

    /// A proxy with another name for the repository says so in the challenge, and its token server knows only that name.
    @Test(arguments: [true, false])
    func repositoryOfAnotherName(denies: Bool) throws {
        let theirs = "service=s&scope=repository%3Alibrary%2Freal%3Apull"
        let queries = try pull(challenge: "repository:library/real:pull") {
            $0.hasPrefix(theirs) ? Self.good : denies ? .reply(403) : Self.useless
        }
        #expect(queries.first == Self.own && queries.count == 2)
    }

    @Test func challengesThatAskForMore() throws {
        let more = "service=s&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
        #expect(try pull(challenge: "repository:team/app:pull,push") { $0 == more ? Self.good : .reply(403) } == [more])
        // An account with read access only.
        #expect(try pull(challenge: "repository:team/app:pull,push") { $0 == Self.own ? Self.good : .reply(401) } == [more, Self.own])
        #expect(try pull(challenge: "repository:team/app:pull,push") { $0 == Self.own ? Self.good : Self.useless } == [more, Self.own])
        let both = "service=s&scope=repository%3Ateam%2Fapp%3Apull&scope=repository%3Ax%2Fy%3Apull"
        #expect(try pull(challenge: "repository:team/app:pull repository:x/y:pull") { $0 == both ? Self.good : .reply(403) } == [both])
    }

    @Test func pushesAskForAll() throws {
        let all = "service=s&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"
        for scope in [nil, "", "repository:team/app:pull", "repository:user/image:pull"] {
            #expect(try pull(challenge: scope, written: true) { $0 == all ? Self.good : .reply(403) } == [all])
        }
    }

    /// An empty service is left out.
    @Test func emptyService() throws {
        let tokens = ScriptedServer { _ in [Self.good] }
        let registry = ScriptedServer { request in
            request.headers["authorization"] == "Bearer good"
                ? [.reply(200, [:], Self.manifest)]
                : [.reply(401, ["WWW-Authenticate": #"Bearer realm="http://\#(tokens.host)/token",service="",scope="""#])]
        }
        defer { registry.stop(); tokens.stop() }
        #expect(try fetch(try makeClient(), registry) == Self.manifest)
        #expect(tokens.requests.map(\.query) == ["scope=repository%3Ateam%2Fapp%3Apull"])
    }

    // MARK: Types

    /// File servers do not know the OCI media types; the document's own type decides.
    @Test(arguments: [
        nil, "application/octet-stream", "text/plain; charset=utf-8", "binary/octet-stream", "application/json", "text/json", "text/html",
        "application/x-unknown", "APPLICATION/OCTET-STREAM", "application/x-gzip", "httpd/unix-directory", ";",
    ])
    func contentTypesOfFileServers(type: String?) throws {
        let image = TestImage.shared
        let server = ScriptedServer { request in
            guard request.path.contains("/manifests/") else { return image.answer(request) }
            return [.reply(200, type.map { ["Content-Type": $0] } ?? [:], image.manifest)]
        }
        defer { server.stop() }
        for reference in ["\(server.host)/team/app:v1", "\(server.host)/team/app@\(image.digest)"] {
            let source = RegistryImageSource(try RegistryReference(parsing: reference), client: try makeClient())
            let resolved = try resolveManifest(source, platform: Platform(os: "linux", architecture: "amd64"))
            #expect(resolved.digest == image.digest && resolved.manifest.mediaType == TestImage.manifestType)
        }
    }

    /// A login page is not a manifest, and the error says what it is.
    @Test func webPages() throws {
        let server = ScriptedServer { _ in [.reply(200, ["Content-Type": "text/html; charset=utf-8"], Array("<!DOCTYPE html><html>".utf8))]
        }
        defer { server.stop() }
        let error = registryError {
            _ = try makeClient().manifest(try RegistryReference(parsing: "\(server.host)/team/app:v1"))
        }
        #expect(error?.kind == .badResponse)
        #expect(error?.description.contains("a web page (text/html), not a manifest") == true, "\(error?.description ?? "")")
    }

    /// A manifest type from the server counts: a client that reads the document as another type would get another image for the same
    /// digest.
    @Test(arguments: [
        "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ])
    func typesThatContradict(type: String) throws {
        let image = TestImage.shared
        let server = ScriptedServer { _ in [.reply(200, ["Content-Type": type], image.manifest)] }
        defer { server.stop() }
        let source = RegistryImageSource(try RegistryReference(parsing: "\(server.host)/team/app:v1"), client: try makeClient())
        #expect(throws: OCIError.self) { try resolveManifest(source, platform: .host) }
    }
}
