import ComposefsBytes
import ComposefsOCIModel
import Testing

@testable import ComposefsSignaturePolicy

/// Which scope of a policy applies to an image.
@Suite struct ScopeTests {
    private func scopes(_ reference: String) throws -> [String] {
        ImageIdentity.registry(try RegistryReference(parsing: reference)).scopes.map(\.description)
    }

    /// The identity, its namespaces and the wildcards, in the order in which they are looked up.
    @Test func ofRegistries() throws {
        #expect(
            try scopes("busybox") == [
                "docker.io/library/busybox:latest", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io",
            ])
        #expect(
            try scopes("a.b.example.com:8443/ns/app:1") == [
                "a.b.example.com:8443/ns/app:1", "a.b.example.com:8443/ns/app", "a.b.example.com:8443/ns", "a.b.example.com:8443",
                "*.b.example.com", "*.example.com", "*.com",
            ])
        let digest = "sha256:" + String(repeating: "a", count: 64)
        #expect(try scopes("localhost:5000/app@\(digest)") == ["localhost:5000/app@\(digest)", "localhost:5000/app", "localhost:5000"])
        // podman and skopeo drop the tag, too.
        #expect(try scopes("quay.io/a/b:1@\(digest)").first == "quay.io/a/b@\(digest)")
        #expect(try scopes("[::1]:5000/a") == ["[::1]:5000/a:latest", "[::1]:5000/a", "[::1]:5000"])
    }

    @Test func ofFiles() {
        let layout = ImageIdentity.file("/srv/images/app", transport: "oci")
        #expect(layout.scopes == ["/srv/images/app", "/srv/images", "/srv"] && layout.transport == "oci" && layout.reference == nil)
        #expect(ImageIdentity.file("/a.tar", transport: "oci-archive").scopes == ["/a.tar"])
        #expect(ImageIdentity.file(nil, transport: "oci-archive").scopes == [])
        #expect(ImageIdentity.file("pipe:[123]", transport: "oci-archive").scopes == [])
        #expect(ImageIdentity.file("/", transport: "dir").scopes == [])
        #expect(ImageIdentity.dockerArchive.scopes == [])
    }

    @Test func ofStorage() {
        let id = String(repeating: "c", count: 64)
        func scopes(_ name: String?, _ id: String?) -> [String] {
            ImageIdentity.storage(root: "/var/s", name: name, id: id).scopes.map(\.description)
        }
        #expect(
            scopes("docker.io/library/a:1", nil) == [
                "[overlay@/var/s]docker.io/library/a:1", "[overlay@/var/s]docker.io/library/a", "[overlay@/var/s]docker.io/library",
                "[overlay@/var/s]docker.io", "[overlay@/var/s]", "[/var/s]",
            ])
        #expect(scopes("q.io/a:1", id).prefix(2) == ["[overlay@/var/s]q.io/a:1@\(id)", "[overlay@/var/s]q.io/a:1"])
        let digest = "sha256:" + String(repeating: "d", count: 64)
        #expect(
            scopes("q.io/a:1@\(digest)", nil).prefix(3) == [
                "[overlay@/var/s]q.io/a:1@\(digest)", "[overlay@/var/s]q.io/a:1", "[overlay@/var/s]q.io/a",
            ])
        #expect(scopes(nil, id) == ["[overlay@/var/s]@\(id)", "[overlay@/var/s]", "[/var/s]"])
    }

    /// One policy, and the scope that each image falls into.
    @Test func mostSpecific() throws {
        let reject = #"[{"type":"reject"}]"#
        let names = [
            "", "docker.io/library/busybox:latest", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.example.com",
            "*.b.example.com",
            "host:5000", "Upper.Example.org/ns",
        ]
        let scopes = names.map { "\"\($0)\":\(reject)" }.joined(separator: ",")
        let policy = try policy(
            #"{"default":\#(reject),"transports":{"docker":{\#(scopes)},"oci":{"/srv":\#(reject)},"dir":{"":\#(reject)},"docker-archive":{"":\#(reject)}}}"#
        )
        func scope(_ reference: String) throws -> PolicyScope {
            policy.requirements(for: .registry(try RegistryReference(parsing: reference))).scope
        }
        func docker(_ scope: String) -> PolicyScope { .scope(ByteString(scope), transport: "docker") }
        #expect(try scope("busybox") == docker("docker.io/library/busybox:latest"))
        #expect(try scope("busybox:1") == docker("docker.io/library/busybox"))
        #expect(try scope("busybox@sha256:" + String(repeating: "a", count: 64)) == docker("docker.io/library/busybox"))
        #expect(try scope("busybox2") == docker("docker.io/library"))
        #expect(try scope("team/busybox") == docker("docker.io"))
        #expect(try scope("a.b.example.com/x") == docker("*.b.example.com"))
        #expect(try scope("a.b.example.com:5000/x") == docker("*.b.example.com"))
        #expect(try scope("b.example.com/x") == docker("*.example.com"))
        // A wildcard is for subdomains.
        #expect(try scope("example.com/x") == .transport("docker"))
        #expect(try scope("badexample.com/x") == .transport("docker"))
        #expect(try scope("host:5000/x") == docker("host:5000"))
        #expect(try scope("host:5001/x") == .transport("docker"))
        // Hosts have no case.
        #expect(try scope("UPPER.example.ORG/ns/x") == docker("upper.example.org/ns"))
        func scope(_ image: ImageIdentity) -> PolicyScope { policy.requirements(for: image).scope }
        #expect(scope(.file("/srv/a", transport: "oci")) == .scope("/srv", transport: "oci"))
        #expect(scope(.file("/srv2/a", transport: "oci")) == .global)
        #expect(scope(.file("/srv/a", transport: "oci-archive")) == .global)
        #expect(scope(.file("/srv/a", transport: "dir")) == .transport("dir"))
        #expect(scope(.dockerArchive) == .transport("docker-archive"))
        #expect(scope(.unknown) == .global)
    }

    /// If hosts differ only in their case, an image must satisfy the requirements of both.
    @Test func hostsInBothCases() throws {
        let policy = try policy(
            #"{"default":[{"type":"reject"}],"transports":{"docker":{"A.example":[{"type":"insecureAcceptAnything"}],"a.example":[{"type":"reject"}]}}}"#
        )
        let found = policy.requirements(for: .registry(try RegistryReference(parsing: "a.example/x"))).requirements
        #expect(Set(found) == [.insecureAcceptAnything, .reject])
    }

    /// A policy cannot name an image without a transport.
    @Test func noTransport() throws {
        let policy = try policy(#"{"default":[{"type":"reject"}],"transports":{"":{"":[{"type":"insecureAcceptAnything"}]}}}"#)
        #expect(policy.requirements(for: .unknown).requirements == [.reject])
    }
}
