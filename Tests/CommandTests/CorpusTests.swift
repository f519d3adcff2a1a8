import ComposefsHashing
import ComposefsJSON
import Testing

/// Pulls every image of the corpus with the real binary: trees, verdicts, and the IDs that the reference implementation computes.
@Suite struct CorpusTests {
    struct Record: Sendable, CustomTestStringConvertible {
        var id: String
        var value: JSONValue
        var testDescription: String { id }
        var layout: String { Fixtures.folder + "/corpus/" + id }
        var verdict: String { value["verdict"]?.string ?? "" }
        var trees: [JSONValue] { value["trees"]?.array ?? [] }
    }

    static let records: [Record] = {
        guard let bytes = try? readFile(Fixtures.folder + "/corpus/EXPECT.json"), let document = try? JSONValue.parse(bytes) else {
            return []
        }
        return (document["images"]?.array ?? []).compactMap { value in value["id"]?.string.map { Record(id: $0, value: value) } }
    }()

    static func select(_ verdicts: Set<String>) -> [Record] { records.filter { verdicts.contains($0.verdict) } }

    private static let canary = "/tmp/corpus-canary"

    private func makeRepository(_ algorithm: VerityAlgorithm = .sha256) throws -> (folder: TemporaryFolder, path: String) {
        let folder = try TemporaryFolder()
        let path = folder.path + "/repo"
        try Cfsoci.succeed([
            "init", path, "--insecure", "--algorithm", "fsverity-\(algorithm.name)-12", "--erofs-version", "1", "--erofs-version", "0",
            "--erofs-version", "2",
        ])
        return (folder, path)
    }

    @Test func everyRecordIsThere() { #expect(Self.records.count == 176) }

    @Test(arguments: select(["accept"]), VerityAlgorithm.allCases)
    func accepted(record: Record, algorithm: VerityAlgorithm) throws {
        let (folder, repository) = try makeRepository(algorithm)
        defer { withExtendedLifetime(folder) {} }
        for tree in record.trees { try compare(record, tree, repository, algorithm) }
        let report = try Cfsoci.run(["fsck", "--deep", "--repo", repository])
        #expect(report.status == 0, "\(report.text)\(report.error)")
    }

    /// The result must be one of the expected trees, or a clear refusal that leaves nothing behind.
    @Test(arguments: select(["either"]))
    func either(record: Record) throws {
        let (folder, repository) = try makeRepository()
        defer { withExtendedLifetime(folder) {} }
        let reference = record.trees.first.flatMap { $0["ref"]?.string }
        let result = try Cfsoci.run(["pull", source(record, reference), "t", "--repo", repository])
        if result.status == 0 {
            let dump = try readDump(try Cfsoci.succeed(["dump", "t", "--repo", repository]).text, .sha256)
            if !record.trees.isEmpty {
                let matches = try record.trees.map { try expected($0, "sha256") }.contains { sameTree($0, dump) }
                #expect(matches, "none of the expected trees: \(dump)")
            }
        } else {
            try expectRefusal(result, repository)
        }
    }

    @Test(arguments: select(["refuse"]))
    func refused(record: Record) throws {
        let (folder, repository) = try makeRepository()
        defer { withExtendedLifetime(folder) {} }
        let canaryBefore = fileList(Self.canary)
        let before = fileList(repository)
        let references = (record.value["refs"]?.array ?? []).compactMap(\.string)
        for reference in references.isEmpty ? [nil] : references.map(Optional.some) {
            let result = try Cfsoci.run(["pull", source(record, reference), "t", "--repo", repository])
            try expectRefusal(result, repository)
        }
        try Cfsoci.succeed(["gc", "--repo", repository])
        // Empty fan-out directories may remain.
        let after = fileList(repository).filter { !before.contains($0) && !isFanOut($0) }
        #expect(after == [], "left behind")
        #expect(fileList(Self.canary) == canaryBefore)
    }

    @Test(arguments: select(["limit"]))
    func limited(record: Record) throws {
        let (folder, repository) = try makeRepository()
        defer { withExtendedLifetime(folder) {} }
        let started = now()
        let result = try launch(
            "/usr/bin/env",
            [
                "bash", "-c", "ulimit -v 4194304; exec \"$0\" \"$@\"", Cfsoci.binary, "pull", source(record, nil), "t", "--repo",
                repository,
                "--verbose",
            ])
        #expect(now() - started < 60)
        #expect(result.status == 0 || result.status == 1)
        if result.status != 0 { try expectRefusal(result, repository) }
        // The peak memory that the pull reports, in KiB.
        if let line = result.error.split(separator: "\n").first(where: { $0.hasPrefix("peak memory") }) {
            let number = line.split(separator: " ").compactMap { Int($0) }.first ?? Int.max
            #expect(number < 512 * 1024)
        }
    }

    @Test(arguments: select(["artifact"]))
    func artifacts(record: Record) throws {
        let (folder, repository) = try makeRepository()
        defer { withExtendedLifetime(folder) {} }
        let reference = (record.value["refs"]?.array ?? []).compactMap(\.string).first
        try Cfsoci.succeed(["pull", source(record, reference), "t", "--repo", repository])
        let stored = try Cfsoci.succeed(["inspect", "t", "--manifest", "--repo", repository]).output
        let digest = ContentDigest.of(stored)
        #expect(try readFile(record.layout + "/blobs/sha256/" + digest.hex) == stored)
        for layer in try JSONValue.parse(stored)["layers"]?.array ?? [] {
            let digest = try #require(layer["digest"]?.string)
            let blob = try readFile(record.layout + "/blobs/" + digest.replacing(":", with: "/"))
            #expect(try Cfsoci.succeed(["stream", "cat", "oci-layer-" + digest, "--repo", repository]).output == blob)
        }
        for command in [["dump", "t"], ["compute-id", "t"], ["ls", "t"]] {
            let result = try Cfsoci.run(command + ["--repo", repository])
            #expect(result.status == 1)
            #expect(result.error.contains("artifact"), "\(result.error)")
        }
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
    }

    @Test(arguments: records.filter { !($0.value["reference_ids_with_usr"]?.object?.members.isEmpty ?? true) })
    func identifiersBelowUsr(record: Record) throws {
        let folder = try TemporaryFolder()
        let layout = folder.path + "/layout"
        let reference = record.trees.first.flatMap { $0["ref"]?.string }
        let index = try JSONValue.parse(try readFile(record.layout + "/index.json"))
        let named = index["manifests"]?.array?.first { $0["annotations"]?["org.opencontainers.image.ref.name"]?.string == reference }
        let manifest = try #require((named ?? index["manifests"]?[0])?["digest"]?.string)
        try addUsrLayer(to: record.layout, manifest: manifest, at: layout)
        for algorithm in VerityAlgorithm.allCases {
            let (store, repository) = try makeRepository(algorithm)
            defer { withExtendedLifetime(store) {} }
            try Cfsoci.succeed(["pull", "oci:" + layout, "t", "--repo", repository])
            for version in 0...2 {
                let wanted = record.value["reference_ids_with_usr"]?["\(algorithm.name)-v\(version)"]?.string
                let id = try Cfsoci.succeed(["compute-id", "t", "--erofs-version", "\(version)", "--repo", repository]).lines.first
                #expect(id == wanted, "V\(version) \(algorithm.name) of \(reference ?? "-")")
            }
        }
    }

    // MARK: Below

    private func source(_ record: Record, _ reference: String?) -> String {
        "oci:" + record.layout + (reference.map { ":" + $0 } ?? "")
    }

    private func expected(_ tree: JSONValue, _ algorithm: String) throws -> [String: DumpedFile] {
        let file = try #require(tree["file"]?.string)
        return try expectedTree(try JSONValue.parse(try readFile(Fixtures.folder + "/corpus/" + file)), algorithm: algorithm)
    }

    private func compare(_ record: Record, _ tree: JSONValue, _ repository: String, _ algorithm: VerityAlgorithm) throws {
        let reference = tree["ref"]?.string
        var command = ["pull", source(record, reference), "t", "--repo", repository]
        if let platform = tree["platform"]?.string { command += ["--platform", platform] }
        let pulled = try Cfsoci.succeed(command)
        if let manifest = tree["manifest"]?.string { #expect(pulled.lines.contains("manifest  " + manifest)) }
        let dump = try readDump(try Cfsoci.succeed(["dump", "t", "--repo", repository]).text, algorithm)
        let wanted = try expected(tree, algorithm.name)
        for path in Set(wanted.keys).union(dump.keys).sorted() {
            #expect(dump[path] == wanted[path], "\(record.id) \(path)")
        }
        // The IDs that the reference implementation computes for the same image.
        if let reference, let ids = record.value["reference_ids"]?[reference] {
            for version in 0...2 {
                guard let id = ids["\(algorithm.name)-v\(version)"]?.string else { continue }
                let ours = try Cfsoci.succeed(["compute-id", "t", "--erofs-version", "\(version)", "--repo", repository]).lines.first
                #expect(ours == id, "\(record.id) V\(version)")
            }
        }
    }

    /// The document with a replaced member at a path of keys.
    private func setting(_ document: JSONValue, _ path: [String], _ value: JSONValue?) -> JSONValue {
        guard let key = path.first, var object = document.object else { return value ?? .null }
        object[key] = path.count == 1 ? value : setting(object[key] ?? .null, Array(path.dropFirst()), value)
        return .object(object)
    }

    private func sameTree(_ lhs: [String: DumpedFile], _ rhs: [String: DumpedFile]) -> Bool { lhs == rhs }

    private func expectRefusal(_ result: CommandResult, _ repository: String) throws {
        #expect(result.status == 1, "\(result.text)\(result.error)")
        let lines = result.error.split(separator: "\n").filter { $0.hasPrefix("cfsoci: ") }
        #expect(lines.count == 1, "one clear error: \(result.error)")
        #expect(try Cfsoci.succeed(["images", "--json", "--repo", repository]).json()["images"]?.array?.count == 0)
        #expect(try Cfsoci.run(["fsck", "--repo", repository]).status == 0)
    }

    private func isFanOut(_ path: String) -> Bool {
        let parts = path.split(separator: "/")
        if ["objects", "streams", "images", "streams/refs", "images/refs", "streams/refs/oci"].contains(path) { return true }
        return parts.count == 2 && parts[0] == "objects" && parts[1].count == 2
    }

    /// A copy of a layout's only image with an additional lowest layer: an archive with the directory `usr/`.
    private func addUsrLayer(to layout: String, manifest digest: String, at target: String) throws {
        let archive = tarArchive([TarMember(name: "usr/", mode: 0o755, mtime: 1_700_000_000, type: "5")])
        let layer = ContentDigest.of(archive)
        func blob(_ digest: String) -> String { "/blobs/" + digest.replacing(":", with: "/") }
        var manifest = try JSONValue.parse(try readFile(layout + blob(digest)))
        let configDigest = try #require(manifest["config"]?["digest"]?.string)
        var config = try JSONValue.parse(try readFile(layout + blob(configDigest)))
        config = setting(
            config, ["rootfs", "diff_ids"], .array([.string(layer.description)] + (config["rootfs"]?["diff_ids"]?.array ?? [])))
        let layers = manifest["layers"]?.array ?? []
        let configBytes = config.compactBytes
        manifest = setting(manifest, ["config", "digest"], .string(ContentDigest.of(configBytes).description))
        manifest = setting(manifest, ["config", "size"], .integer(Int64(configBytes.count)))
        // The old config's bytes are embedded in its descriptor.
        manifest = setting(manifest, ["config", "data"], nil)
        let mediaType =
            (manifest["config"]?["mediaType"]?.string ?? "").contains("docker")
            ? "application/vnd.docker.image.rootfs.diff.tar" : "application/vnd.oci.image.layer.v1.tar"
        let descriptor = try JSONValue.parse(
            Array(#"{"mediaType":"\#(mediaType)","digest":"\#(layer)","size":\#(archive.count)}"#.utf8))
        manifest = setting(manifest, ["layers"], .array([descriptor] + layers))
        let manifestBytes = manifest.compactBytes
        let manifestDigest = ContentDigest.of(manifestBytes)
        let manifestType = manifest["mediaType"]?.string ?? "application/vnd.oci.image.manifest.v1+json"
        let index =
            #"{"schemaVersion":2,"manifests":[{"mediaType":"\#(manifestType)","digest":"\#(manifestDigest)","size":\#(manifestBytes.count)}]}"#
        _ = try launch("mkdir", ["-p", target + "/blobs/sha256"])
        try writeFile(target + "/oci-layout", Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8))
        try writeFile(target + "/index.json", Array(index.utf8))
        try writeFile(target + blob(layer.description), archive)
        try writeFile(target + blob(ContentDigest.of(configBytes).description), configBytes)
        try writeFile(target + blob(manifestDigest.description), manifestBytes)
        for layer in layers {
            let name = try #require(layer["digest"]?.string)
            _ = try launch("mkdir", ["-p", target + "/blobs/" + (name.split(separator: ":").first.map(String.init) ?? "")])
            try writeFile(target + blob(name), try readFile(layout + blob(name)))
        }
    }
}
