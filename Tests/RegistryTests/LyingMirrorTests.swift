import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTestSupport
import ComposefsTransfer
import ComposefsTransports
import Glibc
import Synchronization
import Testing

@testable import ComposefsRegistry

/// Whole pulls from a mirror that sends wrong content: the next endpoint is tried, in order, and no wrong byte stays.
@Suite struct LyingMirrorTests {
    private let image = TestImage.shared

    typealias Answers = @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]?

    private struct Pulled {
        var result: Result<PullResult, any Error>
        var events: [PullEvent]
        var warnings: [String]

        /// Why layers were fetched again.
        var reasons: [String] {
            events.compactMap { if $0.layerIndex != nil, case .retrying(let reason, _) = $0.phase { reason } else { nil } }
        }
    }

    private func server(_ answers: @escaping Answers = { _ in nil }) -> ScriptedServer {
        ScriptedServer { [image] request in answers(request) ?? image.answer(request) }
    }

    /// The layer's bytes with one of them changed, as the response to each request for the layer.
    private func damaging(_ index: Int, at position: Int = 200_000) -> Answers {
        { [image] request in
            guard request.path == image.path(ofLayer: index) else { return nil }
            var wrong = image.layers[index]
            wrong[position] ^= 1
            return [image.part(of: wrong, request)]
        }
    }

    private func pull(
        _ servers: [ScriptedServer], reference: String = "a.example/team/app:v1", into directory: String,
        before prepare: (Repository) throws -> Void = { _ in }
    ) throws -> Pulled {
        let primary = try #require(servers.last)
        try writeFile(
            directory + "/registries.conf",
            "[[registry]]\nprefix = \"a.example\"\nlocation = \"\(primary.host)\"\n"
                + servers.dropLast().map { "[[registry.mirror]]\nlocation = \"\($0.host)\"\n" }.joined())
        let repository = try Repository.initialize(ByteString(directory + "/repo"), RepositoryConfiguration(verity: .insecure)).repository
        try prepare(repository)
        let (events, warnings) = (Log<PullEvent>(), Log<String>())
        let client = try makeClient {
            $0.registriesConfiguration = ByteString(directory + "/registries.conf")
            $0.warn = { warnings.add($0) }
        }
        let source = RegistryImageSource(try RegistryReference(parsing: reference), client: client)
        let result = Result { try pullImage(from: source, into: repository, PullOptions(jobs: 1, observer: { events.add($0) })) }
        #expect(try repository.check().isOK)
        #expect(try ImageStore(repository).check().isClean)
        return Pulled(result: result, events: events.all, warnings: warnings.all)
    }

    final class Log<Entry: Sendable>: Sendable {
        private let entries = Mutex<[Entry]>([])
        func add(_ entry: Entry) { entries.withLock { $0.append(entry) } }
        var all: [Entry] { entries.withLock { $0 } }
    }

    @Test func aDamagedLayerComesFromTheNextMirror() throws {
        let (first, second, primary) = (server(damaging(1)), server(), server())
        defer { for server in [first, second, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([first, second, primary], into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(first.requests(to: image.path(ofLayer: 1)).count == 1)
            #expect(second.requests(to: image.path(ofLayer: 1)).count == 1)
            // From the beginning: the first mirror's bytes are not the beginning of the layer.
            #expect(second.requests(to: image.path(ofLayer: 1)).allSatisfy { $0.headers["range"] == nil })
            // A mirror that sent wrong content is not asked again: the smallest layer comes last.
            #expect(first.requests(to: image.path(ofLayer: 2)).isEmpty)
            #expect(primary.requests.isEmpty)
            #expect(pulled.reasons.count == 1 && pulled.reasons.allSatisfy { $0.contains("\(first.host)/team/app") })
            #expect(pulled.reasons.first?.contains("has another digest") == true)
            #expect(pulled.warnings.count == 1 && pulled.warnings.first?.contains("\(first.host)/team/app") == true)
        }
    }

    /// A tar archive that cannot be parsed differs from a damaged one only at its end. The pull does not wait for it.
    @Test(arguments: [0, 130, 260]) func aDamagedHeaderComesFromTheNext(position: Int) throws {
        let (mirror, primary) = (server(damaging(0, at: position)), server())
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([mirror, primary], into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(primary.requests(to: image.path(ofLayer: 0)).count == 1)
        }
    }

    @Test func allMirrorsLieAndTheRegistryDoesNot() throws {
        let (first, second, primary) = (server(damaging(1)), server(damaging(1, at: 1000)), server())
        defer { for server in [first, second, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([first, second, primary], into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(pulled.reasons.count == 2)
            #expect(pulled.reasons.last?.contains("\(second.host)/team/app") == true)
        }
    }

    @Test func theRegistryItselfIsTheLast() throws {
        let (mirror, primary) = (server(damaging(1)), server(damaging(1)))
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([mirror, primary], into: directory)
            let error = #expect(throws: PullError.self) { try pulled.result.get() }
            #expect(error?.description.contains("another digest") == true)
            #expect(primary.requests(to: image.path(ofLayer: 1)).count == 1)
        }
    }

    @Test func aDamagedConfigComesFromTheNext() throws {
        let mirror = server { [image] request in
            guard request.path.hasSuffix("\(ContentDigest.of(image.config))") else { return nil }
            return [.reply(200, [:], image.config.dropLast() + [0x20])]
        }
        let primary = server()
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([mirror, primary], into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(pulled.warnings.count == 1 && pulled.warnings.first?.contains("\(mirror.host)/team/app") == true)
        }
    }

    @Test(arguments: [true, false]) func aWrongManifestComesFromTheNext(byDigest: Bool) throws {
        let other = TestImage(sizes: [10])
        let mirror = server { [image] request in
            guard request.path.contains("/manifests/") else { return nil }
            // By tag, the server itself announces another digest.
            let digest = byDigest ? other.digest : image.digest
            return [
                .reply(200, ["Content-Type": TestImage.manifestType, "Docker-Content-Digest": digest.description], other.manifest)
            ]
        }
        let primary = server()
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let name = byDigest ? "a.example/team/app@\(image.digest)" : "a.example/team/app:v1"
            let pulled = try pull([mirror, primary], reference: name, into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(mirror.requests.count == 1)
            #expect(pulled.warnings.count == 1 && pulled.warnings.first?.contains("\(mirror.host)/team/app") == true)
        }
    }

    /// A mirror with wrong content that breaks off: the continuation elsewhere gives a mixture, so the endpoint that continued sends the
    /// whole blob.
    @Test func aMixtureIsFetchedFromOneEndpoint() throws {
        let path = image.path(ofLayer: 0)
        let first = server { [image] request in
            guard request.path == path else { return nil }
            guard request.number == 0 else { return [.reset] }
            var wrong = image.layers[0]
            wrong[600] ^= 1
            return image.part(of: wrong, request, first: 60_000, then: .reset)
        }
        let (second, primary) = (server(), server())
        defer { for server in [first, second, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let pulled = try pull([first, second, primary], into: directory)
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(second.requests(to: path).map { $0.headers["range"] != nil } == [true, false])
            #expect(primary.requests.isEmpty)
        }
    }

    /// The partial blob of an earlier pull from such a mirror is removed too.
    @Test func keptBytesOfALiarAreDropped() throws {
        let (mirror, primary) = (server(damaging(0, at: 600)), server())
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let name = ByteString(ContentDigest.of(image.layers[0]).description)
            let pulled = try pull([mirror, primary], into: directory) { repository in
                let lease = try #require(try repository.leaseBlob(name, size: UInt64(image.layers[0].count)))
                lease.keep(limit: 1 << 30)
                var wrong = Array(image.layers[0][..<300_000])
                wrong[600] ^= 1
                wrong.withUnsafeBytes { lease.append($0) }
            }
            #expect(try pulled.result.get().manifestDigest == image.digest)
            #expect(mirror.requests(to: image.path(ofLayer: 0)).map { $0.headers["range"] != nil } == [true, false])
            #expect(primary.requests(to: image.path(ofLayer: 0)).map { $0.headers["range"] != nil } == [false])
            let repository = try Repository.open(ByteString(directory + "/repo"))
            #expect(repository.partialBlobLength(name) == 0)
        }
    }

    /// A copy without a store drops the mirror as a pull does, and starts the blob anew at the destination.
    @Test func aCopyTakesTheNextMirror() throws {
        let (mirror, primary) = (server(damaging(0)), server())
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let result = try copy([mirror, primary], into: directory)
            #expect(result.digest == image.digest && !result.isIndex)
            #expect(result.blobs.count == 4 && result.blobs.values.allSatisfy { $0 == .sent })
            for blob in image.layers + [image.config, image.manifest] {
                #expect(try read("\(directory)/copy/blobs/sha256/\(ContentDigest.of(blob).hex)") == blob)
            }
            #expect(primary.requests(to: image.path(ofLayer: 0)).count == 1)
            #expect(mirror.requests(to: image.path(ofLayer: 0)).count == 1)
        }
    }

    /// The source is named as the cause, and the destination lists nothing.
    @Test func aCopyOfWrongContent() throws {
        let (mirror, primary) = (server(damaging(2, at: 700)), server(damaging(2, at: 701)))
        defer { for server in [mirror, primary] { server.stop() } }
        try withTemporaryDirectory { directory in
            let error = #expect(throws: PullError.self) { try copy([mirror, primary], into: directory) }
            guard case .blobDigest(let digest)? = error else {
                Issue.record("\(String(describing: error))")
                return
            }
            #expect(digest == .of(image.layers[2]))
            let index = try #require(String(validating: read(directory + "/copy/index.json"), as: UTF8.self))
            #expect(index.contains(#""manifests":[]"#))
        }
    }

    private func read(_ path: String) throws -> [UInt8] {
        try FileDescriptor.open(ByteString(path), .readOnly).readAll(limit: 1 << 20)
    }

    private func copy(_ servers: [ScriptedServer], into directory: String) throws -> IndexCopyResult {
        let primary = try #require(servers.last)
        try writeFile(
            directory + "/registries.conf",
            "[[registry]]\nprefix = \"a.example\"\nlocation = \"\(primary.host)\"\n"
                + servers.dropLast().map { "[[registry.mirror]]\nlocation = \"\($0.host)\"\n" }.joined())
        let client = try makeClient { $0.registriesConfiguration = ByteString(directory + "/registries.conf") }
        let source = RegistryImageSource(try RegistryReference(parsing: "a.example/team/app:v1"), client: client)
        return try copyIndex(
            from: source, to: try LayoutDestination(directory: ImageLocation(directory + "/copy:v1")), IndexCopyOptions(jobs: 1))
    }
}
