import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer

@Suite struct StoreUpgradeTests {
    /// An image as in old stores, without an EROFS image.
    private func publishOld(_ source: ArraySource, _ archives: [LayerArchive], in store: ImageStore) throws {
        let layers = try archives.map { (identifier: $0.diffID, stream: try store.importLayer($0.diffID, from: ArrayBlob($0.bytes))) }
        try store.publish(
            manifest: try Manifest(parsing: source.manifest), digest: source.digest, config: source.config, layers: layers, images: [:],
            tag: ByteString(source.canonicalName))
    }

    @Test func imagesWithoutErofs() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let other = LayerArchive.zeros("alpha", 1000)
        try publishOld(BaseImage.source(), BaseImage.layers, in: store)
        try publishOld(ArraySource([ArraySource.Layer(other)], name: "localhost/other:1"), [other], in: store)
        _ = try pullImage(from: ArraySource(artifact: [[1]]), into: store.repository)
        #expect(try store.faults().filter { $0.contains("image-ref-missing") }.count == 2)
        #expect(try store.upgrade() == ImageStore.UpgradeResult(upgraded: 2, alreadyCurrent: 0, artifacts: 1))
        #expect(
            try store.open("localhost/base:1").image.imageID(.v1)?.hex == "617bf3168c5bed49693358601751cd3c5467526b70d78ee0cc501bcea7918433"
        )
        #expect(try store.upgrade() == ImageStore.UpgradeResult(upgraded: 0, alreadyCurrent: 2, artifacts: 1))
        #expect(try store.faults() == [])
        // The original streams of both configs and manifests.
        let garbage = try store.repository.collectGarbage()
        #expect(garbage.objectsRemoved == 4 && garbage.streamsRemoved == 0 && garbage.imagesRemoved == 0)
        #expect(try store.faults() == [] && store.repository.check().isOK)
    }

    /// An upgrade gives the same result as a pull.
    @Test func equalToAPull() throws {
        let (old, new) = (try StoreScratch(), try StoreScratch())
        let (upgraded, pulled) = (ImageStore(try old.create()), ImageStore(try new.create()))
        try publishOld(BaseImage.source(), BaseImage.layers, in: upgraded)
        _ = try upgraded.upgrade()
        _ = try pullImage(from: BaseImage.source(), into: pulled.repository)
        let images = try [upgraded, pulled].map { try $0.open("localhost/base:1").image }
        #expect(images[0].configStream == images[1].configStream && images[0].manifestStream == images[1].manifestStream)
    }

    @Test func otherFormats() throws {
        let (scratch, model) = (try StoreScratch(), try StoreScratch())
        do { _ = try pullImage(from: BaseImage.source(), into: scratch.create(default: .v2)) }
        _ = try model.create(default: .v1)
        let metadata = try model.directory().open(at: "meta.json", .readOnly).readAll(limit: 1 << 16)
        try scratch.directory().open(at: "meta.json", [.writeOnly, .truncate]).writeAll(metadata)
        let store = ImageStore(try Repository.open(scratch.repository))
        #expect(try store.upgrade().upgraded == 1)
        let image = try store.open("localhost/base:1").image
        #expect(image.imageID(.v1)?.hex == "617bf3168c5bed49693358601751cd3c5467526b70d78ee0cc501bcea7918433")
        // The image of the former format is kept.
        #expect(image.imageID(.v2)?.hex == "c2450eb4a411b0fe92fdc1c52fb52233dd40c3de10e320f80052d66c4766e060")
        _ = try store.repository.collectGarbage()
        #expect(try store.faults() == [] && store.repository.imageIDs().count == 2)
        // A missing object is created again.
        try scratch.removeObject(try #require(image.imageID(.v1)))
        #expect(try store.upgrade().upgraded == 1)
        #expect(try store.faults() == [])
    }

    @Test func imagesForBootingAreKept() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let archive = LayerArchive.zeros("alpha", 1000)
        let source = ArraySource([ArraySource.Layer(archive)])
        let stream = try store.importLayer(archive.diffID, from: ArrayBlob(archive.bytes))
        let boot = try store.repository.storeImage(try writeErofs(store.containerTree(of: [(archive.diffID, stream)]), version: .v2)).id
        var publication = Repository.Publication()
        publication.image(boot)
        let key = ReferenceKey.bootPrefix + ".xattrs=keep-user-xattrs"
        try store.publish(
            manifest: try Manifest(parsing: source.manifest), digest: source.digest, config: source.config,
            layers: [(archive.diffID, stream)], images: [:], boot: [(key, boot), (ReferenceKey.bootImage, boot)], tag: "a", publication)
        _ = try store.upgrade()
        let image = try store.open("a").image
        #expect(image.imageID(.v1) != nil && image.bootImageID(.v2) == boot && image.bootImageID(.v1) == nil)
        #expect(image.bootImages.map(\.key) == [ReferenceKey.bootImage, key])
        #expect(try store.repository.collectGarbage().imagesRemoved == 0)
    }

    /// A power cut can lose the name of a config that was not synced, although the manifest has its name.
    @Test func missingNamesOfConfigs() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([ArraySource.Layer(.zeros("alpha", 1000))])
        _ = try pullImage(from: source, into: store.repository)
        let name = StreamName.config(.of(source.config))
        try scratch.directory().unlink(at: "streams/" + name)
        #expect(try store.upgrade().upgraded == 1)
        #expect(try store.usableStream(name) != nil)
        #expect(try store.upgrade().alreadyCurrent == 1)
    }

    @Test func brokenImagesStopIt() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        let source = ArraySource([ArraySource.Layer(.zeros("alpha", 1000))])
        _ = try pullImage(from: source, into: store.repository)
        let name = StreamName.manifest(source.digest)
        try scratch.directory().unlink(at: "streams/" + name)
        #expect(refusal { _ = try store.upgrade() } == "\(name): is missing")
    }

    /// An upgrade by an older release that was interrupted after the streams and before the links of the images.
    @Test func imagesWithoutTheirLinks() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        _ = try pullImage(from: BaseImage.source(), into: store.repository)
        let id = try #require(store.open("localhost/base:1").image.imageID(.v1))
        try scratch.directory().unlink(at: "images/" + ByteString(id.hex))
        #expect(try store.faults().count == 1)
        #expect(try store.upgrade() == ImageStore.UpgradeResult(upgraded: 1, alreadyCurrent: 0, artifacts: 0))
        #expect(try store.faults() == [] && store.repository.check().isOK)
        #expect(try store.upgrade() == ImageStore.UpgradeResult(upgraded: 0, alreadyCurrent: 1, artifacts: 0))
    }

    /// An upgrade that was interrupted between config and manifest: the image is complete, and the next upgrade finishes the work.
    @Test func cutShortBetweenConfigAndManifest() throws {
        let scratch = try StoreScratch()
        let store = ImageStore(try scratch.create())
        try publishOld(BaseImage.source(), BaseImage.layers, in: store)
        let path = "streams/" + StreamName.manifest(BaseImage.source().digest)
        let root = try scratch.directory()
        let old = try root.readLink(at: path)
        _ = try store.upgrade()
        try root.unlink(at: path)
        try root.symlink(target: old, at: path)
        // The old manifest refers to the old config, which has no image; the config's name refers to the new one.
        #expect(try store.faults().map { $0.contains("image-ref-missing") } == [true])
        #expect(try store.upgrade() == ImageStore.UpgradeResult(upgraded: 1, alreadyCurrent: 0, artifacts: 0))
        #expect(try store.faults() == [])
    }
}
