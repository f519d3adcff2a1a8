import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTestSupport
import ComposefsTransfer
import ComposefsTransports
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

/// Whole pulls from registries that misbehave: what comes of the pull, what the store is like afterwards, and what the server saw.
///
/// | behaviour | here | in detail |
/// | --- | --- | --- |
/// | token expires in the middle of a pull | `tokensExpire` | AuthenticationTests `tokenExpiresInTheMiddleOfABlob`, `rejectedTokenIsRenewed`, `expiredTokenIsRenewedBeforeItsUse`, `manyThreadsFetchOneToken` |
/// | 401 for ever | `endless401` | AuthenticationTests `endless401Ends`, `wrongPassword` |
/// | 429 with Retry-After | `rateLimits` | BlobTests `retryAfterIsHonoured`, `retryAfterTooLong`; PartsTests `retryAfter` |
/// | 503 twice, then good | `unavailableTwice` | BlobTests `unavailableTwice`; ManifestTests `retriedStatuses`; PatienceTests `triedAgain` |
/// | reset after N bytes | `breaks` | BlobTests `continuesAfterBreaks`, `givesUpWhereNothingMovesOn` |
/// | stall | `stall` | BlobTests `stalls` |
/// | wrong length, both ways | `wrongLength` | BlobTests `announcedLengthIsNotTheDescriptors`, `longerWithoutAnnouncement`, `shorterWithoutAnnouncement` |
/// | wrong digest | `wrongLayer`, `wrongManifest` | ManifestTests `wrongDigestField`, `wrongContentForDigest` |
/// | redirect to another host | `redirects` | BlobTests `redirectToAnotherHostGetsNoCredentials`, `errorsAfterARedirectHideItsQuery`, `redirectLoop` |
/// | huge headers | `hugeHeaders` | BlobTests `hugeHeaders` |
/// | slow loris | `slowLoris` | BlobTests `trickle`; PatienceTests `slowAnswers` |
/// | gzip content-encoding | `encodedManifest`, `encodedBlobs` | |
/// | HTTP/1.1 and HTTP/2 | all of this is 1.1 | RealRegistryTests `tlsWithPassword` reads over both |
/// | ranges refused | `rangesRefused` | BlobTests `serverIgnoresRange`, `rangeNotSatisfiable`; PatienceTests `rangesRefused` |
/// | 206 with another range | `wrongRange` | BlobTests `wrongRangeIsNotTaken`, `unwantedPartIsRefused`, `rangeInParts` |
/// | manifest with the wrong media type | `mediaTypes` | ImageSourceTests |
/// | no Docker-Content-Digest | `noDigestField` | ManifestTests `digestFieldMayBeMissing` |
/// | the tag moves in the middle of a pull | `tagMoves` | |
/// | HTML instead of JSON, with status 200 | `captivePortal` | |
/// | cut and flipped answers | | HostileTests |
@Suite struct MisbehavingRegistryTests {
    private let image = TestImage.shared

    private struct Pulled {
        var result: Result<PullResult, any Error>
        var requests: [ScriptedServer.Request]
        /// The registry's error, wherever it is nested.
        var registryError: RegistryError?
        var pullError: PullError?

        func requests(to path: String) -> [ScriptedServer.Request] { requests.filter { $0.path == path } }
    }

    /// Pulls from a server with this handler; requests for which it returns nil get the correct response. Then checks the store.
    private func pull(
        tag: String = "v1", _ adjust: (inout RegistryOptions) -> Void = { _ in },
        _ handler: @escaping @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]?
    ) throws -> Pulled {
        let server = ScriptedServer { [image] in handler($0) ?? image.answer($0) }
        defer { server.stop() }
        return try withTemporaryDirectory { directory in
            let made = try Repository.initialize(ByteString(directory + "/repo"), RepositoryConfiguration(verity: .insecure))
            let repository = made.repository
            let reference = try RegistryReference(parsing: "\(server.host)/team/app" + (tag.contains(":") ? "@" : ":") + tag)
            let client = try makeClient([:], adjust)
            var pulled = Pulled(result: .failure(CancellationError()), requests: [])
            do {
                pulled.result = .success(
                    try pullImage(from: RegistryImageSource(reference, client: client), into: repository, PullOptions(jobs: 2)))
            } catch {
                pulled.result = .failure(error)
                var cause = error
                while case .layer(_, _, _, let inner)? = cause as? PullError { cause = inner }
                pulled.registryError = cause as? RegistryError
                pulled.pullError = cause as? PullError
                // The message is one line without control characters.
                #expect(!"\(error)".contains("\n") && !"\(error)".contains("s3cret"))
            }
            pulled.requests = server.requests
            let store = ImageStore(repository)
            #expect(try repository.check().isOK)
            #expect(try store.check().isClean)
            switch pulled.result {
            case .success(let result):
                #expect(result.manifestDigest == image.digest)
                #expect(result.newLayers == image.layers.count)
                #expect(try store.tags().map(\.manifestDigest) == [image.digest])
            case .failure: #expect(try store.tags().isEmpty)
            }
            return pulled
        }
    }

    private func expectSuccess(_ pulled: Pulled) { #expect(throws: Never.self) { try pulled.result.get() } }

    private var manifestPath: String { "/v2/team/app/manifests/v1" }

    // MARK: Tokens

    @Test func tokensExpire() throws {
        // Each token is valid for two requests, and every response with a layer breaks off once.
        let uses = Mutex<[String: Int]>([:])
        let pulled = try pull { [image] request in
            if request.path == "/token" { return [.reply(200, [:], Array(#"{"token":"t\#(request.number)","expires_in":300}"#.utf8))] }
            let token = request.headers["authorization"]
            let count = uses.withLock { uses -> Int in
                uses[token ?? "", default: 0] += 1
                return uses[token ?? "", default: 0]
            }
            guard token != nil, count <= 2 else {
                let realm = "http://\(request.headers["host"] ?? "")/token"
                let scope = "repository:team/app:pull"
                return [.reply(401, ["WWW-Authenticate": #"Bearer realm="\#(realm)",service="s",scope="\#(scope)",error="invalid_token""#])]
            }
            guard let blob = image.blob(request.path), request.rangeStart == 0, blob.count > 100_000 else { return nil }
            return image.part(of: blob, request, first: 50_000, then: .close)
        }
        expectSuccess(pulled)
        let tokens = pulled.requests(to: "/token")
        #expect(tokens.count >= 3)
        #expect(tokens.allSatisfy { $0.query == "service=s&scope=repository%3Ateam%2Fapp%3Apull" })
        // No thread keeps using a rejected token: each was sent at most once more, by a concurrent request.
        #expect(uses.withLock { $0.filter { !$0.key.isEmpty }.values.allSatisfy { $0 <= 4 } })
        // Bytes that arrived before the token was rejected were not sent again.
        for index in 0..<2 {
            #expect(pulled.requests(to: image.path(ofLayer: index)).filter { $0.rangeStart > 0 }.allSatisfy { $0.rangeStart == 50_000 })
        }
    }

    @Test(arguments: [true, false])
    func endless401(bearer: Bool) throws {
        let pulled = try pull {
            $0.credentials = .password(user: "u", password: "s3cret")
        } _: { request in
            if request.path == "/token" { return [.reply(200, [:], Array(#"{"token":"t\#(request.number)"}"#.utf8))] }
            let realm = "http://\(request.headers["host"] ?? "")/token"
            return [.reply(401, ["WWW-Authenticate": bearer ? #"Bearer realm="\#(realm)""# : #"Basic realm="x""#])]
        }
        #expect(pulled.registryError?.kind == .unauthorized)
        #expect(pulled.registryError?.description.contains("the given credentials are not accepted") == true)
        #expect(pulled.requests(to: manifestPath).count <= 3)
        #expect(pulled.requests(to: "/token").count <= 2)
    }

    // MARK: Later, please

    @Test func rateLimits() throws {
        let started = ContinuousClock.now
        let pulled = try pull { request in
            request.number == 0 && request.path.contains("/blobs/") ? [.reply(429, ["Retry-After": "1"])] : nil
        }
        expectSuccess(pulled)
        for index in image.layers.indices { #expect(pulled.requests(to: image.path(ofLayer: index)).count == 2) }
        // The config first, then at least two rounds of layers: each waited.
        #expect(ContinuousClock.now - started >= .seconds(2))
    }

    @Test func unavailableTwice() throws {
        let pulled = try pull { request in request.number < 2 ? [.reply(503, [:], Array("<html>busy</html>".utf8))] : nil }
        expectSuccess(pulled)
        let paths = Set(pulled.requests.map(\.path))
        #expect(paths.count == 5)
        for path in paths { #expect(pulled.requests(to: path).count == 3) }
    }

    // MARK: Broken transfers

    @Test(arguments: [true, false])
    func breaks(byReset: Bool) throws {
        let pulled = try pull { [image] request in
            image.blob(request.path).map { image.part(of: $0, request, first: 80_000, then: byReset ? .reset : .close) }
        }
        expectSuccess(pulled)
        for (index, layer) in image.layers.enumerated() {
            let starts = pulled.requests(to: image.path(ofLayer: index)).map(\.rangeStart)
            #expect(starts == starts.sorted())
            // With normal closes each byte was sent once; a reset may discard what the kernel still held.
            if !byReset { #expect(starts == Array(stride(from: 0, to: layer.count, by: 80_000))) }
        }
    }

    @Test func stall() throws {
        let path = image.path(ofLayer: 0)
        let pulled = try pull {
            $0.stallTimeout = .milliseconds(300)
        } _: { [image] request in
            guard request.path == path, request.number == 0 else { return nil }
            return image.part(of: image.layers[0], request, first: 400_000, then: .pause(.seconds(2)))
        }
        expectSuccess(pulled)
        #expect(pulled.requests(to: path).map(\.rangeStart) == [0, 400_000])
    }

    @Test func slowLoris() throws {
        let drip = (0..<200).flatMap { _ in [ScriptedServer.Action.pause(.milliseconds(20)), .send(Array("X: y\r\n".utf8))] }
        let head = try pull {
            $0.requestTimeout = .milliseconds(300)
            $0.retry.limit = 1
        } _: { request in
            [.send(Array("HTTP/1.1 200 OK\r\n".utf8))] + drip
        }
        #expect(head.registryError?.kind == .timeout)
        #expect(head.requests.map(\.path) == [manifestPath, manifestPath])
        let path = image.path(ofLayer: 2)
        let body = try pull {
            $0.stallTimeout = .milliseconds(150)
            $0.retry.limit = 1
        } _: { request in
            guard request.path == path else { return nil }
            let drops = (0..<40).flatMap { _ in [ScriptedServer.Action.pause(.milliseconds(20)), .send([0])] }
            return [.send(Array("HTTP/1.1 200 OK\r\nContent-Length: 91648\r\n\r\n".utf8))] + drops + [.close]
        }
        #expect(body.registryError?.kind == .timeout)
        #expect(body.requests(to: path).count == 2)
    }

    // MARK: Wrong content

    /// Longer or shorter, announced or not: one request, since another one would return the same.
    @Test(arguments: [-1, 1, -90_000, 90_000], [true, false])
    func wrongLength(difference: Int, isAnnounced: Bool) throws {
        let path = image.path(ofLayer: 1)
        let pulled = try pull { [image] request in
            guard request.path == path else { return nil }
            let wrong = Array((image.layers[1] + pattern(90_000)).prefix(image.layers[1].count + difference))
            return [isAnnounced ? .reply(200, [:], wrong) : .chunked([:], wrong)]
        }
        #expect(pulled.registryError?.kind == .sizeMismatch)
        guard case .blobSize(_, _, let expected)? = pulled.registryError?.reason else {
            Issue.record("another error: \(String(describing: pulled.registryError))")
            return
        }
        #expect(expected == UInt64(image.layers[1].count))
        #expect(pulled.requests(to: path).count == 1)
    }

    @Test func wrongLayer() throws {
        let path = image.path(ofLayer: 1)
        let pulled = try pull { [image] request in
            guard request.path == path else { return nil }
            var wrong = image.layers[1]
            wrong[200_000] ^= 1
            return [image.part(of: wrong, request)]
        }
        if case .blobDigest(let digest)? = pulled.pullError {
            #expect(digest == .of(image.layers[1]))
        } else {
            Issue.record("\(pulled.result)")
        }
        #expect(pulled.requests(to: path).count == 1)
    }

    @Test func wrongManifest() throws {
        let other = TestImage(sizes: [10])
        // By tag, with the digest of the correct content; by digest, as if it were correct.
        let byTag = try pull { [image] request in
            guard request.path.contains("/manifests/") else { return nil }
            return [
                .reply(200, ["Content-Type": TestImage.manifestType, "Docker-Content-Digest": image.digest.description], other.manifest)
            ]
        }
        #expect(byTag.registryError?.kind == .digestMismatch)
        let byDigest = try pull(tag: image.digest.description) { request in
            guard request.path.contains("/manifests/") else { return nil }
            return [
                .reply(200, ["Content-Type": TestImage.manifestType, "Docker-Content-Digest": other.digest.description], other.manifest)
            ]
        }
        #expect(byDigest.registryError?.kind == .digestMismatch)
        for pulled in [byTag, byDigest] { #expect(pulled.requests.count == 1) }
    }

    // MARK: Elsewhere

    @Test func redirects() throws {
        let storage = ScriptedServer { [image] in image.answer($0) }
        defer { storage.stop() }
        let pulled = try pull {
            $0.credentials = .password(user: "u", password: "s3cret")
        } _: { request in
            guard request.headers["authorization"] == "Basic dTpzM2NyZXQ=" else {
                return [.reply(401, ["WWW-Authenticate": #"Basic realm="x""#, "Set-Cookie": "session=s3cret"])]
            }
            guard request.path.contains("/blobs/") else { return nil }
            return [.reply(307, ["Location": "http://\(storage.host)\(request.path)?signature=abc", "Set-Cookie": "session=s3cret"])]
        }
        expectSuccess(pulled)
        #expect(storage.requests.count == 4)
        for request in storage.requests {
            #expect(request.headers["authorization"] == nil && request.headers["cookie"] == nil && request.headers["referer"] == nil)
            #expect(request.query == "signature=abc")
        }
    }

    @Test func hugeHeaders() throws {
        let pulled = try pull { _ in
            let lines = (0..<90).map { "X-\($0): " + String(repeating: "a", count: 1000) + "\r\n" }.joined()
            return [.send(Array(("HTTP/1.1 200 OK\r\n" + lines + "Content-Length: 0\r\n\r\n").utf8))]
        }
        #expect(pulled.registryError?.kind == .badResponse)
        #expect(pulled.requests.count == 1)
    }

    // MARK: Encodings and types

    /// The server compresses documents although the request asks for identity.
    @Test func encodedManifest() throws {
        let good = try pull { [image] request in
            #expect(request.headers["accept-encoding"] == "identity")
            guard request.path.contains("/manifests/") else { return nil }
            let headers = ["Content-Type": TestImage.manifestType, "Docker-Content-Digest": image.digest.description]
            return [.reply(200, headers.merging(["Content-Encoding": "gzip"]) { $1 }, gzipped(image.manifest))]
        }
        expectSuccess(good)
        // The header says gzip, but the body is not.
        let plain = try pull { [image] request in
            guard request.path.contains("/manifests/") else { return nil }
            return [.reply(200, ["Content-Type": TestImage.manifestType, "Content-Encoding": "gzip"], image.manifest)]
        }
        expectSuccess(plain)
        // Truncated, and much larger than it seems.
        let bomb = gzipped([UInt8](repeating: 0x20, count: (4 << 20) + 1))
        for (body, kind) in [(Array(gzipped(image.manifest).dropLast(4)), RegistryError.Kind.badResponse), (bomb, .tooLarge)] {
            let bad = try pull { request in
                guard request.path.contains("/manifests/") else { return nil }
                return [.reply(200, ["Content-Type": TestImage.manifestType, "Content-Encoding": "gzip"], body)]
            }
            #expect(bad.registryError?.kind == kind)
        }
    }

    /// Blob storages often label compressed layers so: the bytes are used as they are. Bytes that really differ are an error.
    @Test func encodedBlobs() throws {
        let named = try pull { [image] request in
            image.blob(request.path).map { [.reply(200, ["Content-Encoding": "gzip"], $0)] }
        }
        expectSuccess(named)
        let packed = try pull { [image] request in
            image.blob(request.path).map { [.reply(200, ["Content-Encoding": "gzip"], gzipped($0))] }
        }
        #expect(packed.registryError?.kind == .sizeMismatch)
    }

    @Test(arguments: [
        ("application/vnd.oci.image.index.v1+json", false), ("application/vnd.docker.distribution.manifest.v1+prettyjws", false),
        ("application/vnd.oci.image.layer.v1.tar", false), ("application/json", true), ("text/plain; charset=utf-8", true),
        // From a file server without media types: the document is a manifest all the same.
        ("text/html", true),
        ("", true),
    ])
    func mediaTypes(type: String, isTaken: Bool) throws {
        let pulled = try pull { [image] request in
            request.path.contains("/manifests/") ? [.reply(200, type.isEmpty ? [:] : ["Content-Type": type], image.manifest)] : nil
        }
        if isTaken {
            expectSuccess(pulled)
        } else {
            #expect(throws: OCIError.self) { try pulled.result.get() }
            #expect(pulled.requests.count == 1)
        }
    }

    @Test func noDigestField() throws {
        for tag in ["v1", image.digest.description] {
            let pulled = try pull(tag: tag) { [image] request in
                request.path.contains("/manifests/") ? [.reply(200, ["Content-Type": TestImage.manifestType], image.manifest)] : nil
            }
            expectSuccess(pulled)
        }
    }

    @Test func captivePortal() throws {
        let page = Array("<!DOCTYPE html><title>Log in</title>".utf8)
        let pulled = try pull { _ in [.reply(200, ["Content-Type": "text/html"], page)] }
        #expect(pulled.registryError?.kind == .badResponse)
        #expect(pulled.requests.count == 1)
    }

    // MARK: Ranges

    @Test(arguments: [416, 200])
    func rangesRefused(status: Int) throws {
        let path = image.path(ofLayer: 0)
        let pulled = try pull { [image] request in
            guard request.path == path else { return nil }
            if request.headers["range"] != nil { return [.reply(status, [:], status == 200 ? image.layers[0] : [])] }
            return request.number == 0 ? image.part(of: image.layers[0], request, first: 300_000, then: .close) : nil
        }
        expectSuccess(pulled)
        let ranges = pulled.requests(to: path).map { $0.headers["range"] != nil }
        #expect(ranges == (status == 200 ? [false, true] : [false, true, false]))
    }

    @Test func wrongRange() throws {
        let path = image.path(ofLayer: 0)
        let pulled = try pull { [image] request in
            guard request.path == path else { return nil }
            let layer = image.layers[0]
            if request.headers["range"] != nil {
                return [.reply(206, ["Content-Range": "bytes 0-\(layer.count - 1)/\(layer.count)"], layer)]
            }
            return request.number == 0 ? image.part(of: layer, request, first: 300_000, then: .close) : nil
        }
        expectSuccess(pulled)
        #expect(pulled.requests(to: path).map(\.rangeStart) == [0, 300_000, 0])
    }

    // MARK: Changes

    /// The tag names another image at the second request: it is requested only once.
    @Test func tagMoves() throws {
        let other = TestImage(sizes: [10])
        let pulled = try pull { request in
            guard request.path.contains("/manifests/"), request.number > 0 else { return nil }
            return [.reply(200, ["Content-Type": TestImage.manifestType], other.manifest)]
        }
        expectSuccess(pulled)
        #expect(pulled.requests(to: manifestPath).count == 1)
    }
}
