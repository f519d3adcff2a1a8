import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSplitStream
import Synchronization
import Testing

@testable import ComposefsImageStore
@testable import ComposefsOCIModel
@testable import ComposefsTransfer
@testable import ComposefsTransports

/// How the threads of a layer wait for each other.
@Suite struct LayerImportTests {
    /// Reports how much of it has been read.
    private final class CountedBlob: BlobReader, Sendable {
        private let bytes: [UInt8]
        private let position = Mutex(0)

        init(_ bytes: [UInt8]) { self.bytes = bytes }

        var count: Int { position.withLock { $0 } }

        func read(into buffer: UnsafeMutableRawBufferPointer) -> Int {
            position.withLock { position in
                let taken = min(buffer.count, bytes.count - position)
                buffer.copyBytes(from: bytes[position..<position + taken])
                position += taken
                return taken
            }
        }
    }

    /// While storing an object takes long, the following part of the archive is not collected in memory: a small blob can contain gigabytes
    /// of headers.
    @Test(arguments: [100_000, 3_000_000]) func headersWaitForObjects(size: Int) throws {
        let first = LayerArchive().adding("first", [UInt8](repeating: 7, count: size)).bytes
        let header = LayerArchive().adding("f").bytes.prefix(512)
        var archive = Array(first.dropLast(1024))
        for _ in 0..<80_000 { archive += header }
        archive += first.suffix(1024)
        let diffID = ContentDigest.of(archive)
        let scratch = try StoreScratch()
        let repository = try scratch.create()
        let objects = WorkerPool(threads: 1)
        let importer = LayerPipeline(
            repository: repository, objectPool: objects, readerPool: WorkerPool(threads: 1), profile: PullProfile(), limits: PullLimits())
        defer { importer.shutdown() }
        let gate = Semaphore(0)
        objects.submit { gate.wait() }
        let blob = CountedBlob(archive)
        let outcome = Mutex<Result<LayerPipeline.Imported, any Error>?>(nil)
        let runner = WorkerPool(threads: 1)
        runner.submit {
            let result = Result { try importer.run(blob, nil, diffID: diffID) }
            outcome.withLock { $0 = result }
        }
        // Until reading stops.
        var before = -1
        while blob.count != before {
            before = blob.count
            Host.sleep(milliseconds: 500)
        }
        #expect(before < size + 16 << 20, "\(before) of \(archive.count) bytes")
        #expect(outcome.withLock { $0 == nil })
        gate.signal()
        runner.shutdown()
        let imported = try #require(try outcome.withLock { $0 }?.get())
        #expect(try ImageStore(repository).archive(of: imported.stream) == archive)
    }
}
