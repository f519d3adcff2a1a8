import ComposefsBytes
import ComposefsHashing
import ComposefsJSON
import Testing

/// Commands under a signature policy: which file is used, what is refused and how, and signatures in layouts and repositories. openssl makes them.
@Suite struct SignaturePolicyCommandTests {
    private static let accept = #"[{"type":"insecureAcceptAnything"}]"#
    private static let reject = #"[{"type":"reject"}]"#

    private func write(_ store: ContractStore, _ text: String, _ name: String = "policy.json") throws -> String {
        let path = store.folder.path + "/" + name
        try writeFile(path, Array(text.utf8))
        return path
    }

    /// Refused with status 4: one line, which names the file and the scope, and a repository as it was.
    private func expectRefusal(
        _ store: ContractStore, _ arguments: [String], policy: String, _ parts: String..., environment: [String] = [],
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let before = store.files
        let result = try store.run(arguments, environment: environment)
        #expect(result.status == 4 && result.text == "", "\(result.status) \(result.error)", sourceLocation: sourceLocation)
        #expect(result.error.hasPrefix("cfsoci: error: ") && result.error.split(separator: "\n").count == 1, sourceLocation: sourceLocation)
        for part in ["refused by the signature policy \(policy): "] + parts {
            #expect(result.error.contains(part), "\(part): \(result.error)", sourceLocation: sourceLocation)
        }
        #expect(store.files == before, sourceLocation: sourceLocation)
    }

    @Test func scopesOfSources() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("a")
        try LayoutBuilder.small().write(to: layout)
        try mustShell("ln -s \"$1\" \"$2\"", [layout, store.folder.path + "/link"])
        let server = try LayoutServer(layout: layout)
        defer { server.stop() }
        for (source, transport, scope) in [
            ("oci:" + layout, "oci", layout), ("oci:\(store.folder.path)/link:latest", "oci", store.folder.path),
            (server.reference, "docker", "127.0.0.1:\(server.port)/team"),
        ] {
            let policy = try write(store, #"{"default":\#(Self.accept),"transports":{"\#(transport)":{"\#(scope)":\#(Self.reject)}}}"#)
            try expectRefusal(
                store, ["pull", source, "t", "--signature-policy", policy], policy: policy,
                "the scope \"\(scope)\" of the transport \(transport) rejects all images")
            // The scope of one transport says nothing about another.
            let other = try write(store, #"{"default":\#(Self.accept),"transports":{"dir":{"\#(layout)":\#(Self.reject)}}}"#)
            #expect(try store.run(["pull", source, "t", "--signature-policy", other]).status == 0)
            try store.succeed(["untag", "t"])
        }
    }

    @Test func errorsForPrograms() throws {
        let store = try ContractStore()
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let policy = try write(store, #"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k.gpg"}]}"#)
        try expectRefusal(
            store, ["pull", "oci:" + store.layoutPath("a"), "--signature-policy", policy], policy: policy,
            "the default demands a GPG signature (signedBy), which cannot be checked; --signature-policy uses another policy")
        let result = try store.run(["pull", "oci:" + store.layoutPath("a"), "--signature-policy", policy, "--json"])
        let events = try result.error.split(separator: "\n").map { try JSONValue.parse(Array($0.utf8)) }
        let error = try #require(events.last)
        #expect(error["event"] == "error" && error["code"] == "refused-by-policy" && error["status"] == 4)
    }

    /// A repository that was made for the pull is removed again.
    @Test func noRepositoryIsLeft() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        try writeFile(folder.path + "/policy.json", Array(#"{"default":\#(Self.reject)}"#.utf8))
        let arguments = [
            "pull", "oci:\(folder.path)/layout", "--signature-policy", folder.path + "/policy.json", "--repo", folder.path + "/new/repo",
        ]
        let result = try Cfsoci.run(arguments)
        #expect(result.status == 4, "\(result.error)")
        #expect(!fileList(folder.path).contains { $0.hasPrefix("new") })
    }

    @Test func theUsersPolicy() throws {
        let store = try ContractStore()
        let source = "oci:" + store.layoutPath("a")
        try LayoutBuilder.small().write(to: store.layoutPath("a"))
        let home = store.folder.path + "/home"
        try mustShell("mkdir -p \"$1/.config/containers\"", [home])
        let own = home + "/.config/containers/policy.json"
        try writeFile(own, Array(#"{"default":\#(Self.reject)}"#.utf8))
        try expectRefusal(store, ["pull", source], policy: own, "the default rejects all images", environment: ["HOME=" + home])
        // The option replaces it.
        let policy = try write(store, #"{"default":\#(Self.accept)}"#)
        #expect(try store.run(["pull", source, "t", "--signature-policy", policy], environment: ["HOME=" + home]).status == 0)
        // A policy with a mistake is not passed over.
        try writeFile(own, Array(#"{"default":[{"type":"reject"}],"transport":{}}"#.utf8))
        let before = store.files
        let malformed = try store.run(["pull", source], environment: ["HOME=" + home])
        #expect(
            malformed.error
                == "cfsoci: error: signature policy \(own): \"transport\": is not a member that is known here; --signature-policy names another file\n"
        )
        #expect(malformed.status == 1 && store.files == before)
        let missing = try store.run(["pull", source, "--signature-policy", store.folder.path + "/none"])
        #expect(missing.status == 1 && missing.error.contains(store.folder.path + "/none"), "\(missing.error)")
    }

    @Test func archives() throws {
        let store = try ContractStore()
        _ = try store.pull(LayoutBuilder.small(), as: "example.org/a:1")
        for transport in ["docker-archive", "oci-archive"] {
            let file = "\(store.folder.path)/\(transport).tar"
            try store.succeed(["save", "example.org/a:1", file, "--format", transport, "--quiet"])
            let scope = transport == "docker-archive" ? "" : file
            let policy = try write(store, #"{"default":\#(Self.accept),"transports":{"\#(transport)":{"\#(scope)":\#(Self.reject)}}}"#)
            let named = scope.isEmpty ? "the default of the transport \(transport)" : "the scope \"\(scope)\" of the transport \(transport)"
            // Archives for docker are layouts, too, and a load reads them as such.
            let loads = try write(
                store, #"{"default":\#(Self.accept),"transports":{"oci-archive":{"\#(file)":\#(Self.reject)}}}"#, "load.json")
            try expectRefusal(
                store, ["load", file, "--signature-policy", loads], policy: loads,
                "the scope \"\(file)\" of the transport oci-archive rejects all images")
            try expectRefusal(store, ["pull", "\(transport):\(file)", "x", "--signature-policy", policy], policy: policy, named)
            #expect(try store.run(["load", file, "--signature-policy", try write(store, #"{"default":\#(Self.accept)}"#)]).status == 0)
        }
    }

    /// A copy of an index and everything below it asks, too, before its destination is made.
    @Test func indexes() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("a")
        let digest = try LayoutBuilder.small().write(to: layout)
        let target = store.folder.path + "/copied"
        func arguments(_ policy: String) -> [String] {
            ["copy", "--all", "oci:\(layout):latest", "oci:\(target):t", "--signature-policy", policy]
        }
        let rejecting = try write(store, #"{"default":\#(Self.accept),"transports":{"oci":{"\#(layout)":\#(Self.reject)}}}"#)
        let refused = try Cfsoci.run(arguments(rejecting))
        #expect(
            refused.status == 4 && refused.error.contains("the scope \"\(layout)\" of the transport oci rejects all images"),
            "\(refused.error)")
        try sign(store, layout: layout, digest, asReferrer: false)
        let wrong = try Cfsoci.run(arguments(try signed(store, key: "other.pub", transport: "oci")))
        #expect(wrong.status == 4 && wrong.error.contains("none of the policy's keys made it"), "\(wrong.error)")
        #expect(!fileList(store.folder.path).contains("copied"))
        let right = try Cfsoci.run(arguments(try signed(store, key: "key.pub", transport: "oci")))
        #expect(right.status == 0, "\(right.error)")
    }

    // MARK: Signatures

    /// The layout with a signature of its image, as tools copy it from a registry: under the tag that cosign uses, or as an artifact.
    private func sign(_ store: ContractStore, layout: String, _ manifest: ContentDigest, asReferrer: Bool) throws {
        let folder = store.folder.path
        if !fileList(folder).contains("key.pub") {
            try mustShell(
                "cd \"$1\"; openssl genpkey -algorithm ED25519 -out key; openssl pkey -in key -pubout -out key.pub; "
                    + "openssl genpkey -algorithm ED25519 -out other; openssl pkey -in other -pubout -out other.pub", [folder])
        }
        let payload = Array(
            (#"{"critical":{"identity":{"docker-reference":"vendor.example/app"},"image":{"docker-manifest-digest":"\#(manifest)"},"#
                + #""type":"cosign container image signature"},"optional":null}"#).utf8)
        try writeFile(folder + "/payload", payload)
        let signature = try mustShell("cd \"$1\"; openssl pkeyutl -sign -rawin -inkey key -in payload | base64 -w0", [folder])
        func blob(_ bytes: [UInt8]) throws -> String {
            let digest = ContentDigest.of(bytes)
            try writeFile("\(layout)/blobs/sha256/\(digest.hex)", bytes)
            return #""digest":"\#(digest)","size":\#(bytes.count)"#
        }
        let config = try blob(Array("{}".utf8))
        let type = "application/vnd.oci.image.manifest.v1+json"
        let bytes = try readFile("\(layout)/blobs/sha256/\(manifest.hex)").count
        let subject =
            asReferrer
            ? #","artifactType":"application/vnd.dev.cosign.artifact.sig.v1+json","subject":{"mediaType":"\#(type)","digest":"\#(manifest)","size":\#(bytes)}"#
            : ""
        let artifact = Array(
            (#"{"schemaVersion":2,"mediaType":"\#(type)","config":{"mediaType":"application/vnd.oci.image.config.v1+json",\#(config)},"layers":[{"#
                + #""mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",\#(try blob(payload)),"#
                + #""annotations":{"dev.cosignproject.cosign/signature":"\#(signature)"}}]\#(subject)}"#).utf8)
        var index = try JSONValue.parse(readFile(layout + "/index.json"))
        var entry = try JSONValue.parse(Array(#"{"mediaType":"\#(type)",\#(try blob(artifact))}"#.utf8))
        if asReferrer {
            entry["artifactType"] = "application/vnd.dev.cosign.artifact.sig.v1+json"
        } else {
            entry["annotations"] = ["org.opencontainers.image.ref.name": .string("sha256-\(manifest.hex).sig")]
        }
        index["manifests"] = .array((index["manifests"]?.array ?? []) + [entry])
        try writeFile(layout + "/index.json", Array("\(index)".utf8))
    }

    private func signed(_ store: ContractStore, key: String, transport: String) throws -> String {
        try write(
            store,
            #"{"default":\#(Self.reject),"transports":{"\#(transport)":{"":[{"type":"sigstoreSigned","keyPath":"\#(store.folder.path)/\#(key)","#
                + #""signedIdentity":{"type":"exactRepository","dockerRepository":"vendor.example/app"}}]}}}"#)
    }

    /// The key is a file that the confined process cannot read any more.
    @Test(arguments: [false, true]) func layouts(asReferrer: Bool) throws {
        let store = try ContractStore()
        let layout = store.layoutPath("a")
        let digest = try LayoutBuilder.small().write(to: layout)
        let source = "oci:\(layout):latest"
        try sign(store, layout: layout, digest, asReferrer: asReferrer)
        let wrong = try signed(store, key: "other.pub", transport: "oci")
        try expectRefusal(
            store, ["pull", source, "t", "--signature-policy", wrong], policy: wrong,
            "demands a sigstore signature of the manifest \(digest), and none of those found (1) is accepted: none of the policy's keys made it"
        )
        let right = try signed(store, key: "key.pub", transport: "oci")
        let pulled = try store.run(["pull", source, "t", "--signature-policy", right])
        #expect(pulled.status == 0 && pulled.lines.first == "manifest  \(digest)", "\(pulled.error)")
        // What is said of one transport says nothing about another.
        try mustShell("tar -C \"$1\" -cf \"$1.tar\" .", [layout])
        try expectRefusal(
            store, ["pull", "oci-archive:\(layout).tar:latest", "t", "--signature-policy", right], policy: right,
            "the default rejects all images")
    }

    /// Signatures of an image in another repository are among its referrers.
    @Test func copies() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("a")
        let digest = try LayoutBuilder.small().write(to: layout)
        try sign(store, layout: layout, digest, asReferrer: true)
        try store.succeed(["pull", "oci:\(layout):latest", "t", "--referrers"])
        let target = try ContractStore()
        func arguments(_ policy: String) -> [String] { ["copy", "t", "--from", store.path, "--signature-policy", policy] }
        let wrong = try signed(store, key: "other.pub", transport: "composefs")
        try expectRefusal(target, arguments(wrong), policy: wrong, "none of the policy's keys made it")
        let other = try signed(store, key: "key.pub", transport: "oci")
        try expectRefusal(target, arguments(other), policy: other, "the default rejects all images")
        let scope = #"{"default":\#(Self.accept),"transports":{"composefs":{"\#(store.folder.path)":\#(Self.reject)}}}"#
        let scoped = try write(store, scope)
        try expectRefusal(target, arguments(scoped), policy: scoped, "the scope \"\(store.folder.path)\" of the transport composefs")
        let right = try signed(store, key: "key.pub", transport: "composefs")
        let copied = try target.run(arguments(right))
        #expect(copied.status == 0 && copied.lines.contains("referrers  1 copied"), "\(copied.error)")
    }
}
