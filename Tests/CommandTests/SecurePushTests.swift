import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Pushes over TLS to the distribution registry, whose certificate is from an authority that the system does not know.
@Suite(
    .enabled("docker-registry, skopeo and openssl are not all installed") {
        ["docker-registry", "skopeo", "openssl"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
    })
struct SecurePushTests {
    private static let creds = "aladdin:open sesame"

    private func outcomes(_ result: JSONValue) -> [String?] { (result["layers"]?.array ?? []).map { $0["outcome"]?.string } }

    @Test(arguments: [false, true]) func overTLS(htpasswd: Bool) throws {
        let folder = try TemporaryFolder()
        let registry = try PushTests.Registry(folder.path, htpasswd: htpasswd, tls: true)
        // One layer is larger than the memory buffers.
        _ = try writeRandomLayout(folder.path + "/layout", layers: 3, fileSize: 3 << 20)
        // No configuration files of the user that runs the test.
        let environment = ["HOME=\(folder.path)", "XDG_RUNTIME_DIR=\(folder.path)", "XDG_CONFIG_HOME=\(folder.path)/config"]
        let trusting = environment + ["SSL_CERT_FILE=\(folder.path)/ca/ca.crt"]
        func run(_ arguments: [String], _ environment: [String]) throws -> CommandResult {
            try Cfsoci.run(["--repo", folder.path + "/repo"] + arguments, environment: environment)
        }
        func succeed(_ arguments: [String], _ environment: [String]) throws -> JSONValue {
            let result = try run(arguments + ["--json"], environment)
            guard result.status == 0 else { throw RunFailure(description: result.error) }
            return try result.json()
        }
        _ = try succeed(["pull", "oci:\(folder.path)/layout", "image"], environment)
        let creds = htpasswd ? ["--creds", Self.creds] : []
        let target = "\(registry.host)/team/app:v1"

        // No host is trusted by accident, and no secret is sent to an untrusted one.
        let untrusted = try run(["push", "image", target] + creds, environment)
        #expect(untrusted.status == 1)
        #expect(untrusted.error.contains("the certificate of \(registry.host) is not trusted"), "\(untrusted.error)")
        if htpasswd {
            let anonymous = try run(["push", "image", target], trusting)
            #expect(anonymous.status == 4)
            #expect(anonymous.error.contains("no credentials for \(registry.host)"), "\(anonymous.error)")
            let wrong = try run(["push", "image", target, "--creds", "aladdin:close sesame"], trusting)
            #expect(wrong.status == 4)
            #expect(wrong.error.contains("the given credentials are not accepted"), "\(wrong.error)")
        }

        let sent = try succeed(["push", "image", target, "--compression", "gzip"] + creds, trusting)
        #expect(outcomes(sent) == ["sent", "sent", "sent"])
        // Other tools can read it, and its layers are those of the image.
        let read = ["--src-cert-dir", folder.path + "/ca"] + (htpasswd ? ["--src-creds", Self.creds] : [])
        try PushTests().skopeo(read + ["docker://" + target, "dir:\(folder.path)/copy"])
        let manifest = try readFile(folder.path + "/copy/manifest.json")
        #expect(ContentDigest.of(manifest).description == sent["manifestDigest"]?.string)
        let source = try JSONValue.parse(readFile(folder.path + "/layout/index.json"))["manifests"]?.array?.first?["digest"]?.string
        let layers = try JSONValue.parse(readFile(folder.path + "/layout/blobs/sha256/" + (source ?? "").dropFirst(7)))["layers"]?.array
        #expect(try PushTests().diffIDs(ofImage: folder.path + "/copy") == layers?.compactMap { $0["digest"]?.string })

        // Existing blobs are not sent again, also with the other ways to trust the certificate.
        for more in [["--cert-dir", folder.path + "/ca"], ["--tls-verify=false"]] {
            let again = try succeed(["push", "image", target, "--compression", "gzip"] + creds + more, environment)
            #expect(outcomes(again) == ["present", "present", "present"])
            #expect(again["bytesSent"]?.int64 == 0)
            #expect(again["manifestDigest"] == sent["manifestDigest"])
        }

        // For an image from the same registry, blobs are mounted from one repository into the other.
        _ = try succeed(["pull", target, "--keep-blobs"] + creds, trusting)
        let mounted = try succeed(["push", target, "\(registry.host)/other/copy:v2"] + creds, trusting)
        #expect(outcomes(mounted) == ["mounted", "mounted", "mounted"])
        #expect(mounted["bytesSent"]?.int64 == 0)
        #expect(mounted["manifestDigest"] == sent["manifestDigest"])
        try PushTests().skopeo(read + ["docker://\(registry.host)/other/copy:v2", "dir:\(folder.path)/mounted"])
        #expect(try readFile(folder.path + "/mounted/manifest.json") == manifest)
    }
}
