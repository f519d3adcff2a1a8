import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Glibc
import Testing

@testable import ComposefsDisks

/// Hashes that are remembered of objects, and when they hold.
@Suite struct BlockHashesTests {
    private let folder: TestFolder
    private let repository: Repository
    private let stored = StoredBlockHashes(.sha256)

    init() throws {
        folder = try TestFolder("hashes")
        let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        repository = try Repository.initialize(folder.path + "/repo", configuration).repository
    }

    private func store(_ content: [UInt8]) throws -> ObjectID {
        var hasher = VerityHasher(.sha256)
        hasher.collectBlockHashes(limit: 1 << 20)
        let id = try content.withUnsafeBytes { try repository.storeObject([$0], hasher: &hasher).id }
        let hashes = hasher.takeBlockHashes()
        stored.insert(id, try #require(hashes))
        return id
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
                let hashes = BlockHashes(.sha256, byteCount: 12_288)
                try DiskContent(id, size: 10_000).start(
                    into: target, from: repository, nil, hashes: hashes, stored: stored, Cancellation()
                ).finish()
            }
        }
    }

    @Test func anotherSizeIsNotTrusted() throws {
        let id = try store([UInt8](repeating: 1, count: 5000))
        let other = try [UInt8](repeating: 2, count: 9000).withUnsafeBytes { try repository.storeObject($0).id }
        #expect(stored.hashes(of: id, try status(other)) == nil)
        #expect(stored.hashes(of: other, try status(other)) == nil)
    }

    @Test func memoryIsLimited() throws {
        let room = stored.room
        let hashes = [UInt8](repeating: 0, count: 1 << 20)
        var ids: [ObjectID] = []
        for index in 0..<(room / hashes.count + 2) {
            let id = withUnsafeBytes(of: index) { VerityHasher.objectID(of: $0, .sha256) }
            stored.insert(id, hashes)
            ids.append(id)
        }
        #expect(room > 0 && stored.room < hashes.count + 1000 && stored.room >= 0)
        // One that is remembered takes no more room.
        let left = stored.room
        stored.insert(ids[0], [UInt8](repeating: 0, count: 32))
        #expect(stored.room == left)
    }
}
