import Testing

@testable import ComposefsRegistry

@Suite struct PartsTests {
    @Test func challenges() {
        let hub = #"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push""#
        #expect(
            Challenge.parse([hub]) == [
                Challenge(
                    scheme: "bearer",
                    parameters: [
                        "realm": "https://auth.docker.io/token", "service": "registry.docker.io",
                        "scope": "repository:samalba/my-app:pull,push",
                    ])
            ])
        // RFC 9110 §11.6.1's own example, and a token68.
        #expect(
            Challenge.parse([#"Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\"""#]) == [
                Challenge(scheme: "basic", parameters: ["realm": "simple"]),
                Challenge(scheme: "newauth", parameters: ["realm": "apps", "type": "1", "title": #"Login to "apps""#]),
            ])
        #expect(Challenge.parse(["Negotiate", "BASIC Realm = x"]).map(\.scheme) == ["negotiate", "basic"])
        #expect(Challenge.parse(["Negotiate a87421000492aa874209af8bc028==, Basic realm=y"]).last?.parameters == ["realm": "y"])
        #expect(Challenge.parse([#"Bearer realm="open"#]) == [Challenge(scheme: "bearer")])
        #expect(Challenge.parse([#"Bearer realm="a",realm="b""#]).first?.parameters["realm"] == "a")
        #expect(Challenge.parse(["", ",,,", "=", "\"", "\\"]) == [])
    }

    @Test func retryPauses() throws {
        var policy = RetryPolicy()
        policy.limit = 3
        policy.baseDelay = .milliseconds(100)
        let error = RegistryError(.server, "it answers 503", status: 503)
        var tries = RetryState()
        for expected in [100, 200, 400] {
            let pause = try tries.pause(after: Failure(error, retry: .transient(after: nil)), policy)
            #expect(pause >= .milliseconds(expected / 2) && pause <= .milliseconds(expected))
        }
        #expect(throws: RegistryError.self) { try tries.pause(after: Failure(error, retry: .transient(after: nil)), policy) }
        tries.madeProgress()
        #expect(try tries.pause(after: Failure(error, retry: .transient(after: .seconds(7))), policy) == .seconds(7))
        let refused = registryError { _ = try tries.pause(after: Failure(error, retry: .transient(after: .seconds(301))), policy) }
        #expect(refused?.description == "it answers 503; it asks to wait 301 s, more than the limit of 300 s")
        tries.madeProgress()
        _ = try tries.pause(after: Failure(error, retry: .unreachable), policy)
        _ = try tries.pause(after: Failure(error, retry: .unreachable), policy)
        #expect(throws: RegistryError.self) { try tries.pause(after: Failure(error, retry: .unreachable), policy) }
        #expect(throws: RegistryError.self) { try tries.pause(after: Failure(error), policy) }
    }

    @Test func repositoryNames() {
        let hub = RemoteRepository(domain: "docker.io", name: "library/alpine")
        #expect(hub.apiHost == "registry-1.docker.io")
        #expect(hub.credentialKeys == ["docker.io/library/alpine", "docker.io/library", "docker.io"])
        #expect(hub.serverNames.first == "https://index.docker.io/v1/")
        #expect(hub.scopes == ["repository:library/alpine:pull"])
        let other = RemoteRepository(domain: "localhost:5000", name: "a")
        #expect(other.apiHost == "localhost:5000")
        #expect(other.credentialKeys == ["localhost:5000/a", "localhost:5000"])
    }

    @Test func credentialsPrintWithoutSecrets() {
        let credentials: [RegistryCredentials] = [
            .password(user: "u", password: "s3cret"), .identityToken("s3cret"), .registryToken("s3cret"),
        ]
        for value in credentials {
            var dumped = ""
            dump(value, to: &dumped)
            #expect(!("\(value)" + String(reflecting: value) + dumped).contains("s3cret"))
        }
        // RFC 7617 §2.
        #expect(
            RegistryCredentials.password(user: "Aladdin", password: "open sesame").basicAuthorization
                == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    }
}
