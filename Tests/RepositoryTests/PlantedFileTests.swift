import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

/// Things in the repository that no program of ours has put there.
@Suite struct PlantedFileTests {
    private let name: ByteString = "sha256:0123"

    private func staging() throws -> ByteString { ".staging/" + ByteString(try #require(Host.bootID())) }

    /// A blob's name may refer to anything: the pull removes it and continues.
    @Test(arguments: ["link", "dangling", "directory", "fifo", "socket", "second name", "locked"])
    func blobsDirectory(kind: String) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        try repository.beginPull()
        let root = try scratch.directory()
        let path = try staging() + "/.blob-" + name
        try scratch.write("victim", [1, 2, 3])
        var lock: FileDescriptor?
        switch kind {
        case "link": try root.symlink(target: scratch.repository + "/victim", at: path)
        case "dangling": try root.symlink(target: "nowhere", at: path)
        case "directory":
            try root.makeDirectory(at: path)
            try scratch.write(path + "/file", [1])
        case "fifo": try root.makeNode(at: path, mode: 0o010666)
        case "socket": try root.makeNode(at: path, mode: 0o140666)
        case "second name": try root.link(at: "victim", to: path)
        default:
            // A file of another user, which holds its lock forever.
            guard Host.effectiveUserID == 0 else { return }
            try scratch.write(path, [7])
            try root.changeOwner(at: path, uid: 4711, gid: 4711)
            lock = try root.open(at: path, .readOnly)
            try lock?.lock(.exclusive)
        }
        do {
            let lease = try #require(try repository.leaseBlob(name, size: 10))
            lease.keep(limit: 1000)
            [UInt8](repeating: 9, count: 5).withUnsafeBytes { lease.append($0) }
            #expect(lease.length == 5)
            #expect(try repository.leaseBlob(name, size: 10) == nil)
        }
        #expect(try scratch.read("victim") == [1, 2, 3])
        let status = try root.status(at: path)
        #expect(status.kind == .regular && status.size == 5 && status.links == 1)
        _ = consume lock
    }

    // MARK: fsck

    /// A file with the name of a directory is damage, and everything else is still checked.
    @Test(arguments: ["objects", "objects/00", "streams", "streams/refs", "images", "images/refs", ".staging"], ["file", "link"])
    func directoriesThatAreNone(path: String, kind: String) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        var publication = Repository.Publication()
        publication.stream("s", try repository.storeStream().id)
        try repository.publish(publication)
        let root = try scratch.directory()
        let path = ByteString(path)
        if path.hasPrefix("images/") { try root.makeDirectoryIfMissing(at: "images") }
        if try root.statusIfPresent(at: path) != nil { try root.rename(at: path, to: "aside") }
        if kind == "file" { try scratch.write(path, []) } else { try root.symlink(target: ".", at: path) }
        let problems = try repository.check().problems.filter { $0.path == path }
        #expect(problems.count == 1, "\(problems)")
        // Nothing is collected if the kept objects are unknown.
        if path != "objects/00" {
            guard case .unreadableRoot(path, _) = failure({ _ = try repository.collectGarbage() }) else {
                Issue.record("collected")
                return
            }
        }
    }

    @Test func missingStreamsAreSaid() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        #expect(try repository.check().notes == [])
        var publication = Repository.Publication()
        publication.stream("s", try repository.storeStream().id)
        try repository.publish(publication)
        #expect(try repository.check().notes == [])
        try scratch.directory().rename(at: "streams", to: "../streams")
        let report = try repository.check()
        #expect(report.problems == [])
        #expect(report.notes.count == 1 && report.notes[0].hasPrefix("streams/ is missing"))
    }

    /// After a power cut, a damaged object without references is a temporary file, and one with references is damage.
    @Test func tornObjects() throws {
        let scratch = try Scratch()
        let (referred, torn, old): (StoredObject, StoredObject, StoredObject)
        do {
            let repository = try scratch.create()
            old = try repository.store(content(300, seed: 9))
            referred = try repository.store(content(400))
            var publication = Repository.Publication()
            publication.stream("s", try repository.storeStream(objects: [referred]).id)
            try repository.publish(publication)
            torn = try repository.store(content(500))
        }
        try scratch.directory().rename(at: try staging(), to: ".staging/12345678-0000-0000-0000-000000000000")
        func path(_ object: StoredObject) -> ByteString { "objects/" + ByteString(object.id.objectPath) }
        try scratch.write(path(torn), [UInt8](repeating: 0, count: 500))
        let repository = try scratch.open(OpenOptions(readOnly: true))
        var report = try repository.check()
        #expect(report.problems == [] && report.objectsCorrupted == 0 && report.objectsChecked == 3)
        #expect(report.notes.contains { $0.hasPrefix("\(path(torn)) is incomplete, left by an interrupted pull") })
        // An object that a stream leads to.
        try scratch.write(path(referred), [UInt8](repeating: 0, count: 400))
        report = try repository.check()
        #expect(report.problems.map(\.path) == [path(referred)])
        try scratch.write(path(referred), content(400))
        // One from long before.
        try scratch.write(path(old), [UInt8](repeating: 0, count: 300))
        let marker = try #require(scratch.listing().keys.first { $0.contains("/.active-") })
        try scratch.directory().setTime(at: ByteString(marker), seconds: Host.currentTime().seconds + 7200, nanoseconds: 0)
        #expect(Set(try repository.check().problems.map(\.path)) == [path(old), path(torn)])
    }
}
