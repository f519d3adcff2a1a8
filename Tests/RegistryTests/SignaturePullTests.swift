import ComposefsBytes
import ComposefsHashing
import ComposefsImageStore
import ComposefsLinuxSystem
import ComposefsOCIModel
import ComposefsRepository
import ComposefsSignaturePolicy
import ComposefsTestSupport
import ComposefsTransfer
import ComposefsTransports
import Synchronization
import Testing

@testable import ComposefsRegistry

/// Pulls under a signature policy. The signatures are made by openssl, and the registry serves them as cosign stores them.
@Suite(.enabled("openssl is not installed") { Program.find("openssl") != nil }) struct SignaturePullTests {
    private static let image = TestImage.shared
    private static let indexType = "application/vnd.oci.image.index.v1+json"
    private static let signedType = "application/vnd.dev.cosign.simplesigning.v1+json"
    private static let signatureType = "application/vnd.dev.cosign.artifact.sig.v1+json"

    private static func descriptor(_ type: String, _ bytes: [UInt8], _ more: String = "") -> String {
        #"{"mediaType":"\#(type)","digest":"\#(ContentDigest.of(bytes))","size":\#(bytes.count)\#(more)}"#
    }

    private static let index = Array(
        #"{"schemaVersion":2,"mediaType":"\#(indexType)","manifests":[\#(descriptor(TestImage.manifestType, image.manifest, #","platform":{"os":"\#(Platform.host.os)","architecture":"\#(Platform.host.architecture)"}"#))]}"#
            .utf8)

    /// The document that cosign signs.
    private static func claim(_ manifest: [UInt8], _ reference: String) -> [UInt8] {
        Array(
            (#"{"critical":{"identity":{"docker-reference":"\#(reference)"},"image":{"docker-manifest-digest":"\#(ContentDigest.of(manifest))"},"#
                + #""type":"cosign container image signature"},"optional":null}"#).utf8)
    }

    /// A manifest whose layers are signed documents.
    private static func artifact(_ signatures: [(payload: [UInt8], signature: String)], subject: [UInt8]? = nil) -> [UInt8] {
        let layers = signatures.map {
            descriptor(signedType, $0.payload, #","annotations":{"dev.cosignproject.cosign/signature":"\#($0.signature)"}"#)
        }.joined(separator: ",")
        let more = subject.map { #","artifactType":"\#(signatureType)","subject":\#(descriptor(TestImage.manifestType, $0))"# } ?? ""
        return Array(
            (#"{"schemaVersion":2,"mediaType":"\#(TestImage.manifestType)","config":"#
                + descriptor("application/vnd.oci.image.config.v1+json", Array("{}".utf8)) + #","layers":[\#(layers)]\#(more)}"#).utf8)
    }

    /// What the registry has in addition to the image.
    private struct Content: Sendable {
        var root = SignaturePullTests.image.manifest
        /// By the digest in the tag.
        var tagged: [ContentDigest: [UInt8]] = [:]
        var referrers: [(subject: [UInt8], type: String, manifest: [UInt8])] = []
        var payloads: [[UInt8]] = []
    }

    private static func serve(
        _ content: Content, instead script: @escaping @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]? = { _ in nil }
    ) -> ScriptedServer {
        ScriptedServer { request in
            if let actions = script(request) { return actions }
            if request.path.contains("/referrers/") {
                let entries = content.referrers.filter { request.path.hasSuffix("\(ContentDigest.of($0.subject))") }.map {
                    descriptor(TestImage.manifestType, $0.manifest, #","artifactType":"\#($0.type)""#)
                }.joined(separator: ",")
                let list = #"{"schemaVersion":2,"mediaType":"\#(indexType)","manifests":[\#(entries)]}"#
                return [.reply(200, ["Content-Type": indexType], Array(list.utf8))]
            }
            if request.path.hasSuffix("/manifests/v1") { return [.reply(200, [:], content.root)] }
            if request.path.hasSuffix(".sig") {
                let found = content.tagged.first { request.path.hasSuffix("/sha256-\($0.key.hex).sig") }
                return [found.map { .reply(200, ["Content-Type": TestImage.manifestType], $0.value) } ?? .reply(404)]
            }
            let all = [content.root, image.manifest, image.config] + image.layers + content.payloads + content.referrers.map(\.manifest)
            return [all.first { request.path.hasSuffix("/\(ContentDigest.of($0))") }.map { .reply(200, [:], $0) } ?? .reply(404)]
        }
    }

    /// Keys, signatures and a repository.
    private final class Workshop {
        let directory: String
        let repository: Repository

        init(_ directory: String) throws {
            self.directory = directory
            repository = try Repository.initialize(
                ByteString(directory + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
            ).repository
            for name in ["a", "b"] {
                try openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "\(directory)/\(name).key"])
                try openssl(["pkey", "-in", "\(directory)/\(name).key", "-pubout", "-out", "\(directory)/\(name).pub"])
            }
        }

        private func openssl(_ arguments: [String]) throws { try Program.run(["openssl"] + arguments, log: directory + "/log") }

        func sign(_ payload: [UInt8], _ key: String = "a") throws -> (payload: [UInt8], signature: String) {
            try writeFile(directory + "/message", String(decoding: payload, as: UTF8.self))
            try openssl(["dgst", "-sha256", "-sign", "\(directory)/\(key).key", "-out", directory + "/sig", directory + "/message"])
            return (payload, Base64.encode(try FileDescriptor.open(ByteString(directory + "/sig"), .readOnly).readAll(limit: 4096)))
        }

        /// The policy of a file in which `KEYS` stands for the folder with the keys.
        func policy(_ text: String) throws -> LoadedPolicy {
            try writeFile(directory + "/policy.json", text.replacing("KEYS", with: directory))
            return try #require(try LoadedPolicy.ofHost(ByteString(directory + "/policy.json")))
        }

        var content: [String] { files(directory + "/repo") }

        private func files(_ path: String) -> [String] {
            guard let entries = try? FileDescriptor.open(ByteString(path), [.readOnly, .directory]).entries() else { return [] }
            return entries.flatMap { entry -> [String] in
                let below = "\(path)/\(entry.name)"
                return [below] + (entry.kind == .directory ? files(below) : [])
            }.sorted()
        }
    }

    private func withWorkshop(_ body: (Workshop) throws -> Void) throws {
        try withTemporaryDirectory { try body(Workshop($0)) }
    }

    private static let signed = #"{"default":[{"type":"sigstoreSigned","keyPath":"KEYS/a.pub"}]}"#
    private static let byRepository =
        #"{"default":[{"type":"sigstoreSigned","keyPath":"KEYS/a.pub","signedIdentity":{"type":"exactRepository","dockerRepository":"vendor.example/app"}}]}"#

    private func options(_ policy: LoadedPolicy) -> PullOptions {
        var options = PullOptions(name: "image")
        options.signaturePolicy = policy
        return options
    }

    private func source(_ server: ScriptedServer, _ suffix: String = ":v1") throws -> RegistryImageSource {
        RegistryImageSource(
            try RegistryReference(parsing: "\(server.host)/team/app\(suffix)"), client: try makeClient { $0.retry.limit = 1 })
    }

    /// The pull is accepted.
    private func expectPull(
        _ workshop: Workshop, _ content: Content, _ policy: String, sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let server = Self.serve(content)
        defer { server.stop() }
        let result = try pullImage(from: try source(server), into: workshop.repository, options(try workshop.policy(policy)))
        #expect(result.manifestDigest == Self.image.digest, sourceLocation: sourceLocation)
        #expect(try ImageStore(workshop.repository).open("image").image.manifestDigest == Self.image.digest, sourceLocation: sourceLocation)
    }

    /// The pull is refused; the repository is as it was, and no layer and no config was asked for.
    private func refusal(
        _ workshop: Workshop, _ content: Content, _ policy: String, _ suffix: String = ":v1",
        sourceLocation: SourceLocation = #_sourceLocation,
        instead script: @escaping @Sendable (ScriptedServer.Request) -> [ScriptedServer.Action]? = { _ in nil }
    ) throws -> SignatureRefusal? {
        let server = Self.serve(content, instead: script)
        defer { server.stop() }
        let before = workshop.content
        var refusal: SignatureRefusal?
        do {
            _ = try pullImage(from: try source(server, suffix), into: workshop.repository, options(try workshop.policy(policy)))
            Issue.record("not refused", sourceLocation: sourceLocation)
        } catch let error as SignatureRefusal {
            refusal = error
        }
        #expect(workshop.content == before, sourceLocation: sourceLocation)
        for blob in Self.image.layers + [Self.image.config] {
            #expect(!server.requests.contains { $0.path.hasSuffix("/\(ContentDigest.of(blob))") }, sourceLocation: sourceLocation)
        }
        let file = ByteString(workshop.directory + "/policy.json")
        #expect(refusal?.file == file && refusal?.description.contains(file.description) == true, sourceLocation: sourceLocation)
        return refusal
    }

    @Test func byTheTag() throws {
        try withWorkshop { workshop in
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app"))
            let content = Content(tagged: [Self.image.digest: Self.artifact([signature])], payloads: [signature.payload])
            try expectPull(workshop, content, Self.byRepository)
        }
    }

    @Test func byTheReferrer() throws {
        try withWorkshop { workshop in
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app:v9"))
            let artifact = Self.artifact([signature], subject: Self.image.manifest)
            let content = Content(referrers: [(Self.image.manifest, Self.signatureType, artifact)], payloads: [signature.payload])
            try expectPull(workshop, content, Self.byRepository)
        }
    }

    /// The reference of the command is that of the signature; the port is that of the server.
    @Test func byTheOwnReference() throws {
        try withWorkshop { workshop in
            let tagged = Mutex<(manifest: [UInt8], payload: [UInt8])?>(nil)
            let server = Self.serve(Content()) { request in
                guard let found = tagged.withLock({ $0 }) else { return nil }
                if request.path.hasSuffix(".sig") { return [.reply(200, [:], found.manifest)] }
                return request.path.hasSuffix("/\(ContentDigest.of(found.payload))") ? [.reply(200, [:], found.payload)] : nil
            }
            defer { server.stop() }
            func pull(signedAs reference: String, _ suffix: String) throws {
                let signature = try workshop.sign(Self.claim(Self.image.manifest, reference))
                tagged.withLock { $0 = (Self.artifact([signature]), signature.payload) }
                _ = try pullImage(from: try source(server, suffix), into: workshop.repository, options(try workshop.policy(Self.signed)))
            }
            #expect(throws: SignatureRefusal.self) { try pull(signedAs: "\(server.host)/team/app:v2", ":v1") }
            #expect(throws: SignatureRefusal.self) { try pull(signedAs: "\(server.host)/team/app", ":v1") }
            try pull(signedAs: "\(server.host)/team/app:v2", "@\(Self.image.digest)")
            try pull(signedAs: "\(server.host)/team/app:v1", ":v1")
        }
    }

    @Test func wrongSignatures() throws {
        try withWorkshop { workshop in
            func faults(_ payload: [UInt8], _ key: String = "a") throws -> [ImageSignatureFault] {
                let signature = try workshop.sign(payload, key)
                let content = Content(tagged: [Self.image.digest: Self.artifact([signature])], payloads: [payload])
                guard
                    case .notAccepted(Self.image.digest, let faults, isListed: false)? = try refusal(workshop, content, Self.byRepository)?
                        .reason
                else { return [] }
                return faults
            }
            #expect(try faults(Self.claim(Self.image.manifest, "vendor.example/app"), "b") == [.otherKey])
            #expect(try faults(Self.claim(Self.index, "vendor.example/app")) == [.otherDigest(ContentDigest.of(Self.index).description)])
            guard
                case .otherReference("\"vendor.example/other\"", _)? = try faults(Self.claim(Self.image.manifest, "vendor.example/other"))
                    .first
            else {
                Issue.record("another fault")
                return
            }
        }
    }

    @Test func noSignature() throws {
        try withWorkshop { workshop in
            let reason = try refusal(workshop, Content(), Self.signed)?.reason
            #expect(reason == .unsigned(Self.image.digest, isListed: false))
            // An artifact of another kind, and one in a format that is not supported.
            let note = Self.artifact([], subject: Self.image.manifest)
            let other = Content(referrers: [(Self.image.manifest, "application/spdx+json", note)])
            #expect(try refusal(workshop, other, Self.signed)?.reason == .unsigned(Self.image.digest, isListed: false))
            let bundle = Content(referrers: [(Self.image.manifest, "application/vnd.dev.sigstore.bundle.v0.3+json", note)])
            let text = try refusal(workshop, bundle, Self.signed)?.description
            #expect(text?.contains("is a sigstore bundle, which cannot be checked") == true, "\(text ?? "")")
        }
    }

    /// What is wrong with one place does not hide the other.
    @Test func brokenPlaces() throws {
        try withWorkshop { workshop in
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app"))
            let tag = [Self.image.digest: Self.artifact([signature])]
            let damaged = Content(
                tagged: [Self.image.digest: Array("no manifest".utf8)],
                referrers: [(Self.image.manifest, Self.signatureType, Self.artifact([signature], subject: Self.image.manifest))],
                payloads: [signature.payload])
            try expectPull(workshop, damaged, Self.byRepository)
            // Its subject is another image: it is not asked.
            let foreign = Content(
                referrers: [(Self.image.manifest, Self.signatureType, Self.artifact([signature], subject: Self.index))],
                payloads: [signature.payload])
            #expect(try refusal(workshop, foreign, Self.byRepository)?.reason == .unsigned(Self.image.digest, isListed: false))
            // The signed document is not there.
            let gone = try refusal(workshop, Content(tagged: tag), Self.byRepository)?.reason
            guard case .notAccepted(_, let faults, _)? = gone, case .unreadable(let why)? = faults.first else {
                Issue.record("\(String(describing: gone))")
                return
            }
            #expect(why.contains("404"), "\(why)")
            // No list of referrers.
            let noList = try refusal(workshop, Content(), Self.byRepository) { request in
                request.path.contains("/referrers/") || request.path.contains("/manifests/sha256-") && !request.path.hasSuffix(".sig")
                    ? [.reply(403)] : nil
            }
            #expect(noList?.description.contains("403") == true, "\(String(describing: noList))")
        }
    }

    /// As podman and skopeo: of an image for several platforms, the manifest that is used must be signed.
    @Test func indexes() throws {
        try withWorkshop { workshop in
            let ofIndex = try workshop.sign(Self.claim(Self.index, "vendor.example/app"))
            var content = Content(
                root: Self.index, tagged: [.of(Self.index): Self.artifact([ofIndex])], payloads: [ofIndex.payload])
            let refused = try refusal(workshop, content, Self.byRepository)
            #expect(refused?.reason == .unsigned(Self.image.digest, isListed: true))
            #expect(refused?.description.contains("not of the index that lists it") == true)
            let ofManifest = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app"))
            content.tagged[Self.image.digest] = Self.artifact([ofIndex, ofManifest])
            content.payloads.append(ofManifest.payload)
            try expectPull(workshop, content, Self.byRepository)
        }
    }

    /// All are judged before the first is stored.
    @Test func allPlatforms() throws {
        try withWorkshop { workshop in
            let other = TestImage(sizes: [1000])
            let platforms = [(Self.image.manifest, "amd64"), (other.manifest, "arm64")].map {
                Self.descriptor(TestImage.manifestType, $0.0, #","platform":{"os":"linux","architecture":"\#($0.1)"}"#)
            }.joined(separator: ",")
            let index = Array(#"{"schemaVersion":2,"mediaType":"\#(Self.indexType)","manifests":[\#(platforms)]}"#.utf8)
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app"))
            let content = Content(
                root: index, tagged: [Self.image.digest: Self.artifact([signature])],
                payloads: [signature.payload, other.manifest, other.config] + other.layers)
            let server = Self.serve(content)
            defer { server.stop() }
            let before = workshop.content
            let options = options(try workshop.policy(Self.byRepository))
            do {
                _ = try pullAllPlatforms(from: try source(server), into: workshop.repository, options)
                Issue.record("not refused")
            } catch let error as SignatureRefusal {
                #expect(error.reason == .unsigned(other.digest, isListed: true))
            }
            #expect(workshop.content == before)
            #expect(
                !server.requests.contains { request in Self.image.layers.contains { request.path.hasSuffix("\(ContentDigest.of($0))") } })
        }
    }

    /// What is no image for a platform, such as an attestation, is left out if the policy refuses it. The index stays as it is.
    @Test func othersOfAnIndex() throws {
        try withWorkshop { workshop in
            let other = TestImage(sizes: [1000])
            let entries = [(Self.image.manifest, "linux", "amd64"), (other.manifest, "unknown", "unknown")].map {
                Self.descriptor(TestImage.manifestType, $0.0, #","platform":{"os":"\#($0.1)","architecture":"\#($0.2)"}"#)
            }.joined(separator: ",")
            let index = Array(#"{"schemaVersion":2,"mediaType":"\#(Self.indexType)","manifests":[\#(entries)]}"#.utf8)
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.example/app"))
            let content = Content(
                root: index, tagged: [Self.image.digest: Self.artifact([signature])],
                payloads: [signature.payload, other.manifest, other.config] + other.layers)
            let server = Self.serve(content)
            defer { server.stop() }
            let options = options(try workshop.policy(Self.byRepository))
            let pulled = try pullAllPlatforms(from: try source(server), into: workshop.repository, options)
            #expect(pulled.map(\.manifestDigest) == [Self.image.digest])
            #expect(pulled.first?.index?.digest == .of(index) && pulled.first?.index?.leftOut.map(\.digest) == [other.digest])
            let store = ImageStore(workshop.repository)
            #expect(try !store.contains(other.digest))
            #expect(try store.index(.of(index))?.members.map(\.isStored) == [true, false])
            // The layers were not asked for.
            #expect(!server.requests.contains { request in other.layers.contains { request.path.hasSuffix("\(ContentDigest.of($0))") } })
        }
    }

    /// What is refused in any case takes no request, and holds for an image that the repository has.
    @Test func refusedWithoutRequests() throws {
        try withWorkshop { workshop in
            let server = Self.serve(Content())
            defer { server.stop() }
            let accept = #"{"default":[{"type":"insecureAcceptAnything"}]}"#
            for stored in [false, true] {
                if stored {
                    var options = options(try workshop.policy(accept))
                    options.name = nil
                    _ = try pullImage(from: try source(server), into: workshop.repository, options)
                }
                let (before, requests) = (workshop.content, server.requests.count)
                for requirement in [
                    #"{"type":"reject"}"#, #"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#,
                    #"{"type":"sigstoreSigned","keyPath":"KEYS/a.pub","rekorPublicKeyPath":"/r"}"#,
                    #"{"type":"sigstoreSigned","keyPath":"KEYS/none"}"#,
                ] {
                    let text =
                        #"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"127.0.0.1:\#(server.port)":[\#(requirement)]}}}"#
                    for policy in PullPolicy.allCases {
                        var options = options(try workshop.policy(text))
                        options.policy = policy
                        do {
                            _ = try pullImage(from: try source(server), into: workshop.repository, options)
                            Issue.record("accepted under \(requirement)")
                        } catch let error as SignatureRefusal {
                            #expect(error.scope == .scope(ByteString("127.0.0.1:\(server.port)"), transport: "docker"))
                        }
                    }
                }
                #expect(workshop.content == before && server.requests.count == requests)
            }
        }
    }

    /// An image that the repository has is not asked for its signatures again unless its source is.
    @Test func storedImages() throws {
        try withWorkshop { workshop in
            let server = Self.serve(Content())
            defer { server.stop() }
            var options = PullOptions()
            _ = try pullImage(from: try source(server), into: workshop.repository, options)
            options.signaturePolicy = try workshop.policy(Self.signed)
            for (policy, isRefused) in [(PullPolicy.missing, false), (.never, false), (.newer, true), (.always, true)] {
                options.policy = policy
                let outcome = Result { try pullImage(from: try source(server), into: workshop.repository, options).outcome }
                if case .success(let outcome) = outcome {
                    #expect(!isRefused && outcome == .present, "\(policy)")
                } else {
                    #expect(isRefused, "\(policy): \(outcome)")
                    #expect(throws: SignatureRefusal.self) { try outcome.get() }
                }
            }
        }
    }

    /// The scope and the signature are those of the registry, whatever mirror the image and its signature come from.
    @Test func mirrors() throws {
        try withWorkshop { workshop in
            let signature = try workshop.sign(Self.claim(Self.image.manifest, "vendor.invalid/team/app:v1"))
            let server = Self.serve(Content(tagged: [Self.image.digest: Self.artifact([signature])], payloads: [signature.payload]))
            defer { server.stop() }
            let configuration = workshop.directory + "/registries.conf"
            try writeFile(
                configuration,
                "[[registry]]\nlocation = \"vendor.invalid\"\n[[registry.mirror]]\nlocation = \"\(server.host)\"\ninsecure = true\n")
            let client = try makeClient {
                $0.registriesConfiguration = ByteString(configuration)
                $0.retry.limit = 1
            }
            let source = RegistryImageSource(try RegistryReference(parsing: "vendor.invalid/team/app:v1"), client: client)
            let scoped =
                #"{"default":[{"type":"reject"}],"transports":{"docker":{"vendor.invalid/team":[{"type":"sigstoreSigned","keyPath":"KEYS/a.pub"}]}}}"#
            let result = try pullImage(from: source, into: workshop.repository, options(try workshop.policy(scoped)))
            #expect(result.manifestDigest == Self.image.digest)
        }
    }

    // MARK: The files of the host

    @Test func filesOfTheHost() throws {
        try withTemporaryDirectory { directory in
            let environment = Environment(["HOME": directory + "/home"], systemRoot: directory)
            func found() throws -> ByteString? { try LoadedPolicy.ofHost(nil, environment)?.file }
            #expect(try found() == nil)
            for folder in [
                "/usr", "/usr/share", "/usr/share/containers", "/etc", "/etc/containers", "/home", "/home/.config",
                "/home/.config/containers",
            ] {
                try makeDirectory(directory + folder)
            }
            #expect(try found() == nil)
            for folder in ["/usr/share", "/etc", "/home/.config"] {
                let path = "\(directory)\(folder)/containers/policy.json"
                try writeFile(path, #"{"default":[{"type":"reject"}]}"#)
                #expect(try found() == ByteString(path))
            }
            // One that is named must exist, and one with a mistake is not passed over.
            #expect(throws: SystemError.self) { try LoadedPolicy.ofHost(ByteString(directory + "/none"), environment) }
            try writeFile(directory + "/home/.config/containers/policy.json", "{}")
            #expect(throws: SignaturePolicyError.self) { try found() }
        }
    }
}
