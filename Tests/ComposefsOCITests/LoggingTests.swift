import ComposefsTestSupport
import InMemoryLogging
import Logging
import Synchronization
import Testing

@testable import ComposefsOCI

/// What a store's logger receives, and what it never does.
struct LoggingTests {
    private static let layerPath = "/v2/team/app/blobs/sha256:" + Quickstart.blobs[0]

    /// A registry that wants a password and sends blobs from signed addresses.
    ///
    /// - Parameter path: a blob that it damages. Then it wants no password: a mirror does not get that of the registry.
    private func registry(damaging path: String? = nil) throws -> ScriptedServer {
        let manifest = try Quickstart.blob(Quickstart.manifest)
        var blobs: [String: [UInt8]] = [:]
        for name in [Quickstart.config] + Quickstart.blobs { blobs[name] = try Quickstart.blob(name) }
        return ScriptedServer { [blobs] request in
            let name = String(request.path.split(separator: "/").last?.split(separator: ":").last ?? "")
            if request.path.hasPrefix("/signed/") {
                guard request.query == "X-Signature=topsecret", var blob = blobs[name] else { return [.reply(403)] }
                if path?.hasSuffix(name) == true { blob[blob.count / 2] ^= 1 }
                return [.reply(200, [:], blob)]
            }
            // aladdin:sesame
            guard path != nil || request.headers["authorization"] == "Basic YWxhZGRpbjpzZXNhbWU=" else {
                return [.reply(401, ["WWW-Authenticate": "Basic realm=\"x\""])]
            }
            if request.path == "/v2/team/app/manifests/v1" {
                return [.reply(200, ["Content-Type": "application/vnd.oci.image.manifest.v1+json"], manifest)]
            }
            guard blobs[name] != nil else { return [.reply(404)] }
            return [.reply(307, ["Location": "/signed/\(name)?X-Signature=topsecret"])]
        }
    }

    private func logger(_ level: Logger.Level) -> (logger: Logger, handler: InMemoryLogHandler) {
        let handler = InMemoryLogHandler()
        var logger = Logger(label: "test", factory: { _ in handler })
        logger.logLevel = level
        return (logger, handler)
    }

    private var options: RegistryOptions {
        var options = RegistryOptions()
        options.credentials = .password(user: "aladdin", password: "sesame")
        return options
    }

    private func expectNoSecrets(_ entries: [InMemoryLogHandler.Entry]) {
        for entry in entries {
            let text = "\(entry.message) \(entry.metadata)"
            for secret in ["sesame", "YWxhZGRpbjpzZXNhbWU", "topsecret", "X-Signature"] { #expect(!text.contains(secret), "\(text)") }
        }
    }

    @Test func endpointsCredentialsAndRequests() async throws {
        let server = try registry()
        defer { server.stop() }
        let folder = try Folder()
        var store = try folder.makeStore()
        let (logger, handler) = logger(.trace)
        store.logger = logger
        let pulled = try await store.pull("\(server.host)/team/app:v1", registry: options)
        #expect(pulled.manifestDigest.hex == Quickstart.manifest)
        let entries = handler.entries
        expectNoSecrets(entries)
        let endpoint = try #require(entries.first { $0.message == "uses an endpoint" })
        #expect(endpoint.level == .debug && endpoint.metadata["mirror"] == "false")
        #expect(endpoint.metadata["endpoint"] == "\(server.host)/team/app")
        #expect(endpoint.metadata["image"] == "\(server.host)/team/app:v1")
        let credentials = try #require(entries.first { $0.message == "uses credentials" })
        #expect(credentials.level == .debug && credentials.metadata["registry"] == "\(server.host)")
        let requests = entries.filter { $0.message == "request" }
        #expect(requests.allSatisfy { $0.level == .trace && $0.metadata["milliseconds"] != nil })
        #expect(requests.count == server.requests.count)
        for (path, status) in [
            ("/v2/team/app/manifests/v1", 401), ("/v2/team/app/manifests/v1", 200), (Self.layerPath, 307),
            ("/signed/" + Quickstart.blobs[0], 200),
        ] {
            #expect(
                requests.contains {
                    $0.metadata["method"] == "GET" && $0.metadata["url"] == "http://\(server.host)\(path)"
                        && $0.metadata["status"] == "\(status)"
                }, "\(path) \(status)")
        }
    }

    /// A store has the logger of its handle only, and nothing is logged above the level.
    @Test func levelsAndHandles() async throws {
        let server = try registry()
        defer { server.stop() }
        let folder = try Folder()
        let (quiet, nothing) = logger(.info)
        let (loud, debug) = logger(.debug)
        let silent = try folder.makeStore()
        let store = try Store.open(folder.path + "/repository", logger: quiet)
        var copy = store
        copy.logger = loud
        for store in [silent, store, copy] {
            var pull = PullOptions()
            pull.policy = .always
            _ = try await store.pull("\(server.host)/team/app:v1", pull, registry: options)
        }
        #expect(nothing.entries.isEmpty)
        #expect(Set(debug.entries.map { "\($0.message)" }) == ["uses an endpoint", "uses credentials"])
        // A push is logged, too. It fails: the registry takes nothing.
        debug.clear()
        _ = try? await copy.push(ByteString("\(server.host)/team/app:v1"), to: "\(server.host)/other/name:v1", registry: options)
        #expect(debug.entries.contains { $0.message == "uses an endpoint" && $0.metadata["endpoint"] == "\(server.host)/other/name" })
        expectNoSecrets(debug.entries)
    }

    /// A mirror that sends wrong content causes a warning, for the caller's own closure as well.
    @Test func warnings() async throws {
        let (mirror, server) = (try registry(damaging: Self.layerPath), try registry())
        defer { for server in [mirror, server] { server.stop() } }
        let folder = try Folder()
        let file = folder.path + "/registries.conf"
        try FileDescriptor.open(file, [.writeOnly, .create], mode: 0o600).writeAll(
            Array("[[registry]]\nlocation = \"\(server.host)\"\n[[registry.mirror]]\nlocation = \"\(mirror.host)\"\n".utf8))
        let told = Mutex<[String]>([])
        let (logger, handler) = logger(.info)
        var options = options
        options.registriesConfiguration = file
        options.warn = { message in told.withLock { $0.append(message) } }
        let store = try Store.openOrCreate(folder.path + "/repository", logger: logger).store
        let pulled = try await store.pull("\(server.host)/team/app:v1", registry: options)
        #expect(pulled.manifestDigest.hex == Quickstart.manifest)
        let entries = handler.entries
        expectNoSecrets(entries)
        let warnings = entries.filter { $0.level == .warning }.map { "\($0.message)" }
        #expect(warnings.count == 1 && warnings.first?.contains("\(mirror.host)/team/app") == true)
        #expect(told.withLock { $0 } == warnings)
        let again = entries.filter { $0.message == "fetches a layer again" }
        #expect(again.count == 1 && again.first?.metadata["layer"] == "0" && again.first?.level == .info)
    }

    /// Without a store: a copy between registries, with options that log.
    @Test func aCopy() async throws {
        let server = try registry()
        defer { server.stop() }
        let folder = try Folder()
        let (logger, handler) = logger(.debug)
        let result = try await copyIndex(
            "docker://\(server.host)/team/app:v1", to: "oci:\(folder.path)/layout:v1", registry: options.logging(to: logger))
        #expect(result.digest.hex == Quickstart.manifest)
        #expect(handler.entries.contains { $0.message == "uses credentials" })
        expectNoSecrets(handler.entries)
    }

    @Test func waits() throws {
        let (logger, handler) = logger(.info)
        let told = Mutex(0)
        let options = OpenOptions(willWait: { told.withLock { $0 += 1 } }).logging(to: logger, "/a/repository")
        options.willWait?()
        #expect(handler.entries.map(\.message) == ["waits for another process"] && told.withLock { $0 } == 1)
        #expect(handler.entries.first?.metadata["repository"] == "/a/repository")
    }
}
