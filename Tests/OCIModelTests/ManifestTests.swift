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
        #expect(fault(#"{"schemaVersion":2}"#) == "manifest: it is neither an image manifest nor an index")
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

    @Test(arguments: [
        (manifest(type: MediaType.dockerManifest), MediaType.ociManifest, "but it was announced as"),
        (manifest(type: MediaType.ociIndex), nil, #""manifests" is missing"#),
        (manifest(type: "application/x"), nil, "neither an image manifest nor an index"),
        (manifest(), "application/x", "neither an image manifest nor an index"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#, nil, "schema 1"),
        (#"{"schemaVersion":3,"layers":[]}"#, nil, #""schemaVersion" is not 2"#),
        (#"{"schemaVersion":"2","layers":[]}"#, nil, #""schemaVersion" is not 2"#),
        (#"{"layers":[]}"#, nil, #""schemaVersion" is missing"#),
        (#"{"schemaVersion":2,"mediaType":5,"layers":[]}"#, nil, #""mediaType" is a number, not a string"#),
        (manifest(layers: "{}"), nil, #""layers" is an object, not an array"#),
        (manifest(layers: "[7]"), nil, #""layers[0]" is a number, not an object"#),
        (manifest(more: #","manifests":[]"#), nil, "both a manifest and an index"),
        (#"{"schemaVersion":2,"manifests":[],"config":{}}"#, MediaType.ociIndex, "both a manifest and an index"),
        (#"{"schemaVersion":2,"manifests":null}"#, MediaType.ociIndex, "null, not an array"),
        (#"{"schemaVersion":2,"layers":[]}"#, MediaType.ociManifest, #""config" is missing"#),
        (#"{"schemaVersion":2,"manifests":[{"annotations":{"org.opencontainers.image.ref.name":5}}]}"#, nil, "is a number, not a string"),
        (manifest(more: #","layers":[]"#), nil, "occurs twice"),
        ("[]", nil, "an array, not an object"), ("null", nil, "null, not an object"), ("\u{feff}{}", nil, "byte-order mark"),
    ])
    func refused(_ text: String, _ type: String?, _ part: String) {
        #expect(fault(text, type)?.contains(part) == true, "\(fault(text, type) ?? "")")
    }

    @Test(arguments: [
        (#""digest":"\#(someDigest)","size":1"#, #""layers[0].mediaType" is missing"#),
        (#""mediaType":"","digest":"\#(someDigest)","size":1"#, "is empty"),
        (#""mediaType":"a","digest":"\#(someDigest)""#, #""layers[0].size" is missing"#),
        (#""mediaType":"a","digest":"\#(someDigest)","size":null"#, "is null, not a size"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":-1"#, "is -1, not a size"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":1.0"#, "is 1.0, not a size"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":"1""#, "is a string, not a size"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":9223372036854775808"#, "not a size"),
        (#""mediaType":"a","digest":7,"size":1"#, #""layers[0].digest" is a number"#),
        (#""mediaType":"a","digest":"md5:d41d8cd98f00b204e9800998ecf8427e","size":1"#, "not a sha256, sha384 or sha512 digest"),
        (#""mediaType":"a","digest":"sha256:/etc/passwd\u001b","size":1"#, #"sha256:/etc/passwd\x1b""#),
        (#""mediaType":"a","digest":"\#(someDigest)","size":1,"data":"x""#, "is not base64"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":1,"data":"QUI=""#, "does not match the descriptor"),
        (#""mediaType":"a","digest":"\#(someDigest)","size":2,"data":"QUI=""#, "does not match the descriptor"),
    ])
    func refusedDescriptors(_ members: String, _ part: String) {
        #expect(fault(layer(members))?.contains(part) == true, "\(fault(layer(members)) ?? "")")
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
