import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// An image in memory that counts as remote. It counts the bytes that it provides, and breaks transfers on request.
private final class RemoteSource: ImageSource {
    struct Broken: Error {}

    private struct State {
        /// The number of bytes of a blob after which the transfer breaks, for this pull.
        var breaks: [ContentDigest: UInt64] = [:]
        var opened: [Opening] = []
        var sent: [ContentDigest: UInt64] = [:]
        var held: Set<ContentDigest> = []
    }

    struct Opening: Hashable {
        var digest: ContentDigest
        var offset: UInt64
    }

    let source: ArraySource
    private let state = Mutex(State())

    init(_ source: ArraySource) { self.source = source }

    var canonicalName: String { source.canonicalName }
    var isRemote: Bool { true }
    var opened: [Opening] { state.withLock { $0.opened } }
    var sent: [ContentDigest: UInt64] { state.withLock { $0.sent } }

    func breakOff(_ digest: ContentDigest, at offset: UInt64?) { state.withLock { $0.breaks[digest] = offset } }
    /// No bytes of the blob arrive until it is released.
    func hold(_ digest: ContentDigest) { _ = state.withLock { $0.held.insert(digest) } }
    func letGo(_ digest: ContentDigest) { _ = state.withLock { $0.held.remove(digest) } }
    let cancellation = Cancellation()

    func rootManifest() throws -> SourceManifest { source.rootManifest() }
    func manifest(_ descriptor: Descriptor) throws -> [UInt8] { try source.manifest(descriptor) }
    func openBlob(_ descriptor: Descriptor) throws -> any BlobReader { try openBlob(descriptor, from: 0) }
    func origins(of descriptor: Descriptor) -> any BlobOrigins { LocalOrigin(openingAt: { try self.openBlob(descriptor, from: $0) }) }

    func openBlob(_ descriptor: Descriptor, from offset: UInt64) throws -> any BlobReader {
        state.withLock { $0.opened.append(Opening(digest: descriptor.digest, offset: offset)) }
        let blob = try source.openBlob(descriptor)
        var skipped = [UInt8](repeating: 0, count: Int(offset))
        var position = 0
        while position < skipped.count {
            let count = try skipped.withUnsafeMutableBytes { try blob.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[position...])) }
            if count == 0 { break }
            position += count
        }
        return Reader(blob, descriptor.digest, offset, self)
    }

    final class Reader: BlobReader {
        private let blob: any BlobReader
        private let digest: ContentDigest
        private var position: UInt64
        private let source: RemoteSource

        init(_ blob: any BlobReader, _ digest: ContentDigest, _ position: UInt64, _ source: RemoteSource) {
            (self.blob, self.digest, self.position, self.source) = (blob, digest, position, source)
        }

        func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
            while source.state.withLock({ $0.held.contains(digest) }) { Host.sleep(milliseconds: 1) }
            let end = source.state.withLock { $0.breaks[digest] } ?? .max
            guard position < end else { throw Broken() }
            let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, Int(clamping: end - position))])
            let count = try blob.read(into: part)
            position += UInt64(count)
            source.state.withLock { $0.sent[digest, default: 0] += UInt64(count) }
            return count
        }
    }
}

private func noise(_ count: Int, seed: UInt64) -> [UInt8] {
    var state = seed
    return (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 56)
    }
}

private func archive(_ name: String, _ count: Int) -> LayerArchive {
    LayerArchive().adding(name, noise(count, seed: UInt64(count)))
}

extension StoreScratch {
    fileprivate func open() throws -> Repository { try Repository.open(repository) }

    fileprivate func kept() throws -> [String] {
        guard let boot = Host.bootID() else { return [] }
        guard let folder = try directory().openIfPresent(at: ".staging/" + ByteString(boot), [.readOnly, .directory]) else { return [] }
        return try folder.entries().map(\.name.description).filter { $0.hasPrefix(".blob-") }.sorted()
    }
}

@Suite struct RemotePullTests {
    private let scratch: StoreScratch
    private let store: ImageStore
    private let archives = [archive("a", 300_000), archive("b", 200_000)]
    private let image: ArraySource
    private let source: RemoteSource
    private let digests: [ContentDigest]

    init() throws {
        scratch = try StoreScratch()
        store = ImageStore(try scratch.create())
        image = ArraySource(archives.map { ArraySource.Layer($0) })
        source = RemoteSource(image)
        digests = archives.map { ContentDigest.of($0.bytes) }
    }

    private func pull(_ options: PullOptions = PullOptions()) throws -> PullResult {
        try pullImage(from: source, into: store.repository, options)
    }

    private func failedPull(_ options: PullOptions = PullOptions()) { #expect(refusal { _ = try pull(options) } != nil) }

    @Test func nothingIsLeftAfterAPull() throws {
        _ = try pull()
        let sizes = zip(digests, archives).map { ($0, UInt64($1.bytes.count)) } + [(image.configDigest, UInt64(image.config.count))]
        #expect(source.sent == Dictionary(uniqueKeysWithValues: sizes))
        #expect(try scratch.kept().isEmpty)
        #expect(try store.faults() == [])
        // The store has the config.
        _ = try pull()
        #expect(source.opened.count == 3)
    }

    @Test func goesOnWhereItBroke() throws {
        source.breakOff(digests[0], at: 123_457)
        source.breakOff(digests[1], at: 0)
        failedPull(PullOptions(jobs: 2))
        #expect(try scratch.kept() == [".blob-\(image.configDigest)", ".blob-\(digests[0])"].sorted())
        source.breakOff(digests[0], at: 200_000)
        failedPull(PullOptions(jobs: 1))
        source.breakOff(digests[0], at: nil)
        source.breakOff(digests[1], at: nil)
        let events = Mutex<[String]>([])
        let result = try pull(
            PullOptions(jobs: 1) { event in
                guard event.layerIndex == 0 else { return }
                if case .resumed(let offset) = event.phase { events.withLock { $0.append("\(offset) \(event.bytesDone)") } }
            })
        #expect(events.withLock { $0 } == ["200000 200000"])
        #expect(result.newLayers == 2)
        #expect(source.opened.filter { $0.digest == digests[0] }.map(\.offset) == [0, 123_457, 200_000])
        #expect(source.sent[digests[0]] == UInt64(archives[0].bytes.count))
        #expect(source.sent[image.configDigest] == UInt64(image.config.count))
        #expect(try scratch.kept().isEmpty)
        #expect(try store.faults() == [])
    }

    /// The whole blob had been fetched when the pull was killed.
    @Test func completeBlobIsNotAskedForAgain() throws {
        do {
            let bytes = archives[0].bytes
            let lease = try #require(
                try store.repository.leaseBlob(ByteString(digests[0].description), size: UInt64(bytes.count)))
            lease.keep(limit: 1 << 30)
            bytes.withUnsafeBytes { lease.append($0) }
        }
        _ = try pull()
        #expect(source.sent[digests[0]] == nil)
        #expect(try store.faults() == [] && scratch.kept().isEmpty)
    }

    /// A partial blob with wrong content is detected at the end, and costs one fetch of the whole blob.
    @Test(arguments: [0, 600, 100_000])
    func damagedRest(offset: Int) throws {
        source.breakOff(digests[0], at: 150_000)
        failedPull()
        let boot = ByteString(try #require(Host.bootID()))
        let path = ".staging/" + boot + "/.blob-" + ByteString(digests[0].description)
        let file = try scratch.directory().open(at: path, .readWrite)
        try withUnsafeBytes(of: UInt8(0x55)) { try file.pwriteAll($0, at: UInt64(offset)) }
        source.breakOff(digests[0], at: nil)
        let result = try pull()
        #expect(result.newLayers >= 1)
        let offsets = source.opened.filter { $0.digest == digests[0] }.map(\.offset)
        #expect(offsets == [0, 150_000, 0] || offsets == [0, 0], "\(offsets)")
        #expect(try store.faults() == [] && scratch.kept().isEmpty)
    }

    /// A wrong blob is fetched once, and nothing of it is kept.
    @Test func wrongBlob() throws {
        var bytes = archives[0].bytes
        bytes[100_000] ^= 1
        image.replace(digests[0], with: bytes)
        failedPull(PullOptions(jobs: 1))
        #expect(source.opened.filter { $0.digest == digests[0] }.count == 1)
        #expect(try scratch.kept() == [".blob-\(image.configDigest)"])
        // A damaged partial blob and a wrong blob: two fetches, not an endless loop.
        source.breakOff(digests[0], at: 150_000)
        failedPull(PullOptions(jobs: 1))
        source.breakOff(digests[0], at: nil)
        failedPull(PullOptions(jobs: 1))
        #expect(source.opened.filter { $0.digest == digests[0] }.map(\.offset) == [0, 0, 150_000, 0])
    }

    @Test func nothingIsKeptWithoutLeave() throws {
        source.breakOff(digests[0], at: 150_000)
        var options = PullOptions()
        options.keptBytesLimit = 0
        failedPull(options)
        #expect(try scratch.kept().isEmpty)
    }

    @Test func artifacts() throws {
        let blob = noise(100_000, seed: 3)
        let artifact = RemoteSource(ArraySource(artifact: [blob]))
        artifact.breakOff(.of(blob), at: 60_000)
        #expect(refusal { _ = try pullImage(from: artifact, into: store.repository) } != nil)
        artifact.breakOff(.of(blob), at: nil)
        _ = try pullImage(from: artifact, into: store.repository)
        #expect(artifact.sent[.of(blob)] == 100_000)
        #expect(try scratch.kept().isEmpty)
        #expect(try store.faults() == [])
    }
}

/// Simultaneous pulls of the same image with separate handles, like those of processes.
@Suite struct SharedPullTests {
    private let scratch: StoreScratch

    init() throws {
        scratch = try StoreScratch()
        _ = try scratch.create()
    }

    private func inBackground(_ body: @escaping @Sendable () throws -> Void) -> (done: Semaphore, failure: Box) {
        let (done, box) = (Semaphore(0), Box())
        WorkerPool(threads: 1).submit {
            do { try body() } catch { box.error.withLock { $0 = "\(error)" } }
            done.signal()
        }
        return (done, box)
    }

    private final class Box: Sendable {
        let error = Mutex<String?>(nil)
    }

    /// Layers in opposite orders, so that each pull has the lease that the other needs next; and one job each, so that waiting blocks the
    /// pull.
    @Test(arguments: [1, 2, 3])
    func oppositeOrders(jobs: Int) throws {
        let archives = (0..<6).map { archive("file\($0)", 200_000).adding("n\($0)", [UInt8($0)]) }
        let layers = archives.map { ArraySource.Layer($0) }
        let one = RemoteSource(ArraySource(layers, name: "localhost/one:1"))
        let two = RemoteSource(ArraySource(layers.reversed(), name: "localhost/two:1"))
        let repositories = [try scratch.open(), try scratch.open()]
        let runs = zip([one, two], repositories).map { source, repository in
            inBackground { _ = try pullImage(from: source, into: repository, PullOptions(jobs: jobs)) }
        }
        for run in runs { run.done.wait() }
        for run in runs { #expect(run.failure.error.withLock { $0 } == nil) }
        for archive in archives {
            let digest = ContentDigest.of(archive.bytes)
            #expect((one.sent[digest] ?? 0) + (two.sent[digest] ?? 0) == UInt64(archive.bytes.count))
        }
        let store = ImageStore(try scratch.open())
        #expect(try store.faults() == [] && store.repository.check().isOK)
        #expect(try store.tags().count == 2)
        #expect(try scratch.kept().isEmpty)
    }

    @Test func theSameImage() throws {
        let archives = [archive("a", 300_000), archive("b", 200_000)]
        let digests = archives.map { ContentDigest.of($0.bytes) }
        let image = ArraySource(archives.map { ArraySource.Layer($0) })
        let source = RemoteSource(image)
        for digest in digests { source.hold(digest) }
        let waiting = Semaphore(0)
        let (first, second) = (try scratch.open(), try scratch.open())
        let one = inBackground { _ = try pullImage(from: source, into: first, PullOptions(jobs: 2)) }
        while source.opened.count < 3 { Host.sleep(milliseconds: 1) }
        let two = inBackground {
            let result = try pullImage(
                from: source, into: second,
                PullOptions(name: "other", jobs: 2) { if case .waiting = $0.phase { waiting.signal() } })
            guard result.newLayers == 0, result.presentLayers == 2 else { throw RemoteSource.Broken() }
        }
        // It reports waiting for each layer.
        waiting.wait()
        waiting.wait()
        for digest in digests { source.letGo(digest) }
        one.done.wait()
        two.done.wait()
        #expect(one.failure.error.withLock { $0 } == nil && two.failure.error.withLock { $0 } == nil)
        #expect(source.opened.count == 3, "a blob crossed the wire twice: \(source.opened)")
        let store = ImageStore(try scratch.open())
        #expect(try store.faults() == [] && store.tags().count == 2 && scratch.kept().isEmpty)
    }

    /// The pull with the lease fails, and the waiting one continues from the partial blob.
    @Test func theOtherFails() throws {
        let archive = archive("a", 300_000)
        let digest = ContentDigest.of(archive.bytes)
        let image = ArraySource([ArraySource.Layer(archive)])
        let (bad, good) = (RemoteSource(image), RemoteSource(image))
        bad.hold(digest)
        bad.breakOff(digest, at: 100_000)
        let waiting = Semaphore(0)
        let (first, second) = (try scratch.open(), try scratch.open())
        let one = inBackground { _ = try pullImage(from: bad, into: first) }
        while bad.opened.count < 2 { Host.sleep(milliseconds: 1) }
        let two = inBackground {
            _ = try pullImage(from: good, into: second, PullOptions { if case .waiting = $0.phase { waiting.signal() } })
        }
        waiting.wait()
        bad.letGo(digest)
        one.done.wait()
        two.done.wait()
        #expect(one.failure.error.withLock { $0 } != nil && two.failure.error.withLock { $0 } == nil)
        #expect(good.opened.map(\.offset) == [100_000])
        #expect(try ImageStore(try scratch.open()).faults() == [])
    }

    @Test func waitingCanBeEnded() throws {
        let archive = archive("a", 300_000)
        let digest = ContentDigest.of(archive.bytes)
        let image = ArraySource([ArraySource.Layer(archive)])
        let (holder, source) = (RemoteSource(image), RemoteSource(image))
        holder.hold(digest)
        let (first, second) = (try scratch.open(), try scratch.open())
        let one = inBackground { _ = try pullImage(from: holder, into: first) }
        while holder.opened.count < 2 { Host.sleep(milliseconds: 1) }
        let waiting = Semaphore(0)
        let two = inBackground {
            var options = PullOptions { if case .waiting = $0.phase { waiting.signal() } }
            options.cancellation = source.cancellation
            _ = try pullImage(from: source, into: second, options)
        }
        waiting.wait()
        source.cancellation.cancel()
        two.done.wait()
        #expect(two.failure.error.withLock { $0 }?.contains("CancellationError") == true)
        holder.letGo(digest)
        one.done.wait()
        #expect(one.failure.error.withLock { $0 } == nil)
    }
}
