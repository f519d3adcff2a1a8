import ComposefsHashing
import ComposefsOCIModel
import ComposefsTestSupport
import ComposefsTransports
import Testing

@testable import ComposefsRegistry

/// The public interface: references and descriptors in, verified documents out.
@Suite struct ImageSourceTests {
    private let index = Array(#"{"schemaVersion":2,"manifests":[]}"#.utf8)

    private func source(_ suffix: String, _ server: ScriptedServer) throws -> RegistryImageSource {
        RegistryImageSource(try RegistryReference(parsing: "\(server.host)/team/app\(suffix)"), client: try makeClient())
    }

    @Test func rootByTag() throws {
        let server = ScriptedServer { [index] _ in [.reply(200, ["Content-Type": "application/vnd.oci.image.index.v1+json"], index)] }
        defer { server.stop() }
        let source = try source("", server)
        #expect(source.canonicalName == "\(server.host)/team/app:latest")
        let root = try source.rootManifest()
        #expect(root.bytes == index && root.mediaType == MediaType.ociIndex && root.expected == nil)
        #expect(server.requests.map(\.path) == ["/v2/team/app/manifests/latest"])
    }

    /// The digest takes precedence over the tag, whatever its algorithm.
    @Test(arguments: DigestAlgorithm.allCases)
    func rootByDigest(algorithm: DigestAlgorithm) throws {
        let digest = ContentDigest.of(index, algorithm)
        let server = ScriptedServer { [index] _ in [.reply(200, ["Content-Type": "application/json"], index)] }
        defer { server.stop() }
        let root = try source(":v1@\(digest)", server).rootManifest()
        #expect(root.mediaType == nil)
        #expect(root.expected == Descriptor(mediaType: MediaType.ociIndex, digest: digest, size: UInt64(index.count)))
        #expect(server.requests.map(\.path) == ["/v2/team/app/manifests/\(digest)"])
        let other = ContentDigest.of([1], algorithm)
        #expect(registryError { _ = try source("@\(other)", server).rootManifest() }?.kind == .digestMismatch)
    }

    @Test func childManifest() throws {
        let server = ScriptedServer { [index] _ in [.reply(200, [:], index)] }
        defer { server.stop() }
        let source = try source("", server)
        func child(_ size: UInt64) -> Descriptor { Descriptor(mediaType: MediaType.ociIndex, digest: .of(index), size: size) }
        #expect(try source.manifest(child(UInt64(index.count))) == index)
        #expect(registryError { _ = try source.manifest(child(1)) }?.kind == .sizeMismatch)
        #expect(registryError { _ = try source.manifest(child(5 << 20)) }?.kind == .tooLarge)
        #expect(registryError { _ = try source.manifest(child(.max)) }?.kind == .tooLarge)
        let wrong = Descriptor(mediaType: MediaType.ociIndex, digest: .of([]), size: UInt64(index.count))
        #expect(registryError { _ = try source.manifest(wrong) }?.kind == .digestMismatch)
    }

    @Test func blob() throws {
        let server = ScriptedServer { _ in [.reply(200, [:], [1, 2, 3])] }
        defer { server.stop() }
        let source = try source("", server)
        #expect(try readAll(source.openBlob(Descriptor(mediaType: "a/b", digest: .of([1, 2, 3]), size: 3))) == [1, 2, 3])
        // An impossible size must not cause an allocation.
        let huge = registryError { _ = try source.openBlob(Descriptor(mediaType: "a/b", digest: .of([1]), size: .max)) }
        #expect(huge?.kind == .sizeMismatch)
    }

    @Test func referrersOfOneType() throws {
        let digest = ContentDigest.of([9])
        let entries = ["x", "y"].map { #"{"mediaType":"a/b","digest":"\#(digest)","size":1,"artifactType":"\#($0)"}"# }.joined(
            separator: ",")
        let server = ScriptedServer { _ in [.reply(200, [:], Array(#"{"schemaVersion":2,"manifests":[\#(entries)]}"#.utf8))] }
        defer { server.stop() }
        let source = try source("", server)
        #expect(try source.client.referrers(of: digest, in: source.reference).count == 2)
        #expect(try source.client.referrers(of: digest, in: source.reference, artifactType: "y").map(\.artifactType) == ["y"])
    }
}
