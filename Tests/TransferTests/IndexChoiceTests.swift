import ComposefsBytes
import ComposefsHashing
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// Which entry of an index is selected for a platform, and which are skipped.
@Suite struct IndexChoiceTests {
    /// An index with its entries' documents. Filled before anything is read from it.
    private final class IndexSource: ImageSource, @unchecked Sendable {
        var documents: [ContentDigest: [UInt8]] = [:]
        var entries: [String] = []
        var read: [ContentDigest] = []
        let canonicalName = "localhost/index:latest"

        func add(_ bytes: [UInt8]) -> ContentDigest {
            documents[.of(bytes)] = bytes
            return .of(bytes)
        }

        /// - Parameter entry: Further members of the entry.
        func image(
            _ name: String, for platform: String = "", config type: String = MediaType.ociConfig, layer: String? = nil, entry: String = "",
            manifest more: String = ""
        ) {
            let parts = platform.split(separator: "/").map(String.init)
            let said = parts.count < 2 ? "" : #""os":"\#(parts[0])","architecture":"\#(parts[1])","#
            let archive = LayerArchive().adding(name).bytes
            let config = Array(#"{\#(said)"rootfs":{"type":"layers","diff_ids":["\#(ContentDigest.of(archive))"]}}"#.utf8)
            add(config, archive, config: type, layer: layer ?? "application/vnd.oci.image.layer.v1.tar", name, entry, more)
        }

        func artifact(_ name: String, config type: String = MediaType.ociEmpty, entry: String = "") {
            add(Array("{}".utf8), Array(name.utf8), config: type, layer: "application/x", name, entry, "")
        }

        private func add(
            _ config: [UInt8], _ layer: [UInt8], config type: String, layer layerType: String, _ name: String, _ entry: String,
            _ more: String
        ) {
            let manifest = Array(
                """
                {"schemaVersion":2,"mediaType":"\(MediaType.ociManifest)","config":{"mediaType":"\(type)","digest":"\(add(config))",\
                "size":\(config.count)},"layers":[{"mediaType":"\(layerType)","digest":"\(add(layer))","size":\(layer.count)}],\
                "annotations":{"name":"\(name)"}\(more)}
                """.utf8)
            other(manifest, MediaType.ociManifest, entry)
        }

        func other(_ document: [UInt8], _ type: String, _ entry: String = "") {
            entries.append(#"{"mediaType":"\#(type)","digest":"\#(add(document))","size":\#(document.count)\#(entry)}"#)
        }

        var index: [UInt8] {
            Array(#"{"schemaVersion":2,"mediaType":"\#(MediaType.ociIndex)","manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
        }

        func rootManifest() -> SourceManifest { SourceManifest(bytes: index) }

        func manifest(_ descriptor: Descriptor) throws -> [UInt8] {
            guard let bytes = documents[descriptor.digest] else { throw OCIError.notFound(source: "memory", descriptor.missing) }
            read.append(descriptor.digest)
            return bytes
        }

        func openBlob(_ descriptor: Descriptor) throws -> any BlobReader {
            guard let bytes = documents[descriptor.digest] else { throw OCIError.notFound(source: "memory", descriptor.missing) }
            return ArrayBlob(bytes)
        }
    }

    private func platform(_ os: String, _ architecture: String, _ more: String = "") -> String {
        #","platform":{"os":"\#(os)","architecture":"\#(architecture)"\#(more)}"#
    }

    private let amd64 = #","platform":{"os":"linux","architecture":"amd64"}"#

    /// The selected image for linux/amd64, or the error.
    private func chosen(_ fill: (IndexSource) -> Void) -> String? {
        let source = IndexSource()
        fill(source)
        do {
            let found = try resolveManifest(source, platform: Platform(os: "linux", architecture: "amd64"))
            return found.manifest.annotations["name"]
        } catch { return "\(error)" }
    }

    @Test func configsSayWhatEntriesDoNot() {
        let none = "the index lists no image for linux/amd64, only for linux/arm64"
        #expect(
            chosen {
                $0.image("arm", for: "linux/arm64")
                $0.image("intel", for: "linux/amd64")
            } == "intel")
        #expect(chosen { $0.image("arm", for: "linux/arm64") }?.hasPrefix(none) == true)
        // The same platform is preferred to an unspecified one, which is better than none.
        #expect(
            chosen {
                $0.image("silent")
                $0.image("arm", for: "linux/arm64")
                $0.image("intel", for: "linux/amd64")
            } == "intel")
        #expect(
            chosen {
                $0.image("arm", for: "linux/arm64")
                $0.image("silent")
            } == "silent")
        // An incomplete platform counts as unspecified.
        #expect(
            chosen {
                $0.image("windows", for: "windows/amd64", entry: #","platform":{"os":"windows"}"#)
                $0.image("arm", for: "linux/arm64", entry: #","platform":{"os":"linux"}"#)
                $0.image("intel", for: "linux/amd64", entry: #","platform":{"architecture":"amd64"}"#)
            } == "intel")
    }

    @Test func whatSaysThatItFitsIsTakenUnread() throws {
        let source = IndexSource()
        source.image("silent", for: "linux/amd64")
        source.image("said", for: "linux/amd64", entry: amd64)
        let found = try resolveManifest(source, platform: Platform(os: "linux", architecture: "amd64"))
        #expect(found.manifest.annotations["name"] == "said" && source.read == [found.digest])
    }

    @Test func unknownPlatforms() {
        let attestation = platform("unknown", "unknown", "") + #","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#
        #expect(
            chosen {
                $0.image("attestation", for: "unknown/unknown", layer: "application/vnd.in-toto+json", entry: attestation)
                $0.image("intel", for: "linux/amd64", entry: amd64)
            } == "intel")
        // One that states no platform is marked all the same.
        for marked in [#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#, attestation] {
            #expect(
                chosen { $0.image("attestation", for: "linux/amd64", layer: "application/vnd.in-toto+json", entry: marked) }
                    == "the index lists no image for linux/amd64")
            #expect(
                chosen {
                    $0.image("attestation", for: "linux/amd64", entry: marked)
                    $0.image("intel", for: "linux/amd64")
                } == "intel")
        }
        // Some builders leave it unspecified.
        #expect(
            chosen {
                $0.image(
                    "attestation", for: "unknown/unknown", layer: "application/vnd.in-toto+json", entry: platform("unknown", "unknown"))
                $0.image("arm", for: "linux/arm64", entry: platform("unknown", "unknown"))
                $0.image("intel", for: "linux/amd64", entry: platform("unknown", "unknown"))
            } == "intel")
        #expect(
            chosen {
                $0.image(
                    "attestation", for: "unknown/unknown", layer: "application/vnd.in-toto+json", entry: platform("unknown", "unknown"))
            } == "the index lists no image for linux/amd64")
    }

    @Test func artifactsBesideTheImage() {
        for entry in [amd64, "", amd64 + #","artifactType":"application/x""#, #","artifactType":"application/x""#] {
            #expect(
                chosen {
                    $0.artifact("artifact", entry: entry)
                    $0.image("signature", for: "linux/amd64", layer: "application/vnd.dev.cosign.simplesigning.v1+json", entry: entry)
                    $0.image("intel", for: "linux/amd64", config: "application/octet-stream", entry: amd64)
                } == "intel")
        }
        // No image for the wanted platform: an artifact does not count.
        #expect(
            chosen {
                $0.artifact("artifact")
                $0.image("arm", for: "linux/arm64", entry: platform("linux", "arm64"))
            }?.hasPrefix("the index lists no image for linux/amd64, only for linux/arm64") == true)
        // If there are only artifacts, that for the platform is selected.
        #expect(
            chosen {
                $0.artifact("arm", entry: platform("linux", "arm64"))
                $0.artifact("intel", entry: amd64)
            } == "intel")
        #expect(chosen { $0.artifact("any") } == "any")
    }

    @Test func kindsThatAreNotKnown() {
        let unknown = Array(#"{"x":1}"#.utf8)
        #expect(
            chosen {
                $0.other(unknown, "application/vnd.example.thing.v1+json", amd64)
                $0.other(unknown, "application/vnd.docker.distribution.manifest.v1+prettyjws", amd64)
                $0.image("intel", for: "linux/amd64", entry: amd64)
            } == "intel")
        #expect(chosen { $0.other(unknown, "application/vnd.example.thing.v1+json", amd64) } == "the index lists no image for linux/amd64")
        #expect(
            chosen { $0.other(unknown, "application/vnd.docker.distribution.manifest.v1+prettyjws", amd64) }?.contains("schema 1") == true)
    }

    @Test func featuresThatTheSystemLacks() throws {
        let nydus = platform("linux", "amd64", #","os.features":["nydus.remoteimage.v1"]"#)
        let layer = "application/vnd.oci.image.layer.nydus.blob.v1"
        #expect(
            chosen {
                $0.image("nydus", for: "linux/amd64", layer: layer, entry: nydus)
                $0.image("intel", for: "linux/amd64", entry: amd64)
            } == "intel")
        #expect(
            chosen { $0.image("nydus", for: "linux/amd64", layer: layer, entry: nydus) }?.hasPrefix("the index lists no image for") == true)
        // On Windows, the names are of features that every full installation has.
        let source = IndexSource()
        source.image("windows", for: "windows/amd64", entry: platform("windows", "amd64", #","os.features":["win32k"]"#))
        let windows = Platform(os: "windows", architecture: "amd64")
        #expect(try resolveManifest(source, platform: windows).manifest.annotations["name"] == "windows")
    }

    @Test func allPlatforms() throws {
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        let source = IndexSource()
        source.artifact("artifact", entry: amd64)
        source.image("attestation", for: "unknown/unknown", layer: "application/vnd.in-toto+json", entry: platform("unknown", "unknown"))
        source.other(Array(#"{"x":1}"#.utf8), "application/vnd.example.thing.v1+json")
        source.image(
            "nydus", for: "linux/amd64", layer: "application/vnd.oci.image.layer.nydus.blob.v1",
            entry: platform("linux", "amd64", #","os.features":["nydus.remoteimage.v1"]"#))
        source.image("intel", for: "linux/amd64", entry: amd64)
        source.image("arm", for: "linux/arm64", config: "text/html")
        let pulled = try pullAllPlatforms(
            from: source, into: repository, PullOptions(platform: Platform(os: "linux", architecture: "amd64")))
        #expect(pulled.map { $0.platform?.description } == ["linux/amd64", "linux/arm64"])
        // The artifact and the attestation are stored without a tag; what no store can hold, or is no manifest, is left out.
        let index = try #require(pulled.first?.index)
        #expect(index.manifests.count == 4 && index.leftOut.count == 2, "\(index.leftOut)")
        #expect(
            try ImageStore(repository).tags().map(\.name) == [
                "localhost/index:latest", "localhost/index:latest-linux-amd64", "localhost/index:latest-linux-arm64",
            ])
    }
}
