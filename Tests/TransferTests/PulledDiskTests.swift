import ComposefsBytes
import ComposefsDisks
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsTransfer

/// Disks that are made while the layers arrive, from hashes of blocks that the import has computed.
@Suite(.serialized) struct PulledDiskTests {
    private static let requests: [DiskRequest] =
        DiskKind.allCases.map { DiskRequest($0) } + [DiskRequest(.single, tree: .composefs), DiskRequest(.flat, size: 64 << 20)]

    private static func random(_ count: Int, _ seed: UInt64) -> [UInt8] {
        var random = SplitMix(state: seed)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    /// Files of sizes around those of blocks, of jobs and of buffers; one that both layers have, one with holes, and a sparse one.
    private static let source: ArraySource = {
        let sizes = [65, 100, 4095, 4096, 4097, 131_071, 131_072, 131_073, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 4097]
        var lower = LayerArchive()
        for (index, size) in sizes.enumerated() { lower.add("f\(index)", content: random(size, UInt64(index))) }
        lower.add("empty")
        lower.add("zeros", content: [UInt8](repeating: 0, count: 300_000))
        lower.add("holes", content: random(70_000, 50) + [UInt8](repeating: 0, count: 3 << 20) + random(5000, 51))
        var upper = LayerArchive()
        upper.add("f5", content: random(5000, 90))
        upper.add("again", content: random(131_072, 6))
        upper.add("x", type: "x", content: sparse("name", "sparse") + sparse("size", "5000000") + sparse("map", "4000000,5000"))
        upper.add("GNUSparseFile.0/sparse", content: random(5000, 91))
        return ArraySource([ArraySource.Layer(lower), ArraySource.Layer(upper)], name: "localhost/disks:latest")
    }()

    private static func sparse(_ key: String, _ value: String) -> [UInt8] { record("GNU.sparse." + key, value) }

    private static func record(_ key: String, _ value: String) -> [UInt8] {
        let text = " \(key)=\(value)\n"
        var length = text.utf8.count + 1
        while text.utf8.count + String(length).utf8.count != length { length += 1 }
        return Array("\(length)\(text)".utf8)
    }

    @Test(arguments: VerityAlgorithm.allCases)
    func equalThoseOfAStoredImage(algorithm: VerityAlgorithm) throws {
        let (pulled, stored) = (try StoreScratch(), try StoreScratch())
        var options = PullOptions()
        options.disks = Self.requests
        let result = try pullImage(from: Self.source, into: try pulled.create(algorithm), options)
        let store = ImageStore(try stored.create(algorithm))
        _ = try pullImage(from: Self.source, into: store.repository)
        let image = try store.open("localhost/disks:latest").image
        for (request, disk) in zip(Self.requests, result.disks) {
            let expected = try ImageDisks(store).keep(request, of: image)
            #expect(!disk.files.isEmpty && disk.files.map(\.object) == expected.files.map(\.object), "\(request)")
        }
        // The objects have the content that their names say.
        let repository = try Repository.open(pulled.repository)
        let objects = result.disks.flatMap { $0.files.map(\.object) }
        let faulty = try repository.faulty(objects)
        #expect(objects.count > Self.requests.count && faulty == [])
    }

    /// Attributes that no disk shows are not even merged then.
    @Test func aDiskOfTheImagesTreeAlone() throws {
        var layer = LayerArchive()
        let attributes = Self.record("SCHILY.xattr.user.note", "left out") + Self.record("SCHILY.xattr.security.capability", "kept")
        layer.add("usr/", type: "5")
        layer.add("x", type: "x", content: attributes)
        layer.add("usr/f", content: Self.random(5000, 7))
        let source = ArraySource([ArraySource.Layer(layer)], name: "localhost/attributes:latest")
        let request = DiskRequest(.single, tree: .composefs)
        let (pulled, stored, another) = (try StoreScratch(), try StoreScratch(), try StoreScratch())
        var options = PullOptions()
        options.disks = [request]
        let result = try pullImage(from: source, into: try pulled.create(.sha256), options)
        let store = ImageStore(try stored.create(.sha256))
        let plain = try pullImage(from: source, into: store.repository)
        let expected = try ImageDisks(store).keep(request, of: try store.open("localhost/attributes:latest").image)
        #expect(result.disks.map { $0.files.map(\.object) } == [expected.files.map(\.object)])
        #expect(result.imageIDs == plain.imageIDs && !plain.imageIDs.isEmpty)
        // With all attributes in the merged tree, image and disk are the same.
        options.disks = [DiskRequest(.single), request]
        let both = try pullImage(from: source, into: try another.create(.sha256), options)
        #expect(both.imageIDs == plain.imageIDs && both.disks.last?.files.map(\.object) == expected.files.map(\.object))
        #expect(both.disks.first?.files.map(\.object) != expected.files.map(\.object))
    }

    /// Of a large tree, one thing is made at a time.
    @Test(arguments: [false, true]) func theImageOfALargeTreeIsMadeAfterTheDisks(areLayersStored: Bool) throws {
        var archive = LayerArchive()
        for number in 0..<36_000 { archive.add("\(number)", content: []) }
        let source = ArraySource([ArraySource.Layer(archive)])
        let scratch = try StoreScratch()
        let repository = try scratch.create(.sha256)
        if areLayersStored { _ = try pullImage(from: source, into: repository) }
        let order = Mutex<[String]>([])
        var options = PullOptions()
        options.disks = [DiskRequest(.fsmeta), DiskRequest(.single)]
        options.observer = { event in
            switch event.phase {
            case .diskStored: order.withLock { $0.append("disk") }
            case .writingImage: order.withLock { $0.append("image") }
            default: break
            }
        }
        let result = try pullImage(from: source, into: repository, options)
        #expect(order.withLock { $0 } == ["disk", "disk", "image"])
        #expect(result.disks.count == 2)
    }

    /// A large pull writes its objects while the image is made. If the device loses some then, a later sync need not report it.
    @Test func aFailedEarlySyncEndsThePull() throws {
        let large = ArraySource([ArraySource.Layer(LayerArchive().adding("large", Self.random(9 << 20, 1)))])
        let small = ArraySource([ArraySource.Layer(LayerArchive().adding("small", Self.random(1000, 2)))], name: "localhost/small:latest")
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        let syncs = FirstSyncFails()
        func observed(_ source: ArraySource) throws {
            Kernel.observe(syncs)
            defer { Kernel.observe(nil) }
            _ = try pullImage(from: source, into: repository)
        }
        #expect(throws: RepositoryError.self) { try observed(large) }
        #expect(syncs.count == 1)
        let store = ImageStore(repository)
        #expect(throws: ImageStoreError.self) { try store.open("localhost/test:latest") }
        let object = Self.random(9 << 20, 1).withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        // As if it was lost.
        try scratch.replaceObject(object, [UInt8](repeating: 0, count: 9 << 20))
        try observed(large)
        #expect(try repository.check().problems == [])
        // From then on one sync for a little, and two for much.
        var before = syncs.count
        try observed(small)
        #expect(syncs.count == before + 1)
        before = syncs.count
        try observed(ArraySource([ArraySource.Layer(LayerArchive().adding("large", Self.random(9 << 20, 3)))]))
        #expect(syncs.count == before + 2)
    }
}

/// Makes the first syncfs(2) fail.
private final class FirstSyncFails: SystemCallObserver {
    private let calls = Atomic<Int>(0)

    var count: Int { calls.load(ordering: .relaxed) }

    func before(_ call: SystemCall) -> Errno? {
        guard call.kind == .syncfs else { return nil }
        return calls.add(1, ordering: .relaxed).oldValue == 0 ? .inputOutput : nil
    }

    func after(_ call: SystemCall, result: Int) {}
}
