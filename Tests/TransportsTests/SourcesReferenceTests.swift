import ComposefsBytes
import ComposefsHashing
import ComposefsOCIModel
import ComposefsTransports
import Testing

private let digest = "sha256:" + String(repeating: "0a", count: 32)

@Suite struct SourcesReferenceTests {
    @Test(arguments: [
        ("alpine", "docker.io/library/alpine:latest"), ("alpine:3.19", "docker.io/library/alpine:3.19"),
        ("team/app", "docker.io/team/app:latest"), ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"), ("docker.io/team/app:1", "docker.io/team/app:1"),
        ("quay.io/team/app", "quay.io/team/app:latest"), ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"), ("registry:5000/app:v1", "registry:5000/app:v1"),
        ("registry:5000", "docker.io/library/registry:5000"), ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("[2001:DB8::1]/app:t", "[2001:db8::1]/app:t"), ("127.0.0.1:80/a/b/c", "127.0.0.1:80/a/b/c:latest"),
        ("Registry.Example/app", "registry.example/app:latest"),
        ("alpine@\(digest)", "docker.io/library/alpine@\(digest)"), ("alpine:3@\(digest)", "docker.io/library/alpine:3@\(digest)"),
        ("a.b/c__d/e-f--g_h.i:_T.x-1", "a.b/c__d/e-f--g_h.i:_T.x-1"), ("ab/cd", "docker.io/ab/cd:latest"),
    ])
    func normalised(_ text: String, _ canonical: String) throws {
        let reference = try RegistryReference(parsing: text)
        #expect(reference.canonical == canonical)
        #expect(try RegistryReference(parsing: canonical) == reference)
        #expect(try parseReference("docker://" + text) == .registry(reference))
        #expect(try parseReference(text) == .registry(reference))
    }

    @Test(arguments: [
        "", ":", "@", "/", "a:", ":a", "a/", "/a", "a//b", "Alpine", "docker.io/Team/app", "a b", "a:b c", "a@sha256:00", "a@md5:00", "a@",
        "a_-b", "a..b", "a___b", "_a", "a_", "-a", "a-", "a.", ".a", "a:.x", "a:-x", "a:\(String(repeating: "t", count: 129))",
        "host:port/a", "host:99999/a", "host:/a", "-host.x/a", "host-.x/a", "a..b/c", "[::1/a", "[]:5000/a", "[x]/a", "[::1]x/a", "[::1]",
        "ho_st.x/a", "LOCAL/app", "quay.io", "quay.io/", "ä", "a:ä", "a\u{0}", "a\n", "../a", "https://quay.io/a",
        String(repeating: "ab", count: 32),
        "quay.io/" + String(repeating: "a/", count: 130) + "a", "a@\(digest)@\(digest)",
    ])
    func refused(_ text: String) {
        // All tools treat a host name without a slash as a short name.
        if text == "quay.io" {
            #expect((try? RegistryReference(parsing: text))?.canonical == "docker.io/library/quay.io:latest")
            return
        }
        let error = #expect(throws: OCIError.self) { try parseReference(text) }
        #expect(error?.description.utf8.allSatisfy { (0x20..<0x7f).contains($0) } == true)
    }

    @Test func transports() throws {
        #expect(try parseReference("oci:/a/b:tag") == .layout(ImageLocation("/a/b:tag")))
        #expect(try parseReference("oci-archive:x.tar") == .ociArchive(ImageLocation("x.tar")))
        #expect(try parseReference("docker-archive:x.tar:alpine:3") == .dockerArchive(ImageLocation("x.tar:alpine:3")))
        #expect(try parseReference("dir:/d:x") == .directory("/d:x"))
        #expect(try parseReference("containers-storage:alpine") == .containersStorage("alpine"))
        for text in [
            "oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:", "docker://", "docker-daemon:x", "ostree:x", "oci://x",
        ] {
            #expect(throws: OCIError.self) { try parseReference(text) }
        }
        #expect(try parseReference("quay.io/a").openLocalSource(scratch: ArchiveScratch("/tmp")) == nil)
    }

    @Test func noByteTraps() {
        let text = Array("quay.io:80/team/app:v1@\(digest)".utf8)
        for index in text.indices {
            for byte in UInt8.min...UInt8.max {
                var changed = text
                changed[index] = byte
                guard let reference = try? RegistryReference(parsing: String(decoding: changed, as: UTF8.self)) else { continue }
                #expect((try? RegistryReference(parsing: reference.canonical)) == reference)
            }
        }
    }
}

extension Optional where Wrapped == any ImageSource {
    fileprivate static func == (lhs: Self, rhs: (any ImageSource)?) -> Bool {
        if case .none = lhs, case .none = rhs { true } else { false }
    }
}
