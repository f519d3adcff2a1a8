import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsDisks

/// What is remembered of objects, and when it holds.
@Suite struct StoredObjectsTests {
    private let folder: TestFolder
    private let repository: Repository
    private let stored = StoredObjects(.sha256, keepsHashes: true)

    init() throws {
        folder = try TestFolder("hashes")
        let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        repository = try Repository.initialize(folder.path + "/repo", configuration).repository
    }

    private func store(_ content: [UInt8]) throws -> ObjectID {
        var hasher = VerityHasher(.sha256)
        hasher.collectBlockHashes(limit: 1 << 20)
        return try content.withUnsafeBytes { content in
            let id = try repository.storeObject([content], hasher: &hasher).id
            let (first, second) = (content[..<min(100, content.count)], content[min(100, content.count)...])
            let parts = [first, second].map(UnsafeRawBufferPointer.init(rebasing:))
            stored.insert(id, hasher.takeBlockHashes(), size: UInt64(content.count), content: parts)
            return id
        }
    }

    /// Nil if it is not kept.
    private func take(_ id: ObjectID, size: Int, _ stored: StoredObjects? = nil) -> (content: [UInt8], hashes: [UInt8])? {
        var content = [UInt8](repeating: 0, count: size)
        let small = content.withUnsafeMutableBytes { (stored ?? self.stored).takeSmall(id, into: $0) }
        return small.map { (Array(content.prefix($0.size)), $0.hashes) }
    }

    private func status(_ id: ObjectID) throws -> FileStatus { try repository.openObject(id, verify: false).status() }

    @Test func aChangedFileIsHashedAgain() throws {
        let content = [UInt8](repeating: 7, count: 10_000)
        let id = try store(content)
        #expect(stored.hashes(of: id, try status(id))?.count == 3 * 32)
        // The clock of file times advances by ticks.
        usleep(30_000)
        let path = folder.path + "/repo/objects/" + ByteString(id.objectPath)
        let file = try FileDescriptor.open(path, .readWrite)
        try [UInt8(8)].withUnsafeBytes { try file.pwriteAll($0, at: 5000) }
        #expect(stored.hashes(of: id, try status(id)) == nil)
        // The disk's file is not made.
        let disk = try repository.makeObjectFile()
        #expect(throws: RepositoryError.self) {
            try disk.withFile { target in
                let hashes = BlockHashes(.sha256, byteCount: 12_288, parts: DiskContent(id, size: 10_000).parts, in: HeapMemory.shared)
                try DiskContent(id, size: 10_000).start(
                    into: target, from: repository, nil, hashes: hashes, stored: stored, Cancellation()
                ).finish()
            }
        }
    }

    /// A file of the object alone, and the hash of its block.
    private func copy(_ id: ObjectID, size: Int) throws -> (bytes: [UInt8], hash: [UInt8]) {
        let hashes = try #require(BlockHashes(.sha256, byteCount: 4096, parts: [], in: HeapMemory.shared))
        let bytes = try repository.makeObjectFile().withFile { target in
            try DiskContent(id, size: UInt64(size)).start(
                into: target, from: repository, nil, hashes: hashes, stored: stored, Cancellation()
            ).finish()
            return try target.readAll(limit: 8192)
        }
        return (bytes, Array(hashes.place(at: 0, count: UInt64(size))))
    }

    /// One block, in two parts: the disk gets what was stored, even from a file that has other content by then.
    @Test(arguments: [1, 100, 101, 4095, 4096]) func aSmallObjectIsNotRead(size: Int) throws {
        let content = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7 + 1) }
        let id = try store(content)
        // The clock of file times advances by ticks.
        usleep(30_000)
        let path = folder.path + "/repo/objects/" + ByteString(id.objectPath)
        let file = try FileDescriptor.open(path, .readWrite)
        try [UInt8(0)].withUnsafeBytes { try file.pwriteAll($0, at: 0) }
        let made = try copy(id, size: size)
        #expect(made.bytes == content)
        #expect(made.hash == ContentDigest.of(content + [UInt8](repeating: 0, count: 4096 - size), .sha256).bytes)
        // Its content is not kept any longer, so the file is read, and refused.
        #expect(take(id, size: size) == nil)
        #expect(throws: RepositoryError.self) { try copy(id, size: size) }
    }

    @Test func largerObjectsAndEmptyOnesAreNotKept() throws {
        for size in [0, 4097] { #expect(take(try store([UInt8](repeating: 5, count: size)), size: size) == nil) }
    }

    /// The kernel computes digests with fs-verity: only content is kept.
    @Test func contentWithoutHashes() throws {
        let stored = StoredObjects(.sha256, keepsHashes: false)
        #expect(stored.hashRoom == 0)
        let (small, large) = ([UInt8](repeating: 1, count: 300), [UInt8](repeating: 2, count: 5000))
        for content in [small, large] {
            content.withUnsafeBytes { stored.insert(VerityHasher.objectID(of: $0, .sha256), nil, size: UInt64($0.count), content: [$0]) }
        }
        let ids = [small, large].map { $0.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) } }
        let taken = try #require(take(ids[0], size: small.count, stored))
        #expect(taken.content == small && taken.hashes.isEmpty)
        #expect(take(ids[1], size: large.count, stored) == nil)
    }

    /// What was taken makes room for other content.
    @Test func contentIsLimited() throws {
        let content = [UInt8](repeating: 9, count: 4096)
        let hashes = [UInt8](repeating: 0, count: 32)
        func insert(_ index: Int) -> ObjectID {
            let id = withUnsafeBytes(of: index) { VerityHasher.objectID(of: $0, .sha256) }
            content.withUnsafeBytes { stored.insert(id, hashes, size: 4096, content: [$0]) }
            return id
        }
        let ids = (0..<7000).map(insert)
        let taken = ids.filter { take($0, size: 4096)?.content == content }.count
        #expect(taken * 4096 == 16 << 20)
        let (next, dropped) = (insert(7000), insert(7001))
        #expect(take(next, size: 4096)?.content == content)
        stored.dropContent()
        #expect(take(dropped, size: 4096) == nil)
        #expect(take(insert(7002), size: 4096) == nil)
    }

    /// As fast as it comes, content is taken: it needs no more room than that of one object.
    @Test(arguments: [1, 300]) func takenContentMakesRoom(atOnce: Int) throws {
        let content = [UInt8](repeating: 3, count: 4000)
        let hashes = [UInt8](repeating: 0, count: 32)
        for start in stride(from: 0, to: 9000, by: atOnce) {
            let ids = (start..<(start + atOnce)).map { index in withUnsafeBytes(of: index) { VerityHasher.objectID(of: $0, .sha256) } }
            for id in ids { content.withUnsafeBytes { stored.insert(id, hashes, size: 4000, content: [$0]) } }
            for id in ids { #expect(take(id, size: 4000)?.content == content) }
        }
    }

    @Test func anotherSizeIsNotTrusted() throws {
        let id = try store([UInt8](repeating: 1, count: 5000))
        let other = try [UInt8](repeating: 2, count: 9000).withUnsafeBytes { try repository.storeObject($0).id }
        #expect(stored.hashes(of: id, try status(other)) == nil)
        #expect(stored.hashes(of: other, try status(other)) == nil)
    }

    @Test func memoryIsLimited() throws {
        let room = stored.hashRoom
        let hashes = [UInt8](repeating: 0, count: 1 << 20)
        var ids: [ObjectID] = []
        for index in 0..<(room / hashes.count + 2) {
            let id = withUnsafeBytes(of: index) { VerityHasher.objectID(of: $0, .sha256) }
            stored.insert(id, hashes, size: 1 << 30)
            ids.append(id)
        }
        #expect(room > 0 && stored.hashRoom < hashes.count + 1000 && stored.hashRoom >= 0)
        // One that is remembered takes no more room.
        let left = stored.hashRoom
        stored.insert(ids[0], [UInt8](repeating: 0, count: 32), size: 1 << 30)
        #expect(stored.hashRoom == left)
    }
}
