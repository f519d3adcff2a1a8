import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import ComposefsTestSupport
import Glibc
import Synchronization
import Testing

/// What only a kernel and file system with fs-verity can show; cancelled elsewhere.
@Suite struct SecureRepositoryTests {
    private func secure(_ scratch: Scratch, _ algorithm: VerityAlgorithm = .sha512) throws -> Repository {
        do {
            return try scratch.create(algorithm, verity: .required)
        } catch RepositoryError.verityUnsupported {
            try Test.cancel("no fs-verity here (CFSOCI_TEST_VERITY_DIR names a directory with it)")
        }
    }

    @Test(arguments: VerityAlgorithm.allCases)
    func lifecycle(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let repository = try secure(scratch, algorithm)
        #expect(repository.isSecure)
        let bytes = content(100_000)
        let small = try repository.store(bytes)
        var writer = try repository.makeObjectWriter()
        try writer.append(content(200_000, seed: 1))
        let large = try writer.finish()
        #expect(try repository.openObject(large.id).measureVerity()?.digest == large.id.bytes)
        let stream = try repository.storeStream(objects: [small, large])
        var publication = Repository.Publication()
        publication.stream("layer", stream.id)
        publication.streamReference("tag", to: "layer")
        try repository.publish(publication)
        #expect(try repository.check().problems == [])
        _ = try repository.openStream(stream.id)
        _ = try repository.store([1])
        #expect(try repository.collectGarbage().objectsRemoved == 1)
        #expect(try !repository.store(bytes).isNew)
        #expect(throws: SystemError.self) { try scratch.write("meta.json", [1]) }
        // Another process replaced an object by a file that has verity, but of another content.
        let path = "objects/" + ByteString(small.id.objectPath)
        try scratch.directory().rename(at: "objects/" + ByteString(large.id.objectPath), to: path)
        let report = try repository.check()
        #expect(report.problems.first?.description == "fsck: object-digest-mismatch: \(path): measured \(large.id)")
        guard case .objectDamaged = failure({ _ = try repository.openObject(small.id) }) else {
            Issue.record("opened with another content")
            return
        }
        #expect(try repository.store(bytes).isNew)
        var again = try repository.makeObjectWriter()
        try again.append(content(200_000, seed: 1))
        #expect(try again.finish().isNew)
        #expect(try repository.check().problems == [])
    }

    /// Another process (a child that was forked at the wrong moment) holds the new file open for writing: a copy is made.
    @Test(arguments: [1, 3])
    func busyFile(_ files: Int) throws {
        final class Holder: SystemCallObserver {
            let limit: Int
            let state = Mutex<(inodes: Set<UInt64>, files: [Int32])>(([], []))
            init(_ limit: Int) { self.limit = limit }
            deinit { state.withLock { for file in $0.files { _ = FileDescriptor(owning: file) } } }

            func before(_ call: SystemCall) -> Errno? {
                guard call.kind == .enableVerity else { return nil }
                state.withLock { state in
                    guard let file = try? FileDescriptor.open(ByteString("/proc/self/fd/\(call.descriptor)"), .readWrite),
                        let inode = try? file.status().inode
                    else { return }
                    if state.inodes.count < limit || state.inodes.contains(inode), state.inodes.insert(inode).inserted {
                        state.files.append(file.release())
                    }
                }
                return nil
            }
            func after(_ call: SystemCall, result: Int) {}
        }
        let scratch = try Scratch()
        let repository = try secure(scratch)
        try repository.beginPull()
        let holder = Holder(files)
        let recorder = Recorder(forwarding: holder)
        let object = try recorder.observe { try repository.store(content(10_000)) }
        #expect(object.isNew)
        #expect(holder.state.withLock { $0.inodes.count } == files)
        #expect(recorder.recorded.filter { $0.kind == .enableVerity }.count == 1)
        #expect(try repository.check().problems == [])
        // If every copy is held open, the operation fails.
        let patient = Recorder(forwarding: Holder(.max))
        let error = patient.observe { failure { _ = try repository.store(content(20_000)) } }
        #expect(error?.description.hasSuffix("Text file busy") == true, "\(String(describing: error))")
        #expect(try repository.check().objectsChecked == 1)
    }

    /// Another thread forks all the time, and each child holds for a while the files that were open for writing.
    @Test(arguments: VerityAlgorithm.allCases) func forkingThread(_ algorithm: VerityAlgorithm) throws {
        let scratch = try Scratch()
        let repository = try secure(scratch, algorithm)
        // Swift hides fork(2), since most of what Swift does is not allowed in its child; this one only sleeps and ends.
        let fork = unsafeBitCast(try #require(dlsym(nil, "fork")), to: (@convention(c) () -> pid_t).self)
        final class Attempts: SystemCallObserver {
            let count = Atomic(0)
            func before(_ call: SystemCall) -> Errno? {
                if call.kind == .enableVerity { count.add(1, ordering: .relaxed) }
                return nil
            }
            func after(_ call: SystemCall, result: Int) {}
        }
        final class Forking: Sendable {
            let isOver = Atomic(false)
            let children = Atomic(0)
        }
        let (attempts, forking) = (Attempts(), Forking())
        let other = WorkerPool(threads: 1)
        other.submit {
            var running: [pid_t] = []
            while !forking.isOver.load(ordering: .relaxed) {
                let child = fork()
                if child == 0 {
                    usleep(5000)
                    _exit(0)
                }
                if child > 0 {
                    running.append(child)
                    forking.children.add(1, ordering: .relaxed)
                }
                usleep(500)
                running.removeAll { waitpid($0, nil, WNOHANG) != 0 }
            }
            for child in running { waitpid(child, nil, 0) }
        }
        defer {
            forking.isOver.store(true, ordering: .relaxed)
            other.shutdown()
        }
        let ids = try Recorder(forwarding: attempts).observe {
            var ids: [ObjectID] = []
            // Until it did happen: the kernel refused a file that a child had open for writing.
            for index in 0..<5000 {
                ids.append(try repository.store(content(4_000 + index)).id)
                if index >= 30, attempts.count.load(ordering: .relaxed) > ids.count + 3 { break }
            }
            return ids
        }
        #expect(attempts.count.load(ordering: .relaxed) > ids.count + 3, "\(forking.children.load(ordering: .relaxed)) children")
        #expect(Set(ids).count == ids.count)
        for id in ids { #expect(try repository.openObject(id).measureVerity()?.digest == id.bytes) }
        #expect(try repository.check().problems == [])
    }

    /// Dying at any call of storing leaves nothing half done.
    @Test func everyCrashPoint() throws {
        var points = 0
        for limit in 0..<60 {
            let scratch = try Scratch()
            do { _ = try secure(scratch) }
            let recorder = Recorder(stopAfter: limit)
            recorder.observe { _ = try? scratch.open().store(content(5000)) }
            guard recorder.isStopped else { break }
            points += 1
            let repository = try scratch.open(OpenOptions(requireVerity: true))
            #expect(try repository.check().problems == [], "after call \(limit)")
            _ = try repository.store(content(5000))
            #expect(try repository.check().problems == [])
        }
        #expect(points >= 6)
    }
}
