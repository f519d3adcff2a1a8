import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@Suite struct StagingTests {
    private func boot() throws -> ByteString { ".staging/" + ByteString(try #require(Host.bootID())) }

    @Test func stagedStreamsAreReused() throws {
        let scratch = try Scratch()
        var id: ObjectID
        do {
            let repository = try scratch.create()
            #expect(try repository.stagedStream("oci-layer-a") == nil)
            id = try repository.storeStream().id
            try repository.stage("oci-layer-a", id)
            #expect(try repository.stream("oci-layer-a") == nil)
        }
        let repository = try scratch.open()
        #expect(try repository.stagedStream("oci-layer-a") == id)
        #expect(try scratch.listing()[try boot().description + "/oci-layer-a"] == "-> ../../objects/\(id.objectPath)")
        let report = try repository.check()
        #expect(report.isOK)
        // The link and the marker of the handle that is gone without a sync.
        #expect(report.notes.count == 2)
        // A staged stream whose object is gone is none.
        try scratch.directory().unlink(at: "objects/" + ByteString(id.objectPath))
        #expect(try repository.stagedStream("oci-layer-a") == nil)
        id = try repository.storeStream().id
        var publication = Repository.Publication()
        publication.stream("oci-layer-a", id)
        try repository.publish(publication)
        #expect(try repository.stagedStream("oci-layer-a") == nil)
        #expect(try scratch.listing()[".staging"] == nil)
    }

    @Test func markersComeAndGo() throws {
        let scratch = try Scratch()
        let one = try scratch.create()
        func markers() throws -> Int { try scratch.listing().keys.filter { $0.contains("/.active-") }.count }
        #expect(try markers() == 0)
        _ = try one.store([1])
        #expect(try markers() == 1)
        do {
            let two = try scratch.open()
            _ = try two.store([2])
            _ = try two.store([3])
            #expect(try markers() == 2)
            // One handle's sync does not take the marker of another that lives.
            try one.publish(Repository.Publication())
            #expect(try markers() == 1)
            _ = try one.store([4])
            #expect(try markers() == 2)
        }
        // The second handle ended without a sync: its marker stays until another handle syncs.
        #expect(try markers() == 2)
        try one.publish(Repository.Publication())
        #expect(try scratch.listing()[".staging"] == nil)
    }

    @Test func existingObjectsNeedNoMarker() throws {
        let scratch = try Scratch()
        do { try scratch.create().publish(Repository.Publication()) }
        do {
            let repository = try scratch.open()
            try repository.beginPull()
            #expect(try scratch.listing()[".staging"] != nil)
        }
        // Nothing was stored: nothing may be damaged.
        #expect(try scratch.listing()[".staging"] == nil)
    }

    /// The machine stopped during a pull: objects have their names and the right size, but not their content.
    private func interrupted(_ scratch: Scratch) throws -> (good: StoredObject, torn: StoredObject, old: StoredObject) {
        let old: StoredObject
        let good: StoredObject
        let torn: StoredObject
        do {
            let repository = try scratch.create()
            old = try repository.store(content(3000, seed: 1))
            try repository.publish(Repository.Publication())
            good = try repository.store(content(4000, seed: 2))
            torn = try repository.store(content(5000, seed: 3))
            try repository.stage("layer", try repository.storeStream(objects: [torn]).id)
        }
        let root = try scratch.directory()
        try root.rename(at: boot(), to: ".staging/12345678-0000-0000-0000-000000000000")
        try scratch.write("objects/" + ByteString(torn.id.objectPath), [UInt8](repeating: 0, count: 5000))
        return (good, torn, old)
    }

    @Test func recovery() throws {
        let scratch = try Scratch()
        let (good, torn, old) = try interrupted(scratch)
        let repository = try scratch.open()
        #expect(try repository.stagedStream("layer") == nil)
        #expect(try repository.recoverInterruptedPull() == .recovered(removed: 1))
        #expect(try repository.objectSize(torn.id) == nil)
        #expect(try repository.objectSize(good.id) == 4000)
        #expect(try repository.objectSize(old.id) == 3000)
        #expect(try scratch.listing()[".staging"] == nil)
        #expect(try repository.recoverInterruptedPull() == .nothing)
        // The shared lock is back.
        #expect(try !scratch.directory().lock(.exclusive, wait: false))
    }

    @Test func storingRecoversByItself() throws {
        let scratch = try Scratch()
        let (_, torn, _) = try interrupted(scratch)
        let repository = try scratch.open()
        #expect(try repository.store(content(5000, seed: 3)) == StoredObject(id: torn.id, size: 5000, isNew: true))
        try repository.publish(Repository.Publication())
        #expect(try repository.check().problems == [])
    }

    /// Objects older than the marker are not read again: their pull was synced.
    @Test func olderObjectsAreNotRead() throws {
        let scratch = try Scratch()
        let (_, torn, _) = try interrupted(scratch)
        let root = try scratch.directory()
        let directory: ByteString = ".staging/12345678-0000-0000-0000-000000000000"
        let marker = try #require(root.open(at: directory, [.readOnly, .directory]).entries().first { $0.name.hasPrefix(".active-") }).name
        try root.setTime(at: directory + "/" + marker, seconds: Host.currentTime().seconds + 7200, nanoseconds: 0)
        let repository = try scratch.open()
        #expect(try repository.recoverInterruptedPull() == .recovered(removed: 0))
        #expect(try repository.objectSize(torn.id) == 5000)
    }

    /// While another process uses the repository nothing can be removed, so every object is read before it is relied on.
    @Test func busyRepository() throws {
        let scratch = try Scratch()
        let (good, torn, _) = try interrupted(scratch)
        let reader = try scratch.open(OpenOptions(readOnly: true))
        let repository = try scratch.open()
        #expect(try repository.recoverInterruptedPull() == .busy)
        #expect(try repository.store(content(4000, seed: 2)) == StoredObject(id: good.id, size: 4000, isNew: false))
        #expect(try repository.store(content(5000, seed: 3)) == StoredObject(id: torn.id, size: 5000, isNew: true))
        #expect(try repository.check().problems == [])
        _ = consume reader
    }

    @Test func collectionRemovesStaging() throws {
        let scratch = try Scratch()
        let (_, _, _) = try interrupted(scratch)
        try scratch.write("objects/.tmp-object-0123456789ab", [1])
        try scratch.directory().symlink(target: "x", at: ".symlink-0123456789ab")
        let repository = try scratch.open()
        let plan = try repository.collectGarbage(dryRun: true)
        // The staged link, the marker and the two above.
        #expect(plan.temporariesRemoved == 4)
        #expect(plan.objectsRemoved == 4)
        #expect(try repository.collectGarbage() == plan)
        #expect(try repository.collectGarbage() == GarbageReport())
        #expect(try scratch.listing().filter { $0.value != "/" }.keys.sorted() == ["meta.json"])
        // The handle can go on.
        #expect(try repository.store([1]).isNew)
        try repository.publish(Repository.Publication())
    }
}
