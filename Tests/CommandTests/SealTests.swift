import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import ComposefsLinuxSystem
import Glibc
import Testing

/// The small image in a layout, with its author's fs-verity digests and signatures.
private struct SealedLayout {
    let builder = LayoutBuilder.small()
    /// Annotations.
    var manifest: [String: String] = [:]
    var config: [String: String] = [:]
    /// Layers of an artifact that refers to the manifest: the annotation, the digest, the signature.
    var artifact: [(key: String, digest: String, signature: [UInt8])] = []

    private var configBytes: [UInt8] {
        let diffIDs = builder.layers.map { "\"\(ContentDigest.of($0))\"" }.joined(separator: ",")
        return Array(#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[\#(diffIDs)]}}"#.utf8)
    }

    /// The config's fs-verity digest.
    func configID(_ algorithm: VerityAlgorithm = .sha512) -> ObjectID {
        configBytes.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm) }
    }

    private static func text(_ annotations: [String: String]) -> String {
        let members = annotations.sorted { $0.key < $1.key }.map { "\"\($0.key)\":\"\($0.value)\"" }.joined(separator: ",")
        return annotations.isEmpty ? "" : #","annotations":{\#(members)}"#
    }

    static let manifestType = "application/vnd.oci.image.manifest.v1+json"

    func manifestBytes(_ blob: ([UInt8]) throws -> String) throws -> [UInt8] {
        let layers = try builder.layers.map { #"{"mediaType":"application/vnd.oci.image.layer.v1.tar",\#(try blob($0))}"# }
        let config = #"{"mediaType":"application/vnd.oci.image.config.v1+json",\#(try blob(configBytes))\#(Self.text(self.config))}"#
        return Array(
            (#"{"schemaVersion":2,"mediaType":"\#(Self.manifestType)","config":\#(config),"layers":[\#(layers.joined(separator: ","))]"#
                + "\(Self.text(manifest))}").utf8)
    }

    /// The image is tagged `t`.
    func write(to folder: String) throws {
        guard try launch("mkdir", ["-p", folder + "/blobs/sha256"]).status == 0 else { throw RunFailure(description: "mkdir \(folder)") }
        func blob(_ bytes: [UInt8]) throws -> String {
            let digest = ContentDigest.of(bytes)
            try writeFile(folder + "/blobs/sha256/" + digest.hex, bytes)
            return #""digest":"\#(digest)","size":\#(bytes.count)"#
        }
        let manifest = try blob(manifestBytes(blob))
        var entries = [
            #"{"mediaType":"\#(Self.manifestType)",\#(manifest),"annotations":{"org.opencontainers.image.ref.name":"t"}}"#
        ]
        if !artifact.isEmpty {
            let layers = try artifact.map { entry in
                #"{"mediaType":"application/vnd.composefs.signature.v1+pkcs7",\#(try blob(entry.signature)),"#
                    + #""annotations":{"\#(entry.key)":"\#(entry.digest)"}}"#
            }
            let type = #""artifactType":"application/vnd.composefs.metadata.v1""#
            let bytes = Array(
                (#"{"schemaVersion":2,"mediaType":"\#(Self.manifestType)",\#(type),"config":{"mediaType":"#
                    + #""application/vnd.oci.empty.v1+json",\#(try blob(Array("{}".utf8)))},"layers":[\#(layers.joined(separator: ","))],"#
                    + #""subject":{"mediaType":"\#(Self.manifestType)",\#(manifest)}}"#).utf8)
            entries.append(
                #"{"mediaType":"\#(Self.manifestType)",\#(try blob(bytes)),\#(type),"#
                    + #""annotations":{"org.opencontainers.image.ref.name":"seal"}}"#)
        }
        try writeFile(folder + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        try writeFile(folder + "/index.json", Array(#"{"schemaVersion":2,"manifests":[\#(entries.joined(separator: ","))]}"#.utf8))
    }
}

private let mergedKey = "composefs.merged.erofs.v1.fsverity-sha512-12"
private let configKey = "composefs.config.fsverity-sha512-12"

/// The digests that an image states are compared with the computed ones, on any file system.
@Suite struct SealTests {
    @Test func digestsAreCompared() throws {
        let (store, _) = try ContractStore.small()
        let id = try #require(try store.succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string)
        var count = 0
        func pull(_ layout: SealedLayout, _ options: [String] = []) throws -> CommandResult {
            count += 1
            try layout.write(to: store.layoutPath("\(count)"))
            return try store.run(["pull", "oci:" + store.layoutPath("\(count)") + ":t", "sealed"] + options)
        }
        let other = String(id.reversed())
        var right = SealedLayout()
        right.manifest = [mergedKey: id, "composefs.merged.erofs.v1.fsverity-sha256-12": "no digest of ours", "other": "x"]
        right.config = [configKey: right.configID().hex]
        let pulled = try pull(right)
        #expect(pulled.status == 0, "\(pulled.error)")
        #expect(pulled.lines.contains("image  \(id)"))

        var wrong = SealedLayout()
        wrong.manifest = [mergedKey: other]
        #expect(
            expectRefusal(try pull(wrong))
                == "the image's composefs seal: the stated fs-verity digest of its merged is \(other), but it is \(id)")
        #expect(try pull(wrong, ["--image-signatures", "ignore"]).status == 0)
        wrong.manifest = [:]
        wrong.config = [configKey: other]
        #expect(expectRefusal(try pull(wrong)).contains("digest of its config is \(other), but it is \(wrong.configID())"))
        for text in ["", "xyz", String(id.dropLast()), id.uppercased(), String(id.prefix(64))] {
            wrong.config = [:]
            wrong.manifest = [mergedKey: text]
            #expect(expectRefusal(try pull(wrong)).hasSuffix("manifest, annotation \(mergedKey): is not a sha512 digest in hexadecimal"))
        }
        wrong.manifest = [mergedKey: id, mergedKey + ".sig": "no base64"]
        #expect(expectRefusal(try pull(wrong)).hasSuffix("annotation \(mergedKey).sig: is not base64"))
        wrong.manifest = [mergedKey: id, mergedKey + ".sig": ""]
        #expect(expectRefusal(try pull(wrong)).hasSuffix("has 0 bytes; the kernel accepts 1 to 16128"))
        // Line breaks, as Go's decoder accepts them.
        wrong.manifest = [mergedKey: id, mergedKey + ".sig": "MA\\nA=\\r\\n"]
        #expect(try pull(wrong).status == 0)
        // A digest without its annotation is ignored.
        wrong.manifest = [mergedKey + ".sig": "no base64"]
        #expect(try pull(wrong).status == 0)
    }

    @Test func signaturesNeedVerity() throws {
        let (store, _) = try ContractStore.small()
        let source = "oci:" + store.layoutPath("t")
        #expect(
            try store.refuse(["pull", source, "--image-signatures", "require"])
                == "the image's composefs seal: a signature is required, but the repository has no fs-verity")
        try #require(try launch("openssl", ["version"]).status == 0)
        let key = store.folder.path + "/key"
        try makeKey(key)
        let signing = ["--sign-key", key + ".key", "--sign-cert", key + ".crt"]
        for command in [
            ["pull", source], ["create-image", store.layoutPath("t")], ["import-layer", "sha256:" + String(repeating: "0", count: 64)],
            ["upgrade"],
        ] {
            #expect(try store.refuse(command + signing, input: [0]).hasSuffix("has no fs-verity, so there is nothing that could be signed"))
        }
        #expect(
            expectRefusal(try Cfsoci.run(["init", store.folder.path + "/new", "--insecure"] + signing)).hasSuffix(
                "nothing that could be signed"))
        #expect(!fileList(store.folder.path).contains("new"))
    }

    /// The error occurs before anything is stored, and no repository is created.
    @Test func keysAreTriedFirst() throws {
        let folder = try TemporaryFolder()
        try makeKey(folder.path + "/a")
        try makeKey(folder.path + "/b")
        let before = fileList(folder.path)
        func refusal(_ key: String, _ certificate: String) throws -> String {
            expectRefusal(
                try Cfsoci.run([
                    "create-image", folder.path, "--repo", folder.path + "/repo", "--sign-key", folder.path + "/" + key, "--sign-cert",
                    folder.path + "/" + certificate,
                ]))
        }
        #expect(try refusal("a.key", "b.crt") == "\(folder.path)/b.crt: the certificate does not belong to the private key")
        #expect(try refusal("a.crt", "a.crt") == "\(folder.path)/a.crt: holds no private key in PEM or DER")
        #expect(try refusal("a.key", "none") == "open \(folder.path)/none: No such file or directory")
        #expect(fileList(folder.path) == before)
        let half = try Cfsoci.run(["create-image", folder.path, "--sign-key", folder.path + "/a.key"])
        #expect(half.status == 64 && half.error.contains("--sign-key and --sign-cert need each other"))
    }
}

private func makeKey(_ path: String) throws {
    let name = path.split(separator: "/").last.map(String.init) ?? ""
    let made = try launch(
        "openssl",
        [
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", path + ".key", "-out", path + ".crt", "-days", "3650", "-subj",
            "/CN=" + name,
        ])
    try #require(made.status == 0, "\(made.error)")
}

// MARK: - On a kernel that checks signatures

private let verityDirectory = getenv("CFSOCI_TEST_VERITY_DIR").map { String(cString: $0) }

/// The commands on a kernel with fs.verity.require_signatures = 1. The test certificate remains in its keyring until shutdown.
@Suite(
    .serialized,
    .enabled("needs root, a kernel that checks fs-verity signatures, and CFSOCI_TEST_VERITY_DIR on a file system with fs-verity") {
        isRoot && verityDirectory != nil && Host.veritySignatures() != .unchecked && hasProgram("keyctl") && hasProgram("fsverity")
    }) struct VeritySealTests
{
    private let base: String
    private let repository: String
    private var signing: [String] { ["--sign-key", base + "/known.key", "--sign-cert", base + "/known.crt"] }

    init() throws {
        base = (verityDirectory ?? "") + "/seal-" + Host.randomName()
        repository = base + "/repo"
        mkdir(base, 0o755)
        try makeKey(base + "/known")
        try makeKey(base + "/unknown")
        let add = "openssl x509 -in '\(base)/known.crt' -outform der | keyctl padd asymmetric '' %keyring:.fs-verity"
        try #require(try launch("sh", ["-c", add]).status == 0)
        try requireSignatures(false)
    }

    private func requireSignatures(_ isOn: Bool) throws {
        // Cached inodes have already been checked.
        let set = "sync; echo \(isOn ? 1 : 0) > /proc/sys/fs/verity/require_signatures; echo 3 > /proc/sys/vm/drop_caches"
        try #require(try launch("sh", ["-c", set]).status == 0)
    }

    private func run(_ arguments: [String], input: [UInt8]? = nil) throws -> CommandResult {
        try Cfsoci.run(arguments + ["--repo", repository], input: input)
    }

    @discardableResult
    private func succeed(_ arguments: [String], input: [UInt8]? = nil) throws -> CommandResult {
        try Cfsoci.succeed(arguments + ["--repo", repository], input: input)
    }

    /// The signature of an object, as the kernel returns it.
    private func signature(_ id: String) throws -> [UInt8]? {
        let path = repository + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        let dumped = try launch("fsverity", ["dump_metadata", "signature", path])
        return dumped.status == 0 ? dumped.output : nil
    }

    private func sign(_ key: String, _ id: ObjectID) throws -> [UInt8] {
        try writeFile(base + "/message", VeritySignature.message(for: id))
        let signed = try launch(
            "openssl",
            [
                "smime", "-sign", "-binary", "-noattr", "-outform", "der", "-in", base + "/message", "-inkey", base + "/\(key).key",
                "-signer",
                base + "/\(key).crt",
            ])
        try #require(signed.status == 0, "\(signed.error)")
        return signed.output
    }

    private var imageID: String {
        get throws { try #require(try succeed(["inspect", "t"]).json()["imageIds"]?["v1"]?.string) }
    }

    @Test(arguments: ["fsverity-sha256-12", "fsverity-sha512-12"])
    func endToEnd(_ algorithm: String) throws {
        defer { removeTree(base) }
        let builder = LayoutBuilder.small()
        try builder.write(to: base + "/layout")
        let source = "oci:" + base + "/layout"
        try requireSignatures(true)
        defer { try? requireSignatures(false) }

        // Nothing can be stored without a key, and every refusal names the reason.
        let unsigned = try Cfsoci.run(["init", repository, "--algorithm", algorithm])
        #expect(
            expectRefusal(unsigned).contains("meta.json: it has no fs-verity signature, and the kernel's fs.verity.require_signatures is 1")
        )
        #expect(access(repository, F_OK) != 0)
        let unknown = try Cfsoci.run(["init", repository, "--sign-key", base + "/unknown.key", "--sign-cert", base + "/unknown.crt"])
        #expect(expectRefusal(unknown).contains("is not in the kernel's .fs-verity keyring; openssl x509"))
        try Cfsoci.succeed(["init", repository, "--algorithm", algorithm] + signing)
        #expect(expectRefusal(try run(["pull", source, "t"])).contains("it has no fs-verity signature"))

        let pulled = try succeed(["pull", source, "t"] + signing)
        #expect(pulled.lines.last?.hasPrefix("signed  ") == true, "\(pulled.text)")
        try requireSignatures(true)
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")
        #expect(try succeed(["cat", "t", "/usr/small"]).text == "hello from test layer\n")
        #expect(try succeed(["layer", ContentDigest.of(builder.layers[0]).description]).output == builder.layers[0])
        mkdir(base + "/mounted", 0o755)
        try succeed(["mount", "t", base + "/mounted"])
        defer { umount2(base + "/mounted", Int32(MNT_DETACH)) }
        #expect(try readFile(base + "/mounted/usr/small") == Array("hello from test layer\n".utf8))
        let big = try readFile(base + "/mounted/usr/big")
        #expect(big.count == 70_000)
        try Cfsoci.succeed(["umount", base + "/mounted"])

        // The other commands that store.
        mkdir(base + "/tree", 0o755)
        try writeFile(base + "/tree/file", [UInt8](repeating: 7, count: 10_000))
        let created = try succeed(["create-image", base + "/tree", "tree"] + signing).lines[0]
        #expect(try signature(created) != nil)
        let layer = tarArchive([TarMember(name: "file", content: [UInt8](repeating: 9, count: 5000))])
        try succeed(["import-layer", ContentDigest.of(layer).description] + signing, input: layer)
        try succeed(["gc"])
        try requireSignatures(true)
        #expect(try succeed(["fsck"]).lines.last == "status: ok")

        // Replaces a file by an object without a signature.
        let id = big.withUnsafeBytes { VerityHasher.objectID(of: $0, algorithm.contains("sha256") ? .sha256 : .sha512) }.hex
        let object = repository + "/objects/\(id.prefix(2))/\(id.dropFirst(2))"
        try requireSignatures(false)
        unlink(object)
        try writeFile(object, big)
        let enable = ["enable", object, "--hash-alg=" + (algorithm.contains("sha256") ? "sha256" : "sha512")]
        #expect(try launch("fsverity", enable).status == 0)
        #expect(try succeed(["fsck"]).lines.last == "status: ok")
        try requireSignatures(true)
        #expect(expectRefusal(try run(["cat", "t", "/usr/big"])).contains("\(id.dropFirst(2)): it has no fs-verity signature"))
        let damaged = try run(["fsck"])
        #expect(damaged.status == 2 && damaged.text.contains("it has no fs-verity signature"), "\(damaged.text)")
        // The next pull with the key repairs it.
        try succeed(["pull", source, "t"] + signing)
        try requireSignatures(true)
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")
        #expect(try succeed(["cat", "t", "/usr/big"]).output == big)
    }

    /// In a store that was filled without a key, one pull with a key signs the whole image and meta.json.
    @Test func unsignedStoreIsSignedByAPull() throws {
        defer { removeTree(base) }
        let builder = LayoutBuilder.small()
        try builder.write(to: base + "/layout")
        try Cfsoci.succeed(["init", repository])
        try succeed(["pull", "oci:" + base + "/layout", "t"])
        let id = try imageID
        #expect(try signature(id) == nil)
        let again = try succeed(["pull", "oci:" + base + "/layout", "t"] + signing)
        #expect(again.lines.contains("layers  0 new + 2 present"), "\(again.text)")
        #expect(try signature(id) != nil)
        try requireSignatures(true)
        defer { try? requireSignatures(false) }
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")
        // Nothing is signed twice.
        #expect(try succeed(["pull", "oci:" + base + "/layout", "t"] + signing).text.contains("signed") == false)
    }

    @Test func signaturesThatComeWithTheImage() throws {
        defer { removeTree(base) }
        try LayoutBuilder.small().write(to: base + "/layout")
        try Cfsoci.succeed(["init", repository])
        try succeed(["pull", "oci:" + base + "/layout", "t"])
        let id = try imageID
        let object = try #require(ObjectID(hex: id))
        #expect(
            expectRefusal(try run(["pull", "oci:" + base + "/layout", "t", "--image-signatures", "require"]))
                == "the image's composefs seal: it has no signature for its EROFS image \(id)")

        // In the manifest's annotations.
        let known = try sign("known", object)
        var sealed = SealedLayout()
        sealed.manifest = [mergedKey: id, mergedKey + ".sig": Base64.encode(known)]
        sealed.config = [configKey: sealed.configID().hex, configKey + ".sig": Base64.encode(try sign("known", sealed.configID()))]
        try sealed.write(to: base + "/sealed")
        #expect(try succeed(["pull", "oci:" + base + "/sealed:t", "t", "--image-signatures", "require"]).lines.last == "signed  2")
        #expect(try signature(id) == known)
        #expect(try signature(sealed.configID().hex) != nil)
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")
        #expect(try succeed(["pull", "oci:" + base + "/sealed:t", "t", "--image-signatures", "require"]).status == 0)

        // A signature by an unknown certificate is ignored, unless signatures are required.
        try succeed(["rm", "t"])
        try succeed(["gc"])
        var strange = SealedLayout()
        strange.manifest = [mergedKey: id, mergedKey + ".sig": Base64.encode(try sign("unknown", object))]
        try strange.write(to: base + "/strange")
        #expect(
            expectRefusal(try run(["pull", "oci:" + base + "/strange:t", "t", "--image-signatures", "require"]))
                == "the image's composefs seal: the certificate of its signature is not in the kernel's .fs-verity keyring")
        let left = try succeed(["pull", "oci:" + base + "/strange:t", "t"])
        #expect(left.error.contains("warning: 1 signatures of the image are left out"), "\(left.error)")
        #expect(try signature(id) == nil)
        // A signature of something else is an error.
        strange.manifest = [mergedKey: id, mergedKey + ".sig": Base64.encode(try sign("known", strange.configID()))]
        try strange.write(to: base + "/wrong")
        #expect(expectRefusal(try run(["pull", "oci:" + base + "/wrong:t", "t"])).contains("the kernel rejects its fs-verity signature"))

        // In an artifact in the same layout.
        var artifact = SealedLayout()
        let manifest = try artifact.manifestBytes { #""digest":"\#(ContentDigest.of($0))","size":\#($0.count)"# }
        let manifestID = manifest.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha512) }
        artifact.artifact = try [
            ("composefs.manifest.fsverity-sha512-12", manifestID), (configKey, artifact.configID()), (mergedKey, object),
        ].map { ($0.0, $0.1.hex, try sign("known", $0.1)) }
        try artifact.write(to: base + "/artifact")
        #expect(try succeed(["pull", "oci:" + base + "/artifact:t", "t", "--image-signatures", "require"]).lines.last == "signed  3")
        #expect(try signature(id) == known && signature(manifestID.hex) != nil)
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")

        // In a registry, which is asked only if a signature is required.
        try succeed(["rm", "t"])
        try succeed(["gc"])
        let server = try LayoutServer(layout: base + "/artifact")
        defer { server.stop() }
        #expect(try !succeed(["pull", server.reference, "t"]).text.contains("signed"))
        #expect(try signature(id) == nil)
        #expect(try succeed(["pull", server.reference, "t", "--image-signatures", "require"]).lines.last == "signed  3")
        #expect(try signature(id) == known && signature(manifestID.hex) != nil)

        // Among the stored referrers.
        try succeed(["pull", "oci:" + base + "/artifact:seal", "seal"])
        try succeed(["referrers", "add", "t", "seal"])
        try succeed(["untag", "seal"])
        try succeed(["rm", "t"])
        try succeed(["gc"])
        unlink(base + "/artifact/index.json")
        var alone = artifact
        alone.artifact = []
        try alone.write(to: base + "/artifact")
        #expect(try succeed(["pull", "oci:" + base + "/artifact:t", "t", "--image-signatures", "require"]).lines.last == "signed  3")
        #expect(try signature(id) == known)
    }

    /// What an author without fs-verity seals, this kernel checks.
    @Test func sealedByTheAuthor() throws {
        defer { removeTree(base) }
        let author = ["--repo", base + "/author"]
        try LayoutBuilder.small().write(to: base + "/layout")
        try Cfsoci.succeed(["init", base + "/author", "--insecure"])
        try Cfsoci.succeed(["pull", "oci:" + base + "/layout", "t"] + author)
        try Cfsoci.succeed(["seal", "t"] + signing + author)
        try Cfsoci.succeed(["push", "t", "oci:" + base + "/sealed"] + author)
        try Cfsoci.succeed(["init", repository])
        let pulled = try succeed(["pull", "oci:" + base + "/sealed", "t", "--require-seal", "--image-signatures", "require"])
        #expect(pulled.lines.last == "signed  3", "\(pulled.text)")
        #expect(try signature(imageID) == sign("known", try #require(ObjectID(hex: imageID))))
        #expect(try succeed(["fsck", "--deep"]).lines.last == "status: ok")
    }
}
