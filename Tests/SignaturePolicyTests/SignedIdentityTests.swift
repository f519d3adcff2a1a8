import Testing

@testable import ComposefsSignaturePolicy

/// The forms of `signedIdentity`: the reference that a signature states, beside that of the image.
@Suite struct SignedIdentityTests {
    private static let digest = "sha256:" + String(repeating: "a", count: 64)
    private static let other = "sha256:" + String(repeating: "b", count: 64)

    private func accepts(_ identity: SignedIdentity, _ signed: String, _ image: String?) throws -> Bool {
        identity.accepts(signed, for: try image.map { try #require(StatedReference(parsing: $0)) })
    }

    private func reference(_ text: String) throws -> StatedReference { try #require(StatedReference(parsing: text)) }

    @Test func exact() throws {
        let cases: [(String, String?, Bool)] = [
            ("q.io/a:1", "q.io/a:1", true), ("q.io/a:2", "q.io/a:1", false), ("q.io/a", "q.io/a:1", false), ("q.io/b:1", "q.io/a:1", false),
            ("q.io/a@\(Self.digest)", "q.io/a@\(Self.digest)", true), ("q.io/a:1", "q.io/a@\(Self.digest)", false),
            ("q.io/a@\(Self.other)", "q.io/a@\(Self.digest)", false), ("busybox:latest", "docker.io/library/busybox:latest", true),
            ("busybox", "docker.io/library/busybox:latest", false), ("q.io/a:1", nil, false), ("", "q.io/a:1", false),
            ("A B", "q.io/a:1", false),
            ("Q.io/a:1", "q.io/a:1", true),
        ]
        for (signed, image, wanted) in cases { #expect(try accepts(.matchExact, signed, image) == wanted, "\(signed) for \(image ?? "-")") }
    }

    @Test func repoDigestOrExact() throws {
        let cases: [(String, String?, Bool)] = [
            ("q.io/a:1", "q.io/a:1", true), ("q.io/a:2", "q.io/a:1", false), ("q.io/a", "q.io/a:1", false),
            ("q.io/a@\(Self.digest)", "q.io/a:1", false), ("q.io/a:1", "q.io/a@\(Self.digest)", true),
            ("q.io/a@\(Self.other)", "q.io/a@\(Self.digest)", true), ("q.io/a", "q.io/a@\(Self.digest)", false),
            ("q.io/b:1", "q.io/a@\(Self.digest)", false), ("q.io/a:1", nil, false),
            // Neither tag nor digest: nothing to compare with.
            ("q.io/a:1", "q.io/a", false),
        ]
        for (signed, image, wanted) in cases {
            #expect(try accepts(.matchRepoDigestOrExact, signed, image) == wanted, "\(signed) for \(image ?? "-")")
        }
    }

    @Test func repository() throws {
        let cases: [(String, String?, Bool)] = [
            ("q.io/a", "q.io/a:1", true), ("q.io/a:2", "q.io/a:1", true), ("q.io/a@\(Self.other)", "q.io/a@\(Self.digest)", true),
            ("q.io/a/b", "q.io/a:1", false), ("q.io:443/a", "q.io/a:1", false), ("q.io/a", nil, false),
            ("https://q.io/a", "q.io/a:1", false),
        ]
        for (signed, image, wanted) in cases {
            #expect(try accepts(.matchRepository, signed, image) == wanted, "\(signed) for \(image ?? "-")")
        }
    }

    /// They replace the image's reference, which it need not have.
    @Test(arguments: [nil, "other.io/x:9"])
    func exactForms(image: String?) throws {
        let reference = SignedIdentity.exactReference(try reference("q.io/a:1"))
        for (signed, wanted) in [("q.io/a:1", true), ("q.io/a:2", false), ("q.io/a", false), ("other.io/x:9", false)] {
            #expect(try accepts(reference, signed, image) == wanted, "\(signed)")
        }
        // A tag in the repository's name says nothing.
        for name in ["q.io/a", "q.io/a:3"] {
            let repository = SignedIdentity.exactRepository(try self.reference(name))
            for (signed, wanted) in [
                ("q.io/a", true), ("q.io/a:7", true), ("q.io/a@\(Self.digest)", true), ("q.io/b", false), ("other.io/x:9", false),
            ] {
                #expect(try accepts(repository, signed, image) == wanted, "\(signed)")
            }
        }
    }

    @Test func remapped() throws {
        let cases: [(String, String, String, String?, Bool)] = [
            // prefix, signed prefix, signature, image
            ("mirror:5000/vendor", "vendor.example", "vendor.example/p/i:1", "mirror:5000/vendor/p/i:1", true),
            ("mirror:5000/vendor", "vendor.example", "vendor.example/p/i:2", "mirror:5000/vendor/p/i:1", false),
            ("mirror:5000/vendor", "vendor.example", "vendor.example/p/i:2", "mirror:5000/vendor/p/i@\(Self.digest)", true),
            ("mirror:5000/vendor", "vendor.example", "mirror:5000/vendor/p/i:1", "mirror:5000/vendor/p/i:1", false),
            // A whole component.
            ("mirror:5000/ven", "vendor.example", "vendor.exampledor/p/i:1", "mirror:5000/vendor/p/i:1", false),
            ("mirror:5000/ven", "vendor.example", "mirror:5000/vendor/p/i:1", "mirror:5000/vendor/p/i:1", true),
            // The host alone, and a whole repository.
            ("mirror:5000", "docker.io", "docker.io/library/a:1", "mirror:5000/library/a:1", true),
            ("mirror:5000/a", "q.io/b", "q.io/b:1", "mirror:5000/a:1", true),
            ("docker.io/library", "q.io/lib", "q.io/lib/busybox:latest", "docker.io/library/busybox:latest", true),
            // The result must be a full reference: docker.io/a means docker.io/library/a.
            ("mirror:5000", "docker.io", "docker.io/library/a:1", "mirror:5000/a:1", false),
            ("mirror:5000/x", "q.io", "q.io/y:1", "mirror:5000/x:1", false),
            ("mirror:5000/x", "q.io", "q.io/y:1", nil, false),
        ]
        for (prefix, signedPrefix, signed, image, wanted) in cases {
            let identity = SignedIdentity.remapIdentity(prefix: prefix, signedPrefix: signedPrefix)
            #expect(try accepts(identity, signed, image) == wanted, "\(prefix) → \(signedPrefix): \(signed) for \(image ?? "-")")
        }
    }
}
