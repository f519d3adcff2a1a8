import ComposefsBytes
import ComposefsConcurrency
import ComposefsEROFS
import ComposefsFileTree
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@Suite struct OpeningTests {
    @Test func initializing() throws {
        let scratch = try Scratch()
        let configuration = RepositoryConfiguration(algorithm: .sha256, verity: .insecure)
        let (first, created) = try Repository.initialize(scratch.repository, configuration)
        #expect(created && first.algorithm == .sha256 && !first.isSecure && first.erofsFormats.all == [.v1])
        let (_, again) = try Repository.initialize(scratch.repository, configuration)
        #expect(!again)
        let other = RepositoryConfiguration(algorithm: .sha256, erofsFormats: ErofsFormats(default: .v2), verity: .insecure)
        #expect(
            failure { _ = try Repository.initialize(scratch.repository, other) }?.description
                == "repository already initialized with different configuration (algorithm: fsverity-sha256-12, erofs_version: V1); "
                + "cannot re-initialize with (algorithm: fsverity-sha256-12, erofs_version: V2)")
        #expect(
            failure { _ = try Repository.initialize(scratch.path + "/a/b", configuration) }?.description.hasSuffix(
                "/a/b: No such file or directory") == true)
    }

    @Test func missing() throws {
        let scratch = try Scratch()
        #expect(failure { _ = try scratch.open() }?.description == "open \(scratch.repository): No such file or directory")
        try FileDescriptor.makeDirectory(scratch.repository)
        #expect(
            failure { _ = try scratch.open() }?.description
                == "\(scratch.repository): meta.json not found; this repository must be initialized first")
        try scratch.directory().makeDirectory(at: "objects")
        guard case .oldFormat = failure({ _ = try scratch.open() }) else {
            Issue.record("no old format")
            return
        }
        guard case .oldFormat = failure({ _ = try scratch.create() }) else {
            Issue.record("no old format")
            return
        }
        guard case .noObjects = failure({ _ = try scratch.open(OpenOptions(upgradeOldFormat: true)) }) else {
            Issue.record("upgraded without objects")
            return
        }
    }

    @Test(arguments: VerityAlgorithm.allCases)
    func upgrading(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let object: StoredObject
        do { object = try scratch.create(algorithm, default: .v2).store([1, 2, 3]) }
        try scratch.directory().unlink(at: "meta.json")
        guard case .oldFormat = failure({ _ = try scratch.open(OpenOptions(upgradeOldFormat: true, readOnly: true)) }) else {
            Issue.record("upgraded read-only")
            return
        }
        let repository = try scratch.open(OpenOptions(upgradeOldFormat: true))
        #expect(repository.algorithm == algorithm)
        #expect(!repository.isSecure)
        #expect(repository.erofsFormats.all == [.v1])
        #expect(try repository.readObject(object.id, limit: 3) == [1, 2, 3])
        #expect(try scratch.read("meta.json") == RepositoryMetadata(algorithm: algorithm, formats: ErofsFormats(default: .v1)).serialized())
    }

    /// A repository from before `meta.json` is opened for reading, and shows what it is.
    @Test(arguments: VerityAlgorithm.allCases)
    func readingTheOldFormat(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let object: StoredObject
        do { object = try scratch.create(algorithm, default: .v2).store([1, 2, 3]) }
        try scratch.directory().unlink(at: "meta.json")
        // The marker of the handle that stored without a sync is there, too.
        let before = try scratch.listing()
        let repository = try scratch.open(OpenOptions(readOnly: true))
        #expect(repository.isOldFormat && repository.algorithm == algorithm && repository.erofsFormats.all == [.v2])
        #expect(try repository.readObject(object.id, limit: 3) == [1, 2, 3])
        #expect(failure { _ = try repository.store([1]) }?.description == "the repository is not writable: it was opened for reading only")
        let report = try repository.check()
        #expect(report.isOK && !report.hasMetadata)
        let name = algorithm == .sha256 ? "fsverity-sha256-12" : "fsverity-sha512-12"
        #expect(report.notes.contains { $0.contains("no meta.json") && $0.contains(name) && $0.contains("format 2") }, "\(report.notes)")
        guard
            case .algorithmMismatch = failure({
                _ = try scratch.open(OpenOptions(readOnly: true, algorithm: algorithm == .sha256 ? .sha512 : .sha256))
            })
        else {
            Issue.record("opened with another algorithm")
            return
        }
        guard case .insecure = failure({ _ = try scratch.open(OpenOptions(requireVerity: true, readOnly: true)) }) else {
            Issue.record("opened without verity")
            return
        }
        #expect(try scratch.listing() == before && before["meta.json"] == nil)
    }

    /// An image of format 1 shows that the repository had a `meta.json`: it is refused until that is there again.
    @Test func lostMetadata() throws {
        let scratch = try Scratch()
        do {
            let repository = try scratch.create()
            var publication = Repository.Publication()
            publication.image(try repository.storeImage(try writeErofs(FileTree(root: Metadata(permissions: 0o755)), version: .v1)).id)
            try repository.publish(publication)
        }
        try scratch.directory().unlink(at: "meta.json")
        guard case .oldFormat = failure({ _ = try scratch.open(OpenOptions(readOnly: true)) }) else {
            Issue.record("opened without meta.json")
            return
        }
    }

    @Test func options() throws {
        let scratch = try Scratch()
        do { _ = try scratch.create(.sha256) }
        #expect(
            failure { _ = try scratch.open(OpenOptions(algorithm: .sha512)) }?.description
                == "repository algorithm fsverity-sha256-12 does not match expected fsverity-sha512-12")
        guard case .insecure = failure({ _ = try scratch.open(OpenOptions(requireVerity: true)) }) else {
            Issue.record("opened without verity")
            return
        }
        let repository = try scratch.open(OpenOptions(readOnly: true))
        let text = "the repository is not writable: it was opened for reading only"
        #expect(failure { _ = try repository.store([1]) }?.description == text)
        #expect(failure { try repository.beginPull() }?.description == text)
        #expect(failure { _ = try repository.collectGarbage() }?.description == text)
        #expect(try scratch.listing().keys.sorted() == ["meta.json"])
    }

    @Test func resetting() throws {
        let scratch = try Scratch()
        do {
            let repository = try scratch.create(.sha256)
            var publication = Repository.Publication()
            publication.stream("s", try repository.storeStream().id)
            publication.streamReference("a/b/c", to: "s")
            try repository.publish(publication)
            guard case .readOnly = failure({ try Repository.resetMetadata(scratch.repository) }) else {
                Issue.record("reset while in use")
                return
            }
        }
        try Repository.resetMetadata(scratch.repository)
        #expect(try scratch.listing().filter { !$0.key.hasPrefix("objects") }.isEmpty)
        #expect(try scratch.listing().values.contains { $0 != "/" })
    }

    /// Storing and reading share the lock; garbage collection has it alone and gives it back.
    @Test func locks() throws {
        let scratch = try Scratch()
        let one = try scratch.create()
        let two = try scratch.open()
        let directory = try scratch.directory()
        #expect(try directory.lock(.shared, wait: false))
        #expect(try !directory.lock(.exclusive, wait: false))
        try directory.unlock()

        let waits = BoundedQueue<Int>(capacity: 10)
        let done = BoundedQueue<Result<GarbageReport, RepositoryError>>(capacity: 1)
        let pool = WorkerPool(threads: 1)
        _ = try one.store(content(100))
        pool.submit {
            do throws(RepositoryError) {
                done.push(.success(try one.collectGarbage(willWait: { waits.push(1) })))
            } catch {
                done.push(.failure(error))
            }
        }
        // It reports that it waits, and returns when the other handle is closed.
        #expect(waits.pop() == 1)
        #expect(try two.objectSize(two.store(content(50)).id) == 50)
        _ = consume two
        let report = try #require(done.pop()).get()
        #expect(report.objectsRemoved == 2)
        pool.shutdown()
        #expect(try !directory.lock(.exclusive, wait: false))
        #expect(try directory.lock(.shared, wait: false))
        try directory.unlock()

        // Opening waits for the holder of the exclusive lock, and reports it.
        #expect(try FileDescriptor.open(scratch.repository, [.readOnly, .directory]).lock(.shared, wait: false))
        _ = consume one
        #expect(try directory.lock(.exclusive, wait: false))
        let opened = BoundedQueue<Bool>(capacity: 1)
        let other = WorkerPool(threads: 1)
        other.submit {
            let repository = try? scratch.open(OpenOptions(willWait: { waits.push(2) }))
            opened.push(repository != nil)
        }
        #expect(waits.pop() == 2)
        try directory.unlock()
        #expect(opened.pop() == true)
        other.shutdown()
    }

    /// After an error the lock is shared again too.
    @Test func lockAfterFailedCollection() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        var publication = Repository.Publication()
        let stream = try repository.storeStream()
        publication.stream("s", stream.id)
        publication.streamReference("r", to: "s")
        try repository.publish(publication)
        try scratch.write("objects/" + ByteString(stream.id.objectPath), content(Int(stream.size)))
        guard case .unreadableRoot(let path, _) = failure({ _ = try repository.collectGarbage() }) else {
            Issue.record("collected with an unreadable root")
            return
        }
        #expect(path == "streams/s")
        let directory = try scratch.directory()
        #expect(try directory.lock(.shared, wait: false))
    }

    @Test func secureRepository() throws {
        let scratch = try Scratch()
        let supported: Bool
        do {
            supported = try scratch.create(verity: .automatic).isSecure
        }
        if Host.environment("CFSOCI_TEST_VERITY_DIR") != nil { #expect(supported) }
        guard supported else {
            // Refused if fs-verity is required, and then no file remains.
            let other = try Scratch()
            guard case .verityUnsupported = failure({ _ = try other.create(verity: .required) }) else {
                Issue.record("a repository without verity was made")
                return
            }
            #expect(failure { _ = try other.open() }?.description.contains("No such file or directory") == true)
            return
        }
        let repository = try scratch.open(OpenOptions(requireVerity: true))
        let object = try repository.store(content(10_000))
        #expect(try !repository.store(content(10_000)).isNew)
        let path = "objects/" + ByteString(object.id.objectPath)
        let root = try scratch.directory()
        #expect(try root.open(at: path, .readOnly).measureVerity()?.digest == object.id.bytes)
        #expect(throws: SystemError.self) { _ = try root.open(at: path, .writeOnly) }
        _ = try repository.openObject(object.id)
        // An object that lost its verity is found, and replaced when it is stored again.
        try root.unlink(at: path)
        try scratch.write(path, content(10_000))
        #expect(failure { _ = try repository.openObject(object.id) }?.description == "object \(object.id) is damaged: it has no fs-verity")
        #expect(try repository.check().problems.map(\.description) == ["fsck: object-verity-missing: \(path)"])
        var writer = try repository.makeObjectWriter()
        try writer.append(content(10_000))
        #expect(try writer.finish() == StoredObject(id: object.id, size: 10_000, isNew: true))
        #expect(try repository.check().problems == [])
        try repository.publish(Repository.Publication())
    }
}
