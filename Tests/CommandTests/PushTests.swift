import ComposefsHashing
import ComposefsJSON
import ComposefsTestSupport
import Glibc
import Testing

/// Pushes of the real binary to the distribution registry, checked with skopeo.
@Suite(
    .enabled("docker-registry and skopeo are not both installed") {
        ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
    })
struct PushTests {
    /// A registry on loopback, which runs as long as the value exists.
    final class Registry {
        let host: String
        private let pid: pid_t

        /// - Parameter tls: Whether to use TLS, with a certificate of a new authority in `folder/ca/ca.crt`.
        init(_ folder: String, htpasswd: Bool = false, tls: Bool = false) throws {
            let port = Loopback.freePort()
            host = "127.0.0.1:\(port)"
            var text =
                "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: \(folder)/store}}\nhttp: {addr: \"\(host)\""
            if tls {
                try Self.makeCertificates(folder)
                text += ", tls: {certificate: \(folder)/server.pem, key: \(folder)/server.key}"
            }
            text += "}\n"
            if htpasswd {
                // crypt(3) of "open sesame" with bcrypt.
                try writeFile(
                    folder + "/htpasswd", Array("aladdin:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n".utf8))
                text += "auth: {htpasswd: {realm: test, path: \(folder)/htpasswd}}\n"
            }
            try writeFile(folder + "/registry.yml", Array(text.utf8))
            pid = try start(
                "docker-registry", ["serve", folder + "/registry.yml"], output: folder + "/registry.out", error: folder + "/registry.err")
            #expect(Loopback.waitUntilListening(port), "docker-registry does not start")
        }

        private static func makeCertificates(_ folder: String) throws {
            func openssl(_ arguments: [String]) throws {
                let result = try launch("openssl", arguments)
                guard result.status == 0 else { throw RunFailure(description: "openssl: \(result.error)") }
            }
            _ = try launch("mkdir", [folder + "/ca"])
            let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            try openssl(
                ["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "\(folder)/ca.key", "-out", "\(folder)/ca/ca.crt"] + key)
            try openssl(["req", "-subj", "/CN=server", "-keyout", "\(folder)/server.key", "-out", "\(folder)/server.csr"] + key)
            try writeFile(folder + "/server.ext", Array("subjectAltName=IP:127.0.0.1".utf8))
            try openssl([
                "x509", "-req", "-days", "2", "-in", "\(folder)/server.csr", "-CA", "\(folder)/ca/ca.crt", "-CAkey", "\(folder)/ca.key",
                "-CAcreateserial", "-extfile", "\(folder)/server.ext", "-out", "\(folder)/server.pem",
            ])
        }

        deinit {
            kill(pid, SIGKILL)
            _ = wait(for: pid)
        }
    }

    func skopeo(_ arguments: [String]) throws {
        let result = try launch("skopeo", ["--insecure-policy", "copy", "--quiet"] + arguments)
        guard result.status == 0 else { throw RunFailure(description: "skopeo: \(result.error)") }
    }

    func diffIDs(ofImage directory: String) throws -> [String] {
        let manifest = try JSONValue.parse(readFile(directory + "/manifest.json"))
        return try (manifest["layers"]?.array ?? []).map { layer in
            let blob = directory + "/" + (layer["digest"]?.string ?? "").dropFirst(7)
            let type = layer["mediaType"]?.string ?? ""
            let program = type.hasSuffix("gzip") ? "gzip" : type.hasSuffix("zstd") ? "zstd" : "cat"
            let tar = try launch(program, program == "cat" ? [blob] : ["-dc", blob])
            #expect(tar.status == 0, "\(tar.error)")
            return ContentDigest.of(tar.output).description
        }
    }

    /// What other tools read of a push is the image: config byte for byte, layers by their diff IDs, annotations. A pull of it gives the
    /// same EROFS image.
    @Test(arguments: ["gzip", "zstd", "none"]) func otherToolsReadIt(compression: String) throws {
        let folder = try TemporaryFolder()
        let registry = try Registry(folder.path)
        var builder = LayoutBuilder.large(layers: 3, filesPerLayer: 200)
        builder.layers += LayoutBuilder.small().layers
        builder.compressor = "gzip"
        let digest = try builder.write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        let pulled = try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--json"]).json()
        let target = "\(registry.host)/team/app:v1"
        let result = try Cfsoci.succeed(repo + ["push", "image", target, "--compression", compression, "--json"]).json()
        #expect(result["layers"]?.array?.map { $0["outcome"]?.string } == Array(repeating: "sent", count: 5))
        #expect(result["sourceManifestDigest"]?.string == digest.description)
        try skopeo(["--src-tls-verify=false", "docker://" + target, "dir:\(folder.path)/copy"])
        let manifest = try readFile(folder.path + "/copy/manifest.json")
        #expect(ContentDigest.of(manifest).description == result["manifestDigest"]?.string)
        #expect(try diffIDs(ofImage: folder.path + "/copy") == builder.layers.map { ContentDigest.of($0).description })
        let config = try #require(try JSONValue.parse(manifest)["config"]?["digest"]?.string)
        #expect(config == pulled["configDigest"]?.string)
        // To another store, and from there again.
        let other = ["--repo", folder.path + "/other"]
        let again = try Cfsoci.succeed(other + ["pull", target, "--json"]).json()
        #expect(again["imageId"] == pulled["imageId"])
        #expect(again["manifestDigest"] == result["manifestDigest"])
        // The registry has everything: nothing is sent, and the manifest stays.
        let second = try Cfsoci.succeed(repo + ["push", "image", target, "--compression", compression, "--json"]).json()
        #expect(second["bytesSent"]?.int64 == 0)
        #expect(second["manifestDigest"] == result["manifestDigest"])
        // Blobs that the registry has as they were pulled are sent unchanged.
        let third = try Cfsoci.succeed(other + ["push", target, "\(registry.host)/team/copy:v2", "--json"]).json()
        #expect(third["manifestDigest"] == result["manifestDigest"])
        #expect(third["layers"]?.array?.map { $0["outcome"]?.string } == Array(repeating: "mounted", count: 5))
        #expect(third["bytesSent"]?.int64 == 0)
        #expect(try Cfsoci.run(repo + ["fsck"]).status == 0)
    }

    @Test func withPassword() throws {
        let folder = try TemporaryFolder()
        let registry = try Registry(folder.path, htpasswd: true)
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        let target = "\(registry.host)/team/app:v1"
        // No auth files of the user that runs the test.
        let environment = ["HOME=\(folder.path)", "XDG_RUNTIME_DIR=\(folder.path)"]
        let refused = try Cfsoci.run(repo + ["push", "image", target], environment: environment)
        #expect(refused.status == 4)
        #expect(refused.error.contains("no credentials for \(registry.host)"))
        let wrong = try Cfsoci.run(repo + ["push", "image", target, "--creds", "aladdin:no"], environment: environment)
        #expect(wrong.status == 4)
        #expect(!wrong.error.contains("aladdin:no"))
        let sent = try Cfsoci.run(repo + ["push", "image", target, "--creds", "aladdin:open sesame"], environment: environment)
        #expect(sent.status == 0, "\(sent.error)")
        try skopeo(["--src-tls-verify=false", "--src-creds", "aladdin:open sesame", "docker://" + target, "dir:\(folder.path)/copy"])
        #expect(try diffIDs(ofImage: folder.path + "/copy") == LayoutBuilder.small().layers.map { ContentDigest.of($0).description })
    }

    /// Artifacts are pushed unchanged. Referrers are pushed too if the manifest stays the same, or with another subject on request.
    @Test func artifactsAndReferrers() throws {
        let folder = try TemporaryFolder()
        let registry = try Registry(folder.path)
        var builder = LayoutBuilder.small()
        builder.compressor = "gzip"
        let subject = try builder.write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        let artifact = try writeArtifact(folder.path + "/artifact", subject: subject)
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/artifact", "sbom"])
        try Cfsoci.succeed(repo + ["referrers", "add", "image", "sbom"])
        let alone = try Cfsoci.succeed(repo + ["push", "sbom", "\(registry.host)/team/sbom:v1", "--json"]).json()
        #expect(alone["manifestDigest"]?.string == artifact.description)

        let target = "\(registry.host)/team/app"
        let kept = try Cfsoci.run(repo + ["push", "image", target + ":v1", "--json", "--compression", "zstd"])
        #expect(try kept.json()["referrersLeftOut"]?.array == [.string(artifact.description)])
        #expect(kept.error.contains("--referrers rewrite"))
        let rewritten = try Cfsoci.succeed(
            repo + ["push", "image", target + ":v1", "--json", "--compression", "zstd", "--referrers", "rewrite"]
        ).json()
        let pushed = try #require(rewritten["manifestDigest"]?.string)
        let sent = try #require(rewritten["referrers"]?.array?.first?.string)
        #expect(pushed != subject.description)
        #expect(sent != artifact.description)
        // Clients of a registry without the referrers API read the index under the tag of the tag schema.
        try skopeo(["--src-tls-verify=false", "docker://\(target)@\(sent)", "dir:\(folder.path)/copy"])
        let manifest = try JSONValue.parse(readFile(folder.path + "/copy/manifest.json"))
        #expect(manifest["subject"]?["digest"]?.string == pushed)
        #expect(manifest["artifactType"] == "application/spdx+json")
        let listed = try launch(
            "skopeo",
            ["inspect", "--raw", "--tls-verify=false", "docker://\(target):\(pushed.split(separator: ":").joined(separator: "-"))"])
        #expect(try listed.json()["manifests"]?.array?.map { $0["digest"]?.string } == [sent])

        // A registry that has the image unchanged: the referrer is sent unchanged, too.
        try skopeo(["--dest-tls-verify=false", "oci:\(folder.path)/layout", "docker://\(target):orig"])
        let unchanged = try Cfsoci.succeed(repo + ["push", "image", target + ":orig", "--json"]).json()
        #expect(unchanged["manifestDigest"]?.string == subject.description)
        #expect(unchanged["referrers"]?.array == [.string(artifact.description)])
        // A pull from there gets the referrer on request.
        let other = ["--repo", folder.path + "/other"]
        let pulled = try Cfsoci.succeed(other + ["pull", target + ":orig", "image", "--referrers", "--json"]).json()
        #expect(pulled["referrers"]?.array == [.string(artifact.description)])
        #expect(try Cfsoci.succeed(other + ["referrers", "list", "image"]).lines == [artifact.description])
        // Also to a layout, whose index lists it.
        let layout = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out:v1", "--json"]).json()
        #expect(layout["layers"]?.array?.count == 2)
    }

    // MARK: Layouts

    /// An image with gzip layers in a new repository: its content, the options for the repository, and the output of the pull.
    private func pullSmallImage(_ folder: TemporaryFolder) throws -> (builder: LayoutBuilder, repo: [String], pulled: JSONValue) {
        var builder = LayoutBuilder.small()
        builder.compressor = "gzip"
        try builder.write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        return (builder, repo, try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--json"]).json())
    }

    @Test(arguments: ["gzip", "zstd", "none"]) func layouts(compression: String) throws {
        let folder = try TemporaryFolder()
        let (builder, repo, pulled) = try pullSmallImage(folder)
        let export = repo + ["export", "image", "--json", "--compression", compression]
        let first = try Cfsoci.succeed(export + ["oci:\(folder.path)/out:one"]).json()
        let second = try Cfsoci.succeed(export + ["oci:\(folder.path)/out:two"]).json()
        #expect(first["manifestDigest"] == second["manifestDigest"])
        #expect(second["bytesSent"]?.int64 == 0)
        for name in ["one", "two"] {
            try skopeo(["oci:\(folder.path)/out:\(name)", "dir:\(folder.path)/\(name)"])
            #expect(try diffIDs(ofImage: folder.path + "/" + name) == builder.layers.map { ContentDigest.of($0).description })
        }
        let again = try Cfsoci.succeed(["--repo", folder.path + "/other", "pull", "oci:\(folder.path)/out:two", "--json"]).json()
        #expect(again["imageId"] == pulled["imageId"])
        let names = try launch("find", [folder.path + "/out", "-name", ".*", "-type", "f"])
        #expect(names.text.isEmpty)
    }

    /// Simultaneous exports to one layout do not remove each other's entries from the index.
    @Test func layoutsWrittenAtOnce() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        let target = "oci:\(folder.path)/out"
        try Cfsoci.succeed(repo + ["export", "image", target + ":first"])
        // All blobs exist, so the exports only compete for the index.
        let names = (0..<24).map { "n\($0)" }
        let pids = try names.map { name in
            try start(
                Cfsoci.binary, repo + ["export", "image", "\(target):\(name)"], output: "\(folder.path)/\(name).out",
                error: "\(folder.path)/\(name).err")
        }
        for pid in pids { #expect(wait(for: pid) == 0) }
        let index = try JSONValue.parse(readFile(folder.path + "/out/index.json"))["manifests"]?.array ?? []
        #expect(Set(index.map { $0["annotations"]?["org.opencontainers.image.ref.name"]?.string }) == Set(names + ["first"]))
    }

    /// The same image gives the same archive, which other tools and cfsoci can read.
    @Test func archives() throws {
        let folder = try TemporaryFolder()
        let (builder, repo, pulled) = try pullSmallImage(folder)
        _ = try launch("mkdir", [folder.path + "/out"])
        let path = folder.path + "/out/image.tar"
        try Cfsoci.succeed(repo + ["export", "image", "oci-archive:\(path):v1"])
        let first = try readFile(path)
        try Cfsoci.succeed(repo + ["export", "image", "oci-archive:\(path):v1"])
        #expect(try readFile(path) == first)
        #expect(try launch("ls", ["-A", folder.path + "/out"]).lines == ["image.tar"])
        let listed = try launch("tar", ["-tf", path])
        #expect(listed.status == 0 && listed.error.isEmpty)
        #expect(listed.lines.prefix(4) == ["oci-layout", "index.json", "blobs/", "blobs/sha256/"])
        try skopeo(["oci-archive:\(path):v1", "dir:\(folder.path)/copy"])
        #expect(try diffIDs(ofImage: folder.path + "/copy") == builder.layers.map { ContentDigest.of($0).description })
        let again = try Cfsoci.succeed(["--repo", folder.path + "/other", "pull", "oci-archive:\(path):v1", "--json"]).json()
        #expect(again["imageId"] == pulled["imageId"])
    }

    /// A killed export leaves only files that the next export to the layout reuses, or that the next export of the archive removes.
    @Test func killedExports() throws {
        let folder = try TemporaryFolder()
        _ = try writeRandomLayout(folder.path + "/source", layers: 3, fileSize: 12 << 20)
        let repository = folder.path + "/repo"
        try Cfsoci.succeed(["init", repository, "--insecure"])
        try Cfsoci.succeed(["--repo", repository, "pull", "oci:" + folder.path + "/source", "image"])
        let out = folder.path + "/out"
        #expect(mkdir(out, 0o755) == 0)
        // Leftovers of another archive, or unrelated files.
        let others = ["x.tar.tmp-0123456789ab", "x.tar.tmp-short.tar", "y.tar.tmp-0123456789ab.tar"]
        for name in others { try writeFile(out + "/" + name, [1]) }
        for target in ["oci:\(out)/layout", "oci-archive:\(out)/x.tar"] {
            var killed = 0
            for attempt in 0..<40 where killed < 3 {
                let pid = try start(
                    Cfsoci.binary, ["--repo", repository, "export", "image", target], output: folder.path + "/o", error: folder.path + "/e")
                usleep(UInt32(20_000 + attempt * 10_000))
                kill(pid, attempt % 2 == 0 ? SIGINT : SIGKILL)
                if wait(for: pid) != 0 { killed += 1 }
                #expect(fileList(out).filter { $0.contains("layout/") && $0.contains(".tmp-") } == [])
            }
            #expect(killed == 3)
            try Cfsoci.succeed(["--repo", repository, "export", "image", target])
        }
        #expect(fileList(out).filter { !$0.contains("/") }.sorted() == (["layout", "x.tar"] + others).sorted())
        // A running export keeps its files.
        let pid = try start(
            "bash", ["-c", "exec 9>\(out)/x.tar.tmp-aaaaaaaaaaaa.tar; flock 9; exec sleep 60"], output: folder.path + "/o",
            error: folder.path + "/e")
        while try launch("flock", ["-n", "\(out)/x.tar.tmp-aaaaaaaaaaaa.tar", "true"]).status == 0 { usleep(10_000) }
        try Cfsoci.succeed(["--repo", repository, "export", "image", "oci-archive:\(out)/x.tar"])
        #expect(fileList(out).contains("x.tar.tmp-aaaaaaaaaaaa.tar"))
        kill(pid, SIGKILL)
        _ = wait(for: pid)
        try Cfsoci.succeed(["--repo", repository, "export", "image", "oci-archive:\(out)/x.tar"])
        #expect(!fileList(out).contains("x.tar.tmp-aaaaaaaaaaaa.tar"))
    }

    @Test func layoutsThatAreNone() throws {
        let folder = try TemporaryFolder()
        try LayoutBuilder.small().write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        _ = try launch("mkdir", [folder.path + "/full"])
        try writeFile(folder.path + "/full/letter", [1])
        for (target, words) in [
            ("oci:\(folder.path)/full", "not empty and not an OCI layout"), ("oci:\(folder.path)/no/such", "No such file"),
            ("docker-archive:\(folder.path)/x.tar", "is not a destination"), ("oci-archive:\(folder.path)", "is not a regular file"),
            ("example.org/a/b", "use push for a registry"),
        ] {
            let result = try Cfsoci.run(repo + ["export", "image", target])
            #expect(result.status == 1)
            #expect(result.error.contains(words), "\(result.error)")
        }
        let missing = try Cfsoci.run(repo + ["export", "nobody", "oci:\(folder.path)/out"])
        #expect(missing.status == 3)
        #expect(access(folder.path + "/out", F_OK) != 0)
    }

    /// Damaged content of a store is not pushed, and the image gets no tag in the registry.
    @Test func damage() throws {
        let folder = try TemporaryFolder()
        let registry = try Registry(folder.path)
        let builder = LayoutBuilder.small()
        try builder.write(to: folder.path + "/layout")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        // The only object of more than 64 KiB is the file usr/big.
        let found = try launch("find", [folder.path + "/repo/objects", "-type", "f", "-size", "+64k"])
        let object = try #require(found.lines.first)
        var bytes = try readFile(object)
        bytes[33_333] ^= 1
        _ = try launch("chmod", ["u+w", object])
        try writeFile(object, bytes)
        for compression in ["gzip", "zstd", "none"] {
            let result = try Cfsoci.run(repo + ["push", "image", "\(registry.host)/team/app:v1", "--compression", compression])
            #expect(result.status == 1)
            #expect(result.error.contains("layer 1 of 2 (\(ContentDigest.of(builder.layers[0])))"), "\(result.error)")
            #expect(result.error.contains("the store is damaged"), "\(result.error)")
            let tags = try launch("skopeo", ["inspect", "--tls-verify=false", "docker://\(registry.host)/team/app:v1"])
            #expect(tags.status != 0)
        }
    }

    @Test func usage() throws {
        let folder = try TemporaryFolder()
        let repo = ["--repo", folder.path + "/repo"]
        for (arguments, words) in [
            (["--compression-level", "3"], "--compression-level needs --compression"),
            (["--compression", "gzip", "--compression-level", "10"], "from 1 to 9"),
            (["--compression", "none", "--compression-level", "1"], "has no level"), (["--jobs", "0"], "at least 1"),
            (["--compression", "xz"], "gzip"),
        ] {
            let result = try Cfsoci.run(repo + ["push", "a", "localhost:1/a"] + arguments)
            #expect(result.status == 64)
            #expect(result.error.contains(words), "\(result.error)")
        }
    }
}
