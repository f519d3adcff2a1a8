import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsTestSupport
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsRegistry

/// The token, Basic and refresh token flows against a scripted registry and token server.
@Suite struct AuthenticationTests {
    private static let manifest = Array(#"{"schemaVersion":2}"#.utf8)
    private static let path = "/v2/team/app/manifests/latest"

    private func challenge(_ server: ScriptedServer.Request, realm: String, error: Bool = false) -> ScriptedServer.Action {
        .reply(
            401,
            [
                "WWW-Authenticate": #"Bearer realm="\#(realm)",service="reg.test",scope="repository:team/app:pull""#
                    + (error ? #",error="invalid_token""# : "")
            ], Array(#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.utf8))
    }

    /// A token server that issues tokens `t1`, `t2`, …, and a registry that accepts those in `valid`.
    private func servers(
        answer: String = "", takes valid: @escaping @Sendable (String, Int) -> Bool
    ) -> (registry: ScriptedServer, tokens: ScriptedServer) {
        let tokens = ScriptedServer { request in
            .init(repeating: .reply(200, [:], Array((answer.isEmpty ? #"{"token":"t\#(request.number + 1)"}"# : answer).utf8)), count: 1)
        }
        let registry = ScriptedServer { [tokens] request in
            let authorization = request.headers["authorization"] ?? ""
            if valid(authorization, request.number) { return [.reply(200, ["Content-Type": "application/x"], Self.manifest)] }
            return [self.challenge(request, realm: "http://\(tokens.host)/token")]
        }
        return (registry, tokens)
    }

    private func fetch(_ client: RegistryClient, _ server: ScriptedServer) throws -> [UInt8] {
        try client.fetchManifest(server.repository(), reference: "latest", expected: nil, limit: 1 << 20).bytes
    }

    @Test func anonymousToken() throws {
        let (registry, tokens) = servers { authorization, _ in authorization == "Bearer t1" }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient()
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(try fetch(client, registry) == Self.manifest)
        // The second request sends the token at once.
        #expect(registry.requests.map { $0.headers["authorization"] } == [nil, "Bearer t1", "Bearer t1"])
        #expect(tokens.requests.map(\.query) == ["service=reg.test&scope=repository%3Ateam%2Fapp%3Apull"])
        #expect(tokens.requests.first?.headers["authorization"] == nil)
    }

    @Test func passwordGoesToTheTokenServerAlone() throws {
        let (registry, tokens) = servers { authorization, _ in authorization == "Bearer t1" }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient { $0.credentials = .password(user: "me@x", password: "s3cret") }
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(tokens.requests.first?.headers["authorization"] == "Basic bWVAeDpzM2NyZXQ=")
        #expect(tokens.requests.first?.query.hasSuffix("&account=me%40x") == true)
        #expect(!registry.requests.contains { $0.headers["authorization"]?.hasPrefix("Basic") == true })
    }

    @Test func identityTokenIsExchanged() throws {
        let (registry, tokens) = servers(answer: #"{"access_token":"abc","expires_in":3600}"#) { authorization, _ in
            authorization == "Bearer abc"
        }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient { $0.credentials = .identityToken("r3fresh/+") }
        #expect(try fetch(client, registry) == Self.manifest)
        let request = try #require(tokens.requests.first)
        #expect(request.method == "POST" && request.headers["authorization"] == nil && request.query == "")
        #expect(request.headers["content-type"] == "application/x-www-form-urlencoded")
        #expect(
            String(decoding: request.body, as: UTF8.self)
                == "grant_type=refresh_token&service=reg.test&scope=repository%3Ateam%2Fapp%3Apull&client_id=cfsoci&refresh_token=r3fresh%2F%2B"
        )
    }

    /// Registries that allow anonymous access, and hide from it what an account may read: only the root of the API asks for credentials.
    @Test(arguments: [403, 404])
    func hiddenFromStrangers(status: Int) throws {
        let registry = ScriptedServer { request in
            if request.headers["authorization"] == "Basic dTpw" { return [.reply(200, [:], Self.manifest)] }
            return request.path == "/v2/" ? [.reply(401, ["WWW-Authenticate": #"BASIC realm="Nexus""#])] : [.reply(status)]
        }
        defer { registry.stop() }
        let client = try makeClient { $0.credentials = .password(user: "u", password: "p") }
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(registry.requests(to: "/v2/").count == 1)
        // Without credentials the first error is final.
        #expect(registryError { _ = try fetch(try makeClient(), registry) }?.status == status)
        #expect(registry.requests(to: "/v2/").count == 1)
    }

    @Test func nothingIsHidden() throws {
        let registry = ScriptedServer { [.reply($0.path == "/v2/" ? 200 : 404)] }
        defer { registry.stop() }
        let client = try makeClient { $0.credentials = .password(user: "u", password: "p") }
        #expect(registryError { _ = try fetch(client, registry) }?.kind == .notFound)
        #expect(registry.requests.count == 2 && !registry.requests.contains { $0.headers["authorization"] != nil })
    }

    @Test func registryTokenIsUsedAsItIs() throws {
        let (registry, tokens) = servers { authorization, _ in authorization == "Bearer given" }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient { $0.credentials = .registryToken("given") }
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(tokens.requests.isEmpty)
    }

    @Test func rejectedTokenIsRenewed() throws {
        // t1 is valid for one request.
        let (registry, tokens) = servers { authorization, number in
            (authorization == "Bearer t1" && number == 1) || authorization == "Bearer t2"
        }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient()
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(registry.requests.map { $0.headers["authorization"] } == [nil, "Bearer t1", "Bearer t1", "Bearer t2"])
        #expect(tokens.requests.count == 2)
    }

    @Test func expiredTokenIsRenewedBeforeItsUse() throws {
        let (registry, tokens) = servers(answer: #"{"token":"short","expires_in":1}"#) { authorization, _ in authorization == "Bearer short"
        }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient()
        #expect(try fetch(client, registry) == Self.manifest)
        _ = client.session.cancellation.sleep(.milliseconds(950))
        #expect(try fetch(client, registry) == Self.manifest)
        #expect(tokens.requests.count == 2)
        #expect(registry.requests.count == 3)  // one challenge only
    }

    @Test func manyThreadsFetchOneToken() throws {
        let (registry, tokens) = servers { authorization, _ in authorization == "Bearer t1" }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient()
        let done = Monitor()
        let results = Mutex<[Bool]>([])
        for _ in 0..<6 {
            onThread {
                let bytes = try? self.fetch(client, registry)
                results.withLock { $0.append(bytes == Self.manifest) }
                done.withLock { done.wakeAll() }
            }
        }
        let deadline = MonotonicTime.now + .seconds(20)
        done.withLock { while results.withLock({ $0.count }) < 6, done.wait(until: deadline) {} }
        #expect(results.withLock { $0 } == [true, true, true, true, true, true])
        #expect(tokens.requests.count == 1)
    }

    @Test func endless401Ends() throws {
        let (registry, tokens) = servers { _, _ in false }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient()
        let error = registryError { _ = try fetch(client, registry) }
        #expect(error?.kind == .unauthorized && error?.status == 401 && error?.code == "UNAUTHORIZED")
        #expect(error?.description.contains("401 Unauthorized (UNAUTHORIZED: authentication required)") == true)
        #expect(error?.description.contains("no credentials for \(registry.host) were found") == true && error?.remedy == .logIn)
        #expect(registry.requests.count <= 3 && tokens.requests.count <= 2)
    }

    @Test func wrongPassword() throws {
        let tokens = ScriptedServer { _ in [.reply(401, [:], Array(#"{"details":"incorrect username or password"}"#.utf8))] }
        let registry = ScriptedServer { [self.challenge($0, realm: "http://\(tokens.host)/token")] }
        defer { registry.stop(); tokens.stop() }
        let client = try makeClient { $0.credentials = .password(user: "u", password: "s3cret") }
        let error = registryError { _ = try fetch(client, registry) }
        #expect(error?.kind == .unauthorized)
        #expect(error?.description.contains("(incorrect username or password)") == true)
        #expect(error?.description.contains("; the given credentials are not accepted") == true)
        #expect(error?.description.contains("s3cret") == false)
        #expect(tokens.requests.count == 1)
    }

    @Test func tokenServerIsBusy() throws {
        let tokens = ScriptedServer { $0.number < 2 ? [.reply(503)] : [.reply(200, [:], Array(#"{"token":"t"}"#.utf8))] }
        let registry = ScriptedServer {
            $0.headers["authorization"] == "Bearer t"
                ? [.reply(200, [:], Self.manifest)] : [self.challenge($0, realm: "http://\(tokens.host)/token")]
        }
        defer { registry.stop(); tokens.stop() }
        #expect(try fetch(try makeClient(), registry) == Self.manifest)
        #expect(tokens.requests.count == 3)
    }

    @Test(arguments: [#"{}"#, #"{"token":""}"#, #"{"token":"a\r\nX-Evil: 1"}"#, #"{"token":5}"#, "nonsense", ""])
    func unusableToken(answer: String) throws {
        let tokens = ScriptedServer { _ in [.reply(200, [:], Array(answer.utf8))] }
        let registry = ScriptedServer { [self.challenge($0, realm: "http://\(tokens.host)/token")] }
        defer { registry.stop(); tokens.stop() }
        let error = registryError { _ = try fetch(try makeClient(), registry) }
        #expect(error?.kind == .badResponse)
        #expect(error?.description == "http://\(tokens.host)/token: the response contains no usable token")
    }

    /// Token servers that fill in only one of the two members and leave the other empty, null or of another type.
    @Test(arguments: [
        #"{"token":"","access_token":"t"}"#, #"{"token":null,"access_token":"t"}"#, #"{"token":"t","access_token":""}"#,
        #"{"token":5,"access_token":"t"}"#, #"{"token":"t","expires_in":"300"}"#, #"{"token":"t","expires_in":null,"issued_at":"x"}"#,
    ])
    func tokenUnderEitherName(answer: String) throws {
        let (registry, tokens) = servers(answer: answer) { authorization, _ in authorization == "Bearer t" }
        defer { registry.stop(); tokens.stop() }
        #expect(try fetch(try makeClient(), registry) == Self.manifest)
        #expect(tokens.requests.count == 1)
    }

    @Test func basic() throws {
        let registry = ScriptedServer {
            $0.headers["authorization"] == "Basic dTpw"
                ? [.reply(200, [:], Self.manifest)] : [.reply(401, ["WWW-Authenticate": #"Basic realm="r""#])]
        }
        defer { registry.stop() }
        #expect(try fetch(try makeClient { $0.credentials = .password(user: "u", password: "p") }, registry) == Self.manifest)
        let refused = registryError { _ = try fetch(try makeClient { $0.credentials = .password(user: "u", password: "wrong") }, registry) }
        #expect(refused?.kind == .unauthorized)
        #expect(refused?.description.contains("wrong") == false)
        let before = registry.requests.count
        let anonymous = registryError { _ = try fetch(try makeClient(), registry) }
        #expect(anonymous?.kind == .unauthorized)
        #expect(anonymous?.description.contains("requires a user and password: no credentials for \(registry.host) were found") == true)
        #expect(registry.requests.count == before + 1)
    }

    @Test(arguments: ["", "Negotiate", "Bearer", #"Digest realm="x""#])
    func unknownChallenge(text: String) throws {
        let registry = ScriptedServer { _ in [.reply(401, text.isEmpty ? [:] : ["WWW-Authenticate": text])] }
        defer { registry.stop() }
        let error = registryError { _ = try fetch(try makeClient(), registry) }
        #expect(error?.kind == .badResponse && error?.status == 401)
    }

    @Test(arguments: ["ftp://127.0.0.1/", "nowhere", "http://user:pass@127.0.0.1/", ""])
    func badRealm(realm: String) throws {
        let registry = ScriptedServer { [self.challenge($0, realm: realm)] }
        defer { registry.stop() }
        let error = registryError { _ = try fetch(try makeClient(), registry) }
        #expect(error?.kind == .badResponse)
    }

    /// A registry on this machine must not make the client send the password in clear text to another host.
    @Test func passwordLeavesTheMachineEncryptedOnly() throws {
        let registry = ScriptedServer { [self.challenge($0, realm: "http://192.0.2.1/token")] }
        defer { registry.stop() }
        let error = registryError { _ = try fetch(try makeClient { $0.credentials = .password(user: "u", password: "p") }, registry) }
        #expect(error?.kind == .tls)
        #expect(error?.description.contains("requests tokens from http://192.0.2.1/token without TLS") == true)
    }

    /// The token expires during a blob, and the connection breaks: the download continues with a new token.
    @Test func tokenExpiresInTheMiddleOfABlob() throws {
        let content = pattern(500_000)
        let digest = ContentDigest.of(content)
        let tokens = ScriptedServer { [.reply(200, [:], Array(#"{"token":"t\#($0.number + 1)"}"#.utf8))] }
        let registry = ScriptedServer { request in
            switch (request.headers["authorization"], request.headers["range"]) {
            case ("Bearer t1", nil): return [.reply(200, ["Content-Length": "500000"], Array(content[..<200_000])), .close]
            case ("Bearer t2", "bytes=200000-499999"):
                return [.reply(206, ["Content-Range": "bytes 200000-499999/500000"], Array(content[200_000...]))]
            default: return [self.challenge(request, realm: "http://\(tokens.host)/token", error: true)]
            }
        }
        defer { registry.stop(); tokens.stop() }
        let reader = try openDownload(try makeClient(), registry.repository(), digest: digest, size: 500_000)
        #expect(try readAll(reader) == content)
        #expect(tokens.requests.count == 2)
    }
}
