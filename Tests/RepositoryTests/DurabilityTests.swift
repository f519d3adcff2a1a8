import ComposefsBytes
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Synchronization
import Testing

/// What a failed sync means for what was written before it. A disk that has lost a write is played by overwriting the object's file: the
/// name and the size are right, the content is not.
@Suite struct DurabilityTests {
    /// Lets calls of a kind fail until further notice.
    private final class Failing: SystemCallObserver {
        let kinds: Set<SystemCallKind>
        let suffix: String
        let isOn = Atomic<Bool>(true)

        init(_ kinds: Set<SystemCallKind>, on suffix: String = "") {
            self.kinds = kinds
            self.suffix = suffix
        }

        func before(_ call: SystemCall) -> Errno? {
            guard isOn.load(ordering: .relaxed), kinds.contains(call.kind) else { return nil }
            return suffix.isEmpty || FileDescriptor.currentName(call.descriptor).hasSuffix(suffix) ? .inputOutput : nil
        }
        func after(_ call: SystemCall, result: Int) {}
    }

    private func lose(_ object: StoredObject, _ scratch: Scratch) throws {
        try scratch.write("objects/" + ByteString(object.id.objectPath), [UInt8](repeating: 0, count: Int(object.size)))
    }

    private func markers(_ scratch: Scratch) throws -> Int { try scratch.listing().keys.filter { $0.contains("/.active-") }.count }

    private func publication(_ stream: StoredObject) -> Repository.Publication {
        var publication = Repository.Publication()
        publication.stream("s", stream.id)
        publication.streamReference("tag", to: "s")
        return publication
    }

    /// Stores a file and a stream and stages it; the sync before its publication fails.
    private func failedPull(_ repository: Repository) throws -> (file: StoredObject, stream: StoredObject) {
        let file = try repository.store(content(5000))
        let stream = try repository.storeStream(objects: [file])
        try repository.stage("s", stream.id)
        Recorder(forwarding: Failing([.syncfs])).observe {
            #expect(failure { try repository.publish(publication(stream)) }?.description.hasSuffix("Input/output error") == true)
        }
        return (file, stream)
    }

    private func pull(_ repository: Repository) throws -> StoredObject {
        let file = try repository.store(content(5000))
        if try repository.stagedStream("s") == nil { try repository.stage("s", try repository.storeStream(objects: [file]).id) }
        let stream = try #require(try repository.stagedStream("s"))
        try repository.publish(publication(StoredObject(id: stream, size: 0, isNew: false)))
        return file
    }

    @Test func anotherHandleStoresAnew() throws {
        let scratch = try Scratch()
        let (file, _) = try failedPull(try scratch.create())
        #expect(try markers(scratch) == 1)
        try lose(file, scratch)
        let repository = try scratch.open()
        // What is staged may be lost, too.
        #expect(try repository.stagedStream("s") == nil)
        #expect(try pull(repository).isNew)
        #expect(try repository.check().problems == [])
        #expect(try scratch.listing()[".staging"] == nil)
    }

    @Test func theSameHandleStoresAnew() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let (file, _) = try failedPull(repository)
        try lose(file, scratch)
        #expect(try pull(repository).isNew)
        #expect(try repository.check().problems == [])
        #expect(try scratch.listing()[".staging"] == nil)
    }

    /// What was lost of a killed program, while others keep the repository busy.
    @Test func busyRepositoriesReadBeforeTheyBelieve() throws {
        let scratch = try Scratch()
        let (file, stream) = try failedPull(try scratch.create())
        try lose(file, scratch)
        let reader = try scratch.open(OpenOptions(readOnly: true))
        let repository = try scratch.open()
        #expect(try repository.stagedStream("s") == nil)
        #expect(try repository.store(content(5000)).isNew)
        #expect(try repository.storeStream(objects: [file]) == StoredObject(id: stream.id, size: stream.size, isNew: false))
        try repository.publish(publication(stream))
        #expect(try repository.check().problems == [])
        _ = consume reader
        // The marker stays until a handle has the repository exclusively.
        #expect(try markers(scratch) == 1)
        _ = try pull(try scratch.open())
        #expect(try markers(scratch) == 0)
    }

    @Test func whatIsIntactStays() throws {
        let scratch = try Scratch()
        _ = try failedPull(try scratch.create())
        let repository = try scratch.open()
        #expect(try repository.stagedStream("s") != nil)
        #expect(try pull(repository).isNew == false)
        #expect(try scratch.listing()[".staging"] == nil)
    }

    /// A killed program: its data was not synced, and the next sync may not report the earlier error.
    @Test func theKilledAreNotBelieved() throws {
        let scratch = try Scratch()
        let file: StoredObject
        do { file = try scratch.create().store(content(5000)) }
        try lose(file, scratch)
        #expect(try pull(try scratch.open()).isNew)
        #expect(try scratch.open().check().problems == [])
    }

    /// A recovery whose own sync fails leaves everything to the next.
    @Test func recoveryMayFail() throws {
        let scratch = try Scratch()
        let (file, _) = try failedPull(try scratch.create())
        try lose(file, scratch)
        for kind in [SystemCallKind.syncfs, .unlink] {
            Recorder(forwarding: Failing([kind])).observe {
                #expect(failure { _ = try pull(try scratch.open()) } != nil)
            }
            #expect(try markers(scratch) == 1)
        }
        #expect(try pull(try scratch.open()).isNew)
        #expect(try scratch.open().check().problems == [])
    }

    /// Another program has stored the object and not synced yet; its write failed before this handle was opened, so the sync of this handle does not report it.
    @Test func objectsOfOthersAreReadBeforeTheyArePublished() throws {
        let scratch = try Scratch()
        var other: Repository? = try scratch.create()
        let file = try #require(try other?.store(content(5000)))
        let repository = try scratch.open()
        #expect(try repository.store(content(5000)) == StoredObject(id: file.id, size: 5000, isNew: false))
        try lose(file, scratch)
        let stream = try repository.storeStream(objects: [file])
        guard case .objectDamaged(file.id, _) = failure({ try repository.publish(publication(stream)) }) else {
            Issue.record("published")
            return
        }
        #expect(try scratch.listing()["streams/s"] == nil)
        other = nil
        #expect(try pull(repository).isNew)
        #expect(try repository.check().problems == [])
    }

    /// The same with a staged layer.
    @Test func layersOfOthersAreReadBeforeTheyArePublished() throws {
        let scratch = try Scratch()
        let other = try scratch.create()
        let file = try other.store(content(5000))
        try other.stage("s", try other.storeStream(objects: [file]).id)
        let repository = try scratch.open()
        let stream = try #require(try repository.stagedStream("s"))
        try lose(file, scratch)
        guard
            case .objectDamaged(file.id, _) = failure({
                try repository.publish(publication(StoredObject(id: stream, size: 0, isNew: false)))
            })
        else {
            Issue.record("published")
            return
        }
        _ = consume other
    }

    /// If the other process has synced, nothing is read.
    @Test func whatOthersHaveSyncedIsBelieved() throws {
        let scratch = try Scratch()
        let other = try scratch.create()
        let file = try other.store(content(5000))
        let repository = try scratch.open()
        #expect(try !repository.store(content(5000)).isNew)
        try other.publish(Repository.Publication())
        try lose(file, scratch)
        try repository.publish(publication(try repository.storeStream(objects: [file])))
        #expect(try repository.check().problems.count == 1)
    }

    /// One thread's sync fails while another one is in the midst of storing things that belong together.
    @Test func otherThreadsOfTheHandleFail() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        try repository.storeAsOne {
            _ = try repository.store(content(100))
            _ = try failedPull(repository)
            guard case .syncFailed = failure({ _ = try repository.store(content(200)) }) else {
                Issue.record("stored")
                return
            }
            guard case .syncFailed = failure({ try repository.publish(Repository.Publication()) }) else {
                Issue.record("published")
                return
            }
        }
        _ = try pull(repository)
        #expect(try repository.check().problems == [])
    }

    /// A directory's sync fails: its links are in the cache, and the next sync would have nothing to write.
    @Test func linksAreWrittenAnew() throws {
        let scratch = try Scratch()
        do {
            let repository = try scratch.create()
            let stream = try repository.storeStream()
            Recorder(forwarding: Failing([.fsync], on: "/streams")).observe {
                #expect(failure { try repository.publish(publication(stream)) } != nil)
            }
        }
        let before = try scratch.directory().status(at: "streams/s").inode
        _ = try scratch.open().store([1])
        #expect(try scratch.directory().status(at: "streams/s").inode != before)
    }

    /// Setting a tag writes nothing but a link, and is remembered all the same.
    @Test func tagsAreRemembered() throws {
        let scratch = try Scratch()
        do { try scratch.create().publish(publication(try scratch.open().storeStream())) }
        var tag = Repository.Publication()
        tag.streamReference("other/tag", to: "s")
        do {
            let repository = try scratch.open()
            Recorder(forwarding: Failing([.fsync], on: "/other")).observe {
                #expect(failure { try repository.publish(tag) } != nil)
            }
        }
        #expect(try markers(scratch) == 1)
        let before = try scratch.directory().status(at: "streams/refs/other/tag").inode
        try scratch.open().publish(tag)
        #expect(try scratch.directory().status(at: "streams/refs/other/tag").inode != before)
        #expect(try scratch.listing()[".staging"] == nil)
    }

    /// Another handle that begins takes a marker that is not locked yet for one that was left, and has the lock first.
    @Test func markersThatOthersLock() throws {
        final class Thief: SystemCallObserver {
            let scratch: Scratch
            let stolen = Mutex<[FileDescriptorBox]>([])
            init(_ scratch: Scratch) { self.scratch = scratch }
            func before(_ call: SystemCall) -> Errno? { nil }
            func after(_ call: SystemCall, result: Int) {
                guard call.kind == .create, result >= 0, let path = call.path.map({ ByteString($0) }),
                    path.description.contains(".active-"), stolen.withLock({ $0.isEmpty })
                else { return }
                do {
                    let box = FileDescriptorBox(try scratch.directory().open(at: path, .readOnly))
                    if try box.file.lock(.exclusive, wait: false) { stolen.withLock { $0.append(box) } }
                } catch {
                    Issue.record("\(error)")
                }
            }
        }
        let scratch = try Scratch()
        let repository = try scratch.create()
        let thief = Thief(scratch)
        _ = try Recorder(forwarding: thief).observe { try repository.store([1]) }
        #expect(thief.stolen.withLock { $0.count } == 1)
        // The one that was lost, and one that this handle holds.
        let names = try scratch.listing().keys.filter { $0.contains("/.active-") }
        #expect(names.count == 2)
        thief.stolen.withLock { $0 = [] }
        let held = try names.filter { try !scratch.directory().open(at: ByteString($0), .readOnly).lock(.exclusive, wait: false) }
        #expect(held.count == 1)
    }

    /// The name of `meta.json` may be lost: it is removed, so that the next attempt writes it again.
    @Test func metadataIsWrittenAnew() throws {
        let scratch = try Scratch()
        try FileDescriptor.makeDirectory(scratch.repository)
        Recorder(forwarding: Failing([.fsync], on: "/repo")).observe {
            #expect(failure { _ = try scratch.create() }?.description.hasSuffix("Input/output error") == true)
        }
        #expect(try scratch.listing().isEmpty)
        #expect(try Repository.initialize(scratch.repository, RepositoryConfiguration(verity: .insecure)).created)
    }

    /// Images, then what leads to them.
    @Test func imagesAppearBeforeStreams() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let image = try repository.storeImage([1, 2, 3])
        let streams = try [0, 1, 2].map { try repository.storeStream(inline: [$0]) }
        var publication = Repository.Publication()
        for (name, stream) in zip(["layer", "config", "manifest"], streams) { publication.stream(ByteString(name), stream.id) }
        publication.image(image.id)
        publication.streamReference("tag", to: "manifest")
        let recorder = Recorder()
        try recorder.observe { try repository.publish(publication) }
        let calls = recorder.recorded.compactMap { call -> String? in
            switch call.kind {
            case .symlink: call.path
            case .fsync: "sync " + (call.descriptor.split(separator: "/").last.map(String.init) ?? "")
            case .syncfs: "sync all"
            default: nil
            }
        }
        #expect(
            calls == [
                "sync all", "images/\(image.id.hex)", "sync images", "streams/layer", "streams/config", "streams/manifest", "sync streams",
                "streams/refs/tag", "sync refs",
            ])
    }

    /// A repository with a `meta.json` has a durable name, and so have the directories above it, whichever program made them.
    @Test func newRepositoriesHaveDurableNames() throws {
        let scratch = try Scratch()
        let recorder = Recorder()
        _ = try recorder.observe { try scratch.create() }
        let calls = recorder.recorded
        let named = try #require(calls.firstIndex { $0.kind == .link && $0.path == "meta.json" })
        #expect(calls[..<named].contains { $0.kind == .syncfs })
        #expect(calls[named...].contains { $0.kind == .fsync && $0.descriptor.hasSuffix("/repo") })
        // The program that wrote it may have been killed before it synced the name.
        let again = Recorder()
        _ = try again.observe { try scratch.create() }
        #expect(again.recorded.map(\.kind) == [.fsync])
    }

    /// A collection that was killed has removed links and not synced that: they may come back after a power cut.
    @Test func objectsAreRemovedAfterTheNamesThatOthersRemoved() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let object = try repository.store(content(5000))
        try repository.publish(Repository.Publication())
        let recorder = Recorder()
        #expect(try recorder.observe { try repository.collectGarbage() }.objectsRemoved == 1)
        let calls = recorder.recorded
        let removed = try #require(calls.firstIndex { $0.kind == .unlink && $0.path.hasSuffix(object.id.objectPath) })
        #expect(calls[..<removed].contains { $0.kind == .syncfs })
    }

    /// On a file system without O_TMPFILE the question costs one call, not one for each object.
    @Test func unnamedFilesAreAskedForOnce() throws {
        final class NoTemporary: SystemCallObserver {
            let asked = Atomic<Int>(0)
            func before(_ call: SystemCall) -> Errno? {
                guard call.kind == .create, call.path.map({ ByteString($0) }) == "objects" else { return nil }
                asked.add(1, ordering: .relaxed)
                return .notSupported
            }
            func after(_ call: SystemCall, result: Int) {}
        }
        let scratch = try Scratch()
        do { _ = try scratch.create().store([0]) }
        let repository = try scratch.open()
        let observer = NoTemporary()
        try Recorder(forwarding: observer).observe {
            for byte in 1..<20 { _ = try repository.store([UInt8(byte)]) }
        }
        #expect(observer.asked.load(ordering: .relaxed) == 1)
        try repository.publish(Repository.Publication())
        #expect(try repository.check().problems == [])
    }
}

/// An open file in a collection.
final class FileDescriptorBox: Sendable {
    let file: FileDescriptor
    init(_ file: consuming FileDescriptor) { self.file = file }
}
