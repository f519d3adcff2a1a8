import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Testing

@testable import ComposefsRegistry

/// The distribution registry with access control: certificates of both sides, a separate token server, and registries in front of
/// registries.
@Suite(
    .enabled("docker-registry, skopeo and openssl are not all installed") {
        ["docker-registry", "skopeo", "openssl"].allSatisfy { Program.find($0) != nil }
    })
struct RealRegistryAccessTests {
    private let image = TestImage.shared

    /// Runs a registry whose configuration ends with `settings`. It is filled first without them.
    private func withRegistry(
        _ directory: String, http: String = "", settings: String = "", fill: Bool = true, _ body: (_ host: String) throws -> Void
    ) throws {
        let server = ScriptedServer { _ in [] }
        server.stop()
        let host = "127.0.0.1:\(server.port)"
        func run(_ settings: String, http: String, _ body: () throws -> Void) throws {
            try writeFile(
                directory + "/config.yml",
                """
                version: 0.1
                log: {level: error}
                storage: {filesystem: {rootdirectory: \(directory)/store}}
                http: {addr: "\(host)"\(http)}
                \(settings)
                """)
            let registry = try Program(["docker-registry", "serve", directory + "/config.yml"], log: directory + "/log")
            defer { registry.stop() }
            #expect(Loopback.waitUntilListening(server.port), "docker-registry does not start")
            try body()
        }
        if fill {
            try writeDirectoryImage(directory + "/image")
            try run("", http: "") {
                let source = "dir:\(directory)/image"
                try Program.run(
                    [
                        "skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", source,
                        "docker://\(host)/team/app:v1",
                    ],
                    log: directory + "/log")
            }
        }
        try run(settings, http: http) { try body(host) }
    }

    /// The image in a form that `skopeo copy` reads from `dir:`.
    private func writeDirectoryImage(_ path: String) throws {
        try makeDirectory(path)
        try writeFile(path + "/version", "Directory Transport Version: 1.1\n")
        for (name, bytes) in [("manifest.json", image.manifest)] + ([image.config] + image.layers).map({ (ContentDigest.of($0).hex, $0) }) {
            let fd = open("\(path)/\(name)", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            defer { close(fd) }
            try #require(write(fd, bytes, bytes.count) == bytes.count)
        }
    }

    private func readImage(_ client: RegistryClient, _ reference: String) throws {
        let source = RegistryImageSource(try RegistryReference(parsing: reference), client: client)
        #expect(try source.rootManifest().bytes == image.manifest)
        for blob in [image.config] + image.layers {
            let descriptor = Descriptor(mediaType: "application/octet-stream", digest: .of(blob), size: UInt64(blob.count))
            #expect(try readAll(try source.openBlob(descriptor)) == blob)
        }
    }

    private func openssl(_ arguments: [String], _ directory: String) throws {
        try Program.run(["openssl"] + arguments, log: directory + "/log")
    }

    /// An authority, and its certificates for the server and the client.
    private func makeCertificates(_ directory: String) throws {
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        try openssl(
            ["req", "-x509"] + key + ["-days", "2", "-subj", "/CN=ca", "-keyout", directory + "/ca.key", "-out", directory + "/ca.pem"],
            directory)
        for (name, extensions) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
            try openssl(
                ["req"] + key + ["-subj", "/CN=\(name)", "-keyout", "\(directory)/\(name).key", "-out", "\(directory)/\(name).csr"],
                directory)
            try writeFile("\(directory)/\(name).ext", extensions)
            try openssl(
                [
                    "x509", "-req", "-days", "2", "-in", "\(directory)/\(name).csr", "-CA", directory + "/ca.pem", "-CAkey",
                    directory + "/ca.key",
                    "-CAcreateserial", "-extfile", "\(directory)/\(name).ext", "-out", "\(directory)/\(name).pem",
                ], directory)
        }
    }

    @Test func certificatesOfBothSides() throws {
        try withTemporaryDirectory { directory in
            try makeCertificates(directory)
            let tls = ", tls: {certificate: \(directory)/server.pem, key: \(directory)/server.key, clientcas: [\(directory)/ca.pem]}"
            try withRegistry(directory, http: tls) { host in
                let reference = "\(host)/team/app:v1"
                func copy(_ name: String, _ target: String) throws {
                    let bytes = try #require(try readSmallFile(ByteString("\(directory)/\(name)"), limit: 1 << 16))
                    try writeFile(target, String(decoding: bytes, as: UTF8.self))
                }
                let unknown = registryError { try readImage(try makeClient(), reference) }
                #expect(unknown?.kind == .tls)
                #expect(unknown?.description.contains("the certificate of \(host) is not trusted") == true)

                // With the authority alone: the registry asks for a client certificate.
                let home = directory + "/home"
                for path in ["", "/.config", "/.config/containers", "/.config/containers/certs.d", "/.config/containers/certs.d/\(host)"] {
                    try makeDirectory(home + path)
                }
                let folder = home + "/.config/containers/certs.d/\(host)"
                try copy("ca.pem", folder + "/ca.crt")
                let anonymous = registryError { try readImage(try makeClient(["HOME": home]) { $0.retry.limit = 1 }, reference) }
                #expect(anonymous?.kind == .connection || anonymous?.kind == .tls, "\(anonymous?.description ?? "")")

                try copy("client.pem", folder + "/client.cert")
                try copy("client.key", folder + "/client.key")
                try readImage(try makeClient(["HOME": home]), reference)
                // The same with the option, which replaces certs.d.
                try readImage(try makeClient { $0.certificateDirectory = ByteString(folder) }, reference)
                try makeDirectory(directory + "/empty")
                let empty = registryError {
                    try readImage(try makeClient(["HOME": home]) { $0.certificateDirectory = ByteString(directory + "/empty") }, reference)
                }
                #expect(empty?.kind == .tls)
                // The registry accepts one of several; the earlier ones, of another authority, are rejected. All are tried, as other tools
                // do.
                try openssl(
                    [
                        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=else",
                        "-keyout", folder + "/another.key", "-out", folder + "/another.cert",
                    ], directory)
                try copy("client.pem", folder + "/valid.cert")
                try copy("client.key", folder + "/valid.key")
                for name in ["client.cert", "client.key"] { #expect(rename(folder + "/" + name, directory + "/" + name) == 0) }
                try readImage(try makeClient(["HOME": home]) { $0.retry.limit = 0 }, reference)
                let client = try makeClient(["HOME": home]) { $0.retry.limit = 0 }
                let destination = try RegistryDestination(try RegistryReference(parsing: "\(host)/team/other:v1"), client: client)
                let pushed = pattern(100_000)
                _ = try destination.hasBlob(Descriptor(mediaType: "", digest: .of(pushed), size: 100_000))
                _ = try destination.putBlob(OutgoingBlob(pushed, digest: .of(pushed)))
                // All are rejected.
                for name in ["valid.cert", "valid.key"] { #expect(unlink(folder + "/" + name) == 0) }
                for (from, to) in [("another.cert", "b.cert"), ("another.key", "b.key")] {
                    let bytes = try #require(try readSmallFile(ByteString(folder + "/" + from), limit: 1 << 16))
                    try writeFile(folder + "/" + to, String(decoding: bytes, as: UTF8.self))
                }
                let refused = registryError { try readImage(try makeClient(["HOME": home]) { $0.retry.limit = 1 }, reference) }
                #expect(refused?.kind == .connection || refused?.kind == .tls, "\(refused?.description ?? "")")
                for name in ["b.cert", "b.key", "another.cert", "another.key"] { #expect(unlink(folder + "/" + name) == 0) }
                try copy("client.pem", folder + "/client.cert")
                // A key of another certificate.
                try copy("server.key", folder + "/client.key")
                let wrong = registryError { try readImage(try makeClient(["HOME": home]), reference) }
                #expect(wrong?.kind == .tls)
                #expect(wrong?.description.contains("cannot use the client certificate for \(host)") == true)
            }
        }
    }

    /// A rejection that shows only as a broken connection leads to the next certificate too, every time.
    @Test func refusalsThatAreLost() throws {
        try withTemporaryDirectory { directory in
            try makeCertificates(directory)
            let tls = ", tls: {certificate: \(directory)/server.pem, key: \(directory)/server.key, clientcas: [\(directory)/ca.pem]}"
            try withRegistry(directory, http: tls) { host in
                let relay = CuttingRelay(to: try #require(host.split(separator: ":").last.flatMap { UInt16($0) }))
                defer { relay.stop() }
                let folder = directory + "/certificates"
                try makeDirectory(folder)
                func copy(_ name: String, _ target: String) throws {
                    let bytes = try #require(try readSmallFile(ByteString("\(directory)/\(name)"), limit: 1 << 16))
                    try writeFile(folder + "/" + target, String(decoding: bytes, as: UTF8.self))
                }
                try copy("ca.pem", "ca.crt")
                try copy("client.pem", "valid.cert")
                try copy("client.key", "valid.key")
                for name in ["a", "b"] {
                    try openssl(
                        [
                            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                            "/CN=\(name)", "-keyout", "\(folder)/\(name).key", "-out", "\(folder)/\(name).cert",
                        ], directory)
                }
                func client() throws -> RegistryClient {
                    try makeClient {
                        $0.certificateDirectory = ByteString(folder)
                        $0.retry.limit = 0
                        $0.retry.unreachableLimit = 0
                        $0.tlsVerify = true
                    }
                }
                for _ in 0..<10 { try readImage(try client(), "\(relay.host)/team/app:v1") }
                // If all are rejected, each was sent once.
                for name in ["valid.cert", "valid.key"] { #expect(unlink(folder + "/" + name) == 0) }
                let before = relay.connections
                let refused = registryError { try readImage(try client(), "\(relay.host)/team/app:v1") }
                #expect(refused?.kind == .connection || refused?.kind == .tls, "\(refused?.description ?? "")")
                #expect(relay.connections - before == 2)
            }
        }
    }

    // MARK: Tokens

    /// The encoding of RFC 7515.
    private func base64URL(_ bytes: [UInt8]) -> String {
        String(
            Base64.encode(bytes).compactMap { character -> Character? in
                switch character {
                case "+": "-"
                case "/": "_"
                case "=": nil
                default: character
                }
            })
    }

    /// A JSON web token that the registry accepts from its token server, signed with RS256 by the key whose certificate is in `x5c`.
    private func makeToken(_ directory: String, claims: JSONValue) throws -> String {
        let certificate = try #require(try readSmallFile(ByteString(directory + "/token.der"), limit: 1 << 16))
        let header: JSONValue = ["typ": "JWT", "alg": "RS256", "x5c": [.string(Base64.encode(certificate))]]
        let signed = base64URL(header.compactBytes) + "." + base64URL(claims.compactBytes)
        try writeFile(directory + "/signed", signed)
        try openssl(
            ["dgst", "-sha256", "-sign", directory + "/token.key", "-out", directory + "/signature", directory + "/signed"], directory)
        return signed + "." + base64URL(try #require(try readSmallFile(ByteString(directory + "/signature"), limit: 4096)))
    }

    @Test func tokensOfAnotherServer() throws {
        try withTemporaryDirectory { directory in
            try openssl(
                [
                    "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout",
                    directory + "/token.key",
                    "-out", directory + "/token.pem",
                ], directory)
            try openssl(["x509", "-in", directory + "/token.pem", "-outform", "DER", "-out", directory + "/token.der"], directory)
            let now = Int64(time(nil))
            let access: JSONValue = ["type": "repository", "name": "team/app", "actions": ["pull"]]
            func token(_ access: [JSONValue]) throws -> String {
                try makeToken(
                    directory,
                    claims: [
                        "iss": "tests", "sub": "aladdin", "aud": "registry", "exp": .integer(now + 300), "nbf": .integer(now - 60),
                        "iat": .integer(now - 60), "jti": "1", "access": .array(access),
                    ])
            }
            let (good, useless) = (try token([access]), try token([]))
            let tokens = ScriptedServer { request in
                guard request.headers["authorization"] == "Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==" else {
                    return [.reply(401, [:], Array(#"{"details":"incorrect username or password"}"#.utf8))]
                }
                let mayPull = request.query.contains("scope=repository%3Ateam%2Fapp%3Apull")
                return [.reply(200, [:], Array(#"{"token":"\#(mayPull ? good : useless)","expires_in":300}"#.utf8))]
            }
            defer { tokens.stop() }
            let settings = """
                auth:
                  token: {realm: "http://\(tokens.host)/token", service: registry, issuer: tests, rootcertbundle: \(directory)/token.pem}
                """
            try withRegistry(directory, settings: settings) { host in
                let client = try makeClient { $0.credentials = .password(user: "aladdin", password: "open sesame") }
                try readImage(client, "\(host)/team/app:v1")
                // One token for the manifest and all blobs.
                #expect(tokens.requests.map(\.query) == ["service=registry&scope=repository%3Ateam%2Fapp%3Apull&account=aladdin"])
                #expect(try client.checkCredentials(for: try LoginTarget(parsing: host)))
                // A request that the token does not cover is refused, and repeated once, not forever.
                let other = registryError { try readImage(client, "\(host)/team/secret:v1") }
                #expect(other?.kind == .unauthorized)
                #expect(tokens.requests.count <= 4)

                let wrong = try makeClient { $0.credentials = .password(user: "aladdin", password: "close sesame") }
                let refused = registryError { try readImage(wrong, "\(host)/team/app:v1") }
                #expect(refused?.kind == .unauthorized)
                #expect(refused?.description.contains("incorrect username or password") == true)
                #expect(refused?.description.contains("close sesame") == false)
            }
        }
    }

    // MARK: Mirrors

    /// A registry as the mirror of another one, found by an alias and configured by a registries.conf in the user's home.
    @Test func mirrorOfARegistry() throws {
        try withTemporaryDirectory { directory in
            for path in ["/a", "/b", "/home", "/home/.config", "/home/.config/containers"] { try makeDirectory(directory + path) }
            try withRegistry(directory + "/a") { primary in
                try withRegistry(directory + "/b", fill: false) { empty in
                    try writeFile(
                        directory + "/home/.config/containers/registries.conf",
                        """
                        [[registry]]
                        prefix = "registry.invalid/apps"
                        location = "\(primary)/team"
                        [[registry.mirror]]
                        location = "\(empty)/cache"
                        [aliases]
                        app = "registry.invalid/apps/app"
                        """)
                    let client = try makeClient(["HOME": directory + "/home"])
                    try readImage(client, "registry.invalid/apps/app:v1")
                    try readImage(client, "app:v1")
                    let source = RegistryImageSource(try RegistryReference(parsing: "app:v1"), client: client)
                    #expect(source.canonicalName == "registry.invalid/apps/app:v1")
                    let missing = registryError { try readImage(client, "app:v2") }
                    #expect(missing?.kind == .notFound)
                    #expect(missing?.description.contains("before that, \(empty)/cache/app: ") == true)
                }
            }
        }
    }
}
