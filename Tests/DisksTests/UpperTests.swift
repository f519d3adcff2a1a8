import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsSnapshotFormat
import ComposefsSplitStream
import ComposefsTestSupport
import Testing

@testable import ComposefsDisks

/// The content of disks in a repository.
@Suite(.serialized) struct UpperTests {
    private let folder: TestFolder
    private let repository: Repository

    init() throws {
        folder = try TestFolder("upper")
        repository = try Repository.initialize(folder.path + "/repo", RepositoryConfiguration(verity: .insecure)).repository
    }

    private static let leaf = UpperLayout.leafSize

    /// A sparse file with data at some offsets.
    private func makeFile(_ name: ByteString, size: UInt64, _ data: [(offset: UInt64, bytes: [UInt8])]) throws -> ByteString {
        let path = folder.path + "/" + name
        let file = try FileDescriptor.open(path, [.readWrite, .create, .truncate], mode: 0o644)
        try file.truncate(to: size)
        for (offset, bytes) in data { try bytes.withUnsafeBytes { try file.pwriteAll($0, at: offset) } }
        return path
    }

    private func bytes(_ count: Int, _ seed: UInt64) -> [UInt8] {
        var random = SplitMix(state: seed)
        return (0..<count).map { _ in UInt8(truncatingIfNeeded: random.next()) }
    }

    private func store(_ path: ByteString) throws -> StoredUpper { try UpperStorage.store(try UpperSource(path), in: repository) }

    private func objects(of stream: ObjectID) throws -> [ObjectID] {
        var reader = try repository.openStream(stream, contentType: UpperLayout.contentType)
        var found: [ObjectID] = []
        while let chunk = try reader.next() {
            guard case .external(let id) = chunk else { throw SnapshotFault.layout(offset: 0) }
            found.append(id)
        }
        return found
    }

    private func content(_ path: ByteString) throws -> [UInt8] { try FileDescriptor.open(path, .readOnly).readAll(limit: 1 << 26) }

    /// The ranges of a file that have data, as the file system tells.
    private func extents(_ path: ByteString) throws -> [Range<UInt64>] {
        let file = try FileDescriptor.open(path, .readOnly)
        let size = try file.status().size
        var found: [Range<UInt64>] = []
        var at: UInt64 = 0
        while at < size, let data = try file.nextData(from: at), data < size {
            at = try file.nextHole(from: data)
            found.append(data..<at)
        }
        return found
    }

    private func restore(_ upper: StoredUpper, size: UInt64, _ name: ByteString = "restored") throws -> ByteString {
        let path = folder.path + "/" + name
        let file = try FileDescriptor.open(path, [.readWrite, .create, .truncate], mode: 0o644)
        try UpperContent(repository, upper.stream, size: size).copy(to: file)
        return path
    }

    /// The stream is the file, and the file comes back with its holes: also a part of a leaf, and a tail.
    @Test(arguments: [0, 1, 4095, 4096, 65535] as [UInt64]) func comesBack(tail: UInt64) throws {
        let size = 300 * Self.leaf + tail
        let path = try makeFile(
            "disk", size: size,
            [
                (0, bytes(5000, 1)), (7 * Self.leaf + 8192, bytes(4096, 2)), (8 * Self.leaf, bytes(3 * Int(Self.leaf), 3)),
                (299 * Self.leaf + 60000, bytes(100, 4)),
            ])
        let upper = try store(path)
        let reader = try repository.openStream(upper.stream)
        #expect(reader.totalSize == size)
        var joined: [UInt8] = []
        for id in try objects(of: upper.stream) { joined += try repository.readObject(id, limit: 1 << 25) }
        #expect(joined == (try content(path)))
        let restored = try restore(upper, size: size)
        #expect(try content(restored) == joined)
        #expect(try extents(restored) == extents(path))
        #expect(try UpperContent(repository, upper.stream, size: size).root() == upper.root)
        #expect(upper.newObjects == 6 && upper.newBytes == 6 * Self.leaf)
    }

    /// Only the end is there, and only the beginning.
    @Test func zerosAtTheEnds() throws {
        for (index, offset) in [0, 600 * Self.leaf + 17].enumerated() {
            let size = 600 * Self.leaf + 18
            let path = try makeFile(ByteString("disk\(index)"), size: size, [(UInt64(offset), [7])])
            let upper = try store(path)
            let restored = try restore(upper, size: size, ByteString("restored\(index)"))
            #expect(try content(restored) == content(path) && extents(restored) == extents(path))
        }
    }

    /// Zeros that are written are the same as a hole: the same stream.
    @Test func writtenZerosAreHoles() throws {
        let size = 20 * Self.leaf + 9
        let sparse = try store(try makeFile("sparse", size: size, [(3 * Self.leaf, [1])]))
        let written = try store(
            try makeFile(
                "written", size: size,
                [(0, [UInt8](repeating: 0, count: Int(size))), (3 * Self.leaf, [1])]))
        #expect(sparse.stream == written.stream && sparse.root == written.root && written.newObjects == 0)
    }

    /// 1 TiB of nothing: 65,536 references to one hole of 16 MiB, in a stream of a few hundred bytes.
    @Test func emptyTebibyte() throws {
        let size: UInt64 = 1 << 40
        let upper = try store(try makeFile("huge", size: size, []))
        #expect(upper.root.description == "22316e55db31021c8d75f5c90e44bb1e9926519136abe359fca9a8c8ecfcfc7b")
        #expect(upper.newObjects == 0)
        let references = try objects(of: upper.stream)
        #expect(references.count == 1 << 16 && Set(references).count == 1)
        let streamSize = try #require(try repository.objectSize(upper.stream))
        #expect(streamSize < 1000)
        let run = try repository.openObject(references[0], verify: false).status()
        #expect(run.size == 16 << 20 && run.blocks <= 8)
        let restored = try FileDescriptor.open(try restore(upper, size: size), .readOnly).status()
        #expect(restored.size == size && restored.blocks == 0)
    }

    /// Each of three snapshots costs the leaves that differ from those before.
    @Test func chainCostsItsDifferences() throws {
        let size = 64 * Self.leaf
        let first = bytes(40 * Int(Self.leaf), 5)
        let path = try makeFile("disk", size: size, [(2 * Self.leaf, first)])
        let one = try store(path)
        #expect(one.newObjects == 40 && one.newBytes == 40 * Self.leaf)
        // Two bytes in two leaves, across a boundary, and a new leaf.
        _ = try write([1, 2], at: 10 * Self.leaf - 1, path)
        _ = try write([9], at: 60 * Self.leaf + 5, path)
        let two = try store(path)
        #expect(two.newObjects == 3 && two.newBytes == 3 * Self.leaf)
        // A leaf that moves by a whole number of leaves, and one that becomes zeros.
        _ = try write(Array(first[..<Int(Self.leaf)]), at: 50 * Self.leaf, path)
        _ = try write([UInt8](repeating: 0, count: Int(Self.leaf)), at: 3 * Self.leaf, path)
        let three = try store(path)
        #expect(three.newObjects == 0 && three.newBytes == 0)
        #expect(Set([one.root, two.root, three.root]).count == 3)
        #expect(try content(restore(three, size: size)) == content(path))
        #expect(try content(restore(one, size: size, "first"))[Int(2 * Self.leaf)..<Int(42 * Self.leaf)].elementsEqual(first))
    }

    private func write(_ bytes: [UInt8], at offset: UInt64, _ path: ByteString) throws {
        let file = try FileDescriptor.open(path, .readWrite)
        try bytes.withUnsafeBytes { try file.pwriteAll($0, at: offset) }
    }

    // MARK: Refusals

    @Test func changedFile() throws {
        let path = try makeFile("disk", size: Self.leaf, [(0, [1])])
        let source = try UpperSource(path)
        try source.checkUnchanged()
        try write([2], at: 5, path)
        #expect(throws: SnapshotError.changed(path)) { try source.checkUnchanged() }
        // A shorter file has no bytes to read.
        let longer = try makeFile("longer", size: 3 * Self.leaf, [(2 * Self.leaf, [1])])
        let second = try UpperSource(longer)
        try FileDescriptor.open(longer, .readWrite).truncate(to: Self.leaf)
        #expect(throws: SnapshotError.changed(longer)) { try UpperStorage.store(second, in: repository) }
    }

    @Test func lockedFile() throws {
        let path = try makeFile("disk", size: Self.leaf, [])
        let other = try FileDescriptor.open(path, .readWrite)
        #expect(try other.lock(.exclusive, wait: false))
        #expect(throws: SnapshotError.inUse(path)) { _ = try UpperSource(path) }
        try other.unlock()
        // Two snapshots at a time are harmless; growth is not.
        let source = try UpperSource(path)
        _ = try UpperSource(path)
        #expect(throws: DiskError.busy(path)) { try growDisk(to: 1 << 20, at: path) }
        withExtendedLifetime(source) {}
    }

    @Test func kindsOfFiles() throws {
        #expect(throws: SnapshotError.notRegularFile(folder.path)) { _ = try UpperSource(folder.path) }
        let empty = try makeFile("empty", size: 0, [])
        #expect(throws: SnapshotError.empty(empty)) { _ = try UpperSource(empty) }
    }

    /// Streams that this module does not write: each is refused before its bytes are used.
    @Test func hostileStreams() throws {
        let size = 3 * Self.leaf
        let layout = UpperLayout(size: size, repository.algorithm)
        let leaf = bytes(Int(Self.leaf), 8)
        let object = try leaf.withUnsafeBytes { try repository.storeObject($0) }
        let short = try ([1, 2, 3] as [UInt8]).withUnsafeBytes { try repository.storeObject($0) }
        func stream(type: UInt64 = UpperLayout.contentType, _ parts: [(id: ObjectID, size: UInt64)?]) throws -> ObjectID {
            var writer = SplitStreamWriter(algorithm: repository.algorithm, contentType: type)
            for part in parts {
                if let part { try writer.external(part.id, size: part.size) } else { try leaf.withUnsafeBytes { try writer.inline($0) } }
            }
            return try repository.storeStream(writer).id
        }
        func refuses(_ id: ObjectID, _ matches: (any Error) -> Bool, sourceLocation: SourceLocation = #_sourceLocation) throws {
            let file = try FileDescriptor.open(folder.path + "/out", [.readWrite, .create, .truncate], mode: 0o644)
            for body in [
                { try UpperContent(repository, id, size: size).copy(to: file) },
                {
                    _ = try UpperContent(repository, id, size: size).root()
                },
            ] as [() throws -> Void] {
                do {
                    try body()
                    Issue.record("accepted", sourceLocation: sourceLocation)
                } catch {
                    #expect(matches(error), "\(error)", sourceLocation: sourceLocation)
                }
            }
        }
        let whole: (id: ObjectID, size: UInt64)? = (object.id, Self.leaf)
        try refuses(stream([whole, nil, whole])) { $0 as? SnapshotFault == .layout(offset: Self.leaf) }
        try refuses(stream([whole, whole])) { $0 as? SnapshotFault == .size(found: 2 * Self.leaf, expected: size) }
        // The header's size is that of the disk, the references are not.
        try refuses(stream([(object.id, size)])) { $0 as? SnapshotFault == .size(found: Self.leaf, expected: size) }
        try refuses(stream([whole, whole, (object.id, 1), (object.id, Self.leaf - 1)])) { $0 as? SnapshotFault == .layout(offset: size) }
        try refuses(stream([(layout.zeroRun, size)])) { $0 as? SnapshotFault == .layout(offset: 0) }
        // An object of another size than its place.
        try refuses(stream([whole, (short.id, Self.leaf), whole])) {
            $0 as? DiskError == .objectSize(short.id, found: 3, expected: Self.leaf)
        }
        try refuses(stream(type: StreamContentType.blob, [whole, whole, whole])) { $0 is RepositoryError }
    }
}
