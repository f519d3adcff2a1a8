import ComposefsBytes
import ComposefsEROFS
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// A kind of damage to a file of a repository.
enum FileDamage: String, CaseIterable, Sendable {
    case removed, emptied, truncated, flipped, longer, fifo, directory, fullDirectory, symlink

    /// Damages the file at a path below the repository.
    func apply(to path: ByteString, in root: borrowing FileDescriptor) throws {
        let bytes = try root.open(at: path, .readOnly).readAll(limit: 1 << 24)
        func put(_ bytes: [UInt8]) throws { try root.open(at: path, [.writeOnly, .create, .exclusive]).writeAll(bytes) }
        // In place, as a failing disk and `dd conv=notrunc` do: attributes stay.
        func overwrite(_ bytes: [UInt8]) throws { try root.open(at: path, [.writeOnly, .truncate]).writeAll(bytes) }
        switch self {
        case .emptied: return try overwrite([])
        case .truncated: return try overwrite(Array(bytes.dropLast()))
        case .longer: return try overwrite(bytes + [0])
        case .flipped:
            var flipped = bytes
            flipped[flipped.count / 2] ^= 1
            return try overwrite(flipped)
        default: try root.unlink(at: path)
        }
        switch self {
        case .fifo: try root.makeNode(at: path, mode: 0o010644)
        case .symlink: try root.symlink(target: "../../meta.json", at: path)
        case .directory: try root.makeDirectory(at: path, mode: 0o755)
        case .fullDirectory:
            try root.makeDirectory(at: path, mode: 0o755)
            try root.open(at: path + "/file", [.writeOnly, .create, .exclusive]).writeAll([1])
        default: break
        }
    }
}

/// A changed link.
enum LinkDamage: String, CaseIterable, Sendable {
    case removed, dangling, otherObject, nowhere, file

    func apply(to path: ByteString, in root: borrowing FileDescriptor, other: ByteString) throws {
        let target = try root.readLink(at: path)
        try root.unlink(at: path)
        switch self {
        case .removed: break
        case .dangling:
            var bytes = target.bytes
            bytes[bytes.count - 1] = bytes[bytes.count - 1] == UInt8(ascii: "0") ? UInt8(ascii: "1") : UInt8(ascii: "0")
            try root.symlink(target: ByteString(bytes), at: path)
        case .otherObject: try root.symlink(target: other, at: path)
        case .nowhere: try root.symlink(target: "nothing", at: path)
        case .file: try root.open(at: path, [.writeOnly, .create, .exclusive]).writeAll(Array("a file".utf8))
        }
    }
}

/// A store with one image of two layers, with every kind of content.
struct SmallStore {
    let scratch: StoreScratch
    let repository: Repository
    let source: ArraySource
    let archives: [LayerArchive]
    var store: ImageStore { ImageStore(repository) }
    static let name: ByteString = "localhost/test:latest"

    static func content(_ seed: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 31 &+ seed) ^ ($0 >> 8)) }
    }

    init(files: Int = 3) throws {
        scratch = try StoreScratch()
        repository = try scratch.create()
        var lower = LayerArchive()
        lower.add("usr/", type: "5", mode: 0o755)
        for file in 0..<files { lower.add("usr/file\(file)", mode: 0o644, content: Self.content(file, 5000 + file)) }
        let upper = LayerArchive().adding("etc", Self.content(99, 70_000)).adding("small", [1, 2, 3])
        archives = [lower, upper]
        source = ArraySource(archives.map { ArraySource.Layer($0) })
        _ = try pullImage(from: source, into: repository)
    }

    /// Objects, as paths below the repository, sorted.
    func objects() throws -> [ByteString] {
        let root = try scratch.directory()
        return try root.open(at: "objects", [.readOnly, .directory]).entries().flatMap { entry in
            try scratch.directory().open(at: "objects/" + entry.name, [.readOnly, .directory]).entries().map {
                "objects/" + entry.name + "/" + $0.name
            }
        }.sorted()
    }

    /// The objects to which a layer's stream refers.
    func objects(of layer: LayerArchive) throws -> [ObjectID] {
        Array(try repository.openStream(store.layerStream(layer.diffID)).objectReferences)
    }

    func links() throws -> [ByteString] {
        try ["streams", "images"].flatMap { category in
            try scratch.directory().open(at: category, [.readOnly, .directory]).entries().filter { $0.kind == .symbolicLink }.map {
                category + "/" + $0.name
            }
        }.sorted()
    }

    /// The findings of both levels of the check.
    func faults() throws -> [String] {
        try repository.check().problems.map(\.description) + store.faults()
    }
}

/// In a damaged store, storing content again repairs it, and damaged content is not used for anything else.
@Suite struct DamagedStoreTests {
    @Test(arguments: FileDamage.allCases) func pullMendsObjects(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let root = try small.scratch.directory()
        for object in try small.objects() {
            try damage.apply(to: object, in: root)
            // A separate handle, like that of another process.
            var options = PullOptions()
            options.policy = .always
            _ = try pullImage(from: small.source, into: Repository.open(small.scratch.repository), options)
            #expect(try small.faults() == [], "\(object)")
            // The same handle also finds the next damage.
            try FileDamage.flipped.apply(to: object, in: root)
            _ = try pullImage(from: small.source, into: small.repository, options)
            #expect(try small.faults() == [], "\(object), again")
        }
    }

    @Test(arguments: LinkDamage.allCases) func pullMendsLinks(_ damage: LinkDamage) throws {
        let small = try SmallStore()
        let root = try small.scratch.directory()
        let other = try root.readLink(at: "streams/" + StreamName.layer(small.archives[0].diffID))
        for link in try small.links() where try root.readLink(at: link) != other || damage != .otherObject {
            try damage.apply(to: link, in: root, other: other)
            var options = PullOptions()
            options.policy = .always
            _ = try pullImage(from: small.source, into: Repository.open(small.scratch.repository), options)
            #expect(try small.faults() == [], "\(link)")
        }
    }

    /// Only what is damaged is fetched.
    @Test func onlyDamagedLayersAreRead() throws {
        let small = try SmallStore()
        let (lower, upper) = (small.archives[0], small.archives[1])
        let before = small.source.opened.count
        _ = try pullImage(from: small.source, into: small.repository)
        #expect(!small.source.opened.dropFirst(before).contains(lower.diffID))
        let object = try #require(try small.objects(of: lower).first)
        try FileDamage.flipped.apply(to: small.scratch.objectPath(object), in: small.scratch.directory())
        let again = small.source.opened.count
        let result = try pullImage(from: small.source, into: small.repository)
        #expect(result.newLayers == 1 && result.presentLayers == 1)
        let opened = small.source.opened.dropFirst(again)
        #expect(opened.contains(lower.diffID) && !opened.contains(upper.diffID))
    }

    /// An image that shares objects with a damaged one gets no damaged content.
    @Test(arguments: FileDamage.allCases) func anotherImageMendsWhatItShares(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let root = try small.scratch.directory()
        for object in try small.objects() {
            try damage.apply(to: object, in: root)
            let more = LayerArchive().adding("more", SmallStore.content(7, 900))
            let source = ArraySource((small.archives + [more]).map { ArraySource.Layer($0) }, name: "localhost/other:latest")
            let repository = try Repository.open(small.scratch.repository)
            _ = try pullImage(from: source, into: repository)
            #expect(try ImageStore(repository).faults("localhost/other:latest") == [], "\(object)")
            _ = try pullImage(from: small.source, into: repository)
        }
        #expect(try small.faults() == [])
    }

    @Test(arguments: FileDamage.allCases) func copyMends(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let good = try SmallStore()
        let root = try small.scratch.directory()
        for object in try small.objects() {
            try damage.apply(to: object, in: root)
            _ = try copyImage(
                good.store.open(SmallStore.name).image, from: good.store, named: SmallStore.name,
                into: ImageStore(Repository.open(small.scratch.repository)))
            #expect(try small.faults() == [], "\(object)")
        }
        let other = try root.readLink(at: "streams/" + StreamName.layer(small.archives[0].diffID))
        for damage in LinkDamage.allCases {
            for link in try small.links() where try root.readLink(at: link) != other || damage != .otherObject {
                try damage.apply(to: link, in: root, other: other)
                _ = try copyImage(
                    good.store.open(SmallStore.name).image, from: good.store, named: SmallStore.name,
                    into: ImageStore(Repository.open(small.scratch.repository)))
                #expect(try small.faults() == [], "\(damage) \(link)")
            }
        }
    }

    /// Nothing is copied from a damaged source.
    @Test(arguments: FileDamage.allCases) func copyRefusesDamage(_ damage: FileDamage) throws {
        let bad = try SmallStore()
        let image = try bad.store.open(SmallStore.name).image
        let object = try #require(try bad.objects(of: bad.archives[0]).first)
        try damage.apply(to: bad.scratch.objectPath(object), in: bad.scratch.directory())
        let target = try StoreScratch()
        let store = ImageStore(try target.create())
        #expect(throws: (any Error).self) { try copyImage(image, from: bad.store, named: SmallStore.name, into: store) }
        #expect(try store.tags().isEmpty)
        #expect(try store.repository.check().problems.isEmpty)
    }

    @Test(arguments: FileDamage.allCases) func importLayerMends(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let layer = small.archives[0]
        let stream = try small.store.layerStream(layer.diffID)
        for object in try small.objects(of: layer) + [stream] {
            try damage.apply(to: small.scratch.objectPath(object), in: small.scratch.directory())
            let store = ImageStore(try Repository.open(small.scratch.repository))
            #expect(try store.importLayer(layer.diffID, from: ArrayBlob(layer.bytes)) == stream)
            #expect(try small.faults() == [], "\(object)")
        }
    }

    /// EROFS images follow from the layers, so an upgrade recreates damaged ones.
    @Test(arguments: FileDamage.allCases) func upgradeMendsImages(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let image = try #require(try small.store.open(SmallStore.name).image.imageID(.v1))
        try damage.apply(to: small.scratch.objectPath(image), in: small.scratch.directory())
        #expect(try ImageStore(Repository.open(small.scratch.repository)).upgrade().upgraded == 1)
        #expect(try small.faults() == [])
        #expect(try small.store.upgrade().upgraded == 0)
    }

    @Test(arguments: LinkDamage.allCases) func upgradeMendsImageLinks(_ damage: LinkDamage) throws {
        let small = try SmallStore()
        let root = try small.scratch.directory()
        let image = try #require(try small.store.open(SmallStore.name).image.imageID(.v1))
        try damage.apply(
            to: "images/" + ByteString(image.hex), in: root,
            other: root.readLink(at: "streams/" + StreamName.layer(small.archives[0].diffID)))
        #expect(try ImageStore(Repository.open(small.scratch.repository)).upgrade().upgraded == 1)
        #expect(try small.faults() == [])
    }

    /// Storing from memory, and incrementally, into a store that has other content under the name.
    @Test(arguments: FileDamage.allCases) func storingMends(_ damage: FileDamage) throws {
        let small = try SmallStore()
        let content = SmallStore.content(4711, 300_000)
        let object = try content.withUnsafeBytes { try small.repository.storeObject($0) }
        try damage.apply(to: small.scratch.objectPath(object.id), in: small.scratch.directory())
        #expect(try content.withUnsafeBytes { try small.repository.storeObject($0) }.isNew)
        #expect(try small.repository.readObject(object.id, limit: 1 << 20) == content)
        try damage.apply(to: small.scratch.objectPath(object.id), in: small.scratch.directory())
        var writer = try small.repository.makeObjectWriter()
        try writer.append(content)
        #expect(try writer.finish() == StoredObject(id: object.id, size: 300_000, isNew: true))
        #expect(try small.repository.readObject(object.id, limit: 1 << 20) == content)
        #expect(try !content.withUnsafeBytes { try small.repository.storeObject($0) }.isNew)
    }
}
