import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

private let label = "containers.composefs.fsverity"

/// `cfsoci seal`, what it stores and sends, and commands that demand it.
@Suite struct SealingTests {
    /// The identifiers that the reference implementation gives the image for booting of this image.
    private static let bootID =
        "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"

    private static let bootable = LayoutBuilder(
        layers: [
            tarArchive([
                TarMember(name: "usr/", mode: 0o755, type: "5"), TarMember(name: "boot/", mode: 0o755, type: "5"),
                TarMember(name: "sysroot/", mode: 0o755, type: "5"),
                TarMember(name: "usr/hello.txt", content: Array("hello from bootable test layer\n".utf8)),
            ]),
            tarArchive([TarMember(name: "boot/kernel", content: Array("kernel".utf8))]),
        ], compressor: "gzip")

    private static func makeKey(_ path: String) throws {
        let made = try launch(
            "openssl",
            [
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path + ".key", "-out", path + ".crt", "-days", "2", "-subj",
                "/CN=k",
            ])
        try #require(made.status == 0, "\(made.error)")
    }

    private static func id(_ bytes: [UInt8]) -> ObjectID { bytes.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) } }

    /// A store with the image as `os`, and a key beside it.
    private static func store(_ options: [String] = []) throws -> (store: ContractStore, image: ContractImage, signing: [String]) {
        let store = try ContractStore(["--algorithm", "fsverity-sha512-12"] + options)
        let manifest = try bootable.write(to: store.layoutPath("os"))
        try store.succeed(["pull", "oci:" + store.layoutPath("os"), "os", "--keep-blobs"])
        let key = store.folder.path + "/signer"
        try makeKey(key)
        let image = try ContractImage(layout: store.layoutPath("os"), manifest: manifest, layers: bootable.layers)
        return (store, image, ["--sign-key", key + ".key", "--sign-cert", key + ".crt"])
    }

    private func inspect(_ store: ContractStore, _ name: String) throws -> JSONValue { try store.succeed(["inspect", name]).json() }

    // MARK: Documents

    /// The same image and key, in another second, are the same documents, also if the image has no time.
    @Test func sameDocuments() throws {
        let (store, _, signing) = try Self.store()
        var documents: [[JSONValue?]] = []
        for name in ["one", "two"] {
            let sealed = try store.succeed(["seal", "os", name, "--json"] + signing).json()
            documents.append(["manifestDigest", "configDigest", "signatureDigest"].map { sealed[$0] })
            usleep(1_100_000)
        }
        #expect(documents[0] == documents[1] && documents[0].allSatisfy { $0?.string?.hasPrefix("sha256:") == true }, "\(documents)")
    }

    /// The sealed config and manifest differ from the image's in what states the digests, and in nothing else.
    @Test func statesTheDigests() throws {
        let (store, image, _) = try Self.store()
        let before = try inspect(store, "os")
        let merged = try #require(before["imageIds"]?["v1"]?.string)
        let sealed = try store.succeed(["seal", "os", "sealed", "--json"]).json()
        #expect(sealed["name"] == "sealed" && sealed["imageId"]?.string == merged)
        #expect(sealed["bootImageId"] == .null && sealed["signatureDigest"] == .null && sealed["layerIds"] == [])
        let configBytes = try store.succeed(["inspect", "sealed", "--config"]).output
        let manifestBytes = try store.succeed(["inspect", "sealed", "--manifest"]).output
        #expect(sealed["configDigest"]?.string == ContentDigest.of(configBytes).description)
        #expect(sealed["manifestDigest"]?.string == ContentDigest.of(manifestBytes).description)

        var config = try JSONValue.parse(image.configBytes)
        config["config"] = ["Labels": [label: .string(merged)]]
        #expect(try JSONValue.parse(configBytes) == config)
        var manifest = try JSONValue.parse(image.manifestBytes)
        manifest["config"]?["digest"] = .string(ContentDigest.of(configBytes).description)
        manifest["config"]?["size"] = .integer(Int64(configBytes.count))
        manifest["config"]?["annotations"] = ["composefs.config.fsverity-sha512-12": .string(Self.id(configBytes).hex)]
        manifest["annotations"] = ["composefs.merged.erofs.v1.fsverity-sha512-12": .string(merged)]
        #expect(try JSONValue.parse(manifestBytes) == manifest)

        // The image that was sealed is still there, and the sealed one has the same tree.
        let after = try inspect(store, "sealed")
        #expect(try inspect(store, "os") == before)
        #expect(after["imageIds"] == before["imageIds"] && after["layers"] == before["layers"])
        #expect(try store.succeed(["fsck", "--deep"]).lines.last == "status: ok")
        // To seal it again changes nothing.
        #expect(try store.succeed(["seal", "sealed", "--json"]).json() == sealed)
        // Without a name, the tag moves.
        let lines = try store.succeed(["seal", "os"]).lines
        #expect(
            lines == ["manifest", "config", "image"].enumerated().map { index, word in
                "\(word)  \(sealed[["manifestDigest", "configDigest", "imageId"][index]]?.string ?? "")"
            } + ["tagged  os"])
        #expect(try inspect(store, "os")["manifestDigest"] == sealed["manifestDigest"])
    }

    /// Labels and annotations that are there stay; those of an earlier seal are replaced.
    @Test func replacesAnEarlierSeal() throws {
        let store = try ContractStore()
        var parts = ContractLayout(layers: LayoutBuilder.small().layers)
        parts.config =
            #"{"created":"2024-01-02T03:04:05Z","architecture":"amd64","os":"linux","config":{"Env":["A=1"],"Labels":{"a":"<b>","\#(label)":"00","z":"é"}},"rootfs":{"type":"layers","diff_ids":[DIFFIDS]},"history":[{"comment":"x"}]}"#
        // Of an algorithm that this repository does not have, so that the pull does not compare it.
        parts.manifestMembers = #","annotations":{"composefs.merged.erofs.v1.fsverity-sha256-12":"00","other":"kept"}"#
        let image = try store.pull(parts, as: "t")
        let id = try #require(try inspect(store, "t")["imageIds"]?["v1"]?.string)
        try store.succeed(["seal", "t"])
        var config = try JSONValue.parse(image.configBytes)
        config["config"]?["Labels"]?[label] = .string(id)
        let bytes = try store.succeed(["inspect", "t", "--config"]).output
        #expect(try JSONValue.parse(bytes) == config)
        #expect(String(decoding: bytes, as: UTF8.self).contains(#""Labels":{"a":"<b>","\#(label)":"\#(id)","z":"é"}"#))
        let manifest = try JSONValue.parse(store.succeed(["inspect", "t", "--manifest"]).output)
        #expect(manifest["annotations"] == ["other": "kept", "composefs.merged.erofs.v1.fsverity-sha512-12": .string(id)])
    }

    /// Each layer's digest is that of an image that has this layer only.
    @Test func layersAndTheImageForBooting() throws {
        let (store, _, _) = try Self.store()
        let sealed = try store.succeed(["seal", "os", "--layers", "--bootable", "--json"]).json()
        #expect(sealed["bootImageId"]?.string == Self.bootID)
        var single: [JSONValue] = []
        for (index, layer) in Self.bootable.layers.enumerated() {
            _ = try store.pull(LayoutBuilder(layers: [layer]), as: "layer\(index)")
            single.append(try #require(try inspect(store, "layer\(index)")["imageIds"]?["v1"]))
        }
        #expect(sealed["layerIds"] == .array(single))
        let manifest = try JSONValue.parse(store.succeed(["inspect", "os", "--manifest"]).output)
        #expect(
            manifest["layers"]?.array?.map { $0["annotations"] }
                == single.map { ["composefs.layer.erofs.v1.fsverity-sha512-12": $0] })
        #expect(manifest["annotations"]?["composefs.merged.bootable.erofs.v1.fsverity-sha512-12"]?.string == Self.bootID)
        // It is recorded, and a seal that does not ask for it keeps it.
        #expect(try store.succeed(["boot", "karg", "os"]).lines == ["composefs.digest=?v1-sha512-12:" + Self.bootID])
        try store.succeed(["seal", "os"])
        #expect(try inspect(store, "os")["bootImageIds"]?["composefs.image.boot.v1"]?.string == Self.bootID)
        #expect(try store.succeed(["fsck", "--deep"]).lines.last == "status: ok")
    }

    @Test(arguments: [["--erofs-version", "2"], ["--erofs-version", "0"], ["--erofs-version", "2", "--erofs-version", "1"]])
    func otherFormats(options: [String]) throws {
        let (v1, _, _) = try Self.store()
        let id = try #require(try inspect(v1, "os")["imageIds"]?["v1"]?.string)
        let (store, _, _) = try Self.store(options)
        let own = try inspect(store, "os")["imageIds"]
        let sealed = try store.succeed(["seal", "os", "sealed", "--bootable", "--json"]).json()
        #expect(sealed["imageId"]?.string == id && sealed["bootImageId"]?.string == Self.bootID)
        #expect(try store.succeed(["compute-id", "sealed", "--erofs-version", "1"]).lines == [id])
        for (key, value) in own?.object?.members ?? [] { #expect(try inspect(store, "sealed")["imageIds"]?[key] == value) }
        #expect(try store.succeed(["fsck", "--deep"]).lines.last == "status: ok")
        #expect(try store.refuse(["mount", "--require-seal", "sealed", "/nowhere"]).contains("/nowhere"))
        #expect(try store.refuse(["mount", "--require-seal", "os", "/nowhere"], status: 4).contains("has no label"))
    }

    @Test func refusals() throws {
        let (store, image, signing) = try Self.store()
        let files = store.files
        for half in [Array(signing.prefix(2)), Array(signing.suffix(2))] {
            let result = try store.run(["seal", "os"] + half)
            #expect(result.status == 64 && result.error.contains("--sign-key and --sign-cert need each other"))
        }
        #expect(try store.refuse(["seal", "none"], status: 3).contains("no image \"none\""))
        #expect(try store.refuse(["seal", "os", "@x"]).contains("cannot be a tag"))
        #expect(try store.refuse(["seal", "os", "--sign-key", signing[3], "--sign-cert", signing[3]]).contains("holds no private key"))
        #expect(store.files == files)
        // By its digest, an image without a tag needs a name.
        try store.succeed(["tag", "os", "other"])
        try store.succeed(["seal", "os"])
        try store.succeed(["seal", "other"])
        #expect(
            try store.refuse(["seal", image.manifest]).hasSuffix(
                "has no name, and the sealed image needs one; give it as the second argument"))
        try store.succeed(["seal", image.manifest, "again"])
        _ = try store.pull(LayoutBuilder.small(), as: "small")
        #expect(try store.refuse(["seal", "small", "--bootable"]).contains("/boot"))
        _ = try store.pull(ContractLayout.artifact("note"), as: "note")
        #expect(try store.refuse(["seal", "note"]).contains("is an artifact"))
    }

    // MARK: Signatures

    /// The artifact has the order and the annotations of the specification, and openssl verifies each signature.
    @Test func signatures() throws {
        let (store, _, signing) = try Self.store()
        let sealed = try store.succeed(["seal", "os", "--bootable", "--json"] + signing).json()
        let digest = try #require(sealed["signatureDigest"]?.string)
        #expect(try inspect(store, "os")["referrers"] == [.string(digest)])
        let bytes = try store.succeed(["inspect", digest, "--manifest"]).output
        let artifact = try JSONValue.parse(bytes)
        #expect(artifact["artifactType"] == "application/vnd.composefs.metadata.v1")
        #expect(artifact["config"]?["mediaType"] == "application/vnd.oci.empty.v1+json")
        let manifest = try store.succeed(["inspect", "os", "--manifest"]).output
        #expect(
            artifact["subject"]
                == [
                    "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": .string(ContentDigest.of(manifest).description),
                    "size": .integer(Int64(manifest.count)),
                ])
        let layerIDs = (sealed["layerIds"]?.array ?? []).compactMap(\.string)
        #expect(layerIDs.count == 2)
        // The manifest does not state what it was not asked to.
        #expect(try JSONValue.parse(manifest)["layers"]?.array?.allSatisfy { $0["annotations"] == nil } == true)
        let merged = try #require(try inspect(store, "os")["imageIds"]?["v1"]?.string)
        let expected: [(String, String)] =
            [
                ("manifest", Self.id(manifest).hex), ("config", Self.id(try store.succeed(["inspect", "os", "--config"]).output).hex),
                ("merged.erofs.v1", merged), ("merged.bootable.erofs.v1", Self.bootID),
            ] + layerIDs.map { ("layer.erofs.v1", $0) }
        let layers = artifact["layers"]?.array ?? []
        #expect(
            layers.map { $0["annotations"] } == expected.map { ["composefs.\($0.0).fsverity-sha512-12": .string($0.1)] })
        #expect(layers.allSatisfy { $0["mediaType"] == "application/vnd.composefs.signature.v1+pkcs7" })
        try store.succeed(["push", "os", "oci:" + store.folder.path + "/out:t"])
        for (layer, (_, hex)) in zip(layers, expected) {
            let blob = store.folder.path + "/out/blobs/" + (layer["digest"]?.string ?? "").replacing(":", with: "/")
            let message = store.folder.path + "/message"
            try writeFile(message, VeritySignature.message(for: try #require(ObjectID(hex: hex))))
            let verified = try launch(
                "openssl",
                [
                    "smime", "-verify", "-binary", "-inform", "der", "-in", blob, "-content", message, "-certfile", signing[3], "-nointern",
                    "-noverify", "-out", "/dev/null",
                ])
            #expect(verified.status == 0, "\(verified.error)")
        }
        // It lives as long as the image, and the same key signs the same.
        try store.succeed(["gc"])
        #expect(try store.succeed(["fsck", "--deep"]).lines.last == "status: ok")
        let again = try store.succeed(["seal", "os", "--bootable", "--json"] + signing).json()
        #expect(again["manifestDigest"] == sealed["manifestDigest"])
        try store.succeed(["untag", "os"])
        try store.succeed(["prune", "--yes"])
        #expect(try store.refuse(["inspect", digest], status: 3).contains("no image"))
    }

    // MARK: Sending, and demanding

    private func sealedLayout() throws -> (store: ContractStore, sealed: JSONValue, source: String) {
        let (store, _, signing) = try Self.store()
        let sealed = try store.succeed(["seal", "os", "--bootable", "--layers", "--json"] + signing).json()
        let source = store.folder.path + "/out"
        let pushed = try store.succeed(["push", "os", "oci:" + source, "--json"]).json()
        #expect(pushed["manifestDigest"] == sealed["manifestDigest"])
        #expect(pushed["referrers"] == .array([sealed["signatureDigest"] ?? .null]))
        return (store, sealed, source)
    }

    /// A sealed image goes through a registry with its artifact, unchanged.
    @Test func travels() throws {
        let (author, sealed, source) = try sealedLayout()
        defer { withExtendedLifetime(author) {} }
        let server = try LayoutServer(layout: source)
        defer { server.stop() }
        let other = try ContractStore(["--algorithm", "fsverity-sha512-12"])
        let pull = ["pull", server.reference, "--require-seal", "--json"]
        let pulled = try other.succeed(pull + ["--referrers", "--bootable"]).json()
        #expect(pulled["manifestDigest"] == sealed["manifestDigest"] && pulled["referrers"] == .array([sealed["signatureDigest"] ?? .null]))
        #expect(pulled["imageId"] == sealed["imageId"])
        #expect(try inspect(other, server.reference)["bootImageIds"]?["composefs.image.boot.v1"]?.string == Self.bootID)
        // The stored image is as good.
        #expect(try other.succeed(pull).json()["outcome"] == "present")
        #expect(try other.succeed(["fsck", "--deep"]).lines.last == "status: ok")
    }

    /// If the layers are compressed again, the manifest changes, and so does what its artifact may say.
    @Test func travelsRewritten() throws {
        let (store, sealed, _) = try sealedLayout()
        let out = "oci:" + store.folder.path + "/packed:os"
        let kept = try store.run(["push", "os", out, "--compression", "zstd"])
        #expect(kept.status == 0 && kept.error.contains("referrers"))
        let pushed = try store.run(["push", "os", out, "--compression", "zstd", "--referrers", "rewrite", "--json"]).json()
        #expect(pushed["manifestDigest"] != sealed["manifestDigest"])
        let digest = try #require(pushed["referrers"]?.array?.first?.string)
        let artifact = try JSONValue.parse(readFile(store.folder.path + "/packed/blobs/" + digest.replacing(":", with: "/")))
        #expect(artifact["subject"]?["digest"] == pushed["manifestDigest"])
        let keys = (artifact["layers"]?.array ?? []).compactMap { $0["annotations"]?.object?.keys.first }
        #expect(
            Array(keys.prefix(3))
                == ["config.", "merged.erofs.v1.", "merged.bootable.erofs.v1."].map { "composefs.\($0)fsverity-sha512-12" })
        let other = try ContractStore(["--algorithm", "fsverity-sha512-12"])
        try other.succeed(["pull", out, "os", "--require-seal", "--referrers"])
        #expect(try other.succeed(["fsck", "--deep"]).lines.last == "status: ok")
    }

    private func event(_ result: CommandResult) throws -> JSONValue {
        try JSONValue.parse(Array((result.error.split(separator: "\n").last ?? "").utf8))
    }

    /// A label for the small image, in a layout.
    private func labelled(_ store: ContractStore, _ text: String?, _ name: String) throws -> String {
        var parts = ContractLayout(layers: LayoutBuilder.small().layers)
        if let text { parts.config = parts.config.replacing(#""config":{}"#, with: #""config":{"Labels":{"\#(label)":"\#(text)"}}"#) }
        _ = try parts.write(to: store.layoutPath(name))
        return "oci:" + store.layoutPath(name)
    }

    @Test func unsealedImagesAreRefused() throws {
        let (store, _) = try ContractStore.small()
        let id = try #require(try inspect(store, "t")["imageIds"]?["v1"]?.string)
        let wrong = String(id.reversed())
        let cases: [(String?, String)] = [
            (nil, "has no label \(label); its author seals it with `cfsoci seal`"),
            (
                wrong,
                "the sealed fs-verity digest of its merged is \(wrong), and the actual one is \(id); its author seals it with `cfsoci seal`"
            ),
            (id.uppercased(), "is \"\(id.uppercased())\", not an fs-verity digest in hexadecimal; its author seals it with `cfsoci seal`"),
            ("", "is \"\", not an fs-verity digest in hexadecimal; its author seals it with `cfsoci seal`"),
            ("sha256:" + id, "not an fs-verity digest in hexadecimal; its author seals it with `cfsoci seal`"),
            (
                String(id.prefix(64)),
                "it is sealed with sha256, and the repository has sha512; a repository that `cfsoci init --algorithm fsverity-sha256-12` makes can use it"
            ),
        ]
        for (number, (text, message)) in cases.enumerated() {
            let source = try labelled(store, text, "case\(number)")
            let empty = try ContractStore()
            #expect(try empty.refuse(["pull", source, "x", "--require-seal"], status: 4).hasSuffix(message), "\(number)")
            #expect(empty.files.allSatisfy { !$0.hasPrefix("streams/refs/oci/") && !$0.hasPrefix("images/") || $0 == "images/refs" })
            let refused = try empty.run(["pull", source, "x", "--require-seal", "--json"])
            #expect(try refused.status == 4 && event(refused)["code"] == "not-sealed")
            #expect(try empty.succeed(["images", "--json"]).json()["images"] == [])
            try empty.succeed(["gc"])
            #expect(empty.files.filter { $0.hasPrefix("objects/") && $0.utf8.count > "objects/00".utf8.count } == [])
            // The image is of use where no seal is required.
            try store.succeed(["pull", source, "case\(number)"])
            let files = store.files
            #expect(try store.refuse(["mount", "case\(number)", "/", "--require-seal"], status: 4).hasSuffix(message))
            #expect(
                try store.refuse(["mount", "case\(number)", "/", "--require-seal", "--fuse", "--foreground"], status: 4).hasSuffix(message))
            #expect(store.files == files)
        }
        #expect(try store.refuse(["mount", id, "/", "--require-seal"], status: 4).contains("has no config; name the image"))
        _ = try store.pull(ContractLayout.artifact("note"), as: "note")
        #expect(try store.refuse(["pull", "oci:" + store.layoutPath("note"), "n", "--require-seal"], status: 4).contains("has no label"))
        // Both forms of the label.
        for (number, text) in [id, "sha512:" + id].enumerated() {
            let source = try labelled(store, text, "right\(number)")
            try store.succeed(["pull", source, "right\(number)", "--require-seal"])
            #expect(try store.refuse(["mount", "right\(number)", "/nowhere", "--require-seal"]).contains("/nowhere"))
            #expect(
                try store.refuse(["mount", "right\(number)", "/nowhere", "--require-seal", "--bootable"], status: 4).contains(
                    "has no annotation composefs.merged.bootable.erofs.v1.fsverity-sha512-12; its author seals it with `cfsoci seal --bootable`"
                ))
        }
    }

    /// What the store records is not believed: a link to another image of the store changes nothing.
    @Test(.enabled("mounting needs root") { getuid() == 0 }) func sealedImagesAreMounted() throws {
        let (store, _, _) = try Self.store()
        let target = store.folder.path + "/mounted"
        mkdir(target, 0o755)
        try store.succeed(["seal", "os", "--bootable"])
        #expect(try store.run(["mount", "os", target, "--require-seal", "-q"]).status == 0)
        #expect(try readFile(target + "/usr/hello.txt") == Array("hello from bootable test layer\n".utf8))
        #expect(fileList(target).contains("boot/kernel"))
        try store.succeed(["umount", target])
        #expect(try store.run(["mount", "os", target, "--require-seal", "--bootable", "-q"]).status == 0)
        #expect(fileList(target).contains("boot") && !fileList(target).contains("boot/kernel"))
        try store.succeed(["umount", target])
    }
}
