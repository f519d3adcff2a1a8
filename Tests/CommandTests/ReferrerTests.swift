import ComposefsHashing
import ComposefsJSON
import Glibc
import Testing

/// Transfer of artifacts that refer to an image from one store to another.
@Suite struct ReferrerTests {
    private let folder: TemporaryFolder
    private let subject: ContentDigest
    private let artifact: ContentDigest
    private var repo: [String] { ["--repo", folder.path + "/repo"] }
    private var other: [String] { ["--repo", folder.path + "/other"] }

    /// A store with an image and an artifact that refers to it.
    init() throws {
        folder = try TemporaryFolder()
        var builder = LayoutBuilder.small()
        builder.compressor = "gzip"
        subject = try builder.write(to: folder.path + "/layout")
        artifact = try writeArtifact(folder.path + "/artifact", subject: subject)
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/layout", "image", "--keep-blobs"])
        try Cfsoci.succeed(repo + ["pull", "oci:\(folder.path)/artifact", "sbom"])
        try Cfsoci.succeed(repo + ["referrers", "add", "image", "sbom"])
    }

    private func listed() throws -> [String] { try Cfsoci.succeed(other + ["referrers", "list", "image"]).lines }

    /// The image and its referrers are found even without a name in the layout.
    @Test(arguments: ["oci:OUT", "oci:OUT:v1", "oci-archive:OUT.tar"]) func exported(form: String) throws {
        let target = form.split(separator: "OUT", omittingEmptySubsequences: false).joined(separator: folder.path + "/out")
        let exported = try Cfsoci.succeed(repo + ["export", "image", target, "--json"]).json()
        #expect(exported["referrers"]?.array == [.string(artifact.description)])
        try Cfsoci.succeed(repo + ["export", "image", target])
        if !form.hasSuffix(".tar") {
            let index = try JSONValue.parse(readFile(folder.path + "/out/index.json"))["manifests"]?.array ?? []
            #expect(Set(index.map { $0["digest"]?.string }) == [subject.description, artifact.description] && index.count == 2)
            if form == "oci:OUT" { #expect(index.first?["digest"]?.string == subject.description) }
            #expect(index.first { $0["digest"]?.string == artifact.description }?["artifactType"] == "application/spdx+json")
        }
        // It was not requested.
        try Cfsoci.succeed(other + ["pull", target, "image"])
        #expect(try listed() == [])
        let pulled = try Cfsoci.succeed(other + ["pull", target, "image", "--referrers", "--json"]).json()
        #expect(pulled["manifestDigest"]?.string == subject.description)
        #expect(pulled["referrers"]?.array == [.string(artifact.description)])
        #expect(try listed() == [artifact.description])
        // It exists as long as the image.
        try Cfsoci.succeed(other + ["gc"])
        #expect(
            try Cfsoci.succeed(other + ["inspect", artifact.description]).json()["manifest"]?["artifactType"] == "application/spdx+json")
        #expect(try Cfsoci.run(other + ["fsck", "--deep"]).status == 0)
        // A second time nothing changes.
        let again = try Cfsoci.succeed(other + ["pull", target, "image", "--referrers"])
        #expect(again.lines.contains("referrers  1 stored"))
        #expect(try listed() == [artifact.description])
    }

    @Test func fromARegistry() throws {
        try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out"])
        let server = try LayoutServer(layout: folder.path + "/out")
        defer { server.stop() }
        func listed() throws -> [String] { try Cfsoci.succeed(other + ["referrers", "list", server.reference]).lines }
        try Cfsoci.succeed(other + ["pull", server.reference])
        #expect(try listed() == [])
        // The image is here, so the registry is not asked. A pull that looks for a newer one finds new referrers.
        let present = try Cfsoci.succeed(other + ["pull", server.reference, "--referrers", "--json"]).json()
        #expect(present["outcome"] == "present" && present["referrers"]?.array == [])
        #expect(try listed() == [])
        let pulled = try Cfsoci.succeed(other + ["pull", server.reference, "--referrers", "--policy", "newer", "--json"]).json()
        #expect(pulled["outcome"] == "current")
        #expect(pulled["referrers"]?.array == [.string(artifact.description)])
        #expect(try listed() == [artifact.description])
        #expect(try Cfsoci.run(other + ["fsck", "--deep"]).status == 0)
    }

    /// Damaged referrers are not stored, and those that cannot be stored are reported.
    @Test func whatIsNotTaken() throws {
        try Cfsoci.succeed(repo + ["export", "image", "oci:\(folder.path)/out"])
        let index = folder.path + "/out/index.json"
        let entries = try JSONValue.parse(readFile(index))["manifests"]?.array ?? []
        // An index with a subject, and an artifact that refers to something else.
        let type = "application/vnd.oci.image.index.v1+json"
        let nested = Array(
            #"{"schemaVersion":2,"mediaType":"\#(type)","manifests":[],"subject":{"mediaType":"x/y","digest":"\#(subject)","size":1}}"#.utf8
        )
        try writeFile(folder.path + "/out/blobs/sha256/" + ContentDigest.of(nested).hex, nested)
        let foreign = try writeArtifact(folder.path + "/foreign", subject: ContentDigest.of([1, 2, 3] as [UInt8]))
        _ = try launch("sh", ["-c", "cp -n \(folder.path)/foreign/blobs/sha256/* \(folder.path)/out/blobs/sha256/"])
        let size = try readFile("\(folder.path)/out/blobs/sha256/\(foreign.hex)").count
        let more: [JSONValue] = [
            [
                "mediaType": .string(type), "digest": .string(ContentDigest.of(nested).description),
                "size": JSONValue(UInt64(nested.count)), "artifactType": "x/y",
            ],
            [
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": .string(foreign.description),
                "size": JSONValue(UInt64(size)), "artifactType": "application/spdx+json",
            ],
        ]
        try writeFile(index, Array((["schemaVersion": 2, "manifests": .array(entries + more)] as JSONValue).description.utf8))
        let pulled = try Cfsoci.run(other + ["pull", "oci:\(folder.path)/out", "image", "--referrers", "--json"])
        #expect(pulled.status == 0)
        #expect(try pulled.json()["referrers"]?.array == [.string(artifact.description)])
        #expect(try pulled.json()["referrersLeftOut"]?.array == [.string(ContentDigest.of(nested).description)])
        #expect(pulled.error.contains("1 referrers have a type that cannot be stored"))
        #expect(try listed() == [artifact.description])

        let third = ["--repo", folder.path + "/third"]
        let document = folder.path + "/out/blobs/sha256/" + artifact.hex
        var bytes = try readFile(document)
        bytes[bytes.count - 3] ^= 1
        try writeFile(document, bytes)
        let damaged = try Cfsoci.run(third + ["pull", "oci:\(folder.path)/out", "image", "--referrers"])
        #expect(damaged.status == 1)
        #expect(damaged.error.contains(artifact.description) && damaged.error.contains("another digest"), "\(damaged.error)")
        // Only the image is stored.
        #expect(try Cfsoci.succeed(third + ["referrers", "list", "image"]).lines == [])
        #expect(try Cfsoci.run(third + ["fsck", "--deep"]).status == 0)
    }
}
