import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Artifacts that `referrers add` makes of files, and the life of referrers of referrers.
@Suite struct ReferrerCreationTests {
    private let store: ContractStore
    private let image: ContractImage
    private static let time = "org.opencontainers.image.created=2026-01-02T03:04:05Z"

    init() throws {
        (store, image) = try ContractStore.small()
        try writeFile(store.folder.path + "/sbom.json", Array(#"{"spdx":"<&>"}"#.utf8))
    }

    private func add(_ arguments: [String], to subject: String = "t", at path: String? = nil) throws -> String {
        let result = try store.succeed(["referrers", "add", subject] + arguments + ["--json"])
        #expect(try result.json()["subject"]?.string?.hasPrefix("sha256:") == true)
        return try #require(try result.json()["referrer"]?.string)
    }

    private func details(_ arguments: [String] = [], of subject: String = "t") throws -> [JSONValue] {
        try store.succeed(["referrers", "list", subject, "--json", "--long"] + arguments).json()["details"]?.array ?? []
    }

    /// The manifest has the members, the order and the escapes of image-spec's Go types, which oras writes.
    @Test func manifestAsOrasMakesIt() throws {
        let file = store.folder.path + "/sbom.json"
        let digest = try add([
            "--artifact-type", "application/spdx+json", "--file", file + ":application/json", "--annotation", Self.time,
            "--annotation", "a.note=1 < 2 & 3 > 2\u{2028}=",
        ])
        let blob = ContentDigest.of(try readFile(file))
        let size = image.manifestBytes.count
        let expected =
            #"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/spdx+json","#
            + #""config":{"mediaType":"application/vnd.oci.empty.v1+json","#
            + #""digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"data":"e30="},"#
            + #""layers":[{"mediaType":"application/json","digest":"\#(blob)","size":14,"#
            + #""annotations":{"org.opencontainers.image.title":"sbom.json"}}],"#
            + #""subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\#(image.manifest)","size":\#(size)},"#
            + #""annotations":{"a.note":"1 \u003c 2 \u0026 3 \u003e 2\u2028=","org.opencontainers.image.created":"2026-01-02T03:04:05Z"}}"#
        #expect(try String(decoding: store.succeed(["inspect", digest, "--manifest"]).output, as: UTF8.self) == expected)
        #expect(ContentDigest.of(Array(expected.utf8)).description == digest)
        // The file itself comes back, from the store and from a layout.
        let out = store.folder.path + "/out"
        try store.succeed(["export", "t", "oci:\(out):t"])
        #expect(try readFile("\(out)/blobs/sha256/\(blob.hex)") == readFile(file))
        #expect(try readFile("\(out)/blobs/sha256/\(digest.dropFirst(7))") == Array(expected.utf8))
        #expect(try store.run(["fsck", "--deep"]).status == 0)
        // The same again is the same.
        let before = store.files
        let again = try add([
            "--artifact-type", "application/spdx+json", "--file", file + ":application/json", "--annotation", Self.time,
            "--annotation", "a.note=1 < 2 & 3 > 2\u{2028}=",
        ])
        #expect(again == digest && store.files == before)
    }

    /// Without files the single layer is the empty descriptor; without a time it is the current one; without a type it is oras's.
    @Test func defaults() throws {
        let empty = try add(["--artifact-type", "x/y", "--annotation", "k=v"])
        let manifest = try store.succeed(["inspect", empty, "--manifest"]).json()
        #expect(manifest["layers"]?.array?.count == 1 && manifest["layers"]?.array?.first == manifest["config"])
        let created = try #require(manifest["annotations"]?["org.opencontainers.image.created"]?.string)
        #expect(created.count == 20 && created.hasPrefix("20") && created.hasSuffix("Z"))
        let file = try add(["--artifact-type", "x/y", "--file", store.folder.path + "/sbom.json"])
        let layer = try store.succeed(["inspect", file, "--manifest"]).json()["layers"]?.array?.first
        #expect(layer?["mediaType"] == "application/vnd.oci.image.layer.v1.tar")
        #expect(layer?["annotations"]?["org.opencontainers.image.title"] == "sbom.json")
        #expect(try store.run(["fsck", "--deep"]).status == 0)
    }

    @Test func listing() throws {
        let first = try add(["--artifact-type", "application/spdx+json", "--annotation", Self.time])
        let second = try add(["--artifact-type", "application/x.sig", "--annotation", Self.time])
        let nested = try add(["--artifact-type", "application/x.sig", "--annotation", Self.time], to: first)
        #expect(try store.succeed(["referrers", "list", "t"]).lines == [first, second].sorted())
        #expect(Set(try store.succeed(["referrers", "list", "t", "--recursive"]).lines) == [first, second, nested])
        #expect(try store.succeed(["referrers", "list", "t", "--artifact-type", "application/x.sig"]).lines == [second])
        #expect(
            Set(try store.succeed(["referrers", "list", "t", "-r", "--artifact-type", "application/x.sig"]).lines) == [second, nested])
        #expect(try store.succeed(["referrers", "list", "t", "--artifact-type", "none/such"]).lines == [])
        let line = try #require(try store.succeed(["referrers", "list", first, "--long"]).lines.first)
        let size = try store.succeed(["inspect", nested, "--manifest"]).output.count
        #expect(line == "\(nested) \(size) application/x.sig \(first)")
        let found = try #require(try details(of: first).first)
        #expect(found["digest"]?.string == nested && found["subject"]?.string == first && found["size"]?.int64 == Int64(size))
        #expect(found["mediaType"] == "application/vnd.oci.image.manifest.v1+json" && found["artifactType"] == "application/x.sig")
        #expect(found["annotations"]?["org.opencontainers.image.created"] == "2026-01-02T03:04:05Z")
        #expect(try store.succeed(["inspect", "t"]).json()["referrers"]?.array?.count == 2)
        let listed = try store.succeed(["images", "--json"]).json()["images"]?.array?.first
        #expect(listed?["referrerCount"]?.int64 == 2)
    }

    /// Referrers and theirs live as long as the image, and are removed with it.
    @Test func life() throws {
        let first = try add(["--artifact-type", "x/y", "--file", store.folder.path + "/sbom.json", "--annotation", Self.time])
        let nested = try add(["--artifact-type", "x/z", "--annotation", Self.time], to: first)
        for command in ["gc", "prune"] {
            try store.succeed([command])
            #expect(Set(try store.succeed(["referrers", "list", "t", "-r"]).lines) == [first, nested])
            #expect(try store.run(["fsck", "--deep"]).status == 0)
        }
        try store.succeed(["referrers", "remove", first, nested])
        try store.succeed(["gc"])
        #expect(try store.run(["inspect", nested]).status == 3)
        #expect(try store.succeed(["referrers", "list", "t", "-r"]).lines == [first])
        _ = try add(["--artifact-type", "x/z", "--annotation", Self.time], to: first)
        try store.succeed(["rm", "t"])
        let pruned = try store.succeed(["prune", "--json"]).json()
        #expect(pruned["referrersRemoved"]?.int64 == 2)
        // Another store's mount may keep the image.
        #expect(try store.object(with: readFile(store.folder.path + "/sbom.json")) == nil)
        #expect(store.files.filter { $0.hasSuffix(first) || $0.hasSuffix(nested) }.filter { !$0.hasSuffix("oci-referrers/" + first) } == [])
        for digest in [first, nested] { #expect(try store.run(["inspect", digest]).status == 3) }
    }

    /// A chain of any length is exported, pulled and copied.
    @Test func longChain() throws {
        var chain = ["t"]
        for _ in 0..<12 { chain.append(try add(["--artifact-type", "x/y", "--annotation", Self.time], to: chain[chain.count - 1])) }
        let expected = Set(chain.dropFirst())
        let out = store.folder.path + "/out"
        let exported = try store.succeed(["export", "t", "oci:\(out):t", "--json"]).json()["referrers"]?.array ?? []
        #expect(Set(exported.compactMap(\.string)) == expected)
        for (name, arguments) in [
            ("pulled", ["pull", "oci:\(out):t", "t", "--referrers"]), ("copied", ["copy", "t", "--from", store.path]),
        ] {
            let other = ["--repo", "\(store.folder.path)/\(name)"]
            try Cfsoci.succeed(arguments + other)
            #expect(Set(try Cfsoci.succeed(["referrers", "list", "t", "-r"] + other).lines) == expected, "\(name)")
            try Cfsoci.succeed(["gc"] + other)
            #expect(try Cfsoci.run(["fsck", "--deep"] + other).status == 0)
            #expect(Set(try Cfsoci.succeed(["referrers", "list", "t", "-r"] + other).lines) == expected, "\(name)")
        }
    }

    /// What cannot be made is refused, and the store stays as it was.
    @Test func refusals() throws {
        let file = store.folder.path + "/sbom.json"
        mkfifo(store.folder.path + "/fifo", 0o600)
        let before = store.files
        for (arguments, message) in [
            (["--artifact-type", "x/y", "--file", file + ".none"], "No such file or directory"),
            (["--artifact-type", "x/y", "--file", store.folder.path], "is not a regular file"),
            (["--artifact-type", "x/y", "--file", store.folder.path + "/fifo"], "is not a regular file"),
            (["--artifact-type", "spdx", "--file", file], "\"spdx\" is no media type"),
            (["--artifact-type", "x/y z", "--file", file], "\"x/y z\" is no media type"),
            (["--artifact-type", "x/y", "--file", file + ":text/pla\nin"], "is no media type"),
            (["--artifact-type", "x/y"], "neither a file nor an annotation"),
            (["--artifact-type", "x/y", "--file", file, "--file", file], "is named twice"),
            (["--artifact-type", "x/y", "--annotation", "org.opencontainers.image.created=yesterday"], "not a time"),
        ] {
            let refused = try store.refuse(["referrers", "add", "t"] + arguments)
            #expect(refused.contains(message), "\(arguments): \(refused)")
            #expect(store.files == before, "\(arguments)")
        }
        #expect(
            try store.refuse(["referrers", "add", "none", "--artifact-type", "x/y", "--file", file], status: 3).contains(
                "no image \"none\""))
        for arguments in [
            ["t"], ["t", "t", "--artifact-type", "x/y"], ["t", "t", "--file", file], ["t", "--artifact-type", "x/y", "--annotation", "k"],
        ] {
            #expect(try store.run(["referrers", "add"] + arguments).status == 64, "\(arguments)")
        }
    }
}
