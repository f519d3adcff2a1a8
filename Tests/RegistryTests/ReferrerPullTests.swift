import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsTestSupport
import ComposefsTransfer
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsRegistry

/// An image pulled and pushed with its referrers, some of which cannot be fetched or are refused: the image is complete all the same.
@Suite struct ReferrerPullTests {
    private static let image = TestImage.shared
    private static let empty = Array("{}".utf8)
    private static let note = Array("a bill of materials".utf8)
    private static let indexType = "application/vnd.oci.image.index.v1+json"

    private static func descriptor(_ type: String, _ bytes: [UInt8], _ more: String = "") -> String {
        #"{"mediaType":"\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)\#(more)}"#
    }

    private static func artifact(
        _ name: String, of subject: [UInt8], _ type: String = TestImage.manifestType, blob: [UInt8] = note
    ) -> [UInt8] {
        let empty = descriptor("application/vnd.oci.empty.v1+json", empty)
        return Array(
            #"{"schemaVersion":2,"mediaType":"\#(TestImage.manifestType)","artifactType":"a/\#(name)","config":\#(empty),"layers":[\#(descriptor("text/plain", blob))],"subject":\#(descriptor(type, subject))}"#
                .utf8)
    }

    private static func list(_ artifacts: [[UInt8]]) -> [UInt8] {
        let entries = artifacts.map { descriptor(TestImage.manifestType, $0) }.joined(separator: ",")
        return Array(#"{"schemaVersion":2,"mediaType":"\#(indexType)","manifests":[\#(entries)]}"#.utf8)
    }

    private static let index = Array(
        #"{"schemaVersion":2,"mediaType":"\#(indexType)","manifests":[\#(descriptor(TestImage.manifestType, image.manifest, #","platform":{"os":"\#(Platform.host.os)","architecture":"\#(Platform.host.architecture)"}"#))]}"#
            .utf8)

    /// A registry with an image and artifacts, by their subjects.
    private func serve(
        root: [UInt8] = image.manifest, _ referrers: [(subject: [UInt8], artifacts: [[UInt8]])],
        instead script: @escaping @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]? = { _ in nil }
    ) -> ScriptedServer {
        let documents = [root, Self.image.manifest] + referrers.flatMap(\.artifacts)
        return ScriptedServer { request in
            if let actions = script(request) { return actions }
            if request.path.contains("/referrers/") {
                let found = referrers.first { request.path.hasSuffix("\(ContentDigest.of($0.subject))") }
                return [.reply(200, ["Content-Type": Self.indexType], Self.list(found?.artifacts ?? []))]
            }
            if request.path.hasSuffix("/manifests/v1") { return [.reply(200, [:], root)] }
            let all = documents + [Self.empty, Self.note, Self.image.config] + Self.image.layers
            return [all.first { request.path.hasSuffix("/\(ContentDigest.of($0))") }.map { .reply(200, [:], $0) } ?? .reply(404)]
        }
    }

    private func pull(
        _ server: ScriptedServer, keepsBlobs: Bool = false, _ body: (PullResult, ImageStore) throws -> Void
    ) throws {
        defer { server.stop() }
        try withTemporaryDirectory { directory in
            let repository = try Repository.initialize(
                ByteString(directory + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
            ).repository
            var options = PullOptions(name: "image")
            options.storesReferrers = true
            options.keepsBlobs = keepsBlobs
            let source = RegistryImageSource(
                try RegistryReference(parsing: "\(server.host)/team/app:v1"), client: try makeClient { $0.retry.limit = 1 })
            let result = try pullImage(from: source, into: repository, options)
            let store = ImageStore(repository)
            #expect(result.manifestDigest == Self.image.digest)
            #expect(try store.open("image").image.manifestDigest == Self.image.digest)
            try body(result, store)
        }
    }

    @Test func ofTheManifest() throws {
        let artifact = Self.artifact("one", of: Self.image.manifest)
        try pull(serve([(Self.image.manifest, [artifact])])) { result, store in
            #expect(result.referrers == [.of(artifact)] && result.referrersUnavailable.isEmpty)
            let recorded = try store.referrers(of: Self.image.digest)
            #expect(recorded == [.of(artifact)])
        }
    }

    /// A referrer that is listed but missing affects neither the others nor the image.
    @Test(arguments: [404, 410, 403, 400, 500])
    func listedAndGone(status: Int) throws {
        let (gone, other) = (Self.artifact("gone", of: Self.image.manifest), Self.artifact("other", of: Self.image.manifest))
        let server = serve([(Self.image.manifest, [gone, other])]) {
            $0.path.hasSuffix("/manifests/\(ContentDigest.of(gone))") ? [.reply(status)] : nil
        }
        try pull(server) { result, store in
            #expect(result.referrers == [.of(other)])
            #expect(result.referrersUnavailable.map(\.digest) == [.of(gone)])
            #expect(result.referrersUnavailable.first?.subject == Self.image.digest)
            #expect(result.referrersUnavailable.first?.reason.contains("returned \(status)") == true)
            let recorded = try store.referrers(of: Self.image.digest)
            #expect(recorded == [.of(other)])
        }
    }

    @Test(arguments: ["config", "blob"])
    func partsThatAreGone(which: String) throws {
        let missing = Array("a blob that is gone".utf8)
        let gone = Self.artifact("gone", of: Self.image.manifest, blob: which == "blob" ? missing : Self.note)
        let other = Self.artifact("other", of: Self.image.manifest, blob: Self.image.config)
        let asked = Mutex(0)
        let server = serve([(Self.image.manifest, [gone, other])]) { request in
            // Both have the same config: only the first request for it fails.
            guard which == "config", request.path.hasSuffix("/blobs/\(ContentDigest.of(Self.empty))") else { return nil }
            return asked.withLock { count in
                count += 1
                return count == 1 ? [.reply(404)] : nil
            }
        }
        try pull(server) { result, store in
            #expect(result.referrers == [.of(other)])
            #expect(result.referrersUnavailable.map(\.digest) == [.of(gone)])
            let stored = try store.image(.of(gone))
            #expect(stored == nil)
        }
    }

    /// The content decides what a referrer is, too: a signature with an image's config type is an artifact, and an image is none whatever
    /// the type of its config.
    @Test(arguments: ["application/octet-stream", "", "application/vnd.oci.image.config.v1+json"])
    func kinds(configType: String) throws {
        func referrer(_ config: [UInt8], _ layers: [(bytes: [UInt8], type: String)]) -> [UInt8] {
            let list = layers.map { Self.descriptor($0.type, $0.bytes) }.joined(separator: ",")
            return Array(
                #"{"schemaVersion":2,"mediaType":"\#(TestImage.manifestType)","config":\#(Self.descriptor(configType, config)),"layers":[\#(list)],"subject":\#(Self.descriptor(TestImage.manifestType, Self.image.manifest))}"#
                    .utf8)
        }
        let signature = referrer(Self.image.config, [(Self.note, "application/vnd.dev.cosign.simplesigning.v1+json")])
        let image = referrer(
            Self.image.config, Self.image.layers.map { (bytes: $0, type: "application/vnd.oci.image.layer.v1.tar+gzip") })
        try pull(serve([(Self.image.manifest, [signature, image])])) { result, store in
            #expect(result.referrers == [.of(signature)] && result.referrersLeftOut == [.of(image)])
            let stored = try store.image(.of(signature))
            #expect(stored?.isContainer == false)
        }
    }

    /// Content that differs from its descriptor is an error: the registry is damaged or malicious.
    @Test func damaged() throws {
        let artifact = Self.artifact("one", of: Self.image.manifest)
        let server = serve([(Self.image.manifest, [artifact])]) {
            $0.path.hasSuffix("/manifests/\(ContentDigest.of(artifact))") ? [.reply(200, [:], artifact.dropLast() + [0x20])] : nil
        }
        #expect(throws: RegistryError.self) { try pull(server) { _, _ in } }
    }

    @Test(arguments: [401, 403, 500, 503, 200])
    func noListToBeHad(status: Int) throws {
        let server = serve([]) {
            if $0.path.contains("/manifests/sha256-") { return [.reply(404)] }
            return $0.path.contains("/referrers/") ? [.reply(status, ["Content-Type": "text/html"], Array("<html>log in".utf8))] : nil
        }
        try pull(server) { result, _ in
            #expect(result.referrers == [])
            #expect(result.referrersUnavailable.map(\.digest) == [nil])
            #expect(result.referrersUnavailable.first?.subject == Self.image.digest)
        }
    }

    /// The tag of the list resolves to the image itself, and there is no API: there are no referrers.
    @Test func theTagIsTheSubject() throws {
        let server = serve([]) {
            if $0.path.contains("/manifests/sha256-") {
                return [.reply(200, ["Content-Type": TestImage.manifestType], Self.image.manifest)]
            }
            return $0.path.contains("/referrers/") ? [.reply(404, ["Content-Type": "text/plain"], Array("404 page not found\n".utf8))] : nil
        }
        try pull(server) { result, _ in #expect(result.referrers == [] && result.referrersUnavailable.isEmpty) }
    }

    /// Signatures of multi-platform images refer to the index.
    @Test func ofTheIndex() throws {
        let signature = Self.artifact("signature", of: Self.index, Self.indexType)
        let own = Self.artifact("own", of: Self.image.manifest)
        let note = Self.artifact("note", of: signature)
        try pull(serve(root: Self.index, [(Self.index, [signature]), (Self.image.manifest, [own]), (signature, [note])])) { result, store in
            #expect(Set(result.referrers) == [.of(signature), .of(own), .of(note)])
            // The store does not keep the index itself: its referrers belong to the image that was chosen from it, and live as long.
            let (direct, indirect) = (try store.referrers(of: Self.image.digest), try store.referrers(of: .of(signature)))
            #expect(Set(direct) == [.of(signature), .of(own)])
            #expect(indirect == [.of(note)])
            let (unneeded, stored) = (try store.unneededRecords(), try store.image(.of(signature)))
            #expect(unneeded.isEmpty)
            #expect(stored?.manifest.bytes == signature)
        }
    }

    @Test func ofTheIndexWhenItIsHere() throws {
        let signature = Self.artifact("signature", of: Self.index, Self.indexType)
        let server = serve(root: Self.index, [(Self.index, [signature])])
        defer { server.stop() }
        try withTemporaryDirectory { directory in
            let repository = try Repository.initialize(
                ByteString(directory + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
            ).repository
            let source = RegistryImageSource(try RegistryReference(parsing: "\(server.host)/team/app:v1"), client: try makeClient())
            for wants in [false, true, true] {
                var options = PullOptions()
                options.policy = .newer
                options.storesReferrers = wants
                #expect(try pullImage(from: source, into: repository, options).referrers == (wants ? [.of(signature)] : []))
            }
            #expect(try ImageStore(repository).referrers(of: Self.image.digest) == [.of(signature)])
        }
    }

    /// A referrer is not believed to be whole because its manifest is there.
    @Test func damagedReferrersAreStoredAgain() throws {
        let signature = Self.artifact("signature", of: Self.image.manifest)
        let server = serve([(Self.image.manifest, [signature])])
        defer { server.stop() }
        try withTemporaryDirectory { directory in
            let repository = try Repository.initialize(
                ByteString(directory + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
            ).repository
            let root = try FileDescriptor.open(ByteString(directory + "/repo"), [.readOnly, .directory])
            let store = ImageStore(repository)
            var options = PullOptions(name: "image")
            options.storesReferrers = true
            let source = RegistryImageSource(try RegistryReference(parsing: "\(server.host)/team/app:v1"), client: try makeClient())
            func pull() throws -> StoredImage {
                #expect(try pullImage(from: source, into: repository, options).referrers == [.of(signature)])
                let stored = try store.image(.of(signature))
                return try #require(stored)
            }
            let first = try pull()
            let layer = try #require(first.layerStream(first.layerIdentifiers[0]))
            try root.open(at: "objects/" + ByteString(layer.objectPath), [.writeOnly]).truncate(to: 1)
            #expect(try !store.isWhole(first))
            let second = try pull()
            #expect(try store.isWhole(second))
            let config = "streams/oci-config-" + ByteString("\(first.configDigest)")
            try root.unlink(at: config)
            _ = try pull()
            #expect(try root.statusIfPresent(at: config) != nil)
            #expect(try repository.check().problems == [])
        }
    }

    // MARK: Pushes

    /// Pushes the image with an artifact to a registry that misbehaves. Returns the warnings and the registry's content.
    private func push(
        tellsSubject: Bool = false, _ script: @escaping FakeRegistry.Script
    ) throws -> (result: PushResult, warnings: [String], registry: FakeRegistry, artifact: [UInt8]) {
        let artifact = Self.artifact("one", of: Self.image.manifest)
        let registry = FakeRegistry(tellsSubject: tellsSubject, script: script)
        defer { registry.server.stop() }
        let warnings = Mutex<[String]>([])
        var result: PushResult?
        try pull(serve([(Self.image.manifest, [artifact])]), keepsBlobs: true) { _, store in
            let client = try makeClient {
                $0.retry.limit = 1
                $0.warn = { text in warnings.withLock { $0.append(text) } }
            }
            let target = try RegistryDestination(
                try RegistryReference(parsing: "\(registry.server.host)/team/app:v2"), client: client)
            result = try pushImage(try store.open("image").image, of: store, to: target)
        }
        #expect(registry.contents.manifests["team/app:v2"] == Self.image.manifest)
        return (try #require(result), warnings.withLock { $0 }, registry, artifact)
    }

    private var tag: String { "sha256-\(Self.image.digest.hex)" }

    /// The tag of the list names another document: it is not replaced, and the image gets its name.
    @Test(arguments: ["subject", "text", "403", "405", "500"])
    func tagsThatAreNoLists(kind: String) throws {
        let (result, warnings, registry, artifact) = try push { request in
            guard request.path.contains("/manifests/sha256-"), request.method == "GET" else { return nil }
            switch kind {
            case "subject": return [.reply(200, ["Content-Type": TestImage.manifestType], Self.image.manifest)]
            case "text": return [.reply(200, ["Content-Type": "text/html"], Array("<html>".utf8))]
            default: return [.reply(Int(kind) ?? 0)]
            }
        }
        #expect(result.referrers == [.of(artifact)])
        #expect(registry.contents.manifests["team/app:\(ContentDigest.of(artifact))"] == artifact)
        #expect(registry.contents.manifests["team/app:\(tag)"] == nil)
        #expect(warnings.count == 1 && warnings.first?.contains(tag) == true, "\(warnings)")
    }

    /// A registry that accepts no list, for example because its tags are immutable.
    @Test(arguments: [400, 403, 405, 409, 412])
    func listsThatAreNotTaken(status: Int) throws {
        let (result, warnings, _, artifact) = try push { request in
            request.path.contains("/manifests/sha256-") && request.method == "PUT" ? [.reply(status)] : nil
        }
        #expect(result.referrers == [.of(artifact)])
        #expect(warnings.count == 1 && warnings.first?.contains(tag) == true, "\(warnings)")
    }

    /// A registry that accepts no artifacts.
    @Test(arguments: [400, 403, 405, 415, 422])
    func artifactsThatAreNotTaken(status: Int) throws {
        let (result, _, registry, artifact) = try push { request in
            let isArtifact = request.body.count > 0 && String(decoding: request.body, as: UTF8.self).contains("artifactType")
            return request.path.contains("/manifests/sha256:") && request.method == "PUT" && isArtifact ? [.reply(status)] : nil
        }
        #expect(result.referrers == [])
        #expect(result.referrersRefused.map(\.digest) == [.of(artifact)])
        #expect(result.referrersRefused.first?.reason.contains("returned \(status)") == true)
        #expect(registry.contents.manifests["team/app:\(tag)"] == nil)
    }

    /// The list is updated if the registry allows it.
    @Test func theListIsKept() throws {
        let (result, warnings, registry, artifact) = try push { _ in nil }
        #expect(result.referrers == [.of(artifact)] && result.referrersRefused.isEmpty && warnings == [])
        let list = try #require(registry.contents.manifests["team/app:\(tag)"])
        #expect(try ImageIndex(parsing: list).manifests.map(\.digest) == [.of(artifact)])
    }
}
