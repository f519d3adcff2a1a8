import ComposefsCompression
import ComposefsHashing
import ComposefsJSON
import ComposefsOCIModel
import Testing

private let someDigest = "sha256:" + String(repeating: "ab", count: 32)

private func fault(_ text: String, _ mediaType: String? = nil) -> String? {
    do throws(OCIError) {
        _ = try ManifestDocument(parsing: Array(text.utf8), mediaType: mediaType)
        return nil
    } catch { return error.description }
}

/// Why a document is refused, without its name.
private enum Refusal: Equatable {
    case malformed(OCIError.DocumentFault)
    case member(String, OCIError.MemberFault)
    case invalidJSON(JSONError.Reason)
    case unsupported(OCIError.Unsupported)

    /// Nil if the document is accepted, or for another error.
    init?(_ text: String, _ mediaType: String? = nil) {
        do throws(OCIError) {
            _ = try ManifestDocument(parsing: Array(text.utf8), mediaType: mediaType)
            return nil
        } catch {
            switch error {
            case .malformed(_, .member(let name, let fault)): self = .member(name, fault)
            case .malformed(_, .invalidJSON(let error)): self = .invalidJSON(error.reason)
            case .malformed(_, let fault): self = .malformed(fault)
            case .unsupported(_, let form): self = .unsupported(form)
            default: return nil
            }
        }
    }
}

private func manifest(
    type: String = MediaType.ociManifest, config: String = MediaType.ociConfig, layers: String? = nil, more: String = ""
) -> String {
    let layer = #"{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"\#(someDigest)","size":5}"#
    return """
        {"schemaVersion":2,"mediaType":"\(type)","config":{"mediaType":"\(config)","digest":"\(someDigest)","size":2},\
        "layers":\(layers ?? "[\(layer)]")\(more)}
        """
}

private func layer(_ members: String) -> String { manifest(layers: "[{\(members)}]") }

@Suite struct ModelsManifestTests {
    @Test func manifestIsReadAndItsBytesKept() throws {
        let text = manifest(
            layers: """
                [{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"\(someDigest)","size":9223372036854775807,\
                "urls":["https://example.com/x"],"annotations":{"a":"b"},"unknown":[1]}]
                """, more: #","annotations":{"k":"v"},"subject":null,"unknown":{"Layers":[]},"Layers":7"#)
        let read = try Manifest(parsing: Array(text.utf8))
        #expect(read.bytes == Array(text.utf8))
        #expect(read.mediaType == MediaType.ociManifest)
        #expect(read.config == Descriptor(mediaType: MediaType.ociConfig, digest: try #require(ContentDigest(someDigest)), size: 2))
        #expect(read.layers.count == 1)
        #expect(read.layers.first?.size == UInt64(Int64.max))
        #expect(read.layers.first?.urls == ["https://example.com/x"])
        #expect(read.layers.first?.annotations == ["a": "b"])
        #expect(read.annotations == ["k": "v"])
        #expect(read.mayBeImage)
        #expect(read.subject == nil)
    }

    @Test func typeThatIsNotSaidIsGuessedByTheMembers() throws {
        let bare =
            #"{"schemaVersion":2,"config":{"mediaType":"\#(MediaType.dockerConfig)","digest":"\#(someDigest)","size":2},"layers":[]}"#
        #expect(try Manifest(parsing: Array(bare.utf8)).mediaType == MediaType.dockerManifest)
        #expect(try Manifest(parsing: Array(bare.utf8), mediaType: MediaType.ociManifest).mediaType == MediaType.ociManifest)
        let index = Array(#"{"schemaVersion":2,"manifests":[]}"#.utf8)
        #expect(try ImageIndex(parsing: index).mediaType == MediaType.ociIndex)
        #expect(try ImageIndex(parsing: index, mediaType: MediaType.dockerManifestList).mediaType == MediaType.dockerManifestList)
        #expect(Refusal(#"{"schemaVersion":2}"#) == .malformed(.neitherManifestNorIndex))
    }

    @Test func artifacts() throws {
        let empty = manifest(
            config: MediaType.ociEmpty, layers: #"[{"mediaType":"text/csv","digest":"\#(someDigest)","size":1}]"#,
            more: #","artifactType":"application/x","subject":{"mediaType":"\#(MediaType.ociManifest)","digest":"\#(someDigest)","size":3}"#
        )
        let read = try Manifest(parsing: Array(empty.utf8))
        #expect(!read.mayBeImage)
        #expect(read.artifactType == "application/x")
        #expect(read.subject?.size == 3)
    }

    @Test(
        arguments: [
            (
                manifest(type: MediaType.dockerManifest), MediaType.ociManifest,
                .malformed(.announcedType(own: MediaType.dockerManifest, announced: MediaType.ociManifest))
            ),
            (manifest(type: MediaType.ociIndex), nil, .member("manifests", .missing)),
            (manifest(type: "application/x"), nil, .unsupported(.mediaType("application/x"))),
            (manifest(), "application/x", .unsupported(.mediaType("application/x"))),
            (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws", .unsupported(.schema1)),
            (#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#, nil, .unsupported(.schema1)),
            (#"{"schemaVersion":3,"layers":[]}"#, nil, .member("schemaVersion", .notVersion2)),
            (#"{"schemaVersion":"2","layers":[]}"#, nil, .member("schemaVersion", .notVersion2)),
            (#"{"layers":[]}"#, nil, .member("schemaVersion", .missing)),
            (#"{"schemaVersion":2,"mediaType":5,"layers":[]}"#, nil, .member("mediaType", .wrongType(.number, wanted: .string))),
            (manifest(layers: "{}"), nil, .member("layers", .wrongType(.object, wanted: .array))),
            (manifest(layers: "[7]"), nil, .member("layers[0]", .wrongType(.number, wanted: .object))),
            (manifest(more: #","manifests":[]"#), nil, .malformed(.bothManifestAndIndex)),
            (#"{"schemaVersion":2,"manifests":[],"config":{}}"#, MediaType.ociIndex, .malformed(.bothManifestAndIndex)),
            (#"{"schemaVersion":2,"manifests":null}"#, MediaType.ociIndex, .member("manifests", .wrongType(.null, wanted: .array))),
            (#"{"schemaVersion":2,"layers":[]}"#, MediaType.ociManifest, .member("config", .missing)),
            (manifest(more: #","layers":[]"#), nil, .invalidJSON(.duplicateKey("layers"))),
            ("[]", nil, .malformed(.wrongType(.array, wanted: .object))), ("null", nil, .malformed(.wrongType(.null, wanted: .object))),
            ("\u{feff}{}", nil, .invalidJSON(.byteOrderMark)),
        ] as [(String, String?, Refusal)])
    private func refused(_ text: String, _ type: String?, _ refusal: Refusal) {
        #expect(Refusal(text, type) == refusal)
    }

    /// The names of a layout's entries are texts.
    @Test func refusedNames() {
        let text = #"{"schemaVersion":2,"manifests":[{"annotations":{"org.opencontainers.image.ref.name":5}}]}"#
        #expect(fault(text)?.contains("is a number, not a string") == true)
    }

    @Test func messages() {
        #expect(fault(manifest(layers: "[7]")) == #"manifest: "layers[0]" is a number, not an object"#)
        #expect(fault("[]") == "manifest: it is an array, not an object")
        #expect(
            fault(layer(#""mediaType":"a","digest":"sha256:/etc/passwd\u001b","size":1"#))
                == #"manifest: "layers[0].digest" is "sha256:/etc/passwd\x1b", not a sha256, sha384 or sha512 digest"#)
    }

    @Test(
        arguments: [
            (#""digest":"\#(someDigest)","size":1"#, "mediaType", .missing),
            (#""mediaType":"","digest":"\#(someDigest)","size":1"#, "mediaType", .empty),
            (#""mediaType":"a","digest":"\#(someDigest)""#, "size", .missing),
            (#""mediaType":"a","digest":"\#(someDigest)","size":null"#, "size", .notSize(.null)),
            (#""mediaType":"a","digest":"\#(someDigest)","size":-1"#, "size", .notSize(-1)),
            (#""mediaType":"a","digest":"\#(someDigest)","size":1.0"#, "size", .notSize(.double(1))),
            (#""mediaType":"a","digest":"\#(someDigest)","size":"1""#, "size", .notSize("1")),
            (#""mediaType":"a","digest":"\#(someDigest)","size":9223372036854775808"#, "size", .notSize(.unsigned(1 << 63))),
            (#""mediaType":"a","digest":7,"size":1"#, "digest", .wrongType(.number, wanted: .string)),
            (
                #""mediaType":"a","digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1"#, "digest",
                .notDigest("md5:d41d8cd98f00b204e9800998ecf8427e")
            ),
            (#""mediaType":"a","digest":"sha256:/etc/passwd\u001b","size":1"#, "digest", .notDigest("sha256:/etc/passwd\u{1b}")),
            (#""mediaType":"a","digest":"\#(someDigest)","size":1,"data":"x""#, "data", .notBase64),
            (#""mediaType":"a","digest":"\#(someDigest)","size":1,"data":"QUI=""#, "data", .notDescribed),
            (#""mediaType":"a","digest":"\#(someDigest)","size":2,"data":"QUI=""#, "data", .notDescribed),
        ] as [(String, String, OCIError.MemberFault)])
    func refusedDescriptors(_ members: String, _ member: String, _ memberFault: OCIError.MemberFault) {
        #expect(Refusal(layer(members)) == .member("layers[0]." + member, memberFault))
    }

    @Test(arguments: [
        ("", ""), ("YQ==", "a"), ("YWI=", "ab"), ("YWJj", "abc"), ("Pz8/", "???"), ("Pj4+", ">>>"), ("YWJj\\n", "abc"),
        ("\\nYW\\r\\nI=\\r", "ab"),
    ])
    func embeddedData(_ base64: String, _ text: String) throws {
        let digest = ContentDigest.of(Array(text.utf8), .sha512)
        let layers = #"[{"mediaType":"a","digest":"\#(digest)","size":\#(text.utf8.count),"data":"\#(base64)"}]"#
        let read = try Manifest(parsing: Array(manifest(config: "application/x", layers: layers).utf8))
        #expect(read.layers.first?.data == Array(text.utf8))
    }

    @Test(arguments: ["YQ", "YQ=", "YR==", "Y===", "====", "YQ==YQ==", "YW I=", "YWJj\\t", "-_-_"])
    func notBase64(_ text: String) {
        let members = #""mediaType":"a","digest":"\#(someDigest)","size":1,"data":"\#(text)""#
        #expect(fault(layer(members))?.contains("is not base64") == true)
    }

    @Test func layersOfImagesAreArchives() throws {
        let config = Array(#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["\#(someDigest)"]}}"#.utf8)
        func image(_ types: String...) -> String? {
            let layers = types.map { #"{"mediaType":"\#($0)","digest":"\#(someDigest)","size":1}"# }.joined(separator: ",")
            do throws(OCIError) {
                let read = try Manifest(parsing: Array(manifest(layers: "[\(layers)]").utf8))
                return try read.imageConfig(from: config) == nil ? "an artifact" : nil
            } catch { return error.description }
        }
        let archive = "application/vnd.oci.image.layer.v1.tar+gzip"
        #expect(image("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip") == nil)
        #expect(image("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")?.contains("layer 1 is encrypted") == true)
        #expect(image("application/vnd.oci.image.layer.nydus.blob.v1")?.contains("not the type of an image layer") == true)
        #expect(image(archive, "application/vnd.in-toto+json")?.contains("layer 2 has the media type") == true)
        #expect(image("application/vnd.dev.cosign.simplesigning.v1+json") == "an artifact")
    }

    /// Documents that exist in registries. These members affect neither a tree nor a digest.
    @Test(arguments: [
        manifest(more: #","annotations":{"a":1,"b":null,"c":{}}"#), manifest(more: #","annotations":[]"#),
        manifest(more: #","artifactType":1"#),
        manifest(more: #","subject":{"mediaType":"x"}"#), manifest(more: #","subject":"x""#),
        layer(#""mediaType":"a","digest":"\#(someDigest)","size":1,"urls":"x""#),
        layer(#""mediaType":"a","digest":"\#(someDigest)","size":1,"urls":[1]"#),
        layer(#""mediaType":"a","digest":"\#(someDigest)","size":1,"platform":[]"#),
        layer(#""mediaType":"a","digest":"\#(someDigest)","size":1,"platform":{"os":1,"os.features":"x"},"annotations":"x""#),
    ])
    func membersThatNothingDependsOn(_ text: String) { #expect(fault(text) == nil, "\(text)") }

    @Test func whatIsLeftOut() throws {
        let config = #""config":{"digest":"\#(someDigest)","size":2}"#
        for text in [#"{"schemaVersion":2,\#(config),"layers":null}"#, #"{"schemaVersion":2,\#(config)}"#] {
            let read = try Manifest(parsing: Array(text.utf8))
            #expect(read.layers.isEmpty && read.config.mediaType == "" && read.mediaType == MediaType.ociManifest)
        }
        let read = try Manifest(parsing: Array(manifest(more: #","annotations":{"a":1,"b":null,"c":"d"}"#).utf8))
        #expect(read.annotations == ["a": "1", "c": "d"])
    }

    @Test func layerTypes() {
        let oci = "application/vnd.oci.image.layer.v1.tar"
        let docker = "application/vnd.docker.image.rootfs.diff.tar"
        #expect(LayerMediaType(oci)?.compression == CompressionFormat.none)
        #expect(LayerMediaType(oci + "+gzip")?.compression == .gzip)
        #expect(LayerMediaType(oci + "+zstd")?.compression == .zstd)
        #expect(LayerMediaType(docker)?.compression == CompressionFormat.none)
        #expect(LayerMediaType(docker + ".gzip")?.compression == .gzip)
        #expect(LayerMediaType(docker + ".zstd")?.isDistributable == true)
        #expect(LayerMediaType("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip")?.isDistributable == false)
        for type in [oci + ".gzip", docker + "+gzip", oci + "+xz", oci + "+gzip+encrypted", "", "text/plain"] {
            #expect(LayerMediaType(type) == nil)
        }
    }

    @Test func noFlipTraps() {
        let bytes = Array(manifest(more: #","annotations":{"k":"v"}"#).utf8)
        for count in 0..<bytes.count { #expect((try? ManifestDocument(parsing: Array(bytes[..<count]), mediaType: nil)) == nil) }
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                if case .manifest(let read)? = try? ManifestDocument(parsing: damaged, mediaType: nil) { #expect(read.bytes == damaged) }
            }
        }
    }

    @Test func tooLargeIsNotRead() {
        let text = manifest(more: ",\"x\":\"" + String(repeating: "x", count: ImageLimits.largestManifest) + "\"")
        #expect(fault(text)?.contains("the limit is 67108864") == true)
    }
}

@Suite struct ModelsConfigTests {
    private func fault(_ text: String) -> String? {
        do throws(OCIError) {
            _ = try ImageConfig(parsing: Array(text.utf8))
            return nil
        } catch { return error.description }
    }

    @Test func everythingIsRead() throws {
        let text = """
            {"architecture":"arm","os":"linux","variant":"v7","os.version":"1","created":"2024-01-02T03:04:05Z","author":"x",\
            "rootfs":{"type":"layers","diff_ids":["\(someDigest)","\(someDigest)"]},"history":[{"empty_layer":true}],\
            "config":{"Env":["A=b"],"Cmd":["sh"],"Entrypoint":["/e"],"User":"1:2","WorkingDir":"/w","ExposedPorts":{"80/tcp":{}},\
            "Volumes":{"/v":{}},"Labels":{"l":"m"},"StopSignal":"SIGINT","Healthcheck":{"Test":[]}}}
            """
        let config = try ImageConfig(parsing: Array(text.utf8))
        #expect(config.bytes == Array(text.utf8))
        #expect(config.platform == Platform(os: "linux", architecture: "arm", variant: "v7", osVersion: "1"))
        #expect(config.created == "2024-01-02T03:04:05Z")
        #expect(config.diffIDs.map(\.description) == [someDigest, someDigest])
        #expect(config.runtime.environment == ["A=b"])
        #expect(config.runtime.command == ["sh"])
        #expect(config.runtime.entrypoint == ["/e"])
        #expect(config.runtime.user == "1:2")
        #expect(config.runtime.workingDirectory == "/w")
        #expect(config.runtime.exposedPorts == ["80/tcp"])
        #expect(config.runtime.volumes == ["/v"])
        #expect(config.runtime.labels == ["l": "m"])
        #expect(config.runtime.stopSignal == "SIGINT")
    }

    @Test func whatDockerLeavesNull() throws {
        let text = """
            {"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Labels":null,"Volumes":null,"ExposedPorts":null,"User":""},\
            "rootfs":{"type":"layers","diff_ids":null}}
            """
        let config = try ImageConfig(parsing: Array(text.utf8))
        #expect(config.diffIDs.isEmpty)
        #expect(config.runtime.command == nil)
        #expect(config.runtime.user == "")
        #expect(config.os == "")
        #expect(try ImageConfig(parsing: Array(#"{"rootfs":{"type":"layers"}}"#.utf8)).runtime == RuntimeConfig())
    }

    @Test(arguments: [
        (#"{}"#, #""rootfs" is missing"#), (#"{"rootfs":null}"#, "is null"), (#"{"rootfs":[]}"#, "is an array"),
        (#"{"rootfs":{"type":"layers","diff_ids":{}}}"#, #""rootfs.diff_ids" is an object, not an array"#),
        (#"{"rootfs":{"type":"overlay","diff_ids":[]}}"#, #"is "overlay", not "layers""#),
        (#"{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}"#, #""rootfs.diff_ids[0]" is "sha256:x""#),
        (#"{"rootfs":{"type":"layers","diff_ids":[3]}}"#, "is a number"), (#"{"rootfs":{"type":3}}"#, #""rootfs.type" is a number"#),
    ])
    func refused(_ text: String, _ part: String) { #expect(fault(text)?.contains(part) == true, "\(fault(text) ?? "")") }

    /// Documents of docker, buildah and older tools. These members affect neither a tree nor a digest.
    @Test func otherTypesThanSpecified() throws {
        let config = try ImageConfig(
            parsing: Array(
                """
                {"architecture":[],"os":7,"created":7,"author":{},"history":null,"rootfs":{},"config":{"Env":{"A":"b"},"Cmd":"run me",\
                "Entrypoint":"/e","Volumes":["/a","/b"],"ExposedPorts":["80/tcp"],"Labels":{"n":5,"t":true,"z":null,"s":"x"},"User":7,\
                "WorkingDir":[],"StopSignal":15,"Healthcheck":"none"}}
                """.utf8))
        #expect(config.diffIDs.isEmpty && config.architecture == "" && config.os == "7" && config.created == "7" && config.author == nil)
        #expect(config.runtime.environment.isEmpty && config.runtime.command == ["run me"] && config.runtime.entrypoint == ["/e"])
        #expect(config.runtime.volumes == ["/a", "/b"] && config.runtime.exposedPorts == ["80/tcp"])
        #expect(config.runtime.labels == ["n": "5", "t": "true", "s": "x"])
        #expect(config.runtime.user == "7" && config.runtime.workingDirectory == nil && config.runtime.stopSignal == "15")
        #expect(config.runtime.healthcheck == nil)
        let odd = try ImageConfig(parsing: Array(#"{"rootfs":{"type":"layers"},"config":{"Cmd":7,"Labels":[],"Volumes":3}}"#.utf8))
        #expect(odd.runtime == RuntimeConfig())
        #expect(try ImageConfig(parsing: Array(#"{"rootfs":{"diff_ids":[]},"config":"x"}"#.utf8)).runtime == RuntimeConfig())
    }
}
