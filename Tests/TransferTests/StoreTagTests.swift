import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer

@Suite struct StoreTagTests {
    @Test func encoding() {
        let pairs: [(ByteString, ByteString)] = [
            ("a/b", "a%2Fb"), ("%2F", "%252F"), ("docker.io/library/a:1", "docker.io%2Flibrary%2Fa:1"), ("%", "%25"), ("//", "%2F%2F"),
            ("", ""), ("%25", "%2525"), ("é%/", "é%25%2F"),
        ]
        for (name, encoded) in pairs {
            #expect(ImageTag.encode(name) == encoded)
            #expect(ImageTag.decode(encoded) == name)
        }
        // Sequences that no encoder writes are literal.
        for (encoded, name) in [("%", "%"), ("%2", "%2"), ("%2f", "%2f"), ("%41", "%41"), ("%%2F", "%/")] as [(ByteString, ByteString)] {
            #expect(ImageTag.decode(encoded) == name)
        }
    }

    @Test func names() {
        func fault(_ name: ByteString) -> String? { refusal { try ImageTag.check(name) } }
        for name: ByteString in ["a", "a b", "..a", "a/../b", "localhost/x:y@sha256:1", "%", "ü"] { #expect(fault(name) == nil) }
        #expect(fault("") == "\"\" cannot be a tag: it is empty")
        #expect(fault("@sha256:12") == "\"@sha256:12\" cannot be a tag: a leading '@' is reserved for digests")
        for name: ByteString in [".", ".."] { #expect(fault(name) == "\"\(name)\" cannot be a tag: it is no file name") }
        for byte: UInt8 in [0, 0x0a, 0x1f, 0x7f] {
            #expect(fault(ByteString([0x61, byte]))?.hasSuffix("cannot be a tag: it holds a control character") == true)
        }
        #expect(fault(ByteString([UInt8](repeating: 0x61, count: 255))) == nil)
        #expect(fault(ByteString([UInt8](repeating: 0x61, count: 256)))?.hasSuffix("it is longer than a file name may be") == true)
        // A slash takes three bytes.
        #expect(fault(ByteString([UInt8](repeating: 0x2f, count: 86))) != nil)
    }

    @Test func streamNames() throws {
        let digest = ContentDigest.of([])
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        #expect(StreamName.manifest(digest) == ByteString("oci-manifest-sha256:" + hex))
        #expect(StreamName.config(digest) == ByteString("oci-config-sha256:" + hex))
        #expect(StreamName.layer(digest) == ByteString("oci-layer-sha256:" + hex))
        #expect(StreamName.digest(in: StreamName.layer(digest), after: StreamName.layerPrefix) == digest)
        #expect(StreamName.digest(in: StreamName.layer(digest), after: StreamName.configPrefix) == nil)
        #expect(StreamName.digest(in: "oci-layer-sha256:12", after: StreamName.layerPrefix) == nil)
    }

    private func twoImages(_ scratch: StoreScratch) throws -> (store: ImageStore, first: ArraySource, second: ArraySource) {
        let store = ImageStore(try scratch.create())
        let first = ArraySource([ArraySource.Layer(.zeros("alpha", 1000))], name: "docker.io/library/first:latest")
        let second = ArraySource(
            [ArraySource.Layer(.zeros("alpha", 1000)), ArraySource.Layer(.zeros("beta", 2000))], name: "localhost/second:1")
        _ = try pullImage(from: first, into: store.repository)
        _ = try pullImage(from: second, into: store.repository)
        return (store, first, second)
    }

    @Test func whatAnImageCanBeCalled() throws {
        let scratch = try StoreScratch()
        let (store, first, second) = try twoImages(scratch)
        let name: ByteString = "docker.io/library/first:latest"
        func meant(_ text: String) throws -> TaggedImage { try store.resolve(ByteString(text)) }
        for text in [
            name.description, "first", "first:latest", "docker.io/first", "library/first", first.digest.description,
            "@" + first.digest.description, first.configDigest.description, "@" + first.configDigest.description,
            String(first.digest.hex.prefix(6)), String(first.digest.hex.prefix(20)), "sha256:" + first.digest.hex.prefix(12),
            String(first.configDigest.hex.prefix(12)), first.digest.hex,
        ] {
            #expect(try meant(text) == TaggedImage(name: name, manifestDigest: first.digest), "\(text)")
        }
        #expect(try meant("localhost/second:1").manifestDigest == second.digest)
        #expect(try store.open("first").image.configDigest == first.configDigest)
        for text in [
            "second", "", "first:1", String(first.digest.hex.prefix(5)), "abcdef0", "sha256:" + String(repeating: "0", count: 64), "@",
            "@first",
        ] {
            #expect(
                refusal { _ = try meant(text) } == "no image \"\(text)\" in the repository", "\(text)")
        }
        #expect(refusal { _ = try store.resolve(ByteString([0xff])) } != nil)
        // A tag takes precedence over other meanings of its text.
        let digits = ByteString(String(first.digest.hex.prefix(8)))
        try store.tag(second.digest, as: digits)
        #expect(try store.resolve(digits) == TaggedImage(name: digits, manifestDigest: second.digest))
        // Without a tag, an image has its digest as its name.
        try store.untag(name)
        #expect(try meant(first.digest.description).name == ByteString(first.digest.description))
    }

    /// An image that a registry configuration resolved from a short name is found by that name, if it is the only one.
    @Test func shortNamesOfOtherRegistries() throws {
        let scratch = try StoreScratch()
        let (store, first, second) = try twoImages(scratch)
        try store.tag(first.digest, as: "registry.example/fedora:latest")
        try store.tag(first.digest, as: "quay.io/team/app:v1")
        #expect(try store.resolve("fedora") == TaggedImage(name: "registry.example/fedora:latest", manifestDigest: first.digest))
        #expect(try store.resolve("team/app:v1").name == "quay.io/team/app:v1")
        for text: ByteString in ["app:v1", "team/app", "fedora:40", "example/fedora", "docker.io/fedora"] {
            #expect(throws: ImageStoreError.self) { try store.resolve(text) }
        }
        // The same image twice counts as one. If images differ, that of Docker Hub takes precedence.
        try store.tag(first.digest, as: "other.example/fedora:latest")
        #expect(try store.resolve("fedora").manifestDigest == first.digest)
        try store.tag(second.digest, as: "third.example/fedora:latest")
        #expect(refusal { _ = try store.resolve("fedora") }?.contains("give more digits or the full name") == true)
        try store.tag(second.digest, as: "docker.io/library/fedora:latest")
        #expect(try store.resolve("fedora").manifestDigest == second.digest)
    }

    @Test func ambiguousDigits() throws {
        let scratch = try StoreScratch()
        let (store, first, second) = try twoImages(scratch)
        // Streams with a common digest prefix. Only the names are read.
        let manifest = try #require(try store.repository.stream(StreamName.manifest(first.digest)))
        let prefix = "abcdef"
        var digests: [String] = []
        var publication = Repository.Publication()
        for last in ["1", "2"] {
            let digest = try #require(ContentDigest("sha256:" + prefix + String(repeating: "0", count: 57) + last))
            digests.append(digest.description)
            publication.stream(StreamName.manifest(digest), manifest)
        }
        try store.repository.publish(publication)
        let said = "\"abcdef\" may mean \(digests[0]) or \(digests[1]); give more digits or the full name"
        #expect(refusal { _ = try store.resolve("abcdef") } == said)
        #expect(try store.resolve(ByteString(digests[1])).manifestDigest.description == digests[1])
        // Two manifests with one config.
        let twin = Array(String(decoding: second.manifest, as: UTF8.self).dropLast().utf8) + Array(#","annotations":{"a":"b"}}"#.utf8)
        let image = try store.open("localhost/second:1").image
        try store.publish(
            manifest: try Manifest(parsing: twin), digest: .of(twin), config: second.config,
            layers: try store.layers(of: image).map { ($0.diffID, $0.stream) }, images: [:], tag: nil)
        let both = [second.digest, ContentDigest.of(twin)].map(\.description).sorted().joined(separator: " or ")
        #expect(
            refusal { _ = try store.resolve(ByteString(second.configDigest.description)) }
                == "\"\(second.configDigest)\" may mean \(both); give more digits or the full name")
        #expect(refusal { _ = try store.resolve(ByteString(String(second.configDigest.hex.prefix(16)))) }?.contains(both) == true)
        #expect(try store.resolve(ByteString(second.digest.description)).manifestDigest == second.digest)
    }

    @Test func taggingAndTakingAway() throws {
        let scratch = try StoreScratch()
        let (store, first, second) = try twoImages(scratch)
        try store.tag(first.digest, as: "a/b%c")
        #expect(
            try scratch.directory().readLink(at: "streams/refs/oci/a%2Fb%25c") == "../../oci-manifest-"
                + ByteString(first.digest.description))
        #expect(try store.tags().map(\.name) == ["a/b%c", "docker.io/library/first:latest", "localhost/second:1"])
        // A name that is in use is moved.
        try store.tag(second.digest, as: "a/b%c")
        #expect(try store.resolve("a/b%c").manifestDigest == second.digest)
        try store.untag("a/b%c")
        #expect(refusal { try store.untag("a/b%c") } == "no image \"a/b%c\" in the repository")
        #expect(refusal { try store.untag("@x") }?.contains("cannot be a tag") == true)
        #expect(refusal { try store.tag(first.digest, as: "") }?.contains("cannot be a tag") == true)
        let unknown = ContentDigest.of([1])
        #expect(refusal { try store.tag(unknown, as: "x") }?.hasPrefix("no image \"\(unknown)\"") == true)
        #expect(try store.tags().count == 2)

        let list = try store.list()
        #expect(list.broken.isEmpty)
        #expect(list.images.map(\.name) == ["docker.io/library/first:latest", "localhost/second:1"])
        #expect(list.images.map(\.layerCount) == [1, 2])
        #expect(list.images[0].architecture == "amd64" && list.images[0].os == "linux" && list.images[0].isContainer)
        #expect(list.images[1].size == UInt64(LayerArchive.zeros("alpha", 1000).bytes.count + LayerArchive.zeros("beta", 2000).bytes.count))
        #expect(list.images[1].imageID == (try store.open("localhost/second:1").image.imageID(.v1)))
        // Unreadable images are reported, not skipped.
        try scratch.removeObject(try #require(try store.repository.stream(StreamName.config(second.configDigest))))
        let damaged = try store.list()
        #expect(damaged.images.count == 1 && damaged.broken.map(\.name) == ["localhost/second:1"])
        #expect(damaged.broken.first?.manifestDigest == second.digest)
    }

    @Test func referrers() throws {
        let scratch = try StoreScratch()
        let (store, first, second) = try twoImages(scratch)
        let artifact = ArraySource(artifact: [Array("signature".utf8)], name: "localhost/signature:1")
        _ = try pullImage(from: artifact, into: store.repository)
        let absent = ContentDigest.of([7])
        try store.addReferrer(artifact.digest, to: first.digest)
        try store.addReferrer(second.digest, to: first.digest)
        try store.addReferrer(artifact.digest, to: first.digest)
        // The subject need not be stored, but the artifact must be.
        try store.addReferrer(artifact.digest, to: absent)
        #expect(refusal { try store.addReferrer(absent, to: first.digest) }?.hasPrefix("no image \"\(absent)\"") == true)
        #expect(
            try scratch.directory().readLink(
                at: "streams/refs/oci-referrers/" + ByteString(first.digest.description) + "/" + ByteString(artifact.digest.description))
                == "../../../oci-manifest-" + ByteString(artifact.digest.description))
        #expect(try store.referrers(of: first.digest) == [artifact.digest, second.digest].sorted())
        #expect(try store.referrers(of: absent) == [artifact.digest])
        #expect(try store.referrers(of: second.digest).isEmpty)
        #expect(try store.list().images.first { $0.manifestDigest == first.digest }?.referrerCount == 2)
        // A record keeps the artifact.
        try store.untag("localhost/signature:1")
        #expect(try store.repository.collectGarbage().objectsRemoved == 0)
        try store.removeReferrer(second.digest, of: first.digest)
        #expect(
            refusal { try store.removeReferrer(second.digest, of: first.digest) }
                == "\(second.digest) is not recorded as a referrer of \(first.digest)")
        #expect(try store.removeDanglingReferrers() == 1)
        #expect(try store.referrers(of: absent).isEmpty && store.referrers(of: first.digest) == [artifact.digest])
        #expect(try store.removeDanglingReferrers() == 0)
        // A link whose name differs from its target, or that dangles, is not a record.
        let folder = "streams/refs/oci-referrers/" + ByteString(first.digest.description) + "/"
        try scratch.replaceLink(folder + ByteString(absent.description), "../../../oci-manifest-" + ByteString(artifact.digest.description))
        try scratch.replaceLink(folder + "name", "../../../oci-manifest-" + ByteString(artifact.digest.description))
        #expect(try store.referrers(of: first.digest) == [artifact.digest])
        for name: ByteString in [ByteString(absent.description), "name"] { try scratch.directory().unlink(at: folder + name) }
        try store.removeReferrer(artifact.digest, of: first.digest)
        // Manifest and its stream, the blob and its stream, the config's stream and content.
        #expect(try store.repository.collectGarbage().objectsRemoved == 6)
    }
}
