import ComposefsBytes
import ComposefsConcurrency
import ComposefsHTTPClient
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

/// The distribution registry itself, on loopback, filled by skopeo.
@Suite(
    .enabled("docker-registry, skopeo and openssl are not all installed") {
        ["docker-registry", "skopeo", "openssl"].allSatisfy { Program.find($0) != nil }
    })
struct RealRegistryTests {
    /// A layout with one image of several large layers, written by this test. Returns manifest and blobs, config first.
    private func makeLayout(_ directory: String) throws -> (manifest: [UInt8], blobs: [[UInt8]]) {
        try makeDirectory(directory)
        try makeDirectory(directory + "/blobs")
        try makeDirectory(directory + "/blobs/sha256")
        func add(_ bytes: [UInt8]) throws -> String {
            let digest = ContentDigest.of(bytes)
            let fd = open("\(directory)/blobs/sha256/\(digest.hex)", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
            defer { close(fd) }
            try #require(write(fd, bytes, bytes.count) == bytes.count)
            return #""digest":"\#(digest)","size":\#(bytes.count)"#
        }
        let layers = (1...6).map { pattern(400_000 * $0) }
        let diffIDs = layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        let config = Array(#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
        let list = try layers.map { #"{"mediaType":"application/vnd.oci.image.layer.v1.tar",\#(try add($0))}"# }.joined(separator: ",")
        let type = "application/vnd.oci.image.manifest.v1+json"
        let manifest = Array(
            #"{"schemaVersion":2,"mediaType":"\#(type)","config":{"mediaType":"application/vnd.oci.image.config.v1+json",\#(try add(config))},"layers":[\#(list)]}"#
                .utf8)
        try writeFile(directory + "/oci-layout", #"{"imageLayoutVersion":"1.0.0"}"#)
        let annotations = #""annotations":{"org.opencontainers.image.ref.name":"v1"}"#
        try writeFile(
            directory + "/index.json", #"{"schemaVersion":2,"manifests":[{"mediaType":"\#(type)",\#(try add(manifest)),\#(annotations)}]}"#)
        return (manifest, [config] + layers)
    }

    private func freePort() -> UInt16 {
        let server = ScriptedServer { _ in [] }
        server.stop()
        return server.port
    }

    /// Runs a registry with `http` added to its configuration, pushes the image, and passes both to `body`.
    private func withRegistry(
        _ directory: String, tls: Bool, htpasswd: Bool, _ body: (String, [UInt8], [[UInt8]]) throws -> Void
    ) throws {
        let port = freePort()
        var text =
            "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: \(directory)/store}}\nhttp:\n  addr: 127.0.0.1:\(port)\n"
        if tls {
            try Program.run(
                [
                    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                    "/CN=test",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", directory + "/key.pem", "-out", directory + "/cert.pem",
                ], log: directory + "/log")
            text += "  tls: {certificate: \(directory)/cert.pem, key: \(directory)/key.pem}\n"
        }
        if htpasswd {
            // crypt(3) of "open sesame" with bcrypt.
            try writeFile(directory + "/htpasswd", "aladdin:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n")
            text += "auth: {htpasswd: {realm: test, path: \(directory)/htpasswd}}\n"
        }
        try writeFile(directory + "/config.yml", text)
        let registry = try Program(["docker-registry", "serve", directory + "/config.yml"], log: directory + "/log")
        defer { registry.stop() }
        let (manifest, blobs) = try makeLayout(directory + "/layout")
        // The registry is ready when it responds.
        let host = "127.0.0.1:\(port)"
        let probe = try makeClient {
            $0.tlsVerify = false; $0.retry.limit = 100; $0.retry.unreachableLimit = 100; $0.retry.baseDelay = .milliseconds(40)
        }
        _ = registryError {
            _ = try probe.fetchManifest(RemoteRepository(domain: host, name: "none"), reference: "none", expected: nil, limit: 100)
        }
        var arguments = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"]
        if htpasswd { arguments += ["--dest-creds", "aladdin:open sesame"] }
        try Program.run(arguments + ["oci:\(directory)/layout:v1", "docker://\(host)/team/app:v1"], log: directory + "/log")
        try body(host, manifest, blobs)
    }

    private func checkImage(_ client: RegistryClient, _ host: String, _ manifest: [UInt8], _ blobs: [[UInt8]]) throws {
        let repository = RemoteRepository(domain: host, name: "team/app")
        let fetched = try client.fetchManifest(repository, reference: "v1", expected: nil, limit: 4 << 20)
        #expect(fetched.bytes == manifest)
        #expect(fetched.mediaType == "application/vnd.oci.image.manifest.v1+json")
        let digest = ContentDigest.of(manifest)
        #expect(try client.fetchManifest(repository, reference: digest.description, expected: digest, limit: 4 << 20).bytes == manifest)
        let results = Mutex<[Int: Bool]>([:])
        let done = Monitor()
        for (index, blob) in blobs.enumerated() {
            onThread {
                let reader = try? openDownload(client, repository, digest: .of(blob), size: UInt64(blob.count))
                let bytes = reader.flatMap { try? readAll($0) }
                results.withLock { $0[index] = bytes == blob }
                done.withLock { done.wakeAll() }
            }
        }
        let deadline = MonotonicTime.now + .seconds(20)
        done.withLock { while results.withLock({ $0.count }) < blobs.count, done.wait(until: deadline) {} }
        #expect(results.withLock { $0.values.filter { $0 }.count } == blobs.count)
        // In the order of a pull.
        let source = RegistryImageSource(try RegistryReference(parsing: "\(host)/team/app:v1"), client: client)
        let resolved = try resolveManifest(source, platform: Platform(os: "linux", architecture: "amd64"))
        #expect(resolved.digest == digest)
        #expect(try readAll(source.openBlob(resolved.manifest.config)) == blobs[0])
        #expect(try client.referrers(of: digest, in: source.reference) == [])
        let missing = registryError { _ = try client.fetchManifest(repository, reference: "v2", expected: nil, limit: 4 << 20) }
        #expect(missing?.kind == .notFound && missing?.code == "MANIFEST_UNKNOWN")
    }

    @Test func plainHTTP() throws {
        try withTemporaryDirectory { directory in
            try withRegistry(directory, tls: false, htpasswd: false) { host, manifest, blobs in
                try checkImage(try makeClient(), host, manifest, blobs)
                let strict = registryError { try checkImage(try makeClient { $0.tlsVerify = true }, host, manifest, blobs) }
                #expect(strict?.kind == .tls)
                #expect(strict?.remedy == .allowPlainHTTP)
            }
        }
    }

    /// Go speaks HTTP/2 over TLS. Blobs have connections of their own by default.
    @Test func tlsWithPassword() throws {
        try withTemporaryDirectory { directory in
            try withRegistry(directory, tls: true, htpasswd: true) { host, manifest, blobs in
                let auth = Base64.encode(Array("aladdin:open sesame".utf8))
                try writeFile(directory + "/auth.json", #"{"auths":{"\#(host)/team":{"auth":"\#(auth)"}}}"#)
                let environment = ["REGISTRY_AUTH_FILE": directory + "/auth.json"]
                try checkImage(try makeClient(environment) { $0.tlsVerify = false }, host, manifest, blobs)
                try checkImage(try makeClient(environment) { $0.certificateAuthorities = directory + "/cert.pem" }, host, manifest, blobs)
                let trusting = environment.merging(["SSL_CERT_FILE": directory + "/cert.pem"]) { $1 }
                try checkImage(try makeClient(trusting), host, manifest, blobs)
                let multiplexing = try makeClient(trusting) { $0.multiplexesBlobs = true }
                try checkImage(multiplexing, host, manifest, blobs)
                for (client, usesHTTP1) in [(multiplexing, false), (try makeClient(trusting), true)] {
                    let repository = RemoteRepository(domain: host, name: "team/app")
                    // Read in reverse order of opening: a waiting reader must not block the others.
                    let readers = try blobs.dropFirst().map {
                        try openDownload(client, repository, digest: .of($0), size: UInt64($0.count))
                    }
                    // A blob that fits into the ring buffer is never paused, so it may share a connection.
                    for (reader, blob) in zip(readers, blobs.dropFirst()) {
                        #expect(
                            (reader.currentConnection as? RegistryBlobConnection)?.usesHTTP1
                                == (usesHTTP1 && blob.count > HTTPResponse.sharedBodyLimit))
                    }
                    for (reader, blob) in zip(readers, blobs.dropFirst()).reversed() { #expect(try readAll(reader) == blob) }
                }
                // After an untrusted certificate, plain HTTP is not tried.
                let untrusted = registryError { try checkImage(try makeClient(environment), host, manifest, blobs) }
                #expect(untrusted?.kind == .tls)
                #expect(untrusted?.description.contains("the certificate of \(host) is not trusted") == true)
                let anonymous = registryError { try checkImage(try makeClient { $0.tlsVerify = false }, host, manifest, blobs) }
                #expect(anonymous?.kind == .unauthorized)
                let wrong = registryError {
                    try checkImage(
                        try makeClient {
                            $0.tlsVerify = false
                            $0.credentials = .password(user: "aladdin", password: "close sesame")
                        }, host, manifest, blobs)
                }
                #expect(wrong?.kind == .unauthorized)
                #expect(wrong?.description.contains("the given credentials are not accepted") == true)
            }
        }
    }
}
