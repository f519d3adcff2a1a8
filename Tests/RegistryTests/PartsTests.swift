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
        // The example of RFC 9110 §11.6.1, and a token68.
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
