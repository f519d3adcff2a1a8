import ComposefsBytes
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

/// Blobs that are being fetched: one claim each, and what is kept of them.
@Suite struct StagingBlobTests {
    private let name: ByteString = "sha256:0123"

    private func files(_ scratch: Scratch) throws -> [String: String] {
        try scratch.listing().filter { $0.key.contains("/.blob-") }.reduce(into: [:]) { result, entry in
            result[String(entry.key.split(separator: "/").last ?? "")] = entry.value
        }
    }

    private func append(_ bytes: [UInt8], to claim: BlobClaim) { bytes.withUnsafeBytes { claim.append($0) } }

    private func kept(_ claim: BlobClaim) throws -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 7)
        while true {
            let count = try buffer.withUnsafeMutableBytes { try claim.read(into: $0, at: UInt64(all.count)) }
            if count == 0 { return all }
            all += buffer[..<count]
        }
    }

    @Test func oneClaimAtATime() throws {
        let scratch = try Scratch()
        let one = try scratch.create()
        let two = try scratch.open()
        do {
            let claim = try #require(try one.claimBlob(name, size: 10))
            // Neither the same handle nor another one, which is like another process's.
            #expect(try one.claimBlob(name, size: 10) == nil)
            #expect(try two.claimBlob(name, size: 10) == nil)
            #expect(try two.claimBlob("sha256:4567", size: 10) != nil)
            _ = consume claim
        }
        // Nothing was kept, nothing is left.
        #expect(try files(scratch).isEmpty)
        #expect(try two.claimBlob(name, size: 10) != nil)
        for bad: ByteString in ["", "a/b", "refs"] { #expect(failure { _ = try one.claimBlob(bad, size: 1) } != nil) }
    }

    @Test func whatCameIsKept() throws {
        let scratch = try Scratch()
        do {
            let claim = try #require(try scratch.create().claimBlob(name, size: 20))
            append([9, 9], to: claim)
            #expect(claim.length == 0, "kept without being told to")
            claim.keep(limit: 100)
            append(Array(0..<9), to: claim)
            append(Array(9..<12), to: claim)
            #expect(claim.length == 12)
        }
        #expect(try files(scratch) == [".blob-sha256:0123": "12"])
        let repository = try scratch.open()
        #expect(repository.claimedBytes(name) == 12)
        do {
            let claim = try #require(try repository.claimBlob(name, size: 20))
            #expect(try kept(claim) == Array(0..<12))
            claim.keep(limit: 100)
            append(Array(12..<20), to: claim)
            #expect(try kept(claim) == Array(0..<20))
            repository.dropBlob(name)
            #expect(claim.length == 20, "dropped under its claim")
        }
        repository.dropBlob(name)
        #expect(try files(scratch).isEmpty)
        #expect(repository.claimedBytes(name) == 0)
    }

    /// Whoever locked the file before it was removed must not believe to have the claim.
    @Test func removedWhileOthersWant() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let claim = try #require(try repository.claimBlob(name, size: 5))
        claim.keep(limit: 100)
        append([1, 2, 3], to: claim)
        claim.remove()
        append([4], to: claim)
        let next = try #require(try repository.claimBlob(name, size: 5))
        #expect(next.length == 0)
        // The old claim's end takes nothing from the new one.
        _ = consume claim
        #expect(try repository.claimBlob(name, size: 5) == nil)
        _ = consume next
    }

    @Test func moreThanTheBlobIsForgotten() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        do {
            let claim = try #require(try repository.claimBlob(name, size: 5))
            claim.keep(limit: 100)
            append([1, 2, 3, 4, 5], to: claim)
        }
        #expect(try repository.claimBlob(name, size: 4)?.length == 0)
    }

    @Test func bounds() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        func keep(_ name: ByteString, _ count: Int, limit: UInt64) throws -> BlobClaim {
            let claim = try #require(try repository.claimBlob(name, size: UInt64(count)))
            claim.keep(limit: limit)
            append([UInt8](repeating: 1, count: count), to: claim)
            return claim
        }
        // Larger than all that may be kept, and larger than the disk.
        #expect(try keep("a", 101, limit: 100).length == 0)
        do {
            let claim = try #require(try repository.claimBlob("a", size: 1 << 60))
            claim.keep(limit: .max)
            append([1], to: claim)
            #expect(claim.length == 0)
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
        let new = try #require(try repository.claimBlob("new", size: 40))
        #expect(try keep("fourth", 40, limit: 100).length == 0)
        #expect(try files(scratch) == [".blob-new": "40", ".blob-third": "40"])
        _ = consume third
        _ = consume new
    }

    /// What an earlier pull kept is of use also where nothing more can be kept.
    @Test func noRoomForMore() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        func claim(size: UInt64, limit: UInt64) throws -> BlobClaim {
            let claim = try #require(try repository.claimBlob(name, size: size))
            claim.keep(limit: limit)
            return claim
        }
        append([1, 2, 3], to: try claim(size: 20, limit: 100))
        do {
            let bounded = try claim(size: 20, limit: 10)
            append([4], to: bounded)
            #expect(try kept(bounded) == [1, 2, 3])
        }
        do {
            let short = try claim(size: 1 << 60, limit: .max)
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
            let claim = try #require(try repository.claimBlob(name, size: 5))
            claim.keep(limit: 100)
            append([1, 2], to: claim)
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
        #expect(try scratch.open().claimBlob(name, size: 5)?.length == 0)
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
