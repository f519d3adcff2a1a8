import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// `pull --keep-blobs`: pushes and exports send exactly what was pulled.
struct KeepBlobsTests {
    private func layout(_ folder: TemporaryFolder, compressor: String? = "gzip") throws -> ContentDigest {
        var builder = LayoutBuilder.small()
        // gzip -1 gives bytes that cfsoci would not produce.
        builder.compressor = compressor
        return try builder.write(to: folder.path + "/layout")
    }

    private func blobs(_ layout: String) throws -> [String] {
        let found = try launch("find", [layout + "/blobs/sha256", "-type", "f", "-printf", "%f\n"])
        for name in found.lines {
            #expect(ContentDigest.of(try readFile(layout + "/blobs/sha256/" + name)).hex == name)
        }
        return found.lines.sorted()
    }

    @Test(arguments: ["gzip", "zstd", nil]) func exportsAreExact(compressor: String?) throws {
        let folder = try TemporaryFolder()
        let digest = try layout(folder, compressor: compressor)
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--keep-blobs"])
        for _ in 0..<2 {
            let fsck = try Cfsoci.run(repo + ["fsck"])
            #expect(fsck.status == 0, "\(fsck.text)")
            let result = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out:latest", "--json"]).json()
            #expect(result["manifestDigest"]?.string == digest.description)
            #expect(try blobs(folder.path + "/out") == blobs(folder.path + "/layout"))
            // Kept blobs stay while the tag exists, even after a pull without --keep-blobs.
            try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
            try Cfsoci.succeed(repo + ["gc"])
            _ = try launch("rm", ["-r", folder.path + "/out"])
        }
        // Another compression on request.
        let packed = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out:latest", "--json", "--compression", "zstd"])
            .json()
        #expect((packed["manifestDigest"]?.string == digest.description) == (compressor == "zstd"))
        try Cfsoci.succeed(repo + ["untag", "image"])
        try Cfsoci.succeed(repo + ["gc"])
        #expect(try launch("find", [folder.path + "/repo/objects", "-type", "f"]).text.isEmpty)
    }

    /// For stored layers, only the blobs are read again.
    @Test func keepingLater() throws {
        let folder = try TemporaryFolder()
        let digest = try layout(folder)
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image"])
        let before = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/before", "--json"]).json()
        #expect(before["manifestDigest"]?.string != digest.description)
        let pulled = try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--keep-blobs", "--json"]).json()
        #expect(pulled["layersNew"]?.int64 == 0)
        #expect(pulled["layersPresent"]?.int64 == 2)
        let after = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/after", "--json"]).json()
        #expect(after["manifestDigest"]?.string == digest.description)
        #expect(try Cfsoci.run(repo + ["fsck"]).status == 0)
    }

    /// A copy keeps the source's kept blobs, with any algorithms.
    @Test(arguments: ["fsverity-sha256-12", "fsverity-sha512-12"]) func copies(algorithm: String) throws {
        let folder = try TemporaryFolder()
        let digest = try layout(folder)
        try Cfsoci.succeed(["init", "--insecure", "--algorithm", "fsverity-sha256-12", folder.path + "/repo"])
        try Cfsoci.succeed(["init", "--insecure", "--algorithm", algorithm, folder.path + "/other"])
        try Cfsoci.succeed(["--repo", folder.path + "/repo", "pull", "oci:\(folder.path)/layout", "image", "--keep-blobs"])
        let other = ["--repo", folder.path + "/other"]
        try Cfsoci.succeed(other + ["copy", "image", "--from", folder.path + "/repo"])
        try Cfsoci.succeed(other + ["gc"])
        #expect(try Cfsoci.run(other + ["fsck"]).status == 0)
        let result = try Cfsoci.succeed(other + ["export", "image", "oci:\(folder.path)/out", "--json"]).json()
        #expect(result["manifestDigest"]?.string == digest.description)
    }

    /// Damage of a kept blob is detected and not exported, and a pull repairs it.
    @Test func damage() throws {
        let folder = try TemporaryFolder()
        let digest = try layout(folder)
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--keep-blobs"])
        // The kept blob of the first layer is the object with that content.
        let manifest = try Cfsoci.succeed(repo + ["inspect", "image"]).json()["manifest"]
        let blob = try #require(manifest?["layers"]?[0]?["digest"]?.string)
        let content = try readFile(folder.path + "/layout/blobs/sha256/" + blob.dropFirst(7))
        let found = try launch("find", [folder.path + "/repo/objects", "-type", "f", "-size", "\(content.count)c"])
        let object = try #require(found.lines.first { (try? readFile($0)) == content })
        var bytes = content
        bytes[bytes.count / 2] ^= 1
        _ = try launch("chmod", ["u+w", object])
        try writeFile(object, bytes)
        let fsck = try Cfsoci.run(repo + ["fsck"])
        #expect(fsck.status == 2)
        #expect((fsck.text + fsck.error).contains("kept-blob-digest-mismatch"), "\(fsck.text) \(fsck.error)")
        let export = try Cfsoci.run(repo + ["export", "image", "oci:\(folder.path)/out"])
        #expect(export.status == 1)
        #expect(export.error.contains(blob), "\(export.error)")
        // A layout is valid from the start; this one is empty.
        #expect(try launch("jq", ["-c", ".manifests", folder.path + "/out/index.json"]).lines == ["[]"])
        _ = try launch("rm", [object])
        let mended = try Cfsoci.run(repo + ["pull", "oci:\(folder.path)/layout", "image", "--keep-blobs"])
        #expect(mended.status == 0, "\(mended.error)")
        #expect(try Cfsoci.run(repo + ["fsck"]).status == 0)
        let again = try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out", "--json"]).json()
        #expect(again["manifestDigest"]?.string == digest.description)
    }

    /// From one registry to another, skopeo finds the same digests.
    @Test(
        .enabled("docker-registry and skopeo are not both installed") {
            ["docker-registry", "skopeo"].allSatisfy { access("/usr/bin/" + $0, X_OK) == 0 }
        })
    func betweenRegistries() throws {
        let folder = try TemporaryFolder()
        let (first, second) = (try TemporaryFolder(), try TemporaryFolder())
        let digest = try layout(folder)
        let (from, to) = (try PushTests.Registry(first.path), try PushTests.Registry(second.path))
        let copied = try launch(
            "skopeo",
            [
                "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", "oci:\(folder.path)/layout:latest",
                "docker://\(from.host)/team/app:v1",
            ])
        #expect(copied.status == 0, "\(copied.error)")
        let repo = ["--repo", folder.path + "/repo"]
        try Cfsoci.succeed(repo + ["pull", "\(from.host)/team/app:v1", "image", "--keep-blobs"])
        let pushed = try Cfsoci.succeed(repo + ["push", "image", "\(to.host)/team/app:v1", "--json"]).json()
        #expect(pushed["manifestDigest"]?.string == digest.description)
        #expect(pushed["layers"]?.array?.map { $0["outcome"]?.string } == ["sent", "sent"])
        let result = try launch(
            "skopeo",
            [
                "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://\(to.host)/team/app:v1",
                "dir:\(folder.path)/copy",
            ])
        #expect(result.status == 0, "\(result.error)")
        #expect(ContentDigest.of(try readFile(folder.path + "/copy/manifest.json")) == digest)
    }
}
