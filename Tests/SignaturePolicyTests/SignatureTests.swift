import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import Testing

@testable import ComposefsSignaturePolicy

/// Signatures that openssl has made, and what a policy says about them.
@Suite(.enabled("openssl is not installed") { OpenSSL.isInstalled }) struct SignatureTests {
    private let openssl: OpenSSL
    private let key: [UInt8]
    private let manifest = Array(#"{"schemaVersion":2}"#.utf8)
    private let image: ImageIdentity

    init() throws {
        openssl = try OpenSSL()
        key = try openssl.makeKey("a")
        image = .registry(try RegistryReference(parsing: "q.io/team/app:1"))
    }

    private static func requirement(_ key: [UInt8], _ more: String = "") -> String {
        #"{"type":"sigstoreSigned","keyData":"\#(Base64.encode(key))"\#(more)}"#
    }

    private func demands(_ requirements: String, files: [ByteString: LoadedPolicy.KeyFile] = [:]) throws -> SignatureDemands {
        let loaded = try LoadedPolicy(file: "/etc/p.json", parsing: Array(#"{"default":[\#(requirements)]}"#.utf8)) {
            files[$0] ?? .unreadable("open \($0): no such file")
        }
        return try loaded.demands(of: image, named: "q.io/team/app:1")
    }

    private func signature(_ payload: [UInt8], _ key: String = "a") throws -> ImageSignature {
        ImageSignature(payload: payload, signature: Base64.encode(try openssl.sign(payload, key)))
    }

    private func refusal(_ demands: SignatureDemands) -> SignatureRefusal.Reason? {
        demands.refusal(of: .of(manifest), isListed: false)?.reason
    }

    /// The faults after one signature; nil if it was accepted.
    private func faults(_ signature: ImageSignature, _ requirements: String) throws -> [ImageSignatureFault]? {
        var demands = try demands(requirements)
        demands.offer(signature, for: manifest)
        #expect(demands.areMet == (refusal(demands) == nil))
        guard case .notAccepted(_, let faults, _)? = refusal(demands) else { return nil }
        return faults
    }

    @Test(arguments: [
        "-algorithm EC -pkeyopt ec_paramgen_curve:P-256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
        "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        "-algorithm ED25519",
    ])
    func kindsOfKeys(kind: String) throws {
        let key = try openssl.makeKey("b", kind)
        let good = try signature(claim(manifest, "q.io/team/app:1"), "b")
        #expect(try faults(good, Self.requirement(key)) == nil)
        #expect(try faults(good, Self.requirement(self.key)) == [.otherKey])
        // Another message, and signatures that are damaged.
        var changed = good
        changed.payload[5] ^= 1
        #expect(try faults(changed, Self.requirement(key)) == [.otherKey])
        let bytes = try #require(Base64.decode((good.signature ?? "").utf8))
        var flipped = bytes
        flipped[bytes.count / 2] ^= 1
        for wrong in [[], [0x30], Array(bytes.dropLast()), bytes + [0], flipped] {
            #expect(
                try faults(ImageSignature(payload: good.payload, signature: Base64.encode(wrong)), Self.requirement(key)) == [.otherKey])
        }
    }

    @Test func theClaim() throws {
        let requirement = Self.requirement(key)
        func check(_ payload: [UInt8]) throws -> [ImageSignatureFault]? { try faults(try signature(payload), requirement) }
        #expect(try check(claim(manifest, "q.io/team/app:1", optional: #"{"creator":"c","timestamp":1700000000,"own":[1]}"#)) == nil)
        let other = Array("another manifest".utf8)
        #expect(try check(claim(other, "q.io/team/app:1")) == [.otherDigest(ContentDigest.of(other).description)])
        #expect(try check(claim(manifest, "q.io/team/app:2")) == [.otherReference("\"q.io/team/app:2\"", .matchRepoDigestOrExact)])
        // cosign states the repository alone, which this form does not accept.
        #expect(try check(claim(manifest, "q.io/team/app")) == [.otherReference("\"q.io/team/app\"", .matchRepoDigestOrExact)])
        #expect(
            try faults(
                try signature(claim(manifest, "q.io/team/app")), Self.requirement(key, #","signedIdentity":{"type":"matchRepository"}"#))
                == nil)
        // A digest by another algorithm.
        let sha512 = String(decoding: claim(manifest, "q.io/team/app:1"), as: UTF8.self).replacing(
            ContentDigest.of(manifest).description, with: ContentDigest.of(manifest, .sha512).description)
        #expect(try check(Array(sha512.utf8)) == nil)
    }

    /// A good signature of something else than a claim.
    @Test func malformedClaims() throws {
        let good = String(decoding: claim(manifest, "q.io/team/app:1"), as: UTF8.self)
        let digest = ContentDigest.of(manifest).description
        let wrong = [
            "", "{}", "[]", good + " x", good.replacing("cosign container image signature", with: "atomic container signature"),
            good.replacing(#""optional":null"#, with: #""optional":{},"more":1"#), good.replacing(#","optional":null"#, with: ""),
            good.replacing(#""optional":null"#, with: #""optional":[]"#), good.replacing("null", with: #"{"timestamp":1.5}"#),
            good.replacing("null", with: #"{"creator":5}"#), good.replacing(#""critical":{"#, with: #""critical":{"x":1,"#),
            good.replacing(#""image":{"#, with: #""image":{"x":1,"#), good.replacing(#""identity":{"#, with: #""identity":{"x":1,"#),
            good.replacing(digest, with: "sha256:0"), good.replacing(#""\#(digest)""#, with: "1"),
            good.replacing(#""q.io/team/app:1""#, with: "null"),
            good.replacing(#""docker-reference":"#, with: #""docker-reference":"q.io/team/app:1","docker-reference":"#),
        ]
        for text in wrong {
            #expect(try faults(try signature(Array(text.utf8)), Self.requirement(key)) == [.malformedClaim], "\(text)")
        }
    }

    @Test func annotations() throws {
        let payload = claim(manifest, "q.io/team/app:1")
        #expect(try faults(ImageSignature(payload: payload, signature: nil), Self.requirement(key)) == [.noSignature])
        #expect(try faults(ImageSignature(payload: payload, signature: "***"), Self.requirement(key)) == [.notBase64])
    }

    /// Any key of one requirement, and all requirements.
    @Test func severalKeys() throws {
        let second = try openssl.makeKey("b", "-algorithm ED25519")
        let payload = claim(manifest, "q.io/team/app:1")
        let either = #"{"type":"sigstoreSigned","keyDatas":["\#(Base64.encode(key))","\#(Base64.encode(second))"]}"#
        for name in ["a", "b"] { #expect(try faults(try signature(payload, name), either) == nil) }
        var both = try demands(Self.requirement(key) + #",{"type":"insecureAcceptAnything"},"# + Self.requirement(second))
        both.offer(try signature(payload, "a"), for: manifest)
        #expect(!both.areMet && refusal(both) == .notAccepted(.of(manifest), [.otherKey], isListed: false))
        both.offer(try signature(payload, "b"), for: manifest)
        #expect(both.areMet && refusal(both) == nil)
    }

    @Test func withoutSignature() throws {
        let unsigned = try demands(Self.requirement(key))
        #expect(refusal(unsigned) == .unsigned(.of(manifest), isListed: false))
        #expect(try demands(#"{"type":"insecureAcceptAnything"}"#).areMet)
        var unread = try demands(Self.requirement(key))
        unread.note(unreadable: "a reason")
        #expect(refusal(unread) == .notAccepted(.of(manifest), [.unreadable("a reason")], isListed: false))
        // A signature of no use beside one that is.
        unread.offer(try signature(claim(manifest, "q.io/team/app:1")), for: manifest)
        #expect(unread.areMet)
    }

    private func reason(_ requirements: String, files: [ByteString: LoadedPolicy.KeyFile] = [:]) -> SignatureRefusal.Reason? {
        do {
            _ = try demands(requirements, files: files)
            return nil
        } catch let error as SignatureRefusal {
            #expect(error.description.hasPrefix("q.io/team/app:1: refused by the signature policy /etc/p.json: the default "), "\(error)")
            return error.reason
        } catch {
            Issue.record("\(error)")
            return nil
        }
    }

    /// Known before a signature is looked for, and whatever else is required.
    @Test func refusedInAnyCase() throws {
        let accept = #"{"type":"insecureAcceptAnything"},"#
        #expect(reason(accept + #"{"type":"reject"}"#) == .rejected)
        #expect(reason(accept + #"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#) == .uncheckable(.gpg))
        #expect(reason(Self.requirement(key) + "," + Self.requirement(key, #","rekorPublicKeyPath":"/r""#)) == .uncheckable(.rekor))
        let named = #"{"type":"sigstoreSigned","keyPath":"/k"}"#
        #expect(reason(named) == .keyUnreadable("open /k: no such file"))
        #expect(reason(named, files: ["/k": .content([])]) == .keyInvalid("/k", .noKey))
        #expect(
            reason(named, files: ["/k": .content(Array("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".utf8))])
                == .keyInvalid("/k", .noKey))
        #expect(reason(Self.requirement(try openssl.makeKey("x", "-algorithm X25519"))) == .keyInvalid(nil, .unsupported("X25519")))
        #expect(reason(named, files: ["/k": .content(key)]) == nil)
    }

    /// A key that another scope needs need not be there.
    @Test func keysOfOtherScopes() throws {
        let text =
            #"{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"other.io":[{"type":"sigstoreSigned","keyPath":"/k"}]}}}"#
        let loaded = try LoadedPolicy(file: "p", parsing: Array(text.utf8)) { .unreadable("open \($0)") }
        #expect(try loaded.demands(of: image, named: "i").areMet)
        #expect(throws: SignatureRefusal.self) {
            try loaded.demands(of: .registry(try RegistryReference(parsing: "other.io/a")), named: "i")
        }
        do {
            _ = try LoadedPolicy(file: "/etc/p.json", parsing: Array("{}".utf8)) { .unreadable("\($0)") }
            Issue.record("accepted")
        } catch {
            #expect(error.file == "/etc/p.json" && error.fault.reason == .missing)
        }
    }
}
