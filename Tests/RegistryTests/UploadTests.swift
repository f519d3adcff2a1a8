import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

/// Uploads of blobs and manifests to registries that behave in different ways.
struct UploadTests {
    private static let blob = pattern(3_000_000)

    /// A blob that is produced in chunks of many sizes; counts how often it is produced.
    private func outgoing(_ bytes: [UInt8], isKnown: Bool, _ made: Counter = Counter()) -> OutgoingBlob {
        OutgoingBlob(expected: isKnown ? SentBlob(digest: .of(bytes), size: UInt64(bytes.count)) : nil) { emit in
            made.add()
            try bytes.withUnsafeBytes { all in
                var (start, size) = (0, 1)
                while start < all.count {
                    let end = min(all.count, start + size)
                    try emit(UnsafeRawBufferPointer(rebasing: all[start..<end]))
                    (start, size) = (end, size * 2 % 300_001)
                }
            }
        }
    }

    final class Counter: Sendable {
        private let value = Mutex(0)
        func add() { value.withLock { $0 += 1 } }
        var count: Int { value.withLock { $0 } }
    }

    private func destination(
        _ registry: FakeRegistry, _ adjust: (inout RegistryOptions) -> Void = { _ in }
    ) throws -> RegistryDestination {
        try RegistryDestination(try RegistryReference(parsing: "\(registry.server.host)/team/app:v1"), client: try makeClient([:], adjust))
    }

    private func put(_ destination: RegistryDestination, _ blob: OutgoingBlob) throws -> SentBlob {
        // As a push does: it asks for the blob first, and so finds out whether there is TLS.
        _ = try destination.hasBlob(Descriptor(mediaType: "", digest: .of([1, 2, 3] as [UInt8]), size: 3))
        return try destination.putBlob(blob)
    }

    @Test func aKnownBlobGoesInOnePut() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: true))
        #expect(sent == SentBlob(digest: .of(Self.blob), size: 3_000_000))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(registry.server.requests.map(\.method).suffix(2) == ["POST", "PUT"])
        #expect(registry.server.requests.last?.headers["content-length"] == "3000000")
        #expect(registry.server.requests.allSatisfy { $0.headers["expect"] == nil })
    }

    @Test func anUnknownBlobIsStreamed() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: false))
        #expect(sent == SentBlob(digest: .of(Self.blob), size: 3_000_000))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(registry.server.requests.map(\.method).suffix(3) == ["POST", "PATCH", "PUT"])
    }

    @Test(arguments: [0, 1, 512 << 10]) func smallBlobs(count: Int) throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        let blob = Array(Self.blob.prefix(count))
        for isKnown in [true, false] {
            let sent = try put(try destination(registry), outgoing(blob, isKnown: isKnown))
            #expect(registry.contents.blobs["team/app@\(sent.digest)"] == blob)
        }
    }

    /// A broken connection costs only the bytes in flight.
    @Test func aBrokenStreamGoesOnWhereItBroke() throws {
        let registry = FakeRegistry(breaking: { $0.method == "PATCH" && $0.number < 3 ? 700_000 : nil })
        defer { registry.server.stop() }
        let made = Counter()
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: false, made))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(registry.contents.received == 3_000_000)
        #expect(made.count == registry.count("PATCH", "uploads"))
        #expect(registry.count("PATCH", "uploads") > 1)
        #expect(registry.count("POST", "uploads") == 1)
    }

    /// A registry that does not report what it has gets everything again.
    @Test(arguments: [404, 500, 204]) func aBrokenStreamBeginsAnew(status: Int) throws {
        let registry = FakeRegistry(
            breaking: { $0.method == "PATCH" && $0.path.hasSuffix("u1") ? 700_000 : nil },
            script: { request in
                request.method == "GET" ? [.reply(status)] : nil
            })
        defer { registry.server.stop() }
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: false))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(registry.count("POST", "uploads") == 2)
    }

    @Test func aBrokenPutBeginsAnew() throws {
        let registry = FakeRegistry(breaking: { $0.method == "PUT" && $0.path.hasSuffix("u1") ? 100_000 : nil })
        defer { registry.server.stop() }
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: true))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(registry.count("POST", "uploads") == 2)
    }

    /// The blob is complete, and the response that confirms it is lost.
    @Test func aLostAnswer() throws {
        let box = Mutex(0)
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        let lossy = FakeRegistry(script: { request in
            guard request.method == "PUT", request.path.contains("uploads"),
                box.withLock({
                    $0 += 1; return $0 == 1
                })
            else { return nil }
            return [.reset]
        })
        defer { lossy.server.stop() }
        lossy.add(Self.blob, to: "team/app")
        #expect(try put(try destination(lossy), outgoing(Self.blob, isKnown: false)).size == 3_000_000)
        #expect(lossy.count("POST", "uploads") == 1)
    }

    @Test func statusesThatPass() throws {
        let registry = FakeRegistry(script: { request in
            if request.method == "POST", request.number < 2 { return [.reply(503, ["Retry-After": "0"])] }
            if request.method == "PUT", request.number < 3 { return [.reply(502)] }
            return nil
        })
        defer { registry.server.stop() }
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: false))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
    }

    /// A response before the end of the body ends the upload: no more bytes are sent.
    @Test func refusalsEndTheUpload() throws {
        let registry = FakeRegistry(
            breaking: { $0.method == "PATCH" ? 100_000 : nil },
            script: { request in
                request.method == "PATCH"
                    ? [
                        .reply(413, ["Connection": "close"], Array(#"{"errors":[{"code":"SIZE_INVALID","message":"too much"}]}"#.utf8)),
                        .close,
                    ]
                    : nil
            })
        defer { registry.server.stop() }
        let made = Counter()
        let error = registryError { _ = try put(try destination(registry), outgoing(Self.blob, isKnown: false, made)) }
        // The reset after a response to an unread body may arrive before the response.
        #expect(error?.status == 413 || error?.kind == .connection)
        #expect(registry.contents.blobs.isEmpty)
    }

    @Test func missingRights() throws {
        let registry = FakeRegistry(script: { $0.method == "POST" ? [.reply(403)] : nil })
        defer { registry.server.stop() }
        let error = registryError { _ = try put(try destination(registry), outgoing(Self.blob, isKnown: true)) }
        #expect(error?.kind == .forbidden)
        #expect(registry.count("POST", "uploads") == 1)
    }

    /// If producing the blob fails, no upload remains, and the error is passed on.
    @Test(arguments: [true, false]) func failuresOfTheMaker(isKnown: Bool) throws {
        struct Damage: Error {}
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        let blob = OutgoingBlob(expected: isKnown ? SentBlob(digest: .of(Self.blob), size: 3_000_000) : nil) { emit in
            try Self.blob.withUnsafeBytes { try emit(UnsafeRawBufferPointer(rebasing: $0[..<2_000_000])) }
            throw Damage()
        }
        #expect(throws: Damage.self) { _ = try put(try destination(registry), blob) }
        #expect(registry.contents.blobs.isEmpty)
    }

    /// The damage of a store is not pushed to a registry.
    @Test func aBlobThatIsNotWhatItShouldBe() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        var wrong = Self.blob
        wrong[1_000_000] ^= 1
        let blob = OutgoingBlob(
            expected: SentBlob(digest: .of(Self.blob), size: 3_000_000), produce: outgoing(wrong, isKnown: false).produce)
        #expect(throws: PushError.self) { _ = try put(try destination(registry), blob) }
        #expect(registry.contents.blobs.isEmpty)
    }

    // MARK: Other hosts

    /// The registry may redirect uploads to another host, which does not get the credentials.
    @Test(arguments: [true, false]) func uploadsElsewhere(byRedirect: Bool) throws {
        let other = FakeRegistry()
        defer { other.server.stop() }
        let elsewhere = "http://\(other.server.host)/v2/team/app/blobs/uploads/u1?state=0"
        let registry = FakeRegistry(script: { request in
            if request.headers["authorization"] == nil { return [.reply(401, ["WWW-Authenticate": #"Basic realm="r""#])] }
            if request.method == "POST", !byRedirect { return [.reply(202, ["Location": elsewhere])] }
            if request.method == "PATCH" { return [.reply(307, ["Location": elsewhere])] }
            return nil
        })
        defer { registry.server.stop() }
        // The other host accepts the upload.
        _ = try makeClient().beginUpload(RemoteRepository(domain: other.server.host, name: "team/app"))
        let target = try destination(registry) { $0.credentials = .password(user: "u", password: "p") }
        let sent = try put(target, outgoing(Self.blob, isKnown: false))
        #expect(other.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        #expect(other.server.requests.allSatisfy { $0.headers["authorization"] == nil })
        #expect(registry.server.requests.contains { $0.headers["authorization"] != nil })
    }

    /// An upload that breaks at the target of a redirect is not sent there again from its beginning, since part of it may have arrived.
    @Test(arguments: [true, false]) func breaksElsewhere(isKnown: Bool) throws {
        let isBroken = Mutex(true)
        let other = FakeRegistry(script: { request in
            guard ["PATCH", "PUT"].contains(request.method),
                isBroken.withLock({ value in
                    defer { value = false }; return value
                })
            else { return nil }
            return [.reply(503)]
        })
        defer { other.server.stop() }
        let elsewhere = "http://\(other.server.host)/v2/team/app/blobs/uploads/u1?state=0"
        let registry = FakeRegistry(script: { request in
            // Only once: the second upload is accepted here.
            guard ["PATCH", "PUT"].contains(request.method), isBroken.withLock({ $0 }) else { return nil }
            return [.reply(307, ["Location": elsewhere])]
        })
        defer { registry.server.stop() }
        _ = try makeClient().beginUpload(RemoteRepository(domain: other.server.host, name: "team/app"))
        let sent = try put(try destination(registry), outgoing(Self.blob, isKnown: isKnown))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
    }

    // MARK: Tokens

    /// Tokens are requested with the right to push, and renewed if they expire during the push.
    @Test func tokensThatExpire() throws {
        let issued = Mutex(0)
        let tokens = ScriptedServer { request in
            let number = issued.withLock {
                $0 += 1; return $0
            }
            #expect(request.query.contains("scope=repository%3Ateam%2Fapp%3Apull%2Cpush"))
            return [.reply(200, ["Content-Type": "application/json"], Array(#"{"token":"t\#(number)","expires_in":3600}"#.utf8))]
        }
        defer { tokens.stop() }
        let used = Mutex(0)
        let registry = FakeRegistry(script: { request in
            // Each token is valid for two requests.
            let valid = used.withLock { "Bearer t\($0 / 2 + 1)" }
            if request.headers["authorization"] == valid {
                used.withLock { $0 += 1 }
                return nil
            }
            return [
                .reply(
                    401, ["WWW-Authenticate": #"Bearer realm="http://\#(tokens.host)/token",service="s",scope="repository:team/app:pull""#])
            ]
        })
        defer { registry.server.stop() }
        let target = try destination(registry)
        for isKnown in [false, true] {
            let sent = try put(target, outgoing(Self.blob, isKnown: isKnown))
            #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
        }
        #expect(issued.withLock { $0 } >= 3)
    }

    // MARK: Mounting

    @Test func mounting() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        registry.add(Self.blob, to: "other/image")
        let target = try destination(registry)
        let blob = Descriptor(mediaType: "", digest: .of(Self.blob), size: 3_000_000)
        let source = try RegistryReference(parsing: "\(registry.server.host)/other/image:v1")
        #expect(try !target.hasBlob(blob))
        #expect(try target.mountBlob(blob, from: source))
        #expect(try target.hasBlob(blob))
        #expect(registry.contents.received == 0)
        #expect(try !target.mountBlob(blob, from: try RegistryReference(parsing: "example.org/other/image:v1")))
    }

    /// The upload that a registry starts instead of a mount is used; no other one is started.
    @Test func aMountThatIsRefused() throws {
        let registry = FakeRegistry(mounts: false)
        defer { registry.server.stop() }
        let target = try destination(registry)
        let blob = Descriptor(mediaType: "", digest: .of(Self.blob), size: 3_000_000)
        #expect(try !target.hasBlob(blob))
        #expect(try !target.mountBlob(blob, from: try RegistryReference(parsing: "\(registry.server.host)/other/image:v1")))
        _ = try target.putBlob(outgoing(Self.blob, isKnown: true))
        #expect(registry.count("POST", "uploads") == 1)
        #expect(registry.contents.blobs["team/app@\(blob.digest)"] == Self.blob)
    }

    @Test func aBlobOfAnotherSizeIsNotTheBlob() throws {
        let registry = FakeRegistry()
        defer { registry.server.stop() }
        registry.add(Self.blob, to: "team/app")
        let target = try destination(registry)
        let error = registryError { _ = try target.hasBlob(Descriptor(mediaType: "", digest: .of(Self.blob), size: 5)) }
        #expect(error?.kind == .sizeMismatch)
    }

    /// Registries, or proxies in front of them, that do not answer the question: the blob is sent.
    @Test(arguments: [400, 403, 405, 410, 501, 200])
    func noAnswerToTheQuestion(status: Int) throws {
        let registry = FakeRegistry(script: { request in
            request.method == "HEAD" ? [.reply(status, status == 200 ? ["Content-Length": "0"] : [:])] : nil
        })
        defer { registry.server.stop() }
        let target = try destination(registry)
        #expect(try !target.hasBlob(Descriptor(mediaType: "", digest: .of(Self.blob), size: UInt64(Self.blob.count))))
    }

    /// Registries that do not support mounts, and say so.
    @Test(arguments: [400, 403, 405, 501])
    func mountsThatAreNotKnown(status: Int) throws {
        let registry = FakeRegistry(script: { $0.query.contains("mount=") ? [.reply(status)] : nil })
        defer { registry.server.stop() }
        let target = try destination(registry)
        let blob = Descriptor(mediaType: "", digest: .of(Self.blob), size: UInt64(Self.blob.count))
        #expect(try !target.mountBlob(blob, from: try RegistryReference(parsing: "\(registry.server.host)/other/app:v1")))
        _ = try target.putBlob(outgoing(Self.blob, isKnown: true))
        #expect(registry.contents.blobs["team/app@\(blob.digest)"] == Self.blob)
    }

    // MARK: Manifests

    private func manifest(subject: ContentDigest? = nil) throws -> Manifest {
        let subject = subject.map {
            #","subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\#($0)","size":2}"#
        }
        let empty = #"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"\#(ContentDigest.of(Array("{}".utf8)))","size":2}"#
        let type = "application/vnd.oci.image.manifest.v1+json"
        return try Manifest(
            parsing: Array(
                #"{"schemaVersion":2,"mediaType":"\#(type)","artifactType":"a/b","config":\#(empty),"layers":[\#(empty)]\#(subject ?? "")}"#
                    .utf8
            ))
    }

    @Test func manifestsByTagAndDigest() throws {
        let registry = FakeRegistry(script: { $0.method == "PUT" && $0.number == 0 ? [.reply(503)] : nil })
        defer { registry.server.stop() }
        let manifest = try manifest()
        let digest = ContentDigest.of(manifest.bytes)
        let target = try destination(registry)
        try target.putManifest(manifest, digest: digest, isNamed: false)
        #expect(registry.contents.manifests["team/app:\(digest)"] == manifest.bytes)
        #expect(registry.contents.manifests["team/app:v1"] == nil)
        try target.putManifest(manifest, digest: digest, isNamed: true)
        #expect(registry.contents.manifests["team/app:v1"] == manifest.bytes)
        #expect(registry.server.requests.last?.headers["content-type"] == "application/vnd.oci.image.manifest.v1+json")
    }

    @Test func aRegistryThatStoresSomethingElse() throws {
        let registry = FakeRegistry(script: { request in
            request.method == "PUT" ? [.reply(201, ["Docker-Content-Digest": ContentDigest.of([1] as [UInt8]).description])] : nil
        })
        defer { registry.server.stop() }
        let manifest = try manifest()
        let target = try destination(registry)
        let error = registryError { try target.putManifest(manifest, digest: .of(manifest.bytes), isNamed: true) }
        #expect(error?.kind == .digestMismatch)
    }

    /// For registries without the referrers API the client keeps the index under the subject's tag.
    @Test func referrersByTag() throws {
        for tellsSubject in [true, false] {
            let registry = FakeRegistry(tellsSubject: tellsSubject)
            defer { registry.server.stop() }
            let subject = ContentDigest.of(Array("subject".utf8))
            let manifest = try manifest(subject: subject)
            let digest = ContentDigest.of(manifest.bytes)
            let target = try destination(registry)
            for _ in 0..<2 { try target.putManifest(manifest, digest: digest, isNamed: false) }
            let found = try target.client.referrers(of: subject, in: target.reference)
            #expect(found.map(\.digest) == (tellsSubject ? [] : [digest]))
            #expect(found.first?.artifactType == (tellsSubject ? nil : "a/b"))
        }
    }

    // MARK: Waiting

    private func isUpload(_ request: ScriptedServer.Request) -> Bool { request.path.contains("/uploads/u") }

    /// A registry that receives a blob and then does not respond.
    @Test(arguments: [true, false]) func noAnswerEnds(isKnown: Bool) throws {
        let registry = FakeRegistry(script: { request in
            ["PUT", "PATCH"].contains(request.method) && request.path.contains("/uploads/u") ? [.pause(.seconds(3)), .close] : nil
        })
        defer { registry.server.stop() }
        let to = try destination(registry) {
            $0.requestTimeout = .milliseconds(300)
            $0.retry.limit = 1
        }
        let started = ContinuousClock.now
        let error = registryError { _ = try put(to, outgoing(Self.blob, isKnown: isKnown)) }
        #expect(ContinuousClock.now - started < .seconds(2.5))
        #expect(error?.kind == .timeout)
        #expect(error?.description.contains("no response within 0.3 s after everything was sent") == true, "\(error?.description ?? "")")
        // It was tried again, as the policy says.
        #expect(registry.server.requests.count { ["PUT", "PATCH"].contains($0.method) && isUpload($0) } == 2)
    }

    /// A registry may need longer to check a blob than a transfer may stall.
    @Test(arguments: [true, false]) func aRegistryMayThink(isKnown: Bool) throws {
        let registry = FakeRegistry(script: { request in
            // The handler's own thread: the correct response comes late.
            if ["PUT", "PATCH"].contains(request.method), request.path.contains("/uploads/u") { usleep(900_000) }
            return nil
        })
        defer { registry.server.stop() }
        let to = try destination(registry) {
            $0.stallTimeout = .milliseconds(200)
            $0.retry.limit = 0
        }
        let sent = try put(to, outgoing(Self.blob, isKnown: isKnown))
        #expect(registry.contents.blobs["team/app@\(sent.digest)"] == Self.blob)
    }

    /// A registry that stops reading in the middle of a blob.
    @Test(arguments: [true, false]) func aRegistryThatStopsReadingIsLeft(isKnown: Bool) throws {
        // More than fits into both socket buffers and the ring buffer.
        let large = [UInt8](repeating: 0x5a, count: 24 << 20)
        let registry = FakeRegistry(
            breaking: { ["PUT", "PATCH"].contains($0.method) && $0.path.contains("/uploads/u") ? 100_000 : nil },
            script: { request in
                request.isBroken ? [.pause(.seconds(4)), .close] : nil
            })
        defer { registry.server.stop() }
        let to = try destination(registry) {
            $0.stallTimeout = .milliseconds(300)
            $0.retry.limit = 1
        }
        let started = ContinuousClock.now
        let error = registryError { _ = try put(to, outgoing(large, isKnown: isKnown)) }
        #expect(ContinuousClock.now - started < .seconds(3.5))
        #expect(error?.kind == .timeout)
        #expect(error?.description.contains("the server accepted almost nothing for 0.3 s") == true, "\(error?.description ?? "")")
        #expect(registry.server.requests.count { ["PUT", "PATCH"].contains($0.method) && isUpload($0) } == 2)
    }
}
