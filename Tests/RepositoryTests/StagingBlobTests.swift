import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsRepository
import Glibc
import Testing

/// Blobs that are being fetched: one lease each, and what is kept of them.
@Suite struct StagingBlobTests {
    private let name: ByteString = "sha256:0123"

    private func files(_ scratch: Scratch) throws -> [String: String] {
        try scratch.listing().filter { $0.key.contains("/.blob-") }.reduce(into: [:]) { result, entry in
            result[String(entry.key.split(separator: "/").last ?? "")] = entry.value
        }
    }

    private func append(_ bytes: [UInt8], to lease: BlobLease) { bytes.withUnsafeBytes { lease.append($0) } }

    private func kept(_ lease: BlobLease) throws -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 7)
        while true {
            let count = try buffer.withUnsafeMutableBytes { try lease.read(into: $0, at: UInt64(all.count)) }
            if count == 0 { return all }
            all += buffer[..<count]
        }
    }

    @Test func oneLeaseAtATime() throws {
        let scratch = try Scratch()
        let one = try scratch.create()
        let two = try scratch.open()
        do {
            let lease = try #require(try one.leaseBlob(name, size: 10))
            // Neither the same handle nor another one, which is like another process's.
            #expect(try one.leaseBlob(name, size: 10) == nil)
            #expect(try two.leaseBlob(name, size: 10) == nil)
            #expect(try two.leaseBlob("sha256:4567", size: 10) != nil)
            _ = consume lease
        }
        // Nothing was kept, nothing is left.
        #expect(try files(scratch).isEmpty)
        #expect(try two.leaseBlob(name, size: 10) != nil)
        for bad: ByteString in ["", "a/b", "refs"] { #expect(failure { _ = try one.leaseBlob(bad, size: 1) } != nil) }
    }

    @Test func whatCameIsKept() throws {
        let scratch = try Scratch()
        do {
            let lease = try #require(try scratch.create().leaseBlob(name, size: 20))
            append([9, 9], to: lease)
            #expect(lease.length == 0, "kept without a call of keep")
            lease.keep(limit: 100)
            append(Array(0..<9), to: lease)
            append(Array(9..<12), to: lease)
            #expect(lease.length == 12)
        }
        #expect(try files(scratch) == [".blob-sha256:0123": "12"])
        let repository = try scratch.open()
        #expect(repository.partialBlobLength(name) == 12)
        do {
            let lease = try #require(try repository.leaseBlob(name, size: 20))
            #expect(try kept(lease) == Array(0..<12))
            lease.keep(limit: 100)
            append(Array(12..<20), to: lease)
            #expect(try kept(lease) == Array(0..<20))
            repository.dropBlob(name)
            #expect(lease.length == 20, "dropped under its lease")
        }
        repository.dropBlob(name)
        #expect(try files(scratch).isEmpty)
        #expect(repository.partialBlobLength(name) == 0)
    }

    /// A process that locked the file before it was removed must not conclude that it has the lease.
    @Test func removedWhileOthersWant() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let lease = try #require(try repository.leaseBlob(name, size: 5))
        lease.keep(limit: 100)
        append([1, 2, 3], to: lease)
        lease.remove()
        append([4], to: lease)
        let next = try #require(try repository.leaseBlob(name, size: 5))
        #expect(next.length == 0)
        // The old lease's end takes nothing from the new one.
        _ = consume lease
        #expect(try repository.leaseBlob(name, size: 5) == nil)
        _ = consume next
    }

    @Test func moreThanTheBlobIsForgotten() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        do {
            let lease = try #require(try repository.leaseBlob(name, size: 5))
            lease.keep(limit: 100)
            append([1, 2, 3, 4, 5], to: lease)
        }
        #expect(try repository.leaseBlob(name, size: 4)?.length == 0)
    }

    @Test func bounds() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        func keep(_ name: ByteString, _ count: Int, limit: UInt64) throws -> BlobLease {
            let lease = try #require(try repository.leaseBlob(name, size: UInt64(count)))
            lease.keep(limit: limit)
            append([UInt8](repeating: 1, count: count), to: lease)
            return lease
        }
        // Larger than all that may be kept, and larger than the disk.
        #expect(try keep("a", 101, limit: 100).length == 0)
        do {
            let lease = try #require(try repository.leaseBlob("a", size: 1 << 60))
            lease.keep(limit: .max)
            append([1], to: lease)
            #expect(lease.length == 0)
        }
        #expect(try files(scratch).isEmpty)
        // The oldest blob makes room, unless a process holds its lease.
        _ = try keep("old", 40, limit: 100)
        _ = try keep("new", 40, limit: 100)
        let root = try scratch.directory()
        let folder = ".staging/" + ByteString(try #require(Host.bootID()))
        try root.setTime(at: folder + "/.blob-old", seconds: 1000, nanoseconds: 0)
        try root.setTime(at: folder + "/.blob-new", seconds: 2000, nanoseconds: 0)
        let third = try keep("third", 40, limit: 100)
        #expect(try files(scratch) == [".blob-new": "40", ".blob-third": "40"])
        let new = try #require(try repository.leaseBlob("new", size: 40))
        #expect(try keep("fourth", 40, limit: 100).length == 0)
        #expect(try files(scratch) == [".blob-new": "40", ".blob-third": "40"])
        _ = consume third
        _ = consume new
    }

    /// A file system that reports no size has room.
    @Test(.enabled(if: Host.effectiveUserID == 0, "needs root")) func fileSystemsWithoutSize() throws {
        let scratch = try Scratch()
        try FileDescriptor.makeDirectory(scratch.repository)
        guard system("mount -t ramfs none '\(scratch.repository)'") == 0 else { return }
        defer { _ = system("umount -l '\(scratch.repository)'") }
        do {
            let lease = try #require(try scratch.create().leaseBlob(name, size: 10))
            lease.keep(limit: 100)
            append([1, 2, 3], to: lease)
        }
        #expect(try files(scratch) == [".blob-sha256:0123": "3"])
    }

    /// A kept partial blob is used even if nothing more can be kept.
    @Test func noRoomForMore() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        func lease(size: UInt64, limit: UInt64) throws -> BlobLease {
            let lease = try #require(try repository.leaseBlob(name, size: size))
            lease.keep(limit: limit)
            return lease
        }
        append([1, 2, 3], to: try lease(size: 20, limit: 100))
        do {
            let bounded = try lease(size: 20, limit: 10)
            append([4], to: bounded)
            #expect(try kept(bounded) == [1, 2, 3])
        }
        do {
            let short = try lease(size: 1 << 60, limit: .max)
            #expect(try kept(short) == [1, 2, 3])
            // Read by now: the pull needs the space more.
            append([4], to: short)
            #expect(short.length == 0)
        }
        #expect(try files(scratch).isEmpty)
    }

    @Test func goesWithTheBootAndWithTheGarbage() throws {
        let scratch = try Scratch()
        func leave(_ repository: Repository) throws {
            let lease = try #require(try repository.leaseBlob(name, size: 5))
            lease.keep(limit: 100)
            append([1, 2], to: lease)
        }
        let repository = try scratch.create()
        try leave(repository)
        #expect(try repository.check().isOK)
        #expect(try repository.collectGarbage(dryRun: true).temporariesRemoved == 1)
        _ = try repository.collectGarbage()
        #expect(try scratch.listing()[".staging"] == nil)
        try leave(repository)
        _ = consume repository
        let boot = ".staging/" + ByteString(try #require(Host.bootID()))
        try scratch.directory().rename(at: boot, to: ".staging/12345678-0000-0000-0000-000000000000")
        #expect(try scratch.open().leaseBlob(name, size: 5)?.length == 0)
    }

    /// A pull on one handle and a collection on the same one.
    @Test func storingAsOneKeepsCollectionsOut() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        try repository.storeAsOne {
            _ = try repository.store([1])
            let refused = failure { _ = try repository.collectGarbage() }
            #expect(refused?.description.contains("storing objects") == true)
            try repository.publish(Repository.Publication())
        }
        #expect(try scratch.listing()[".staging"] == nil)
        #expect(try repository.collectGarbage().objectsRemoved == 1)
    }
}
