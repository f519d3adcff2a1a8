import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

/// Long runs of zeros become holes; content and digest stay what they are.
@Suite struct SparseObjectTests {
    private func pattern(_ zerosFirst: Bool, _ tail: Int) -> [UInt8] {
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        let data = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 &* 13 | 1) }
        return (zerosFirst ? zeros + data : data + zeros) + data + [UInt8](repeating: 0, count: tail)
    }

    @Test(arguments: [true, false], [0, 1, 4096, 300_000])
    func contentIsKept(zerosFirst: Bool, tail: Int) throws {
        let scratch = "/var/tmp/cfsoci-sparse-\(Host.randomName())"
        try FileDescriptor.makeDirectory(ByteString(scratch))
        defer { removeAll(ByteString(scratch)) }
        let repository = try Repository.initialize(
            ByteString(scratch + "/repo"), RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        ).repository
        let content = pattern(zerosFirst, tail)
        var writer = try repository.makeObjectWriter()
        // Chunks that do not line up with the runs.
        try content.withUnsafeBytes { all in
            var at = 0
            while at < all.count {
                let end = min(at + 70_001, all.count)
                try writer.append(UnsafeRawBufferPointer(rebasing: all[at..<end]))
                at = end
            }
        }
        let stored = try writer.finish()
        #expect(stored.size == UInt64(content.count))
        #expect(stored.id == content.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) })
        #expect(try repository.readObject(stored.id, limit: content.count) == content)
    }

    private func removeAll(_ path: ByteString) {
        guard let directory = try? FileDescriptor.open(path, [.readOnly, .directory]) else { return }
        for entry in (try? directory.entries()) ?? [] {
            if (try? directory.unlink(at: entry.name)) == nil { removeAll(path + "/" + entry.name) }
        }
        guard let parent = try? FileDescriptor.open("/", [.readOnly, .directory]) else { return }
        try? parent.removeDirectory(at: path)
    }
}
