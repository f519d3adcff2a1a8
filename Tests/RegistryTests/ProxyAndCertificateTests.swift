import ComposefsBytes
import ComposefsHTTPClient
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Testing

@testable import ComposefsRegistry

@Suite struct ProxyTests {
    private func proxy(_ url: String, _ environment: [String: String]) throws -> String? {
        try ProxySettings(Environment(environment)).proxy(for: try #require(HTTPURL(url)))?.text
    }

    @Test func environment() throws {
        let all = [
            "http_proxy": "http://lower:1", "HTTP_PROXY": "http://upper:1", "HTTPS_PROXY": "https://upper:2",
            "ALL_PROXY": "socks5h://all:3",
        ]
        #expect(try proxy("http://a.example/", all) == "http://lower:1")
        #expect(try proxy("https://a.example/", all) == "https://upper:2")
        #expect(try proxy("https://a.example/", ["HTTP_PROXY": "http://upper:1"]) == nil)
        #expect(try proxy("http://a.example/", ["HTTP_PROXY": "upper:1"]) == "http://upper:1")
        #expect(try proxy("http://a.example/", ["HTTP_PROXY": "upper:1", "REQUEST_METHOD": "GET"]) == nil)
        #expect(try proxy("https://a.example/", ["all_proxy": "socks5://all:3"]) == "socks5://all:3")
        #expect(try proxy("https://a.example/", ["https_proxy": ""]) == nil)
        for host in ["localhost", "127.0.0.1:5000", "[::1]:5000"] { #expect(try proxy("http://\(host)/", all) == nil) }
        #expect(ProxySettings(Environment(["NO_PROXY": "a", "no_proxy": "b"])).exceptions == "b")
    }

    @Test(arguments: ["ftp://p:1", "http://me:secret@", "http://me:secret@p:x", "://secret", "http://me:secret@a b", "gopher://secret"])
    func mistakesHideThePassword(text: String) {
        let error = registryError { _ = try proxy("https://a.example/", ["https_proxy": text]) }
        #expect(error?.kind == .configuration)
        #expect(error?.description.contains("the environment variable https_proxy is not the URL of a proxy") == true)
        #expect(error?.description.contains("secret") == false)
    }

    /// A proxy for plain HTTP receives requests with the full URL.
    @Test func requestsGoThroughIt() throws {
        let server = ScriptedServer { request in
            request.headers["proxy-authorization"] == nil
                ? [.reply(407)] : [.reply(200, ["Content-Type": "application/json"], Array("{}".utf8))]
        }
        defer { server.stop() }
        let reference = try RegistryReference(parsing: "registry.invalid/team/app:v1")
        let client = try makeClient(["http_proxy": "http://me:secret@\(server.host)", "https_proxy": "http://me:secret@\(server.host)"]) {
            $0.tlsVerify = false
        }
        // TLS through the tunnel fails, as the proxy does not speak it: then plain HTTP.
        #expect(try client.manifest(reference).bytes == Array("{}".utf8))
        let plain = server.requests.filter { $0.method == "GET" }
        #expect(plain.map(\.path) == ["http://registry.invalid/v2/team/app/manifests/v1"])
        #expect(plain.first?.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0")
        #expect(server.requests.first.map { "\($0.method) \($0.path)" } == "CONNECT registry.invalid:443")

        let direct = try makeClient(["http_proxy": server.host, "https_proxy": server.host, "no_proxy": ".invalid"]) {
            $0.tlsVerify = false
        }
        let before = server.requests.count
        let error = registryError { _ = try direct.manifest(reference) }
        #expect(error?.kind == .connection)
        #expect(server.requests.count == before)
    }

    @Test func refusedByTheProxy() throws {
        let server = ScriptedServer { _ in [.reply(407, ["Proxy-Authenticate": #"Basic realm="x""#])] }
        defer { server.stop() }
        let client = try makeClient(["https_proxy": "http://me:secret@\(server.host)"])
        let error = registryError { _ = try client.manifest(try RegistryReference(parsing: "registry.invalid/team/app:v1")) }
        #expect(error?.kind == .connection)
        #expect(error?.description.contains("(status 407)") == true, "\(error?.description ?? "")")
        #expect(error?.description.contains("secret") == false)
        // Another attempt would be refused again.
        #expect(server.requests.count <= 2)
    }

    @Test func unreachableProxy() throws {
        let server = ScriptedServer { _ in [] }
        server.stop()
        usleep(50_000)
        let client = try makeClient(["https_proxy": "http://me:secret@\(server.host)"])
        let error = registryError { _ = try client.manifest(try RegistryReference(parsing: "registry.invalid/team/app:v1")) }
        #expect(error?.kind == .connection)
        #expect(error?.description.contains("secret") == false)
    }

    /// A proxy from the configuration is used on this machine too.
    @Test func proxyOfOneRegistry() throws {
        let server = ScriptedServer { _ in [.reply(200, ["Content-Type": "application/json"], Array("{}".utf8))] }
        let other = ScriptedServer { _ in [.reply(200, ["Content-Type": "application/json"], Array("{ }".utf8))] }
        defer { for server in [server, other] { server.stop() } }
        try withTemporaryDirectory { directory in
            try writeFile(
                directory + "/r.conf",
                "[[registry]]\nlocation = \"r.invalid\"\ninsecure = true\nproxy = \"\(server.host)\"\n")
            let client = try makeClient(["http_proxy": other.host, "no_proxy": "*"]) {
                $0.registriesConfiguration = ByteString(directory + "/r.conf")
            }
            #expect(try client.manifest(try RegistryReference(parsing: "r.invalid/a:1")).bytes == Array("{}".utf8))
            #expect(other.requests.isEmpty)
        }
    }
}

@Suite struct CertificateDirectoryTests {
    private func directories(_ root: String, _ environment: [String: String] = [:], given: String? = nil, user: UInt32 = 1000)
        -> CertificateDirectories
    {
        CertificateDirectories(
            given.map { ByteString($0) }, ConfigurationPaths(Environment(environment, systemRoot: root, userID: user)))
    }

    private func makeDirectories(_ root: String, _ path: String) throws {
        var current = root
        for part in path.split(separator: "/") {
            current += "/\(part)"
            _ = mkdir(current, 0o700)
        }
    }

    @Test func theFirstDirectoryOfTheHostCounts() throws {
        try withTemporaryDirectory { root in
            let candidates = [
                "usr/share/containers/certs.d", "etc/docker/certs.d", "etc/containers/certs.d", "etc/containers/certs.rootless.d",
                "etc/containers/certs.rootless.d/1000", "home/.config/containers/certs.d",
            ]
            #expect(try directories(root).certificates(forRegistry: "a.example:5000") == HostCertificates())
            for path in candidates {
                try makeDirectories(root, path + "/a.example:5000")
                try writeFile("\(root)/\(path)/a.example:5000/ca.crt", path)
                let found = try directories(root, ["HOME": root + "/home"]).certificates(forRegistry: "a.example:5000")
                #expect(String(decoding: found.authorities, as: UTF8.self) == path + "\n")
            }
            #expect(try directories(root).certificates(forRegistry: "a.example").authorities == [])
            for host in ["", ".", "..", "a.example:5000/..", "../certs.d/a.example:5000"] {
                #expect(try directories(root).certificates(for: host) == HostCertificates())
            }
        }
    }

    @Test func files() throws {
        try withTemporaryDirectory { root in
            try makeDirectory(root + "/d")
            #expect(try directories("/nonexistent", given: root + "/d").certificates(forRegistry: "any") == HostCertificates())
            for (name, text) in [
                ("b.crt", "B"), ("a.crt", "A"), ("x.pem", "no"), ("z.cert", "c"), ("z.key", "k"), ("y.cert", "c"), ("y.key", "k"),
            ] {
                try writeFile("\(root)/d/\(name)", text)
            }
            let found = try directories("/nonexistent", given: root + "/d").certificates(forRegistry: "any")
            #expect(found.authorities == Array("A\nB\n".utf8))
            #expect(found.clients == ["y", "z"].map { ClientCertificate(certificate: "\(root)/d/\($0).cert", key: "\(root)/d/\($0).key") })
            // A complete pair does not excuse an incomplete one.
            try writeFile(root + "/d/a.key", "k")
            let alone = registryError { _ = try directories("/nonexistent", given: root + "/d").certificates(forRegistry: "any") }
            #expect(alone?.description == "\(root)/d/a.key has no certificate: NAME.key belongs to NAME.cert in the same directory")
            #expect(unlink(root + "/d/a.key") == 0)
            #expect(unlink(root + "/d/y.key") == 0)
            let noKey = registryError { _ = try directories("/nonexistent", given: root + "/d").certificates(forRegistry: "any") }
            #expect(noKey?.description == "\(root)/d/y.cert has no key: y.key is missing in the same directory")
            for name in ["y.cert", "z.cert"] { #expect(unlink("\(root)/d/\(name)") == 0) }
            let noCertificate = registryError { _ = try directories("/nonexistent", given: root + "/d").certificates(forRegistry: "any") }
            #expect(noCertificate?.description == "\(root)/d/z.key has no certificate: NAME.key belongs to NAME.cert in the same directory")
            let missing = registryError { _ = try directories("/nonexistent", given: root + "/e").certificates(forRegistry: "any") }
            #expect(missing?.description == "certificate directory \(root)/e does not exist")
            #expect(missing?.remedy == .correctCertificateDirectory)
        }
    }
}
