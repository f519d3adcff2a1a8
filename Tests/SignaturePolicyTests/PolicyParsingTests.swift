import ComposefsBytes
import Testing

@testable import ComposefsSignaturePolicy

/// Policies as containers-policy.json(5) describes them, and what it forbids.
@Suite struct PolicyParsingTests {
    private static let accept = #"[{"type":"insecureAcceptAnything"}]"#

    @Test func plainRequirements() throws {
        let parsed = try policy(
            #"{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"insecureAcceptAnything"},{"type":"reject"}]}}}"#)
        #expect(parsed.defaults == [.reject])
        #expect(parsed.transports == ["docker": ["": [.insecureAcceptAnything, .reject]]])
        #expect(parsed.keyFiles == [])
    }

    @Test func sigstore() throws {
        func requirement(_ members: String) throws -> PolicyRequirement? {
            try policy(#"{"default":[{"type":"sigstoreSigned",\#(members)}]}"#).defaults.first
        }
        func signed(_ keys: [SigstoreRequirement.Key], _ identity: SignedIdentity = .matchRepoDigestOrExact) -> PolicyRequirement {
            .sigstoreSigned(SigstoreRequirement(keys: keys, identity: identity))
        }
        #expect(try requirement(#""keyPath":"/k.pub""#) == signed([.file("/k.pub")]))
        #expect(try requirement(#""keyPaths":["/a","/b"]"#) == signed([.file("/a"), .file("/b")]))
        #expect(try requirement(#""keyData":"AQID""#) == signed([.data([1, 2, 3])]))
        #expect(try requirement(#""keyDatas":["AQID","BA=="]"#) == signed([.data([1, 2, 3]), .data([4])]))
        func identity(_ members: String) throws -> PolicyRequirement? { try requirement(#""keyPath":"/k","signedIdentity":{\#(members)}"#) }
        #expect(try identity(#""type":"matchExact""#) == signed([.file("/k")], .matchExact))
        #expect(try identity(#""type":"matchRepoDigestOrExact""#) == signed([.file("/k")], .matchRepoDigestOrExact))
        #expect(try identity(#""type":"matchRepository""#) == signed([.file("/k")], .matchRepository))
        let reference = try #require(StatedReference(parsing: "quay.io/a/b:1"))
        #expect(
            try identity(#""type":"exactReference","dockerReference":"quay.io/a/b:1""#) == signed([.file("/k")], .exactReference(reference))
        )
        let repository = try #require(StatedReference(parsing: "busybox"))
        #expect(repository.text == "docker.io/library/busybox")
        #expect(
            try identity(#""type":"exactRepository","dockerRepository":"busybox""#) == signed([.file("/k")], .exactRepository(repository)))
        #expect(
            try identity(#""type":"remapIdentity","prefix":"mirror:5000/vendor","signedPrefix":"vendor.example""#)
                == signed([.file("/k")], .remapIdentity(prefix: "mirror:5000/vendor", signedPrefix: "vendor.example")))
        #expect(
            try policy(#"{"default":[{"type":"sigstoreSigned","keyPaths":["/a","/b"]},{"type":"sigstoreSigned","keyPath":"/a"}]}"#).keyFiles
                == ["/a", "/b"])
    }

    /// They are read in full, so that a mistake is found, and kept as what they are.
    @Test(arguments: [
        (#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k.gpg"}"#, UncheckableRequirement.gpg),
        (#"{"type":"signedBy","keyType":"signedByGPGKeys","keyPaths":["/k"],"signedIdentity":{"type":"matchExact"}}"#, .gpg),
        (#"{"type":"signedBy","keyType":"X509Certificates","keyData":"AQ=="}"#, .gpg),
        (#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchRepository"}}"#, .baseLayer),
        (#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}"#, .rekor),
        (#"{"type":"sigstoreSigned","keyDatas":["AQ=="],"rekorPublicKeyDatas":["AQ=="]}"#, .rekor),
        (#"{"type":"sigstoreSigned","keyData":"AQ==","rekorPublicKeyData":"AQ=="}"#, .rekor),
        (#"{"type":"sigstoreSigned","keyPaths":["/k"],"rekorPublicKeyPaths":["/r"]}"#, .rekor),
        (
            #"{"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"https://i","subjectEmail":"a@b"},"rekorPublicKeyPath":"/r"}"#,
            .fulcio
        ),
        (#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectEmail":"a@b"}}"#, .pki),
        (#"{"type":"sigstoreSigned","pki":{"caRootsData":"AQ==","caIntermediatesPath":"/i","subjectHostname":"h"}}"#, .pki),
    ])
    func uncheckable(requirement: String, what: UncheckableRequirement) throws {
        #expect(try policy(#"{"default":[\#(requirement)]}"#).defaults == [.uncheckable(what)])
    }

    @Test func scopesOfTransports() throws {
        let accepted: [(String, String)] = [
            ("docker", "docker.io/library/busybox:latest"), ("docker", "*.example.com"), ("docker", "anything at all"),
            ("docker", "host:5000"),
            ("dir", "/a/b"), ("oci", "/a"), ("oci-archive", "/a/b.tar"), ("sif", "/a"), ("docker-daemon", "quay.io/a"),
            ("atomic", "h:5000/n/s:t"),
            ("atomic", "h"), ("containers-storage", "[/var/lib/containers/storage]"),
            ("containers-storage", "[overlay@/var/lib]docker.io/a/b:1"),
            ("containers-storage", "[overlay@/v]a@" + String(repeating: "0", count: 64)),
            ("containers-storage", "[overlay@/v]a:1@sha256:\(String(repeating: "0", count: 64))@\(String(repeating: "a", count: 64))"),
            ("ostree", "a"), ("some-other-transport", "///"),
        ]
        for (transport, scope) in accepted {
            let parsed = try policy(
                #"{"default":\#(Self.accept),"transports":{"\#(transport)":{"\#(scope)":\#(Self.accept),"":\#(Self.accept)}}}"#)
            #expect(parsed.transports[ByteString(transport)]?.count == 2, "\(transport) \(scope)")
        }
        let refused: [(String, String, ScopeFault)] = [
            ("dir", "a", .notAbsolute), ("dir", "/", .root), ("dir", "/a/", .notCanonical), ("oci", "/a//b", .notCanonical),
            ("oci-archive", "/a/../b", .notCanonical), ("sif", "/./a", .notCanonical), ("oci", "dir:tag", .notAbsolute),
            ("docker-archive", "/a", .onlyDefault), ("tarball", "/a", .onlyDefault),
            ("docker-daemon", "sha256:" + String(repeating: "0", count: 64), .digest), ("containers-storage", "docker.io/a", .notStorage),
            ("containers-storage", "[relative]", .notStorage), ("containers-storage", "[overlay@]", .notStorage),
            ("containers-storage", "[@/v]", .notStorage), ("containers-storage", "[overlay@/v]a@b", .notStorage),
            ("containers-storage", "[overlay@/v", .notStorage), ("atomic", "h/n/s/t", .notRegistryScope),
            ("atomic", "h/n:1/s", .notRegistryScope),
        ]
        for (transport, scope, why) in refused {
            let fault = fault(#"{"default":\#(Self.accept),"transports":{"\#(transport)":{"\#(scope)":\#(Self.accept)}}}"#)
            #expect(fault?.reason == .scope(why), "\(transport) \(scope): \(String(describing: fault))")
            #expect(fault?.location == "transports.\(transport)[\"\(scope)\"]")
        }
    }

    private static let sources = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"]

    @Test(arguments: [
        // The document.
        ("[]", "", SignaturePolicyFault.Reason.wrongType(found: "an array", wanted: "an object")),
        ("{}", "default", .missing),
        (#"{"default":[{"type":"reject"}],"x":1}"#, "\"x\"", .unknownMember),
        (#"{"default":[{"type":"reject"}],"Default":[]}"#, "\"Default\"", .unknownMember),
        (#"{"default":null}"#, "default", .wrongType(found: "null", wanted: "an array")),
        (#"{"default":[]}"#, "default", .noRequirements),
        (#"{"default":[{"type":"reject"}],"transports":null}"#, "transports", .wrongType(found: "null", wanted: "an object")),
        (
            #"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#, "transports.docker",
            .wrongType(found: "an array", wanted: "an object")
        ),
        (#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#, #"transports.docker["a"]"#, .noRequirements),
        // Requirements.
        (#"{"default":["reject"]}"#, "default[0]", .wrongType(found: "a string", wanted: "an object")),
        (#"{"default":[{}]}"#, "default[0].type", .missing),
        (#"{"default":[{"type":1}]}"#, "default[0].type", .wrongType(found: "a number", wanted: "a string")),
        (#"{"default":[{"type":"accept"}]}"#, "default[0]", .unknownRequirement("accept")),
        (#"{"default":[{"type":"reject","x":1}]}"#, "default[0].\"x\"", .unknownMember),
        (
            #"{"default":[{"type":"insecureAcceptAnything"},{"type":"insecureAcceptAnything","keyPath":"/"}]}"#, "default[1].\"keyPath\"",
            .unknownMember
        ),
        // signedBy
        (#"{"default":[{"type":"signedBy","keyPath":"/k"}]}"#, "default[0].keyType", .missing),
        (#"{"default":[{"type":"signedBy","keyType":"PGP","keyPath":"/k"}]}"#, "default[0].keyType", .unknownKeyType("PGP")),
        (
            #"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#, "default[0]",
            .notOne(of: ["keyPath", "keyPaths", "keyData"], found: 0)
        ),
        (
            #"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyDatas":["AQ=="]}]}"#, "default[0].\"keyDatas\"",
            .unknownMember
        ),
        (#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"?"}]}"#, "default[0].keyData", .notBase64),
        (#"{"default":[{"type":"signedBaseLayer"}]}"#, "default[0].baseLayerIdentity", .missing),
        // sigstoreSigned
        (#"{"default":[{"type":"sigstoreSigned"}]}"#, "default[0]", .notOne(of: sources, found: 0)),
        (#"{"default":[{"type":"sigstoreSigned","keyPath":"/a","keyData":"AQ=="}]}"#, "default[0]", .notOne(of: sources, found: 2)),
        (#"{"default":[{"type":"sigstoreSigned","keyPath":""}]}"#, "default[0].keyPath", .emptyText),
        (#"{"default":[{"type":"sigstoreSigned","keyPath":null}]}"#, "default[0].keyPath", .wrongType(found: "null", wanted: "a string")),
        (#"{"default":[{"type":"sigstoreSigned","keyPaths":[]}]}"#, "default[0].keyPaths", .emptyList),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPaths":["/a",2]}]}"#, "default[0].keyPaths[1]",
            .wrongType(found: "a number", wanted: "a string")
        ),
        (#"{"default":[{"type":"sigstoreSigned","keyDatas":["AQ==","A"]}]}"#, "default[0].keyDatas[1]", .notBase64),
        (#"{"default":[{"type":"sigstoreSigned","keyPath":"/k","KeyPath":"/k"}]}"#, "default[0].\"KeyPath\"", .unknownMember),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r","rekorPublicKeyData":"AQ=="}]}"#, "default[0]",
            .several(of: ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"])
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"}}]}"#, "default[0].fulcio",
            .noneOf(["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"])
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","rekorPublicKeyPath":"/r","fulcio":{"caPath":"/c","subjectEmail":"e"}}]}"#,
            "default[0].fulcio.oidcIssuer", .missing
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","pki":{"caRootsPath":"/c"}}]}"#, "default[0].pki",
            .noneOf(["subjectEmail", "subjectHostname"])
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","pki":{"subjectEmail":"e"}}]}"#, "default[0].pki",
            .notOne(of: ["caRootsPath", "caRootsData"], found: 0)
        ),
        // Identities.
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":null}]}"#, "default[0].signedIdentity",
            .wrongType(found: "null", wanted: "an object")
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"match"}}]}"#, "default[0].signedIdentity",
            .unknownIdentity("match")
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"matchExact","prefix":"a"}}]}"#,
            "default[0].signedIdentity.\"prefix\"", .unknownMember
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"exactReference","dockerReference":"a/b"}}]}"#,
            "default[0].signedIdentity.dockerReference", .nameOnly("docker.io/a/b")
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"exactRepository","dockerRepository":"A B"}}]}"#,
            "default[0].signedIdentity.dockerRepository", .notReference("A B")
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"remapIdentity","prefix":"a.b/c:1","signedPrefix":"d.e"}}]}"#,
            "default[0].signedIdentity.prefix", .notPrefix("a.b/c:1")
        ),
        (
            #"{"default":[{"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"remapIdentity","prefix":"a.b"}}]}"#,
            "default[0].signedIdentity.signedPrefix", .missing
        ),
    ])
    func refused(text: String, location: String, reason: SignaturePolicyFault.Reason) {
        let found = fault(text)
        #expect(found?.location == location && found?.reason == reason, "\(found.map { "\($0)" } ?? "")")
    }

    /// The parser finds these, with their position.
    @Test(arguments: [
        ("", "unexpected end"), (#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#, "occurs twice"),
        (#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#, "occurs twice"),
        (#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}"#, "occurs twice"),
        (#"{"default":[{"type":"reject"}],}"#, "unexpected"), (#"{"default":[{"type":"reject"}]} x"#, "unexpected data"),
        (#"{"default":[/* no comments */{"type":"reject"}]}"#, "unexpected"), ("{\"default\":[{\"type\":\"\u{1}\"}]}", "must be escaped"),
    ])
    func malformed(text: String, why: String) {
        let fault = fault(text)
        guard case .json(let message)? = fault?.reason else {
            Issue.record("\(String(describing: fault))")
            return
        }
        #expect(message.contains(why) && message.contains("at byte"), "\(message)")
    }

    @Test func large() {
        #expect(fault(String(repeating: " ", count: ImagePolicy.sizeLimit + 1))?.reason == .tooLarge(limit: ImagePolicy.sizeLimit))
        let values = fault("{\"default\":[" + String(repeating: "0,", count: 300_000) + "0]}")
        if case .json(let message)? = values?.reason {
            #expect(message.contains("more than"))
        } else {
            Issue.record("\(String(describing: values))")
        }
    }
}
