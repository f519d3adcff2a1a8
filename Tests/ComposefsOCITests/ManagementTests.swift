import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsOCI
import ComposefsTestSupport
import Testing

#if canImport(FoundationEssentials)
    import FoundationEssentials
#endif

/// `get`, `list`, `inspect`, `remove` and `prune` as users of the older library know them.
struct ManagementTests {
    private func handle(_ reference: ByteString) throws -> ImageHandle {
        let layout = try Quickstart.blob(Quickstart.manifest)
        let manifest = try JSONValue.parse(layout)
        let size = (manifest["layers"]?.array ?? []).compactMap { $0["size"]?.int64 }.reduce(0, +)
        return ImageHandle(
            reference: reference, size: UInt64(size), manifestDigest: try Quickstart.digest(Quickstart.manifest), architecture: "amd64",
            os: "linux", layerCount: 2, created: Timestamp(seconds: 1_700_000_000))
    }

    /// Without what differs from run to run.
    private func withoutUse(_ handle: ImageHandle) -> ImageHandle {
        var handle = handle
        handle.lastUsed = nil
        return handle
    }

    @Test func getAndList() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        #expect(try await store.list() == [])
        let begin = Timestamp(seconds: Host.currentTime().seconds)
        _ = try await store.pull(quickstart, PullOptions(name: "example.org/team/app:1"))
        try store.images.tag(try Quickstart.digest(Quickstart.manifest), as: "other")
        for name: ByteString in ["example.org/team/app:1", ByteString("sha256:" + Quickstart.manifest), ByteString(Quickstart.config)] {
            let found = try await store.get(name)
            #expect(withoutUse(found) == (try handle("example.org/team/app:1")))
            #expect(try #require(found.lastUsed) >= begin)
        }
        #expect(try await store.list().map(withoutUse) == [try handle("example.org/team/app:1"), try handle("other")])
        for call in [{ _ = try store.get("none") }, { _ = try store.inspect("none") }, { _ = try store.remove("none") }] {
            do {
                try call()
                Issue.record("found")
            } catch ImageStoreError.imageNotFound(let name) {
                #expect(name == "none")
            }
        }
        #expect(throws: ImageStoreError.self) { try store.get("@") }
    }

    @Test func inspect() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let detail = try await store.inspect("image")
        #expect(withoutUse(detail.handle) == (try handle("image")))
        let document = try JSONValue.parse(try Quickstart.blob(Quickstart.config))["config"]
        let config = try #require(detail.config)
        #expect(config.digest == (try Quickstart.digest(Quickstart.config)))
        func texts(_ key: String) -> [String]? { document?[key]?.array?.compactMap(\.string) }
        #expect(config.env == texts("Env") ?? [] && config.cmd == texts("Cmd") && config.entrypoint == texts("Entrypoint"))
        #expect(config.workingDir == document?["WorkingDir"]?.string && config.user == document?["User"]?.string)
        #expect(config.stopSignal == document?["StopSignal"]?.string)
        #expect(config.labels.count == document?["Labels"]?.object?.keys.count ?? 0)
        let layers = try JSONValue.parse(try Quickstart.blob(Quickstart.manifest))["layers"]?.array ?? []
        #expect(
            detail.layers
                == (try layers.enumerated().map { position, layer in
                    ImageLayerDetail(
                        diffID: try Quickstart.digest(Quickstart.diffIDs[position]),
                        blobDigest: try Quickstart.digest(Quickstart.blobs[position]),
                        mediaType: try #require(layer["mediaType"]?.string), compressedSize: UInt64(try #require(layer["size"]?.int64)),
                        position: position)
                }))
    }

    /// An artifact and an image that was made from a directory have no config.
    @Test func otherKinds() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let artifact = try await store.pull("oci:\(checkout)/Tests/Fixtures/corpus/media/artifact", PullOptions(name: "artifact"))
        let detail = try await store.inspect("artifact")
        #expect(detail.config == nil && detail.handle.architecture == nil && detail.handle.manifestDigest == artifact.manifestDigest)
        #expect(detail.layers.count == detail.handle.layerCount && detail.layers.allSatisfy { $0.diffID == nil })
        var publication = Repository.Publication()
        let id = try store.repository.storeImage(try writeErofs(FileTree(root: Metadata(permissions: 0o755)), version: .v1)).id
        publication.imageReference("made/here", id)
        try store.repository.publish(publication)
        let made = try await store.inspect("made/here")
        let size = try #require(try store.repository.objectSize(id))
        #expect(withoutUse(made.handle) == ImageHandle(reference: "made/here", size: size) && made.layers.isEmpty && made.config == nil)
        #expect(try await store.list().map(\.reference) == ["artifact", "made/here"])
        #expect(try await store.remove(ByteString(id.hex)) == ["made/here"])
        await #expect(throws: ImageStoreError.self) { try await store.get("made/here") }
    }

    @Test func removeAndPrune() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        for name: ByteString in ["app:1", "app:2", "other"] { _ = try await store.pull(quickstart, PullOptions(name: name)) }
        #expect(try await store.remove("app:1") == ["app:1"])
        #expect(try await store.prune(PrunePolicy(olderThan: .seconds(3600))) == ImagePruneReport())
        let keep = try await store.prune(PrunePolicy(filters: [ImageFilter(.reference, "app:*")]), dryRun: true)
        #expect(keep == ImagePruneReport(referencesRemoved: 1))
        #expect(try await store.remove(ByteString("sha256:" + Quickstart.manifest)) == ["app:2", "other"])
        _ = try await store.pull(quickstart, PullOptions(name: "again"))
        var bytes: UInt64 = 0
        try forEachFile(below: folder.path + "/repository/objects") { bytes += $0.size }
        let report = try await store.prune(.unused)
        #expect(report == ImagePruneReport(referencesRemoved: 1, manifestsRemoved: 1, layersRemoved: 2, bytesReclaimed: bytes))
        #expect(try await store.list() == [])
        try forEachFile(below: folder.path + "/repository/objects") { _ in Issue.record("an object is left") }
    }

    /// The images of layers that the store keeps have sizes, and removed disks are counted.
    @Test func disks() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let image = try store.images.open("image").image
        #expect(try await store.inspect("image").layers.map(\.erofsSize) == [nil, nil])
        let disks = ImageDisks(store.images)
        let made = try disks.keep(DiskRequest(.vmdk), of: image)
        _ = try disks.keep(DiskRequest(.fsmeta), of: image)
        let layers = try disks.make(.layered, of: image, at: folder.path + "/layers").files
        #expect(made.files.count == 4 && layers.map(\.size) == made.files.suffix(2).map(\.size))
        #expect(try await store.inspect("image").layers.map(\.erofsSize) == layers.map(\.size))
        #expect(try disks.list().map(\.key) == ["fsmeta-1-oci", "vmdk-1-oci"])
        #expect(try disks.remove(of: image.manifestDigest) == ["fsmeta-1-oci", "vmdk-1-oci"])
        let report = try await store.prune(PrunePolicy(keep: 1))
        #expect(report.fsmetaRemoved == 1 && report.vmdkRemoved == 1 && report.manifestsRemoved == 0)
        #expect(report.bytesReclaimed >= made.files.reduce(0) { $0 + $1.size })
        #expect(try await store.inspect("image").layers.map(\.erofsSize) == [nil, nil])
    }

    /// Images for booting belong to the config that records them.
    @Test func bootImagesCost() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        let pulled = try await store.pull(quickstart, PullOptions(name: "image"))
        let before = try await store.usage()
        let image = try store.images.open("image").image
        let tree = try store.images.tree(of: image)
        let boot = try store.repository.storeImage(try writeErofs(tree, version: .v2))
        var publication = Repository.Publication()
        publication.image(boot.id)
        let layers = image.layerIdentifiers.compactMap { id in image.layerStream(id).map { (id, $0) } }
        try store.images.publish(
            manifest: image.manifest, digest: image.manifestDigest, config: image.configBytes, layers: layers,
            images: pulled.imageIDs, boot: [(ReferenceKey.bootImage, boot.id)], tag: "image", publication)
        _ = try await store.collectGarbage()
        let usage = try await store.usage()
        var (count, bytes) = (0, UInt64(0))
        try forEachFile(below: folder.path + "/repository/objects") { status in
            count += 1
            bytes += status.size
        }
        #expect(usage.costs.map(\.names) == [["image"]] && usage.costs[0].imageIDs.contains(boot.id))
        #expect(
            usage.costs[0].total.count == count && usage.costs[0].total.bytes == bytes && usage.costs[0].reclaimable == usage.costs[0].total
        )
        #expect(bytes > before.objects.bytes + boot.size - 4096 && usage.garbage?.objectsRemoved == 0)
    }

    @Test func cancelled() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let cancellation = Cancellation()
        cancellation.cancel()
        await #expect(throws: CancellationError.self) { try await store.usage(cancellation: cancellation) }
        let other = try Store.open(folder.path + "/repository")
        defer { withExtendedLifetime(other) {} }
        await #expect(throws: CancellationError.self) { try await store.prune(.unused, cancellation: cancellation) }
        #expect(try await store.list().count == 1)
    }

    @Test func inUseNeedsForce() async throws {
        try requireMounting()
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let target = try folder.makeDirectory("target")
        defer { try? unmount(target, lazily: true) }
        try store.mount("image", at: target)
        do {
            _ = try await store.remove("image")
            Issue.record("removed")
        } catch ImageStoreError.imageInUse("image", _) {
        }
        #expect(try await store.prune(.unused) == ImagePruneReport())
        #expect(try await store.remove("image", force: true) == ["image"])
    }

    #if canImport(FoundationEssentials)
        @Test func coding() throws {
            let digest = try Quickstart.digest(Quickstart.manifest)
            for reference in ["app:1", ByteString([0x61, 0xff])] as [ByteString] {
                let detail = ImageDetail(
                    handle: ImageHandle(
                        reference: reference, size: .max, manifestDigest: digest, architecture: "amd64", os: "linux", layerCount: 1,
                        lastUsed: Timestamp(seconds: 1_700_000_000, nanoseconds: 5), created: Timestamp(seconds: -1)),
                    config: ImageConfigDetail(digest: digest, env: ["A=b"], cmd: ["x"], labels: ["k": "v"], stopSignal: "SIGTERM"),
                    layers: [
                        ImageLayerDetail(diffID: nil, blobDigest: digest, mediaType: "m", compressedSize: 1, erofsSize: 2, position: 0)
                    ])
                let coded = try JSONEncoder().encode(detail)
                #expect(try JSONDecoder().decode(ImageDetail.self, from: coded) == detail)
                let json = try JSONValue.parse(Array(coded))
                #expect(json["handle"]?["manifestDigest"]?.string == digest.description)
                #expect(json["handle"]?["lastUsed"]?.string == "2023-11-14T22:13:20.000000005Z")
                #expect(json["handle"]?["reference"] == (reference == "app:1" ? "app:1" : [97, 255]))
            }
            let report = ImagePruneReport(referencesRemoved: 1, manifestsRemoved: 2, layersRemoved: 3, bytesReclaimed: 4)
            #expect(try JSONDecoder().decode(ImagePruneReport.self, from: try JSONEncoder().encode(report)) == report)
            let id = try #require(ObjectID(hex: String(repeating: "ab", count: 32)))
            #expect(try JSONDecoder().decode([ObjectID].self, from: try JSONEncoder().encode([id])) == [id])
        }
    #endif
}

/// Calls `body` with the status of every regular file.
private func forEachFile(below path: ByteString, _ body: (FileStatus) throws -> Void) throws {
    for entry in try FileDescriptor.open(path, [.readOnly, .directory]).entries() {
        let name = path + "/" + entry.name
        if entry.kind == .directory { try forEachFile(below: name, body) } else { try body(FileDescriptor.open(name, .readOnly).status()) }
    }
}
