import ComposefsHashing
import ComposefsJSON
import Testing

/// `pull --policy` and `--all-platforms`, with and without a reachable registry.
@Suite struct PolicyCommandTests {
    private func serve(_ folder: TemporaryFolder, _ name: String, _ builder: LayoutBuilder = .small()) throws -> (LayoutServer, String) {
        let digest = try builder.write(to: folder.path + "/" + name)
        return (try LayoutServer(layout: folder.path + "/" + name), digest.description)
    }

    @Test func policies() throws {
        let store = try ContractStore()
        let (server, digest) = try serve(store.folder, "a")
        defer { server.stop() }
        let never = try store.refuse(["pull", server.reference, "--policy", "never"], status: 3)
        #expect(never == "\(server.reference) is not in the repository, and the policy is never to pull")
        #expect(server.requests.isEmpty)
        let first = try store.succeed(["pull", server.reference, "--json"]).json()
        #expect(first["outcome"] == "pulled" && first["previousManifestDigest"]?.isNull == true)
        #expect(try store.succeed(["pull", server.reference, "--policy", "newer", "--json"]).json()["outcome"] == "current")
        #expect(try store.succeed(["pull", server.reference, "--policy", "always", "--json"]).json()["outcome"] == "pulled")
        server.stop()
        for policy in [[], ["--policy", "missing"], ["--policy", "never"]] {
            let here = try store.succeed(["pull", server.reference, "--json"] + policy).json()
            #expect(here["outcome"] == "present" && here["manifestDigest"] == .string(digest) && here["layersPresent"] == 2)
        }
        let quick = ["--retries", "0", "--connect-timeout", "2"]
        let newer = try store.run(["pull", server.reference, "--policy", "newer"] + quick)
        #expect(newer.status == 0 && newer.lines[0] == "manifest  \(digest)")
        #expect(newer.error.hasPrefix("cfsoci: warning: the registry is unreachable, and the stored image is used: "))
        let json = try store.run(["pull", server.reference, "--policy", "newer", "--json", "--quiet"] + quick)
        #expect(try json.json()["outcome"] == "unreachable" && json.error == "")
        #expect(try store.run(["pull", server.reference, "--policy", "always"] + quick).status == 5)
        #expect(try store.run(["pull", server.reference, "--policy", "sometimes"]).status == 64)
    }

    @Test func movedTag() throws {
        let store = try ContractStore()
        let (first, old) = try serve(store.folder, "a")
        defer { first.stop() }
        let (second, new) = try serve(store.folder, "b", LayoutBuilder(layers: [tarArchive([TarMember(name: "x", content: [1])])]))
        defer { second.stop() }
        _ = try store.succeed(["pull", first.reference, "t"])
        let moved = try store.run(["pull", second.reference, "t"])
        #expect(moved.status == 0 && moved.error == "tag moved from \(old) to \(new)\n")
        let back = try store.run(["pull", first.reference, "t", "--json", "--progress", "json"])
        #expect(try back.json()["previousManifestDigest"] == .string(new))
        let events = try back.error.split(separator: "\n").map { try JSONValue.parse(Array($0.utf8)) }
        let event = try #require(events.first { $0["event"] == "tagMoved" })
        #expect(event["from"] == .string(new) && event["to"] == .string(old))
        #expect(
            try store.run(["pull", second.reference, "t", "--progress", "plain"]).error.contains("\ntag moved from \(old) to \(new)\n"))
        #expect(try store.run(["pull", first.reference, "t", "--quiet"]).error == "")
    }

    /// Layers and the runtime's part of the config.
    @Test func jsonHasTheConfig() throws {
        let store = try ContractStore()
        var layout = ContractLayout(layers: LayoutBuilder.small().layers)
        layout.config =
            #"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Cmd":["c"],"Entrypoint":["e"],"User":"1:2","WorkingDir":"/w","#
            + #""ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Labels":{"l":"m","a":"b"},"StopSignal":"SIGINT","#
            + #""Healthcheck":{"Test":["CMD","x"],"Interval":5}},"rootfs":{"type":"layers","diff_ids":[DIFFIDS]}}"#
        let image = try store.pull(layout, as: "t")
        let json = try store.succeed(["pull", "oci:" + store.layoutPath("t"), "t", "--json"]).json()
        #expect(
            json["runtime"] == [
                "env": ["A=b"], "entrypoint": ["e"], "cmd": ["c"], "user": "1:2", "workingDirectory": "/w", "exposedPorts": ["80/tcp"],
                "volumes": ["/v"], "labels": ["a": "b", "l": "m"], "stopSignal": "SIGINT",
                "healthcheck": ["Test": ["CMD", "x"], "Interval": 5],
            ])
        #expect(json["layers"]?.array?.compactMap { $0["diffId"]?.string } == image.diffIDs)
        #expect(json["layers"]?.array?.compactMap { $0["digest"]?.string } == image.layerDigests)
        #expect(json["layers"]?.array?.compactMap { $0["size"]?.int64 } == image.layerSizes)
        #expect(json["layers"]?[0]?["mediaType"] == "application/vnd.oci.image.layer.v1.tar")
        #expect(json["platform"] == "linux/amd64")
    }

    @Test func allPlatforms() throws {
        let store = try ContractStore()
        let layout = store.layoutPath("all")
        var entries: [String] = []
        for architecture in ["s390x", "amd64", "arm64"] {
            var builder = LayoutBuilder.small()
            builder.architecture = architecture
            let digest = try builder.write(to: layout)
            let size = try readFile(layout + "/blobs/sha256/" + digest.hex).count
            entries.append(
                #"{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"\#(digest)","size":\#(size),"#
                    + #""platform":{"os":"linux","architecture":"\#(architecture)"}}"#)
        }
        let type = "application/vnd.oci.image.index.v1+json"
        let index = Array(#"{"schemaVersion":2,"mediaType":"\#(type)","manifests":[\#(entries.joined(separator: ","))]}"#.utf8)
        let digest = ContentDigest.of(index)
        try writeFile(layout + "/blobs/sha256/" + digest.hex, index)
        try writeFile(
            layout + "/index.json",
            Array(#"{"schemaVersion":2,"manifests":[{"mediaType":"\#(type)","digest":"\#(digest)","size":\#(index.count)}]}"#.utf8))
        let all = try store.succeed(["pull", "oci:" + layout, "app", "--all-platforms", "--platform", "linux/arm64"])
        #expect(
            all.lines.filter { $0.hasPrefix("platform  ") || $0.hasPrefix("tagged  ") || $0.hasPrefix("layers  ") || $0.isEmpty } == [
                "platform  linux/arm64", "tagged  app", "tagged  app-linux-arm64", "layers  2 new + 0 present", "",
                "platform  linux/s390x", "tagged  app-linux-s390x", "layers  0 new + 2 present", "",
                "platform  linux/amd64", "tagged  app-linux-amd64", "layers  0 new + 2 present", "",
            ])
        let images = try store.succeed(["images", "--json"]).json()["images"]?.array ?? []
        #expect(
            images.compactMap { $0["name"]?.string } == ["app", "app-linux-amd64", "app-linux-arm64", "app-linux-s390x"])
        #expect(images.compactMap { $0["architecture"]?.string } == ["arm64", "amd64", "arm64", "s390x"])
        let json = try store.succeed(["pull", "oci:" + layout, "app", "--all-platforms", "--platform", "linux/arm64", "--json"]).json()
        #expect(json["images"]?.array?.compactMap { $0["platform"]?.string } == ["linux/arm64", "linux/s390x", "linux/amd64"])
        #expect(json["images"]?[0]?["otherName"] == "app-linux-arm64" && json["images"]?[1]?["otherName"] == nil)
        #expect(try store.succeed(["gc", "--json"]).json()["objectsRemoved"] == 0)
        #expect(try store.succeed(["fsck"]).status == 0)
        #expect(try store.run(["pull", "oci:" + layout, "--all-platforms", "--policy", "never"]).status == 64)
        // If no platform fits, the available ones are listed.
        let refused = try store.refuse(["pull", "oci:" + layout, "--platform", "linux/riscv64"])
        #expect(refused.contains("only for linux/s390x, linux/amd64, linux/arm64; choose one with --platform"))
        // An image for another machine is used if it is named directly, with a warning.
        let other = try store.run(["pull", "oci:" + layout, "--platform", "linux/s390x", "x"])
        #expect(other.status == 0 && other.error == "")
    }

    @Test func otherPlatformIsToldOf() throws {
        let store = try ContractStore()
        var builder = LayoutBuilder.small()
        builder.architecture = "s390x"
        try builder.write(to: store.layoutPath("t"))
        let result = try store.run(["pull", "oci:" + store.layoutPath("t"), "t", "--platform", "linux/amd64"])
        #expect(result.status == 0 && result.error == "cfsoci: warning: the image is for linux/s390x, not for linux/amd64\n")
    }
}
