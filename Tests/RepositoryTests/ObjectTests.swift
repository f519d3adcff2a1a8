import ComposefsBytes
import ComposefsConcurrency
import ComposefsHashing
import ComposefsLinuxSystem
import ComposefsRepository
import Testing

@Suite struct ObjectTests {
    /// Digests of the format's golden values.
    @Test func goldenNames() throws {
        let scratch = try Scratch()
        let repository = try scratch.create(.sha256)
        let hello = try repository.store(Array("hello world".utf8))
        #expect(hello.id.hex == "1e2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64")
        #expect(hello.size == 11)
        #expect(hello.isNew)
        let path: ByteString = "objects/1e/2eaa4202d750a41174ee454970b92c1bc2f925b1e35076d8c7d5f56362ba64"
        #expect(try scratch.read(path) == Array("hello world".utf8))
        #expect(try repository.store([]).id.hex == "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95")
        #expect(
            try repository.store([UInt8](repeating: 0, count: 4097)).id.hex
                == "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743")
        #expect(try repository.readObject(hello.id, limit: 11) == Array("hello world".utf8))
        #expect(
            failure { _ = try repository.readObject(hello.id, limit: 10) }?.description
                == "object \(hello.id) has 11 bytes, at most 10 were expected")
        #expect(try repository.objectSize(hello.id) == 11)
        let wide = try Scratch()
        #expect(
            try wide.create(.sha512).store(Array("hello world".utf8)).id.hex
                == "18430270729d162d4e469daca123ae61893db4b0583d8f7081e3bf4f92b88ba514e7982f10733fb6aa895195c5ae8fd2eb2c47a8be05513ce5a0c51a6f570409"
        )
        #expect(try wide.listing(false).keys.contains { $0.count == 8 + 2 + 1 + 126 })
    }

    @Test func chunksAndWritersGiveTheSameObject() throws {
        let scratch = try Scratch()
        let repository = try scratch.create(.sha512)
        let bytes = content(300_001)
        let first = try repository.store(bytes)
        var hasher = VerityHasher(.sha512)
        try bytes.withUnsafeBytes { all in
            let chunks = [0..<1, 1..<1, 1..<4097, 4097..<300_001].map { UnsafeRawBufferPointer(rebasing: all[$0]) }
            let again = try repository.storeObject(chunks, hasher: &hasher)
            #expect(again == StoredObject(id: first.id, size: 300_001, isNew: false))
        }
        var writer = try repository.makeObjectWriter()
        try writer.append(Array(bytes[..<5]))
        try writer.append(Array(bytes[5...]))
        #expect(try writer.finish() == StoredObject(id: first.id, size: 300_001, isNew: false))
        var other = try repository.makeObjectWriter()
        try other.append(Array(bytes[1...]))
        let new = try other.finish()
        #expect(new.isNew)
        #expect(try repository.readObject(new.id, limit: 1 << 20) == Array(bytes[1...]))
        #expect(try repository.check().objectsChecked == 2)
    }

    @Test func droppedWriterLeavesNothing() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        do {
            var writer = try repository.makeObjectWriter()
            try writer.append(content(100_000))
        }
        #expect(try scratch.listing(false).keys.sorted() == ["meta.json", "objects"])
    }

    @Test func modes() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let first = try repository.store([1])
        var writer = try repository.makeObjectWriter()
        try writer.append([2])
        let second = try writer.finish()
        let root = try scratch.directory()
        #expect(try root.status().permissions == 0o700)
        #expect(try root.status(at: "meta.json").permissions == 0o644)
        // 0644 and 0755 under the usual umask of 022, or a wider one.
        #expect(try root.status(at: "objects").permissions == 0o755)
        #expect(try root.status(at: "objects/" + ByteString(first.id.objectPath)).permissions == 0o644)
        #expect(try root.status(at: "objects/" + ByteString(second.id.objectPath)).permissions == 0o644)
    }

    enum Damage: CaseIterable { case empty, cut, changed, longer, link, directoryMissing }
    enum Way: CaseIterable {
        case memory
        /// After many objects that were new, so that this one is expected to be new, too.
        case memoryAfterNewOnes
        case writer
    }

    /// What a crash or a fault left under an object's name is replaced, never kept.
    @Test(arguments: Damage.allCases, Way.allCases)
    func tornObjectIsReplaced(_ damage: Damage, _ way: Way) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let bytes = content(10_000)
        if way == .memoryAfterNewOnes { for number in 0..<100 { #expect(try repository.store(content(100 + number)).isNew) } }
        let object = try repository.store(bytes)
        let path = "objects/" + ByteString(object.id.objectPath)
        let root = try scratch.directory()
        try root.unlink(at: path)
        switch damage {
        case .empty: try scratch.write(path, [])
        case .cut: try scratch.write(path, Array(bytes[..<4096]))
        case .changed: try scratch.write(path, bytes[..<9999] + [~bytes[9999]])
        case .longer: try scratch.write(path, bytes + [0])
        case .link: try root.symlink(target: "/etc/passwd", at: path)
        case .directoryMissing: try root.removeDirectory(at: ByteString(Array(path.bytes[..<10])))
        }
        let again: StoredObject
        if way == .writer {
            var writer = try repository.makeObjectWriter()
            try writer.append(bytes)
            again = try writer.finish()
        } else {
            again = try repository.store(bytes)
        }
        #expect(again == StoredObject(id: object.id, size: 10_000, isNew: true))
        #expect(try scratch.read(path) == bytes)
        #expect(try repository.check().problems == [])
        #expect(try scratch.listing(false).keys.allSatisfy { !$0.contains(".tmp") })
    }

    @Test func openingVerifies() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let object = try repository.store(content(5000))
        let path = "objects/" + ByteString(object.id.objectPath)
        _ = try repository.openObject(object.id)
        var damaged = content(5000)
        damaged[4999] ^= 1
        try scratch.directory().unlink(at: path)
        try scratch.write(path, damaged)
        let actual = damaged.withUnsafeBytes { VerityHasher.objectID(of: $0, .sha256) }
        let reads: [() throws -> Void] = [
            { _ = try repository.openObject(object.id) }, { _ = try repository.readObject(object.id, limit: 5000) },
        ]
        for read in reads {
            guard case .objectDamaged(object.id, .digest(actual)) = failure(read) else {
                Issue.record("\(String(describing: failure(read)))")
                continue
            }
        }
        _ = try repository.openObject(object.id, verify: false)
        try scratch.directory().unlink(at: path)
        #expect(failure { _ = try repository.openObject(object.id) }?.description == "object \(object.id) is missing")
        #expect(try repository.objectSize(object.id) == nil)
    }

    /// After many new objects, one that the repository has is found by its name, and takes no further space.
    @Test func presentAfterManyNewOnes() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        for number in 0..<100 { #expect(try repository.store(content(100 + number)).isNew) }
        let before = try scratch.listing()
        for number in [7, 8] {
            let again = try repository.store(content(100 + number))
            #expect(again == StoredObject(id: again.id, size: UInt64(100 + number), isNew: false))
        }
        #expect(try scratch.listing() == before)
        #expect(try repository.store(content(300)).isNew)
        #expect(try repository.check().objectsChecked == 101)
    }

    /// Many threads store the same and different objects at once.
    @Test func manyThreads() throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        let pool = WorkerPool(threads: 8)
        let failures = BoundedQueue<String>(capacity: 10_000)
        for thread in 0..<8 {
            pool.submit {
                var hasher = VerityHasher(.sha256)
                for number in 0..<200 {
                    let bytes = content(100 + number, seed: number % 2 == 0 ? 0 : UInt8(thread))
                    do {
                        try bytes.withUnsafeBytes { _ = try repository.storeObject([$0], hasher: &hasher) }
                    } catch {
                        failures.push("\(error)")
                    }
                }
            }
        }
        pool.shutdown()
        failures.close()
        #expect(failures.pop() == nil)
        let report = try repository.check()
        #expect(report.problems == [])
        #expect(report.objectsChecked == 100 + 8 * 100)
    }

    /// Without O_TMPFILE a hidden name is used, and removed.
    @Test func namedTemporaries() throws {
        final class NoTemporaries: SystemCallObserver {
            func before(_ call: SystemCall) -> Errno? {
                guard call.kind == .create, let path = call.path, path.elementsEqual("objects".utf8) else { return nil }
                return .notSupported
            }
            func after(_ call: SystemCall, result: Int) {}
        }
        let scratch = try Scratch()
        let repository = try scratch.create()
        try Recorder(forwarding: NoTemporaries()).observe {
            let bytes = content(9000)
            let object = try repository.store(bytes)
            #expect(object.isNew)
            #expect(try repository.readObject(object.id, limit: 9000) == bytes)
            #expect(try !repository.store(bytes).isNew)
            do {
                var writer = try repository.makeObjectWriter()
                try writer.append([1])
                #expect(try scratch.listing().keys.contains { $0.hasPrefix("objects/.tmp-object-") && $0.count == 8 + 12 + 12 })
            }
            try scratch.directory().unlink(at: "objects/" + ByteString(object.id.objectPath))
            try scratch.write("objects/" + ByteString(object.id.objectPath), [])
            #expect(try repository.store(bytes).isNew)
        }
        #expect(try scratch.listing().keys.allSatisfy { !$0.contains(".tmp-object-") })
        #expect(try repository.check().problems == [])
    }

    @Test(arguments: [Errno.noSpace, .quotaExceeded, .inputOutput, .tooManyOpenFiles])
    func failuresAreOneClearError(_ errno: Errno) throws {
        let scratch = try Scratch()
        let repository = try scratch.create()
        try repository.beginPull()
        let bytes = content(9000)
        // Each of the calls that storing makes fails once.
        var stopped = 0
        for limit in 0..<20 {
            let recorder = Recorder(stopAfter: limit, with: errno)
            let error = recorder.observe { failure { _ = try repository.store(bytes) } }
            guard recorder.isStopped else { break }
            stopped += 1
            #expect(error?.description.contains(errno.description) == true, "\(limit): \(String(describing: error))")
            if case .system(let system) = error {
                #expect(system.errno == errno)
            } else {
                Issue.record("\(limit): \(String(describing: error))")
            }
            #expect(try scratch.listing().keys.allSatisfy { $0.count < 20 || $0.hasPrefix(".staging/") })
        }
        #expect(stopped >= 3)
        #expect(try !repository.store(bytes).isNew)
    }
}
