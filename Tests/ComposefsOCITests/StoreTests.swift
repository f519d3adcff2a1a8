import ComposefsConcurrency
import ComposefsLinuxSystem
import ComposefsOCI
import Testing

struct StoreTests {
    @Test func opensOrMakes() throws {
        let folder = try Folder()
        let path = folder.path + "/a/b/repository"
        #expect(throws: RepositoryError.self) { try Store.open(path) }
        let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        let (made, created) = try Store.openOrCreate(path, configuration)
        #expect(created && !made.repository.isSecure && made.repository.algorithm == .sha256)
        let again = try Store.openOrCreate(path)
        #expect(!again.created && again.store.repository.algorithm == .sha256)
        #expect(try Store.open(path, OpenOptions(readOnly: true)).images.list().images.isEmpty)
        #expect(throws: RepositoryError.self) {
            try Store.openOrCreate(quickstartBlobs + ByteString(Quickstart.manifest) + "/below/a/file")
        }
    }

    @Test func checkFindsAFlippedByte() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let report = try await store.check("image", ImageCheckOptions(deep: true))
        #expect(report.isClean && report.images.imagesChecked == 1 && report.repository.objectsChecked > 5)
        await #expect(throws: ImageStoreError.self) { try await store.check("another") }

        let tree = try store.images.tree(of: try store.images.open("image").image)
        let inode = try #require(tree.lookup(path: "/usr/lib/table.txt"))
        guard case .external(let id, _)? = tree.content(of: inode) else { throw Failed("the file is no object") }
        let path = folder.path + "/repository/objects/" + ByteString(id.objectPath.description)
        var bytes = try readFile(path)
        bytes[100] ^= 1
        try FileDescriptor.currentDirectory.unlink(at: path)
        try FileDescriptor.open(path, [.writeOnly, .create]).writeAll(bytes)
        let damaged = try await store.check()
        #expect(!damaged.isClean && !damaged.repository.isOK && !damaged.images.isClean)
        #expect(damaged.images.problems.map(\.image) == ["image"])
        #expect(try await store.check(nil, ImageCheckOptions(metadataOnly: true)).isClean)
    }

    @Test func garbageGoesWithTheTag() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        #expect(try await store.collectGarbage().objectsRemoved == 0)
        try store.images.untag("image")
        let plan = try await store.collectGarbage(dryRun: true)
        #expect(plan.objectsRemoved > 5 && plan.streamsRemoved == 4)
        #expect(try await store.collectGarbage() == plan)
        #expect(try await store.collectGarbage().objectsRemoved == 0)
        #expect(try store.repository.streamNames().isEmpty && store.repository.imageIDs().isEmpty)
    }

    @Test func mountRefusesWhatIsNoImage() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        _ = try await store.pull("oci:\(checkout)/Tests/Fixtures/corpus/media/artifact", PullOptions(name: "artifact"))
        let target = try folder.makeDirectory("target")
        #expect(throws: ImageStoreError.self) { try store.mount("nothing", at: target) }
        #expect { try store.mount("artifact", at: target) } throws: {
            if case .isArtifact? = $0 as? ImageStoreError { true } else { false }
        }
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        #expect { try store.mount("image", at: target, bootable: true) } throws: {
            if case .noErofsImage(_, .v1, bootable: true)? = $0 as? ImageStoreError { true } else { false }
        }
    }

    // MARK: Images from parts

    /// This process serves the image, like a program that embeds the library.
    @Test(.enabled(if: Host.effectiveUserID == 0 && (try? FuseDevice()) != nil, "needs root and FUSE")) func servesAnImage() async throws {
        let folder = try Folder()
        let store = try folder.makeStore(RepositoryConfiguration(verity: .insecure))
        _ = try await store.pull(quickstart, PullOptions(name: "image"))
        let target = folder.path + "/mounted"
        try FileDescriptor.makeDirectory(target)
        #expect(throws: ImageStoreError.self) { try store.serve("nothing", at: target) }
        #expect(throws: FuseError.self) { try store.serve("image", at: target + "/none") }
        let image = try store.serve("image", at: target)
        let end = Task.detached { try await onOwnThread { image.run() } }
        let tree = try store.images.tree(of: try store.images.open("image").image)
        let inode = try #require(tree.lookup(path: "/usr/lib/table.txt"))
        guard case .external(let id, _)? = tree.content(of: inode) else { throw Failed("the file is no object") }
        let content = try readFile(target + "/usr/lib/table.txt")
        #expect(content.withUnsafeBytes { VerityHasher.objectID(of: $0, id.algorithm) } == id)
        #expect(image.path == target)
        try image.unmount()
        try await end.value
        #expect(throws: FuseError.notMounted(target)) { try image.unmount() }
    }

    @Test func imageFromStoredLayersEqualsThePulledOne() async throws {
        let (folder, other) = (try Folder(), try Folder())
        let store = try folder.makeStore()
        let pulled = try await store.pull(quickstart, PullOptions(name: "image"))
        let parts = try other.makeStore()
        let (manifest, config) = (try Quickstart.blob(Quickstart.manifest), try Quickstart.blob(Quickstart.config))
        #expect {
            try parts.images.storeImage(manifest: manifest, config: config, as: "image")
        } throws: {
            guard case .layer(_, _, _, cause: let cause)? = $0 as? PullError else { return false }
            if case .noSuchLayer? = cause as? ImageStoreError { return true } else { return false }
        }
        for (blob, diffID) in zip(Quickstart.blobs, Quickstart.diffIDs) {
            _ = try parts.images.importLayer(try Quickstart.digest(diffID), from: MemoryReader(try Quickstart.blob(blob)))
        }
        let stored = try parts.images.storeImage(manifest: manifest, config: config, as: "image")
        #expect(stored.imageIDs == pulled.imageIDs && stored.manifestDigest == pulled.manifestDigest)
        #expect(stored.manifestStream == pulled.manifestStream && stored.newLayers == 0 && stored.presentLayers == 2)
        #expect(try await parts.check(nil, ImageCheckOptions(deep: true)).isClean)
        var damaged = config
        damaged[damaged.count / 2] ^= 1
        #expect(throws: PullError.self) { try parts.images.storeImage(manifest: manifest, config: damaged, as: "other") }
        #expect(try parts.images.tags().map(\.name) == ["image"])
    }

    @Test func layersFromStoredBlobs() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        for blob in Quickstart.blobs {
            let bytes = try Quickstart.blob(blob)
            let stored = try bytes.withUnsafeBytes { try store.images.storeBlob($0) }
            #expect(stored.digest.hex == blob)
            #expect(try store.repository.stream(StreamName.blob(stored.digest)) == stored.stream)
            #expect(try content(of: stored.digest, in: store) == bytes)
        }
        #expect(try content(of: try Quickstart.digest(Quickstart.config), in: store) == nil)
        let (manifest, config) = (try Quickstart.blob(Quickstart.manifest), try Quickstart.blob(Quickstart.config))
        let stored = try store.images.storeImage(manifest: manifest, config: config, as: "image")
        #expect(stored.newLayers == 2)
        #expect(try await store.collectGarbage().streamsRemoved == 2)
        #expect(try await store.check(nil, ImageCheckOptions(deep: true)).isClean)
    }

    @Test func artifactsBlobIsOpened() async throws {
        let folder = try Folder()
        let store = try folder.makeStore()
        let layout = checkout + "/Tests/Fixtures/corpus/media/artifact"
        let pulled = try await store.pull("oci:\(layout)")
        #expect(!pulled.isContainer && pulled.imageID == nil)
        let image = try #require(try store.images.image(pulled.manifestDigest))
        for (index, layer) in image.manifest.layers.enumerated() {
            let expected = try readFile(layout + "/blobs/sha256/" + ByteString(layer.digest.hex))
            let file = try store.images.openBlob(index, of: image)
            let bytes = try file.readAll(limit: 1 << 20)
            #expect(bytes == expected)
        }
        #expect(!image.manifest.layers.isEmpty)
        for index in [-1, image.manifest.layers.count] {
            #expect(throws: ImageStoreError.self) { _ = try store.images.openBlob(index, of: image) }
        }
        let container = try await store.pull(quickstart)
        let stored = try #require(try store.images.image(container.manifestDigest))
        #expect(throws: ImageStoreError.self) { _ = try store.images.openBlob(0, of: stored) }

        // Referrers: all records of a subject are removed at once, those of others stay.
        let (subject, unknown) = (container.manifestDigest, try Quickstart.digest(Quickstart.config))
        try store.images.addReferrer(pulled.manifestDigest, to: subject)
        try store.images.addReferrer(pulled.manifestDigest, to: unknown)
        #expect(try store.images.removeReferrers(of: subject) == 1)
        #expect(try store.images.referrers(of: subject).isEmpty && store.images.referrers(of: unknown) == [pulled.manifestDigest])
        #expect(try store.images.removeDanglingReferrers() == 1)
        #expect(try store.images.removeReferrers(of: unknown) == 0)
    }

    @Test func bootReferencesHaveTheReferencesNames() {
        #expect(ReferenceKey.bootImage(.v2) == "composefs.image.boot")
        #expect(ReferenceKey.bootImage(.v1) == "composefs.image.boot.v1")
        #expect(ReferenceKey.bootImage(.v0, .keepUserXattrs) == "composefs.image.boot.v1.xattrs=keep-user-xattrs")
        #expect(ReferenceKey.bootImage(.v2, .keepUserXattrs) == "composefs.image.boot.xattrs=keep-user-xattrs")
        #expect(ImageTag.prefix == "oci/")
    }
}

/// The descriptor of a blob that belongs to no image.
private func content(of digest: ContentDigest, in store: Store) throws -> [UInt8]? {
    guard let file = try store.images.openBlob(digest) else { return nil }
    return try file.readAll(limit: 1 << 20)
}

struct Failed: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}
